//! The smallest HTTPS client: one GET, with the server's certificate verified and no certificate of our own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Trusts these authorities and nobody else.
///
/// # Errors
/// When they are no certificates.
pub fn trusting(authorities: &str) -> Result<TlsConnector> {
    let config = ClientConfig::builder().with_root_certificates(roots(authorities)?).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// These authorities, from PEM text.
pub(crate) fn roots(authorities: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// Status code and body of a GET.
///
/// # Errors
/// When the server cannot be reached, is not trusted, or does not answer with HTTP.
pub async fn get(ip: &str, port: u16, server_name: &str, authorities: &str, path: &str) -> Result<(u16, String)> {
    let connector = trusting(authorities)?;
    let name = ServerName::try_from(server_name.to_owned())?;
    let answer = timeout(TIMEOUT, async {
        let stream = TcpStream::connect((ip, port)).await?;
        let mut stream = connector.connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = answer.await.with_context(|| format!("no answer to GET {path}"))??;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}
