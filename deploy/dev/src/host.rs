//! What the host looked like before the cluster came, and putting it back.
//!
//! The kubelet sets kernel parameters, containerd and the CNI plugins keep files in folders of their own choice, iptables makes its tables when it is
//! first used. None of that may stay.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    command::{self, line, succeeds},
    error::{Error, Result},
    mounts,
    paths::{Paths, RUN},
};

/// Kernel parameters that we or the kubelet (`setupKernelTunables` in its container manager) set.
const PARAMETERS: [&str; 7] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];
/// Folders whose place cannot be chosen.
const FOLDERS: [&str; 8] = [
    "/run/netns",
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/opt/cni",
    "/usr/libexec/kubernetes",
];

/// The host before the first `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    parameters: BTreeMap<String, String>,
    folders: Vec<PathBuf>,
    tables: Vec<String>,
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("host-before.json")
}

/// Looks at the host, unless that was done before.
pub(crate) fn remember(paths: &Paths) -> Result<()> {
    if file(paths).exists() {
        return Ok(());
    }
    let parameters = PARAMETERS
        .iter()
        .filter_map(|path| Some(((*path).to_owned(), fs::read_to_string(path).ok()?.trim().to_owned())));
    let before = Before {
        parameters: parameters.collect(),
        folders: FOLDERS.iter().map(PathBuf::from).filter(|path| path.exists()).collect(),
        tables: tables(),
    };
    let text = serde_json::to_vec(&before).map_err(Error::json("write what the host was before"))?;
    command::write(&file(paths), text)
}

fn tables() -> Vec<String> {
    line("nft list tables").unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Puts everything back. Without a record only what is surely ours goes.
pub(crate) fn restore(paths: &Paths) -> Result<()> {
    remove_ours(paths);
    let Some(before) = fs::read(file(paths)).ok().and_then(|text| serde_json::from_slice::<Before>(&text).ok()) else {
        return Ok(());
    };
    for (path, value) in &before.parameters {
        if fs::read_to_string(path).is_ok_and(|now| now.trim() != value) {
            fs::write(path, value).map_err(Error::file("write", path))?;
        }
    }
    for folder in
        FOLDERS.map(PathBuf::from).into_iter().filter(|folder| folder.exists() && !before.folders.contains(folder))
    {
        // `ip netns` mounts this one over itself; not so when it holds what somebody else has made since.
        if folder == Path::new("/run/netns") && is_empty(&folder) {
            mounts::unmount_below(&folder)?;
        }
        if folder == Path::new("/var/lib/kubelet") {
            crate::node::remove(&folder)?;
        } else {
            remove_empty(&folder);
        }
    }
    for table in tables().into_iter().filter(|table| !before.tables.contains(table)) {
        let empty = line(&format!("nft list {table}")).is_ok_and(|text| is_pristine(&text));
        if empty && table.starts_with("table ip ") {
            let _ = succeeds(&format!("nft delete {table}"));
        }
    }
    Ok(())
}

/// Whether a listed table holds only base chains that accept everything.
fn is_pristine(listing: &str) -> bool {
    listing.lines().map(str::trim).all(|text| {
        text.is_empty()
            || text == "}"
            || text.starts_with("table ")
            || text.starts_with("chain ")
            || text.starts_with('#')
            || (text.starts_with("type ") && text.ends_with("policy accept;"))
    })
}

/// Files with our name, or with links into our folders, in the folders of others.
fn remove_ours(paths: &Paths) {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    // One file for each network of a pod; the loopback network is nobody's, but the pod is ours.
    let results = || entries("/var/lib/cni/results").filter_map(|entry| entry.file_name().into_string().ok());
    let pods: Vec<_> =
        results().filter_map(|name| Some(name.strip_prefix("pelorus-")?.strip_suffix("-eth0")?.to_owned())).collect();
    for name in results().filter(|name| pods.iter().any(|pod| name.contains(pod))) {
        let _ = fs::remove_file(Path::new("/var/lib/cni/results").join(name));
    }
    for entry in entries("/var/log/containers") {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&paths.state) || target.starts_with(RUN)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    // Sockets of shims; all containerds of a host share the folder, so only those on which nobody listens.
    let listening = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for entry in entries("/run/containerd/s") {
        let path = entry.path();
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if is_socket && !listening.lines().any(|text| text.ends_with(&*path.to_string_lossy())) {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes a folder if there are only empty folders in it.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_with_rules_or_policies_are_not_pristine() {
        let empty = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert!(is_pristine(empty));
        assert!(!is_pristine(&empty.replace("policy accept", "policy drop")));
        assert!(!is_pristine(&empty.replace("policy accept;", "policy accept;\n\t\tip saddr 10.0.0.1 drop")));
    }
}
