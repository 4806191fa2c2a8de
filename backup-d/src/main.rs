//! backup-d: makes the dumps that MySQLDump objects ask for, and takes away those whose objects are deleted.

mod config;
mod controller;
mod decide;
mod dumping;
mod health;
mod locating;
mod metrics;
mod objects;
mod schedule;
mod scheduling;

use std::sync::Arc;

use common::daemon;
use common::events::Events;
use common::{http, lease};

use crate::config::Config;
use crate::controller::Context;
use crate::metrics::Metrics;

const DAEMON: &str = "backup-d";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    common::telemetry::init(DAEMON)?;
    let config: Config = common::config::load(DAEMON)?;
    let identity = daemon::identity(config.identity.as_deref(), DAEMON);
    let mut registry = http::registry(DAEMON);
    let metrics = Metrics::new(&mut registry);
    let lease = lease::Config::new(&config.operator_namespace, &config.lease_name, &identity);
    let (http_port, leader) = (config.http_port, metrics.leader.clone());
    let context = Arc::new(Context {
        client: daemon::watching_client().await?,
        events: Events::start(config.nats.clone(), DAEMON),
        metrics,
        config,
        attempts: controller::Attempts::default(),
    });
    daemon::Controller { http_port, registry, lease, leader }
        .run(|token| async move {
            tokio::join!(
                controller::run(Arc::clone(&context), token.clone()),
                scheduling::run(Arc::clone(&context), token.clone()),
                health::run(Arc::clone(&context), token.clone()),
                locating::run(context, token)
            );
        })
        .await
}
