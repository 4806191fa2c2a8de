//! What is streamed of a cluster, if anything. Pure.

use common::crd::{Archive, MySQLCluster};
use common::instance::Epoch;

/// What should go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing is asked for: there is nothing to say either.
    Nothing,
    /// A stream is asked for and cannot be yet.
    Wait {
        /// For programs.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The binlog of this instance goes to this place.
    Stream {
        /// Epoch of its being primary.
        epoch: Epoch,
        /// Its pod.
        primary: String,
        /// The archive of the spec.
        archive: Archive,
    },
}

/// What should go on with a cluster as it is.
pub fn decide(cluster: &MySQLCluster) -> Wish {
    let Some(archive) = cluster.spec.archive.as_ref().filter(|archive| archive.binlog.enabled) else {
        return Wish::Nothing;
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return Wish::Nothing;
    }
    if cluster.spec.hibernated {
        return Wish::Wait { reason: "Hibernated", message: "the cluster has no pods".to_owned() };
    }
    let record = cluster.status.as_ref().map(common::crd::MySQLClusterStatus::record).unwrap_or_default();
    // An operation under way changes nothing: the recorded primary is the one whose transactions count, until another is recorded.
    match record.primary {
        Some(primary) => Wish::Stream { epoch: record.epoch, primary, archive: archive.clone() },
        None => Wish::Wait { reason: "NoPrimary", message: "the cluster has no primary yet".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

    use serde_json::json;

    use super::*;

    fn cluster(spec: serde_json::Value, status: serde_json::Value) -> MySQLCluster {
        let mut base = json!({"storage": {"size": "1Gi"}});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster",
            "metadata": {"name": "shop", "namespace": "n"}, "spec": base, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_recorded_primary_is_streamed_where_that_is_asked_for() {
        let archive = json!({"archive": {"locationRef": {"name": "here"}}});
        let primary = json!({"epoch": 7, "primary": "shop-1"});
        match decide(&cluster(archive.clone(), primary.clone())) {
            Wish::Stream { epoch, primary, archive } => {
                assert_eq!((epoch, primary.as_str(), archive.location_ref.name.as_str()), (7, "shop-1", "here"));
            }
            other => unreachable!("{other:?}"),
        }
        assert_eq!(decide(&cluster(json!({}), primary.clone())), Wish::Nothing);
        let off = json!({"archive": {"locationRef": {"name": "here"}, "binlog": {"enabled": false}}});
        assert_eq!(decide(&cluster(off, primary.clone())), Wish::Nothing);
        let waits = |spec, status| match decide(&cluster(spec, status)) {
            Wish::Wait { reason, .. } => reason,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(waits(archive.clone(), json!({})), "NoPrimary");
        let asleep = json!({"hibernated": true, "archive": archive.get("archive").unwrap()});
        assert_eq!(waits(asleep, primary), "Hibernated");
    }
}
