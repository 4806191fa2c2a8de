//! `up`, `down` and `status`.
//!
//! `up` looks at each part, keeps what works and makes what is missing, so it may be called at any time and after any accident. `down` kills what was
//! recorded and what runs in our cgroups, then removes every trace but the cache.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::Instant,
};

use nix::sys::statvfs::statvfs;
use tracing::{info, warn};

use crate::{
    addons, build,
    build::Artifacts,
    cluster::Cluster,
    command, control_plane,
    error::{Error, Result},
    fault, host, images, mounts, network,
    node::{self, NodeOptions},
    paths::{CGROUP, Node, Paths},
    pki,
    process::Record,
};

/// A folder with this file in it is ours to delete.
const MARKER: &str = ".pelorus-dev";

/// One `up` or `down` at a time. The lock goes with the process that holds it.
fn lock(paths: &Paths) -> Result<File> {
    command::folder(&paths.cache)?;
    let path = paths.cache.join("devcluster.lock");
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    file.lock().map_err(Error::file("lock", path))?;
    Ok(file)
}

/// Brings the cluster up, or back to how it should be.
pub fn up(cluster: &Cluster, options: &NodeOptions) -> Result<()> {
    let started = Instant::now();
    need_root()?;
    let artifacts = build::ensure(&cluster.paths)?;
    let _lock = lock(&cluster.paths)?;
    claim(&cluster.paths.state)?;
    look_at_the_disk(&cluster.paths.state);
    host::remember(&cluster.paths)?;
    options.save(&cluster.paths)?;
    pki::ensure(&cluster.paths)?;
    end_strays(cluster);
    network::host_up()?;
    for node in Node::all() {
        prepare_node(cluster, node)?;
    }
    let groups: Vec<_> = Node::all().map(node::group).collect();
    cluster.cgroups.prepare(&groups)?;
    fault::forget_ended(cluster)?;

    let runtimes = || -> Result<()> {
        for node in Node::all() {
            node::start_containerd(cluster, node)?;
        }
        images::ensure_basic(cluster, &artifacts)
    };
    thread::scope(|scope| {
        let runtimes = scope.spawn(runtimes);
        let api = step("API server", || control_plane::start_api(cluster, &artifacts));
        runtimes.join().unwrap_or_else(|_| Err(Error::Invalid("starting containerd panicked".into())))?;
        api
    })?;
    control_plane::start_controllers(cluster, &artifacts)?;
    for node in Node::all() {
        node::start_kubelet(cluster, &artifacts, node, options)?;
    }
    step("add-ons", || addons::apply(cluster, &artifacts))?;
    control_plane::start_provisioner(cluster)?;
    fault::heal(cluster)?;
    step("nodes", || addons::wait_for_nodes(cluster, &artifacts))?;
    step("DNS", || addons::wait_for_dns(cluster, &artifacts))?;
    info!("the cluster is up ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = work()?;
    info!("{what} ready after {:.1} s", started.elapsed().as_secs_f64());
    Ok(result)
}

/// Clusters of the suite need so much for their volumes, and compilers beside them.
const ROOM: u64 = 8 << 30;

/// Says so when the disk is nearly full: what fails then fails in strange ways.
fn look_at_the_disk(folder: &Path) {
    let free = statvfs(folder).map(|stat| stat.blocks_available() * stat.fragment_size());
    if let Ok(free) = free
        && free < ROOM
    {
        warn!("only {} MiB are free on the disk of {}", free >> 20, folder.display());
    }
}

fn need_root() -> Result<()> {
    let own = Path::new("/proc/self");
    if fs::metadata(own).map_err(Error::file("look at", own))?.uid() == 0 {
        return Ok(());
    }
    Err(Error::Invalid("namespaces, mounts and cgroups need root".into()))
}

/// Makes the folder for the state, and marks it as ours.
fn claim(state: &Path) -> Result<()> {
    let marker = state.join(MARKER);
    if marker.exists() {
        return Ok(());
    }
    command::folder(state)?;
    if fs::read_dir(state).map_err(Error::file("read", state))?.next().is_some() {
        return Err(Error::Invalid(format!(
            "{} holds files that are not of this cluster; choose another PELORUS_DEV_DIR",
            state.display()
        )));
    }
    command::write(&marker, "")
}

/// Ends processes of ours that were started and never recorded: whoever started them was killed in between.
fn end_strays(cluster: &Cluster) {
    let supervisor = &cluster.supervisor;
    let recorded: BTreeSet<_> = supervisor
        .names()
        .iter()
        .filter_map(|name| supervisor.record(name))
        .filter(Record::is_alive)
        .map(|one| one.pid)
        .collect();
    let mut found = cluster.cgroups.processes(control_plane::GROUP);
    for node in Node::all() {
        // Shims and what they start keep pods alive and have no record.
        let ours = |pid: &i32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ["containerd", "devkube", "nsenter", "sh"].contains(&comm.trim_end())
        };
        found.extend(cluster.cgroups.processes(&format!("{}/runtime", node::group(node))).into_iter().filter(ours));
    }
    for pid in found.difference(&recorded) {
        info!("ending process {pid}, which nobody recorded");
        let _ = command::run("kill", ["-9", &pid.to_string()]);
    }
}

/// Makes a node's wires. When they are broken, or everything on the node is dead, what is left of it is removed first.
fn prepare_node(cluster: &Cluster, node: Node) -> Result<()> {
    let alive = !cluster.cgroups.processes(&node::group(node)).is_empty();
    let wired = network::netns_path(node).exists()
        && network::in_netns(&network::netns_path(node), "ip link show eth0").is_ok();
    if !alive || !wired {
        if cluster.paths.node_run(node).exists() {
            info!("{}: removing what a dead node left", node.name());
        }
        node::kill_all(cluster, node)?;
        node::clean(cluster, node)?;
    }
    network::node_up(node)
}

/// Takes the cluster down and removes every trace of it but the cache.
pub fn down(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    need_root()?;
    let paths = &cluster.paths;
    let _lock = lock(paths)?;
    for name in cluster.supervisor.names() {
        cluster.supervisor.kill(&name)?;
    }
    cluster.cgroups.kill_all("")?;
    for node in Node::all() {
        node::clean(cluster, node)?;
    }
    mounts::unmount_below(&paths.run)?;
    mounts::unmount_below(&paths.state)?;
    detach_loops(&paths.state);
    network::host_down()?;
    cluster.cgroups.remove("")?;
    host::restore(paths)?;
    node::remove(&paths.run)?;
    if paths.state.join(MARKER).exists() {
        node::remove(&paths.state)?;
    }
    info!("the cluster is down ({:.1} s)", started.elapsed().as_secs_f64());
    let left = leftovers(cluster);
    if left.is_empty() { Ok(()) } else { Err(Error::Invalid(format!("still here: {}", left.join(", ")))) }
}

/// Loop devices free themselves when unmounted; this is for those whose mount never happened.
fn detach_loops(state: &Path) {
    let list = command::line("losetup -l -n -O NAME,BACK-FILE").unwrap_or_default();
    for (device, file) in list.lines().filter_map(|text| text.trim().split_once(char::is_whitespace)) {
        if Path::new(file.trim()).starts_with(state) {
            let _ = command::run("losetup", ["-d", device]);
        }
    }
}

/// Everything of ours that exists on this host outside the cache.
pub fn leftovers(cluster: &Cluster) -> Vec<String> {
    let mut found = network::leftovers();
    if cluster.cgroups.exists() {
        found.push(format!("cgroup {CGROUP}"));
    }
    let folders = [&cluster.paths.run, &cluster.paths.state];
    found.extend(folders.into_iter().filter(|path| path.exists()).map(|path| format!("folder {}", path.display())));
    found
}

/// What runs, line by line, and whether that is everything.
pub fn status(cluster: &Cluster) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    let mut whole = true;
    let names = control_plane::ALL.map(String::from).into_iter().rev().chain(Node::all().flat_map(node::processes));
    for name in names {
        let record = cluster.supervisor.record(&name).filter(Record::is_alive);
        whole &= record.is_some();
        lines.push(record.map_or_else(|| format!("{name:24} down"), |record| format!("{name:24} pid {}", record.pid)));
    }
    for node in Node::all() {
        let cable = if network::link_is_up(node) { "up" } else { "down" };
        let processes = cluster.cgroups.processes(&node::group(node)).len();
        lines.push(format!("{:24} {processes} processes, cable {cable}", node.name()));
    }
    lines.extend(fault::active(cluster).iter().map(|fault| format!("fault                    {fault}")));
    (lines, whole)
}

/// What a shell needs to talk to the cluster.
pub fn environment(cluster: &Cluster, artifacts: &Artifacts) -> String {
    format!(
        "export KUBECONFIG='{}' PATH='{}:{}':\"$PATH\"",
        cluster.kubeconfig().display(),
        artifacts.kube.display(),
        artifacts.tools.display()
    )
}
