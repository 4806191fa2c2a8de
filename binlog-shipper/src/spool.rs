//! Received bytes on their way to the archive: each binlog file as it is on its server, at the same offsets.
//!
//! A cache and no more: what is lost here is asked for again, and what a former process left is removed. Bytes that are in the
//! archive are given back to the file system (a hole is punched), so a spool is as large as what waits.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};

/// Holes are punched in whole blocks.
const BLOCK: u64 = 4096;

/// A folder for files on their way.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// An empty folder; what is in it goes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(folder: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => fs::create_dir_all(folder)?,
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// An empty file; one of that name goes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(&self, name: &str) -> io::Result<Spooled> {
        let path = self.folder.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Spooled(Arc::new(OnDisk { file, path })))
    }
}

/// A file that goes when nobody needs it any more.
#[derive(Debug)]
struct OnDisk {
    file: File,
    path: PathBuf,
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.path.display(), "a file of the spool stays behind");
        }
    }
}

/// One file on its way; it goes with its last handle.
#[derive(Clone, Debug)]
pub struct Spooled(Arc<OnDisk>);

impl Spooled {
    /// Writes bytes to where they are on the server.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(bytes, offset)
    }

    /// The bytes from `first` to before `last`.
    pub fn range(&self, first: u64, last: u64) -> Range {
        Range { spooled: self.clone(), at: first, last }
    }

    /// Gives everything before `last` back to the file system; it is not read again.
    ///
    /// # Errors
    /// Those of the file system. One that knows no holes is none: the bytes go with the file.
    pub fn forget(&self, last: u64) -> io::Result<()> {
        let length = i64::try_from(last / BLOCK * BLOCK).unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.0.file, hole, 0, length) {
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Some bytes of a file.
#[derive(Debug)]
pub struct Range {
    spooled: Spooled,
    at: u64,
    last: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.last - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        match self.spooled.0.file.read_at(buffer, self.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.at += count as u64;
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_until_it_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("left"), "by a former process").unwrap();
        let spool = Spool::new(home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        let spooled = spool.open("binlog.000001").unwrap();
        spooled.write(0, &vec![1; 100_000]).unwrap();
        spooled.write(200_000, &[2; 50]).unwrap();
        let read = |first, last| {
            let mut bytes = Vec::new();
            spooled.range(first, last).read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(99_990, 100_000).unwrap(), [1; 10]);
        assert_eq!(read(200_000, 200_050).unwrap(), [2; 50]);
        assert!(read(200_000, 200_051).is_err(), "what was not received is not read as nothing");
        spooled.forget(100_000).unwrap();
        assert_eq!(read(200_000, 200_050).unwrap(), [2; 50]);
        let path = home.path().join("binlog.000001");
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 50_000);
        let range = spooled.range(200_000, 200_050);
        drop(spooled);
        assert!(path.exists(), "somebody reads it");
        drop(range);
        assert!(!path.exists());
    }
}
