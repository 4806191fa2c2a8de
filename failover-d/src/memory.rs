//! What this process remembers of one cluster's instances between two decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::gtid::GtidSet;
use common::instance::{Epoch, InstanceState};
use common::names;

use crate::decide::{self, Answer, Instance, Kind, Name, Observed, Record, Wish};

/// A pod as Kubernetes shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// UID: tells a new pod from an old one of the same name.
    pub uid: String,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Node that it runs on.
    pub node: Option<String>,
    /// Its present role label, for people.
    pub role: Option<String>,
    /// It is being deleted.
    pub deleted: bool,
}

/// An instance that says that it is being stopped, while nothing is known of its pod's deletion, is believed after so long (the
/// node is shut down, say): a pod that is deleted without grace is stopped, too, and gone for the API server in a moment.
const STOPS_BY_ITSELF: Duration = Duration::from_secs(1);

/// What is remembered of one instance.
#[derive(Debug)]
struct Tracker {
    state: Option<InstanceState>,
    heard_at: Instant,
    refused: bool,
    healthy_at: Instant,
    level_at: Instant,
    leaving_since: Option<Instant>,
    high_water: GtidSet,
    suspect: Option<(GtidSet, u64)>,
    /// The epoch in which nothing was foreign to the recorded primary, and the data that this was said of.
    cleared: Option<(Epoch, Option<String>)>,
    errant: GtidSet,
    /// What the primary had executed at that time, and this one has not received since.
    goal: Option<(GtidSet, Instant)>,
}

impl Tracker {
    fn new(now: Instant) -> Self {
        Self {
            state: None,
            heard_at: now,
            refused: false,
            healthy_at: now,
            level_at: now,
            leaving_since: None,
            high_water: GtidSet::default(),
            suspect: None,
            cleared: None,
            errant: GtidSet::default(),
            goal: None,
        }
    }

    /// For how long something of the primary's has been missing.
    fn behind_for(&mut self, primary: Option<&GtidSet>, now: Instant) -> Duration {
        let received = self.state.as_ref().and_then(|state| state.mysqld.as_ref()).map(|mysqld| &mysqld.received);
        let (Some(received), Some(primary)) = (received, primary) else {
            self.goal = None;
            return Duration::ZERO;
        };
        if self.goal.as_ref().is_none_or(|(goal, _)| goal.is_subset(received)) {
            self.goal = (!primary.is_subset(received)).then(|| (primary.clone(), now));
        }
        self.goal.as_ref().map_or(Duration::ZERO, |(_, since)| now.duration_since(*since))
    }
}

/// What this process remembers of one cluster.
#[derive(Debug)]
pub struct Memory {
    namespace: String,
    cluster: String,
    trackers: BTreeMap<Name, Tracker>,
    answers: BTreeMap<Name, Answer>,
    operation: Option<(String, Instant)>,
    /// As recorded.
    epoch: Epoch,
    undone_at: Option<Instant>,
    unborn_since: Instant,
}

impl Memory {
    /// Remembers nothing yet.
    pub fn new(namespace: &str, cluster: &str, now: Instant) -> Self {
        Self {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            trackers: BTreeMap::new(),
            answers: BTreeMap::new(),
            operation: None,
            epoch: 0,
            undone_at: None,
            unborn_since: now,
        }
    }

    fn tracker(&mut self, name: &str, now: Instant) -> &mut Tracker {
        self.trackers.entry(name.to_owned()).or_insert_with(|| Tracker::new(now))
    }

    /// A state was received. One that is older than what is known (a late answer) is dropped.
    pub fn heard(&mut self, state: InstanceState, primary: Option<&Name>, now: Instant) {
        let name = state.name.clone();
        let tracker = self.tracker(&name, now);
        let stale = tracker
            .state
            .as_ref()
            .is_some_and(|known| known.incarnation == state.incarnation && known.sequence > state.sequence);
        if stale {
            return;
        }
        tracker.heard_at = now;
        tracker.refused = false;
        if let Some(mysqld) = &state.mysqld {
            tracker.high_water.extend_with(&mysqld.received);
        }
        tracker.state = Some(state);
        if primary == Some(&name) {
            self.look_for_errants(&name);
        }
    }

    /// Each state of the primary is held against what the replicas had said before it, and a replica is condemned only
    /// for what a later state of the primary still lacks. Only one that is open condemns; also one that is closed, and waits
    /// for whoever was condemned to prove its tail, may have by now what they were condemned for.
    fn look_for_errants(&mut self, primary: &Name) {
        let state = self.trackers.get(primary).and_then(|tracker| tracker.state.clone());
        let Some(state) = state.filter(|state| state.mysqld.is_some()) else { return };
        let is_open = decide::is_open(&state);
        let epoch = self.epoch;
        for (name, tracker) in &mut self.trackers {
            let Some(replica) = tracker.state.as_ref().filter(|_| name != primary) else { continue };
            // A closed primary only acquits, and only whoever says what it holds.
            if !is_open && replica.mysqld.is_none() {
                continue;
            }
            let foreign = decide::errant(replica, &state);
            if replica.mysqld.is_some() {
                tracker.cleared = foreign.is_empty().then(|| (epoch, replica.data_id.clone()));
            }
            if foreign.is_empty() {
                tracker.suspect = None;
                tracker.errant = GtidSet::default();
                continue;
            }
            if !is_open {
                continue;
            }
            if let Some((before, sequence)) = &tracker.suspect
                && *sequence < state.sequence
            {
                tracker.errant = before.intersect(&foreign);
            }
            tracker.suspect = Some((foreign, state.sequence));
        }
    }

    /// A fresh connection was refused: nothing listens there any more.
    pub fn refused(&mut self, name: &str, now: Instant) {
        self.tracker(name, now).refused = true;
    }

    /// The pod is another one than before: what was known of its processes is void. What it held is not forgotten.
    pub fn replaced(&mut self, name: &str, now: Instant) {
        let tracker = self.tracker(name, now);
        tracker.state = None;
        tracker.heard_at = now;
        tracker.refused = false;
    }

    /// An answer to a fence or demote order.
    pub fn answered(&mut self, name: &str, answer: Answer) {
        self.answers.insert(name.to_owned(), answer);
    }

    /// A switchover was given up.
    pub fn undone(&mut self, now: Instant) {
        self.undone_at = Some(now);
    }

    /// Puts together what a decision needs.
    pub fn observe(
        &mut self,
        record: &Record,
        wish: &Wish,
        recent_changes: usize,
        pods: &BTreeMap<Name, PodFacts>,
        now: Instant,
    ) -> Observed {
        match (&record.operation, &self.operation) {
            (Some(operation), Some((known, _))) if operation.id == *known => {}
            (Some(operation), _) => {
                self.operation = Some((operation.id.clone(), now));
                // A failover's fences may be answered before its claim is known to stand.
                let early = operation.kind == Kind::Failover;
                self.answers.retain(|_, answer| early && answer.epoch == operation.epoch);
            }
            (None, _) => {
                self.operation = None;
                self.answers.retain(|_, answer| answer.epoch > record.epoch);
            }
        }
        self.epoch = record.epoch;
        if record.primary.is_some() {
            self.unborn_since = now;
        }
        let mut names: BTreeSet<Name> = pods.keys().cloned().collect();
        names.extend(record.ackers.iter().cloned());
        names.extend(record.primary.iter().cloned());
        names.extend((0..wish.instances).map(|ordinal| names::instance(&self.cluster, ordinal)));
        self.trackers.retain(|name, _| names.contains(name));
        let executed = record
            .primary
            .as_ref()
            .and_then(|primary| Some(self.trackers.get(primary)?.state.as_ref()?.mysqld.as_ref()?.executed.clone()));
        let instances = names
            .into_iter()
            .filter_map(|name| {
                let ordinal = names::ordinal(&self.cluster, &name)?;
                let mut instance = self.instance(&name, ordinal, record, wish, pods, now);
                instance.behind_for = self.tracker(&name, now).behind_for(executed.as_ref(), now);
                Some((name, instance))
            })
            .collect();
        Observed {
            record: record.clone(),
            wish: wish.clone(),
            instances,
            answers: self.answers.clone(),
            operation_age: self.operation.as_ref().map_or(Duration::ZERO, |(_, since)| now.duration_since(*since)),
            last_undone: self.undone_at.map(|at| now.duration_since(at)),
            unborn_age: now.duration_since(self.unborn_since),
            recent_changes,
        }
    }

    fn instance(
        &mut self,
        name: &str,
        ordinal: u32,
        record: &Record,
        wish: &Wish,
        pods: &BTreeMap<Name, PodFacts>,
        now: Instant,
    ) -> Instance {
        let host = names::instance_host(&self.namespace, &self.cluster, name);
        let reachable = pods.get(name).is_some_and(|pod| pod.address.is_some());
        let tracker = self.tracker(name, now);
        if !record.ackers.contains(name) {
            // Only a recorded acker's word is counted on; data that was replaced on purpose may hold less.
            tracker.high_water = GtidSet::default();
        }
        let mut instance = Instance {
            ordinal,
            host,
            address: pods.get(name).and_then(|pod| pod.address),
            reachable,
            refused: tracker.refused,
            state: if reachable { tracker.state.clone() } else { None },
            age: now.duration_since(tracker.heard_at),
            unhealthy_for: Duration::ZERO,
            ahead_for: Duration::ZERO,
            stops: false,
            cleared: false,
            behind_for: Duration::ZERO,
            errant: tracker.errant.clone(),
            high_water: tracker.high_water.clone(),
        };
        // Missing is what a recorded acker is while there is a primary that it could follow; nothing else is counted.
        let expected = record.operation.is_none() && record.ackers.contains(name);
        if !expected || record.primary.as_ref().is_none_or(|primary| instance.follows(primary, wish)) {
            tracker.healthy_at = now;
        }
        instance.unhealthy_for = now.duration_since(tracker.healthy_at);
        let promised = instance.state.as_ref().map_or(0, |state| state.promised);
        if record.operation.is_some() || promised <= record.epoch {
            tracker.level_at = now;
        }
        instance.ahead_for = now.duration_since(tracker.level_at);
        let since = instance.leaving().then(|| *tracker.leaving_since.get_or_insert(now));
        tracker.leaving_since = since;
        let is_deleted = pods.get(name).is_some_and(|pod| pod.deleted);
        instance.stops = since.is_some_and(|since| is_deleted || now.duration_since(since) > STOPS_BY_ITSELF);
        let data = instance.state.as_ref().and_then(|state| state.data_id.clone());
        instance.cleared = tracker.cleared == Some((record.epoch, data));
        instance
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::decide::fixture;

    #[test]
    fn errant_is_condemned_only_by_a_second_look_at_the_primary() {
        let now = Instant::now();
        let mut memory = Memory::new("ns", "c", now);
        let primary = "c-0".to_owned();
        let mut replica = fixture::replica("c-1", "c-0");
        let uuid = "aaaaaaaa-0000-0000-0000-000000000009";
        replica.mysqld.as_mut().unwrap().received = format!("{uuid}:1").parse().unwrap();
        memory.heard(replica, Some(&primary), now);
        let mut state = fixture::primary("c-0", 1);
        memory.heard(state.clone(), Some(&primary), now);
        assert!(memory.trackers["c-1"].errant.is_empty());
        state.sequence += 1;
        memory.heard(state.clone(), Some(&primary), now);
        assert_eq!(memory.trackers["c-1"].errant.to_string(), format!("{uuid}:1"));
        state.sequence += 1;
        state.mysqld.as_mut().unwrap().super_read_only = true;
        memory.heard(state.clone(), Some(&primary), now);
        assert!(!memory.trackers["c-1"].errant.is_empty());
        state.sequence += 1;
        state.mysqld.as_mut().unwrap().executed = format!("{uuid}:1").parse().unwrap();
        memory.heard(state, Some(&primary), now);
        assert!(memory.trackers["c-1"].errant.is_empty(), "a closed primary has it by now, too");
    }

    #[test]
    fn replica_is_cleared_in_the_epoch_in_which_the_primary_was_seen_to_hold_all_of_it() {
        let now = Instant::now();
        let mut memory = Memory::new("ns", "c", now);
        let mut record = fixture::healthy(3).record;
        let pods = BTreeMap::from(["c-0", "c-1", "c-2"].map(|name| {
            let address = Some(std::net::Ipv4Addr::LOCALHOST.into());
            (name.to_owned(), PodFacts { uid: name.to_owned(), address, ..PodFacts::default() })
        }));
        let cleared = |memory: &mut Memory, record: &Record| {
            memory.observe(record, &fixture::wish(3), 0, &pods, now).instances["c-1"].cleared
        };
        assert!(!cleared(&mut memory, &record), "nothing was heard");
        let primary = "c-0".to_owned();
        let hear = |memory: &mut Memory, mut state: InstanceState, received: &str| {
            state.mysqld.as_mut().unwrap().received = received.parse().unwrap();
            memory.heard(state, Some(&primary), now);
        };
        let own = format!("{}:1", fixture::uuid("c-0"));
        hear(&mut memory, fixture::replica("c-1", "c-0"), &own);
        hear(&mut memory, fixture::primary("c-0", 1), "");
        assert!(cleared(&mut memory, &record), "it waits for what it has sent");
        record.epoch += 1;
        assert!(!cleared(&mut memory, &record), "that was before");
        hear(&mut memory, fixture::primary("c-0", 1), "");
        assert!(cleared(&mut memory, &record));
        let foreign = format!("{}:1", fixture::uuid("c-2"));
        hear(&mut memory, fixture::replica("c-1", "c-0"), &foreign);
        hear(&mut memory, fixture::primary("c-0", 1), "");
        assert!(!cleared(&mut memory, &record));
    }

    #[test]
    fn who_says_that_it_is_stopped_is_believed_when_its_pod_is_deleted_or_after_a_moment() {
        let start = Instant::now();
        let mut memory = Memory::new("ns", "c", start);
        let record = fixture::healthy(1).record;
        let address = Some(std::net::Ipv4Addr::LOCALHOST.into());
        let mut pods = BTreeMap::from([("c-0".to_owned(), PodFacts { address, ..PodFacts::default() })]);
        let mut stops = |pods: &BTreeMap<Name, PodFacts>, leaving, ms| {
            let now = start + Duration::from_millis(ms);
            memory.heard(InstanceState { leaving, ..fixture::primary("c-0", 0) }, None, now);
            memory.observe(&record, &fixture::wish(1), 0, pods, now).instances["c-0"].stops
        };
        assert!(!stops(&pods, false, 0));
        assert!(!stops(&pods, true, 1000) && !stops(&pods, true, 2000));
        assert!(stops(&pods, true, 2001));
        assert!(!stops(&pods, false, 3000));
        pods.get_mut("c-0").unwrap().deleted = true;
        assert!(stops(&pods, true, 3001), "its deletion is known");
    }

    #[test]
    fn replica_lies_behind_since_the_primary_had_what_it_still_misses() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tracker = Tracker::new(start);
        let set = |last: u64| -> GtidSet { format!("aaaaaaaa-0000-0000-0000-000000000009:1-{last}").parse().unwrap() };
        let mut state = fixture::replica("c-1", "c-0");
        let mut received = |tracker: &mut Tracker, last| {
            state.mysqld.as_mut().unwrap().received = set(last);
            tracker.state = Some(state.clone());
        };
        received(&mut tracker, 5);
        assert_eq!(tracker.behind_for(Some(&set(5)), at(0)), Duration::ZERO);
        assert_eq!(tracker.behind_for(Some(&set(7)), at(100)), Duration::ZERO);
        received(&mut tracker, 6);
        assert_eq!(tracker.behind_for(Some(&set(9)), at(400)), Duration::from_millis(300));
        // It has what was missed at first; what it misses now is missed since now.
        received(&mut tracker, 7);
        assert_eq!(tracker.behind_for(Some(&set(9)), at(600)), Duration::ZERO);
        assert_eq!(tracker.behind_for(Some(&set(9)), at(700)), Duration::from_millis(100));
        received(&mut tracker, 9);
        assert_eq!(tracker.behind_for(Some(&set(9)), at(800)), Duration::ZERO);
    }

    #[test]
    fn late_answer_does_not_overwrite_a_newer_state() {
        let now = Instant::now();
        let mut memory = Memory::new("ns", "c", now);
        let mut state = fixture::primary("c-0", 1);
        state.sequence = 7;
        memory.heard(state.clone(), None, now);
        state.sequence = 6;
        state.promised = 99;
        memory.heard(state, None, now);
        assert_eq!(memory.trackers["c-0"].state.as_ref().unwrap().promised, 1);
    }
}
