//! Files in the data volume that say what the data is worth.
//!
//! ```text
//! <volume>/data/             the data directory of mysqld
//! <volume>/provisioned.json  made last by a provisioning: without it the data directory is garbage
//! <volume>/promise.json      highest epoch obeyed and what it made of this instance (invariant 3)
//! <volume>/lock             held by instance-d and the mysqld that it started
//! <volume>/clean             the last stop was clean; removed before mysqld starts
//! <volume>/started.json      the last binlog when mysqld was last started: what is in it may be committed since
//! <volume>/rewind.json       a tail is being cut off; until it is gone every start goes on with that first
//! <volume>/errant.json       foreign transactions that could not be cut off: the data is not to be served
//! <volume>/rewound.json      the last tail that was cut off
//! <volume>/rewound/          copies of what was cut off or is to be thrown away
//! ```
//!
//! Every write is durable when the function returns: temporary file, fsync, rename, fsync of the directory.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::instance::{Disk, Epoch, Restored, Rewound, Role};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decide::OrderKind;
use crate::error::{Error, Result};
use crate::rewind::{Condemned, Intent};

/// Ending of files that are being written.
pub const TEMPORARY: &str = ".new";

/// What this instance has promised, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Promise {
    /// Highest epoch obeyed.
    pub epoch: Epoch,
    /// What the last obeyed order made of the instance.
    pub role: Role,
    /// Which order that was; none of a primary: it declined a demotion of this epoch.
    pub order: Option<OrderKind>,
    /// The data may hold transactions that nobody acknowledged: a primary's binlog whose tail was never proven.
    pub tail_unproven: bool,
    /// Everything in the relay log is executed, and the channel is being reset: when mysqld dies over that, the channel
    /// cannot be read any more, and nothing is lost with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channel_spent: bool,
}

impl Default for Promise {
    fn default() -> Self {
        Self { epoch: 0, role: Role::None, order: None, tail_unproven: false, channel_spent: false }
    }
}

/// Proof that a provisioning was completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioned {
    /// Random name of the data.
    pub data_id: String,
    /// UID of the MySQLCluster that the data belongs to.
    pub cluster_uid: String,
    /// It was made from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The volume is ours for as long as this, or a mysqld that was started meanwhile, lives.
#[derive(Debug)]
pub struct VolumeLock(#[allow(dead_code, reason = "held, never read")] File);

/// The data volume.
#[derive(Clone, Debug)]
pub struct Volume {
    root: PathBuf,
}

impl Volume {
    /// A volume at its mount point.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Takes the volume. Kubernetes may start a new pod on it while the last processes of a pod that was deleted by force
    /// still run: whoever holds the lock is the only one that touches the data. mysqld inherits it, so it is free only
    /// when both are gone. `None`: somebody else holds it.
    pub fn lock(&self) -> Result<Option<VolumeLock>> {
        let path = self.root.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                tracing::warn!(%error, "this file system has no locks: two pods on one volume would not be noticed");
            }
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", path)(error)),
        }
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))
            .map_err(|errno| Error::file("keep open over exec", &path)(errno.into()))?;
        Ok(Some(VolumeLock(file)))
    }

    /// The promise; nothing promised when there is no file.
    pub fn promise(&self) -> Result<Promise> {
        Ok(read_json(&self.root.join("promise.json"))?.unwrap_or_default())
    }

    /// Persists a promise. Nothing may be done about an order before this returns.
    pub fn save_promise(&self, promise: &Promise) -> Result<()> {
        self.write_json("promise.json", promise)
    }

    /// What was provisioned, if that was completed.
    pub fn provisioned(&self) -> Result<Option<Provisioned>> {
        read_json(&self.root.join("provisioned.json"))
    }

    /// Makes everything in the volume durable, then says that the data directory is complete.
    pub fn finish_provisioning(&self, provisioned: &Provisioned) -> Result<()> {
        let volume = File::open(&self.root).map_err(Error::file("open", &self.root))?;
        nix::unistd::syncfs(&volume)
            .map_err(|errno| Error::file("sync the file system of", &self.root)(errno.into()))?;
        self.write_json("provisioned.json", provisioned)
    }

    /// A cut that was begun and not seen through.
    pub fn intent(&self) -> Result<Option<Intent>> {
        read_json(&self.root.join("rewind.json"))
    }

    /// Persists what is about to be cut off. Nothing may be cut before this returns.
    pub fn save_intent(&self, intent: &Intent) -> Result<()> {
        self.write_json("rewind.json", intent)
    }

    /// The cut was seen through, or was never made.
    pub fn forget_intent(&self) -> Result<()> {
        self.forget("rewind.json")
    }

    /// Foreign transactions that keep this data from being served.
    pub fn condemned(&self) -> Result<Option<Condemned>> {
        read_json(&self.root.join("errant.json"))
    }

    /// Persists them.
    pub fn save_condemned(&self, condemned: &Condemned) -> Result<()> {
        self.write_json("errant.json", condemned)
    }

    /// There are none any more.
    pub fn forget_condemned(&self) -> Result<()> {
        self.forget("errant.json")
    }

    /// The last rewind.
    pub fn rewound(&self) -> Result<Option<Rewound>> {
        read_json(&self.root.join("rewound.json"))
    }

    /// Persists it.
    pub fn save_rewound(&self, rewound: &Rewound) -> Result<()> {
        self.write_json("rewound.json", rewound)
    }

    /// Where copies of thrown-away transactions are.
    pub fn saved_dir(&self) -> PathBuf {
        self.root.join("rewound")
    }

    fn forget(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        if path.exists() {
            remove(&path)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Throws the data away: first the proof, then the files. What was saved of it stays.
    pub fn wipe(&self) -> Result<()> {
        for name in ["provisioned.json", "clean", "started.json", "rewind.json", "errant.json"] {
            remove(&self.root.join(name))?;
        }
        self.sync()?;
        for name in ["data", "tmp"] {
            let path = self.root.join(name);
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("remove", path)(error)),
            }
        }
        self.sync()
    }

    /// Whether the last stop of mysqld was clean.
    pub fn is_clean(&self) -> bool {
        self.root.join("clean").exists()
    }

    /// From here on mysqld may be running, and `binlog` is what its crash recovery goes by.
    pub fn mark_running(&self, binlog: Option<&str>) -> Result<()> {
        self.write_json("started.json", &binlog)?;
        remove(&self.root.join("clean"))?;
        self.sync()
    }

    /// Name of the last binlog file when mysqld was last started.
    pub fn started_on(&self) -> Result<Option<String>> {
        Ok(read_json::<Option<String>>(&self.root.join("started.json"))?.flatten())
    }

    /// mysqld stopped cleanly.
    pub fn mark_clean(&self) -> Result<()> {
        self.write("clean", b"")
    }

    /// Makes the empty scratch directory for large sorts.
    pub fn fresh_tmp(&self) -> Result<()> {
        let path = self.root.join("tmp");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file("remove", path)(error)),
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("create", path))
    }

    /// Space, as an unprivileged process sees it.
    pub fn disk(&self) -> Disk {
        nix::sys::statvfs::statvfs(&self.root).map_or_else(
            |_| Disk::default(),
            |stat| Disk {
                free_bytes: stat.blocks_available() * stat.fragment_size(),
                total_bytes: stat.blocks() * stat.fragment_size(),
            },
        )
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.root.join(name);
        let text = serde_json::to_vec(value).map_err(|source| Error::Json { path, source })?;
        self.write(name, &text)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        durably(&self.root, name, |file| file.write_all(content).map_err(Error::file("write", self.root.join(name))))
    }

    fn sync(&self) -> Result<()> {
        sync_dir(&self.root)
    }
}

/// Makes or replaces a file so that after a crash there is the old one or the new one, whole.
pub fn durably(dir: &Path, name: &str, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}{TEMPORARY}"));
    let mut file = File::create(&temporary).map_err(Error::file("create", &temporary))?;
    fill(&mut file)?;
    file.sync_all().map_err(Error::file("sync", &temporary))?;
    fs::rename(&temporary, &path).map_err(Error::file("rename to", &path))?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(Error::file("sync", dir))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Removes a file that may be gone already.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a file that only this user may read, replacing an older one.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    remove(path)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.write_all(content.as_bytes()).map_err(Error::file("write", path))
}

/// Copies this program to `path`, executable for everybody (the init container's job).
pub fn install(path: &Path) -> Result<()> {
    let own = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    let temporary = path.with_extension("new");
    fs::copy(&own, &temporary).map_err(Error::file("copy to", &temporary))?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))
        .map_err(Error::file("set mode of", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::file("rename to", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Promise, Provisioned, Volume};
    use crate::decide::OrderKind;
    use common::instance::Role;

    #[test]
    fn a_promise_survives() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new(dir.path().to_owned());
        assert_eq!(volume.promise().unwrap(), Promise::default());
        let promise = Promise {
            epoch: 7,
            role: Role::Primary { acks_needed: 1, struck: vec![3] },
            order: Some(OrderKind::Promote),
            tail_unproven: true,
            channel_spent: true,
        };
        volume.save_promise(&promise).unwrap();
        assert_eq!(Volume::new(dir.path().to_owned()).promise().unwrap(), promise);
    }

    #[test]
    fn wiping_takes_the_proof_and_leaves_the_promise() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new(dir.path().to_owned());
        volume.save_promise(&Promise { epoch: 3, ..Promise::default() }).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let provisioned = Provisioned { data_id: "d".into(), cluster_uid: "u".into(), restored: None };
        volume.finish_provisioning(&provisioned).unwrap();
        assert_eq!(volume.provisioned().unwrap(), Some(provisioned));
        volume.wipe().unwrap();
        assert_eq!(volume.provisioned().unwrap(), None);
        assert!(!dir.path().join("data").exists());
        assert_eq!(volume.promise().unwrap().epoch, 3);
    }

    #[test]
    fn the_volume_is_taken_once_and_is_free_when_all_who_inherited_it_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new(dir.path().to_owned());
        let held = volume.lock().unwrap().unwrap();
        assert!(volume.lock().unwrap().is_none());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(held);
        assert!(volume.lock().unwrap().is_none(), "the child inherited it");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(volume.lock().unwrap().is_some());
    }

    #[test]
    fn a_damaged_promise_is_an_error_not_a_blank_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("promise.json"), "{").unwrap();
        assert!(Volume::new(dir.path().to_owned()).promise().is_err());
    }
}
