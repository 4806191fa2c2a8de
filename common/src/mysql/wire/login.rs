//! Logs in: the client protocol's handshake and `caching_sha2_password`, over TLS or a socket.
//!
//! mysql_async logs in as well but keeps its connection to itself, and its own stream of events verifies no checksum and
//! takes compressed transactions apart.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{Error, Result};
use super::packet::Packets;
use crate::binlog::Bytes;
use crate::mysql::{Credentials, Password};

/// `CLIENT_LONG_PASSWORD | LONG_FLAG | LOCAL_FILES | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x1 | 0x4 | 0x80 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
/// `CLIENT_SSL`.
pub const SSL: u32 = 0x800;
/// Largest packet that we send; what comes is as large as it is.
const PACKET_MAX: u32 = 16 << 20;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;
/// The one plugin of Pelorus' accounts.
const PLUGIN: &str = "caching_sha2_password";
/// Length of a nonce.
const NONCE: usize = 20;

/// What the server says first.
#[derive(Debug, PartialEq, Eq)]
pub struct Greeting {
    nonce: Vec<u8>,
    speaks_tls: bool,
}

/// Reads the greeting.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(packets: &mut Packets<S>) -> Result<Greeting> {
    let payload = packets.read().await.map_err(Error::io("log in"))?;
    refused(&payload)?;
    greeting(&payload).ok_or(Error::Protocol("the greeting"))
}

/// Asks for TLS; the connection is to be encrypted next.
pub async fn ask_for_tls<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    greeting: &Greeting,
) -> Result<()> {
    if !greeting.speaks_tls {
        return Err(Error::Protocol("a server without TLS"));
    }
    packets.write(&front(SSL)).await.map_err(Error::io("log in"))
}

/// The part of the answer that goes before encryption and again after it.
fn front(more: u32) -> Vec<u8> {
    let mut front = (CAPABILITIES | more).to_le_bytes().to_vec();
    front.extend(PACKET_MAX.to_le_bytes());
    front.push(CHARSET);
    front.extend([0; 23]);
    front
}

/// Protocol version 10; server version; thread; nonce; capabilities; character set; status; capabilities; length of the
/// nonce; the rest of it; plugin.
fn greeting(payload: &[u8]) -> Option<Greeting> {
    let mut bytes = Bytes(payload);
    (bytes.number(1)? == 10).then_some(())?;
    let version = bytes.0.iter().position(|byte| *byte == 0)?;
    bytes.take(version + 1 + 4)?;
    let mut nonce = bytes.take(8)?.to_vec();
    bytes.take(1)?;
    let low = bytes.number(2)?;
    bytes.take(1 + 2)?;
    let capabilities = low | bytes.number(2)? << 16;
    let speaks_tls = capabilities & u64::from(SSL) != 0;
    bytes.take(1 + 10)?;
    nonce.extend(bytes.take(NONCE - 8)?);
    Some(Greeting { nonce, speaks_tls })
}

/// Logs in on a connection that is encrypted, or a socket. `more`: capabilities that go with it.
pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    greeting: &Greeting,
    more: u32,
    Credentials { user, password }: &Credentials,
) -> Result<()> {
    let mut answer = front(more);
    answer.extend(user.as_bytes());
    answer.push(0);
    let scrambled = scramble(password, &greeting.nonce);
    answer.push(u8::try_from(scrambled.len()).unwrap_or_default());
    answer.extend(scrambled);
    answer.extend(PLUGIN.as_bytes());
    answer.push(0);
    packets.write(&answer).await.map_err(Error::io("log in"))?;
    loop {
        let payload = packets.read().await.map_err(Error::io("log in"))?;
        refused(&payload)?;
        match payload.as_slice() {
            [0, ..] => return Ok(()),
            // The password was in the server's cache; its OK follows.
            [1, 3] => {}
            // It was not: the connection is encrypted, so it may go as it is.
            [1, 4] => {
                packets.write(&[password.expose().as_bytes(), &[0]].concat()).await.map_err(Error::io("log in"))?;
            }
            [0xfe, switch @ ..] => {
                let nonce = switch.strip_prefix(PLUGIN.as_bytes()).and_then(|rest| rest.strip_prefix(&[0]));
                let nonce = nonce.and_then(|nonce| nonce.get(..NONCE)).ok_or(Error::Plugin(PLUGIN))?;
                packets.write(&scramble(password, nonce)).await.map_err(Error::io("log in"))?;
            }
            _ => return Err(Error::Protocol("the answer to the login")),
        }
    }
}

/// `SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce)`.
fn scramble(password: &Password, nonce: &[u8]) -> Vec<u8> {
    if password.expose().is_empty() {
        return Vec::new();
    }
    let once = Sha256::digest(password.expose());
    let twice = Sha256::digest(once);
    let mixed = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
    once.iter().zip(mixed).map(|(one, other)| one ^ other).collect()
}

/// An error packet: 0xff, code, `#`, SQL state, text.
pub fn refused(payload: &[u8]) -> Result<()> {
    let Some((0xff, rest)) = payload.split_first() else { return Ok(()) };
    let mut bytes = Bytes(rest);
    let code = bytes.number(2).and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    let text = bytes.0.strip_prefix(b"#").and_then(|rest| rest.get(5..)).unwrap_or(bytes.0);
    Err(Error::Server { code, text: String::from_utf8_lossy(text).into_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_greeting_and_error_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (greeting(&bytes), refused(&bytes));
            let _ = refused(&[&[0xff], bytes.as_slice()].concat());
        }
    }

    #[test]
    fn errors_are_read() {
        let error = refused(b"\xff\x15\x04#28000Access denied").unwrap_err();
        assert_eq!(error.to_string(), "the server refused: 1045 Access denied");
        refused(b"\0").unwrap();
    }
}
