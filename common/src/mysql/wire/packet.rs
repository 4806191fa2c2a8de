//! Packets of the client protocol: three bytes of length, one of sequence, the payload; one of the greatest length is
//! continued by the next. Whole ones for the login, and the payload of a stream of them as it comes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Length of a packet that the next one continues.
const FULL: usize = 0xff_ffff;
/// Longest packet of a login.
const SMALL: usize = 64 << 10;

/// Reads and writes packets of one connection.
#[derive(Debug)]
pub struct Packets<S> {
    stream: S,
    sequence: u8,
    /// Bytes of the current packet that were not read yet.
    left: usize,
    /// The current packet is continued by the next.
    goes_on: bool,
}

impl<S> Packets<S> {
    /// At the beginning of a packet.
    pub fn new(stream: S) -> Self {
        Self { stream, sequence: 0, left: 0, goes_on: false }
    }

    /// The connection below, and the number of the next packet on it.
    pub fn into_parts(self) -> (S, u8) {
        (self.stream, self.sequence)
    }

    /// On another connection, which goes on counting.
    pub fn continued(stream: S, sequence: u8) -> Self {
        Self { sequence, ..Self::new(stream) }
    }

    /// A new command begins: packets are counted from 0.
    pub fn begin(&mut self) {
        self.sequence = 0;
    }
}

impl<S: AsyncWrite + Unpin> Packets<S> {
    /// Writes one packet of less than 16 MiB.
    pub async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|length| (*length as usize) < FULL);
        let length = length.ok_or_else(|| io::Error::other("a packet is too long"))?;
        let [a, b, c, _] = length.to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload].concat();
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await
    }
}

impl<S: AsyncRead + Unpin> Packets<S> {
    async fn header(&mut self) -> io::Result<()> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let [a, b, c, sequence] = header;
        if sequence != self.sequence {
            return Err(io::Error::other(format!("packet {sequence} came instead of {}", self.sequence)));
        }
        self.sequence = sequence.wrapping_add(1);
        self.left = u32::from_le_bytes([a, b, c, 0]) as usize;
        self.goes_on = self.left == FULL;
        Ok(())
    }

    /// A whole, small packet.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        self.header().await?;
        if self.left > SMALL {
            return Err(io::Error::other(format!("a packet of {} bytes came where a small one belongs", self.left)));
        }
        self.rest().await
    }

    /// A whole packet of any length, and what continues it.
    pub async fn read_into(&mut self, payload: &mut Vec<u8>) -> io::Result<()> {
        payload.clear();
        loop {
            self.header().await?;
            let at = payload.len();
            payload.resize(at + self.left, 0);
            self.left = 0;
            self.stream.read_exact(payload.get_mut(at..).unwrap_or_default()).await?;
            if !self.goes_on {
                return Ok(());
            }
        }
    }

    /// Begins a packet of any length. How long it is, as far as that is known: a full one goes on.
    pub async fn next(&mut self) -> io::Result<usize> {
        self.header().await?;
        Ok(self.left)
    }

    /// The rest of a packet that does not go on.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; self.left];
        self.stream.read_exact(&mut payload).await?;
        self.left = 0;
        Ok(payload)
    }

    /// Fills a buffer from this packet and those that continue it.
    ///
    /// # Errors
    /// `UnexpectedEof` too when the packet ends before.
    pub async fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            if self.left == 0 {
                if !self.goes_on {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a packet ends within what it holds"));
                }
                self.header().await?;
                continue;
            }
            let count = self.left.min(buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            self.stream.read_exact(now).await?;
            self.left -= count;
            buffer = rest;
        }
        Ok(())
    }

    /// Whether all of the packet was read; an empty one may continue a full one.
    pub async fn is_read(&mut self) -> io::Result<bool> {
        if self.left == 0 && self.goes_on {
            self.header().await?;
        }
        Ok(self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use super::*;

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
        [&[a, b, c, sequence], payload].concat()
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let (mut here, there) = (Vec::new(), [7; 300]);
        Packets::new(&mut here).write(&there).await.unwrap();
        assert_eq!(here, packet(0, &there));
        assert_eq!(Packets::new(here.as_slice()).read().await.unwrap(), there);
    }

    #[tokio::test]
    async fn long_payloads_come_in_several_packets() {
        for more in [0_usize, 1, 5000] {
            let payload: Vec<u8> = (0..FULL + more).map(|at| (at % 251) as u8).collect();
            let (first, second) = payload.split_at(FULL);
            let bytes = [packet(0, first), packet(1, second), packet(2, b"next")].concat();
            let mut packets = Packets::new(bytes.as_slice());
            packets.next().await.unwrap();
            let mut read = vec![0; payload.len()];
            let (front, back) = read.split_at_mut(100);
            packets.fill(front).await.unwrap();
            packets.fill(back).await.unwrap();
            assert!(packets.is_read().await.unwrap());
            assert!(read == payload);
            assert_eq!(packets.read().await.unwrap(), b"next");
        }
    }

    #[tokio::test]
    async fn packets_out_of_order_and_short_ones_are_refused() {
        assert!(Packets::new(packet(1, b"x").as_slice()).read().await.is_err());
        let bytes = packet(0, b"xy");
        let mut packets = Packets::new(bytes.as_slice());
        packets.next().await.unwrap();
        assert!(packets.fill(&mut [0; 3]).await.is_err());
    }
}
