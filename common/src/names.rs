//! Names that cross a wall: labels, annotations, ports, paths, object and account names.
//!
//! Every daemon takes them from here, so that two of them cannot disagree about where a thing is.

/// API group of every kind that Pelorus serves.
pub const GROUP: &str = "pelorus.dev";
/// API version of every kind that Pelorus serves.
pub const VERSION: &str = "v1alpha1";

/// Label with the name of the MySQLCluster that an object belongs to.
pub const LABEL_CLUSTER: &str = "pelorus.dev/cluster";
/// Label of a record of the archive with the uid of the MySQLCluster that wrote it: a name may have been used again.
pub const LABEL_CLUSTER_UID: &str = "pelorus.dev/cluster-uid";
/// Name of the MySQLBackupSchedule, on each MySQLDump that it asked for.
pub const LABEL_SCHEDULE: &str = "pelorus.dev/schedule";
/// Label on MySQL pods, for people: `primary` or `replica`. Routing never reads it.
pub const LABEL_ROLE: &str = "pelorus.dev/role";
/// Annotation on MySQL pods: digest of the pod template that the pod was made from.
pub const ANNOTATION_TEMPLATE: &str = "pelorus.dev/template";

/// Annotation on a MySQLCluster: pod names, separated by commas, that a person has fenced.
pub const ANNOTATION_FENCED: &str = "pelorus.dev/fenced";
/// Annotation on a MySQLCluster: the recorded epoch whose acknowledged writes a person gives up.
pub const ANNOTATION_ACCEPT_LOSS: &str = "pelorus.dev/accept-loss";
/// Annotation on a MySQLCluster: pod name of an instance whose data a person wants thrown away and cloned anew.
pub const ANNOTATION_REBUILD: &str = "pelorus.dev/rebuild";

/// Annotation on a scratch cluster, made by backup-d: pod name of the instance of the cluster in `spec.restore.fromLocation` whose files
/// go there as a physical dump. Nothing is restored then.
pub const ANNOTATION_COPIES: &str = "pelorus.dev/copies-instance";

/// Classic MySQL protocol, TLS required.
pub const PORT_MYSQL: u16 = 3306;
/// X protocol, TLS required.
pub const PORT_MYSQLX: u16 = 33060;
/// instance-d: API, probes and metrics over TLS.
pub const PORT_INSTANCE_API: u16 = 7080;
/// Metrics and probes of the controllers.
pub const PORT_DAEMON_HTTP: u16 = 8080;

/// Name of the MySQL container in a MySQL pod.
pub const CONTAINER_MYSQL: &str = "mysql";
/// Mount point of the data volume. The data directory is `data` below it, the promise lies beside that.
pub const DIR_VOLUME: &str = "/var/lib/pelorus";
/// Mount point of the volume that holds the instance-d binary.
pub const DIR_BIN: &str = "/opt/pelorus";
/// Mount point of the ConfigMap `<cluster>-instance` (key `instance.json`).
pub const DIR_CONFIG: &str = "/etc/pelorus/config";
/// Mount point of the Secret `<cluster>-accounts` (one file an account, named after it, holding its password).
pub const DIR_ACCOUNTS: &str = "/etc/pelorus/accounts";
/// Mount point of the Secret `<cluster>-tls` (`tls.crt`, `tls.key`, `ca.crt`).
pub const DIR_TLS: &str = "/etc/pelorus/tls";
/// Mount point of a memory-free scratch volume for sockets and pid files.
pub const DIR_RUN: &str = "/run/pelorus";

/// MySQL accounts of Pelorus itself, one a purpose.
pub mod account {
    /// instance-d on its own server, over the socket only.
    pub const LOCAL: &str = "pelorus_local";
    /// Prefix of the replication accounts: `pelorus_repl_<ordinal of the replica that uses it>`.
    pub const REPLICATION_PREFIX: &str = "pelorus_repl_";
    /// The donor side of CLONE.
    pub const CLONE: &str = "pelorus_clone";
    /// Dumps.
    pub const BACKUP: &str = "pelorus_backup";
    /// Binlog shipping.
    pub const SHIPPER: &str = "pelorus_shipper";
    /// Users and databases.
    pub const USERS: &str = "pelorus_users";
    /// Read-only monitoring by exporters.
    pub const MONITOR: &str = "pelorus_monitor";
    /// The person or tool that owns the data: everything on user schemas, nothing that could break replication.
    pub const ADMIN: &str = "admin";

    /// The replication account that the replica with this ordinal uses.
    pub fn replication(ordinal: u32) -> String {
        format!("{REPLICATION_PREFIX}{ordinal}")
    }
}

/// Most instances a cluster may have; a replication account for each ordinal exists from the start.
pub const INSTANCES_MAX: u32 = 9;

/// Daemons that may call the instance API, by the DNS name in their client certificate.
pub mod daemon {
    /// Role orders.
    pub const FAILOVER_D: &str = "failover-d";
    /// Provisioning orders and configuration.
    pub const TOPOLOGY_CTL: &str = "topology-ctl";

    /// The DNS name that a daemon's client certificate carries.
    pub fn dns_name(daemon: &str) -> String {
        format!("{daemon}.daemons.pelorus.dev")
    }
}

/// Pod name of an instance: `<cluster>-<ordinal>`.
pub fn instance(cluster: &str, ordinal: u32) -> String {
    format!("{cluster}-{ordinal}")
}

/// Ordinal of an instance, when the name is one of this cluster's.
pub fn ordinal(cluster: &str, instance: &str) -> Option<u32> {
    instance.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

/// Stable DNS name of an instance, below the headless Service; the server certificate is valid for it.
pub fn instance_host(namespace: &str, cluster: &str, instance: &str) -> String {
    format!("{instance}.{cluster}.{namespace}.svc")
}

/// Names of the objects that belong to a cluster.
pub mod object {
    /// Service (and EndpointSlice) of the primary. No selector: failover-d writes its one address.
    pub fn primary_service(cluster: &str) -> String {
        format!("{cluster}-primary")
    }
    /// Service (and EndpointSlice) of the replicas.
    pub fn replicas_service(cluster: &str) -> String {
        format!("{cluster}-replicas")
    }
    /// Secret with the passwords of Pelorus' own accounts.
    pub fn accounts_secret(cluster: &str) -> String {
        format!("{cluster}-accounts")
    }
    /// Secret with what the owner of the data needs to connect: host, port, username, password, ca.crt.
    pub fn admin_secret(cluster: &str) -> String {
        format!("{cluster}-admin")
    }
    /// Secret with the certificate of the instances.
    pub fn tls_secret(cluster: &str) -> String {
        format!("{cluster}-tls")
    }
    /// Secret with the built-in certificate authority; mounted nowhere.
    pub fn ca_secret(cluster: &str) -> String {
        format!("{cluster}-ca")
    }
    /// Secret with the client certificate of a daemon for this cluster's instance API.
    pub fn daemon_tls_secret(cluster: &str, daemon: &str) -> String {
        format!("{cluster}-{daemon}-tls")
    }
    /// ConfigMap with what instance-d needs to know.
    pub fn instance_config(cluster: &str) -> String {
        format!("{cluster}-instance")
    }
}
