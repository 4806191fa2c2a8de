//! Who may reach the instances.
//!
//! MySQL's ports are open to everybody: TLS and accounts guard them, and only users know their clients. The instance
//! API is for the daemons; instances reach each other on every port. Probes come from the pod's own node, which network
//! policies never cut off. Policies add up: whoever scrapes `/metrics` from elsewhere adds one of their own.

use common::names;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::{Cluster, Object};

/// Ingress to the MySQL pods.
pub fn policy(cluster: &Cluster, operator_namespace: &str) -> Object {
    let port = |port: u16| json!({"port": port, "protocol": "TCP"});
    cluster.object::<NetworkPolicy>(
        &cluster.name,
        json!({"spec": {
            "podSelector": {"matchLabels": cluster.selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [port(names::PORT_MYSQL), port(names::PORT_MYSQLX)]},
                {
                    "ports": [port(names::PORT_INSTANCE_API)],
                    "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}}}],
                },
                {"from": [{"podSelector": {"matchLabels": cluster.selector()}}]},
            ],
        }}),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::super::MANAGED_BY;
    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;

    #[test]
    fn the_instance_api_is_open_to_the_daemons_and_the_own_pods_only() {
        let object = policy(&cluster(), "pelorus-system");
        assert_known_to::<NetworkPolicy>(&object);
        let rules = object.body["spec"]["ingress"].as_array().cloned().unwrap_or_default();
        for rule in rules {
            let names_api = rule["ports"].as_array().is_none_or(|ports| ports.iter().any(|port| port["port"] == 7080));
            assert!(!names_api || rule["from"].is_array(), "{rule}");
        }
        assert_eq!(object.body["metadata"]["labels"]["app.kubernetes.io/managed-by"], MANAGED_BY);
    }
}
