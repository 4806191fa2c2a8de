//! The shipped decision, asked about what a controller knows. It is pure, so the same question is asked once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::instance::{Canary, InstanceState, MysqldState, ReceiverState, ReplicationState, Role, SourceState};

use super::super::fixture::{fresh, wish};
use super::super::{Answer, Instance, Observed, Outcome, Plan, decide, errant, is_open};
use super::bounds::{Bounds, Mood};
use super::command::Command;
use super::facts::Facts;
use super::heard::{Heard, Snap, View};
use super::orders::Reply;
use super::sabotage;
use super::server::Duty;
use super::sets::{Bits, Made, bits, data_name, gtids, has, name, names, number, uuid};

/// What a decision comes to, in small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) next: Option<Facts>,
    pub(super) undone: bool,
    pub(super) orders: Vec<(u8, Command)>,
    /// Where reads are sent, and whose replicas they are.
    pub(super) reads: Option<(u8, Bits)>,
    pub(super) blocked: Option<&'static str>,
}

/// Asks, and remembers the answers.
pub(super) struct Mind {
    bounds: Bounds,
    known: Mutex<HashMap<View, Arc<Choice>>>,
}

impl Mind {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { bounds: bounds.clone(), known: Mutex::new(HashMap::new()) }
    }

    pub(super) fn asked(&self) -> usize {
        self.known.lock().unwrap().len()
    }

    pub(super) fn choose(&self, view: View) -> Arc<Choice> {
        if let Some(choice) = self.known.lock().unwrap().get(&view) {
            return Arc::clone(choice);
        }
        let seen = observed(&view, &self.bounds);
        let plan = sabotage::decide_with(self.bounds.sabotage, &seen, decide);
        let choice = Arc::new(in_small(&view, &plan));
        self.known.lock().unwrap().insert(view, Arc::clone(&choice));
        choice
    }
}

fn in_small(view: &View, plan: &Plan) -> Choice {
    let orders = plan.orders.iter().filter_map(|(to, order)| Some((number(to), Command::from(&view.made, order)?)));
    Choice {
        next: plan.record.as_ref().map(Facts::from),
        undone: plan.undone,
        orders: orders.collect(),
        reads: plan.routes.as_ref().and_then(|routes| Some((number(routes.primary.as_ref()?), bits(&routes.replicas)))),
        blocked: plan.blocked.as_ref().map(|blocked| blocked.reason),
    }
}

fn mysqld(made: &[Made], snap: &Snap) -> MysqldState {
    let replication = snap.source.map(|source| ReplicationState {
        source_host: format!("{}.c.ns.svc", name(source)),
        receiver: match (snap.receiving, snap.connected) {
            (false, _) => ReceiverState::No,
            (true, false) => ReceiverState::Connecting,
            (true, true) => ReceiverState::Yes,
        },
        heard_age_ms: Some(10),
        receiver_error: String::new(),
        applier_running: snap.applying,
        applier_error: String::new(),
        lag_seconds: 0.0,
        acknowledges: snap.acknowledges && snap.connected,
    });
    let acks_needed = match snap.duty {
        Duty::Primary { needed, .. } => needed.into(),
        Duty::None | Duty::Fenced | Duty::Replica { .. } => 0,
    };
    MysqldState {
        version: String::new(),
        server_uuid: uuid(snap.uuid).to_string(),
        super_read_only: snap.read_only,
        read_only: snap.read_only,
        offline: snap.offline,
        executed: gtids(made, snap.executed),
        owned: gtids(made, snap.owned),
        received: gtids(made, snap.received),
        purged: common::gtid::GtidSet::default(),
        replication,
        source: SourceState { enabled: acks_needed > 0, acks_needed, ..SourceState::default() },
    }
}

fn state(made: &[Made], server: u8, snap: &Snap) -> InstanceState {
    InstanceState {
        promised: snap.promised.into(),
        role: snap.duty.role(),
        in_force: snap.in_force,
        phase: snap.phase,
        leaving: snap.leaving,
        tail_unproven: snap.unproven,
        data_id: data_name(snap.data),
        mysqld: snap.up.then(|| mysqld(made, snap)),
        ..fresh(&name(server))
    }
}

fn instance(view: &View, server: u8) -> Instance {
    let known = match &view.heard[server as usize] {
        Heard::State(snap) => Some(state(&view.made, server, snap)),
        Heard::Nothing | Heard::Absent => None,
    };
    Instance {
        ordinal: server.into(),
        host: format!("{}.c.ns.svc", name(server)),
        address: None,
        reachable: view.heard[server as usize] != Heard::Absent,
        refused: false,
        state: known,
        age: Duration::from_secs(if has(view.silent, server) { 60 } else { 0 }),
        unhealthy_for: view.mood.age(),
        ahead_for: view.mood.age(),
        stops: true,
        cleared: has(view.cleared, server),
        behind_for: Duration::ZERO,
        errant: common::gtid::GtidSet::default(),
        high_water: view.water.get(server as usize).map(|set| gtids(&view.made, *set)).unwrap_or_default(),
    }
}

/// As the memory of failover-d puts it together.
fn observed(view: &View, bounds: &Bounds) -> Observed {
    let recorded = |server: u8| has(view.facts.ackers, server) || view.facts.primary == Some(server);
    let mut instances: BTreeMap<_, _> = (0..view.heard.len() as u8)
        .filter(|server| {
            let pod = !matches!(view.heard[*server as usize], Heard::Absent);
            pod || *server < view.hope.instances || recorded(*server)
        })
        .map(|server| (name(server), instance(view, server)))
        .collect();
    let primary = view.facts.primary.map(name);
    let said = primary.as_ref().and_then(|name| instances.get(name)?.state.clone());
    let hears = view.facts.primary.is_some_and(|primary| !has(view.silent, primary));
    if let Some(said) = said.filter(|said| view.learned && hears && is_open(said)) {
        for (name, instance) in &mut instances {
            if let Some(state) = instance.state.as_ref().filter(|_| primary.as_ref() != Some(name)) {
                instance.errant = errant(state, &said);
            }
        }
    }
    if let Some(suspect) = primary.as_ref().filter(|_| view.mood == Mood::Wary)
        && let Some(state) = instances.get_mut(suspect).and_then(|instance| instance.state.as_mut())
    {
        state.canary = Some(Canary { session_age_ms: 5_000, login_age_ms: 5_000 });
    }
    let epoch = view.facts.epoch_of_answers().into();
    let answers = (0..view.answers.len() as u8).filter_map(|server| {
        let outcome = match view.answers[server as usize]? {
            Reply::Dead => Outcome::Dead,
            Reply::Declined => Outcome::Declined(String::new()),
            Reply::Held { executed, received, data, uuid: id } => {
                let mut held = fresh(&name(server));
                held.promised = epoch;
                held.role = Role::Fenced;
                held.data_id = data_name(data);
                if let Some(mysqld) = &mut held.mysqld {
                    mysqld.server_uuid = uuid(id).to_string();
                    mysqld.executed = gtids(&view.made, executed);
                    mysqld.received = gtids(&view.made, received);
                }
                Outcome::Held(Box::new(held))
            }
        };
        Some((name(server), Answer { epoch, outcome }))
    });
    let mut hopes = wish(view.hope.instances.into());
    hopes.primary = view.hope.primary.map(name);
    hopes.fenced = names(view.hope.fenced);
    hopes.available = bounds.available;
    Observed {
        record: view.facts.record(),
        wish: hopes,
        answers: answers.collect(),
        instances,
        operation_age: view.mood.operation_age(),
        last_undone: view.undone.then(|| view.mood.age()),
        unborn_age: view.mood.age(),
        recent_changes: 0,
    }
}
