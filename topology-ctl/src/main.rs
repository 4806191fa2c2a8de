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

use crate::config::Config;
use crate::controller::Context;
use crate::memory::Memories;
use crate::metrics::Metrics;
use anyhow::Context as _;
use common::daemon;
use common::events::Events;
use common::http::{self, Readiness};
use common::lease::{self, Ended, Lease};
use kube::runtime::events::{Recorder, Reporter};
use tokio_util::sync::CancellationToken;

const DAEMON: &str = "topology-ctl";

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

    let context = Arc::new(Context {
        client: daemon::watching_client().await?,
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
    tokio::spawn(daemon::stop_on_signal(stop.clone()));
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
