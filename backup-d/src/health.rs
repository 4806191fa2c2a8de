//! The condition BackupHealthy of each MySQLCluster: whether the backups that its schedules promise are there. And the dump that one
//! needs at once, because its archive cannot be restored without.
//!
//! All clusters at once and at a pace: what is overdue goes by the clock, and clusters change far more often than their backups do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::conditions;
use common::crd::{MySQLBackupSchedule, MySQLCluster, MySQLDump, RESTORABLE};
use common::daemon::everywhere;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::controller::Context;
use crate::decide::{self, BACKUP_HEALTHY};
use crate::objects::{self, time};

/// Pace of looking.
const PACE: Duration = Duration::from_secs(20);

/// Namespace and name of a cluster.
type Name = (String, String);

/// Runs until the token is cancelled.
pub async fn run(context: Arc<Context>, token: CancellationToken) {
    let looks = async {
        loop {
            if let Err(error) = look(&context).await {
                // Without an API server, and everybody says so: this is asked again.
                info!(%error, "whether backups are well is not known now");
            }
            tokio::time::sleep(PACE).await;
        }
    };
    token.run_until_cancelled(looks).await;
}

async fn look(context: &Context) -> Result<(), kube::Error> {
    if context.members.borrow().seat().is_none() {
        return Ok(());
    }
    let (client, namespace) = (&context.client, context.config.watch_namespace.as_deref());
    let all = ListParams::default();
    let mut schedules: BTreeMap<Name, Vec<MySQLBackupSchedule>> = BTreeMap::new();
    for schedule in everywhere::<MySQLBackupSchedule>(client, namespace).list(&all).await?.items {
        let name = (schedule.namespace().unwrap_or_default(), schedule.spec.cluster_ref.name.clone());
        schedules.entry(name).or_default().push(schedule);
    }
    let clusters = everywhere::<MySQLCluster>(client, namespace).list(&all).await?.items;
    let condition = |cluster: &MySQLCluster, type_| cluster.status.as_ref()?.condition(type_).cloned();
    let is_cut = |cluster: &MySQLCluster| condition(cluster, RESTORABLE).is_some_and(|it| it.status == "False");
    let mut dumps: BTreeMap<Name, Vec<MySQLDump>> = BTreeMap::new();
    if !schedules.is_empty() || clusters.iter().any(is_cut) {
        for dump in everywhere::<MySQLDump>(client, namespace).list(&all).await?.items {
            let name = (dump.namespace().unwrap_or_default(), dump.spec.cluster_ref.name.clone());
            dumps.entry(name).or_default().push(dump);
        }
    }
    let now = common::clock::now();
    for cluster in clusters.into_iter().filter(|cluster| context.owns(cluster)) {
        let status = cluster.status.as_ref();
        let name = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        let schedules = schedules.get(&name).map(Vec::as_slice).unwrap_or_default();
        let dumps = dumps.get(&name).map(Vec::as_slice).unwrap_or_default();
        if let Some(dump) = decide::needed(&cluster, schedules, dumps, now) {
            let asked = dump.name_any();
            info!(
                namespace = name.0,
                cluster = name.1,
                dump = asked,
                "the archive cannot be restored without a new dump"
            );
            objects::ask(&Api::namespaced(client.clone(), &name.0), &dump).await?;
        }
        if schedules.is_empty() {
            // Its last schedule is gone, and nothing is promised any more.
            if condition(&cluster, BACKUP_HEALTHY).is_some() {
                objects::say(client, &cluster, json!({"conditions": []})).await?;
            }
            continue;
        }
        let finding = decide::health(schedules, dumps, now);
        let generation = cluster.metadata.generation;
        let report = conditions::report(&[BACKUP_HEALTHY], status, &[finding], generation, &time(now));
        if report.changed {
            objects::say(client, &cluster, report.status()).await?;
        }
    }
    Ok(())
}
