//! The X protocol, as far as it takes to see that it answers, and that it wants TLS.
//!
//! A message is its length (4 bytes, little endian, what follows), its type (1 byte) and a protobuf body. The few bodies
//! needed here are written and read by hand.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::https;

const TIMEOUT: Duration = Duration::from_secs(10);

const CAPABILITIES_GET: u8 = 1;
const CAPABILITIES_SET: u8 = 2;
const AUTHENTICATE_START: u8 = 4;
const AUTHENTICATE_CONTINUE: u8 = 5;
const SERVER_OK: u8 = 0;
const SERVER_ERROR: u8 = 1;
const SERVER_CAPABILITIES: u8 = 2;
const SERVER_AUTHENTICATE_CONTINUE: u8 = 3;
const SERVER_AUTHENTICATE_OK: u8 = 4;
const SERVER_NOTICE: u8 = 11;

/// A connection over which X messages go.
pub struct XSession<S>(S);

/// What the server said.
#[derive(Debug)]
pub struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Message {
    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.kind == SERVER_ERROR
    }

    /// Whether it says that the login was successful.
    pub fn is_authenticated(&self) -> bool {
        self.kind == SERVER_AUTHENTICATE_OK
    }

    /// The body as far as it is text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Connects without TLS.
///
/// # Errors
/// When there is no answer.
pub async fn connect(ip: &str, port: u16) -> Result<XSession<TcpStream>> {
    let stream = timeout(TIMEOUT, TcpStream::connect((ip, port))).await.context("connect")??;
    Ok(XSession(stream))
}

impl<S: AsyncRead + AsyncWrite + Unpin> XSession<S> {
    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 1)?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.push(kind);
        frame.extend_from_slice(body);
        Ok(self.0.write_all(&frame).await?)
    }

    async fn receive(&mut self) -> Result<Message> {
        loop {
            let length = self.0.read_u32_le().await.context("the server hung up")?;
            ensure!((1..1 << 20).contains(&length), "a message of {length} bytes");
            let mut body = vec![0; length as usize];
            self.0.read_exact(&mut body).await?;
            let kind = body.remove(0);
            if kind != SERVER_NOTICE {
                return Ok(Message { kind, body });
            }
        }
    }

    async fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Message> {
        timeout(TIMEOUT, async {
            self.send(kind, body).await?;
            self.receive().await
        })
        .await
        .context("no answer over the X protocol")?
    }

    /// What the server can do; the names are in the text of the answer.
    ///
    /// # Errors
    /// When it answers something else.
    pub async fn capabilities(&mut self) -> Result<Message> {
        let answer = self.ask(CAPABILITIES_GET, &[]).await?;
        ensure!(answer.kind == SERVER_CAPABILITIES, "no capabilities but {answer:?}");
        Ok(answer)
    }

    /// Logs in by PLAIN, which sends the password as it is.
    ///
    /// # Errors
    /// When there is no answer; a refusal is one.
    pub async fn authenticate_plain(&mut self, user: &str, password: &str) -> Result<Message> {
        let mut body = Vec::new();
        field(&mut body, 1, b"PLAIN");
        field(&mut body, 2, format!("\0{user}\0{password}").as_bytes());
        self.ask(AUTHENTICATE_START, &body).await
    }

    /// Logs in by SHA256_MEMORY, which sends no password and works once the server has the account in its cache.
    ///
    /// # Errors
    /// When there is no answer; a refusal is one.
    pub async fn authenticate_memory(&mut self, user: &str, password: &str) -> Result<Message> {
        let mut body = Vec::new();
        field(&mut body, 1, b"SHA256_MEMORY");
        let challenge = self.ask(AUTHENTICATE_START, &body).await?;
        if challenge.kind != SERVER_AUTHENTICATE_CONTINUE {
            return Ok(challenge);
        }
        // AuthenticateContinue { auth_data (1) }: a tag, a length, the nonce of 20 bytes, perhaps a zero.
        let nonce = challenge.body.get(2..22).context("a challenge without a nonce")?;
        let once = Sha256::digest(password.as_bytes());
        let twice = Sha256::digest(once);
        let salted = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
        let scramble = once.iter().zip(salted).fold(String::new(), |mut text, (left, right)| {
            // Writing to a String does not fail.
            let _ = write!(text, "{:02X}", left ^ right);
            text
        });
        let mut body = Vec::new();
        field(&mut body, 1, format!("\0{user}\0{scramble}").as_bytes());
        self.ask(AUTHENTICATE_CONTINUE, &body).await
    }
}

impl XSession<TcpStream> {
    /// Switches to TLS, and checks the server's certificate.
    ///
    /// # Errors
    /// When the server does not want to, or its certificate is not trusted or of another name.
    pub async fn secure(
        mut self,
        authorities: &str,
        server_name: &str,
    ) -> Result<XSession<tokio_rustls::client::TlsStream<TcpStream>>> {
        let answer = self.ask(CAPABILITIES_SET, &set_tls()).await?;
        ensure!(answer.kind == SERVER_OK, "the server does not switch to TLS: {answer:?}");
        let name = ServerName::try_from(server_name.to_owned())?;
        let stream = timeout(TIMEOUT, https::trusting(authorities)?.connect(name, self.0)).await;
        Ok(XSession(stream.context("no answer to the TLS handshake")??))
    }
}

/// A length-delimited protobuf field.
fn field(body: &mut Vec<u8>, number: u8, content: &[u8]) {
    body.push(number << 3 | 2);
    let length = content.len();
    // A varint: seven bits a byte, the lowest first.
    let mut rest = length;
    while rest >= 0x80 {
        body.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    body.push(u8::try_from(rest).unwrap_or(0));
    body.extend_from_slice(content);
}

/// CapabilitiesSet { capabilities { capability { name: "tls", value: true } } }
fn set_tls() -> Vec<u8> {
    // Any { type: SCALAR (1), scalar (2): Scalar { type: V_BOOL (7), v_bool (8): true } }
    let scalar = [1 << 3, 7, 8 << 3, 1];
    let mut any = vec![1 << 3, 1];
    field(&mut any, 2, &scalar);
    let mut capability = Vec::new();
    field(&mut capability, 1, b"tls");
    field(&mut capability, 2, &any);
    let mut capabilities = Vec::new();
    field(&mut capabilities, 1, &capability);
    let mut body = Vec::new();
    field(&mut body, 1, &capabilities);
    body
}

#[cfg(test)]
mod tests {
    use super::{field, set_tls};

    #[test]
    fn long_fields_have_varint_lengths() {
        let mut body = Vec::new();
        field(&mut body, 2, &[b'x'; 300]);
        assert_eq!(body.get(..3), Some([0x12, 0xac, 0x02].as_slice()));
        assert_eq!(body.len(), 303);
    }

    #[test]
    fn the_tls_capability_is_nested_five_deep() {
        let expected = b"\x0a\x11\x0a\x0f\x0a\x03tls\x12\x08\x08\x01\x12\x04\x08\x07\x40\x01";
        assert_eq!(set_tls(), expected);
    }
}
