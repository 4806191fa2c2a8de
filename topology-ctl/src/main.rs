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

use common::daemon;
use common::events::Events;
use common::{http, lease};
use kube::runtime::events::{Recorder, Reporter};

use crate::config::Config;
use crate::controller::Context;
use crate::memory::Memories;
use crate::metrics::Metrics;

const DAEMON: &str = "topology-ctl";

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    common::telemetry::init(DAEMON)?;
    let config: Config = common::config::load(DAEMON)?;
    let identity = daemon::identity(config.identity.as_deref(), DAEMON);

    let mut registry = http::registry(DAEMON);
    let metrics = Metrics::new(&mut registry);
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
    let lease = lease::Config::new(&config.operator_namespace, &config.lease_name, &identity);
    let leader = metrics.leader.clone();
    daemon::Controller { http_port: config.http_port, registry, lease, leader }
        .run(|token| controller::run(context, token))
        .await
}
