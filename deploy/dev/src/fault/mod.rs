//! Faults on purpose: nodes cut off or powered off, packets dropped, processes frozen or killed, volumes filled, the API server stopped.
//!
//! # Guarantees
//! Every fault that lasts is recorded before it is made, can be undone by name, and is undone by [`heal`], also after the process that made it is gone.
//! Making a fault that is in force, or undoing one that is not, succeeds and changes nothing.
//!
//! # Caveats
//! All functions block: milliseconds for links and signals, up to a minute for a node that is powered on. Async callers wrap them in `spawn_blocking`.
//! None of them asks the API server, so they work while it is stopped. A fault on a pod holds for the pod that runs now: its successor is not hit.

mod network;
mod node;
mod process;
mod volume;

use std::{fmt, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    network::{Direction, Party, drop_between, lose_between, undrop},
    node::{cut_node, heal_node, keep_running, power_off, power_on, start_api_server, stop_api_server},
    process::{Process, Signal, freeze, kill_in_pod, processes_in_pod, thaw},
    volume::{break_volume, fill_volume, freeze_volume, thaw_volume, unfill_volume},
};
use crate::{
    cache::Inputs,
    cluster::Cluster,
    command,
    error::{Error, Result},
    paths::Node,
};

/// A fault that lasts until it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// A node's cable is unplugged.
    NodeCut {
        /// Name of the node.
        node: String,
    },
    /// A node is without power.
    NodeOff {
        /// Name of the node.
        node: String,
    },
    /// The API server is stopped.
    ApiServerStopped,
    /// Packets between two parties are dropped.
    Dropped {
        /// One party.
        from: Party,
        /// The other party.
        to: Party,
        /// Whether only packets towards `to` are dropped.
        direction: Direction,
        /// How many of a hundred packets, by chance.
        #[serde(default = "all")]
        percent: u8,
        /// Where rules were made: processes whose network namespace it is.
        holders: Vec<Process>,
        /// And nodes.
        nodes: Vec<String>,
    },
    /// Processes of a container are stopped (SIGSTOP).
    Frozen {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// Container in the pod.
        container: String,
        /// Name of the program.
        program: String,
        /// The very processes.
        processes: Vec<Process>,
    },
    /// A volume is filled.
    Filled {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
    },
    /// Every write to a volume waits.
    VolumeFrozen {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
    },
}

/// Records of earlier versions dropped every packet.
fn all() -> u8 {
    network::ALL
}

impl Fault {
    /// What makes it the same fault: two that differ in this are in force side by side.
    fn identity(&self) -> String {
        match self {
            Self::NodeCut { node } => format!("cut-{node}"),
            Self::NodeOff { node } => format!("off-{node}"),
            Self::ApiServerStopped => "api-server".into(),
            Self::Dropped { from, to, .. } => {
                format!("drop-{}", Inputs::default().with("from", from.to_string()).with("to", to.to_string()).key())
            }
            Self::Frozen { namespace, pod, container, program, .. } => {
                let inputs = [namespace, pod, container, program]
                    .into_iter()
                    .fold(Inputs::default(), |inputs, text| inputs.with("", text));
                format!("freeze-{}", inputs.key())
            }
            Self::Filled { namespace, claim } => format!("fill-{}", Inputs::default().with(namespace, claim).key()),
            Self::VolumeFrozen { namespace, claim } => {
                format!("still-{}", Inputs::default().with(namespace, claim).key())
            }
        }
    }

    fn undo(&self, cluster: &Cluster) -> Result<()> {
        let named = |name: &str| Node::parse(name).ok_or_else(|| Error::NotFound(format!("there is no node {name}")));
        match self {
            Self::NodeCut { node } => heal_node(cluster, named(node)?),
            Self::NodeOff { node } => power_on(cluster, named(node)?),
            Self::ApiServerStopped => start_api_server(cluster),
            Self::Dropped { from, to, .. } => undrop(cluster, from, to),
            Self::Frozen { namespace, pod, container, program, .. } => {
                thaw(cluster, namespace, pod, container, program)
            }
            Self::Filled { namespace, claim } => unfill_volume(cluster, namespace, claim),
            Self::VolumeFrozen { namespace, claim } => thaw_volume(cluster, namespace, claim),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeCut { node } => write!(f, "{node} is cut off"),
            Self::NodeOff { node } => write!(f, "{node} is powered off"),
            Self::ApiServerStopped => write!(f, "the API server is stopped"),
            Self::Dropped { from, to, direction: Direction::Both, percent, .. } => {
                write!(f, "{percent} % of the packets between {from} and {to} are dropped")
            }
            Self::Dropped { from, to, direction: Direction::OneWay, percent, .. } => {
                write!(f, "{percent} % of the packets from {from} to {to} are dropped")
            }
            Self::Frozen { namespace, pod, container, program, .. } => {
                write!(f, "{program} in {namespace}/{pod}/{container} is frozen")
            }
            Self::Filled { namespace, claim } => write!(f, "the volume of {namespace}/{claim} is filled"),
            Self::VolumeFrozen { namespace, claim } => write!(f, "the volume of {namespace}/{claim} takes no writes"),
        }
    }
}

fn file(cluster: &Cluster, identity: &str) -> PathBuf {
    cluster.paths.faults().join(format!("{identity}.json"))
}

/// Records a fault that is about to be made.
fn record(cluster: &Cluster, fault: &Fault) -> Result<()> {
    command::folder(&cluster.paths.faults())?;
    let text = serde_json::to_vec(fault).map_err(Error::json("write the record of a fault"))?;
    command::write(&file(cluster, &fault.identity()), text)
}

/// The record of this fault, when it is in force.
fn recorded(cluster: &Cluster, identity: &str) -> Option<Fault> {
    serde_json::from_slice(&fs::read(file(cluster, identity)).ok()?).ok()
}

/// Forgets a fault that was undone.
fn forget(cluster: &Cluster, identity: &str) -> Result<()> {
    let path = file(cluster, identity);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Faults that are in force.
pub fn active(cluster: &Cluster) -> Vec<Fault> {
    let entries = fs::read_dir(cluster.paths.faults()).into_iter().flatten().flatten();
    let mut identities: Vec<_> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
    identities.sort();
    identities.iter().filter_map(|identity| recorded(cluster, identity)).collect()
}

/// Undoes all faults that are in force. Each is tried, whatever becomes of the others; the first error is returned.
pub fn heal(cluster: &Cluster) -> Result<()> {
    let healed = active(cluster).iter().map(|fault| fault.undo(cluster)).fold(Ok(()), Result::and);
    healed.and(keep_running(cluster))
}

/// Forgets the faults that `up` has undone by itself, because it starts whatever does not run.
pub(crate) fn forget_ended(cluster: &Cluster) -> Result<()> {
    for fault in active(cluster) {
        if matches!(fault, Fault::NodeCut { .. } | Fault::NodeOff { .. } | Fault::ApiServerStopped) {
            forget(cluster, &fault.identity())?;
        }
    }
    Ok(())
}
