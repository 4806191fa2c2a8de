//! One voluntary disruption at a time.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use super::{Cluster, Object};

/// Drains take one instance at a time; each hands over before it goes.
pub fn budget(cluster: &Cluster) -> Object {
    cluster.object::<PodDisruptionBudget>(
        &cluster.name,
        json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": cluster.selector()}}}),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn budget_is_a_known_object() {
        use super::super::fixtures::{assert_known_to, cluster};
        assert_known_to::<super::PodDisruptionBudget>(&super::budget(&cluster()));
    }
}
