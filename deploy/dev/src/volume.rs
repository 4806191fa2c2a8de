//! Volumes on the host's disk: a plain folder, or a file system of its own on a loop device.
//!
//! ```text
//! volumes/<name>.json      what it is and whose
//! volumes/<name>/          its content (the folder, or where the file system is mounted)
//! volumes/<name>.img       the file system, for sized ones
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cache::set_mode,
    command,
    error::{Error, Result},
    mounts,
    paths::Paths,
};

/// Below this mkfs.xfs wants to be told that we mean it: 300 MiB. Disk-full tests do.
const XFS_SUPPORTED: u64 = 300 << 20;

/// How a volume is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A folder; its size is not enforced.
    Folder,
    /// xfs on a loop device. (ext4 grows online only for holders of CAP_SYS_RESOURCE, which containers and small virtual machines lack.)
    Sized,
}

impl Kind {
    /// From the parameter `kind` of a StorageClass.
    pub fn of_class(kind: &str) -> Result<Self> {
        match kind {
            "folder" => Ok(Self::Folder),
            "sized" => Ok(Self::Sized),
            _ => {
                Err(Error::Invalid(format!("kind {kind:?} in the parameters of the storage class means nothing here")))
            }
        }
    }
}

/// A volume, as recorded beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Name of the PersistentVolume.
    pub name: String,
    /// How it is kept.
    pub kind: Kind,
    /// Its size in bytes.
    pub bytes: u64,
    /// Namespace of the claim it was made for.
    pub namespace: String,
    /// Name of that claim.
    pub claim: String,
}

impl Volume {
    /// Where the content is.
    pub fn folder(&self, paths: &Paths) -> PathBuf {
        paths.volumes().join(&self.name)
    }

    fn image(&self, paths: &Paths) -> PathBuf {
        paths.volumes().join(format!("{}.img", self.name))
    }

    fn record(paths: &Paths, name: &str) -> PathBuf {
        paths.volumes().join(format!("{name}.json"))
    }

    /// The recorded volume of that name.
    pub fn load(paths: &Paths, name: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::record(paths, name)).ok()?).ok()
    }

    /// All recorded volumes.
    pub fn all(paths: &Paths) -> Vec<Self> {
        let entries = fs::read_dir(paths.volumes()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::load(paths, entry.file_name().to_str()?.strip_suffix(".json")?)).collect()
    }

    /// The volume that was made for a claim; the newest when a claim of that name was made again and the older volume retained.
    pub fn of_claim(paths: &Paths, namespace: &str, claim: &str) -> Result<Self> {
        let made = |volume: &Self| fs::metadata(volume.folder(paths)).and_then(|meta| meta.created()).ok();
        Self::all(paths)
            .into_iter()
            .filter(|volume| volume.namespace == namespace && volume.claim == claim)
            .max_by_key(made)
            .ok_or_else(|| Error::NotFound(format!("no volume of this cluster belongs to claim {namespace}/{claim}")))
    }

    /// Makes what is missing of the volume, and mounts it. Doing it again changes nothing.
    pub fn ensure(&self, paths: &Paths) -> Result<()> {
        let folder = self.folder(paths);
        command::folder(&folder)?;
        if self.kind == Kind::Sized && mounts::at(&folder)?.is_none() {
            let image = self.image(paths);
            if !image.exists() {
                self.format(paths)?;
            }
            // The kernel frees the loop device by itself when it is unmounted.
            command::run("mount", [Path::new("-o"), Path::new("loop"), &image, &folder])?;
        }
        // Volumes of this type take no part in fsGroup, so everybody may write.
        set_mode(&folder, 0o777)?;
        let text = serde_json::to_vec(self).map_err(Error::json("write the record of a volume"))?;
        command::write(&Self::record(paths, &self.name), text)
    }

    /// Makes the file system under a temporary name: a half-made one is never mounted.
    fn format(&self, paths: &Paths) -> Result<()> {
        let temporary = paths.volumes().join(format!("{}.img.tmp", self.name));
        let file = fs::File::create(&temporary).map_err(Error::file("create", &temporary))?;
        file.set_len(self.bytes).map_err(Error::file("set the size of", &temporary))?;
        let mut mkfs = command::command("mkfs.xfs", ["-q", "-f"]);
        if self.bytes < XFS_SUPPORTED {
            mkfs.arg("--unsupported");
        }
        mkfs.arg(&temporary);
        command::output(mkfs)?;
        fs::rename(&temporary, self.image(paths)).map_err(Error::file("rename", temporary))
    }

    /// Grows the volume while it is in use.
    pub fn grow(&mut self, paths: &Paths, bytes: u64) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        if self.kind == Kind::Sized {
            let (folder, image) = (self.folder(paths), self.image(paths));
            let mount =
                mounts::at(&folder)?.ok_or_else(|| Error::NotFound(format!("volume {} is not mounted", self.name)))?;
            let file = fs::File::options().write(true).open(&image).map_err(Error::file("open", &image))?;
            file.set_len(bytes).map_err(Error::file("set the size of", &image))?;
            command::run("losetup", ["-c", &mount.source])?;
            command::run("xfs_growfs", [&folder])?;
        }
        self.bytes = bytes;
        self.ensure(paths)
    }

    /// Removes the volume with its content.
    pub fn delete(&self, paths: &Paths) -> Result<()> {
        let folder = self.folder(paths);
        mounts::unmount_below(&folder)?;
        crate::node::remove(&folder)?;
        for file in [self.image(paths), Self::record(paths, &self.name)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", file)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Bytes of a Kubernetes quantity (`10Gi`, `500M`, `1e9`, `1.5Gi`), rounded up.
pub(crate) fn parse_quantity(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];
    let (number, factor) = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value: f64 = number.parse().ok()?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (value >= 0.0 && value * (factor as f64) < u64::MAX as f64).then(|| (value * factor as f64).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_understood() {
        for (text, bytes) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("1073741824", Some(1 << 30)),
            ("1e9", Some(1_000_000_000)),
            ("0", Some(0)),
            ("-1Gi", None),
            ("much", None),
            ("", None),
            ("99999999Ei", None),
        ] {
            assert_eq!(parse_quantity(text), bytes, "{text}");
        }
    }

    #[test]
    fn kinds_come_from_classes() {
        assert!(matches!(Kind::of_class("folder"), Ok(Kind::Folder)));
        assert!(matches!(Kind::of_class("sized"), Ok(Kind::Sized)));
        assert!(Kind::of_class("").is_err());
    }
}
