//! The three Services: one name per instance, the primary, the replicas.
//!
//! Those of the primary and the replicas have no selector: failover-d writes their EndpointSlices, one write hands over.

use common::crd::{MySQLClusterSpec, ServiceTemplate};
use common::names;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{Cluster, Object};

/// The headless Service: a stable name for each instance from its first moment, and SRV records.
pub fn headless(cluster: &Cluster) -> Object {
    let mut ports = ports();
    if let Some(list) = ports.as_array_mut() {
        list.push(port("api", names::PORT_INSTANCE_API));
    }
    cluster.object::<Service>(
        &cluster.name,
        json!({"spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": cluster.selector(),
            "ports": ports,
        }}),
    )
}

/// The Service of the instance that takes writes.
pub fn primary(cluster: &Cluster, spec: &MySQLClusterSpec) -> Object {
    selectorless(cluster, &names::object::primary_service(&cluster.name), &spec.services.primary)
}

/// The Service of the replicas that keep up.
pub fn replicas(cluster: &Cluster, spec: &MySQLClusterSpec) -> Object {
    selectorless(cluster, &names::object::replicas_service(&cluster.name), &spec.services.replicas)
}

fn selectorless(cluster: &Cluster, name: &str, template: &ServiceTemplate) -> Object {
    let mut content = json!({"spec": {"type": template.type_.as_str(), "ports": ports()}});
    if !template.annotations.is_empty() {
        super::merge(&mut content, json!({"metadata": {"annotations": template.annotations}}));
    }
    cluster.object::<Service>(name, content)
}

fn ports() -> Value {
    json!([port("mysql", names::PORT_MYSQL), port("mysqlx", names::PORT_MYSQLX)])
}

fn port(name: &str, port: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;

    #[test]
    fn only_the_headless_service_selects_pods() {
        let spec = MySQLClusterSpec::default();
        let (headless, primary, replicas) =
            (headless(&cluster()), primary(&cluster(), &spec), replicas(&cluster(), &spec));
        for object in [&headless, &primary, &replicas] {
            assert_known_to::<Service>(object);
        }
        assert_eq!(headless.body["spec"]["publishNotReadyAddresses"], true);
        assert_eq!(headless.body["spec"]["ports"].as_array().map(Vec::len), Some(3));
        assert_eq!((primary.name.as_str(), replicas.name.as_str()), ("shop-primary", "shop-replicas"));
        assert!(primary.body["spec"]["selector"].is_null() && replicas.body["spec"]["selector"].is_null());
    }

    #[test]
    fn type_and_annotations_come_from_the_spec() {
        let mut spec = MySQLClusterSpec::default();
        spec.services.primary.type_ = common::crd::ServiceType::LoadBalancer;
        spec.services.primary.annotations.insert("a".into(), "b".into());
        let object = primary(&cluster(), &spec);
        assert_eq!(object.body["spec"]["type"], "LoadBalancer");
        assert_eq!(object.body["metadata"]["annotations"]["a"], "b");
    }
}
