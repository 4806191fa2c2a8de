//! Copies of transactions that are about to be thrown away: `rewound/<epoch>-<n>.binlog` and what it is, in JSON.
//!
//! A copy is a binlog of its own, which `mysqlbinlog` reads: the file's first bytes, then everything from the first
//! foreign transaction on. More than one file: `<epoch>-<n>.2.binlog` and so on. The JSON comes last; a copy without one
//! is not finished and goes with the next save. The newest copies are kept.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::binlog::{IN_USE, IN_USE_AT, MAGIC};
use common::gtid::GtidSet;
use common::instance::Epoch;
use serde::{Deserialize, Serialize};

use super::scan::{self, Foreign};
use crate::data::{TEMPORARY, Volume, durably, remove, sync_dir};
use crate::error::{Error, Result};

/// Copies that are kept.
const KEPT: usize = 20;
/// Has to stay free: mysqld needs room to recover.
const RESERVE: u64 = 32 << 20;
/// Longest format description that is copied.
const FORMAT_MAX: u64 = 4096;
/// Bytes between two looks whether to go on.
const CHUNK: usize = 1 << 20;

/// What a copy is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Epoch of the order that found them foreign.
    pub epoch: Epoch,
    /// Who did not have them.
    pub source: String,
    /// Them. Empty: the file could not be read.
    pub gtids: GtidSet,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The files.
    pub parts: Vec<Part>,
}

/// One copied file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Name of the copy.
    pub saved: String,
    /// Name of the original.
    pub file: String,
    /// Where in the original the copy begins, after the first bytes; 0: all of it.
    pub position: u64,
    /// Bytes of the original from there.
    pub bytes: u64,
}

/// What is to be copied.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// First byte; 0: all of it.
    pub position: u64,
    /// One past the last.
    pub length: u64,
}

/// A finished copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// `<epoch>-<n>`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

impl Manifest {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Copies durably. The same copy is not made twice.
///
/// # Errors
/// No room, or files.
pub fn save(
    volume: &Volume,
    epoch: Epoch,
    source: &str,
    gtids: &GtidSet,
    what: &[Source],
    stop: &dyn Fn() -> bool,
) -> Result<Saved> {
    let dir = volume.saved_dir();
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Error::file("create", dir)(error)),
        Ok(()) | Err(_) => {}
    }
    let known = known(&dir)?;
    let same = known.iter().find(|(_, manifest)| {
        let ends = what.iter().map(|one| (name(&one.path), one.position, one.length.saturating_sub(one.position)));
        manifest.gtids == *gtids
            && ends.eq(manifest.parts.iter().map(|part| (part.file.clone(), part.position, part.bytes)))
    });
    if let Some((name, manifest)) = same {
        return Ok(Saved { name: name.clone(), bytes: manifest.bytes() });
    }
    remove_unfinished(&dir, &known)?;
    let bytes: u64 = what.iter().map(|one| one.length.saturating_sub(one.position)).sum();
    let (needed, free) = (bytes.saturating_add(RESERVE), volume.disk().free_bytes);
    if needed > free {
        return Err(Error::NoRoom { needed, free });
    }
    let number = (1..=u32::MAX).find(|number| !known.iter().any(|(name, _)| *name == format!("{epoch}-{number}")));
    let name = format!("{epoch}-{}", number.unwrap_or(u32::MAX));
    let mut parts = Vec::new();
    for (one, number) in what.iter().zip(1..) {
        let saved = if number == 1 { format!("{name}.binlog") } else { format!("{name}.{number}.binlog") };
        durably(&dir, &saved, |to| copy(one, to, stop))?;
        let bytes = one.length.saturating_sub(one.position);
        parts.push(Part { saved, file: self::name(&one.path), position: one.position, bytes });
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let manifest = Manifest { epoch, source: source.to_owned(), gtids: gtids.clone(), time, parts };
    let file = format!("{name}.json");
    let text = serde_json::to_vec_pretty(&manifest).map_err(|source| Error::Json { path: dir.join(&file), source })?;
    durably(&dir, &file, |to| to.write_all(&text).map_err(Error::file("write", dir.join(&file))))?;
    prune(&dir)?;
    Ok(Saved { name, bytes })
}

/// Copies every file of the data that holds these transactions, from the first of them on: the binlog's, and for those
/// that were received and not executed the relay log. `whole`: the last file whatever it holds. And whether all of it is
/// a tail: nothing else comes after it.
///
/// # Errors
/// As [`save`]. [`Error::Unexpected`]: they are in no log any more.
pub fn save_range(
    volume: &Volume,
    data: &Path,
    epoch: Epoch,
    source: &str,
    gtids: &GtidSet,
    whole: bool,
    stop: &dyn Fn() -> bool,
) -> Result<(Saved, bool)> {
    let files = scan::files(data, "binlog")?;
    let mut missing = gtids.clone();
    let mut pure = true;
    let mut what = Vec::new();
    for held in scan::range(&files, &Foreign::In(gtids.clone()), stop)? {
        missing = missing.subtract(&held.foreign);
        pure &= held.pure;
        let is_last = files.last() == Some(&held.path);
        if let (Some(position), true) = (held.first, what.is_empty() && held.before.is_empty()) {
            what.push(Source { path: held.path, position, length: held.length });
        } else if held.first.is_some() || held.unreadable || !what.is_empty() || (whole && is_last) {
            what.push(Source { path: held.path, position: 0, length: held.length });
        }
    }
    if !missing.is_empty()
        && let Ok(relay) = scan::files(data, "relay")
    {
        for path in relay {
            let length = fs::metadata(&path).map_err(Error::file("look at", &path))?.len();
            what.push(Source { path, position: 0, length });
        }
        missing = GtidSet::default();
    }
    if !missing.is_empty() || what.is_empty() {
        return Err(Error::Unexpected(format!("{missing} is in no log of this instance any more")));
    }
    Ok((save(volume, epoch, source, gtids, &what, stop)?, pure))
}

/// A copy that is in no archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// `<epoch>-<n>`.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// Its files, the description last.
    pub files: Vec<String>,
}

/// How many of them there are, by the names of files alone.
///
/// # Errors
/// Files.
pub fn count_not_archived(volume: &Volume) -> Result<usize> {
    let dir = volume.saved_dir();
    if !dir.exists() {
        return Ok(0);
    }
    let all = names(&dir)?;
    let stems = all.iter().filter_map(|name| name.strip_suffix(".json"));
    Ok(stems.filter(|stem| !all.contains(&marker(stem))).count())
}

/// Finished copies that are on the volume only, the oldest first.
///
/// # Errors
/// Files.
pub fn not_archived(volume: &Volume) -> Result<Vec<Copied>> {
    let dir = volume.saved_dir();
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let all = names(&dir)?;
    let copied = |(name, manifest): (String, Manifest)| {
        let description = format!("{name}.json");
        let files = manifest.parts.into_iter().map(|part| part.saved).chain([description]).collect();
        Copied { name, time: manifest.time, files }
    };
    let mut copies: Vec<Copied> = known(&dir)?.into_iter().map(copied).collect();
    copies.retain(|copy| !all.contains(&marker(&copy.name)));
    copies.sort_by_key(|copy| (copy.time, copy.name.len(), copy.name.clone()));
    Ok(copies)
}

/// A copy is in the archive.
///
/// # Errors
/// Files.
pub fn note_archived(volume: &Volume, name: &str) -> Result<()> {
    durably(&volume.saved_dir(), &marker(name), |_| Ok(()))
}

fn marker(name: &str) -> String {
    format!("{name}.archived")
}

fn copy(what: &Source, to: &mut File, stop: &dyn Fn() -> bool) -> Result<()> {
    let failed = || Error::file("copy", &what.path);
    let mut from = File::open(&what.path).map_err(failed())?;
    let start = first_bytes(&mut from).map_err(failed())?;
    // What is no binlog that we can read is copied as it is.
    let position = match &start {
        Some(start) => what.position.max(start.len() as u64),
        None => what.position,
    };
    to.write_all(&start.unwrap_or_default()).map_err(failed())?;
    from.seek(SeekFrom::Start(position)).map_err(failed())?;
    let mut left = what.length.saturating_sub(position);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        if stop() {
            return Err(Error::Overtaken);
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let chunk = buffer.get_mut(..count).unwrap_or_default();
        from.read_exact(chunk).and_then(|()| to.write_all(chunk)).map_err(failed())?;
        left -= count as u64;
    }
    Ok(())
}

/// Magic and format description, marked as closed. Nothing when the file is not readable as a binlog.
fn first_bytes(file: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64 + 19).read_to_end(&mut start)?;
    let size = start.get(13..17).and_then(|size| size.try_into().ok()).map_or(0, u32::from_le_bytes);
    let size = u64::from(size);
    if !start.starts_with(&MAGIC) || !(19..FORMAT_MAX).contains(&size) {
        return Ok(None);
    }
    file.take(size - 19).read_to_end(&mut start)?;
    if start.len() as u64 != MAGIC.len() as u64 + size {
        return Ok(None);
    }
    if let Some(flags) = usize::try_from(IN_USE_AT).ok().and_then(|at| start.get_mut(at)) {
        *flags &= !IN_USE;
    }
    Ok(Some(start))
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Finished copies by name. A JSON that cannot be read is no reason to make no copy: it is left alone.
fn known(dir: &Path) -> Result<Vec<(String, Manifest)>> {
    let mut known = Vec::new();
    for name in names(dir)? {
        if let Some(stem) = name.strip_suffix(".json") {
            let text = fs::read(dir.join(&name)).map_err(Error::file("read", dir.join(&name)))?;
            match serde_json::from_slice(&text) {
                Ok(manifest) => known.push((stem.to_owned(), manifest)),
                Err(error) => tracing::warn!(file = name, %error, "a copy's description is not understood"),
            }
        }
    }
    Ok(known)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = || Error::file("list", dir);
    let entries = fs::read_dir(dir).map_err(failed())?;
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed())).collect()
}

/// What an interrupted save left behind.
fn remove_unfinished(dir: &Path, known: &[(String, Manifest)]) -> Result<()> {
    let all = names(dir)?;
    for name in &all {
        let finished = known.iter().any(|(_, manifest)| manifest.parts.iter().any(|part| part.saved == *name));
        let described = name.split('.').next().is_some_and(|stem| all.iter().any(|n| *n == format!("{stem}.json")));
        if name.ends_with(TEMPORARY) || (name.ends_with(".binlog") && !finished && !described) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Keeps the newest: the description goes first, so that what is described is there.
fn prune(dir: &Path) -> Result<()> {
    let mut all = known(dir)?;
    all.sort_by_key(|(name, manifest)| (manifest.time, name.len(), name.clone()));
    let surplus = all.len().saturating_sub(KEPT);
    for (name, manifest) in all.into_iter().take(surplus) {
        remove(&dir.join(format!("{name}.json")))?;
        remove(&dir.join(marker(&name)))?;
        for part in manifest.parts {
            remove(&dir.join(part.saved))?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn gtids(number: u32) -> GtidSet {
        format!("11111111-1111-1111-1111-111111111111:{number}").parse().unwrap()
    }

    #[test]
    fn copies_are_made_once_and_the_newest_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let volume = Volume::new(home.path().to_owned());
        let path = home.path().join("binlog.000001");
        fs::write(&path, b"not a binlog at all").unwrap();
        let what = [Source { path, position: 4, length: 19 }];
        let first = save(&volume, 7, "db-1", &gtids(1), &what, &|| false).unwrap();
        assert_eq!((first.name.as_str(), first.bytes), ("7-1", 15));
        assert_eq!(fs::read(home.path().join("rewound/7-1.binlog")).unwrap(), b"a binlog at all");
        assert_eq!(save(&volume, 7, "db-1", &gtids(1), &what, &|| false).unwrap(), first);
        fs::write(home.path().join("rewound/7-2.binlog"), b"unfinished").unwrap();
        fs::write(home.path().join("rewound/7-3.binlog.new"), b"unfinished").unwrap();
        for number in 2..=u32::try_from(KEPT).unwrap() + 1 {
            save(&volume, 7, "db-1", &gtids(number), &what, &|| false).unwrap();
        }
        let names = names(&home.path().join("rewound")).unwrap();
        assert_eq!(names.len(), 2 * KEPT, "{names:?}");
        assert!(!names.contains(&"7-1.json".to_owned()) && names.contains(&"7-21.json".to_owned()));
        let first = not_archived(&volume).unwrap().into_iter().next().unwrap();
        assert_eq!(first.files, ["7-2.binlog", "7-2.json"]);
        note_archived(&volume, "7-2").unwrap();
        assert_eq!(not_archived(&volume).unwrap().len(), KEPT - 1);
        assert_eq!(count_not_archived(&volume).unwrap(), KEPT - 1);
        assert!(matches!(save(&volume, 8, "db-1", &gtids(99), &what, &|| true), Err(Error::Overtaken)));
    }
}
