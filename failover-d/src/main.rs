//! failover-d: the only writer of who is primary, and the only giver of role orders.
//!
//! Two or more replicas run and all are awake: there is no leader to lose. Each watches every cluster, decides by itself,
//! and claims an operation by compare-and-swap; who loses the race follows the winner's operation. Orders carry the
//! operation's epoch and are idempotent, so that giving them twice costs nothing.

mod cluster;
mod config;
mod decide;
mod memory;
mod metrics;
mod order;
mod record;
mod report;
mod route;
mod stream;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::crd::MySQLCluster;
use common::events::Events;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// Deadline of reads of one answer from the API server; watches bring a bookmark or end sooner.
const READ_TIMEOUT: Duration = Duration::from_secs(295);

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = config::Config::default();
    let mut registry = Registry::default();
    let metrics = metrics::Metrics::register(&mut registry);
    let events = Events::start(config.events(), common::names::daemon::FAILOVER_D);
    let client = client().await?;
    let holder: Arc<str> = std::env::var("POD_NAME").unwrap_or_else(|_| "failover-d".into()).into();
    let reporter = Reporter { controller: "pelorus/failover-d".into(), instance: Some(holder.to_string()) };
    let context = cluster::Context {
        client: client.clone(),
        events,
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        holder,
    };
    let (pods, pods_seen) = watch::channel(watching::Pods::default());
    let clusters: Api<MySQLCluster> = Api::all(client.clone());
    let watched = watcher(clusters, watcher::Config::default()).default_backoff();
    tokio::select! {
        () = watching::pods(Api::<Pod>::all(client), pods) => anyhow::bail!("the watch of pods ended"),
        () = watching::clusters(watched, context, pods_seen) => anyhow::bail!("the watch of clusters ended"),
    }
}

/// A client that never retries by itself and never waits for ever: a retried write may be a stale write.
async fn client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await.context("find the API server")?;
    config.read_timeout = Some(READ_TIMEOUT);
    config.default_retry = false;
    Client::try_from(config).context("set up the client")
}
