//! The schemas as an API server gets them, and the examples of the reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kube::core::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::instance::{Phase, Role};

fn crd(kind: &str) -> Value {
    let crd = all().unwrap().into_iter().find(|crd| crd.spec.names.kind == kind).expect("kind");
    serde_json::to_value(crd).unwrap()
}

fn schema(kind: &str, path: &str) -> Value {
    let mut pointer = "/spec/versions/0/schema/openAPIV3Schema".to_owned();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if part != "[]" {
            pointer.push_str("/properties");
        }
        pointer.push('/');
        pointer.push_str(if part == "[]" { "items" } else { part });
    }
    crd(kind).pointer(&pointer).unwrap_or_else(|| panic!("{kind} has no {path}")).clone()
}

fn rules(kind: &str, path: &str) -> Vec<String> {
    let schema = schema(kind, path);
    let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
    rules.iter().map(|rule| rule["rule"].as_str().unwrap().to_owned()).collect()
}

/// Everything that is set in `part` is in `whole`. Empty lists and maps mean the same as absent ones.
fn assert_within(part: &Value, whole: &Value, path: &str) {
    match part {
        Value::Object(map) => {
            for (key, value) in map {
                assert_within(value, &whole[key], &format!("{path}.{key}"));
            }
        }
        Value::Array(items) if items.is_empty() => assert!(whole.is_null() || whole == part, "{path}"),
        _ => assert_eq!(part, whole, "{path}"),
    }
}

fn round_trip<T: Resource + DeserializeOwned + Serialize>(spec: &Value, status: &Value) -> T
where
    T::DynamicType: Default,
{
    let dynamic = T::DynamicType::default();
    let object = json!({
        "apiVersion": T::api_version(&dynamic),
        "kind": T::kind(&dynamic),
        "metadata": {"name": "shop", "namespace": "team-a"},
        "spec": spec,
        "status": status,
    });
    let read: T = serde_json::from_value(object.clone()).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    assert_within(&object, &written, "");
    let again: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(again).unwrap(), written);
    read
}

#[test]
fn all_seven_kinds_are_namespaced_with_a_status_and_short_names() {
    let kinds: Vec<(String, String)> = all()
        .unwrap()
        .into_iter()
        .map(|crd| (crd.spec.names.kind, crd.spec.names.short_names.unwrap_or_default().concat()))
        .collect();
    let expected = [
        ("MySQLCluster", "mc"),
        ("MySQLUser", "mu"),
        ("MySQLDatabase", "mdb"),
        ("MySQLBackupLocation", "mbl"),
        ("MySQLBackupSchedule", "mbs"),
        ("MySQLDump", "md"),
        ("MySQLBinlog", "mbin"),
    ];
    assert_eq!(kinds, expected.map(|(kind, short)| (kind.to_owned(), short.to_owned())));
    for (kind, _) in kinds {
        let crd = crd(&kind);
        assert_eq!(crd["spec"]["group"], crate::names::GROUP);
        assert_eq!(crd["spec"]["scope"], "Namespaced");
        assert_eq!(crd["spec"]["names"]["categories"], json!(["pelorus"]));
        let version = &crd["spec"]["versions"][0];
        assert_eq!(version["name"], crate::names::VERSION);
        assert_eq!(version["subresources"]["status"], json!({}));
    }
}

#[test]
fn get_prints_the_columns_of_the_reference() {
    let crd = crd("MySQLCluster");
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
    let names: Vec<(&str, i64)> = columns
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["priority"].as_i64().unwrap_or(0)))
        .collect();
    let expected =
        [("Ready", 0), ("Primary", 0), ("Epoch", 0), ("Version", 0), ("Restorable-To", 0), ("Age", 0), ("Reason", 1)];
    assert_eq!(names, expected);
}

#[test]
fn limits_of_a_cluster_are_in_the_schema() {
    let kind = "MySQLCluster";
    let instances = schema(kind, "spec.instances");
    assert_eq!(instances["minimum"].as_f64(), Some(1.0));
    assert_eq!(instances["maximum"].as_f64(), Some(9.0));
    assert_eq!(instances["default"], 3);
    assert_eq!(schema(kind, "spec.image")["maxLength"], 255);
    assert_eq!(schema(kind, "spec.durability")["enum"], json!(["Lossless", "Available"]));
    assert_eq!(schema(kind, "spec.config")["maxProperties"], 200);
    assert_eq!(schema(kind, "spec.config")["additionalProperties"]["maxLength"], 1024);
    assert!(rules(kind, "spec.config").iter().any(|rule| rule.contains("^[a-z][a-z0-9_]*$")));
    let size = rules(kind, "spec.storage.size");
    assert!(
        size.iter().any(|rule| rule.contains("quantity('1Gi')"))
            && size.iter().any(|rule| rule.contains("quantity('64Ti')"))
    );
    for (path, low) in [
        ("spec.failover.hangAfter", "500ms"),
        ("spec.failover.isolatedAfter", "500ms"),
        ("spec.failover.window", "1m"),
        ("spec.reads.maxLag", "100ms"),
        ("spec.archive.binlog.flushEvery", "100ms"),
        ("spec.archive.binlog.keep", "1h"),
    ] {
        assert!(rules(kind, path).concat().contains(&format!("duration('{low}')")), "{path}");
        assert!(schema(kind, path)["pattern"].is_string(), "{path}");
    }
    let root = rules(kind, "").concat();
    assert!(
        root.contains("size() <= 40")
            && root.contains("^[a-z]([-a-z0-9]*[a-z0-9])?$")
            && root.contains("self.spec.primary")
    );
    assert!(rules(kind, "spec").concat().contains("self.restore == oldSelf.restore"));
    assert_eq!(rules(kind, "spec.restore").len(), 2);
    assert_eq!(schema(kind, "status.conditions")["x-kubernetes-list-map-keys"], json!(["type"]));
    assert_eq!(schema(kind, "status.instances")["x-kubernetes-list-map-keys"], json!(["name"]));
}

#[test]
fn shrinking_storage_is_left_to_the_controller() {
    assert!(rules("MySQLCluster", "spec.storage").is_empty());
    assert!(rules("MySQLCluster", "spec.storage.size").iter().all(|rule| !rule.contains("oldSelf")));
}

#[test]
fn rules_of_the_other_kinds_are_in_the_schema() {
    assert!(rules("MySQLUser", "").concat().contains("pelorus_"));
    assert_eq!(rules("MySQLUser", "spec.clusterRef"), ["self == oldSelf"]);
    assert!(rules("MySQLUser", "spec.rotation").concat().contains("overlap"));
    assert!(rules("MySQLUser", "spec.grants.[]").concat().contains("columns"));
    assert!(rules("MySQLDatabase", "spec").concat().contains("collation"));
    assert!(rules("MySQLDatabase", "").concat().contains("performance_schema"));
    assert!(rules("MySQLBackupLocation", "spec.s3").concat().contains("oldSelf.bucket"));
    assert!(rules("MySQLBackupSchedule", "spec.startingDeadline").concat().contains("168h"));
    assert_eq!(rules("MySQLDump", "spec"), ["self == oldSelf"]);
    assert_eq!(rules("MySQLBinlog", "spec"), ["self == oldSelf"]);
}

/// The API server refuses CEL rules whose cost it cannot bound, and absurd sizes should not get in: every string, list
/// and map of a spec has an upper bound. Types of Kubernetes itself (podTemplate, resources) are bounded above them.
#[test]
fn everything_in_a_spec_is_bounded_and_described() {
    fn walk(schema: &Value, path: &str) {
        let foreign = ["tolerations", "affinity", "topologySpreadConstraints", "sidecars", "pointInTime"];
        if foreign.iter().any(|name| path.ends_with(name)) {
            return;
        }
        assert!(schema["nullable"].is_null() && schema["format"] != "uint32", "{path}");
        let bounded = match schema["type"].as_str() {
            Some("string") => schema["maxLength"].is_number() || schema["enum"].is_array(),
            Some("array") => schema["maxItems"].is_number(),
            Some("object") if schema["additionalProperties"].is_object() => schema["maxProperties"].is_number(),
            _ => true,
        };
        assert!(bounded, "{path} has no upper bound");
        if schema["items"].is_object() {
            walk(&schema["items"], &format!("{path}.[]"));
        }
        if schema["additionalProperties"].is_object() {
            walk(&schema["additionalProperties"], &format!("{path}.*"));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let inner = path.contains("matchExpressions");
            assert!(inner || field["description"].is_string(), "{path}.{name} has no description");
            walk(field, &format!("{path}.{name}"));
        }
    }
    for crd in all().unwrap() {
        walk(&schema(&crd.spec.names.kind, "spec"), &format!("{}.spec", crd.spec.names.kind));
    }
}

#[test]
fn defaults_of_serde_and_of_default_agree() {
    assert_eq!(serde_json::from_value::<MySQLClusterSpec>(json!({})).unwrap(), MySQLClusterSpec::default());
}

#[test]
fn cluster_example_survives_a_round_trip() {
    let cluster: MySQLCluster = round_trip(
        &json!({
            "instances": 3,
            "image": "mysql:9.7",
            "storage": {"size": "50Gi", "storageClassName": "fast"},
            "resources": {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
            "config": {"max_connections": "500", "innodb_buffer_pool_size": "2G"},
            "primary": "shop-1",
            "durability": "Lossless",
            "failover": {"enabled": true, "hangAfter": "1500ms", "isolatedAfter": "1500ms", "maxChanges": 6, "window": "1h"},
            "reads": {"maxLag": "10s"},
            "tls": {"issuerRef": {"kind": "Issuer", "name": "my-ca"}},
            "services": {"primary": {"type": "ClusterIP", "annotations": {}}, "replicas": {"type": "ClusterIP"}},
            "podTemplate": {
                "labels": {}, "annotations": {}, "nodeSelector": {}, "tolerations": [], "affinity": {},
                "topologySpreadConstraints": [], "priorityClassName": "", "sidecars": [],
            },
            "volumeRetention": {"onScaleDown": "Retain", "onDelete": "Retain"},
            "archive": {"locationRef": {"name": "minio"}, "binlog": {"enabled": true, "flushEvery": "1s", "keep": "168h"}},
            "restore": {
                "fromSelector": {"matchLabels": {"pelorus.dev/cluster": "shop-old"}},
                "fromLocation": {"locationRef": {"name": "minio"}, "cluster": "shop-old"},
                "pointInTime": "2026-11-20T10:15:00.250000Z",
            },
            "paused": false,
            "hibernated": false,
        }),
        &json!({
            "epoch": 7,
            "primary": "shop-1",
            "ackers": ["shop-0", "shop-2"],
            "acksNeeded": 1,
            "primaryData": "5a0e",
            "unproven": [{"primary": "shop-2", "primaryData": "77c1", "ackers": ["shop-0", "shop-1"], "acksNeeded": 1}],
            "losses": [{"epoch": 3, "at": "2026-11-20T10:15:00.000000Z", "kept": "shop-2", "knownLost": ""}],
            "failovers": ["2026-11-20T10:15:00.000000Z"],
            "operation": {
                "id": "6f1c", "kind": "Failover", "epoch": 8, "from": "shop-1", "to": "shop-2", "phase": "Promoting",
                "startedAt": "2026-11-20T10:15:00.000000Z",
            },
            "instances": [{
                "name": "shop-0", "role": "Replica", "state": "Running", "version": "9.7.4",
                "serverUuid": "3e11fa47-71ca-11e1-9e33-c80aa9429562", "executed": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
                "lag": 0.1, "errant": "", "diskFree": "41Gi",
            }],
            "restorable": {
                "from": "2026-11-19T10:15:00Z", "to": "2026-11-20T10:15:00Z", "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
                "provenAt": "2026-11-20T10:15:00Z",
            },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AllServe", "message": "", "lastTransitionTime": "2026-11-20T10:15:00Z",
            }],
        }),
    );
    assert_eq!(cluster.namespace_and_name(), ("team-a".to_owned(), "shop".to_owned()));
    assert_eq!(cluster.instance_names(), ["shop-0", "shop-1", "shop-2"]);
    assert_eq!((cluster.epoch(), cluster.primary(), cluster.ackers().len()), (7, Some("shop-1"), 2));
    assert_eq!(cluster.spec.storage.size_bytes(), Ok(50 << 30));
    assert_eq!(cluster.spec.memory_limit_bytes(), Ok(Some(4 << 30)));
    assert_eq!(cluster.spec.failover.hang_after.as_millis(), 1500);
}

#[test]
fn other_examples_survive_a_round_trip() {
    let user: MySQLUser = round_trip(
        &json!({
            "clusterRef": {"name": "shop"}, "name": "app", "hosts": ["%"], "passwordSecretRef": {"name": "s", "key": "password"},
            "grants": [
                {"privileges": ["SELECT", "INSERT"], "on": "shop.*"},
                {"privileges": ["SELECT"], "on": "shop.orders", "columns": ["id", "total"]},
            ],
            "roles": [], "limits": {"maxUserConnections": 100}, "require": "TLS", "rotation": {"every": "720h", "overlap": "24h"},
            "connectionSecretName": "app-mysql", "onDelete": "Drop", "adopt": false,
        }),
        &json!({}),
    );
    assert_eq!((user.account_name(), user.connection_secret_name()), ("app".to_owned(), "app-mysql".to_owned()));
    let database: MySQLDatabase = round_trip(
        &json!({
            "clusterRef": {"name": "shop"}, "name": "shop", "characterSet": "utf8mb4", "collation": "utf8mb4_0900_ai_ci",
            "onDelete": "Keep",
        }),
        &json!({}),
    );
    assert_eq!(database.schema_name(), "shop");
    let _: MySQLBackupLocation = round_trip(
        &json!({"s3": {
            "bucket": "backups", "prefix": "prod/", "endpoint": "https://s3.example.com", "region": "eu-central-1",
            "forcePathStyle": true, "credentialsSecretRef": {"name": "c"}, "caSecretRef": {"name": "ca"},
        }}),
        &json!({"reachable": false, "checks": [{"name": "ConditionalPut", "ok": false, "problem": "501"}]}),
    );
    let _: MySQLBackupSchedule = round_trip(
        &json!({
            "clusterRef": {"name": "shop"}, "locationRef": {"name": "minio"}, "method": "Logical", "schedule": "15 2 * * *",
            "timeZone": "Asia/Seoul", "startingDeadline": "1h", "retention": {"keepLast": 7, "keepFor": "720h"}, "verify": true,
            "suspend": false,
        }),
        &json!({}),
    );
    let _: MySQLDump = round_trip(
        &json!({
            "clusterRef": {"name": "shop"}, "locationRef": {"name": "minio"}, "method": "Logical", "schemas": [],
            "excludeTables": [],
        }),
        &json!({
            "phase": "Running", "progress": {"rows": 12, "bytes": 900, "percent": 41, "eta": "90s"}, "source": "shop-2",
            "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "startedAt": "2026-11-20T10:15:00Z", "duration": "95s",
            "size": "12Mi", "manifest": {"key": "prod/m.json", "sha256": "00"},
            "verified": {"at": "2026-11-20T10:15:00Z", "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"},
        }),
    );
    let _: MySQLBinlog = round_trip(
        &json!({
            "clusterRef": {"name": "shop"}, "locationRef": {"name": "minio"},
            "serverUuid": "3e11fa47-71ca-11e1-9e33-c80aa9429562", "epoch": 7, "file": "binlog.000012",
        }),
        &json!({
            "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "firstCommit": "2026-11-20T10:15:00.250000Z",
            "lastCommit": "2026-11-20T10:15:00.250000Z", "bytes": 1024, "segments": 2, "complete": true,
        }),
    );
}

#[test]
fn grant_takes_what_yaml_makes_of_an_unquoted_on() {
    let grant: Grant = serde_json::from_value(json!({"privileges": ["SELECT"], "true": "shop.*"})).unwrap();
    assert_eq!(grant.on, "shop.*");
}

#[test]
fn unset_status_fields_are_left_out_of_an_apply() {
    assert_eq!(serde_json::to_value(MySQLClusterStatus::default()).unwrap(), json!({}));
    let instance = InstanceStatus { name: "shop-0".to_owned(), ..InstanceStatus::default() };
    assert_eq!(serde_json::to_value(instance).unwrap(), json!({"name": "shop-0"}));
}

#[test]
fn record_patch_clears_what_is_absent() {
    let patch = Record { epoch: 2, primary: Some("shop-0".to_owned()), ..Record::default() }.merge_patch("41");
    assert_eq!(
        patch,
        json!({
            "metadata": {"resourceVersion": "41"},
            "status": {"epoch": 2, "primary": "shop-0", "ackers": [], "acksNeeded": 0, "primaryData": null, "unproven": [], "losses": [], "failovers": [], "operation": null},
        })
    );
}

#[test]
fn instance_words_of_the_api_have_words_in_the_status() {
    assert_eq!(InstancePhase::from(Phase::Rewinding), InstancePhase::Rewinding);
    assert_eq!(InstanceRole::from(&Role::Fenced), InstanceRole::Fenced);
}

#[test]
fn a_manifest_says_whose_dump_it_is() {
    let place = |key: &str| {
        let manifest = Manifest { key: key.to_owned(), sha256: String::new() };
        manifest.place().map(|(uid, id)| format!("{uid} {id}"))
    };
    assert_eq!(place("prod/n/shop/uid-1/dumps/20261120-7/manifest.json").as_deref(), Some("uid-1 20261120-7"));
    assert_eq!(place("dumps/n/shop/uid-1/dumps/x/manifest.json").as_deref(), Some("uid-1 x"));
    assert_eq!(place("prod/n/shop/uid-1/dumps/x/schema.jsonl.zst"), None);
    assert_eq!(place("elsewhere/manifest.json"), None);
}
