//! Configuration of failover-d.

use common::events;
use serde::{Deserialize, Serialize};

/// Defaults, a JSON file, and `PELORUS_…` variables, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where metrics and probes are served.
    pub http_port: u16,
    /// Where events go.
    pub nats: events::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { http_port: common::names::PORT_DAEMON_HTTP, nats: events::Config::default() }
    }
}
