//! Clients that do not speak TLS, to see them refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::mysql::Credentials;
use mysql_async::{Conn, OptsBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
/// For somebody who may be gone.
const BRIEF: Duration = Duration::from_secs(2);

/// Logs in without TLS over the classic protocol; the error that came of it. `None`: it was let in.
///
/// # Errors
/// When there was no answer.
pub async fn classic(ip: &str, credentials: &Credentials) -> Result<Option<mysql_async::Error>> {
    let opts = OptsBuilder::default()
        .ip_or_hostname(ip)
        .tcp_port(common::names::PORT_MYSQL)
        .user(Some(&credentials.user))
        .pass(Some(credentials.password.expose()))
        .prefer_socket(false)
        .max_allowed_packet(Some(1 << 20))
        .wait_timeout(Some(60));
    let conn = timeout(TIMEOUT, Conn::new(opts)).await.context("no answer to a login without TLS")?;
    Ok(match conn {
        Ok(conn) => {
            timeout(TIMEOUT, conn.disconnect()).await.ok();
            None
        }
        Err(error) => Some(error),
    })
}

/// What a port answers to an HTTP request without TLS; empty when it just hangs up.
///
/// # Errors
/// When it cannot be reached.
pub async fn http(ip: &str, port: u16) -> Result<Vec<u8>> {
    ask(ip, port, "/v1/state", TIMEOUT).await
}

/// Body of a page that is served without TLS: metrics of the daemons.
///
/// # Errors
/// When it cannot be reached, or says anything but 200.
pub async fn get(ip: &str, port: u16, path: &str) -> Result<String> {
    let answer = ask(ip, port, path, BRIEF).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

async fn ask(ip: &str, port: u16, path: &str, within: Duration) -> Result<Vec<u8>> {
    let mut stream = timeout(within, TcpStream::connect((ip, port))).await.context("connect")??;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A reset is a refusal like any other.
    let _ = timeout(within, stream.read_to_end(&mut answer)).await.context("no end of the answer")?;
    Ok(answer)
}
