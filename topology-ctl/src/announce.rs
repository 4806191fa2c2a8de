//! News for people and programs: Kubernetes Events on the MySQLCluster, and events on NATS. A courtesy: nothing waits
//! for them and nothing fails without them.

use std::time::Duration;

use common::events::{Event as NatsEvent, Events};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use serde_json::Value;
use tracing::debug;

use crate::build::Cluster;

/// Longest note that an Event takes.
const NOTE_MAX: usize = 1000;
/// Deadline of publishing an Event.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where news about one cluster goes.
#[derive(Clone)]
pub struct Announcer<'a> {
    /// Kubernetes Events.
    pub recorder: &'a Recorder,
    /// NATS.
    pub events: &'a Events,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The MySQLCluster.
    pub reference: ObjectReference,
}

impl Announcer<'_> {
    /// Something went as it should.
    pub async fn normal(&self, reason: &str, action: &str, note: &str, instance: Option<&str>) {
        self.publish(EventType::Normal, reason, action, note, instance).await;
    }

    /// Something needs a look.
    pub async fn warning(&self, reason: &str, action: &str, note: &str, instance: Option<&str>) {
        self.publish(EventType::Warning, reason, action, note, instance).await;
    }

    /// For programs.
    pub fn event(&self, kind: &'static str, data: Value) {
        let (namespace, cluster) = (self.cluster.namespace.clone(), self.cluster.name.clone());
        self.events.publish(NatsEvent { namespace, cluster, kind, data });
    }

    async fn publish(&self, type_: EventType, reason: &str, action: &str, note: &str, instance: Option<&str>) {
        let note = note.get(..note.floor_char_boundary(NOTE_MAX)).unwrap_or_default();
        let pod = instance.map(|name| ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.to_owned()),
            namespace: Some(self.cluster.namespace.clone()),
            ..ObjectReference::default()
        });
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: (!note.is_empty()).then(|| note.to_owned()),
            action: action.to_owned(),
            secondary: pod,
        };
        match tokio::time::timeout(TIMEOUT, self.recorder.publish(&event, &self.reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, reason, "the Event was not taken"),
            Err(_) => debug!(reason, "the Event was not taken in time"),
        }
    }
}
