//! A connection of our own, for what has to go fast or as it is: streams of events, rows as the server sends them, and rows for
//! `LOAD DATA LOCAL`. Everything else goes through [`Session`](super::Session).
//!
//! ```text
//! connect -> greeting -> TLS (TCP only) -> caching_sha2_password -> COM_QUERY: rows as they come | a file of ours | OK
//! ```
//!
//! No value is taken apart: a row is the bytes that came, see [`Values`].

mod error;
mod login;
mod packet;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub use self::error::{Error, Result};
pub use self::login::refused;
pub use self::packet::Packets;
use super::{Ca, Credentials, Endpoint};
use crate::tls;

/// Longest wait for a connection, its login included.
const CONNECT: Duration = Duration::from_secs(5);
/// Read from the connection at once: a decrypted record, and room for small packets.
const BUFFER: usize = 64 << 10;
/// Bytes of a file in one packet.
const PIECE: usize = 1 << 20;
/// `COM_QUERY`.
const QUERY: u8 = 3;

/// What packets go over: TLS or a socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> Stream for S {}

/// Packets of a connection that is logged in.
pub type Logged = Packets<BufReader<Box<dyn Stream>>>;

/// Logs in over TCP and TLS.
///
/// # Errors
/// Those of the connection and the server's.
pub async fn log_in(
    (host, port): (&str, u16),
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
    credentials: &Credentials,
) -> Result<Logged> {
    let connect = async {
        let plain = TcpStream::connect((host, port)).await.map_err(Error::io("connect"))?;
        plain.set_nodelay(true).map_err(Error::io("connect"))?;
        let mut packets = Packets::new(plain);
        let greeting = login::greet(&mut packets).await?;
        login::ask_for_tls(&mut packets, &greeting).await?;
        let (plain, sequence) = packets.into_parts();
        let encrypted = TlsConnector::from(tls).connect(name, plain).await;
        let stream: Box<dyn Stream> = Box::new(encrypted.map_err(Error::io("encrypt the connection"))?);
        let mut packets = Packets::continued(BufReader::with_capacity(BUFFER, stream), sequence);
        login::log_in(&mut packets, &greeting, login::SSL, credentials).await?;
        Ok(packets)
    };
    timeout(CONNECT, connect).await.map_err(|_| Error::Silence { what: "connect", after: CONNECT })?
}

/// A connection for one statement at a time.
#[derive(Debug)]
pub struct Connection {
    packets: Logged,
    row: Vec<u8>,
}

impl Connection {
    /// Logs in.
    ///
    /// # Errors
    /// Those of the connection and the server's.
    pub async fn connect(endpoint: &Endpoint, credentials: &Credentials) -> Result<Self> {
        let packets = match endpoint {
            Endpoint::Tcp { host, port, tls } => {
                let authority = match &tls.ca {
                    Ca::Pem(pem) => pem.clone(),
                    Ca::File(path) => std::fs::read_to_string(path).map_err(Error::io("read the authority"))?,
                };
                let config = Arc::new(tls::trusting(&authority)?);
                log_in((host, *port), config, tls::server_name(&tls.server_name)?, credentials).await?
            }
            Endpoint::Socket(path) => {
                let connect = async {
                    let plain = UnixStream::connect(path).await.map_err(Error::io("connect"))?;
                    let stream: Box<dyn Stream> = Box::new(plain);
                    let mut packets = Packets::new(BufReader::with_capacity(BUFFER, stream));
                    let greeting = login::greet(&mut packets).await?;
                    login::log_in(&mut packets, &greeting, 0, credentials).await?;
                    Ok::<_, Error>(packets)
                };
                timeout(CONNECT, connect).await.map_err(|_| Error::Silence { what: "connect", after: CONNECT })??
            }
        };
        Ok(Self { packets, row: Vec::new() })
    }

    /// A statement without a result.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&mut self, statement: &str) -> Result<()> {
        execute(&mut self.packets, statement).await
    }

    /// Asks; the rows are taken with [`Connection::row`], all of them, before anything else is asked.
    ///
    /// # Errors
    /// The server's.
    pub async fn query(&mut self, statement: &str) -> Result<()> {
        ask(&mut self.packets, statement).await?;
        let first = self.packets.read().await.map_err(Error::io("ask"))?;
        refused(&first)?;
        let mut values = Values(&first);
        let columns = values.number().filter(|columns| *columns > 0).ok_or(Error::Protocol("the answer to a query"))?;
        // A definition each, and their end.
        for _ in 0..=columns {
            refused(&self.packets.read().await.map_err(Error::io("ask"))?)?;
        }
        Ok(())
    }

    /// The next row as it came: its values one after the other. `None` after the last.
    ///
    /// # Errors
    /// The server's, in the middle of the rows.
    pub async fn row(&mut self) -> Result<Option<Values<'_>>> {
        self.packets.read_into(&mut self.row).await.map_err(Error::io("read a row"))?;
        match self.row.first() {
            Some(0xff) => {
                refused(&self.row)?;
                Err(Error::Protocol("a row"))
            }
            Some(0xfe) if self.row.len() < 9 => Ok(None),
            Some(_) => Ok(Some(Values(&self.row))),
            None => Err(Error::Protocol("a row")),
        }
    }

    /// `LOAD DATA LOCAL` of what `next` gives until it gives nothing; how many rows the server took.
    ///
    /// # Errors
    /// The server's, and those of `next`, as whatever the caller makes of them.
    pub async fn load<E: From<Error>>(
        &mut self,
        statement: &str,
        mut next: impl AsyncFnMut() -> Result<Option<bytes::Bytes>, E>,
    ) -> Result<u64, E> {
        ask(&mut self.packets, statement).await?;
        let wanted = self.packets.read().await.map_err(Error::io("load"))?;
        refused(&wanted)?;
        if wanted.first() != Some(&0xfb) {
            return Err(Error::Protocol("the answer to LOAD DATA LOCAL").into());
        }
        while let Some(bytes) = next().await? {
            for piece in bytes.chunks(PIECE) {
                self.packets.write(piece).await.map_err(Error::io("load"))?;
            }
        }
        self.packets.write(&[]).await.map_err(Error::io("load"))?;
        let done = self.packets.read().await.map_err(Error::io("load"))?;
        refused(&done)?;
        let rows = done.split_first().filter(|(kind, _)| **kind == 0).and_then(|(_, rest)| Values(rest).number());
        Ok(rows.ok_or(Error::Protocol("the end of LOAD DATA LOCAL"))?)
    }
}

async fn ask(packets: &mut Logged, statement: &str) -> Result<()> {
    packets.begin();
    packets.write(&[&[QUERY], statement.as_bytes()].concat()).await.map_err(Error::io("ask"))
}

/// A statement that has no result.
///
/// # Errors
/// The server's.
pub async fn execute(packets: &mut Logged, statement: &str) -> Result<()> {
    ask(packets, statement).await?;
    let payload = packets.read().await.map_err(Error::io("execute a statement"))?;
    refused(&payload)?;
    if payload.first() == Some(&0) { Ok(()) } else { Err(Error::Protocol("the answer to a statement")) }
}

/// The values of a row of the text protocol, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a>(pub &'a [u8]);

impl<'a> Values<'a> {
    fn split(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    /// A length-encoded integer.
    pub fn number(&mut self) -> Option<u64> {
        let [first] = *self.split(1)? else { return None };
        let wide = match first {
            0..=0xfa => return Some(u64::from(first)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            0xfb | 0xff => return None,
        };
        let mut number = [0; 8];
        number.get_mut(..wide)?.copy_from_slice(self.split(wide)?);
        Some(u64::from_le_bytes(number))
    }

    /// The next value; the inner `None` is NULL, the outer one the end, or bytes that are no values.
    #[allow(clippy::option_option)]
    pub fn value(&mut self) -> Option<Option<&'a [u8]>> {
        if let Some((0xfb, rest)) = self.0.split_first() {
            self.0 = rest;
            return Some(None);
        }
        let length = usize::try_from(self.number()?).ok()?;
        self.split(length).map(Some)
    }

    /// Whether all were taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Values;

    #[test]
    fn values_are_taken_one_after_the_other() {
        let long = vec![b'x'; 300];
        let row = [&[1, b'a', 0xfb, 0, 0xfc, 44, 1], long.as_slice(), &[0xfd, 1, 0, 0, b'z']].concat();
        let mut values = Values(&row);
        assert_eq!(values.value(), Some(Some(b"a".as_slice())));
        assert_eq!(values.value(), Some(None));
        assert_eq!(values.value(), Some(Some(b"".as_slice())));
        assert_eq!(values.value(), Some(Some(long.as_slice())));
        assert_eq!(values.value(), Some(Some(b"z".as_slice())));
        assert!(values.is_empty());
        assert_eq!(values.value(), None);
        assert_eq!(Values(&[5, b'a']).value(), None);
        assert_eq!(Values(&[0xff]).value(), None);
    }
}
