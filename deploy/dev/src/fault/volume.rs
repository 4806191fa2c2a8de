//! Volumes that are full, that stall, that break.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

use crate::{
    cluster::Cluster,
    command,
    error::{Error, Result},
    volume::{Kind, Volume},
};

use super::{Fault, forget, record, recorded};

/// The file that takes the room. It lies at the top of the volume, outside the data directory.
const FILLER: &str = ".pelorus-filler";

fn filler(cluster: &Cluster, namespace: &str, claim: &str) -> Result<PathBuf> {
    Ok(cluster.volume_folder(namespace, claim)?.join(FILLER))
}

/// Fills the volume of a claim until `leave` bytes are free. Only volumes that enforce their size can be filled.
pub fn fill_volume(cluster: &Cluster, namespace: &str, claim: &str, leave: u64) -> Result<()> {
    own_file_system(cluster, namespace, claim, "filled")?;
    record(cluster, &Fault::Filled { namespace: namespace.into(), claim: claim.into() })?;
    let path = filler(cluster, namespace, claim)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    for _ in 0..10 {
        let room = free(folder)?.saturating_sub(leave);
        if room < 4096 {
            return Ok(());
        }
        // Beyond what is there; the last blocks go to the file system's own records, so try a little less then.
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        let take = (0..16).map(|halvings| room >> halvings).find(|take| {
            let (offset, length) = (size.to_string(), take.max(&4096).to_string());
            command::run("fallocate", [Path::new("-o"), offset.as_ref(), Path::new("-l"), length.as_ref(), &path])
                .is_ok()
        });
        if take.is_none() {
            break;
        }
    }
    if leave > 0 {
        return Ok(());
    }
    // What fallocate would not take, byte by byte until the kernel says ENOSPC.
    let mut file = File::options().append(true).create(true).open(&path).map_err(Error::file("open", &path))?;
    while file.write_all(&[0; 4096]).is_ok() {}
    let _ = file.sync_all();
    Ok(())
}

/// Folder of a volume that is a file system of its own: to plain folders none of this can be done alone.
fn own_file_system(cluster: &Cluster, namespace: &str, claim: &str, what: &str) -> Result<PathBuf> {
    if Volume::of_claim(&cluster.paths, namespace, claim)?.kind == Kind::Folder {
        return Err(Error::Invalid(format!(
            "the volume of {namespace}/{claim} is a plain folder; only those of StorageClass sized can be {what}"
        )));
    }
    cluster.volume_folder(namespace, claim)
}

/// Lets every write to a volume wait, as a disk that hangs does. Reads of what is cached go on. A process that waits cannot be killed before
/// the volume is thawed.
pub fn freeze_volume(cluster: &Cluster, namespace: &str, claim: &str) -> Result<()> {
    let folder = own_file_system(cluster, namespace, claim, "frozen")?;
    let fault = Fault::VolumeFrozen { namespace: namespace.into(), claim: claim.into() };
    if recorded(cluster, &fault.identity()).is_some() {
        return Ok(());
    }
    record(cluster, &fault)?;
    let done = command::run("fsfreeze", [Path::new("-f"), &folder]).map(drop);
    done.inspect_err(|_| drop(forget(cluster, &fault.identity())))
}

/// Lets writes to a volume go on. A volume that is gone meanwhile is no error.
pub fn thaw_volume(cluster: &Cluster, namespace: &str, claim: &str) -> Result<()> {
    let identity = Fault::VolumeFrozen { namespace: namespace.into(), claim: claim.into() }.identity();
    if recorded(cluster, &identity).is_none() {
        return Ok(());
    }
    if let Ok(folder) = cluster.volume_folder(namespace, claim) {
        match command::run("fsfreeze", [Path::new("-u"), &folder]) {
            // Mounted anew meanwhile, with a node that was powered off for instance: not frozen.
            Err(Error::Command { output, .. }) if output.contains("Invalid argument") => {}
            other => drop(other?),
        }
    }
    forget(cluster, &identity)
}

/// Breaks a volume for good: whatever is asked of its file system fails with an input/output error, as after an error of the disk. Not undone
/// by [`super::heal`]: such a disk is replaced, by deleting the claim.
pub fn break_volume(cluster: &Cluster, namespace: &str, claim: &str) -> Result<()> {
    let folder = own_file_system(cluster, namespace, claim, "broken")?;
    command::run("xfs_io", [Path::new("-x"), Path::new("-c"), Path::new("shutdown"), &folder]).map(drop)
}

#[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
fn free(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder).map_err(|source| Error::file("look at the room of", folder)(source.into()))?;
    Ok(u64::from(stat.blocks_available()) * u64::from(stat.fragment_size()))
}

/// Gives the room back. A volume that is gone meanwhile is no error.
pub fn unfill_volume(cluster: &Cluster, namespace: &str, claim: &str) -> Result<()> {
    let identity = Fault::Filled { namespace: namespace.into(), claim: claim.into() }.identity();
    if let Ok(path) = filler(cluster, namespace, claim) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", path)(error));
            }
            _ => {}
        }
    }
    forget(cluster, &identity)
}
