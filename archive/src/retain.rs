//! Which binlogs of the archive no restore needs any more.
//!
//! Pure. A restore begins with a dump that is kept, so a binlog goes when every such dump holds all of it that was not lost in an
//! election. Only from the front: what came before the first segment that is left ([`Part::basis`]) is then all that went. The
//! last file stays whatever it holds, for it says what the last primary had executed (see [`plan`](super::plan)).
//!
//! Without a dump that a restore can begin with everything stays: the archive itself is the beginning.

use common::gtid::GtidSet;

use super::catalogue::{Held, Part};
use super::plan::{Target, begins, history};

/// A dump that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// What it holds.
    pub gtid: GtidSet,
    /// When it was taken, microseconds since 1970.
    pub taken_at: u64,
}

/// Those that a restore can begin with: they hold nothing that lost an election.
pub fn usable<'a>(held: &[Held], dumps: &'a [Dump]) -> Vec<&'a Dump> {
    dumps.iter().filter(|dump| begins(&dump.gtid, dump.taken_at, held, &Target::Newest)).collect()
}

/// The files that may go, the first of `held`. What was committed after `since` (microseconds since 1970) stays.
pub fn expired<'a>(held: &'a [Held], dumps: &[Dump], since: u64) -> &'a [Held] {
    let usable = usable(held, dumps);
    let Some(first) = usable.iter().map(|dump| dump.taken_at).min() else { return &[] };
    let Some(last) = held.iter().rposition(|file| !file.segments.is_empty()) else { return &[] };
    // A clock that differs between servers makes a file stay longer, and no restore reach less.
    let until = since.min(first);
    let history = history(held);
    let goes = |file: &Held| {
        let needed = file.gtid().intersect(&history);
        file.segments.iter().all(|part| part.last_commit <= until)
            && usable.iter().all(|dump| needed.is_subset(&dump.gtid))
    };
    let count = held.iter().take(last).take_while(|file| goes(file)).count();
    held.get(..count).unwrap_or_default()
}

/// What came before the archive: it went, or was there before anything was archived. Nobody has to ship it again.
pub fn before(held: &[Held]) -> GtidSet {
    let first = |file: &Held| -> Option<GtidSet> { file.segments.first().map(|Part { basis, .. }| basis.clone()) };
    held.iter().find_map(first).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use common::gtid::Gtid;
    use proptest::prelude::*;

    use super::super::layout::BinlogFile;
    use super::super::plan::{plan, reach};
    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn set(numbers: impl IntoIterator<Item = u64>) -> GtidSet {
        numbers.into_iter().map(|number| format!("{UUID}:{number}").parse::<Gtid>().unwrap()).collect()
    }

    fn file(epoch: u64, number: usize, segments: Vec<Part>) -> Held {
        let name = format!("binlog.{number:06}").parse().unwrap();
        Held { file: BinlogFile { epoch, server: UUID.parse().unwrap(), name }, complete: false, segments }
    }

    /// A primary's term: how many transactions of each segment of each of its files, and how many of the last are lost.
    type Term = (Vec<Vec<u64>>, u64);

    /// An archive, and all numbers that were not lost, in order. Transaction n was committed at 10 n.
    fn archive(terms: &[Term]) -> (Vec<Held>, Vec<u64>) {
        let (mut held, mut stands, mut next) = (Vec::new(), Vec::new(), 1);
        for (epoch, (files, lost)) in (1..).zip(terms) {
            for (number, counts) in files.iter().enumerate() {
                let segments = counts.iter().zip(0..).map(|(count, at)| {
                    let numbers: Vec<u64> = (next..next + count).collect();
                    let part = Part {
                        first: at * 100,
                        last: at * 100 + 100,
                        basis: set(stands.iter().copied()),
                        gtid: set(numbers.iter().copied()),
                        first_commit: next * 10,
                        last_commit: (next + count - 1) * 10,
                        sha256: String::new(),
                    };
                    next += count;
                    stands.extend(numbers);
                    part
                });
                held.push(file(epoch, number + 1, segments.collect()));
            }
            if epoch < terms.len() as u64 {
                stands.truncate(stands.len().saturating_sub(usize::try_from(*lost).unwrap()));
            }
        }
        (held, stands)
    }

    fn dump(stands: &[u64], count: usize) -> Dump {
        let held = &stands[..count];
        Dump { gtid: set(held.iter().copied()), taken_at: held.last().copied().unwrap_or(0) * 10 + 1 }
    }

    fn names(files: &[Held]) -> Vec<String> {
        files.iter().map(|file| format!("{}/{}", file.file.epoch, file.file.name.number())).collect()
    }

    /// 1 to 12 in five files of two epochs; 7 and 8 lost.
    fn example() -> (Vec<Held>, Vec<u64>) {
        archive(&[(vec![vec![2, 1], vec![2], vec![3]], 2), (vec![vec![2], vec![1, 1]], 0)])
    }

    #[test]
    fn what_the_oldest_dump_holds_goes() {
        let (held, stands) = example();
        let expired = |dumps: &[Dump], since| names(expired(&held, dumps, since));
        assert!(expired(&[], u64::MAX).is_empty(), "the archive is the beginning");
        assert!(expired(&[dump(&stands, 2)], u64::MAX).is_empty(), "half of a file");
        assert_eq!(expired(&[dump(&stands, 3)], u64::MAX), ["1/1"]);
        assert_eq!(expired(&[dump(&stands, 5), dump(&stands, 3)], u64::MAX), ["1/1"], "the older one is kept too");
        assert_eq!(expired(&[dump(&stands, 5)], 40), ["1/1"], "the second is young");
        assert_eq!(expired(&[dump(&stands, 6)], u64::MAX), ["1/1", "1/2"], "what was lost is younger than the dump");
        assert_eq!(expired(&[dump(&stands, 8)], u64::MAX), ["1/1", "1/2", "1/3", "2/1"]);
        assert_eq!(expired(&[dump(&stands, 10)], u64::MAX), ["1/1", "1/2", "1/3", "2/1"], "the last file stays");
    }

    #[test]
    fn a_dump_of_a_lost_branch_counts_for_nothing() {
        let (held, stands) = example();
        let lost = Dump { gtid: set(1..=8), taken_at: 81 };
        assert!(expired(&held, std::slice::from_ref(&lost), u64::MAX).is_empty());
        assert_eq!(names(expired(&held, &[lost, dump(&stands, 3)], u64::MAX)), ["1/1"]);
    }

    #[test]
    fn a_file_that_is_younger_than_a_dump_stays() {
        let (held, stands) = example();
        let early = Dump { taken_at: 29, ..dump(&stands, 3) };
        assert!(expired(&held, &[early], u64::MAX).is_empty(), "a clock that differs");
    }

    #[test]
    fn what_went_is_told_by_what_is_left() {
        let (held, stands) = example();
        assert!(before(&held).is_empty());
        let gone = expired(&held, &[dump(&stands, 6)], u64::MAX).len();
        assert_eq!(before(&held[gone..]), set(1..=5));
        assert!(before(&[]).is_empty());
    }

    fn terms() -> impl Strategy<Value = Vec<Term>> {
        let files = proptest::collection::vec(proptest::collection::vec(1_u64..4, 0..4), 1..4);
        proptest::collection::vec((files, 0_u64..4), 1..4)
    }

    proptest! {
        /// Every restore from every dump that is kept is what it was, to the newest, to any time and to any set.
        #[test]
        fn no_restore_from_a_dump_that_is_kept_changes(
            terms in terms(),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
            since in 0_u64..400,
        ) {
            let (held, stands) = archive(&terms);
            let dumps: Vec<Dump> = picks.iter().map(|pick| dump(&stands, pick.index(stands.len() + 1))).collect();
            let gone = expired(&held, &dumps, since);
            let left = &held[gone.len()..];
            for Dump { gtid, taken_at } in &dumps {
                prop_assert_eq!(reach(gtid, left).gtid, reach(gtid, &held).gtid);
                let times = (0..=stands.last().copied().unwrap_or(0) + 1).map(|number| Target::Time(number * 10));
                let sets = (0..=stands.len()).map(|count| Target::Gtid(set(stands[..count].iter().copied())));
                for target in times.chain(sets).chain([Target::Newest]) {
                    let can = begins(gtid, *taken_at, &held, &target);
                    prop_assert_eq!(begins(gtid, *taken_at, left, &target), can);
                    if can {
                        let steps = |held: &[Held]| plan(gtid, held, &target).map(|plan| (plan.steps, plan.reaches)).ok();
                        prop_assert_eq!(steps(left), steps(&held), "{:?}", target);
                    }
                }
            }
            // What is left tells what went: nothing of it is shipped again.
            let lost = |gtid: &GtidSet| gtid.subtract(&set(stands.iter().copied()));
            for file in gone {
                let gtid = file.gtid();
                prop_assert!(gtid.subtract(&lost(&gtid)).is_subset(&before(left)));
            }
        }
    }
}
