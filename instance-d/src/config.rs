//! Where things are and who this instance is.
//!
//! In a pod everything has its fixed place ([`common::names`]) and the environment only says which pod it is. Tests run
//! several instances on one host and move places, ports and addresses by environment variables.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::instance::InstanceConfig;
use common::mysql::{Credentials, Endpoint, Password};
use common::names;

use crate::error::{Error, Result};

/// How long a primary waits for a hand-over after SIGTERM, unless told otherwise.
const HAND_OVER: Duration = Duration::from_secs(30);
/// Where mysqld is looked for.
const PROGRAM_DIRS: [&str; 6] =
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin", "/opt/mysql/bin"];

/// Places, ports and programs.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The data volume.
    pub volume: PathBuf,
    /// Holds `instance.json`.
    pub config: PathBuf,
    /// Holds a password file an account.
    pub accounts: PathBuf,
    /// Holds `tls.crt`, `tls.key`, `ca.crt`.
    pub tls: PathBuf,
    /// Sockets, my.cnf.
    pub run: PathBuf,
    /// The server program.
    pub mysqld: PathBuf,
    /// Address that everything listens on; none: all addresses.
    pub bind: Option<IpAddr>,
    /// Classic protocol.
    pub port_mysql: u16,
    /// X protocol.
    pub port_mysqlx: u16,
    /// The API.
    pub port_api: u16,
    /// Longest wait for a hand-over after SIGTERM.
    pub hand_over: Duration,
    /// This process runs as root, which mysqld refuses unless told so (tests only; pods run as another user).
    pub root: bool,
}

impl Layout {
    /// From the environment, with the places of a pod as defaults.
    ///
    /// # Errors
    /// A variable that does not parse, or no mysqld.
    pub fn from_env() -> Result<Self> {
        let dir = |key: &str, default: &str| PathBuf::from(variable(key).unwrap_or_else(|| default.to_owned()));
        Ok(Self {
            volume: dir("PELORUS_DIR_VOLUME", names::DIR_VOLUME),
            config: dir("PELORUS_DIR_CONFIG", names::DIR_CONFIG),
            accounts: dir("PELORUS_DIR_ACCOUNTS", names::DIR_ACCOUNTS),
            tls: dir("PELORUS_DIR_TLS", names::DIR_TLS),
            run: dir("PELORUS_DIR_RUN", names::DIR_RUN),
            mysqld: program()?,
            bind: variable("PELORUS_BIND").map(|text| parse("PELORUS_BIND", &text)).transpose()?,
            port_mysql: number("PELORUS_PORT_MYSQL", names::PORT_MYSQL)?,
            port_mysqlx: number("PELORUS_PORT_MYSQLX", names::PORT_MYSQLX)?,
            port_api: number("PELORUS_PORT_API", names::PORT_INSTANCE_API)?,
            hand_over: number("PELORUS_HAND_OVER_SECONDS", HAND_OVER.as_secs())
                .map(|seconds| Duration::from_secs(seconds.min(3600)))?,
            root: std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
        })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.volume.join("data")
    }

    /// Large sorts and the like go to the volume, not to the node's disk.
    pub fn tmp(&self) -> PathBuf {
        self.volume.join("tmp")
    }

    /// mysqld's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("mysqld.sock")
    }

    /// The rendered option file.
    pub fn my_cnf(&self) -> PathBuf {
        self.run.join("my.cnf")
    }

    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), self.port_api)
    }

    /// mysqld over its socket.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Socket(self.socket())
    }

    /// Password of one of Pelorus' own accounts.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn password(&self, account: &str) -> Result<Password> {
        let path = self.accounts.join(account);
        Password::read(&path).map_err(Error::file("read the password file", path))
    }

    /// User and password of one of Pelorus' own accounts.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn credentials(&self, account: &str) -> Result<Credentials> {
        Ok(Credentials::new(account, self.password(account)?))
    }

    /// Reads `instance.json`.
    ///
    /// # Errors
    /// An unreadable file, or content that is not understood.
    pub fn instance_config(&self) -> Result<InstanceConfig> {
        let path = self.config.join("instance.json");
        let text = std::fs::read(&path).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
    }
}

/// Which instance this is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Cluster.
    pub cluster: String,
    /// Ordinal in the StatefulSet.
    pub ordinal: u32,
}

impl Identity {
    /// From the downward API's variables and the cluster's name.
    ///
    /// # Errors
    /// A pod name that is none of this cluster's.
    pub fn from_env(config: &InstanceConfig) -> Result<Self> {
        let name = variable("POD_NAME").ok_or_else(|| Error::Configuration("POD_NAME is not set".to_owned()))?;
        let namespace = variable("POD_NAMESPACE").unwrap_or_else(|| config.namespace.clone());
        let ordinal = names::ordinal(&config.cluster, &name).ok_or_else(|| {
            Error::Configuration(format!("POD_NAME {name:?} is no instance of cluster {:?}", config.cluster))
        })?;
        Ok(Self { name, namespace, cluster: config.cluster.clone(), ordinal })
    }

    /// `server_id`: never 0.
    pub fn server_id(&self) -> u32 {
        self.ordinal + 1
    }

    /// Stable DNS name of this instance.
    pub fn host(&self) -> String {
        names::instance_host(&self.namespace, &self.cluster, &self.name)
    }
}

fn variable(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

fn parse<T: std::str::FromStr>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Configuration(format!("{key}={text:?} is not valid")))
}

fn number<T: std::str::FromStr>(key: &str, default: T) -> Result<T> {
    variable(key).map_or(Ok(default), |text| parse(key, &text))
}

fn program() -> Result<PathBuf> {
    if let Some(path) = variable("PELORUS_MYSQLD") {
        return Ok(PathBuf::from(path));
    }
    PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join("mysqld"))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Configuration(format!("no mysqld in {}", PROGRAM_DIRS.join(", "))))
}
