//! Where a server is and who wants in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::{OptsBuilder, SslOpts};
use serde::{Deserialize, Serializer};

/// Probes of an idle TCP connection begin after this long, so that a vanished peer is noticed within minutes.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Largest packet taken from a server. Fixed, so that a login needs no query for it.
const PACKET_MAX_BYTES: usize = 64 << 20;

/// Where a server answers.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// Unix socket.
    Socket(PathBuf),
    /// TCP, always with TLS.
    Tcp {
        /// Address or host name to connect to.
        host: String,
        /// Port to connect to.
        port: u16,
        /// Whom to believe.
        tls: Tls,
    },
}

impl Endpoint {
    pub(super) fn opts(&self, credentials: &Credentials) -> OptsBuilder {
        let opts = OptsBuilder::default()
            .user(Some(&credentials.user))
            .pass(Some(credentials.password.expose()))
            .prefer_socket(false)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(PACKET_MAX_BYTES))
            .wait_timeout(Some(0));
        match self {
            Self::Socket(path) => opts.socket(Some(path.to_string_lossy())),
            Self::Tcp { host, port, tls } => opts
                .ip_or_hostname(host)
                .tcp_port(*port)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(KEEPALIVE))
                .ssl_opts(Some(tls.opts())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whom to believe over TCP.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The one authority that is trusted; public ones are not.
    pub ca: Ca,
    /// Name (or address) that the server's certificate must be valid for.
    pub server_name: String,
}

impl Tls {
    fn opts(&self) -> SslOpts {
        let root = match &self.ca {
            Ca::Pem(pem) => pem.clone().into_bytes().into(),
            Ca::File(path) => path.clone().into(),
        };
        SslOpts::default()
            .with_root_certs(vec![root])
            .with_disable_built_in_roots(true)
            .with_danger_tls_hostname_override(Some(self.server_name.clone()))
    }
}

/// Certificates of an authority.
#[derive(Clone)]
pub enum Ca {
    /// PEM text.
    Pem(String),
    /// PEM file, read at each connect, so that a rotated one is picked up.
    File(PathBuf),
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(_) => f.write_str("Pem(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Who wants in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password, empty for none.
    pub password: Password,
}

impl Credentials {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: Password) -> Self {
        Self { user: user.into(), password }
    }
}

/// A password: shows in no debug output and cannot be printed or serialised by accident (invariant 9).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Takes the password in.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// Reads a mounted Secret's file; a newline at the end is not part of the password.
    pub fn read(file: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        Ok(Self(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
    }

    /// The secret itself. Every use of this is a place to look at.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Serialises a password as it is, where a field says so (`serialize_with`): for the body of an order over mutual TLS.
///
/// # Errors
/// The serialiser's.
pub fn exposed<S: Serializer>(password: &Password, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(password.expose())
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
