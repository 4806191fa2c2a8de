//! Reads a binlog file event by event, in constant memory, and says how it ends.
//!
//! ```text
//! file   = magic, format description, event...          event = header (19 bytes), body, CRC32 if the file has them
//! header = time 4, type 1, server 4, size 4, end position 4 (low half), flags 2
//! ```
//!
//! A crash leaves a file that ends within an event, or in zeros: [`Ending::Torn`]. Anything else that is no event is
//! [`Ending::Damaged`]: nobody can say what came after it. Checksums and positions are verified.

use std::io::{self, Read};

use crc32fast::Hasher;

use super::content::{Content, HEADER, Header, Told, content, kind};

/// First bytes of a binlog.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// First bytes of an encrypted one.
const MAGIC_ENCRYPTED: [u8; 4] = [0xfd, b'b', b'i', b'n'];
/// Length of a checksum.
const CRC: usize = 4;
/// Flag of the format description: the file was not closed.
pub const IN_USE: u8 = 1;
/// Where that flag is in the file: after the magic, at byte 17 of the header.
pub const IN_USE_AT: u64 = 4 + 17;

/// The header of an event as it is in a file that was closed: a format description says whether it was, and is the only event that
/// changes. Its checksum is of this form, and does not.
pub fn closed(mut header: [u8; HEADER], kind: u8) -> [u8; HEADER] {
    if kind == kind::FORMAT {
        let [.., flags, _] = &mut header;
        *flags &= !IN_USE;
    }
    header
}

/// One event and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// First byte.
    pub position: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it says.
    pub content: Content,
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After an event.
    Whole,
    /// Within an event, or in zeros.
    Torn,
    /// With what is no event, and more after it.
    Damaged(String),
    /// It is encrypted: nothing is known of it.
    Encrypted,
}

/// Next event, or the end of what can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// An event.
    Event(Event),
    /// No more, from this position on.
    End(u64, Ending),
}

/// Reads events of a file whose length is known.
#[derive(Debug)]
pub struct Events<R> {
    reader: R,
    length: u64,
    position: u64,
    checksums: bool,
}

impl<R: Read> Events<R> {
    /// At the start of a file.
    pub fn new(reader: R, length: u64) -> Self {
        Self { reader, length, position: 0, checksums: false }
    }

    /// The next event. After an end there is nothing more to ask.
    ///
    /// # Errors
    /// Those of reading; a file that became shorter meanwhile is one.
    pub fn event(&mut self) -> io::Result<Next> {
        if self.position == 0
            && let Some(ending) = self.magic()?
        {
            return Ok(Next::End(0, ending));
        }
        let position = self.position;
        let remaining = self.length.saturating_sub(position);
        if remaining == 0 {
            return Ok(Next::End(position, Ending::Whole));
        }
        if remaining < HEADER as u64 {
            return Ok(Next::End(position, Ending::Torn));
        }
        let mut raw = [0; HEADER];
        self.reader.read_exact(&mut raw)?;
        let Some(header) = Header::parse(&raw) else {
            return self.damaged(position, remaining - HEADER as u64, "an event without a header");
        };
        if header.is_zero {
            return self.damaged(position, remaining - HEADER as u64, "zeros with something after them");
        }
        let crc = if header.kind == kind::FORMAT || self.checksums { CRC as u64 } else { 0 };
        let end = position.saturating_add(header.size);
        if header.size < HEADER as u64 + crc || header.end_low != (end & u64::from(u32::MAX)) {
            let what = format!("an event of {} bytes that says to end at {}", header.size, header.end_low);
            return Ok(Next::End(position, Ending::Damaged(what)));
        }
        if end > self.length {
            return Ok(Next::End(position, Ending::Torn));
        }
        let length = header.size - HEADER as u64 - crc;
        let mut body = Body::new(&mut self.reader, length, &raw, header.kind);
        let content = content(header.kind, &mut body, length);
        let body_crc = body.finish()?;
        if header.kind == kind::FORMAT
            && let Ok(Told::Format(checksums)) = &content
        {
            self.checksums = *checksums;
        }
        if crc > 0 {
            let mut stored = [0; CRC];
            self.reader.read_exact(&mut stored)?;
            if u32::from_le_bytes(stored) != body_crc {
                return self.damaged(position, self.length - end, "a checksum that does not fit");
            }
        }
        self.position = end;
        let content = match content? {
            Told::Format(_) => Content::Format,
            Told::Content(content) => content,
            Told::Strange(what) => return Ok(Next::End(position, Ending::Damaged(what.to_owned()))),
        };
        Ok(Next::Event(Event { position, end, content }))
    }

    fn magic(&mut self) -> io::Result<Option<Ending>> {
        if self.length < MAGIC.len() as u64 {
            return Ok(Some(Ending::Torn));
        }
        let mut magic = [0; MAGIC.len()];
        self.reader.read_exact(&mut magic)?;
        self.position = MAGIC.len() as u64;
        Ok(match magic {
            MAGIC => None,
            MAGIC_ENCRYPTED => Some(Ending::Encrypted),
            _ => Some(Ending::Damaged("no binlog".to_owned())),
        })
    }

    /// What is wrong at `position` is the mark of a crash when nothing but zeros follows in the last `rest` bytes.
    fn damaged(&mut self, position: u64, rest: u64, what: &str) -> io::Result<Next> {
        let mut left = rest;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = buffer.get_mut(..count).unwrap_or_default();
            self.reader.read_exact(chunk)?;
            if chunk.iter().any(|byte| *byte != 0) {
                return Ok(Next::End(position, Ending::Damaged(what.to_owned())));
            }
            left -= count as u64;
        }
        Ok(Next::End(position, Ending::Torn))
    }
}

/// The body of one event: nobody reads past it, and everything read is summed.
struct Body<'a, R> {
    reader: &'a mut R,
    left: u64,
    hasher: Hasher,
    error: Option<io::Error>,
}

impl<'a, R: Read> Body<'a, R> {
    fn new(reader: &'a mut R, left: u64, header: &[u8; HEADER], kind: u8) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&closed(*header, kind));
        Self { reader, left, hasher, error: None }
    }

    /// Reads what nobody looked at. The checksum of header and body.
    fn finish(mut self) -> io::Result<u32> {
        let drained = io::copy(&mut self, &mut io::sink());
        match self.error {
            Some(error) => Err(error),
            None => drained.map(|_| self.hasher.finalize()),
        }
    }
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = match self.reader.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            done => done,
        };
        match count {
            Ok(count) => {
                self.hasher.update(buffer.get(..count).unwrap_or_default());
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.error = Some(io::Error::new(error.kind(), error.to_string()));
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
