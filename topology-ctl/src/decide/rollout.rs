//! Which pod is replaced next so that all come to the wanted template.
//!
//! Pods are replaced one at a time, replicas from the highest ordinal down, the primary last (instance-d asks for the
//! hand-over when its pod is told to go, failover-d switches over). Each step waits until the cluster is whole again:
//! every pod ready, every replica a recorded acker, no change of primary under way. A new pod that cannot start stops
//! the roll-out there, and the cluster goes on with the others. Taking the change back heals it: a pod that cannot
//! start is replaced whatever the state of the cluster, because it serves nothing.
//!
//! The digest covers what users control and not the instance-d image: an upgrade of the operator rolls no database.

use common::instance::Phase;

use super::{Member, Record};

/// Where the roll-out stands, and which pods (name, uid) to delete now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod has the wanted template and is ready.
    Done,
    /// Every pod there is has the wanted template; some are not ready yet.
    Settling {
        /// Who.
        waiting_for: Vec<String>,
    },
    /// Replace these pods now.
    Replace {
        /// Name and uid.
        pods: Vec<(String, String)>,
        /// Why these, for people.
        reason: String,
        /// Pods still to come, these included.
        outdated: usize,
    },
    /// Go on when this has passed.
    Waiting {
        /// What for, for people.
        reason: String,
        /// Pods still to come.
        outdated: usize,
    },
    /// A pod with the wanted template cannot start.
    Stuck {
        /// Who.
        instance: String,
        /// Kubernetes' words.
        reason: String,
        /// Pods still to come.
        outdated: usize,
    },
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// failover-d's facts.
    pub record: &'a Record,
    /// Instances, by ordinal.
    pub members: &'a [Member],
    /// Digest of the template in force.
    pub wanted: &'a str,
    /// Pods that there shall be.
    pub replicas: u32,
    /// The StatefulSet controller has seen the template: a pod deleted now comes back with it.
    pub template_observed: bool,
    /// failover-d says that the cluster is degraded.
    pub degraded: bool,
}

/// A replica that misses no more transactions than this has caught up: it is asked a moment later than the primary, or
/// earlier, and writes go on between.
const BEHIND_TRANSACTIONS: u64 = 200;

/// Decides the next step.
pub fn rollout(input: Input<'_>) -> Rollout {
    let Input { record, members, wanted, replicas, template_observed, degraded } = input;
    let expected: Vec<&Member> = members.iter().filter(|member| member.ordinal < replicas).collect();
    let outdated: Vec<&Member> = expected.iter().copied().filter(|member| is_outdated(member, wanted)).collect();
    let left = outdated.len();
    let wait = |reason: String| Rollout::Waiting { reason, outdated: left };

    if outdated.is_empty() {
        if let Some((instance, reason)) = expected.iter().find_map(|member| stuck(member)) {
            return Rollout::Stuck { instance, reason, outdated: 0 };
        }
        let waiting_for: Vec<String> =
            expected.iter().filter(|member| !is_ready(member)).map(|member| member.name.clone()).collect();
        return if waiting_for.is_empty() { Rollout::Done } else { Rollout::Settling { waiting_for } };
    }
    if !template_observed {
        return wait("the StatefulSet controller has not seen the new template yet".to_owned());
    }
    if record.is_new() {
        return replace(&outdated, "no instance was ever promoted: all are replaced at once", left);
    }
    let failing: Vec<&Member> = outdated.iter().copied().filter(|member| serves_nothing(member)).collect();
    if !failing.is_empty() {
        return replace(&failing, "it cannot start with its old template", left);
    }
    // From here on a pod that serves is stopped: only while the cluster is whole.
    if let Some((instance, reason)) =
        expected.iter().filter(|member| !is_outdated(member, wanted)).find_map(|member| stuck(member))
    {
        return Rollout::Stuck { instance, reason, outdated: left };
    }
    let is_primary = |member: &Member| record.primary.as_ref() == Some(&member.name);
    if let Some(reason) = gap(record, &expected, replicas, degraded) {
        // The gap is a pod that the change itself replaces: it is the next one.
        let lame =
            outdated.iter().copied().find(|member| !is_ready(member) && !is_primary(member) && !is_filling(member));
        let others: Vec<&Member> =
            expected.iter().copied().filter(|member| lame.is_some_and(|lame| lame.name != member.name)).collect();
        return match lame {
            Some(lame) if gap(record, &others, replicas.saturating_sub(1), false).is_none() => {
                replace(&[lame], "it is not ready and nothing else is amiss", left)
            }
            Some(_) | None => wait(reason),
        };
    }
    let next = outdated.iter().copied().filter(|member| !is_primary(member)).max_by_key(|member| member.ordinal);
    match next {
        Some(replica) => replace(&[replica], "the next replica", left),
        None => replace(&outdated, "the primary comes last, after a hand-over", left),
    }
}

/// What keeps the cluster from being whole; `None` when nothing does.
fn gap(record: &Record, expected: &[&Member], replicas: u32, degraded: bool) -> Option<String> {
    if record.operation {
        return Some("a change of primary is under way".to_owned());
    }
    if let Some(member) = expected.iter().find(|member| !is_ready(member)) {
        return Some(format!("{} is not ready", member.name));
    }
    if expected.len() < replicas as usize {
        return Some(format!("{} of {replicas} pods exist", expected.len()));
    }
    let Some(primary) = &record.primary else { return Some("there is no primary".to_owned()) };
    if let Some(member) =
        expected.iter().find(|member| member.name != *primary && !record.ackers.contains(&member.name))
    {
        return Some(format!("{} is not a recorded acker yet", member.name));
    }
    if let Some(behind) = behind(primary, expected) {
        return Some(behind);
    }
    degraded.then(|| "the cluster is degraded".to_owned())
}

/// A replica that still receives what it missed. It follows and applies all that it has, but commits would wait for it to
/// receive the rest (a flush of the relay log for each) if another acker went away now.
fn behind(primary: &str, expected: &[&Member]) -> Option<String> {
    let mysqld = |member: &'_ Member| member.state.as_ref().and_then(|state| state.mysqld.clone());
    let source = expected.iter().find(|member| member.name == primary).and_then(|member| mysqld(member))?;
    expected.iter().filter(|member| member.name != primary).find_map(|member| {
        let missing = source.executed.subtract(&mysqld(member)?.received).count();
        (missing > BEHIND_TRANSACTIONS).then(|| format!("{} still has {missing} transactions to receive", member.name))
    })
}

fn is_outdated(member: &Member, wanted: &str) -> bool {
    member.pod.as_ref().is_some_and(|pod| !pod.deleting && pod.template.as_deref() != Some(wanted))
}

fn is_ready(member: &Member) -> bool {
    member.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting)
}

fn stuck(member: &Member) -> Option<(String, String)> {
    let pod = member.pod.as_ref().filter(|pod| !pod.deleting)?;
    pod.stuck.clone().map(|reason| (member.name.clone(), reason))
}

/// No mysqld runs there, and none will without a change.
fn serves_nothing(member: &Member) -> bool {
    stuck(member).is_some() || member.is_phase(Phase::Failed)
}

/// Its data is being made: stopping it now would begin it anew.
fn is_filling(member: &Member) -> bool {
    member.is_phase(Phase::Cloning) || member.is_phase(Phase::Initialising)
}

fn replace(members: &[&Member], reason: &str, outdated: usize) -> Rollout {
    let pods = members
        .iter()
        .filter_map(|member| member.pod.as_ref().map(|pod| (member.name.clone(), pod.uid.clone())))
        .collect();
    Rollout::Replace { pods, reason: reason.to_owned(), outdated }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use super::super::Pod;
    use super::super::fixtures::{members, mysqld, name, record, state};
    use super::*;

    fn decide(record: &Record, members: &[Member]) -> Rollout {
        rollout(Input { record, members, wanted: "new", replicas: 3, template_observed: true, degraded: false })
    }

    fn pod(members: &mut [Member], ordinal: usize) -> &mut Pod {
        members[ordinal].pod.as_mut().unwrap()
    }

    fn outdated(ordinals: &[usize]) -> Vec<Member> {
        let mut members = members(3);
        for ordinal in ordinals {
            pod(&mut members, *ordinal).template = Some("old".into());
        }
        members
    }

    fn replaced(rollout: &Rollout) -> Vec<String> {
        match rollout {
            Rollout::Replace { pods, .. } => pods.iter().map(|(name, _)| name.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replicas_come_first_from_the_top_and_the_primary_last() {
        assert_eq!(replaced(&decide(&record(3), &outdated(&[0, 1, 2]))), [name(2)]);
        assert_eq!(replaced(&decide(&record(3), &outdated(&[0, 1]))), [name(1)]);
        assert_eq!(replaced(&decide(&record(3), &outdated(&[0]))), [name(0)]);
        assert_eq!(decide(&record(3), &outdated(&[])), Rollout::Done);
    }

    #[test]
    fn each_step_waits_until_the_cluster_is_whole() {
        type Change = fn(&mut Record, &mut Vec<Member>);
        let cases: [(&str, Change); 6] = [
            ("operation", |record, _| record.operation = true),
            ("no primary", |record, _| record.primary = None),
            ("not an acker", |record, _| {
                record.ackers.remove(&name(1));
            }),
            ("not ready", |_, members| pod(members, 1).ready = false),
            ("on its way out", |_, members| pod(members, 1).deleting = true),
            ("pod missing", |_, members| {
                members.remove(1);
            }),
        ];
        for (what, change) in cases {
            let (mut record, mut members) = (record(3), outdated(&[0, 2]));
            change(&mut record, &mut members);
            assert!(matches!(decide(&record, &members), Rollout::Waiting { outdated: 2, .. }), "{what}");
        }
        let members = outdated(&[2]);
        let record = record(3);
        let input = Input {
            record: &record,
            members: &members,
            wanted: "new",
            replicas: 3,
            template_observed: true,
            degraded: true,
        };
        assert!(matches!(rollout(input), Rollout::Waiting { .. }));
        assert!(matches!(
            rollout(Input { degraded: false, template_observed: false, ..input }),
            Rollout::Waiting { .. }
        ));
    }

    #[test]
    fn a_replica_that_still_receives_what_it_missed_is_waited_for() {
        const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let with = |last: u32| {
            let mut members = outdated(&[0, 1]);
            for (member, last) in members.iter_mut().zip([1000, 1000, last]) {
                let mut state = state(member.ordinal, common::instance::Phase::Running);
                state.mysqld = Some(mysqld(&format!("{UUID}:1-{last}")));
                member.state = Some(state);
            }
            decide(&record(3), &members)
        };
        assert!(matches!(with(700), Rollout::Waiting { .. }));
        assert!(matches!(with(900), Rollout::Replace { .. }));
    }

    #[test]
    fn a_new_pod_that_cannot_start_stops_the_rollout() {
        let mut members = outdated(&[0, 1]);
        pod(&mut members, 2).ready = false;
        pod(&mut members, 2).stuck = Some("ImagePullBackOff".into());
        assert_eq!(
            decide(&record(3), &members),
            Rollout::Stuck { instance: name(2), reason: "ImagePullBackOff".into(), outdated: 2 }
        );
    }

    #[test]
    fn taking_a_bad_change_back_replaces_the_stuck_pod_only() {
        let mut members = members(3);
        let stuck = pod(&mut members, 2);
        stuck.template = Some("bad".into());
        stuck.ready = false;
        stuck.stuck = Some("ImagePullBackOff".into());
        let mut record = record(3);
        record.ackers.remove(&name(2));
        assert_eq!(replaced(&decide(&record, &members)), [name(2)]);
    }

    #[test]
    fn a_replica_that_is_not_ready_is_replaced_first_when_nothing_else_is_amiss() {
        let mut members = outdated(&[0, 1, 2]);
        pod(&mut members, 1).ready = false;
        let mut record = record(3);
        record.ackers.remove(&name(1));
        assert_eq!(replaced(&decide(&record, &members)), [name(1)]);
        pod(&mut members, 2).ready = false;
        assert!(matches!(decide(&record, &members), Rollout::Waiting { .. }));
        members[2].state.as_mut().unwrap().phase = Phase::Failed;
        assert_eq!(replaced(&decide(&record, &members)), [name(2)]);
    }

    #[test]
    fn a_cluster_that_never_had_a_primary_is_replaced_at_once() {
        let all = outdated(&[0, 1, 2]);
        assert_eq!(replaced(&decide(&Record::default(), &all)).len(), 3);
    }

    #[test]
    fn a_healthy_template_with_a_pod_that_is_not_ready_settles() {
        let mut members = members(3);
        pod(&mut members, 1).ready = false;
        assert_eq!(decide(&record(3), &members), Rollout::Settling { waiting_for: vec![name(1)] });
    }
}
