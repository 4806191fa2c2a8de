//! topology-ctl: MySQLCluster objects become Kubernetes objects, and instances without data get some.
//!
//! Decides about nothing that could lose a write: who is primary, and whose acknowledgement counts, is failover-d's.

mod act;
mod announce;
mod build;
mod config;
mod controller;
mod credentials;
mod decide;
mod error;
mod image;
mod memory;
mod metrics;
mod observe;
mod pass;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::events::Events;
use common::http::{self, Readiness};
use common::lease::{self, Ended, Lease};
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::controller::Context;
use crate::memory::Memories;
use crate::metrics::Metrics;

const DAEMON: &str = "topology-ctl";
/// Longer than the API server keeps a silent watch open.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(330);

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    common::telemetry::init(DAEMON)?;
    let config: Config = common::config::load(DAEMON)?;
    let identity = identity(&config);

    let stop = CancellationToken::new();
    let mut registry = http::registry(DAEMON);
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::default();
    let server = tokio::spawn(http::serve(config.http_port, readiness.clone(), Arc::new(registry), stop.clone()));

    let context = Arc::new(Context {
        client: watching_client().await?,
        recorder: Recorder::new(
            lease::client().await?,
            Reporter { controller: format!("{}/{DAEMON}", common::names::GROUP), instance: Some(identity.clone()) },
        ),
        events: Events::start(config.nats.clone(), DAEMON),
        metrics: metrics.clone(),
        memories: Memories::default(),
        config: config.clone(),
    });
    let lease = Lease::new(
        lease::client().await?,
        lease::Config::new(&config.operator_namespace, &config.lease_name, &identity),
    );
    tokio::spawn(stop_on_signal(stop.clone()));
    // A standby is ready: it takes over when asked.
    readiness.set(true);

    let ended = lease
        .run(stop.clone(), async |term| {
            metrics.leader.set(1);
            controller::run(context, term.token).await;
            metrics.leader.set(0);
        })
        .await;
    stop.cancel();
    server.await.context("the server of probes and metrics panicked")??;
    match ended {
        Ended::Stopped => Ok(()),
        // What was known may be stale: a fresh process looks anew.
        Ended::Lost => anyhow::bail!("leadership was lost"),
        Ended::Finished => anyhow::bail!("the controller ended by itself"),
    }
}

/// The pod's name where nothing else is configured.
fn identity(config: &Config) -> String {
    let host = || std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    config.identity.clone().or_else(host).unwrap_or_else(|| DAEMON.to_owned())
}

/// A client for watches and bounded calls: no retries behind our back.
async fn watching_client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await.context("find out how to reach the API server")?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(WATCH_READ_TIMEOUT);
    config.write_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

async fn stop_on_signal(stop: CancellationToken) {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => info!("SIGTERM"),
        () = wait(SignalKind::interrupt()) => info!("SIGINT"),
    }
    stop.cancel();
}
