//! Secrets with passwords.
//!
//! A password is made once and never again: what is in the Secret is what the accounts in MySQL have. Only missing keys
//! are added, and a Secret that somebody prepared keeps what it holds.

use std::collections::BTreeMap;

use common::crd::{MySQLClusterSpec, Retention};
use common::names::{self, account};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};

use super::{Cluster, Object};

/// Letters and digits of a generated password: about 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// A new password.
pub fn password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect()
}

/// Every account that has a password.
pub fn account_names() -> Vec<String> {
    let fixed = [
        account::LOCAL,
        account::CLONE,
        account::BACKUP,
        account::SHIPPER,
        account::USERS,
        account::MONITOR,
        account::ADMIN,
    ];
    let replication = (0..names::INSTANCES_MAX).map(account::replication);
    fixed.into_iter().map(str::to_owned).chain(replication).collect()
}

/// The accounts that have no password yet, each with a new one.
pub fn missing_passwords(
    existing: Option<&BTreeMap<String, ByteString>>,
    mut generate: impl FnMut() -> String,
) -> BTreeMap<String, ByteString> {
    account_names()
        .into_iter()
        .filter(|name| existing.and_then(|data| data.get(name)).is_none_or(|password| password.0.is_empty()))
        .map(|name| (name, ByteString(generate().into_bytes())))
        .collect()
}

/// The accounts Secret, with these passwords only. Retained volumes stay readable: then it is not owned.
pub fn accounts(cluster: &Cluster, spec: &MySQLClusterSpec, passwords: &BTreeMap<String, ByteString>) -> Object {
    let mut object = cluster
        .object::<Secret>(&names::object::accounts_secret(&cluster.name), json!({"type": "Opaque", "data": passwords}));
    if let Some(metadata) = object.body.get_mut("metadata") {
        super::merge(metadata, json!({"ownerReferences": accounts_owner(cluster, spec)}));
    }
    object
}

/// Owner of the accounts Secret: nobody while the volumes outlive the cluster.
pub fn accounts_owner(cluster: &Cluster, spec: &MySQLClusterSpec) -> Value {
    match spec.volume_retention.on_delete {
        Retention::Retain => json!([]),
        Retention::Delete => cluster.owner(),
    }
}

/// What the owner of the data needs to connect.
pub fn admin(cluster: &Cluster, password: &ByteString, authorities: Option<&str>) -> Object {
    let host = format!("{}.{}.svc", names::object::primary_service(&cluster.name), cluster.namespace);
    let mut data = BTreeMap::from([
        ("host", ByteString(host.into_bytes())),
        ("port", ByteString(names::PORT_MYSQL.to_string().into_bytes())),
        ("username", ByteString(account::ADMIN.as_bytes().to_vec())),
        ("password", password.clone()),
    ]);
    if let Some(authorities) = authorities {
        data.insert("ca.crt", ByteString(authorities.as_bytes().to_vec()));
    }
    cluster.object::<Secret>(&names::object::admin_secret(&cluster.name), json!({"type": "Opaque", "data": data}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;

    #[test]
    fn an_existing_password_is_never_made_anew() {
        let all = missing_passwords(None, password);
        assert_eq!(all.len(), 7 + 9);
        assert!(all.values().all(|password| password.0.len() == PASSWORD_LENGTH));
        assert_eq!(missing_passwords(Some(&all), password), BTreeMap::new());
        let mut some = all.clone();
        some.remove("pelorus_clone");
        some.insert("admin".into(), ByteString(Vec::new()));
        let missing: Vec<String> = missing_passwords(Some(&some), password).into_keys().collect();
        assert_eq!(missing, ["admin", "pelorus_clone"]);
    }

    #[test]
    fn passwords_outlive_the_cluster_only_with_its_volumes() {
        let mut spec = MySQLClusterSpec::default();
        let owner = |spec: &MySQLClusterSpec| {
            accounts(&cluster(), spec, &BTreeMap::new()).body["metadata"]["ownerReferences"].clone()
        };
        assert_eq!(owner(&spec), json!([]));
        spec.volume_retention.on_delete = Retention::Delete;
        assert_eq!(owner(&spec)[0]["name"], "shop");
    }

    #[test]
    fn the_admin_secret_points_at_the_primary_service() {
        let object = admin(&cluster(), &ByteString(b"p".to_vec()), Some("pem"));
        assert_known_to::<Secret>(&object);
        let secret: Secret = serde_json::from_value(object.body).unwrap();
        assert_eq!(secret.data.unwrap()["host"].0, b"shop-primary.team-a.svc");
    }
}
