//! What to do about one cluster: pure functions from what was observed to what shall be done.
//!
//! ```text
//! Record (failover-d's facts) ─┐
//! Member (pod, state, volume) ─┼─> provision · rollout · replicas · volumes · settings · authority ─> plans
//! time, memory of attempts ────┘
//! ```
//!
//! Nothing here knows Kubernetes, MySQL or tokio. Not doing something is a plan too, with its reason.

pub mod authority;
pub mod closed;
pub mod provision;
pub mod rebuild;
pub mod restore;
pub mod rollout;
pub mod scale;
pub mod settings;
pub mod volume;

use std::collections::BTreeSet;

use common::instance::{Epoch, InstanceState, Phase};

/// What failover-d has recorded about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// 0: nobody was ever promoted.
    pub epoch: Epoch,
    /// Who takes writes.
    pub primary: Option<String>,
    /// Replicas whose acknowledgement counts: each may be the proof of an acknowledged write.
    pub ackers: BTreeSet<String>,
    /// Acknowledgements that each commit is recorded to wait for.
    pub acks_needed: u32,
    /// Whether a failover or switchover is under way.
    pub operation: bool,
    /// Who leads: the primary, or the candidate that is being promoted.
    pub leader: Option<Leader>,
    /// Everybody whose data may be the proof of an acknowledged write: primaries and ackers of all reigns that an election
    /// would have to prove.
    pub counted: BTreeSet<String>,
}

/// The primary while no operation is under way, or the candidate that one promotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Who.
    pub name: String,
    /// Names its data, as it was recorded or elected.
    pub data: Option<String>,
    /// In which epoch.
    pub epoch: Epoch,
}

impl Record {
    /// No write was ever acknowledged: nothing can be lost, and nobody has claimed the bootstrap.
    pub fn is_new(&self) -> bool {
        self.epoch == 0 && !self.operation
    }

    /// The epoch in which instances are told whom to follow.
    pub fn leading_epoch(&self) -> Epoch {
        self.leader.as_ref().map_or(self.epoch, |leader| leader.epoch)
    }
}

/// One instance: what is known about its pod, its volume and itself.
#[derive(Clone, Debug)]
pub struct Member {
    /// Pod name.
    pub name: String,
    /// The number at its end.
    pub ordinal: u32,
    /// Absent: there is no such pod at the moment.
    pub pod: Option<Pod>,
    /// Its volume.
    pub volume: Volume,
    /// Absent: it did not answer.
    pub state: Option<InstanceState>,
}

impl Member {
    /// Waits for a provisioning order: no data, or none that an earlier order finished.
    pub fn is_empty(&self) -> bool {
        self.state.as_ref().is_some_and(|state| match state.phase {
            Phase::Empty => true,
            Phase::Failed => state.data_id.is_none(),
            Phase::Initialising
            | Phase::Cloning
            | Phase::Crashed
            | Phase::Rewinding
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping => false,
        })
    }

    /// Whether its pod was made from the template with this digest, and stays.
    pub fn has_template(&self, digest: &str) -> bool {
        self.pod.as_ref().is_some_and(|pod| !pod.deleting && pod.template.as_deref() == Some(digest))
    }

    fn is_phase(&self, phase: Phase) -> bool {
        self.state.as_ref().is_some_and(|state| state.phase == phase)
    }
}

/// The pod of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Tells a new pod from an old one of the same name.
    pub uid: String,
    /// Digest of the template that it was made from.
    pub template: Option<String>,
    /// Readiness as Kubernetes sees it.
    pub ready: bool,
    /// On its way out.
    pub deleting: bool,
    /// Not placed on a node, or its containers have not started yet.
    pub pending: bool,
    /// Made just now: its claim may not have been seen yet.
    pub young: bool,
    /// Why it cannot start (image, crash loop, no node), for people.
    pub stuck: Option<String>,
}

/// The volume of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// There is no claim.
    Missing,
    /// The claim waits for a volume.
    Pending,
    /// The claim is being deleted; that ends with the pod.
    Deleting,
    /// The claim's volume is gone for ever.
    Lost,
    /// Usable.
    Bound,
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! A healthy cluster of any size, to be broken by the tests.

    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use common::instance::{MysqldState, ReceiverState, ReplicationState, Role};

    /// Names of the first `count` instances.
    pub fn name(ordinal: u32) -> String {
        common::names::instance("shop", ordinal)
    }

    /// Epoch 1, instance 0 is the primary, all others are ackers.
    pub fn record(count: u32) -> Record {
        let ackers = (1..count).map(name).collect();
        Record {
            epoch: 1,
            primary: Some(name(0)),
            ackers,
            acks_needed: (count / 2).min(count - 1),
            operation: false,
            leader: Some(Leader { name: name(0), data: Some("d0".into()), epoch: 1 }),
            counted: (0..count).map(name).collect(),
        }
    }

    /// A state with nothing special about it.
    pub fn state(ordinal: u32, phase: Phase) -> InstanceState {
        serde_json::from_value(serde_json::json!({
            "name": name(ordinal), "namespace": "team-a", "cluster": "shop", "incarnation": "i", "sequence": 1,
            "promised": 1, "role": {"kind": "none"}, "inForce": true, "phase": phase, "leaving": false, "problem": null,
            "progress": null, "dataId": null, "disk": {"freeBytes": 1, "totalBytes": 2}, "mysqld": null,
            "canary": null,
        }))
        .expect("an instance state")
    }

    /// mysqld as it looks on a replica of instance 0.
    pub fn mysqld(executed: &str) -> MysqldState {
        let mut value = serde_json::json!({
            "version": "9.7.4", "serverUuid": "u", "superReadOnly": true, "readOnly": true, "offline": false,
            "executed": executed, "received": executed, "purged": "", "replication": null,
            "source": common::instance::SourceState::default(),
        });
        value["replication"] = serde_json::to_value(ReplicationState {
            source_host: "h".into(),
            receiver: ReceiverState::Yes,
            heard_age_ms: Some(10),
            receiver_error: String::new(),
            applier_running: true,
            applier_error: String::new(),
            lag_seconds: 0.0,
            acknowledges: true,
        })
        .unwrap();
        serde_json::from_value(value).expect("a mysqld state")
    }

    /// A member of a healthy cluster.
    pub fn member(ordinal: u32) -> Member {
        let mut state = state(ordinal, Phase::Running);
        state.data_id = Some(format!("d{ordinal}"));
        let mut mysqld = mysqld("11111111-1111-1111-1111-111111111111:1-10");
        if ordinal == 0 {
            mysqld.replication = None;
            state.role = Role::Primary { acks_needed: 1, struck: Vec::new() };
        } else {
            state.role = Role::Replica { source: name(0), acknowledges: true };
        }
        state.mysqld = Some(mysqld);
        Member {
            name: name(ordinal),
            ordinal,
            pod: Some(Pod { uid: format!("u{ordinal}"), template: Some("new".into()), ready: true, ..Pod::default() }),
            volume: Volume::Bound,
            state: Some(state),
        }
    }

    /// A member that waits for data.
    pub fn empty(ordinal: u32) -> Member {
        let mut member = member(ordinal);
        let mut state = state(ordinal, Phase::Empty);
        state.promised = 0;
        member.state = Some(state);
        if let Some(pod) = &mut member.pod {
            pod.ready = false;
        }
        member
    }

    /// A healthy cluster.
    pub fn members(count: u32) -> Vec<Member> {
        (0..count).map(member).collect()
    }
}
