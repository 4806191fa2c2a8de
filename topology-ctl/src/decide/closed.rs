//! Clones of an instance that is closed.
//!
//! A candidate, or a primary that was started again, may hold what nobody acknowledged. It stays closed until enough of its
//! ackers prove that they hold it, too (docs/failover-protocol.md). When those who could are lost (without data, or with data
//! that is not served any more) the cluster would wait for itself for ever, since nothing is cloned while a change of primary
//! goes on, and no recorded acker before it is struck, which takes an open primary. So the lost are given the data of the closed
//! one: failover-d lets them prove it then.
//!
//! What makes that safe: the closed one was elected with a proof, or is the recorded primary on the data of its reign, so it
//! holds all that was ever acknowledged. It has executed all of that, commits nothing, and acknowledges nothing to anybody. Whoever
//! has its data has all of it, too, and speaks as truly for every reign as the data that it had before. A copy is lost in the
//! meantime, though; so whose data may be the proof of something comes last, one after the other, and only when nobody else is
//! left.

use std::time::{Duration, Instant};

use common::instance::{Epoch, InstanceState, Phase, Role};

use super::provision::leaving;
use super::rebuild::condemned;
use super::{Member, Record};

/// So long a change of primary has the machine to itself, and those who are on their way may arrive.
const HELP_AFTER: Duration = Duration::from_secs(10);
/// So long whoever may be the proof of something is left as it is.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// An instance that stays closed, and since when. Forgetting it costs a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    source: String,
    epoch: Epoch,
    since: Instant,
}

/// Who is closed now, and since when that is known.
pub fn watch(before: Option<Closed>, record: &Record, members: &[Member], now: Instant) -> Option<Closed> {
    let (member, epoch) = closed(record, members)?;
    let same = before.filter(|closed| closed.source == member.name && closed.epoch == epoch);
    Some(same.unwrap_or_else(|| Closed { source: member.name.clone(), epoch, since: now }))
}

/// The closed instance whose data `recipient` may be given.
pub fn donor<'a>(
    known: Option<&Closed>,
    record: &Record,
    members: &'a [Member],
    recipient: &Member,
    now: Instant,
) -> Option<&'a Member> {
    let (source, epoch) = closed(record, members).filter(|(source, _)| source.name != recipient.name)?;
    let known = known.filter(|known| known.source == source.name && known.epoch == epoch)?;
    let waited = now.duration_since(known.since);
    let may_be_proof = |member: &Member| record.counted.contains(&member.name);
    if !may_be_proof(recipient) {
        return (waited >= HELP_AFTER).then_some(source);
    }
    let others = members.iter().filter(|member| member.name != recipient.name && member.name != source.name);
    // A later one of those who may be proof is left for when this one is done.
    let may_help = |member: &Member| {
        let is_lost = is_lost(record, member, members);
        let later = member.ordinal > recipient.ordinal;
        let waits_too = is_lost && may_be_proof(member) && later;
        !leaving(member) && !waits_too
    };
    (waited >= LAST_RESORT && !others.into_iter().any(may_help)).then_some(source)
}

/// Without data, or with data that is not served any more. Who is silent may come back.
fn is_lost(record: &Record, member: &Member, members: &[Member]) -> bool {
    member.is_empty() || condemned(record, member, members, None).is_some()
}

fn closed<'a>(record: &Record, members: &'a [Member]) -> Option<(&'a Member, Epoch)> {
    let leader = record.leader.as_ref()?;
    let member = members.iter().find(|member| member.name == leader.name && !leaving(member))?;
    let state = member.state.as_ref()?;
    let is_leader = matches!(state.role, Role::Primary { .. }) && state.promised == leader.epoch;
    let same_data = state.data_id.is_some() && state.data_id == leader.data;
    (is_leader && same_data && is_closed(state)).then_some((member, leader.epoch))
}

/// Runs, is closed, has executed all that it received, and is about to commit nothing.
fn is_closed(state: &InstanceState) -> bool {
    let waits = state.tail_unproven || !state.in_force;
    state.phase == Phase::Running
        && waits
        && state.mysqld.as_ref().is_some_and(|mysqld| {
            mysqld.super_read_only && mysqld.owned.is_empty() && mysqld.received.is_subset(&mysqld.executed)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use std::collections::BTreeMap;

    use common::instance::{ErrantOrigin, ErrantReport};

    use super::super::fixtures::{empty, members, name, record};
    use super::super::provision::{Order, Provision, Wait, provision};
    use super::super::rebuild::Why;
    use super::*;

    const OTHER: &str = "22222222-2222-2222-2222-222222222222";

    /// What a failover elected c-0 for again: it stays closed, and c-2 alone is recorded to prove what it holds.
    fn waiting() -> (Record, Vec<Member>) {
        let mut record = record(3);
        let leader = record.leader.as_mut().unwrap();
        (leader.epoch, record.operation) = (2, true);
        record.ackers = [name(2)].into();
        record.counted = [name(0), name(2)].into();
        let mut members = members(3);
        let state = members[0].state.as_mut().unwrap();
        (state.promised, state.tail_unproven, state.in_force) = (2, true, false);
        members[1] = empty(1);
        condemn(&mut members[2]);
        (record, members)
    }

    fn condemn(member: &mut Member) {
        let state = member.state.as_mut().unwrap();
        (state.promised, state.phase, state.mysqld) = (2, Phase::Failed, None);
        let gtids = format!("{OTHER}:1-20").parse().unwrap();
        state.errant = Some(ErrantReport { gtids, origin: ErrantOrigin::Received, saved: true });
    }

    fn after(record: &Record, members: &[Member], waited: Duration) -> Provision {
        let now = Instant::now();
        let known = watch(None, record, members, now);
        provision(record, members, &BTreeMap::new(), known.as_ref(), false, None, now + waited)
    }

    fn cloned(plan: &Provision) -> Vec<(String, String, bool)> {
        let told = |order: &Order| match order {
            Order::Clone { instance, donor, condemns } => (instance.clone(), donor.clone(), condemns.is_some()),
            Order::Initialise { .. } | Order::Restore { .. } => panic!("{order:?}"),
        };
        plan.orders.iter().map(told).collect()
    }

    #[test]
    fn who_can_be_the_proof_of_nothing_is_cloned_from_the_closed_one() {
        let (record, members) = waiting();
        let early = after(&record, &members, HELP_AFTER / 2);
        assert_eq!(early.orders, []);
        assert_eq!(early.waiting, [(name(1), Wait::Operation), (name(2), Wait::Operation)]);
        let plan = after(&record, &members, HELP_AFTER);
        assert_eq!(cloned(&plan), [(name(1), name(0), false)]);
        let late = after(&record, &members, LAST_RESORT * 2);
        assert_eq!(cloned(&late), [(name(1), name(0), false)], "the other may be the proof of something");
    }

    #[test]
    fn the_same_from_a_primary_that_was_started_again() {
        let (mut record, members) = waiting();
        (record.epoch, record.operation) = (2, false);
        let plan = after(&record, &members, HELP_AFTER);
        assert_eq!(cloned(&plan), [(name(1), name(0), false)]);
        assert_eq!(plan.waiting, [(name(2), Wait::StillAcker)]);
    }

    #[test]
    fn when_nobody_else_is_left_the_lost_are_cloned_one_after_the_other() {
        let (mut record, mut members) = waiting();
        condemn(&mut members[1]);
        members[1].state.as_mut().unwrap().data_id = Some("d1".into());
        record.counted.insert(name(1));
        assert_eq!(after(&record, &members, HELP_AFTER).orders, []);
        let plan = after(&record, &members, LAST_RESORT);
        assert_eq!(cloned(&plan), [(name(1), name(0), true)]);
        let Order::Clone { condemns, .. } = &plan.orders[0] else { panic!() };
        assert!(matches!(condemns.as_ref().unwrap().why, Why::LeftBehind(_)));
        members[1].state.as_mut().unwrap().phase = Phase::Cloning;
        assert_eq!(after(&record, &members, LAST_RESORT).orders, [], "the first is not done");
        members[1].state = None;
        assert_eq!(after(&record, &members, LAST_RESORT).orders, [], "who is silent may come back");
    }

    #[test]
    fn only_who_holds_everything_and_commits_nothing_is_copied() {
        type Change = fn(&mut InstanceState);
        let cases: [(&str, Change); 7] = [
            ("open", |state| state.mysqld.as_mut().unwrap().super_read_only = false),
            ("about to commit", |state| {
                state.mysqld.as_mut().unwrap().owned = format!("{OTHER}:1").parse().unwrap();
            }),
            ("not applied", |state| {
                state.mysqld.as_mut().unwrap().received = format!("{OTHER}:1").parse().unwrap();
            }),
            ("other data", |state| state.data_id = Some("d9".into())),
            ("another epoch", |state| state.promised = 1),
            ("fenced", |state| state.role = Role::Fenced),
            ("proven", |state| (state.tail_unproven, state.in_force) = (false, true)),
        ];
        for (what, change) in cases {
            let (record, mut members) = waiting();
            change(members[0].state.as_mut().unwrap());
            assert_eq!(after(&record, &members, LAST_RESORT).orders, [], "{what}");
        }
        let (mut record, members) = waiting();
        record.leader = None;
        assert_eq!(after(&record, &members, LAST_RESORT).orders, [], "nobody is elected yet");
    }

    #[test]
    fn waiting_begins_anew_with_another_epoch() {
        let (mut record, mut members) = waiting();
        let now = Instant::now();
        let known = watch(None, &record, &members, now);
        let later = now + HELP_AFTER;
        assert_eq!(watch(known.clone(), &record, &members, later), known);
        record.leader.as_mut().unwrap().epoch = 3;
        members[0].state.as_mut().unwrap().promised = 3;
        assert_eq!(watch(known, &record, &members, later).unwrap().since, later);
    }
}
