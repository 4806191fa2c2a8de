//! What the operator of the daemon may set.

use serde::{Deserialize, Serialize};

/// Configuration of topology-ctl: defaults < `/etc/pelorus/topology-ctl.json` < environment `PELORUS_…`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Image that holds the instance-d binary (`/instance-d`); copied into each MySQL pod by an init container.
    pub instance_image: String,
    /// Namespace that the daemons run in: the only one besides the cluster's own pods that may reach the instance API.
    pub operator_namespace: String,
    /// Watch this namespace only; all when absent.
    pub watch_namespace: Option<String>,
    /// Name of the Lease of the leader.
    pub lease_name: String,
    /// Who we are in the Lease and in Kubernetes Events; the host's name when absent.
    pub identity: Option<String>,
    /// Clusters that are reconciled at the same time.
    pub concurrency: u16,
    /// Port of metrics and probes.
    pub http_port: u16,
    /// Group that may reach the mounted files, and user of mysqld, inside MySQL pods.
    pub mysql_user_id: i64,
    /// Where NATS is.
    pub nats: common::events::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance_image: "localhost/pelorus/instance-d:dev".into(),
            operator_namespace: "pelorus-system".into(),
            watch_namespace: None,
            lease_name: "pelorus-topology-ctl".into(),
            identity: None,
            concurrency: 8,
            http_port: common::names::PORT_DAEMON_HTTP,
            mysql_user_id: 999,
            nats: common::events::Config::default(),
        }
    }
}
