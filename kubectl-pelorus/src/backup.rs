//! `kubectl pelorus backup`: asks for a dump, and shows how it is made.

use std::collections::BTreeMap;

use common::crd::{
    BackupMethod, ClusterRef, DumpPhase, GoDuration, LocationRef, MySQLCluster, MySQLDump, MySQLDumpSpec, Progress,
};
use common::names::LABEL_CLUSTER;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::args::{Backup, Selection};
use crate::error::{Error, Result};
use crate::kubernetes::Kubernetes;
use crate::progress::View;
use crate::show;
use crate::wait::{Look, Patience, until};

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub async fn run(kubernetes: &Kubernetes, wanted: &Backup) -> Result<()> {
    let cluster = kubernetes.cluster(&wanted.cluster).await?;
    let location = location(&cluster, wanted.location.as_deref()).map_err(Error::Usage)?;
    let name = wanted.name.clone().unwrap_or_else(|| name(&wanted.cluster, common::clock::now()));
    let asked = kubernetes.create(&object(&name, wanted, location)).await?;
    if wanted.waiting.no_wait {
        return show::print(wanted.output.output, || format!("MySQLDump {name} is asked for\n"), &asked);
    }
    eprintln!("MySQLDump {name} is asked for");
    let again =
        format!("look again with `kubectl pelorus dumps {}` in namespace {}", wanted.cluster, kubernetes.namespace);
    let patience = Patience { timeout: wanted.waiting.timeout, again: &again };
    let dump = until(kubernetes.api(), &name, &patience, look).await?;
    show::print(wanted.output.output, || made(&dump), &dump)
}

/// Where it goes.
fn location(cluster: &MySQLCluster, wanted: Option<&str>) -> Result<LocationRef, String> {
    let own = || cluster.spec.archive.as_ref().map(|archive| archive.location_ref.clone());
    let named = wanted.map(|name| LocationRef { name: name.to_owned() });
    named.or_else(own).ok_or_else(|| {
        let name = cluster.name_any();
        format!("MySQLCluster {name} has no spec.archive.locationRef: name a MySQLBackupLocation with --location")
    })
}

fn name(cluster: &str, now: Timestamp) -> String {
    format!("{cluster}-{}", now.strftime("%Y%m%d%H%M%S"))
}

fn object(name: &str, wanted: &Backup, location: LocationRef) -> MySQLDump {
    let Backup { cluster, physical, verify, selection: Selection { schemas, exclude_tables }, .. } = wanted;
    let mut dump = MySQLDump::new(
        name,
        MySQLDumpSpec {
            cluster_ref: ClusterRef { name: cluster.clone() },
            location_ref: location,
            method: if *physical { BackupMethod::Physical } else { BackupMethod::Logical },
            schemas: schemas.clone(),
            exclude_tables: exclude_tables.clone(),
            verify: *verify,
        },
    );
    dump.metadata.labels = Some(BTreeMap::from([(LABEL_CLUSTER.to_owned(), cluster.clone())]));
    dump
}

/// What the object says now.
fn look(dump: Option<MySQLDump>) -> Result<Look<MySQLDump>> {
    let Some(dump) = dump else { return Err(Error::Failed("the MySQLDump was deleted meanwhile".to_owned())) };
    let status = dump.status.clone().unwrap_or_default();
    let problem = status.problem.unwrap_or_default();
    match status.phase {
        Some(DumpPhase::Succeeded) => return Ok(Look::Done(dump)),
        Some(DumpPhase::Failed) => return Err(Error::Failed(format!("MySQLDump {}: {problem}", dump.name_any()))),
        Some(DumpPhase::Deleting) => return Err(Error::Failed("the MySQLDump is being deleted".to_owned())),
        Some(DumpPhase::Pending | DumpPhase::Running | DumpPhase::Verifying) | None => {}
    }
    let step = status.phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}"));
    let from = status.source.map(|source| format!(" from {source}")).unwrap_or_default();
    let progress = status.progress.unwrap_or_default();
    let detail = if problem.is_empty() { parts(&progress) } else { problem };
    let percent = progress.percent.and_then(|percent| u64::try_from(percent).ok());
    Ok(Look::Not(View { step: format!("{step}{from}"), detail, percent }))
}

fn parts(progress: &Progress) -> String {
    let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let parts = [
        number(progress.rows).map(|rows| format!("{} rows", show::count(rows))),
        number(progress.bytes).map(show::bytes),
        progress.eta.map(|eta| format!("{eta} left")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What was made.
fn made(dump: &MySQLDump) -> String {
    let status = dump.status.clone().unwrap_or_default();
    let rows = status.progress.and_then(|progress| progress.rows).and_then(|rows| u64::try_from(rows).ok());
    show::facts(&[
        ("dump", Some(dump.name_any())),
        ("source", status.source),
        ("rows", rows.map(show::count)),
        ("size", status.size.as_ref().map(show::size)),
        ("duration", status.duration.map(|duration: GoDuration| duration.to_string())),
        ("gtid", status.gtid),
        ("manifest", status.manifest.map(|manifest| manifest.key)),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::unreachable)]

    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::args::{Cli, Command};

    fn dump(status: &Value) -> MySQLDump {
        let spec = json!({"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}});
        serde_json::from_value(json!({"metadata": {"name": "one"}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn it_goes_where_the_archive_is_unless_said_otherwise() {
        let of = |archive: Value| -> MySQLCluster {
            serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": {"archive": archive}})).unwrap()
        };
        let (with, without) = (of(json!({"locationRef": {"name": "here"}})), of(Value::Null));
        let name = |location: Result<LocationRef, String>| location.map(|location| location.name);
        assert_eq!(name(location(&with, None)).unwrap(), "here");
        assert_eq!(name(location(&with, Some("there"))).unwrap(), "there");
        assert_eq!(name(location(&without, Some("there"))).unwrap(), "there");
        assert!(name(location(&without, None)).unwrap_err().contains("--location"));
    }

    #[test]
    fn what_is_asked_for_says_whose_it_is() {
        let made = |line: &str| {
            let Command::Backup(wanted) = Cli::parse_from(line.split(' ')).command else { unreachable!() };
            let at = "2026-11-20T10:15:07Z".parse().unwrap();
            let made = object(&name("shop", at), &wanted, LocationRef { name: "here".to_owned() });
            serde_json::to_value(made).unwrap()
        };
        let wanted = json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLDump",
            "metadata": {"name": "shop-20261120101507", "labels": {"pelorus.dev/cluster": "shop"}},
            "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}, "method": "Logical",
                     "schemas": ["a"], "excludeTables": ["a.b"]},
        });
        assert_eq!(made("kubectl-pelorus backup shop --schemas a --exclude-tables a.b"), wanted);
        let physical = made("kubectl-pelorus backup shop --physical --verify");
        assert_eq!(physical["spec"]["method"], "Physical");
        assert_eq!(physical["spec"]["verify"], true);
    }

    #[test]
    fn a_dump_is_waited_for_until_it_is_made_or_has_failed() {
        let said = |status: &Value| match look(Some(dump(status))) {
            Ok(Look::Done(_)) => "done".to_owned(),
            Ok(Look::Not(view)) => view.line(),
            Err(error) => format!("{}: {error}", error.code()),
        };
        let progress = json!({"rows": 1234, "bytes": 2048, "percent": 41, "eta": "90s"});
        for (status, wanted) in [
            (Value::Null, "Pending"),
            (json!({"phase": "Pending", "problem": "no such location"}), "Pending: no such location"),
            (
                json!({"phase": "Running", "source": "shop-2", "progress": progress}),
                "Running from shop-2: 1 234 rows, 2.0 KiB, 90s left, 41 %",
            ),
            (json!({"phase": "Succeeded"}), "done"),
            (json!({"phase": "Failed", "problem": "d.m is MyISAM"}), "1: MySQLDump one: d.m is MyISAM"),
            (json!({"phase": "Deleting"}), "1: the MySQLDump is being deleted"),
        ] {
            assert_eq!(said(&status), wanted);
        }
        assert!(look(None).is_err());
    }

    #[test]
    fn what_was_made_is_told() {
        let status = json!({"phase": "Succeeded", "source": "shop-2", "gtid": "u:1-5", "duration": "3s", "size": "2Mi",
            "progress": {"rows": 7}, "manifest": {"key": "p/n/shop/u/dumps/1/manifest.json", "sha256": ""}});
        let wanted = "dump       one\nsource     shop-2\nrows       7\nsize       2.0 MiB\nduration   3s\ngtid       u:1-5\n\
            manifest   p/n/shop/u/dumps/1/manifest.json\n";
        assert_eq!(made(&dump(&status)), wanted);
    }
}
