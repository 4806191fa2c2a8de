//! Faults on purpose, each with its way back: what is done to pods, nodes, daemons and wires, and undone again.
//!
//! A thin layer over [`pelorus_dev::fault`]: names of this cluster's pods instead of namespaces, the moment at which a
//! fault began, and a list of what has to be undone. Only own faults are undone, so that two tests can go on side by
//! side.

mod kubernetes;
mod undo;

use std::time::Instant;

use anyhow::{Context, Result};
use common::names::{self, CONTAINER_MYSQL};
use kube::ResourceExt;
use pelorus_dev::Node;
use pelorus_dev::fault::{self, Direction, Party, Signal};

pub use self::undo::{Programs, Undo};
use crate::harness::OPERATOR_NAMESPACE;
use crate::{Cluster, Harness};

/// mysqld alone: instance-d sees it die, or hang.
pub const MYSQLD: &[&str] = &["mysqld"];
/// The whole container, without a last word.
pub const CONTAINER: &[&str] = &["instance-d", "mysqld"];

/// Faults of one test, on one cluster.
pub struct Faults {
    harness: Harness,
    namespace: String,
    cluster: String,
    undo: Vec<Undo>,
}

impl Faults {
    /// No faults yet.
    pub fn new(cluster: &Cluster) -> Self {
        let Cluster { harness, namespace, name } = cluster;
        Self { harness: harness.clone(), namespace: namespace.clone(), cluster: name.clone(), undo: Vec::new() }
    }

    /// The MySQL container of a pod.
    pub fn mysql(&self, pod: &str, programs: &[&str]) -> Programs {
        Programs {
            namespace: self.namespace.clone(),
            pod: pod.to_owned(),
            container: CONTAINER_MYSQL.to_owned(),
            programs: programs.iter().map(|program| (*program).to_owned()).collect(),
        }
    }

    /// A pod of this cluster as a party.
    pub fn party(&self, pod: &str) -> Party {
        Party::Pod { namespace: self.namespace.clone(), name: pod.to_owned() }
    }

    /// All pods of a daemon that run now.
    ///
    /// # Errors
    /// When the daemon is not installed.
    pub async fn daemon(&self, daemon: &str) -> Result<Party> {
        let name = self.harness.deployment(daemon).await?.name_any();
        Ok(Party::Deployment { namespace: OPERATOR_NAMESPACE.to_owned(), name })
    }

    /// The node that a pod runs on.
    ///
    /// # Errors
    /// When it runs nowhere.
    pub async fn node_of(&self, pod: &str) -> Result<Node> {
        let (namespace, pod) = (self.namespace.clone(), pod.to_owned());
        self.harness.dev(move |dev| dev.node_of_pod(&namespace, &pod)).await
    }

    /// Claim of an instance's volume.
    pub fn claim(instance: &str) -> String {
        format!("data-{instance}")
    }

    async fn signal(&self, programs: Programs, signal: Signal) -> Result<Instant> {
        self.harness
            .dev(move |dev| {
                let Programs { namespace, pod, container, programs } = &programs;
                let mut found = Vec::new();
                for program in programs {
                    found.extend(fault::processes_in_pod(dev, namespace, pod, container, program)?);
                }
                // Found first: the clock starts at the signal.
                let begun = Instant::now();
                for process in found {
                    process.signal(signal);
                }
                Ok(begun)
            })
            .await
    }

    /// SIGKILL to programs of a pod, in their order. The result is the moment of the first signal.
    ///
    /// # Errors
    /// When one of them does not run.
    pub async fn kill(&self, pod: &str, programs: &[&str]) -> Result<Instant> {
        self.signal(self.mysql(pod, programs), Signal::SIGKILL).await
    }

    /// SIGKILL to a program in any pod.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_in(&self, programs: Programs) -> Result<Instant> {
        self.signal(programs, Signal::SIGKILL).await
    }

    /// SIGSTOP to programs of a pod.
    ///
    /// # Errors
    /// When one of them does not run.
    pub async fn freeze(&mut self, pod: &str, programs: &[&str]) -> Result<Instant> {
        self.freeze_in(self.mysql(pod, programs)).await
    }

    /// SIGSTOP to programs of any pod.
    ///
    /// # Errors
    /// When one of them does not run.
    pub async fn freeze_in(&mut self, programs: Programs) -> Result<Instant> {
        self.undo.push(Undo::Thaw(programs.clone()));
        let begun = Instant::now();
        self.harness
            .dev(move |dev| {
                let Programs { namespace, pod, container, programs } = &programs;
                programs.iter().try_for_each(|program| fault::freeze(dev, namespace, pod, container, program))
            })
            .await?;
        Ok(begun)
    }

    /// Drops packets between two parties, some or all (100).
    ///
    /// # Errors
    /// When a party is not there.
    pub async fn lose(&mut self, from: Party, to: Party, direction: Direction, percent: u8) -> Result<Instant> {
        self.undo.push(Undo::Pass(from.clone(), to.clone()));
        let begun = Instant::now();
        self.harness.dev(move |dev| fault::lose_between(dev, &from, &to, direction, percent)).await?;
        Ok(begun)
    }

    /// Cuts pods off from other parties, both ways. The result is the moment of the first cut.
    ///
    /// # Errors
    /// When a party is not there.
    pub async fn part(&mut self, pods: &[&str], others: &[Party]) -> Result<Instant> {
        let begun = Instant::now();
        for pod in pods {
            for other in others {
                self.lose(self.party(pod), other.clone(), Direction::Both, 100).await?;
            }
        }
        Ok(begun)
    }

    /// Cuts a pod off from everybody but clients: the other instances of its cluster, both daemons, the API server.
    ///
    /// # Errors
    /// When a party is not there.
    pub async fn isolate(&mut self, pod: &str, others: &[String]) -> Result<Instant> {
        let mut parties: Vec<Party> = others.iter().map(|other| self.party(other)).collect();
        parties.push(self.daemon(names::daemon::FAILOVER_D).await?);
        parties.push(self.daemon(names::daemon::TOPOLOGY_CTL).await?);
        parties.push(Party::ApiServer);
        self.part(&[pod], &parties).await
    }

    /// Unplugs a node.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn unplug(&mut self, node: Node) -> Result<Instant> {
        self.undo.push(Undo::Plug(node));
        let begun = Instant::now();
        self.harness.dev(move |dev| fault::cut_node(dev, node)).await?;
        Ok(begun)
    }

    /// Takes a node's power.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn power_off(&mut self, node: Node) -> Result<Instant> {
        self.undo.push(Undo::Power(node));
        let begun = Instant::now();
        self.harness.dev(move |dev| fault::power_off(dev, node)).await?;
        Ok(begun)
    }

    /// Stops the API server.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn stop_api_server(&mut self) -> Result<Instant> {
        self.undo.push(Undo::ApiServer);
        let begun = Instant::now();
        self.harness.dev(fault::stop_api_server).await?;
        Ok(begun)
    }

    /// Fills the volume of an instance (of class `sized`).
    ///
    /// # Errors
    /// Those of the host.
    pub async fn fill(&mut self, instance: &str) -> Result<Instant> {
        let claim = Self::claim(instance);
        self.undo.push(Undo::Unfill(claim.clone()));
        let (begun, namespace) = (Instant::now(), self.namespace.clone());
        self.harness.dev(move |dev| fault::fill_volume(dev, &namespace, &claim, 0)).await?;
        Ok(begun)
    }

    /// Lets every write to the volume of an instance (of class `sized`) wait.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn freeze_volume(&mut self, instance: &str) -> Result<Instant> {
        let claim = Self::claim(instance);
        self.undo.push(Undo::ThawVolume(claim.clone()));
        let (begun, namespace) = (Instant::now(), self.namespace.clone());
        self.harness.dev(move |dev| fault::freeze_volume(dev, &namespace, &claim)).await?;
        Ok(begun)
    }

    /// Lets everything on the volume of an instance (of class `sized`) fail, for good.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn break_volume(&self, instance: &str) -> Result<Instant> {
        let (begun, namespace, claim) = (Instant::now(), self.namespace.clone(), Self::claim(instance));
        self.harness.dev(move |dev| fault::break_volume(dev, &namespace, &claim)).await?;
        Ok(begun)
    }

    /// Removes everything on the volume of an instance.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn wipe(&self, instance: &str) -> Result<()> {
        let (namespace, claim) = (self.namespace.clone(), Self::claim(instance));
        let folder = self.harness.dev(move |dev| dev.volume_folder(&namespace, &claim)).await?;
        let mut entries = tokio::fs::read_dir(&folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            if entry.file_type().await?.is_dir() {
                tokio::fs::remove_dir_all(entry.path()).await?;
            } else {
                tokio::fs::remove_file(entry.path()).await?;
            }
        }
        Ok(())
    }

    /// What is to be undone, oldest first.
    pub fn undone_by(&self) -> &[Undo] {
        &self.undo
    }

    /// Undoes one fault.
    ///
    /// # Errors
    /// Those of the host or the API server; it stays on the list.
    pub async fn undo(&mut self, undo: &Undo) -> Result<()> {
        undo.take_back(&self.harness, &self.namespace)
            .await
            .with_context(|| format!("undo {undo:?} on {}", self.cluster))?;
        self.undo.retain(|one| one != undo);
        Ok(())
    }

    /// Undoes all faults, the newest first. Each is tried, whatever becomes of the others.
    ///
    /// # Errors
    /// The first that could not be undone.
    pub async fn heal(&mut self) -> Result<()> {
        let mut result = Ok(());
        // What the API server does comes last: it may be one of those that are brought back.
        let (late, early): (Vec<_>, Vec<_>) = self.undo.iter().rev().cloned().partition(Undo::asks_the_api_server);
        for undo in early.iter().chain(&late) {
            let done = self.undo(undo).await;
            result = result.and(done);
        }
        result
    }
}
