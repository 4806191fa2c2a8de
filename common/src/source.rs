//! Which instance of a cluster is read by what reads all of it. Pure.

use crate::crd::{InstancePhase, InstanceRole, InstanceStatus, MySQLClusterStatus};

/// A replica that lies further behind is not read: the dump would be old when it is made.
const LAG_MAX_SECONDS: f64 = 300.0;

/// The replica that lies least behind, one whose acknowledgements do not count before one whose do; else the primary. The name of
/// the pod, or why there is none.
pub fn source(status: Option<&MySQLClusterStatus>) -> Result<&str, &'static str> {
    let status = status.ok_or("the cluster has no status yet")?;
    let runs = |instance: &&InstanceStatus| instance.state == Some(InstancePhase::Running);
    let replica = |instance: &&InstanceStatus| {
        instance.role == Some(InstanceRole::Replica)
            && instance.errant.as_deref().is_none_or(str::is_empty)
            && instance.lag.is_some_and(|lag| lag <= LAG_MAX_SECONDS)
    };
    let acknowledges = |instance: &InstanceStatus| status.record().ackers.contains(&instance.name);
    let replicas = status.instances.iter().filter(runs).filter(replica);
    let best = replicas.min_by(|one, other| {
        let key = |instance: &InstanceStatus| (acknowledges(instance), instance.lag.unwrap_or(f64::MAX));
        let ((one_counts, one_lag), (other_counts, other_lag)) = (key(one), key(other));
        one_counts.cmp(&other_counts).then(one_lag.total_cmp(&other_lag)).then(one.name.cmp(&other.name))
    });
    let primary =
        || status.instances.iter().filter(runs).find(|instance| status.primary.as_ref() == Some(&instance.name));
    best.or_else(primary).map(|instance| instance.name.as_str()).ok_or("no instance can be read")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::needless_pass_by_value)]

    use serde_json::json;

    use super::*;

    fn status(instances: serde_json::Value) -> MySQLClusterStatus {
        serde_json::from_value(json!({
            "epoch": 3, "primary": "shop-0", "ackers": ["shop-1", "shop-2"], "acksNeeded": 1, "instances": instances,
        }))
        .unwrap()
    }

    fn replica(name: &str, lag: f64, state: &str) -> serde_json::Value {
        json!({"name": name, "role": "Replica", "state": state, "lag": lag})
    }

    #[test]
    fn a_replica_is_read_before_the_primary() {
        let primary = json!({"name": "shop-0", "role": "Primary", "state": "Running"});
        let of = |instances: serde_json::Value| source(Some(&status(instances))).map(str::to_owned);
        assert_eq!(
            of(json!([primary, replica("shop-1", 2.0, "Running"), replica("shop-2", 1.0, "Running")])).unwrap(),
            "shop-2"
        );
        let idle = replica("shop-3", 9.0, "Running");
        assert_eq!(of(json!([primary, replica("shop-1", 0.0, "Running"), idle])).unwrap(), "shop-3");
        assert_eq!(of(json!([primary, replica("shop-1", 900.0, "Running")])).unwrap(), "shop-0");
        assert_eq!(of(json!([primary, replica("shop-1", 0.0, "Starting")])).unwrap(), "shop-0");
        let mut errant = replica("shop-1", 0.0, "Running");
        errant["errant"] = json!("07070707-0707-0707-0707-070707070707:1");
        assert_eq!(of(json!([primary, errant])).unwrap(), "shop-0");
        assert!(of(json!([])).is_err());
        assert!(source(None).is_err());
    }
}
