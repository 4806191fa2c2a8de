//! TLS for the instance API, and certificates from the built-in authority.
//!
//! One certificate authority a cluster. Instances present a server certificate that is valid for their DNS names;
//! daemons present a client certificate whose DNS name says which daemon they are
//! ([`crate::names::daemon::dns_name`]). Nothing here trusts public roots.

mod issue;

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use issue::{Authority, Issued, LeafRequest, not_after};

use crate::names;

/// A certificate with its key and the authority that both sides trust, as PEM (the keys of a `kubernetes.io/tls` Secret).
#[derive(Clone)]
pub struct Material {
    /// `tls.crt`: the certificate, leaf first.
    pub certificate: String,
    /// `tls.key`: its private key.
    pub key: String,
    /// `ca.crt`: one or more authorities (two during a rotation).
    pub authorities: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Material([REDACTED])")
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM text holds no usable object of the named kind.
    #[error("read {what} from PEM: {source}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// Cause.
        source: rustls::pki_types::pem::Error,
    },
    /// No authority in `ca.crt`.
    #[error("ca.crt holds no certificate")]
    NoAuthority,
    /// rustls refused the parts.
    #[error("configure TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client verifier could not be built.
    #[error("configure the verification of client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A host name that no certificate can be valid for.
    #[error("{0:?} is not a name that a certificate can be valid for")]
    ServerName(String),
    /// rcgen refused a request.
    #[error("issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A certificate could not be parsed.
    #[error("parse a certificate: {0}")]
    Parse(String),
}

impl Material {
    /// Reads the three files that Kubernetes mounts from a TLS Secret.
    ///
    /// # Errors
    /// An unreadable file, with its path.
    pub fn from_dir(dir: &std::path::Path) -> std::io::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")?, authorities: read("ca.crt")? })
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem { what, source })
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| Error::Pem { what: "tls.key", source })
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, "ca.crt")? {
        store.add(certificate)?;
    }
    if store.is_empty() { Err(Error::NoAuthority) } else { Ok(store) }
}

/// Server side of the instance API. A client certificate is asked for and verified when given, but may be absent:
/// probes and metrics have none, every other path looks at [`peer_daemon`].
///
/// # Errors
/// Unusable material.
pub fn server_config(material: &Material) -> Result<ServerConfig, Error> {
    let verifier =
        WebPkiClientVerifier::builder(Arc::new(roots(&material.authorities)?)).allow_unauthenticated().build()?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&material.certificate, "tls.crt")?, private_key(&material.key)?)?;
    Ok(config)
}

/// Client side of the instance API: presents the daemon's certificate, trusts only the cluster's authority.
///
/// # Errors
/// Unusable material.
pub fn client_config(material: &Material) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder()
        .with_root_certificates(roots(&material.authorities)?)
        .with_client_auth_cert(certificates(&material.certificate, "tls.crt")?, private_key(&material.key)?)?;
    Ok(config)
}

/// Client side of anything that asks for no client certificate: trusts these authorities alone (`ca.crt`).
///
/// # Errors
/// Unusable material.
pub fn trusting(authorities: &str) -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder().with_root_certificates(roots(authorities)?).with_no_client_auth())
}

/// Which daemon a verified client certificate belongs to. `None`: no certificate, or none of ours.
pub fn peer_daemon(chain: Option<&[CertificateDer<'_>]>) -> Option<&'static str> {
    let leaf = chain?.first()?;
    let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
    [names::daemon::FAILOVER_D, names::daemon::TOPOLOGY_CTL].into_iter().find(|daemon| {
        ServerName::try_from(names::daemon::dns_name(daemon))
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
    })
}

/// The name that a peer's certificate must be valid for.
///
/// # Errors
/// A text that is no DNS name.
pub fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned()).map_err(|_| Error::ServerName(host.to_owned()))
}
