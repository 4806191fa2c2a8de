//! A loop for each MySQLCluster, from the moment it is listed until it is deleted.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::runtime::watcher;
use tokio::sync::watch;

use crate::crd::MySQLCluster;
use crate::daemon::Complaint;

/// Starts `run` for each cluster that the watch tells of, with a channel that holds its newest state and closes when the cluster
/// is gone. `run` must not wait: it spawns.
pub async fn each(
    events: impl Stream<Item = Result<watcher::Event<MySQLCluster>, watcher::Error>>,
    mut run: impl FnMut(watch::Receiver<Arc<MySQLCluster>>),
) {
    let mut events = std::pin::pin!(events);
    let complaint = Complaint::default();
    let mut running: HashMap<String, watch::Sender<Arc<MySQLCluster>>> = HashMap::new();
    let mut listed: Option<Vec<String>> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = Some(Vec::new()),
            Ok(watcher::Event::InitApply(cluster) | watcher::Event::Apply(cluster)) => {
                // The UID is the identity: a name that is used again is another cluster.
                let uid = cluster.uid().unwrap_or_default();
                if let Some(listed) = &mut listed {
                    listed.push(uid.clone());
                }
                let cluster = Arc::new(cluster);
                if let Some(sender) = running.get(&uid) {
                    sender.send_replace(cluster);
                } else {
                    let (sender, receiver) = watch::channel(cluster);
                    run(receiver);
                    running.insert(uid, sender);
                }
            }
            Ok(watcher::Event::InitDone) => {
                if let Some(listed) = listed.take() {
                    running.retain(|uid, _| listed.contains(uid));
                }
            }
            Ok(watcher::Event::Delete(cluster)) => {
                running.remove(&cluster.uid().unwrap_or_default());
            }
            Err(error) => complaint.about("clusters", &error),
        }
    }
}
