//! The pod's `/etc/hosts`: the replication source by its address, so that replicating from a new primary waits for no DNS.
//!
//! When a node is lost, DNS servers are lost with it, and for tens of seconds each lookup may hang for its five. The name
//! stays what the source's certificate is checked for; only the way to its address is shorter. The file is mounted from
//! the run directory, so it is written in place, never replaced. What it says is given up when nothing is reached there:
//! then DNS is asked as ever.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::instance::ReceiverState;

use crate::instance::Instance;

/// Pace of looking whether the source is reached.
const PACE: Duration = Duration::from_secs(1);
/// So often in a row it is not, and DNS is asked.
const PATIENCE: u32 = 3;

/// The file in the run directory.
pub fn path(run: &Path) -> PathBuf {
    run.join("hosts")
}

/// Makes the file, before it is mounted.
///
/// # Errors
/// The file cannot be written.
pub fn create(path: &Path) -> io::Result<()> {
    std::fs::write(path, text("", None))
}

fn text(own: &str, source: Option<(IpAddr, &str)>) -> String {
    let source = source.map(|(address, host)| format!("{address}\t{host}\n")).unwrap_or_default();
    format!("# Managed by Pelorus.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}{source}")
}

/// Names the source's address, or nobody's. Nothing to do where the file is not mounted.
pub fn point(instance: &Instance, source: Option<(IpAddr, &str)>) {
    let path = path(&instance.layout.run);
    let name = &instance.identity.name;
    let own = std::env::var("POD_IP").ok().filter(|ip| ip.parse::<IpAddr>().is_ok());
    let own = own.map(|ip| format!("{ip}\t{name}\n")).unwrap_or_default();
    if let Err(error) = write(&path, &text(&own, source))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "could not write {}", path.display());
    }
}

/// In place, and never empty for a moment.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let before = std::fs::read(path)?;
    if before == text.as_bytes() {
        return Ok(());
    }
    let file = File::options().write(true).open(path)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Gives an address up that is not reached.
pub async fn watch(instance: Arc<Instance>) {
    let mut misses = 0;
    loop {
        tokio::time::sleep(PACE).await;
        let connecting = instance.look(|facts| {
            let replication = facts.mysqld.as_ref().and_then(|(state, _)| state.replication.as_ref());
            replication.is_some_and(|replication| replication.receiver == ReceiverState::Connecting)
        });
        misses = if connecting { misses + 1 } else { 0 };
        if misses == PATIENCE {
            point(&instance, None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{create, text, write};

    #[test]
    fn the_file_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        assert!(write(&path, "x").is_err(), "it is not made where it is not mounted");
        create(&path).unwrap();
        let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&path);
        let long = text("10.0.0.2\tdb-0\n", Some(("10.0.0.1".parse().unwrap(), "db-1.db.ns.svc")));
        write(&path, &long).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), long);
        assert!(long.ends_with("10.0.0.2\tdb-0\n10.0.0.1\tdb-1.db.ns.svc\n"));
        write(&path, &text("", None)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text("", None));
        assert_eq!(inode(&path), before);
    }
}
