//! Data for a new cluster from an archive, and what is said about it.
//!
//! The first instance is filled from the archive, the others are filled from it, and only when all have data does the bootstrap
//! choose the first primary: so a restored cluster takes no write before it can keep it.

use std::collections::BTreeMap;
use std::time::Instant;

use common::instance::{Phase, Restored};

use super::provision::{Attempt, Order, Provision, Wait, backing_off, holds_transactions, leaving};
use super::{Member, Record};
use crate::status::{Finding, RESTORED};

/// The instance with the data of the archive.
fn holder(members: &[Member]) -> Option<(&Member, &Restored)> {
    members.iter().find_map(|member| {
        let state = member.state.as_ref()?;
        let restored = state.restored.as_ref()?;
        (state.phase == Phase::Running && state.mysqld.is_some()).then_some((member, restored))
    })
}

/// Data from a life before, that is of no archive. Not while the first instance, which is the one that says so, is silent.
fn is_of_before(members: &[Member]) -> bool {
    let first = members.iter().find(|member| member.ordinal == 0).and_then(|member| member.state.as_ref());
    first.is_some_and(|first| first.restored.is_none()) && members.iter().any(holds_transactions)
}

/// Decides on the instances of a cluster that nobody was promoted in yet.
pub fn provision(members: &[Member], attempts: &BTreeMap<String, Attempt>, now: Instant) -> Provision {
    let mut plan = Provision::default();
    let donor = holder(members).filter(|(member, _)| !leaving(member));
    let mut is_busy = attempts.values().any(|attempt| attempt.running && attempt.donor.is_some());
    for member in members.iter().filter(|member| member.is_empty() && !leaving(member)) {
        let instance = member.name.clone();
        let wait = match donor {
            _ if is_of_before(members) => Wait::DataFromBefore,
            _ if backing_off(attempts, &instance, now) => Wait::BackingOff,
            Some(_) if is_busy => Wait::DonorsBusy,
            Some((donor, _)) => {
                is_busy = true;
                plan.orders.push(Order::Clone { instance, donor: donor.name.clone(), condemns: None });
                continue;
            }
            // Once one has the data no other is to have it from elsewhere, not even while that one is away.
            None if member.ordinal == 0 => {
                plan.orders.push(Order::Restore { instance });
                continue;
            }
            None => Wait::Restoring,
        };
        plan.waiting.push((instance, wait));
    }
    plan
}

/// What the condition says. `None`: nothing new can be said.
pub fn finding(record: &Record, members: &[Member], holds_already: bool) -> Option<Finding> {
    let bad = |reason, message: String| Some(Finding::bad(RESTORED, reason, message));
    let known = members.iter().find_map(|member| member.state.as_ref()?.restored.as_ref());
    if record.epoch > 0 {
        let told = known.map_or_else(String::new, |Restored { archive, gtids, seconds }| {
            format!("{gtids} of {archive} in {seconds:.1} s")
        });
        return (!holds_already).then(|| Finding::good(RESTORED, "Restored", told));
    }
    if is_of_before(members) {
        let message = "the volumes hold data from before this cluster was created: nothing is restored over it";
        return bad("HoldsData", message.to_owned());
    }
    if let Some(Restored { gtids, .. }) = known {
        return bad("Restoring", format!("{gtids} is there, the other instances are being filled"));
    }
    let first = members.iter().find(|member| member.ordinal == 0)?;
    let state = first.state.as_ref()?;
    if state.phase == Phase::Initialising {
        let progress = state.progress.as_ref().map_or_else(String::new, |progress| match progress.total_bytes {
            0 => progress.step.clone(),
            total => format!("{}, {} of {total} bytes", progress.step, progress.done_bytes),
        });
        return bad("Restoring", format!("{}: {progress}", first.name));
    }
    match &state.problem {
        Some(problem) if first.is_empty() => bad("RestoreFailed", format!("{}: {problem}", first.name)),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use common::instance::Progress;

    use super::super::fixtures::{empty, member, name};
    use super::*;

    fn restored(ordinal: u32) -> Member {
        let mut member = member(ordinal);
        let state = member.state.as_mut().unwrap();
        state.promised = 0;
        state.restored =
            Some(Restored { archive: "prod/n/shop/u/".to_owned(), gtids: "".parse().unwrap(), seconds: 1.0 });
        member
    }

    fn plan(members: &[Member]) -> Provision {
        provision(members, &BTreeMap::new(), Instant::now())
    }

    fn clone_of(instance: u32, donor: u32) -> Order {
        Order::Clone { instance: name(instance), donor: name(donor), condemns: None }
    }

    #[test]
    fn the_first_is_restored_and_the_others_are_filled_from_it_one_after_the_other() {
        let start = plan(&[empty(0), empty(1), empty(2)]);
        assert_eq!(start.orders, [Order::Restore { instance: name(0) }]);
        assert_eq!(start.waiting, [1, 2].map(|ordinal| (name(ordinal), Wait::Restoring)));
        let next = plan(&[restored(0), empty(1), empty(2)]);
        assert_eq!(next.orders, [clone_of(1, 0)]);
        assert_eq!(next.waiting, [(name(2), Wait::DonorsBusy)]);
        let attempts = BTreeMap::from([(name(1), Attempt::started(None, Some(name(0)), Instant::now()))]);
        assert_eq!(provision(&[restored(0), empty(2)], &attempts, Instant::now()).orders, []);
    }

    #[test]
    fn nobody_else_is_filled_while_the_one_with_the_data_is_away() {
        let mut away = restored(0);
        away.state.as_mut().unwrap().phase = Phase::Starting;
        assert_eq!(plan(&[away.clone(), empty(1)]).waiting, [(name(1), Wait::Restoring)]);
        away.state = None;
        let mut filled = member(1);
        filled.state.as_mut().unwrap().promised = 0;
        assert_eq!(plan(&[away, filled, empty(2)]).waiting, [(name(2), Wait::Restoring)]);
    }

    #[test]
    fn nothing_is_restored_beside_data_from_before() {
        let before = plan(&[member(0), empty(1)]);
        assert_eq!((before.orders, before.waiting), (vec![], vec![(name(1), Wait::DataFromBefore)]));
        let before = plan(&[empty(0), member(1)]);
        assert_eq!((before.orders, before.waiting), (vec![], vec![(name(0), Wait::DataFromBefore)]));
        assert_eq!(finding(&Record::default(), &[empty(0), member(1)], false).unwrap().reason, "HoldsData");
    }

    #[test]
    fn the_condition_says_how_far_it_is_and_why_it_fails() {
        let new = Record::default();
        let said = |members: &[Member]| {
            let finding = finding(&new, members, false)?;
            Some((finding.holds, finding.reason, finding.message))
        };
        assert_eq!(said(&[empty(0)]), None);
        let mut first = empty(0);
        first.state.as_mut().unwrap().problem = Some("restore: no such bucket".to_owned());
        let failed = said(&[first.clone()]).unwrap();
        assert_eq!((failed.0, failed.1), (false, "RestoreFailed"));
        assert!(failed.2.contains("no such bucket"));
        let state = first.state.as_mut().unwrap();
        state.phase = Phase::Initialising;
        state.progress = Some(Progress { step: "replaying".to_owned(), done_bytes: 3, total_bytes: 7 });
        assert!(said(&[first]).unwrap().2.contains("replaying, 3 of 7 bytes"));
        assert_eq!(said(&[restored(0), empty(1)]).unwrap().1, "Restoring");
        let record = Record { epoch: 1, ..Record::default() };
        let done = finding(&record, &[restored(0)], false).unwrap();
        assert!(done.holds && done.message.contains("prod/n/shop/u/"));
        assert_eq!(finding(&record, &[restored(0)], true), None);
    }
}
