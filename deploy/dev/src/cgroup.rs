//! Control groups: which processes belong to the cluster, also those that nobody recorded.
//!
//! ```text
//! <hierarchy>/pelorus/control          etcd, API server, controllers, provisioner
//! <hierarchy>/pelorus/node1/runtime    containerd, its shims, kubelet, kube-proxy
//! <hierarchy>/pelorus/node1/kubepods   made by the kubelet, all pods below it
//! ```
//!
//! On cgroup v1 each controller has its own hierarchy; processes of ours are put in two of them: `pids`, which is enough to find them
//! again, and `cpu`. On v2 there is only one.
//!
//! Where they contend for CPUs, the control plane and each node get as much as a machine of their own would have of this one, and in a
//! node pods get twice as much as its runtime, as kubelet arranges it. Otherwise all pods of all nodes together would weigh as much as
//! one thread of the API server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    command,
    error::{Error, Result},
    mounts,
    paths::CGROUP,
};

/// Controllers that kubelet and runc need.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];
/// The cluster's weight against that of one other process of the host: it stands for so many machines (the control plane, three nodes).
const MACHINES: u64 = 4;
/// How long processes may take to vanish after SIGKILL, and emptied groups to be removed.
const VANISH: Duration = Duration::from_secs(20);

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// One folder for each mounted hierarchy, the controllers being in v1.
    V1(Vec<PathBuf>),
    /// The unified hierarchy.
    V2(PathBuf),
}

impl Hierarchies {
    /// Finds out what this host mounts.
    pub fn detect() -> Result<Self> {
        Self::of(&mounts::all()?)
            .ok_or_else(|| Error::NotFound("no cgroup hierarchy with the pids controller is mounted".into()))
    }

    fn of(mounts: &[mounts::Mount]) -> Option<Self> {
        let targets = |kinds: &[&str]| -> Vec<_> {
            mounts
                .iter()
                .filter(|mount| kinds.contains(&mount.kind.as_str()))
                .map(|mount| mount.target.clone())
                .collect()
        };
        if targets(&["cgroup"]).iter().any(|path| path.ends_with("pids")) {
            // On a hybrid host runc makes its groups in the unified hierarchy too.
            return Some(Self::V1(targets(&["cgroup", "cgroup2"])));
        }
        mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| Self::V2(mount.target.clone()))
    }

    fn roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(roots) => roots.clone(),
            Self::V2(root) => vec![root.clone()],
        }
    }

    /// The groups of that name that a process of ours joins: in the hierarchy by which it is found again, and in the one that shares CPUs.
    pub fn joined(&self, group: &str) -> Vec<PathBuf> {
        let roots: Vec<_> = match self {
            Self::V1(roots) => roots.iter().filter(|path| path.ends_with("pids") || is_cpu(path)).collect(),
            Self::V2(root) => vec![root],
        };
        roots.into_iter().map(|root| root.join(CGROUP).join(group)).collect()
    }

    /// Makes groups in every hierarchy, ready for a kubelet. On v2 they may hold no processes themselves, only groups below them.
    pub fn prepare(&self, groups: &[String]) -> Result<()> {
        match self {
            Self::V1(roots) => {
                for root in roots {
                    let mut chain = vec![root.join(CGROUP)];
                    chain.extend(groups.iter().map(|group| root.join(CGROUP).join(group)));
                    for folder in chain {
                        command::folder(&folder)?;
                        inherit_cpuset(&folder)?;
                    }
                    if is_cpu(root) {
                        weigh(&root.join(CGROUP).join("cpu.shares"), 1024 * MACHINES)?;
                    }
                }
            }
            Self::V2(root) => {
                command::folder(&root.join(CGROUP))?;
                delegate(root)?;
                delegate(&root.join(CGROUP))?;
                weigh(&root.join(CGROUP).join("cpu.weight"), 100 * MACHINES)?;
                for group in groups {
                    let folder = root.join(CGROUP).join(group);
                    command::folder(&folder)?;
                    delegate(&folder)?;
                }
            }
        }
        Ok(())
    }

    /// Every process in a group (`""` is all of the cluster) and below it.
    pub fn processes(&self, group: &str) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for root in self.roots() {
            collect(&root.join(CGROUP).join(group), &mut found);
        }
        found
    }

    /// Kills everything in a group, until nothing is left in it.
    pub fn kill_all(&self, group: &str) -> Result<()> {
        let deadline = Instant::now() + VANISH;
        loop {
            let left = self.processes(group);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: format!("processes {left:?} of cgroup {CGROUP}/{group} did not die"),
                    seconds: VANISH.as_secs(),
                    hint: String::new(),
                });
            }
            self.thaw(group);
            for pid in left {
                // Already gone is fine; anything else shows in the next round.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A frozen v1 group does not die of SIGKILL.
    fn thaw(&self, group: &str) {
        if let Self::V1(roots) = self
            && let Some(root) = roots.iter().find(|path| path.ends_with("freezer"))
        {
            for folder in tree(&root.join(CGROUP).join(group)) {
                let _ = fs::write(folder.join("freezer.state"), "THAWED");
            }
        }
    }

    /// Removes a group (`""` is ours as a whole) from every hierarchy. Its processes must be gone.
    pub fn remove(&self, group: &str) -> Result<()> {
        let deadline = Instant::now() + VANISH;
        for root in self.roots() {
            let top = root.join(CGROUP).join(group);
            loop {
                let folders = tree(&top);
                if folders.is_empty() {
                    break;
                }
                let mut failed = None;
                for folder in folders.iter().rev() {
                    failed = fs::remove_dir(folder).err();
                }
                if let Some(source) = failed {
                    if Instant::now() > deadline {
                        return Err(Error::File { action: "remove cgroup", path: top, source });
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Ok(())
    }

    /// Whether anything of ours is left.
    pub fn exists(&self) -> bool {
        self.roots().iter().any(|root| root.join(CGROUP).exists())
    }
}

/// Whether this is the v1 hierarchy that shares CPUs, alone or together with their accounts.
fn is_cpu(root: &Path) -> bool {
    root.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|controller| controller == "cpu"))
}

fn weigh(file: &Path, weight: u64) -> Result<()> {
    fs::write(file, weight.to_string()).map_err(Error::file("write", file))
}

/// A folder and all below it, parents first.
fn tree(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![top.to_owned()];
    while let Some(folder) = next.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        next.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(folder);
    }
    found
}

fn collect(top: &Path, into: &mut BTreeSet<i32>) {
    for folder in tree(top) {
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        into.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
}

/// A new cpuset group accepts no process before it has CPUs and memory nodes.
fn inherit_cpuset(folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, above) = (folder.join(file), folder.parent().map(|parent| parent.join(file)));
        if let Some(above) = above.filter(|_| own.exists())
            && command::read(&own)?.trim().is_empty()
        {
            fs::write(&own, command::read(&above)?).map_err(Error::file("write", &own))?;
        }
    }
    Ok(())
}

/// Lets the groups below `folder` use the controllers (v2). Inside a container the root itself may hold processes, which forbids it:
/// then those are moved into a group beside ours first, as the kernel's documentation of "no internal processes" demands.
fn delegate(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let available = command::read(&folder.join("cgroup.controllers"))?;
    let wanted: Vec<_> = CONTROLLERS
        .iter()
        .filter(|name| available.split_whitespace().any(|one| one == **name))
        .map(|name| format!("+{name}"))
        .collect();
    let wanted = wanted.join(" ");
    if fs::write(&file, &wanted).is_ok() {
        return Ok(());
    }
    let aside = folder.join("init");
    command::folder(&aside)?;
    for pid in command::read(&folder.join("cgroup.procs"))?.lines() {
        let _ = fs::write(aside.join("cgroup.procs"), pid);
    }
    fs::write(&file, &wanted).map_err(Error::file("write", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, target: &str) -> mounts::Mount {
        mounts::Mount { target: target.into(), kind: kind.into(), source: kind.into() }
    }

    #[test]
    fn v1_wins_on_a_hybrid_host() {
        let mounts = [
            mount("cgroup", "/sys/fs/cgroup/pids"),
            mount("cgroup", "/sys/fs/cgroup/cpu"),
            mount("cgroup2", "/sys/fs/cgroup/unified"),
        ];
        let found = Hierarchies::of(&mounts);
        assert_eq!(found, Some(Hierarchies::V1(mounts.iter().map(|mount| mount.target.clone()).collect())));
        let joined = ["pids", "cpu"].map(|one| PathBuf::from(format!("/sys/fs/cgroup/{one}/pelorus/node1/runtime")));
        assert_eq!(found.map(|one| one.joined("node1/runtime")), Some(joined.to_vec()));
    }

    #[test]
    fn v2_alone_is_found() {
        let found = Hierarchies::of(&[mount("cgroup2", "/sys/fs/cgroup")]);
        assert_eq!(found.map(|one| one.joined("control")), Some(vec![PathBuf::from("/sys/fs/cgroup/pelorus/control")]));
        assert_eq!(Hierarchies::of(&[mount("tmpfs", "/sys/fs/cgroup")]), None);
    }
}
