//! Which images the cluster has, and importing them into the nodes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use serde_json::Value;
use tracing::info;

use crate::{
    build::{self, Artifacts},
    cache::{self, Inputs},
    cluster::Cluster,
    command,
    error::{Error, Result},
    image::{Content, Image, Layer, write_archive},
    paths::{Node, Paths},
};

/// Daemons that get an image of their own.
pub const DAEMONS: [&str; 5] = ["instance-d", "topology-ctl", "failover-d", "binlog-shipper", "backup-d"];
/// Where a client finds the certificate authorities of the world.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// User of the daemons.
const NOBODY: &str = "65532:65532";
/// Raised when the way images are made changes.
const RECIPE: &str = "1";

/// An image in an archive, ready to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Short name, also its key in `images.json`.
    pub name: String,
    /// Digest of what is in it.
    pub key: String,
    /// The docker-archive.
    pub path: PathBuf,
    /// The name by which a chart should use it: the same name never means another content, where one of those exists.
    pub reference: String,
}

fn archive(cache: &Path, name: &str, key: &str, reference: String, images: &[Image]) -> Result<Archive> {
    let kind = format!("image-{name}");
    let folder = cache::entry(cache, &kind, key, |folder| write_archive(&folder.join("image.tar"), images))?;
    Ok(Archive { name: name.into(), key: key.into(), path: folder.join("image.tar"), reference })
}

fn program(cache: &Path, name: &str, reference: &str, binary: &Path) -> Result<Archive> {
    let inside = format!("/{name}");
    let image = Image {
        refs: vec![reference.into()],
        layers: vec![Layer::Files(vec![(inside.clone(), 0o755, Content::File(binary.into()))])],
        entrypoint: vec![inside],
        user: String::new(),
    };
    let key = build::image_inputs(name).with("recipe", RECIPE).key();
    archive(cache, name, &key, reference.into(), &[image])
}

/// What no node can do without.
fn basic(paths: &Paths, artifacts: &Artifacts) -> Result<Vec<Archive>> {
    Ok(vec![
        program(&paths.cache, "pause", "localhost/pause:dev", &artifacts.pause)?,
        program(&paths.cache, "coredns", "localhost/coredns:dev", &artifacts.tools.join("coredns"))?,
    ])
}

/// NATS, an S3 server, and MySQL in two images that differ by a label.
fn servers(paths: &Paths, artifacts: &Artifacts) -> Result<Vec<Archive>> {
    let image = |reference: &str, layers| Image {
        refs: vec![reference.into()],
        layers,
        entrypoint: vec!["/usr/sbin/mysqld".into()],
        user: "999:999".into(),
    };
    let root = || Layer::Root(artifacts.mysql_root.clone());
    let label = Layer::Files(vec![("/etc/pelorus-dev-image".into(), 0o644, Content::Text("b\n".into()))]);
    let key = build::image_inputs("mysql").with("recipe", RECIPE).key();
    let images = [image("localhost/mysql:9.7", vec![root()]), image("localhost/mysql:9.7-b", vec![root(), label])];
    Ok(vec![
        program(&paths.cache, "nats", "localhost/nats:dev", &artifacts.tools.join("nats-server"))?,
        program(&paths.cache, "s3", "localhost/s3:dev", &artifacts.s3.join("versitygw"))?,
        archive(&paths.cache, "mysql", &key, "localhost/mysql:9.7".into(), &images)?,
    ])
}

/// Builds the daemons with cargo and makes an image of each.
fn daemons(paths: &Paths, profile: &str) -> Result<Vec<Archive>> {
    let binaries = cargo_build(profile)?;
    let bundle = fs::read(CA_BUNDLE).map_err(Error::file("read", CA_BUNDLE))?;
    let mut made = Vec::new();
    for name in DAEMONS {
        let binary = binaries.get(name).ok_or_else(|| Error::NotFound(format!("cargo built no program {name}")))?;
        let key = Inputs::default()
            .with("binary", cache::file_digest(binary)?)
            .with("bundle", &bundle)
            .with("recipe", RECIPE)
            .key();
        let reference = format!("localhost/pelorus/{name}:{key}");
        let stripped = tempfile::NamedTempFile::new().map_err(Error::file("create", "a temporary file"))?;
        command::run("strip", [Path::new("--strip-debug"), Path::new("-o"), stripped.path(), binary])?;
        let image = Image {
            refs: vec![format!("localhost/pelorus/{name}:dev"), reference.clone()],
            layers: vec![Layer::Files(vec![
                (format!("/{name}"), 0o755, Content::File(stripped.path().into())),
                (CA_BUNDLE.into(), 0o644, Content::File(CA_BUNDLE.into())),
            ])],
            entrypoint: vec![format!("/{name}")],
            user: NOBODY.into(),
        };
        let archive = archive(&paths.cache, name, &key, reference, &[image])?;
        cache::prune(&paths.cache, &format!("image-{name}"), archive.path.parent().unwrap_or(&paths.cache));
        made.push(archive);
    }
    Ok(made)
}

/// Builds the daemons; the result is where each program lies.
fn cargo_build(profile: &str) -> Result<BTreeMap<String, PathBuf>> {
    let started = Instant::now();
    let mut cargo =
        command::command("cargo", ["build", "--message-format=json-render-diagnostics", "--profile", profile]);
    for name in DAEMONS {
        cargo.args(["-p", name]);
    }
    cargo.current_dir(workspace()?).stderr(std::process::Stdio::inherit());
    let messages = command::output(cargo)?;
    info!("built the daemons ({profile}) in {:.1} s", started.elapsed().as_secs_f64());
    Ok(messages.lines().filter_map(executable).collect())
}

/// Name and path of a program, from one of cargo's messages.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), message.get("executable")?.as_str()?.into()))
}

/// The clone: the nearest folder upwards that holds the workspace.
fn workspace() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(Error::file("find", "the current folder"))?;
    let manifest =
        |folder: &&Path| fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"));
    here.ancestors()
        .find(manifest)
        .map(Path::to_owned)
        .ok_or_else(|| Error::NotFound("no Cargo workspace here; run this inside the clone".into()))
}

/// Makes pause and CoreDNS and imports them.
pub(crate) fn ensure_basic(cluster: &Cluster, artifacts: &Artifacts) -> Result<()> {
    import(cluster, &basic(&cluster.paths, artifacts)?)
}

/// Makes every image, without importing any. Without a cargo profile the daemons are left out.
pub fn make_all(paths: &Paths, profile: Option<&str>) -> Result<Vec<Archive>> {
    let artifacts = build::ensure(paths)?;
    let mut all = profile.map(|profile| daemons(paths, profile)).transpose()?.unwrap_or_default();
    all.extend(servers(paths, &artifacts)?);
    Ok(all)
}

/// Makes every image, imports what is new into all nodes, and writes `images.json`.
pub fn ensure_all(cluster: &Cluster, profile: Option<&str>) -> Result<Vec<Archive>> {
    let all = make_all(&cluster.paths, profile)?;
    import(cluster, &all)?;
    if profile.is_some() {
        command::write(&cluster.paths.state.join("images.json"), to_json(&all))?;
    }
    Ok(all)
}

/// `{"instance-d": "localhost/pelorus/instance-d:…", …}`
pub fn to_json(archives: &[Archive]) -> String {
    let references: BTreeMap<_, _> = archives.iter().map(|archive| (&archive.name, &archive.reference)).collect();
    serde_json::json!(references).to_string()
}

/// Imports archives into all nodes side by side.
pub(crate) fn import(cluster: &Cluster, archives: &[Archive]) -> Result<()> {
    thread::scope(|scope| {
        let nodes: Vec<_> = Node::all().map(|node| scope.spawn(move || import_into(cluster, node, archives))).collect();
        nodes.into_iter().try_for_each(|node| {
            node.join().unwrap_or_else(|_| Err(Error::Invalid("importing images panicked".into())))
        })
    })
}

/// Imports into one node what it does not have. A marker beside containerd's data says which content a name has there.
fn import_into(cluster: &Cluster, node: Node, archives: &[Archive]) -> Result<()> {
    let markers = cluster.paths.node(node).join("images");
    command::folder(&markers)?;
    for archive in archives {
        let marker = markers.join(&archive.name);
        if fs::read_to_string(&marker).is_ok_and(|key| key == archive.key) {
            continue;
        }
        let started = Instant::now();
        let mut ctr = command::command("ctr", [Path::new("-a"), &cluster.paths.containerd_socket(node)]);
        ctr.args(["-n", "k8s.io", "images", "import"]).arg(&archive.path);
        command::output(ctr)?;
        command::write(&marker, &archive.key)?;
        info!("imported {} into {} in {:.1} s", archive.name, node.name(), started.elapsed().as_secs_f64());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"failover-d","kind":["bin"]},"executable":"/t/failover-d"}"#;
        assert_eq!(executable(message), Some(("failover-d".into(), "/t/failover-d".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"common","kind":["lib"]},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn references_are_printed_by_name() {
        let archive =
            Archive { name: "nats".into(), key: "k".into(), path: "/x".into(), reference: "localhost/nats:dev".into() };
        assert_eq!(to_json(&[archive]), r#"{"nats":"localhost/nats:dev"}"#);
    }
}
