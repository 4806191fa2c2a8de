//! Where everything lies and what everything is called.
//!
//! State (data of etcd, certificates, nodes, volumes, records) lies below `PELORUS_DEV_DIR`; sockets and the state
//! that containerd keeps of running containers below [`RUN`], because the path of a socket may not be long; what was built
//! lies in the cache below `PELORUS_CACHE` and survives `down`. Everything in the kernel (namespaces, links, cgroups, chains)
//! has the prefix `pelorus` or `pel`, so that leftovers can be told from other people's things.

use std::path::PathBuf;

/// Sockets and runtime state.
pub const RUN: &str = "/run/pelorus-dev";
/// The bridge that is the wire between the nodes.
pub const BRIDGE: &str = "pel0";
/// Address of the host on the bridge; the API server listens here.
pub const HOST_IP: &str = "10.90.0.1";
/// Port of the API server on [`HOST_IP`].
pub const API_PORT: u16 = 6443;
/// ClusterIP of Service `default/kubernetes`.
pub const API_SERVICE_IP: &str = "10.96.0.1";
/// ClusterIP of the cluster's DNS.
pub const DNS_SERVICE_IP: &str = "10.96.0.10";
/// ClusterIPs.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Addresses of all pods.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Our chain in the host's FORWARD.
pub const HOST_CHAIN: &str = "PELORUS-DEV";
/// Our chain in the mangle table of a node's or a pod's network namespace, for drops.
pub const FAULT_CHAIN: &str = "PELORUS-FAULT";
/// Name of our cgroup, below each hierarchy's root.
pub const CGROUP: &str = "pelorus";
/// How many nodes there are.
pub const NODES: u8 = 3;

/// A node of the cluster, by its number (1 to [`NODES`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u8);

impl Node {
    /// All nodes.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=NODES).map(Self)
    }

    /// The node called `name` (`node1` …), when there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|node| node.name() == name)
    }

    /// Kubernetes name: `node1`.
    pub fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// Network namespace: `pelorus-node1`.
    pub fn netns(self) -> String {
        format!("pelorus-node{}", self.0)
    }

    /// The host's end of the node's cable: `pelnode1`.
    pub fn link(self) -> String {
        format!("pelnode{}", self.0)
    }

    /// Address on the bridge.
    pub fn ip(self) -> String {
        format!("10.90.0.1{}", self.0)
    }

    /// Addresses of this node's pods.
    pub fn pod_cidr(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    /// Value of the label `topology.kubernetes.io/zone`.
    pub fn zone(self) -> String {
        format!("zone{}", self.0)
    }
}

/// Folders of this cluster, from the environment.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `PELORUS_DEV_DIR`, default `/var/lib/pelorus-dev`.
    pub state: PathBuf,
    /// `PELORUS_CACHE`, default `$HOME/.cache/pelorus`.
    pub cache: PathBuf,
    /// Runtime state.
    pub run: PathBuf,
}

impl Paths {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let from = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home_cache = from("HOME").map(|home| home.join(".cache/pelorus"));
        Self {
            state: from("PELORUS_DEV_DIR").unwrap_or_else(|| PathBuf::from("/var/lib/pelorus-dev")),
            cache: from("PELORUS_CACHE").or(home_cache).unwrap_or_else(|| PathBuf::from("/var/cache/pelorus")),
            run: PathBuf::from(RUN),
        }
    }

    /// Credentials of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of("admin")
    }

    /// Credentials of a component or a node.
    pub fn kubeconfig_of(&self, who: &str) -> PathBuf {
        self.state.join("etc").join(format!("{who}.kubeconfig"))
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// Log of a process of the cluster.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state.join("log").join(format!("{process}.log"))
    }

    /// Records of processes that run.
    pub fn processes(&self) -> PathBuf {
        self.state.join("processes")
    }

    /// Records of faults that are in force.
    pub fn faults(&self) -> PathBuf {
        self.state.join("faults")
    }

    /// Volumes of the provisioner.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// Data of a node that survives a power-off.
    pub fn node(&self, node: Node) -> PathBuf {
        self.state.join(node.name())
    }

    /// What a node loses by a power-off.
    pub fn node_run(&self, node: Node) -> PathBuf {
        self.run.join(node.name())
    }

    /// containerd's socket of a node.
    pub fn containerd_socket(&self, node: Node) -> PathBuf {
        self.node_run(node).join("containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_parsed_back() {
        for node in Node::all() {
            assert_eq!(Node::parse(&node.name()), Some(node));
        }
        assert_eq!(Node::parse("node0"), None);
        assert_eq!(Node::parse("node10"), None);
        assert_eq!(Node::parse(""), None);
    }

    #[test]
    fn link_names_fit_the_kernel() {
        // IFNAMSIZ is 16 with the terminating zero.
        assert!(Node::all().all(|node| node.link().len() < 16));
    }
}
