//! What the operator of the daemon may set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Configuration of binlog-shipper: defaults < `/etc/pelorus/binlog-shipper.json` < environment `PELORUS_…`.
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
    /// Who we are in the Lease and in Kubernetes Events; the host's name when absent.
    pub identity: Option<String>,
    /// Folder for bytes on their way to the bucket. Its content is worth nothing after a restart.
    pub spool: PathBuf,
    /// MiB that may wait there for each cluster before its stream does.
    pub spool_mib: u64,
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
            lease_name: "pelorus-binlog-shipper".into(),
            seats: 2,
            identity: None,
            spool: "/var/spool/pelorus".into(),
            spool_mib: 256,
            http_port: common::names::PORT_DAEMON_HTTP,
            nats: common::events::Config::default(),
        }
    }
}
