//! What the operator of the daemon may set.

use serde::{Deserialize, Serialize};

/// Configuration of backup-d: defaults < `/etc/pelorus/backup-d.json` < environment `PELORUS_…`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Namespace of the Lease.
    pub operator_namespace: String,
    /// Watch this namespace only; all when absent.
    pub watch_namespace: Option<String>,
    /// What the names of the Leases of those that work begin with: `-0`, `-1`... follow.
    pub lease_name: String,
    /// How many replicas share the work; more of them wait for one to go.
    pub seats: u32,
    /// Who we are in the Lease; the host's name when absent.
    pub identity: Option<String>,
    /// Dumps that are made at the same time.
    pub concurrency: u16,
    /// Connections over which each of them reads rows.
    pub connections: usize,
    /// Scratch clusters that dumps are verified in at the same time.
    pub verifications: usize,
    /// A restore that fails when it was begun longer ago than this is not waited for any more.
    pub verify_patience_seconds: u64,
    /// Port of metrics and probes.
    pub http_port: u16,
    /// Where NATS is.
    pub nats: common::events::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            operator_namespace: "pelorus-system".into(),
            watch_namespace: None,
            lease_name: "pelorus-backup-d".into(),
            seats: 2,
            identity: None,
            concurrency: 2,
            connections: 4,
            verifications: 1,
            verify_patience_seconds: 600,
            http_port: common::names::PORT_DAEMON_HTTP,
            nats: common::events::Config::default(),
        }
    }
}
