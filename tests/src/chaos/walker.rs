//! Going a walk: whom a step hits is looked up when it is due, and what lasts is undone when its time is over.
//!
//! Writers live on every node. A node without power takes its writers with it; they begin again when it has some.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use kube::ResourceExt;
use pelorus_dev::Node;
use pelorus_dev::fault::{self, Direction};
use serde_json::json;

use super::{Action, Step, Who};
use crate::Cluster;
use crate::bucket::Bucket;
use crate::faults::{CONTAINER, Faults, MYSQLD, Undo};
use crate::harness::OPERATOR_NAMESPACE;
use crate::ledger::{Ledger, Log, Options};
use crate::nats::NATS;

/// Longest making or undoing of a fault; powering a node on takes longest.
const ACT: Duration = Duration::from_secs(120);
/// What ends by itself in Kubernetes is started again this often.
const KEEP: Duration = Duration::from_secs(10);
/// What ships binlogs, and what makes dumps.
const SHIPPER: &str = "binlog-shipper";
const BACKUP_D: &str = "backup-d";
/// Longest look for who has which role.
const LOOK: Duration = Duration::from_secs(2);

/// Somebody who goes a walk.
pub struct Walker {
    shop: Cluster,
    bucket: Bucket,
    faults: Faults,
    origin: Instant,
    /// Who was what when it was last known.
    primary: String,
    replicas: Vec<String>,
    ledgers: BTreeMap<Node, Ledger>,
    log: Log,
    /// What is to be undone, and when.
    ends: Vec<(Duration, Undo)>,
    /// When the bucket is there again.
    bucket_back: Option<Duration>,
    kept: Instant,
}

impl Walker {
    /// Begins to write, on every node. `bucket`: where the cluster is archived.
    ///
    /// # Errors
    /// When the cluster takes no writes.
    pub async fn new(shop: &Cluster, bucket: Bucket, origin: Instant) -> Result<Self> {
        let mut ledgers = BTreeMap::new();
        for node in Node::all() {
            ledgers.insert(node, Ledger::start(shop, options(node, origin)).await?);
        }
        let (primary, replicas, faults) = (shop.primary().await?, shop.replicas().await?, Faults::new(shop));
        let (shop, log, ends, kept) = (shop.clone(), Log::default(), Vec::new(), Instant::now());
        Ok(Self { shop, bucket, faults, origin, primary, replicas, ledgers, log, ends, bucket_back: None, kept })
    }

    fn say(&self, what: &str) {
        println!("[{:8.2} s] {what}", self.origin.elapsed().as_secs_f64());
    }

    /// Looks up the roles; without an API server those known last stand.
    async fn look(&mut self) {
        let found = async {
            let primary = self.shop.primary().await?;
            anyhow::Ok((primary, self.shop.replicas().await?))
        };
        if let Ok(Ok((primary, replicas))) = tokio::time::timeout(LOOK, found).await {
            self.primary = primary;
            self.replicas = replicas;
        }
    }

    fn pod(&self, who: Who) -> Result<String> {
        match who {
            Who::Primary => Ok(self.primary.clone()),
            Who::Replica(k) => {
                self.replicas.get(k % self.replicas.len().max(1)).cloned().context("there is no replica")
            }
        }
    }

    fn others(&self, pod: &str) -> Vec<String> {
        std::iter::once(&self.primary).chain(&self.replicas).filter(|other| *other != pod).cloned().collect()
    }

    async fn part(&mut self, pod: &str, others: &[String], direction: Direction, percent: u8) -> Result<()> {
        for other in others {
            let (from, to) = (self.faults.party(pod), self.faults.party(other));
            self.faults.lose(from, to, direction, percent).await?;
        }
        Ok(())
    }

    /// Does it; the result says to whom.
    async fn act(&mut self, Step { action, lasts, .. }: Step) -> Result<String> {
        let on = async |this: &mut Self, who| anyhow::Ok((this.pod(who)?, this.faults.node_of(&this.pod(who)?).await?));
        Ok(match action {
            Action::KillMysqld(who) => {
                let pod = self.pod(who)?;
                self.faults.kill(&pod, MYSQLD).await?;
                pod
            }
            Action::KillContainer(who) => {
                let pod = self.pod(who)?;
                self.faults.kill(&pod, CONTAINER).await?;
                pod
            }
            Action::FreezeMysqld(who) => {
                let pod = self.pod(who)?;
                self.faults.freeze(&pod, MYSQLD).await?;
                pod
            }
            Action::FreezeContainer(who) => {
                let pod = self.pod(who)?;
                self.faults.freeze(&pod, CONTAINER).await?;
                pod
            }
            Action::Isolate(who) => {
                let pod = self.pod(who)?;
                self.faults.isolate(&pod, &self.others(&pod)).await?;
                pod
            }
            Action::OneWay(k) => {
                let (pod, other) = (self.primary.clone(), self.pod(Who::Replica(k))?);
                self.part(&pod, std::slice::from_ref(&other), Direction::OneWay, 100).await?;
                format!("{pod} to {other}")
            }
            Action::CutReplication => {
                let (pod, others) = (self.primary.clone(), self.replicas.clone());
                self.part(&pod, &others, Direction::Both, 100).await?;
                pod
            }
            Action::Lossy(who, percent) => {
                let pod = self.pod(who)?;
                self.part(&pod, &self.others(&pod), Direction::Both, percent).await?;
                pod
            }
            Action::CutFailoverD(who) => {
                let pod = self.pod(who)?;
                let failover_d = self.faults.daemon(daemon::FAILOVER_D).await?;
                self.faults.part(&[&pod], &[failover_d]).await?;
                pod
            }
            Action::Unplug(who) => {
                let (pod, node) = on(self, who).await?;
                self.faults.unplug(node).await?;
                format!("{} with {pod}", node.name())
            }
            Action::PowerOff(who) => {
                let (pod, node) = on(self, who).await?;
                // Its network goes with it: these writers could never write again.
                if let Some(ledger) = self.ledgers.remove(&node) {
                    self.log.merge(ledger.finish().await?);
                }
                self.faults.power_off(node).await?;
                format!("{} with {pod}", node.name())
            }
            Action::DeletePod(who) => {
                let pod = self.pod(who)?;
                self.shop.delete_pod(&pod).await?;
                pod
            }
            Action::DeletePodAtOnce(who) => {
                let pod = self.pod(who)?;
                self.faults.delete_at_once(&pod).await?;
                pod
            }
            Action::Switchover(k) => {
                let pod = self.pod(Who::Replica(k))?;
                self.shop.patch(json!({"primary": pod})).await?;
                pod
            }
            Action::ApiServer => {
                self.faults.stop_api_server().await?;
                "the API server".to_owned()
            }
            Action::Nats => {
                let name = self.shop.harness.deployment(NATS).await?.name_any();
                self.faults.scale(OPERATOR_NAMESPACE, &name, 0).await?;
                name
            }
            Action::KillFailoverD(k) => self.one_of(daemon::FAILOVER_D, k, false).await?,
            Action::FreezeFailoverD(k) => self.one_of(daemon::FAILOVER_D, k, true).await?,
            Action::KillTopologyCtl(k) => self.one_of(daemon::TOPOLOGY_CTL, k, false).await?,
            Action::Bucket => {
                ensure!(self.bucket_back.is_none(), "it is away already");
                self.bucket.server.kill();
                self.bucket_back = Some(self.origin.elapsed() + lasts);
                "the bucket".to_owned()
            }
            Action::KillShipper(k) => self.one_of(SHIPPER, k, false).await?,
            Action::FreezeShipper(k) => self.one_of(SHIPPER, k, true).await?,
            Action::KillBackupD(k) => self.one_of(BACKUP_D, k, false).await?,
        })
    }

    async fn one_of(&mut self, daemon: &str, k: usize, freeze: bool) -> Result<String> {
        let all = self.faults.programs_of(daemon).await?;
        let programs = all.get(k % all.len().max(1)).cloned().context("it has no pods")?;
        let pod = programs.pod.clone();
        if freeze {
            self.faults.freeze_in(programs).await?;
        } else {
            self.faults.kill_in(programs).await?;
        }
        Ok(pod)
    }

    async fn begin(&mut self, step: &Step) {
        self.look().await;
        let before = self.faults.undone_by().len();
        let done = tokio::time::timeout(ACT, self.act(*step)).await.context("it took too long").flatten();
        match done {
            Ok(whom) => self.say(&format!("{step} -> {whom}")),
            // Nobody there to hit: that is what becomes of walks.
            Err(error) => self.say(&format!("{step} -> not done: {error:#}")),
        }
        let end = self.origin.elapsed() + step.lasts;
        let added = self.faults.undone_by().get(before..).unwrap_or_default();
        self.ends.extend(added.iter().map(|undo| (end, undo.clone())));
    }

    /// Undoes what is over, and lets writers begin where there are none.
    async fn tidy(&mut self) {
        let now = self.origin.elapsed();
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ends).into_iter().partition(|(end, _)| *end <= now);
        self.ends = still;
        for (_, undo) in over {
            let done = tokio::time::timeout(ACT, self.faults.undo(&undo)).await.context("it took too long").flatten();
            match done {
                Ok(()) => self.say(&format!("            undone: {undo:?}")),
                Err(error) => {
                    self.say(&format!("            not undone yet: {undo:?}: {error:#}"));
                    self.ends.push((now + Duration::from_secs(5), undo));
                }
            }
        }
        if self.bucket_back.take_if(|back| *back <= now).is_some() {
            self.bucket.server.run();
            self.say("            undone: the bucket is back");
        }
        if self.kept.elapsed() > KEEP {
            self.kept = Instant::now();
            if let Err(error) = self.shop.harness.dev(fault::keep_running).await {
                self.say(&format!("            not kept running: {error:#}"));
            }
        }
        let has_power = |node: &Node| !self.faults.undone_by().contains(&Undo::Power(*node));
        let missing: Vec<Node> =
            Node::all().filter(|node| has_power(node) && !self.ledgers.contains_key(node)).collect();
        for node in missing {
            let joined = tokio::time::timeout(LOOK, Ledger::join(&self.shop, options(node, self.origin))).await;
            if let Ok(Ok(ledger)) = joined {
                self.ledgers.insert(node, ledger);
            }
        }
    }

    /// Goes the walk. What cannot be done is said, and the next step is taken.
    pub async fn go(&mut self, steps: &[Step]) {
        for step in steps {
            loop {
                self.tidy().await;
                let left = step.at.saturating_sub(self.origin.elapsed());
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(Duration::from_millis(100))).await;
            }
            self.begin(step).await;
        }
    }
}

impl Walker {
    /// Undoes every fault.
    ///
    /// # Errors
    /// When one cannot be undone.
    pub async fn heal(&mut self) -> Result<()> {
        self.ends.clear();
        self.bucket_back = self.bucket_back.map(|_| Duration::ZERO);
        if self.faults.heal().await.is_err() {
            // What needs the API server may need another moment.
            tokio::time::sleep(Duration::from_secs(10)).await;
            self.faults.heal().await?;
        }
        self.tidy().await;
        Ok(())
    }

    /// Ends the writers; the result is all that they were told, and the bucket.
    ///
    /// # Errors
    /// When one broke.
    pub async fn finish(mut self) -> Result<(Log, Bucket)> {
        for ledger in std::mem::take(&mut self.ledgers).into_values() {
            self.log.merge(ledger.finish().await?);
        }
        Ok((self.log, self.bucket))
    }
}

fn options(node: Node, origin: Instant) -> Options {
    let rest = Duration::from_millis(20);
    Options { writers: 3, rest, node: Some(node), origin: Some(origin), ..Options::impatient() }
}
