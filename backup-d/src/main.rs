//! backup-d: makes the dumps that MySQLDump objects ask for, and takes away those whose objects are deleted.
//!
//! Replicas share all objects (`common::lease::members`). Two that look at one do the same twice, or one of them fails: names follow from
//! uids, puts are conditional, and a dump is its manifest.

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
    let (http_port, seats, seated) = (config.http_port, config.seats, metrics.seated.clone());
    let client = daemon::watching_client().await?;
    let events = Events::start(config.nats.clone(), DAEMON);
    daemon::Member { http_port, registry, lease, seats, seated }
        .run(|members, token| async move {
            let attempts = controller::Attempts::default();
            let context = Arc::new(Context { client, events, metrics, config, identity, members, attempts });
            tokio::join!(
                controller::run(Arc::clone(&context), token.clone()),
                scheduling::run(Arc::clone(&context), token.clone()),
                health::run(Arc::clone(&context), token.clone()),
                locating::run(context, token)
            );
        })
        .await
}
