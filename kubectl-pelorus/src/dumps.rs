//! `kubectl pelorus dumps`: what there is to restore from.

use common::crd::{MySQLCluster, MySQLDump, Restorable};
use common::read;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::args::Dumps;
use crate::error::{Error, Result};
use crate::kubernetes::Kubernetes;
use crate::moment;
use crate::show::{self, NOTHING};

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub async fn run(kubernetes: &Kubernetes, wanted: &Dumps) -> Result<()> {
    let cluster = match kubernetes.cluster(&wanted.cluster).await {
        Ok(cluster) => Some(cluster),
        // Dumps stay when their cluster goes.
        Err(Error::Read(read::Error::Missing(_))) => None,
        Err(error) => return Err(error),
    };
    let all = kubernetes.api::<MySQLDump>().list(&ListParams::default()).await;
    let all = all.map_err(Error::kubernetes("list MySQLDumps"))?;
    let dumps = of_cluster(&wanted.cluster, all.items);
    if cluster.is_none() && dumps.is_empty() {
        return Err(Error::NotFound(format!("there is no MySQLCluster {}, and no dump of one", wanted.cluster)));
    }
    let status = cluster.as_ref().and_then(|cluster| cluster.status.as_ref());
    let restorable = status.and_then(|status| status.restorable.as_ref());
    let told = || {
        let now = common::clock::now();
        format!("{}\n{}\n", table(&dumps, now), window(cluster.as_ref(), now, &TimeZone::system()))
    };
    show::print(wanted.output.output, told, &json!({"dumps": dumps, "restorable": restorable}))
}

/// Those of one cluster, the newest first.
fn of_cluster(cluster: &str, mut dumps: Vec<MySQLDump>) -> Vec<MySQLDump> {
    dumps.retain(|dump| dump.spec.cluster_ref.name == cluster);
    let asked_at = |dump: &MySQLDump| dump.metadata.creation_timestamp.as_ref().map(|at| at.0);
    dumps.sort_by(|one, other| asked_at(other).cmp(&asked_at(one)).then_with(|| one.name_any().cmp(&other.name_any())));
    dumps
}

fn table(dumps: &[MySQLDump], now: Timestamp) -> String {
    let row = |dump: &MySQLDump| {
        let status = dump.status.clone().unwrap_or_default();
        let refuted = status.conditions.iter().any(|condition| condition.reason == "NotRestored");
        let verified = match &status.verified {
            Some(verified) => format!("{} ago", moment::age(verified.at.0, now)),
            None if refuted => "refuted".to_owned(),
            None => NOTHING.to_owned(),
        };
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        [
            dump.name_any(),
            status.phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}")),
            or_nothing(status.started_at.map(|at| format!("{} ago", moment::age(at.0, now)))),
            or_nothing(status.duration.map(|duration| duration.to_string())),
            or_nothing(status.size.as_ref().map(show::size)),
            or_nothing(status.source),
            verified,
        ]
    };
    let rows: Vec<[String; 7]> = dumps.iter().map(row).collect();
    show::table(["NAME", "PHASE", "STARTED", "DURATION", "SIZE", "SOURCE", "VERIFIED"], &rows)
}

/// The line that says what can be restored.
fn window(cluster: Option<&MySQLCluster>, now: Timestamp, zone: &TimeZone) -> String {
    let Some(cluster) = cluster else {
        return "The cluster is gone; its archive may reach further than its dumps.".to_owned();
    };
    let restorable = cluster.status.as_ref().and_then(|status| status.restorable.as_ref());
    match restorable.and_then(|restorable| reach(restorable, zone)) {
        Some(reach) => {
            let proven = restorable.and_then(|restorable| restorable.proven_at.as_ref());
            let proven = proven.map(|at| format!(", proven {} ago", moment::age(at.0, now))).unwrap_or_default();
            format!("Restorable {reach}{proven}")
        }
        None if cluster.spec.archive.is_some() => {
            "Restorable is not known yet (see the condition Restorable)".to_owned()
        }
        None => "Restorable is what a dump holds: the cluster has no archive (spec.archive)".to_owned(),
    }
}

/// From when to when; nothing where neither is known.
pub fn reach(restorable: &Restorable, zone: &TimeZone) -> Option<String> {
    let from = restorable.from.as_ref().map(|at| format!("from {} ", moment::shown(at.0, zone)));
    let to = restorable.to.as_ref()?;
    Some(format!("{}to {}", from.unwrap_or_default(), moment::shown(to.0, zone)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;

    fn dump(name: &str, of: &str, asked_at: &str, status: &Value) -> MySQLDump {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": asked_at},
            "spec": {"clusterRef": {"name": of}, "locationRef": {"name": "here"}}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn dumps_of_a_cluster_are_listed_the_newest_first() {
        let made = json!({"phase": "Succeeded", "startedAt": "2026-11-20T10:00:01Z", "duration": "90s", "size": "1536Ki",
            "source": "shop-2", "verified": {"at": "2026-11-20T10:30:00Z", "gtid": ""}});
        let condition = json!({"type": "Verified", "status": "False", "reason": "NotRestored", "message": "",
            "lastTransitionTime": "2026-11-20T10:30:00Z"});
        let all = vec![
            dump("old", "shop", "2026-11-20T10:00:00Z", &made),
            dump("other", "crm", "2026-11-20T12:00:00Z", &made),
            dump("bad", "shop", "2026-11-20T11:00:00Z", &json!({"phase": "Succeeded", "conditions": [condition]})),
            dump("new", "shop", "2026-11-20T13:00:00Z", &Value::Null),
        ];
        let dumps = of_cluster("shop", all);
        let wanted = "\
NAME   PHASE       STARTED   DURATION   SIZE      SOURCE   VERIFIED
new    Pending     -         -          -         -        -
bad    Succeeded   -         -          -         -        refuted
old    Succeeded   2h ago    90s        1.5 MiB   shop-2   2h ago
";
        let shown = table(&dumps, "2026-11-20T13:00:00Z".parse().unwrap());
        assert_eq!(shown, wanted);
    }

    #[test]
    fn the_window_says_from_when_to_when() {
        let of = |archive: Value, restorable: Value| -> MySQLCluster {
            serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": {"archive": archive}, "status": {"restorable": restorable}}))
                .unwrap()
        };
        let zone = TimeZone::get("Asia/Seoul").unwrap();
        let said = |cluster: Option<&MySQLCluster>| window(cluster, "2026-11-20T10:00:09Z".parse().unwrap(), &zone);
        let archive = json!({"locationRef": {"name": "here"}});
        let known =
            json!({"from": "2026-11-19T10:00:00Z", "to": "2026-11-20T10:00:00Z", "provenAt": "2026-11-20T10:00:04Z"});
        assert_eq!(
            said(Some(&of(archive.clone(), known))),
            "Restorable from 2026-11-19T19:00:00+09:00 to 2026-11-20T19:00:00+09:00, proven 5s ago"
        );
        assert!(said(Some(&of(archive, Value::Null))).contains("not known yet"));
        assert!(said(Some(&of(Value::Null, Value::Null))).contains("no archive"));
        assert!(said(None).contains("gone"));
    }
}
