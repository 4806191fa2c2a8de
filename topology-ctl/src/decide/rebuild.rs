//! Whose data may be thrown away, so that a clone takes its place.
//!
//! - Data that lies so far behind that its source has purged what it misses, and holds nothing else (invariant 5).
//! - Data that instance-d refuses to serve because it holds transactions that a change of primary left behind: they were
//!   acknowledged to nobody (or a person accepted their loss), and they are saved on the volume first.
//! - Data that a person names in [`common::names::ANNOTATION_REBUILD`]. Only so is what somebody wrote to a replica
//!   thrown away, and also then instance-d saves it before.
//!
//! Whether now is the time (no operation, neither primary nor recorded acker) is asked in `provision`.

use common::gtid::GtidSet;
use common::instance::{ErrantOrigin, InstanceState, Phase, Role};

use super::provision::{is_primary, replica_lag};
use super::{Member, Record};

/// Data that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Names it.
    pub data_id: String,
    /// What instance-d saves before, because it has not yet.
    pub saves: Option<GtidSet>,
    /// For people.
    pub why: Why,
}

/// Why data may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It can never catch up.
    Outdated,
    /// It holds what a change of primary left behind.
    LeftBehind(GtidSet),
    /// A person asked.
    Asked,
}

impl Why {
    /// The end of a sentence.
    pub fn text(&self) -> String {
        match self {
            Self::Outdated => "its source has purged what it misses".to_owned(),
            Self::LeftBehind(gtids) if gtids.is_empty() => {
                "its binlog cannot be read, so nobody can say what it holds that the primary lacks; a copy of it is on \
                 the volume"
                    .to_owned()
            }
            Self::LeftBehind(gtids) => format!(
                "it holds {} transactions that a change of primary left behind and that cannot be taken back ({gtids}); \
                 a copy of them is on the volume",
                gtids.count()
            ),
            Self::Asked => "a person asked for it".to_owned(),
        }
    }
}

/// What may go of an instance, if anything.
pub fn condemned(record: &Record, member: &Member, members: &[Member], asked: Option<&str>) -> Option<Condemned> {
    let state = member.state.as_ref()?;
    let data_id = state.data_id.clone()?;
    let asked = asked == Some(&member.name) && refusal(record, members, &member.name).is_none();
    if asked && holds_data(state.phase) {
        let primary = members.iter().find(|other| is_primary(record, other)).and_then(|other| other.state.as_ref())?;
        return Some(Condemned { data_id, saves: unsaved(state, primary), why: Why::Asked });
    }
    if let Some(gtids) = left_behind(record, member) {
        return Some(Condemned { data_id, saves: None, why: Why::LeftBehind(gtids) });
    }
    is_outdated(record, member, members).then_some(Condemned { data_id, saves: None, why: Why::Outdated })
}

/// Why a person's wish is not followed. `None`: it is, now or later.
pub fn refusal(record: &Record, members: &[Member], asked: &str) -> Option<String> {
    let Some(member) = members.iter().find(|member| member.name == asked) else {
        return Some(format!("there is no instance {asked:?}"));
    };
    if record.primary.as_deref() == Some(asked) {
        return Some(format!("{asked} is the primary; move the primary first"));
    }
    let healthy = member.state.as_ref().is_some_and(|state| state.errant.is_none()) && follows(record, member, members);
    if record.ackers.contains(asked) && healthy {
        return Some(format!("{asked} is a recorded acker that does its part"));
    }
    None
}

/// Whether the wish is under way: the instance has no data any more. Then nothing has to remember it.
pub fn is_under_way(member: &Member) -> bool {
    member.is_empty() || member.state.as_ref().is_some_and(|state| state.phase == Phase::Cloning)
}

fn holds_data(phase: Phase) -> bool {
    match phase {
        Phase::Empty | Phase::Initialising | Phase::Cloning => false,
        Phase::Crashed | Phase::Rewinding | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Failed => true,
    }
}

/// Follows the recorded primary without holding anything that it lacks.
fn follows(record: &Record, member: &Member, members: &[Member]) -> bool {
    let primary = members.iter().find(|other| is_primary(record, other)).and_then(|other| other.state.as_ref());
    let errant = member.state.as_ref().zip(primary).map(|(state, primary)| foreign(state, primary));
    replica_lag(record, member).is_some() && errant.is_none_or(|errant| errant.is_empty())
}

/// What an instance holds and the primary does not, but for what the primary is about to commit.
fn foreign(state: &InstanceState, primary: &InstanceState) -> GtidSet {
    let (Some(own), Some(primary)) = (&state.mysqld, &primary.mysqld) else { return GtidSet::default() };
    own.received.foreign_to(&primary.executed, &primary.server_uuid)
}

fn unsaved(state: &InstanceState, primary: &InstanceState) -> Option<GtidSet> {
    let known = state.errant.as_ref();
    let saved = known.filter(|errant| errant.saved).map(|errant| errant.gtids.clone()).unwrap_or_default();
    let errant = known.map(|errant| errant.gtids.clone()).unwrap_or_default();
    let unsaved = errant.union(&foreign(state, primary)).subtract(&saved);
    (!unsaved.is_empty()).then_some(unsaved)
}

/// What a change of primary left behind, in data that is not served and that is saved.
fn left_behind(record: &Record, member: &Member) -> Option<GtidSet> {
    let state = member.state.as_ref()?;
    let errant = state.errant.as_ref().filter(|errant| errant.saved)?;
    let by_itself = match errant.origin {
        ErrantOrigin::Tail | ErrantOrigin::Received => true,
        ErrantOrigin::Written => false,
    };
    (by_itself && state.phase == Phase::Failed && state.promised <= record.leading_epoch())
        .then(|| errant.gtids.clone())
}

/// An instance that can never catch up (its source has purged what it misses) and whose every transaction is in the
/// primary's history.
fn is_outdated(record: &Record, member: &Member, members: &[Member]) -> bool {
    if record.primary.as_deref() == Some(&member.name) || record.ackers.contains(&member.name) {
        return false;
    }
    let Some((state, behind)) = member.state.as_ref().and_then(|state| Some((state, state.mysqld.as_ref()?))) else {
        return false;
    };
    let primary = members.iter().find(|other| is_primary(record, other)).and_then(|other| other.state.as_ref());
    let Some(primary) = primary.and_then(|primary| primary.mysqld.as_ref()) else { return false };
    let is_behind = match state.role {
        Role::None | Role::Fenced | Role::Replica { .. } => true,
        Role::Primary { .. } => false,
    };
    is_behind
        && state.phase == Phase::Running
        && state.promised <= record.epoch
        && behind.received.is_subset(&primary.executed)
        && behind.executed.is_subset(&primary.executed)
        && !primary.purged.is_subset(&behind.received)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use common::instance::ErrantReport;

    use super::super::fixtures::{empty, members, mysqld, name, record};
    use super::*;

    const UUID: &str = "11111111-1111-1111-1111-111111111111";
    const OTHER: &str = "22222222-2222-2222-2222-222222222222";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    /// Instance 3 is `Failed` with a foreign transaction.
    fn failed(origin: ErrantOrigin, saved: bool) -> (Record, Vec<Member>) {
        let mut members = members(4);
        let state = members[3].state.as_mut().unwrap();
        state.phase = Phase::Failed;
        state.mysqld = None;
        state.errant = Some(ErrantReport { gtids: set(&format!("{OTHER}:1")), origin, saved });
        (record(3), members)
    }

    fn of_3(record: &Record, members: &[Member], asked: Option<u32>) -> Option<Condemned> {
        condemned(record, &members[3], members, asked.map(name).as_deref())
    }

    #[test]
    fn what_a_change_of_primary_left_behind_goes_once_it_is_saved() {
        let errant = set(&format!("{OTHER}:1"));
        for (origin, saved, goes) in [
            (ErrantOrigin::Tail, true, true),
            (ErrantOrigin::Received, true, true),
            (ErrantOrigin::Written, true, false),
            (ErrantOrigin::Tail, false, false),
            (ErrantOrigin::Received, false, false),
        ] {
            let (record, members) = failed(origin, saved);
            let wanted =
                goes.then(|| Condemned { data_id: "d3".into(), saves: None, why: Why::LeftBehind(errant.clone()) });
            assert_eq!(of_3(&record, &members, None), wanted, "{origin:?} {saved}");
        }
    }

    #[test]
    fn only_failed_data_of_an_epoch_that_is_recorded_goes_by_itself() {
        let (record, mut members) = failed(ErrantOrigin::Tail, true);
        members[3].state.as_mut().unwrap().promised = record.epoch + 1;
        assert_eq!(of_3(&record, &members, None), None);
        members[3].state.as_mut().unwrap().promised = record.epoch;
        for phase in [Phase::Crashed, Phase::Running, Phase::Rewinding, Phase::Starting, Phase::Stopping] {
            members[3].state.as_mut().unwrap().phase = phase;
            assert_eq!(of_3(&record, &members, None), None, "{phase:?}");
        }
    }

    #[test]
    fn what_somebody_wrote_goes_when_a_person_says_so_and_is_saved_before() {
        for saved in [true, false] {
            let (record, members) = failed(ErrantOrigin::Written, saved);
            let saves = (!saved).then(|| set(&format!("{OTHER}:1")));
            let wanted = Condemned { data_id: "d3".into(), saves, why: Why::Asked };
            assert_eq!(of_3(&record, &members, Some(3)), Some(wanted));
            assert_eq!(of_3(&record, &members, Some(2)), None, "another one");
        }
        // A replica that runs on with what somebody wrote to it.
        let mut members = members(4);
        members[3].state.as_mut().unwrap().mysqld = Some(mysqld(&format!("{UUID}:1-10,{OTHER}:4")));
        let found = of_3(&record(4), &members, Some(3)).unwrap();
        assert_eq!(found.saves, Some(set(&format!("{OTHER}:4"))));
    }

    #[test]
    fn a_wish_is_not_followed_against_the_primary_or_a_healthy_acker() {
        let members = members(4);
        let record = record(4);
        assert!(refusal(&record, &members, &name(0)).unwrap().contains("primary"));
        assert!(refusal(&record, &members, &name(1)).unwrap().contains("acker"));
        assert!(refusal(&record, &members, "shop-9").is_some());
        assert_eq!(condemned(&record, &members[0], &members, Some(&name(0))), None);
        assert_eq!(condemned(&record, &members[1], &members, Some(&name(1))), None);
        let mut errant = members.clone();
        errant[1].state.as_mut().unwrap().mysqld = Some(mysqld(&format!("{UUID}:1-10,{OTHER}:1")));
        assert_eq!(refusal(&record, &errant, &name(1)), None, "failover-d strikes it first");
        let mut unrecorded = record;
        unrecorded.ackers.remove(&name(3));
        assert_eq!(refusal(&unrecorded, &members, &name(3)), None);
    }

    #[test]
    fn a_wish_is_under_way_when_the_data_is_gone() {
        let mut members = members(2);
        assert!(!is_under_way(&members[1]));
        members[1].state.as_mut().unwrap().phase = Phase::Cloning;
        assert!(is_under_way(&members[1]) && is_under_way(&empty(1)));
        assert_eq!(condemned(&record(1), &members[1], &members, Some(&name(1))), None);
    }
}
