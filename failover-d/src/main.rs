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
mod timeline;
mod watching;

use std::sync::Arc;

use common::crd::MySQLCluster;
use common::events::Events;
use common::names::daemon::FAILOVER_D;
use common::{daemon, http, telemetry};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    telemetry::init(FAILOVER_D)?;
    let config: config::Config = common::config::load(FAILOVER_D)?;
    let mut registry = http::registry(FAILOVER_D);
    let metrics = metrics::Metrics::register(&mut registry);
    let events = Events::start(config.nats.clone(), FAILOVER_D);
    let client = daemon::watching_client().await?;
    let holder: Arc<str> = std::env::var("POD_NAME").unwrap_or_else(|_| FAILOVER_D.into()).into();
    let reporter = Reporter { controller: "pelorus/failover-d".into(), instance: Some(holder.to_string()) };
    let context = cluster::Context {
        client: client.clone(),
        events,
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        holder,
    };
    let readiness = http::Readiness::default();
    let stop = CancellationToken::new();
    let served = tokio::spawn(http::serve(config.http_port, readiness.clone(), Arc::new(registry), stop.clone()));
    let (pods, pods_seen) = watch::channel(watching::Pods::default());
    let clusters: Api<MySQLCluster> = Api::all(client.clone());
    let watched = watcher(clusters, daemon::watching()).backoff(daemon::Patience::default());
    let of_clusters = pods_seen.clone();
    let watched = common::clusters::each(watched, move |cluster| {
        tokio::spawn(cluster::run(context.clone(), cluster, of_clusters.clone()));
    });
    let mut listed = pods_seen.clone();
    tokio::spawn(async move {
        if listed.changed().await.is_ok() {
            readiness.set(true);
        }
    });
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = watching::pods(Api::<Pod>::all(client), pods) => anyhow::bail!("the watch of pods ended"),
        () = watched => anyhow::bail!("the watch of clusters ended"),
        ended = served => anyhow::bail!("the HTTP server ended: {ended:?}"),
        // Every step can be resumed by another failover-d from what is recorded.
        _ = terminate.recv() => info!("stopping"),
    }
    stop.cancel();
    Ok(())
}
