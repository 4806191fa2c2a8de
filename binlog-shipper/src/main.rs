//! binlog-shipper: every cluster's binlog goes into its archive as it is written.
//!
//! One replica works (a Lease says which), the others wait. Two at once would be waste and no danger: every put is conditional.

mod cluster;
mod config;
mod connect;
mod decide;
mod metrics;
mod record;
mod window;

use std::sync::Arc;

use anyhow::Context as _;
use common::crd::MySQLCluster;
use common::daemon;
use common::events::Events;
use common::http::{self, Readiness};
use common::lease::{self, Ended, Lease};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
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

    let stop = CancellationToken::new();
    let mut registry = http::registry(DAEMON);
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::default();
    let server = tokio::spawn(http::serve(config.http_port, readiness.clone(), Arc::new(registry), stop.clone()));

    let context = Context {
        client: daemon::watching_client().await?,
        events: Events::start(config.nats.clone(), DAEMON),
        metrics: metrics.clone(),
        spool: config.spool.clone(),
        spool_max: config.spool_mib << 20,
    };
    let lease = Lease::new(
        lease::client().await?,
        lease::Config::new(&config.operator_namespace, &config.lease_name, &identity),
    );
    tokio::spawn(daemon::stop_on_signal(stop.clone()));
    // A standby is ready: it takes over when asked.
    readiness.set(true);

    let ended = lease
        .run(stop.clone(), async |term| {
            metrics.leader.set(1);
            ship(context, config.watch_namespace.as_deref(), term.token).await;
            metrics.leader.set(0);
        })
        .await;
    stop.cancel();
    server.await.context("the server of probes and metrics panicked")??;
    match ended {
        Ended::Stopped => Ok(()),
        // What was known may be stale: a fresh process looks anew.
        Ended::Lost => anyhow::bail!("leadership was lost"),
        Ended::Finished => anyhow::bail!("the watch of clusters ended"),
    }
}

/// A loop for each cluster, until the token is cancelled.
async fn ship(context: Context, namespace: Option<&str>, token: CancellationToken) {
    let client = context.client.clone();
    let clusters: Api<MySQLCluster> =
        namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let watched = watcher(clusters, watcher::Config::default()).default_backoff();
    // Dropped with this function, and its tasks with it.
    let mut loops = JoinSet::new();
    let each = common::clusters::each(watched, |cluster| {
        while loops.try_join_next().is_some() {}
        loops.spawn(cluster::run(context.clone(), cluster));
    });
    token.run_until_cancelled(each).await;
}
