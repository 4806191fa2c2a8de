//! Kubernetes objects of one cluster, as data. Pure: what is built depends on the arguments only.
//!
//! Every object carries the labels of [`Cluster::labels`] and is owned by the MySQLCluster, so that deleting that takes
//! all of them along. Two things are not owned while volumes are to be retained: the volume claims, and the Secret with
//! the passwords that open what is on them.

pub mod certificates;
pub mod configmap;
pub mod networkpolicy;
pub mod pdb;
pub mod pod;
pub mod secrets;
pub mod services;
pub mod statefulset;

use common::names;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

/// `app.kubernetes.io/managed-by` of every object that Pelorus makes.
pub const MANAGED_BY: &str = "pelorus";
/// `app.kubernetes.io/component` of MySQL pods and of what is theirs.
const COMPONENT: &str = "mysql";

/// One object to apply.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// The fields that we own.
    pub body: Value,
}

/// Who a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the MySQLCluster.
    pub uid: String,
}

impl Cluster {
    /// From the object; `None` for one that never was in an API server.
    pub fn of(object: &common::crd::MySQLCluster) -> Option<Self> {
        Some(Self { namespace: object.namespace()?, name: object.name_any(), uid: object.uid()? })
    }

    /// Labels of every object of this cluster.
    pub fn labels(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/name".into(), json!("mysql"));
        labels.insert("app.kubernetes.io/instance".into(), json!(self.name));
        labels.insert("app.kubernetes.io/managed-by".into(), json!(MANAGED_BY));
        labels
    }

    /// The labels by which MySQL pods are selected. Never changes: a StatefulSet's selector is immutable.
    pub fn selector(&self) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("app.kubernetes.io/component".into(), json!(COMPONENT));
        labels.insert(names::LABEL_CLUSTER.into(), json!(self.name));
        labels
    }

    /// The selector as text, for lists.
    pub fn selector_text(&self) -> String {
        format!("app.kubernetes.io/component={COMPONENT},{}={}", names::LABEL_CLUSTER, self.name)
    }

    fn owner(&self) -> Value {
        json!([{
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "MySQLCluster",
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }])
    }

    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(),
            "ownerReferences": self.owner(),
        })
    }

    /// An object of kind `K` with our metadata and the fields of `content`.
    fn object<K>(&self, name: &str, content: Value) -> Object
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        self.dynamic(resource, name, content)
    }

    fn dynamic(&self, resource: ApiResource, name: &str, content: Value) -> Object {
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": self.metadata(name),
        });
        merge(&mut body, content);
        Object { resource, name: name.to_owned(), body }
    }
}

/// Lays `over` onto `base`, object by object.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Without nulls and empty texts, lists and maps: fields that a newer version adds leave it the same.
fn prune(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key, prune(value))).filter(|(_, value)| !is_empty(value)).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! A cluster with defaults.

    #![allow(clippy::expect_used)]

    use super::*;

    /// `team-a/shop`.
    pub fn cluster() -> Cluster {
        Cluster { namespace: "team-a".into(), name: "shop".into(), uid: "uid-1".into() }
    }

    /// Fails when the typed object does not know a field of `object`: a typing error in a builder.
    pub fn assert_known_to<K>(object: &Object)
    where
        K: serde::de::DeserializeOwned + serde::Serialize,
    {
        let typed: K = serde_json::from_value(object.body.clone()).expect("the typed object");
        let back = serde_json::to_value(typed).expect("JSON");
        assert_eq!(back, object.body, "{}", object.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_and_pruning_go_deep() {
        let mut base = json!({"metadata": {"name": "a"}, "spec": 1});
        merge(&mut base, json!({"metadata": {"labels": {"x": "y"}}, "spec": {"z": 2}}));
        assert_eq!(base, json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"z": 2}}));
        let pruned = prune(json!({"a": null, "b": "", "c": [], "d": {"e": {}}, "f": false, "g": [{"h": null}]}));
        assert_eq!(pruned, json!({"f": false, "g": [{}]}));
    }
}
