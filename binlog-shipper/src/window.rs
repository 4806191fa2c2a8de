//! What can be restored of a cluster: shipped, executed by the present primary, and without a gap from the beginning (invariant 7).
//!
//! Pure. The beginning is an empty server, or where the archive does not go back to that the oldest dump from which on nothing is missing.

use std::collections::VecDeque;

use archive::Segment;
use archive::catalogue::Held;
use archive::plan::{Reach, reach};
use archive::retain::Dump;
use archive::segment::earlier;
use common::gtid::GtidSet;

/// The window as it grows.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Shipped without a gap.
    gtid: GtidSet,
    /// Earliest commit time in it, microseconds since 1970; 0 without any.
    from: u64,
    /// Latest one that is proven.
    to: u64,
    /// Segments that the primary had not executed when it was asked last, and their latest commit times.
    unproven: VecDeque<(GtidSet, u64)>,
    /// Something is missing: nothing after it can be restored without a dump.
    has_gap: bool,
    /// What was shipped last since then, for a window that is read anew meanwhile.
    behind: VecDeque<Segment>,
}

/// Segments that are kept of those behind a gap: many more than are shipped while the archive is read.
const BEHIND: usize = 2000;

/// A window that is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// What the newest restore holds.
    pub gtid: GtidSet,
    /// Earliest commit time, microseconds since 1970; 0 without any.
    pub from: u64,
    /// Latest one.
    pub to: u64,
}

impl Window {
    /// Of what the archive holds. Dumps are in the order of time. What the primary has `purged` comes from nowhere any more: it has
    /// to be in the archive, too.
    pub fn new(held: &[Held], dumps: &[Dump], purged: &GtidSet) -> Self {
        let nothing = Dump { gtid: GtidSet::default(), taken_at: 0 };
        let whole = |base: &&Dump| {
            let Reach { gtid, gap, .. } = reach(&base.gtid, held);
            gap.is_empty() && purged.is_subset(&gtid)
        };
        let Some(base) = std::iter::once(&nothing).chain(dumps).find(whole) else {
            return Self { has_gap: true, ..Self::default() };
        };
        let Reach { gtid, .. } = reach(&base.gtid, held);
        let mut window = Self { gtid, from: base.taken_at, ..Self::default() };
        for part in held.iter().flat_map(|file| &file.segments).filter(|part| part.gtid.is_subset(&window.gtid)) {
            if base.taken_at == 0 {
                window.from = earlier(window.from, part.first_commit);
            }
            window.unproven.push_back((part.gtid.clone(), part.last_commit));
        }
        window
    }

    /// The same with what was shipped behind the gap of another since its archive was read.
    #[must_use]
    pub fn and_behind(mut self, other: &Self) -> Self {
        other.behind.iter().for_each(|segment| self.shipped(segment));
        self
    }

    /// What was before this moment (microseconds since 1970) is in the archive no more: restores begin with a dump of then.
    pub fn begins_at(&mut self, moment: u64) {
        self.from = self.from.max(moment);
    }

    /// Whether only a newer dump can make something restorable again.
    pub fn needs_dump(&self) -> bool {
        self.has_gap
    }

    /// A segment is in the archive.
    pub fn shipped(&mut self, segment: &Segment) {
        if self.has_gap || !segment.basis.is_subset(&self.gtid) {
            self.has_gap = true;
            self.behind.push_back(segment.clone());
            if self.behind.len() > BEHIND {
                self.behind.pop_front();
            }
            return;
        }
        self.gtid.extend_with(&segment.gtid);
        if self.from == 0 {
            self.from = segment.first_commit;
        }
        self.unproven.push_back((segment.gtid.clone(), segment.last_commit));
    }

    /// What can be restored, by what the primary has executed now.
    pub fn proven(&mut self, executed: &GtidSet) -> Option<Proven> {
        // What lost an election is never executed: it is passed over, and gives no time.
        while let Some((gtid, last_commit)) = self.unproven.front() {
            if gtid.is_subset(executed) {
                self.to = self.to.max(*last_commit);
            } else if self.unproven.len() == 1 {
                // The newest may still be on its way to its acknowledgement.
                break;
            }
            self.unproven.pop_front();
        }
        let gtid = self.gtid.intersect(executed);
        (!self.has_gap && !gtid.is_empty()).then_some(Proven { gtid, from: self.from, to: self.to })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use archive::{BinlogFile, SegmentKey};

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn set(numbers: &str) -> GtidSet {
        if numbers.is_empty() { GtidSet::default() } else { format!("{UUID}:{numbers}").parse().unwrap() }
    }

    fn segment(basis: &str, gtid: &str, commits: (u64, u64)) -> Segment {
        let file = BinlogFile { epoch: 1, server: UUID.parse().unwrap(), name: "binlog.000001".parse().unwrap() };
        Segment {
            version: archive::segment::VERSION,
            key: SegmentKey::new(file, 0, 1).unwrap(),
            basis: set(basis),
            gtid: set(gtid),
            transactions: 1,
            first_commit: commits.0,
            last_commit: commits.1,
            sha256: String::new(),
        }
    }

    #[test]
    fn the_window_is_what_was_shipped_and_executed() {
        let mut window = Window::new(&[], &[], &set(""));
        assert_eq!(window.proven(&set("1-9")), None);
        window.shipped(&segment("", "1-3", (10, 30)));
        window.shipped(&segment("1-3", "4-5", (40, 50)));
        // 5 is in the bucket and waits for its acknowledgement.
        let proven = window.proven(&set("1-4")).unwrap();
        assert_eq!(proven, Proven { gtid: set("1-4"), from: 10, to: 30 });
        let proven = window.proven(&set("1-7")).unwrap();
        assert_eq!(proven, Proven { gtid: set("1-5"), from: 10, to: 50 });
    }

    #[test]
    fn what_lost_an_election_is_not_in_it() {
        let mut window = Window::new(&[], &[], &set(""));
        window.shipped(&segment("", "1-3", (10, 30)));
        window.shipped(&segment("1-3", "4-5", (40, 50)));
        window.shipped(&segment("1-3", "6", (60, 60)));
        let proven = window.proven(&set("1-3:6")).unwrap();
        assert_eq!(proven, Proven { gtid: set("1-3:6"), from: 10, to: 60 });
    }

    #[test]
    fn there_is_none_behind_a_gap() {
        let mut window = Window::new(&[], &[], &set(""));
        window.shipped(&segment("", "1-3", (10, 30)));
        window.shipped(&segment("1-4", "5", (50, 50)));
        assert_eq!(window.proven(&set("1-5")), None);
    }

    #[test]
    fn what_was_purged_before_it_was_shipped_is_in_a_dump_or_missing() {
        let of = |dumps: &[&str], purged: &str| {
            let dump = |gtid: &&str| Dump { gtid: set(gtid), taken_at: 85 };
            Window::new(&[], &dumps.iter().map(dump).collect::<Vec<_>>(), &set(purged)).needs_dump()
        };
        assert!(!of(&[], ""), "a new cluster");
        assert!(of(&[], "1-3"), "an archive that begins late, though nothing was shipped yet");
        assert!(of(&["1-2"], "1-3"));
        assert!(!of(&["1-2", "1-5"], "1-3"));
    }

    #[test]
    fn a_dump_begins_a_window_where_the_archive_does_not() {
        let file = |segments: Vec<Segment>| Held {
            file: segments[0].key.file.clone(),
            complete: false,
            segments: segments.iter().map(archive::catalogue::Part::of).collect(),
        };
        let held = [file(vec![segment("1-9", "10-12", (100, 120)), segment("1-12", "13", (130, 130))])];
        assert!(Window::new(&held, &[], &set("")).needs_dump());
        let dump = |gtid: &str, taken_at| Dump { gtid: set(gtid), taken_at };
        assert!(Window::new(&held, &[dump("1-8", 85)], &set("")).needs_dump(), "9 is nowhere");
        let dumps = [dump("1-8", 85), dump("1-11", 115), dump("1-13", 135)];
        let mut window = Window::new(&held, &dumps, &set(""));
        let proven = window.proven(&set("1-20")).unwrap();
        assert_eq!(proven, Proven { gtid: set("1-13"), from: 115, to: 130 });
        window.shipped(&segment("1-13", "14", (140, 140)));
        assert_eq!(window.proven(&set("1-20")).unwrap().to, 140);
        // What was shipped while the archive was read is in it as well.
        let mut without = Window::new(&held, &[], &set(""));
        for (basis, gtid) in [("1-12", "13"), ("1-13", "14"), ("1-14", "15")] {
            without.shipped(&segment(basis, gtid, (150, 150)));
        }
        let mut window = Window::new(&held, &dumps, &set("")).and_behind(&without);
        assert_eq!(window.proven(&set("1-20")).unwrap().gtid, set("1-15"));
    }
}
