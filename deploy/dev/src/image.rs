//! Images without Docker: a docker-archive written straight from files, for `ctr images import` (and for skopeo, or `docker load`).
//!
//! Entries are sorted and carry no times, so the same content gives the same bytes and the same digest.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    cache::file_digest,
    error::{Error, Result},
};

/// Path that processes in every image search for programs.
const PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Everything below a folder.
    Root(PathBuf),
    /// Single files: path inside the image, mode, where the content lies.
    Files(Vec<(String, u32, Content)>),
}

/// Content of a file in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A file of the host.
    File(PathBuf),
    /// Text made here.
    Text(String),
}

/// An image to write.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its names.
    pub refs: Vec<String>,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// User it runs as: a name or `uid:gid`; empty for root.
    pub user: String,
}

/// Writes images that may share layers into one archive. A layer that two images have in common is written once.
pub(crate) fn write_archive(path: &Path, images: &[Image]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let archive = File::create(path).map_err(Error::file("create", path))?;
    let mut archive = Builder::new(BufWriter::new(archive));
    let failed = || Error::file("write", path);
    let mut written = Vec::<String>::new();
    let mut layers = Vec::<(&Layer, String)>::new();
    let mut manifest = Vec::new();
    for image in images {
        let (mut diff_ids, mut names) = (Vec::new(), Vec::new());
        for layer in &image.layers {
            let digest = if let Some((_, digest)) = layers.iter().find(|(known, _)| *known == layer) {
                digest.clone()
            } else {
                let temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
                write_layer(temporary.as_file(), layer).map_err(failed())?;
                let digest = file_digest(temporary.path())?;
                let name = format!("{digest}.tar");
                if !written.contains(&name) {
                    let mut content = temporary.reopen().map_err(failed())?;
                    let size = content.metadata().map_err(failed())?.len();
                    archive
                        .append_data(&mut header(EntryType::Regular, 0o644, size), &name, &mut content)
                        .map_err(failed())?;
                    written.push(name);
                }
                layers.push((layer, digest.clone()));
                digest
            };
            diff_ids.push(format!("sha256:{digest}"));
            names.push(format!("{digest}.tar"));
        }
        let history: Vec<_> = names.iter().map(|_| json!({"created_by": "devcluster"})).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": image.entrypoint, "Env": [PATH_ENV], "User": image.user},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        })
        .to_string();
        let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        if !written.contains(&config_name) {
            let mut entry = header(EntryType::Regular, 0o644, config.len() as u64);
            archive.append_data(&mut entry, &config_name, config.as_bytes()).map_err(failed())?;
            written.push(config_name.clone());
        }
        manifest.push(json!({"Config": config_name, "RepoTags": image.refs, "Layers": names}));
    }
    let manifest = serde_json::Value::Array(manifest).to_string();
    let mut entry = header(EntryType::Regular, 0o644, manifest.len() as u64);
    archive.append_data(&mut entry, "manifest.json", manifest.as_bytes()).map_err(failed())?;
    archive.into_inner().and_then(|mut inner| inner.flush()).map_err(failed())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn write_layer(into: &File, layer: &Layer) -> io::Result<()> {
    let mut tar = Builder::new(BufWriter::new(into));
    match layer {
        Layer::Root(root) => append_tree(&mut tar, root, Path::new(""))?,
        Layer::Files(files) => append_files(&mut tar, files)?,
    }
    tar.into_inner()?.flush()
}

fn append_files<W: Write>(tar: &mut Builder<W>, files: &[(String, u32, Content)]) -> io::Result<()> {
    let mut files = files.to_vec();
    files.sort_by(|left, right| left.0.cmp(&right.0));
    let mut folders = Vec::<PathBuf>::new();
    for (path, mode, content) in files {
        let path = PathBuf::from(path.trim_start_matches('/'));
        let mut above: Vec<_> =
            path.ancestors().skip(1).filter(|folder| *folder != Path::new("")).map(Path::to_owned).collect();
        above.reverse();
        for folder in above {
            if !folders.contains(&folder) {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), &folder, io::empty())?;
                folders.push(folder);
            }
        }
        match content {
            Content::Text(text) => {
                tar.append_data(&mut header(EntryType::Regular, mode, text.len() as u64), path, text.as_bytes())?;
            }
            Content::File(source) => {
                let file = File::open(source)?;
                let size = file.metadata()?.len();
                tar.append_data(&mut header(EntryType::Regular, mode, size), path, file)?;
            }
        }
    }
    Ok(())
}

/// Folders that the container runtime fills by itself.
const EMPTY: [&str; 3] = ["proc", "sys", "dev"];

fn append_tree<W: Write>(tar: &mut Builder<W>, root: &Path, inside: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(inside))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let inside = inside.join(entry.file_name());
        let meta = entry.metadata()?;
        let kind = meta.file_type();
        let mut head = header(EntryType::Regular, meta.mode() & 0o7777, 0);
        head.set_uid(u64::from(meta.uid()));
        head.set_gid(u64::from(meta.gid()));
        if kind.is_symlink() {
            head.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut head, &inside, fs::read_link(entry.path())?)?;
        } else if kind.is_dir() {
            head.set_entry_type(EntryType::Directory);
            tar.append_data(&mut head, &inside, io::empty())?;
            if !EMPTY.iter().any(|name| inside == Path::new(name)) {
                append_tree(tar, root, &inside)?;
            }
        } else if kind.is_file() {
            head.set_size(meta.len());
            tar.append_data(&mut head, &inside, File::open(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            found.insert(path, content);
        }
        found
    }

    #[test]
    fn archives_are_reproducible_and_share_layers() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("proc/1")).unwrap();
        fs::write(root.join("usr/bin/tool"), "program").unwrap();
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
        let label = Layer::Files(vec![("/etc/a/label".into(), 0o644, Content::Text("b".into()))]);
        let image = |name: &str, layers: Vec<Layer>| Image {
            refs: vec![name.into()],
            layers,
            entrypoint: vec!["/bin/tool".into()],
            user: "65532:65532".into(),
        };
        let images = [
            image("localhost/a:1", vec![Layer::Root(root.clone())]),
            image("localhost/a:2", vec![Layer::Root(root.clone()), label]),
        ];
        let (first, second) = (folder.path().join("first.tar"), folder.path().join("second.tar"));
        write_archive(&first, &images).unwrap();
        write_archive(&second, &images).unwrap();
        let bytes = fs::read(&first).unwrap();
        assert_eq!(bytes, fs::read(&second).unwrap());

        let outer = entries(&bytes);
        let manifest: serde_json::Value = serde_json::from_slice(&outer["manifest.json"]).unwrap();
        assert_eq!(manifest[1]["RepoTags"][0], "localhost/a:2");
        assert_eq!(manifest[0]["Layers"][0], manifest[1]["Layers"][0]);
        // Two configurations, two layers, one manifest.
        assert_eq!(outer.len(), 5);
        let config: serde_json::Value =
            serde_json::from_slice(&outer[manifest[1]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        for (at, layer) in manifest[1]["Layers"].as_array().unwrap().iter().enumerate() {
            let digest = hex::encode(Sha256::digest(&outer[layer.as_str().unwrap()]));
            assert_eq!(config["rootfs"]["diff_ids"][at], format!("sha256:{digest}"));
        }
        let base = entries(&outer[manifest[1]["Layers"][0].as_str().unwrap()]);
        assert_eq!(
            base.keys().map(String::as_str).collect::<Vec<_>>(),
            ["bin", "proc", "usr", "usr/bin", "usr/bin/tool"]
        );
        let label = entries(&outer[manifest[1]["Layers"][1].as_str().unwrap()]);
        assert_eq!(label.keys().map(String::as_str).collect::<Vec<_>>(), ["etc", "etc/a", "etc/a/label"]);
    }
}
