//! Which transactions of the archive a restore replays, and how far it can reach (invariants 1, 7 and 8).
//!
//! Pure. From GTID sets alone, never from the names of files or from clocks: file names begin anew, servers change, and a
//! stream may have begun with any of them. Two rules:
//!
//! - **Lost branches.** What an epoch before the last one holds counts only if the last epoch's primary had executed it, which its
//!   segments say ([`basis`](super::Segment::basis)). A transaction that was shipped and then lost an election is never restored.
//! - **No gaps.** A segment is replayed only on top of everything that its server had executed before. Where something of
//!   that is missing, the restore ends, or is refused.

use common::clock::commit_time;
use common::gtid::GtidSet;

use super::catalogue::{Held, Part};
use super::layout::{BinlogFile, SegmentKey};

/// How far a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As far as the archive reaches.
    Newest,
    /// Every transaction before the first one that was committed later than this: microseconds since 1970.
    Time(u64),
    /// Exactly these transactions.
    Gtid(GtidSet),
}

/// A segment to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub key: SegmentKey,
    /// Those of its transactions that are replayed.
    pub take: GtidSet,
    /// It ends before the first transaction that was committed later than this; nothing follows.
    pub until: Option<u64>,
}

/// What to replay on top of a base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Segments, in order.
    pub steps: Vec<Step>,
    /// What the server holds afterwards; with a time, at most: the last segment has to be read to know.
    pub reaches: GtidSet,
}

/// How far the archive reaches from a base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The transactions of the base and all that can be replayed on top.
    pub gtid: GtidSet,
    /// Latest commit time of them that is known, microseconds since 1970; 0 without any.
    pub last_commit: u64,
    /// What is missing where it ends, if it ends at a gap.
    pub gap: GtidSet,
}

/// Why a target cannot be reached from a base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The base holds what the target does not.
    #[error("the base holds transactions that the target does not: {0}")]
    BeyondBase(GtidSet),
    /// The target holds what the archive does not, or not without a gap.
    #[error("the archive does not have {missing}; it reaches to {} and to the commit time {}", reach.gtid, commit_time(reach.last_commit))]
    Unknown {
        /// What is missing of the target.
        missing: GtidSet,
        /// What can be reached instead.
        reach: Box<Reach>,
    },
    /// The time is later than what the archive has.
    #[error("the archive reaches to the commit time {}, not to {}", commit_time(reach.last_commit), commit_time(*time))]
    TooLate {
        /// The time that was asked for.
        time: u64,
        /// What can be reached instead.
        reach: Box<Reach>,
    },
}

/// What can be replayed, one segment after the other.
struct Walk<'a> {
    steps: Vec<(&'a BinlogFile, &'a Part, GtidSet)>,
    reach: Reach,
}

/// All files in order, as far as they reach without a gap.
fn walk<'a>(base: &GtidSet, held: &'a [Held]) -> Walk<'a> {
    let history = history(held);
    let mut walk = Walk { steps: Vec::new(), reach: Reach { gtid: base.clone(), ..Reach::default() } };
    for (file, part) in held.iter().flat_map(|file| file.segments.iter().map(move |part| (&file.file, part))) {
        let take = part.gtid.intersect(&history).subtract(&walk.reach.gtid);
        if take.is_empty() {
            if part.gtid.is_subset(&walk.reach.gtid) {
                walk.reach.last_commit = walk.reach.last_commit.max(part.last_commit);
            }
            continue;
        }
        let gap = part.basis.intersect(&history).subtract(&walk.reach.gtid);
        if !gap.is_empty() {
            walk.reach.gap = gap;
            break;
        }
        walk.reach.gtid.extend_with(&take);
        walk.reach.last_commit = walk.reach.last_commit.max(part.last_commit);
        walk.steps.push((file, part, take));
    }
    walk
}

/// All that the last epoch's primary is known to have executed.
pub(crate) fn history(held: &[Held]) -> GtidSet {
    let last = held.iter().filter(|file| !file.segments.is_empty()).map(|file| file.file.epoch).max();
    let mut history = GtidSet::default();
    for part in held.iter().filter(|file| Some(file.file.epoch) == last).flat_map(|file| &file.segments) {
        history.extend_with(&part.basis);
        history.extend_with(&part.gtid);
    }
    history
}

/// Whether a restore to `target` can begin with a dump that holds `gtid`: nothing of it lost an election, and nothing of it is
/// beyond the target. `taken_at` is when it was made, microseconds since 1970.
pub fn begins(gtid: &GtidSet, taken_at: u64, held: &[Held], target: &Target) -> bool {
    let history = history(held);
    let mut parts = held.iter().flat_map(|file| &file.segments).filter(|part| !part.gtid.intersect(gtid).is_empty());
    let within = |part: &Part| match target {
        // The clock of the server that was dumped may not be that of those that committed.
        Target::Time(time) => part.last_commit <= *time,
        Target::Newest | Target::Gtid(_) => true,
    };
    let in_time = match target {
        Target::Time(time) => taken_at <= *time,
        Target::Newest => true,
        Target::Gtid(wanted) => gtid.is_subset(wanted),
    };
    in_time && parts.all(|part| within(part) && part.gtid.intersect(gtid).is_subset(&history))
}

/// How far the archive reaches from a base.
pub fn reach(base: &GtidSet, held: &[Held]) -> Reach {
    walk(base, held).reach
}

/// What to replay on top of `base` to get to `target`. `held` is in order, as [`read`](super::catalogue::read) gives it.
///
/// # Errors
/// A target that cannot be reached exactly, with what can.
pub fn plan(base: &GtidSet, held: &[Held], target: &Target) -> Result<Plan, Refusal> {
    let Walk { steps, reach } = walk(base, held);
    let key = |file: &BinlogFile, part: &Part| SegmentKey { file: file.clone(), first: part.first, last: part.last };
    let whole = |steps: &[(&BinlogFile, &Part, GtidSet)]| -> Vec<Step> {
        steps.iter().map(|(file, part, take)| Step { key: key(file, part), take: take.clone(), until: None }).collect()
    };
    match target {
        Target::Newest => Ok(Plan { steps: whole(&steps), reaches: reach.gtid }),
        Target::Time(time) => {
            // The first transaction that is later is in the first segment that has one; nothing after it is taken.
            let Some(end) = steps.iter().position(|(_, part, _)| part.last_commit > *time) else {
                if reach.last_commit == *time {
                    return Ok(Plan { steps: whole(&steps), reaches: reach.gtid });
                }
                return Err(Refusal::TooLate { time: *time, reach: Box::new(reach) });
            };
            let (before, rest) = steps.split_at(end);
            let mut plan = Plan { steps: whole(before), reaches: base.clone() };
            if let Some((file, part, take)) = rest.first().filter(|(_, part, _)| part.first_commit <= *time) {
                plan.steps.push(Step { key: key(file, part), take: take.clone(), until: Some(*time) });
            }
            for step in &plan.steps {
                plan.reaches.extend_with(&step.take);
            }
            Ok(plan)
        }
        Target::Gtid(wanted) => {
            let beyond = base.subtract(wanted);
            if !beyond.is_empty() {
                return Err(Refusal::BeyondBase(beyond));
            }
            let missing = wanted.subtract(&reach.gtid);
            if !missing.is_empty() {
                return Err(Refusal::Unknown { missing, reach: Box::new(reach) });
            }
            let mut taken = whole(&steps);
            for step in &mut taken {
                step.take = step.take.intersect(wanted);
            }
            taken.retain(|step| !step.take.is_empty());
            Ok(Plan { steps: taken, reaches: wanted.clone() })
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
