//! Specs of clusters that are small enough for many of them on one machine.

use std::collections::BTreeMap;

use common::crd::MySQLClusterSpec;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// MySQL image of the tests; `PELORUS_TEST_IMAGE` names another one.
pub fn image() -> String {
    std::env::var("PELORUS_TEST_IMAGE").unwrap_or_else(|_| "localhost/mysql:9.7".to_owned())
}

/// A cluster with small servers.
pub fn small(instances: u32) -> MySQLClusterSpec {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned())))
                .collect::<BTreeMap<_, _>>(),
        )
    };
    let mut spec = MySQLClusterSpec { instances, image: image(), ..MySQLClusterSpec::default() };
    spec.storage.size = Quantity("1Gi".to_owned());
    spec.resources = Some(ResourceRequirements {
        requests: quantities(&[("cpu", "10m"), ("memory", "256Mi")]),
        limits: quantities(&[("memory", "1Gi")]),
        ..ResourceRequirements::default()
    });
    spec.config = config(&[("innodb_buffer_pool_size", "64M")]);
    spec
}

/// Settings by name.
pub fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
