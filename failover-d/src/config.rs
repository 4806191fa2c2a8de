//! Configuration of failover-d.

use std::path::PathBuf;

use common::events;
use serde::{Deserialize, Serialize};

/// Defaults, a JSON file, and `PELORUS_…` variables, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where metrics and probes are served.
    pub http_port: u16,
    /// `tls://host:4222`; absent: no events.
    pub nats_url: Option<String>,
    /// PEM file with the authority of NATS' certificate.
    pub nats_ca_file: Option<PathBuf>,
    /// File with the user name for NATS.
    pub nats_user_file: Option<PathBuf>,
    /// File with the password for NATS.
    pub nats_password_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http_port: common::names::PORT_DAEMON_HTTP,
            nats_url: None,
            nats_ca_file: None,
            nats_user_file: None,
            nats_password_file: None,
        }
    }
}

impl Config {
    /// The part that concerns NATS.
    pub fn events(&self) -> events::Config {
        events::Config {
            url: self.nats_url.clone(),
            ca_file: self.nats_ca_file.clone(),
            user_file: self.nats_user_file.clone(),
            password_file: self.nats_password_file.clone(),
        }
    }
}
