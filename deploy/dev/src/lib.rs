//! The project's own development Kubernetes: three nodes on one Linux host, without Docker, started and broken on purpose by one program.
//!
//! A node is a network namespace with its own containerd, kubelet and kube-proxy; etcd, API server, controller manager and scheduler are processes
//! of the host. Everything comes from pinned Go modules and Debian packages. The binary `devcluster` is a thin skin over this library, which
//! the end-to-end tests use directly:
//!
//! ```no_run
//! use pelorus_dev::{Cluster, Node, fault};
//!
//! # fn main() -> pelorus_dev::Result<()> {
//! let cluster = Cluster::open()?;
//! let node = cluster.node_of_pod("default", "demo-0")?;
//! fault::cut_node(&cluster, node)?;
//! fault::heal(&cluster)?;
//! # Ok(())
//! # }
//! ```
//!
//! All functions block; async callers wrap them in `spawn_blocking`.

mod addons;
pub mod build;
mod cache;
mod cgroup;
mod cluster;
mod command;
mod control_plane;
mod error;
pub mod fault;
mod host;
mod image;
pub mod images;
pub mod lifecycle;
mod mounts;
mod network;
mod node;
mod paths;
mod pki;
mod pods;
mod process;
pub mod provisioner;
mod volume;

pub use self::{
    cluster::Cluster,
    error::{Error, Result},
    node::NodeOptions,
    paths::{HOST_IP, Node, Paths},
};
