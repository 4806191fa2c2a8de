//! binlog-shipper: every cluster's binlog goes into its archive as it is written.
//!
//! Replicas share the clusters (`common::lease::members`). Two that ship one cluster are waste and no danger: every put is conditional.

mod cluster;
mod config;
mod connect;
mod decide;
mod metrics;
mod record;
mod window;

use common::crd::MySQLCluster;
use common::daemon;
use common::events::Events;
use common::lease::members::Members;
use common::{http, lease};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Context;
use crate::config::Config;
use crate::metrics::Metrics;

const DAEMON: &str = "binlog-shipper";

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    common::telemetry::init(DAEMON)?;
    let config: Config = common::config::load(DAEMON)?;
    let identity = daemon::identity(config.identity.as_deref(), DAEMON);

    let mut registry = http::registry(DAEMON);
    let metrics = Metrics::new(&mut registry);
    let context = Context {
        client: daemon::watching_client().await?,
        events: Events::start(config.nats.clone(), DAEMON),
        metrics: metrics.clone(),
        spool: config.spool.clone(),
        spool_max: config.spool_mib << 20,
    };
    let lease = lease::Config::new(&config.operator_namespace, &config.lease_name, &identity);
    let seated = metrics.seated.clone();
    daemon::Member { http_port: config.http_port, registry, lease, seats: config.seats, seated }
        .run(|members, token| ship(context, members, config.watch_namespace.as_deref(), token))
        .await
}

/// A loop for each cluster, until the token is cancelled.
async fn ship(context: Context, members: watch::Receiver<Members>, namespace: Option<&str>, token: CancellationToken) {
    let clusters = daemon::everywhere::<MySQLCluster>(&context.client, namespace);
    let watched = watcher(clusters, daemon::watching()).backoff(daemon::Patience::default());
    // Dropped with this function, and its tasks with it.
    let mut loops = JoinSet::new();
    let each = common::clusters::each(watched, |cluster| {
        while loops.try_join_next().is_some() {}
        loops.spawn(cluster::run(context.clone(), cluster, members.clone()));
    });
    token.run_until_cancelled(each).await;
}
