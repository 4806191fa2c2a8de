//! The watch of all MySQL pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::daemon;
use common::names::{self, LABEL_CLUSTER, LABEL_ROLE};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::decide::Name;
use crate::memory::PodFacts;

/// All MySQL pods. Empty until the first list is complete: a pod that was not listed yet is not a pod that is gone.
#[derive(Clone, Debug, Default)]
pub struct Pods(Option<Arc<ByCluster>>);

/// Pods by namespace and name of their cluster.
type ByCluster = HashMap<(String, String), BTreeMap<Name, PodFacts>>;

impl Pods {
    /// The pods of one cluster; `None` before the first list is complete.
    pub fn of(&self, namespace: &str, cluster: &str) -> Option<BTreeMap<Name, PodFacts>> {
        let all = self.0.as_ref()?;
        Some(all.get(&(namespace.to_owned(), cluster.to_owned())).cloned().unwrap_or_default())
    }
}

fn facts(pod: &Pod) -> Option<((String, String), Name, PodFacts)> {
    let cluster = pod.labels().get(LABEL_CLUSTER)?.clone();
    let name = pod.name_any();
    names::ordinal(&cluster, &name)?;
    let status = pod.status.as_ref();
    let ended = status
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    let facts = PodFacts {
        uid: pod.uid().unwrap_or_default(),
        address: status
            .and_then(|status| status.pod_ip.as_deref())
            .filter(|_| !ended)
            .and_then(|address| address.parse().ok()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        role: pod.labels().get(LABEL_ROLE).cloned(),
        deleted: pod.metadata.deletion_timestamp.is_some(),
    };
    Some(((pod.namespace().unwrap_or_default(), cluster), name, facts))
}

/// Watches the MySQL pods of all namespaces.
pub async fn pods(api: Api<Pod>, sender: watch::Sender<Pods>) {
    let config = daemon::watching().labels(LABEL_CLUSTER);
    let mut events = std::pin::pin!(watcher(api, config).backoff(daemon::Patience::default()));
    let mut known = ByCluster::new();
    let complaint = daemon::Complaint::default();
    let mut listing = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            // Nothing is said before the list is complete: a pod that was not listed yet would look gone.
            Ok(watcher::Event::Init) => {
                listing = HashMap::new();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                if let Some((cluster, name, facts)) = facts(&pod) {
                    listing.entry(cluster).or_insert_with(BTreeMap::new).insert(name, facts);
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => known = std::mem::take(&mut listing),
            Ok(watcher::Event::Apply(pod)) => {
                if let Some((cluster, name, facts)) = facts(&pod) {
                    let pods = known.entry(cluster).or_default();
                    if pods.get(&name) == Some(&facts) {
                        continue;
                    }
                    pods.insert(name, facts);
                }
            }
            Ok(watcher::Event::Delete(pod)) => {
                if let Some((cluster, name, facts)) = facts(&pod)
                    && let Some(pods) = known.get_mut(&cluster)
                    && pods.get(&name).is_some_and(|known| known.uid == facts.uid)
                {
                    pods.remove(&name);
                    if pods.is_empty() {
                        known.remove(&cluster);
                    }
                }
            }
            Err(error) => {
                complaint.about("pods", &error);
                continue;
            }
        }
        if matches!(&sender.borrow().0, Some(sent) if **sent == known) {
            continue;
        }
        sender.send_replace(Pods(Some(Arc::new(known.clone()))));
    }
}
