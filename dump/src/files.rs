//! The files of a data directory, of a server that does not run, in pieces: there and back.
//!
//! Pieces are cut so that one big table is carried side by side, too. Each of the [`TASKS`] at a time needs some two pieces of memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use archive::store::Put;
use archive::{Root, Store};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::load::verified;
use crate::manifest::Blob;

/// Bytes of a file in a piece.
const PIECE: u64 = 32 << 20;
/// Pieces that are carried at a time.
const TASKS: usize = 2;
/// Fast: what is copied is to be there soon, and disks of databases are large.
const LEVEL: i32 = 1;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataFile {
    /// Where it lies in the data directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its content, in order.
    pub pieces: Vec<FilePiece>,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilePiece {
    /// The object, a zstd stream.
    #[serde(flatten)]
    pub blob: Blob,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Whether mysqld makes it anew, or it is of its own server alone: binlogs and relay logs, its name, keys, sockets, temporary tables,
/// and what a clone leaves behind about itself.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let starts =
        ["binlog.", "relay.", "ibtmp", "auto.cnf", "mysqld-auto.cnf"].iter().any(|start| name.starts_with(start));
    let ends =
        ["pem", "sock", "lock", "pid"].iter().any(|end| Path::new(&*name).extension().is_some_and(|is| is == *end));
    let within = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("#clone" | "#innodb_temp")));
    within || (path.components().count() == 1 && (starts || ends))
}

/// All files below a folder, by their path in it.
fn listed(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut folders, mut found) = (vec![PathBuf::new()], Vec::new());
    while let Some(within) = folders.pop() {
        let reading = || Error::io(format!("read the folder {}", folder.join(&within).display()));
        for entry in fs::read_dir(folder.join(&within)).map_err(reading())? {
            let entry = entry.map_err(reading())?;
            let (path, kind) = (within.join(entry.file_name()), entry.file_type().map_err(reading())?);
            if is_left_out(&path) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push((path, entry.metadata().map_err(reading())?.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes that [`put`] would carry.
///
/// # Errors
/// A folder that cannot be read.
pub fn size(folder: &Path) -> Result<u64> {
    Ok(listed(folder)?.iter().map(|(_, bytes)| bytes).sum())
}

/// Puts all files of a data directory; `done` counts their bytes.
///
/// # Errors
/// Those of reading, and the bucket's.
pub async fn put(folder: &Path, store: &Store, root: &Root, id: &str, done: &AtomicU64) -> Result<Vec<DataFile>> {
    let mut files = Vec::new();
    let mut tasks = Vec::new();
    for (number, (path, bytes)) in listed(folder)?.into_iter().enumerate() {
        let name = path.to_str().ok_or_else(|| Error::Unsupported(format!("{} is no UTF-8", path.display())))?;
        let name = name.to_owned();
        for from in (0..bytes).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX)) {
            let key = root.dump(id, &format!("files/{number:06}/{from:013}.zst"));
            tasks.push((number, folder.join(&path), key, from, PIECE.min(bytes - from)));
        }
        files.push(DataFile { path: name, bytes, pieces: Vec::new() });
    }
    let putting = tasks.into_iter().map(async |(number, path, key, from, bytes)| {
        let packed = tokio::task::spawn_blocking(move || packed(&path, from, bytes)).await;
        let packed = packed.map_err(|error| Error::Broken(error.to_string()))??;
        let blob = Blob::of(key, &packed);
        // Names of attempts are their own: what is there was put by a try of this one that did not hear of it.
        let (Put::Stored | Put::Exists) = store.put_new(&blob.key, packed).await?;
        done.fetch_add(bytes, Ordering::Relaxed);
        Ok::<_, Error>((number, FilePiece { blob, bytes }))
    });
    let mut put = stream::iter(putting).buffered(TASKS);
    while let Some((number, piece)) = put.try_next().await? {
        if let Some(file) = files.get_mut(number) {
            file.pieces.push(piece);
        }
    }
    Ok(files)
}

fn packed(path: &Path, from: u64, bytes: u64) -> Result<Vec<u8>> {
    let reading = || Error::io(format!("read {}", path.display()));
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    File::open(path).and_then(|file| file.read_exact_at(&mut content, from)).map_err(reading())?;
    zstd::bulk::compress(&content, LEVEL).map_err(Error::io("compress a piece"))
}

/// Makes the files in a new folder, each piece verified; `done` counts the bytes of objects.
///
/// # Errors
/// The bucket's; what is missing, or not what was put; those of writing.
pub async fn get(files: &[DataFile], folder: &Path, store: &Store, done: &AtomicU64) -> Result<()> {
    let mut tasks = Vec::new();
    let mut folders = BTreeSet::from([folder.to_owned()]);
    for file in files {
        let path = Path::new(&file.path);
        let within = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !within || file.path.is_empty() {
            return Err(Error::Unsupported(format!("a file of the dump is called {:?}", file.path)));
        }
        let path = folder.join(path);
        folders.extend(path.parent().map(Path::to_owned));
        let mut from = 0;
        for piece in &file.pieces {
            tasks.push((path.clone(), from, piece));
            from += piece.bytes;
        }
        if from != file.bytes {
            return Err(Error::Unsupported(format!("the pieces of {} are not all of it", file.path)));
        }
    }
    for folder in folders {
        fs::create_dir_all(&folder).map_err(Error::io(format!("make the folder {}", folder.display())))?;
    }
    for file in files {
        let path = folder.join(&file.path);
        File::create_new(&path).map_err(Error::io(format!("create {}", path.display())))?;
    }
    let getting = tasks.into_iter().map(async |(path, from, piece)| {
        let object = verified(store, &piece.blob).await?;
        let (blob, bytes) = (piece.blob.clone(), piece.bytes);
        let written = tokio::task::spawn_blocking(move || unpack(&path, from, &object, &blob, bytes)).await;
        written.map_err(|error| Error::Broken(error.to_string()))??;
        done.fetch_add(piece.blob.stored, Ordering::Relaxed);
        Ok::<_, Error>(())
    });
    stream::iter(getting).buffer_unordered(TASKS).try_collect::<()>().await
}

fn unpack(path: &Path, from: u64, object: &[u8], blob: &Blob, bytes: u64) -> Result<()> {
    let most = usize::try_from(bytes).unwrap_or(usize::MAX);
    let content = zstd::bulk::decompress(object, most).map_err(Error::io(format!("unpack {}", blob.key)))?;
    if content.len() as u64 != bytes {
        return Err(Error::untrusted(&blob.key, format!("has {} bytes, not {bytes}", content.len())));
    }
    let writing = Error::io(format!("write {}", path.display()));
    File::options().write(true).open(path).and_then(|file| file.write_all_at(&content, from)).map_err(writing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::BTreeMap;

    use testkit::S3;

    use super::*;

    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        listed(folder)
            .unwrap()
            .into_iter()
            .map(|(path, _)| (path.clone(), fs::read(folder.join(path)).unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn files_come_back_as_they_were_and_a_spoilt_piece_is_named() {
        let s3 = S3::start();
        let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
        let root = Root::new("prod", "n", "c", "u");
        let from = tempfile::tempdir().unwrap();
        let data = from.path();
        fs::create_dir_all(data.join("shop/deep")).unwrap();
        fs::create_dir_all(data.join("#clone")).unwrap();
        let big: Vec<u8> = (0..PIECE * 2 + 17).map(|at| (at % 251) as u8).collect();
        fs::write(data.join("shop/big.ibd"), &big).unwrap();
        for (name, body) in
            [("ibdata1", "x"), ("shop/deep/empty", ""), ("shop/binlog.000001", "a table's"), ("mysql.ibd", "y")]
        {
            fs::write(data.join(name), body).unwrap();
        }
        for name in ["binlog.000001", "relay.index", "auto.cnf", "server-key.pem", "#clone/status"] {
            fs::write(data.join(name), "of this server").unwrap();
        }
        let done = AtomicU64::new(0);
        let files = put(data, &store, &root, "d", &done).await.unwrap();
        assert_eq!(done.load(Ordering::Relaxed), size(data).unwrap());
        let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["ibdata1", "mysql.ibd", "shop/big.ibd", "shop/binlog.000001", "shop/deep/empty"]);
        assert_eq!(files.iter().map(|file| file.pieces.len()).collect::<Vec<_>>(), [1, 1, 3, 1, 0]);

        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("data");
        get(&files, &folder, &store, &AtomicU64::new(0)).await.unwrap();
        assert_eq!(contents(&folder), contents(data));

        let key = &files[2].pieces[1].blob.key;
        let path = s3.folder().join(key);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = get(&files, &to.path().join("again"), &store, &AtomicU64::new(0)).await.unwrap_err();
        assert!(refused.to_string().contains(key), "{refused}");
    }

    #[tokio::test]
    async fn nothing_is_written_outside_the_folder() {
        let s3 = S3::start();
        let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
        let to = tempfile::tempdir().unwrap();
        for path in ["../out", "/tmp/out", "", "a/../../out"] {
            let files = [DataFile { path: path.to_owned(), bytes: 0, pieces: Vec::new() }];
            assert!(get(&files, &to.path().join("data"), &store, &AtomicU64::new(0)).await.is_err(), "{path:?}");
        }
        assert!(!to.path().join("out").exists());
    }
}
