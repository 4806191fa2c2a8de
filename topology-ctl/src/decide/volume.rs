//! Volumes that are gone for ever.
//!
//! A pod that waits for a volume that no longer exists waits for ever. Only the clear-cut cases are acted on: the claim
//! object is missing, or Kubernetes says that its volume is lost. The data is gone either way; what is deleted here is
//! only what stands in the way of a new volume, which then is filled by clone. The recorded primary is left alone until
//! failover-d has promoted another.

use super::{Member, Record, Volume};

/// What to clear away so that the StatefulSet makes a new volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replace {
    /// Whose pod (by uid) is deleted.
    pub instance: String,
    /// The pod that was looked at.
    pub pod_uid: String,
    /// Whether the claim is deleted too.
    pub claim: bool,
}

/// Decides which instances get a new volume.
pub fn replace(record: &Record, members: &[Member]) -> Vec<Replace> {
    members
        .iter()
        .filter(|member| record.primary.as_ref() != Some(&member.name) && member.state.is_none())
        .filter_map(|member| {
            let pod = member.pod.as_ref().filter(|pod| pod.pending && !pod.deleting)?;
            let claim = match member.volume {
                Volume::Lost => true,
                // Claims and pods are listed side by side: that of a new pod may be missing in the older list.
                Volume::Missing if !pod.young => false,
                Volume::Missing | Volume::Pending | Volume::Deleting | Volume::Bound => return None,
            };
            Some(Replace { instance: member.name.clone(), pod_uid: pod.uid.clone(), claim })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::fixtures::{member, name, record};
    use super::*;

    #[test]
    fn only_a_pending_instance_whose_volume_is_gone_gets_a_new_one() {
        for (volume, pending, expected) in [
            (Volume::Lost, true, Some(true)),
            (Volume::Missing, true, Some(false)),
            (Volume::Pending, true, None),
            (Volume::Deleting, true, None),
            (Volume::Bound, true, None),
            (Volume::Lost, false, None),
        ] {
            let mut lost = member(2);
            lost.state = None;
            lost.volume = volume;
            let pod = lost.pod.as_mut().unwrap();
            pod.pending = pending;
            pod.ready = false;
            let plan = replace(&record(3), &[member(0), member(1), lost]);
            let expected: Vec<_> =
                expected.map(|claim| Replace { instance: name(2), pod_uid: "u2".into(), claim }).into_iter().collect();
            assert_eq!(plan, expected, "{volume:?} {pending}");
        }
    }

    #[test]
    fn a_new_pod_whose_claim_was_not_seen_yet_is_left_alone() {
        let mut new = member(2);
        new.state = None;
        new.volume = Volume::Missing;
        let pod = new.pod.as_mut().unwrap();
        (pod.pending, pod.young) = (true, true);
        assert_eq!(replace(&record(3), &[new]), []);
    }

    #[test]
    fn the_recorded_primary_keeps_its_claim() {
        let mut lost = member(0);
        lost.state = None;
        lost.volume = Volume::Lost;
        lost.pod.as_mut().unwrap().pending = true;
        assert_eq!(replace(&record(3), &[lost]), []);
    }
}
