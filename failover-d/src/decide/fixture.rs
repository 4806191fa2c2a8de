//! States of instances and observations of clusters, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::instance::{
    Canary, Disk, InstanceState, MysqldState, Phase, ReceiverState, ReplicationState, Role, SourceState,
};

use super::{Instance, Observed, Record, Wish};

/// UUID of the server of an instance.
pub fn uuid(name: &str) -> String {
    let ordinal: u32 = name.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok()).unwrap_or(0);
    format!("00000000-0000-0000-0000-{ordinal:012}")
}

/// An instance that has just been provisioned.
pub fn fresh(name: &str) -> InstanceState {
    InstanceState {
        name: name.into(),
        namespace: "ns".into(),
        cluster: "c".into(),
        incarnation: "i".into(),
        sequence: 1,
        promised: 0,
        role: Role::None,
        in_force: false,
        tail_unproven: false,
        phase: Phase::Running,
        leaving: false,
        problem: None,
        progress: None,
        data_id: Some(format!("data-{name}")),
        disk: Disk::default(),
        mysqld: Some(MysqldState {
            version: "9.7.4".into(),
            server_uuid: uuid(name),
            super_read_only: true,
            read_only: true,
            offline: true,
            owned: common::gtid::GtidSet::default(),
            executed: common::gtid::GtidSet::default(),
            received: common::gtid::GtidSet::default(),
            purged: common::gtid::GtidSet::default(),
            replication: None,
            source: SourceState::default(),
        }),
        canary: Some(Canary::default()),
        restored: None,
        rewound: None,
        errant: None,
        copies_to_archive: 0,
    }
}

/// A serving primary in epoch 1 that waits for `acks_needed`.
pub fn primary(name: &str, acks_needed: u32) -> InstanceState {
    let mut state = fresh(name);
    state.promised = 1;
    state.in_force = true;
    state.role = Role::Primary { acks_needed, struck: Vec::new() };
    if let Some(mysqld) = &mut state.mysqld {
        mysqld.super_read_only = false;
        mysqld.read_only = false;
        mysqld.offline = false;
        mysqld.source.enabled = acks_needed > 0;
        mysqld.source.acks_needed = acks_needed;
    }
    state
}

/// A healthy replica in epoch 1 that acknowledges.
pub fn replica(name: &str, source: &str) -> InstanceState {
    let mut state = fresh(name);
    state.promised = 1;
    state.in_force = true;
    state.role = Role::Replica { source: source.into(), acknowledges: true };
    if let Some(mysqld) = &mut state.mysqld {
        mysqld.offline = false;
        mysqld.replication = Some(ReplicationState {
            source_host: format!("{source}.c.ns.svc"),
            receiver: ReceiverState::Yes,
            heard_age_ms: Some(10),
            receiver_error: String::new(),
            applier_running: true,
            applier_error: String::new(),
            lag_seconds: 0.0,
            acknowledges: true,
        });
    }
    state
}

/// An instance that was heard of a moment ago.
pub fn heard(state: InstanceState) -> Instance {
    let ordinal = state.name.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok()).unwrap_or(0);
    Instance {
        ordinal,
        host: format!("{}.c.ns.svc", state.name),
        address: None,
        reachable: true,
        refused: false,
        state: Some(state),
        age: Duration::from_millis(50),
        unhealthy_for: Duration::ZERO,
        ahead_for: Duration::ZERO,
        stops: true,
        cleared: true,
        behind_for: Duration::ZERO,
        errant: common::gtid::GtidSet::default(),
        high_water: common::gtid::GtidSet::default(),
    }
}

/// A wish for so many instances.
pub fn wish(instances: u32) -> Wish {
    Wish {
        instances,
        primary: None,
        available: false,
        max_lag: Duration::from_secs(10),
        failover: true,
        hang_after: Duration::from_millis(1500),
        silent_after: Duration::from_millis(1500),
        max_changes: 6,
        hands_off: None,
        fenced: BTreeSet::new(),
        accept_loss: None,
        hibernated: false,
    }
}

/// `instances` that have just been provisioned, and nothing recorded.
pub fn newborn(instances: u32) -> Observed {
    Observed {
        record: Record::default(),
        wish: wish(instances),
        instances: (0..instances)
            .map(|ordinal| format!("c-{ordinal}"))
            .map(|name| (name.clone(), heard(fresh(&name))))
            .collect(),
        answers: BTreeMap::new(),
        operation_age: Duration::ZERO,
        last_undone: None,
        unborn_age: Duration::ZERO,
        recent_changes: 0,
    }
}

/// A healthy cluster in epoch 1 with c-0 as primary and all others recorded.
pub fn healthy(instances: u32) -> Observed {
    let names: Vec<String> = (0..instances).map(|ordinal| format!("c-{ordinal}")).collect();
    let ackers: BTreeSet<String> = names.iter().skip(1).cloned().collect();
    let acks_needed = super::acks_wanted(instances, ackers.len());
    let mut seen = newborn(instances);
    seen.instances = names
        .iter()
        .map(|name| {
            let state = if name == "c-0" { primary(name, acks_needed) } else { replica(name, "c-0") };
            (name.clone(), heard(state))
        })
        .collect();
    seen.record = Record {
        epoch: 1,
        primary: Some("c-0".into()),
        ackers,
        acks_needed,
        primary_data: Some("data-c-0".into()),
        unproven: Vec::new(),
        losses: Vec::new(),
        operation: None,
    };
    seen
}
