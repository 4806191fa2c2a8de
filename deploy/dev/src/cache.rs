//! What was built, outside the clone: `<cache>/<kind>-<digest of the inputs>/`.
//!
//! An entry is made in a temporary folder and renamed at the end, so a half-written one is never used. Whoever wants something else has other
//! inputs, hence another name; nothing is ever changed in place.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use sha2::{Digest, Sha256};
use tracing::info;

use crate::{
    command,
    error::{Error, Result},
};

/// Hexadecimal digits of a digest that go into names.
const DIGITS: usize = 12;

/// Digest of named inputs.
#[derive(Clone, Default)]
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Adds an input. Lengths go in too, so that two inputs cannot be mistaken for two others.
    pub fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.0.update((name.len() as u64).to_le_bytes());
        self.0.update(name);
        self.0.update((content.len() as u64).to_le_bytes());
        self.0.update(content);
        self
    }

    /// The first digits of the digest.
    pub fn key(&self) -> String {
        let mut text = hex::encode(self.0.clone().finalize());
        text.truncate(DIGITS);
        text
    }
}

/// SHA-256 of a file, as hexadecimal text. By the system's program: ours is not optimised in a development build, and images are large.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    let output = command::run("sha256sum", [path])?;
    // A name with strange letters makes it escape the line, which then starts with a backslash.
    Ok(output.trim_start_matches('\\').split_whitespace().next().unwrap_or_default().to_owned())
}

/// The entry of this kind and key, made by `make` (which fills the folder it is given) when it is not there. Logs the seconds that took.
pub(crate) fn entry(cache: &Path, kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = cache.join(format!("{kind}-{key}"));
    if path.exists() {
        return Ok(path);
    }
    let started = Instant::now();
    command::folder(cache)?;
    let prefix = format!(".{kind}-");
    let temporary =
        tempfile::Builder::new().prefix(&prefix).tempdir_in(cache).map_err(Error::file("create a folder in", cache))?;
    info!("building {kind}");
    make(temporary.path())?;
    let made = temporary.keep();
    // Containers of other users look into roots of images.
    set_mode(&made, 0o755)?;
    if let Err(error) = fs::rename(&made, &path) {
        let _ = fs::remove_dir_all(&made);
        if !path.exists() {
            return Err(Error::file("rename to", path)(error));
        }
    }
    info!("built {kind} in {:.1} s", started.elapsed().as_secs_f64());
    Ok(path)
}

/// Removes the other entries of a kind whose inputs change with every build.
pub(crate) fn prune(cache: &Path, kind: &str, keep: &Path) {
    let prefix = format!("{kind}-");
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_digest = |rest: &str| rest.len() == DIGITS && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if name.to_str().and_then(|name| name.strip_prefix(&prefix)).is_some_and(is_digest) && entry.path() != keep {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Sets the mode of a file or folder.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("set mode of", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_tell_inputs_apart() {
        let key = |pairs: &[(&str, &str)]| {
            pairs.iter().fold(Inputs::default(), |inputs, (name, content)| inputs.with(name, content)).key()
        };
        assert_eq!(key(&[("a", "b")]).len(), DIGITS);
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
    }

    #[test]
    fn a_failed_build_leaves_no_entry_and_a_made_one_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let failed = entry(cache.path(), "thing", "0123456789ab", |folder| {
            fs::write(folder.join("half"), "").unwrap();
            Err(Error::Invalid("no".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
        let make = |_: &Path| Ok(());
        let first = entry(cache.path(), "thing", "0123456789ab", make).unwrap();
        let second =
            entry(cache.path(), "thing", "0123456789ab", |_| Err(Error::Invalid("made twice".into()))).unwrap();
        assert_eq!(first, second);
        let newer = entry(cache.path(), "thing", "ba9876543210", make).unwrap();
        let other = entry(cache.path(), "thing-else", "ba9876543210", make).unwrap();
        prune(cache.path(), "thing", &newer);
        assert!(!first.exists() && newer.exists() && other.exists());
    }
}
