//! Which processes and which network namespace belong to a pod, read from containerd's own files.
//!
//! Neither the API server nor containerd is asked, so that faults can be injected and healed while those are down. containerd keeps a
//! folder for each running container (the OCI bundle): `config.json` says whose it is and where its cgroup and network namespace are, `init.pid`
//! holds its first process.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    network,
    paths::Node,
    process,
};

/// A container that runs, or the sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Where it runs.
    pub node: Node,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// Its name in the pod; none for the sandbox.
    pub name: Option<String>,
    /// Its first process.
    pub init: i32,
    /// Its cgroup, from the root of a hierarchy.
    pub cgroup: String,
}

impl Container {
    /// Network namespace of the pod, by a process in it.
    pub fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.init).into()
    }

    /// The pod's address.
    pub fn ip(&self) -> Result<String> {
        let text = network::in_netns(&self.netns(), "ip -4 -o addr show dev eth0")?;
        parse_address(&text)
            .ok_or_else(|| Error::NotFound(format!("pod {}/{} has no address", self.namespace, self.pod)))
    }

    /// Processes in the container whose command is `name` (the kernel's 15 letters of it, or the file name of `argv[0]`).
    pub fn processes(&self, cluster: &Cluster, name: &str) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        let group = self.cgroup.trim_start_matches('/').strip_prefix(crate::paths::CGROUP).unwrap_or_default();
        pids.extend(cluster.cgroups.processes(group.trim_start_matches('/')));
        pids.into_iter().filter(|pid| is_called(*pid, name)).collect()
    }
}

fn is_called(pid: i32, name: &str) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = argv.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(program);
    comm.trim_end() == name || Path::new(program.as_ref()).file_name().is_some_and(|file| file == name)
}

fn parse_address(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "inet");
    Some(words.nth(1)?.split('/').next()?.to_owned())
}

/// Everything that runs in pods, on all nodes.
pub(crate) fn all(cluster: &Cluster) -> Vec<Container> {
    Node::all().flat_map(|node| on_node(cluster, node)).collect()
}

fn on_node(cluster: &Cluster, node: Node) -> Vec<Container> {
    let bundles = cluster.paths.node_run(node).join("containerd/io.containerd.runtime.v2.task/k8s.io");
    let entries = fs::read_dir(bundles).into_iter().flatten().flatten();
    entries.filter_map(|entry| container(node, &entry.path())).collect()
}

fn container(node: Node, bundle: &Path) -> Option<Container> {
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    let init: i32 = fs::read_to_string(bundle.join("init.pid")).ok()?.trim().parse().ok()?;
    // A container that has ended leaves its folder for a while.
    process::start_time(init)?;
    parse(node, init, &config)
}

fn parse(node: Node, init: i32, config: &Value) -> Option<Container> {
    let annotation =
        |key: &str| config.get("annotations")?.get(format!("io.kubernetes.cri.{key}"))?.as_str().map(str::to_owned);
    Some(Container {
        node,
        namespace: annotation("sandbox-namespace")?,
        pod: annotation("sandbox-name")?,
        name: if annotation("container-type")? == "sandbox" { None } else { Some(annotation("container-name")?) },
        init,
        cgroup: config.get("linux")?.get("cgroupsPath")?.as_str()?.to_owned(),
    })
}

/// The sandbox of a pod.
pub(crate) fn sandbox(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Container> {
    all(cluster)
        .into_iter()
        .find(|one| one.name.is_none() && one.namespace == namespace && one.pod == pod)
        .ok_or_else(|| Error::NotFound(format!("no pod {namespace}/{pod} runs on any node")))
}

/// A container of a pod.
pub(crate) fn find(cluster: &Cluster, namespace: &str, pod: &str, container: &str) -> Result<Container> {
    all(cluster)
        .into_iter()
        .find(|one| one.name.as_deref() == Some(container) && one.namespace == namespace && one.pod == pod)
        .ok_or_else(|| Error::NotFound(format!("no container {container} of pod {namespace}/{pod} runs on any node")))
}

/// The sandboxes of the pods of a Deployment, by the shape of their names: `<deployment>-<template hash>-<five letters>`.
pub(crate) fn of_deployment(cluster: &Cluster, namespace: &str, deployment: &str) -> Vec<Container> {
    let mut found = all(cluster);
    found.retain(|one| one.name.is_none() && one.namespace == namespace && belongs_to(&one.pod, deployment));
    found
}

fn belongs_to(pod: &str, deployment: &str) -> bool {
    let Some((hash, suffix)) = pod.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')?.split_once('-'))
    else {
        return false;
    };
    let plain =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    plain(hash) && suffix.len() == 5 && plain(suffix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bundles_are_understood() {
        let node = Node::parse("node2").unwrap();
        let mut config = serde_json::json!({
            "annotations": {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": "mysql",
                "io.kubernetes.cri.sandbox-name": "demo-0",
                "io.kubernetes.cri.sandbox-namespace": "default"
            },
            "linux": {"cgroupsPath": "/pelorus/node2/kubepods/burstable/podx/y"}
        });
        let container = parse(node, 7, &config).unwrap();
        assert_eq!(container.name.as_deref(), Some("mysql"));
        assert_eq!(container.pod, "demo-0");
        *config.pointer_mut("/annotations/io.kubernetes.cri.container-type").unwrap() = "sandbox".into();
        assert_eq!(parse(node, 7, &config).unwrap().name, None);
        assert_eq!(parse(node, 7, &serde_json::json!({})), None);
    }

    #[test]
    fn pods_of_a_deployment_are_told_from_its_namesakes() {
        assert!(belongs_to("failover-d-7d9f8b6c5-x2x4z", "failover-d"));
        assert!(!belongs_to("failover-d-extra-7d9f8b6c5-x2x4z", "failover-d"));
        assert!(!belongs_to("failover-d-0", "failover-d"));
        assert!(!belongs_to("failover-7d9f8b6c5-x2x4z", "failover-d"));
    }

    #[test]
    fn addresses_are_read() {
        let text = "2: eth0    inet 10.244.1.7/24 brd 10.244.1.255 scope global eth0\\       valid_lft forever";
        assert_eq!(parse_address(text).as_deref(), Some("10.244.1.7"));
        assert_eq!(parse_address(""), None);
    }
}
