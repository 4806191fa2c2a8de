//! Archives made by hand: epochs, lost branches, gaps.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const UUID: &str = "07070707-0707-0707-0707-070707070707";

fn set(numbers: &str) -> GtidSet {
    if numbers.is_empty() { GtidSet::default() } else { format!("{UUID}:{numbers}").parse().unwrap() }
}

/// A segment of so many transactions, committed at ten times their number.
fn part(first: u64, basis: &str, gtid: &str) -> Part {
    let gtid = set(gtid);
    let commits: Vec<u64> = gtid.iter().map(|gtid| u64::try_from(gtid.number()).unwrap() * 10).collect();
    Part {
        first,
        last: first + 100,
        basis: set(basis),
        gtid,
        first_commit: commits.iter().copied().min().unwrap_or(0),
        last_commit: commits.iter().copied().max().unwrap_or(0),
        sha256: String::new(),
    }
}

fn file(epoch: u64, number: u64, segments: Vec<Part>) -> Held {
    let name = format!("binlog.{number:06}").parse().unwrap();
    Held { file: BinlogFile { epoch, server: UUID.parse().unwrap(), name }, complete: false, segments }
}

/// 1 to 9 in three files of two epochs. Transactions 5 and 6 were shipped in epoch 1 and lost the election.
fn archive() -> Vec<Held> {
    vec![
        file(1, 1, vec![part(0, "", "1-2"), part(100, "1-2", "3")]),
        file(1, 2, vec![part(0, "1-3", "4-6")]),
        file(2, 1, vec![part(0, "1-4", "7-8"), part(100, "1-4:7-8", "9")]),
    ]
}

fn taken(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.take.to_string().replace(&format!("{UUID}:"), "")).collect()
}

#[test]
fn the_newest_is_everything_but_what_lost_an_election() {
    let plan = plan(&set(""), &archive(), &Target::Newest).unwrap();
    assert_eq!(taken(&plan), ["1-2", "3", "4", "7-8", "9"]);
    assert_eq!(plan.reaches, set("1-4:7-9"));
    // While the epoch is the last one, nothing of it has lost.
    assert_eq!(reach(&set(""), &archive()[..2]).gtid, set("1-6"));
}

#[test]
fn a_base_saves_what_it_holds() {
    let plan = plan(&set("1-4:7"), &archive(), &Target::Newest).unwrap();
    assert_eq!(taken(&plan), ["8", "9"]);
}

#[test]
fn a_dump_begins_a_restore_unless_it_holds_too_much() {
    let held = archive();
    let begins = |gtid: &str, taken_at, target: Target| begins(&set(gtid), taken_at, &held, &target);
    assert!(begins("1-4", 45, Target::Newest));
    assert!(!begins("1-5", 55, Target::Newest), "5 lost the election");
    assert!(begins("1-4:7-12", 125, Target::Newest), "what is not shipped yet has not lost");
    assert!(begins("1-3", 35, Target::Time(40)));
    assert!(!begins("1-3", 41, Target::Time(40)), "made later");
    assert!(!begins("1-4:7", 72, Target::Time(75)), "its segment goes on beyond: whether the dump does is not known");
    assert!(begins("1-3", 99, Target::Gtid(set("1-4"))));
    assert!(!begins("1-4", 45, Target::Gtid(set("1-3:7"))));
}

#[test]
fn a_time_ends_before_the_first_later_commit() {
    let at = |time| plan(&set(""), &archive(), &Target::Time(time));
    for (time, expected, until) in [
        (5, &[][..], None),
        (10, &["1-2"], Some(10)),
        (20, &["1-2"], None),
        (29, &["1-2"], None),
        (30, &["1-2", "3"], None),
        // In its segment the lost ones end a restore as well: what follows is in another epoch, and later.
        (45, &["1-2", "3", "4"], Some(45)),
        (75, &["1-2", "3", "4", "7-8"], Some(75)),
        (90, &["1-2", "3", "4", "7-8", "9"], None),
    ] {
        let plan = at(time).unwrap();
        assert_eq!(taken(&plan), expected, "{time}");
        assert_eq!(plan.steps.last().and_then(|step| step.until), until, "{time}");
    }
    let refusal = at(91).unwrap_err();
    assert!(refusal.to_string().contains("reaches to the commit time 1970-01-01T00:00:00.000090Z"), "{refusal}");
}

#[test]
fn a_gtid_set_is_reached_exactly_or_refused() {
    let to = |base: &str, wanted: &str| plan(&set(base), &archive(), &Target::Gtid(set(wanted)));
    assert_eq!(taken(&to("", "1-3").unwrap()), ["1-2", "3"]);
    // All but one: the one that should not have been.
    assert_eq!(taken(&to("", "1-4:8-9").unwrap()), ["1-2", "3", "4", "8", "9"]);
    assert_eq!(to("1-2", "1-2").unwrap().steps, []);
    assert_eq!(to("1-3", "1-2").unwrap_err(), Refusal::BeyondBase(set("3")));
    match to("", "1-6").unwrap_err() {
        Refusal::Unknown { missing, reach } => assert_eq!((missing, reach.gtid), (set("5-6"), set("1-4:7-9"))),
        other => panic!("{other}"),
    }
}

#[test]
fn nothing_is_replayed_across_a_gap() {
    // 4 was purged before it was shipped.
    let held = vec![file(1, 1, vec![part(0, "", "1-3")]), file(1, 3, vec![part(0, "1-4", "5-6")])];
    let reached = reach(&set(""), &held);
    assert_eq!((reached.gtid, reached.gap, reached.last_commit), (set("1-3"), set("4"), 30));
    assert!(matches!(plan(&set(""), &held, &Target::Gtid(set("1-3:5"))), Err(Refusal::Unknown { .. })));
    assert!(matches!(plan(&set(""), &held, &Target::Time(50)), Err(Refusal::TooLate { .. })));
    // A dump from after the gap has it.
    assert_eq!(reach(&set("1-4"), &held).gtid, set("1-6"));
}

#[test]
fn two_shippers_that_knew_different_things() {
    // One died after its first segment: it would have sent 4 in epoch 2, which the other found in epoch 1.
    let held =
        vec![file(1, 1, vec![part(0, "", "1-5")]), file(2, 1, vec![part(0, "1-3", "6"), part(100, "1-4:6", "7")])];
    assert_eq!(reach(&set(""), &held).gtid, set("1-4:6-7"));
    // Overlapping segments are replayed once.
    let held = vec![file(1, 1, vec![part(0, "", "1"), part(0, "", "1-3"), part(50, "1", "2-4")])];
    assert_eq!(taken(&plan(&set(""), &held, &Target::Newest).unwrap()), ["1", "2-3", "4"]);
}

proptest! {
    /// A history of epochs, each with a tail that the next one lost, cut into segments anyhow: what is planned is a
    /// prefix of the true history, in order, whatever the target.
    #[test]
    fn plans_are_prefixes_of_the_true_history(
        epochs in proptest::collection::vec((proptest::collection::vec(1_i64..5, 1..6), 0_i64..3), 1..5),
        time in 0_u64..700, dumped in 0_usize..30,
    ) {
        let (mut number, mut history, mut held) = (0_i64, Vec::new(), Vec::new());
        let last = epochs.len() - 1;
        for (epoch, (segments, lost)) in epochs.iter().enumerate() {
            let mut parts = Vec::new();
            let mut executed: GtidSet = history.iter().fold(GtidSet::default(), |set, n| set.union(&set_of(*n, *n)));
            for (place, length) in segments.iter().enumerate() {
                let gtid = set_of(number + 1, number + length);
                let mut one = part(place as u64 * 100, "", "");
                (one.basis, one.gtid) = (executed.clone(), gtid.clone());
                (one.first_commit, one.last_commit) = (commit(number + 1), commit(number + length));
                parts.push(one);
                executed.extend_with(&gtid);
                history.extend(number + 1..=number + length);
                number += length;
            }
            if epoch != last {
                let lost = usize::try_from(*lost).unwrap().min(history.len());
                // Only what this epoch wrote can lose.
                let lost = lost.min(usize::try_from(segments.iter().sum::<i64>()).unwrap());
                history.truncate(history.len() - lost);
            }
            held.push(file(epoch as u64 + 1, 1, parts));
        }
        let base = history.iter().take(dumped).fold(GtidSet::default(), |set, n| set.union(&set_of(*n, *n)));
        let all = history.iter().fold(GtidSet::default(), |set, n| set.union(&set_of(*n, *n)));
        prop_assert_eq!(&reach(&base, &held).gtid, &all);
        if let Ok(plan) = plan(&base, &held, &Target::Time(time)) {
            let mut replayed: Vec<i64> = Vec::new();
            for step in &plan.steps {
                let mut numbers: Vec<i64> = step.take.iter().map(|gtid| gtid.number()).collect();
                if let Some(until) = step.until {
                    numbers.retain(|number| commit(*number) <= until);
                }
                replayed.extend(numbers);
            }
            let wanted: Vec<i64> = history.iter().skip(dumped).copied().take_while(|n| commit(*n) <= time).collect();
            prop_assert_eq!(replayed, wanted);
        }
    }
}

fn set_of(first: i64, last: i64) -> GtidSet {
    set(&format!("{first}-{last}"))
}

fn commit(number: i64) -> u64 {
    u64::try_from(number).unwrap() * 10
}
