//! A bucket of a real S3 server on this host, which pods reach at the address of the API server, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use archive::catalogue::{self, Held};
use archive::plan::{Target, plan};
use archive::{Root, Store, fetch};
use common::crd::{
    Archive, BinlogArchive, DumpPhase, LocationRef, MySQLBackupLocation, MySQLBackupSchedule, MySQLDump,
};
use common::gtid::GtidSet;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use pelorus_dev::HOST_IP;
use serde_json::{Value, json};
use testkit::{Mysqld, Options, S3};

use crate::ledger;
use crate::pace::{Look, until};
use crate::{Cluster, Scene, spec};

/// Prefix in the bucket.
const PREFIX: &str = "prod/";
/// Longest wait for what was written to be in the bucket.
const SOON: Duration = Duration::from_secs(60);
/// In no event of a cluster: instances count from 1.
const SERVER_ID: u32 = 4_000_000_000;

/// A bucket, and the MySQLBackupLocation of a namespace that leads to it.
pub struct Bucket {
    /// The server.
    pub server: S3,
    name: String,
    store: Store,
}

impl Bucket {
    /// Starts a server and makes the location with its Secrets.
    ///
    /// # Errors
    /// When the objects cannot be made.
    pub async fn open(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let server = S3::start_on(HOST_IP.parse().context("the host's address")?);
        let (keys, authority) = (format!("{name}-keys"), format!("{name}-ca"));
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = |name: &str, pairs: &[(&str, &str)]| {
            let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
            let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
            secret.metadata.name = Some(name.to_owned());
            secret
        };
        let pairs = [("accessKeyId", S3::KEY_ID), ("secretAccessKey", S3::SECRET)];
        secrets.create(&PostParams::default(), &secret(&keys, &pairs)).await?;
        secrets.create(&PostParams::default(), &secret(&authority, &[("ca.crt", server.authority())])).await?;
        let location: MySQLBackupLocation = serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLBackupLocation", "metadata": {"name": name},
            "spec": {"s3": {
                "bucket": S3::BUCKET, "prefix": PREFIX, "endpoint": server.endpoint(), "forcePathStyle": true,
                "credentialsSecretRef": {"name": keys}, "caSecretRef": {"name": authority},
            }},
        }))?;
        Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &location).await?;
        let store = Store::new(&serde_json::from_str(&server.location(PREFIX))?)?;
        Ok(Self { server, name: name.to_owned(), store })
    }

    /// One, and a small cluster `shop` of so many instances that is archived there.
    ///
    /// # Errors
    /// When one of them does not come.
    pub async fn with_shop(scene: &Scene, instances: u32) -> Result<(Self, Cluster)> {
        let bucket = Self::open(&scene.harness.client, &scene.namespace, "here").await?;
        let mut wanted = spec::small(instances);
        wanted.archive = Some(bucket.archive());
        let shop = scene.create("shop", wanted).await?;
        Ok((bucket, shop))
    }

    /// For the spec of a cluster that is archived here.
    pub fn archive(&self) -> Archive {
        Archive { location_ref: LocationRef { name: self.name.clone() }, binlog: BinlogArchive::default() }
    }

    async fn root(cluster: &Cluster) -> Result<Root> {
        let uid = cluster.get().await?.uid().context("a cluster without a uid")?;
        Ok(Root::new(PREFIX, &cluster.namespace, &cluster.name, &uid))
    }

    /// All that is in the archive of a cluster.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn held(&self, cluster: &Cluster) -> Result<Vec<Held>> {
        Ok(catalogue::read(&self.store, &Self::root(cluster).await?).await?)
    }

    /// Transactions in the archive of a cluster.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn shipped(&self, cluster: &Cluster) -> Result<GtidSet> {
        Ok(catalogue::shipped(&self.held(cluster).await?))
    }

    /// Asks for a dump of a cluster each minute.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn dump_each_minute(&self, cluster: &Cluster) -> Result<()> {
        let schedule: MySQLBackupSchedule = serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLBackupSchedule", "metadata": {"name": "each-minute"},
            "spec": {"clusterRef": {"name": cluster.name}, "locationRef": {"name": self.name},
                     "schedule": "* * * * *", "verify": false},
        }))?;
        cluster.api().create(&PostParams::default(), &schedule).await?;
        Ok(())
    }

    /// Asks for a dump of a cluster, and waits until it has come so far.
    ///
    /// # Errors
    /// When it is refused, or not in time.
    pub async fn dump(&self, cluster: &Cluster, name: &str, verify: bool, phase: DumpPhase) -> Result<MySQLDump> {
        self.dump_with(cluster, name, json!({"verify": verify}), phase, SOON).await
    }

    /// The same with other fields of its spec.
    ///
    /// # Errors
    /// When it is refused, or not in time.
    pub async fn dump_with(
        &self,
        cluster: &Cluster,
        name: &str,
        mut spec: Value,
        phase: DumpPhase,
        within: Duration,
    ) -> Result<MySQLDump> {
        if let Some(fields) = spec.as_object_mut() {
            fields.insert("clusterRef".to_owned(), json!({"name": cluster.name}));
            fields.insert("locationRef".to_owned(), json!({"name": self.name}));
        }
        let dump: MySQLDump = serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLDump", "metadata": {"name": name}, "spec": spec,
        }))?;
        cluster.api().create(&PostParams::default(), &dump).await?;
        until(&format!("the dump {name}"), within, async || {
            let dump: MySQLDump = cluster.api().get(name).await?;
            Ok(match dump.status.as_ref().and_then(|status| status.phase) {
                Some(reached) if reached == phase => Look::Done(dump),
                _ => Look::Not(format!("{:?}", dump.status)),
            })
        })
        .await
    }

    /// Every object of the bucket, as the server keeps it: a file each.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn objects(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let (mut folders, mut found) = (vec![self.server.folder()], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read(path)?);
                }
            }
        }
        Ok(found)
    }

    /// A new cluster is made of the archive, of the newest dump and the binlogs since, as a user would make it, and has the ledger's
    /// rows (see [`Bucket::restores`]). The result says of what it was made.
    ///
    /// # Errors
    /// When it has not.
    pub async fn restores_as(&self, cluster: &Cluster, name: &str, within: Duration) -> Result<String> {
        let mut said = String::new();
        let rows = self.compared(cluster, async || {
            let copy = Cluster { name: name.to_owned(), ..cluster.clone() };
            let place = json!({"locationRef": {"name": self.name}, "cluster": cluster.name});
            let copy = copy.restoring(1, json!({"fromLocation": place})).await?;
            copy.wait_ready(1, within).await?;
            said = copy.wait_condition("Restored", "True", within).await?.message;
            ledger::rows(&copy, &copy.primary().await?).await
        });
        Ok(format!("{} rows are in a new cluster as they should be. {said}", rows.await?))
    }

    /// A server on this host with everything that the archive holds, and nothing else.
    ///
    /// # Errors
    /// When the archive is not what it should be.
    pub async fn restored(&self, cluster: &Cluster) -> Result<Mysqld> {
        let held = self.held(cluster).await?;
        let plan = plan(&GtidSet::default(), &held, &Target::Newest)?;
        let mysqld = Mysqld::start(Options::default().replays(SERVER_ID));
        mysqld.sql("RESET BINARY LOGS AND GTIDS").map_err(anyhow::Error::msg)?;
        let mut count = 0;
        let root = Self::root(cluster).await?;
        let written = fetch::relay_logs(&self.store, &root, &held, &plan, |number| {
            count = number + 1;
            mysqld.relay_log(number).map(BufWriter::new)
        });
        let written = written.await?;
        ensure!(written == plan.reaches, "{written} was fetched and {} was planned", plan.reaches);
        mysqld.replay(count, &written.to_string());
        Ok(mysqld)
    }

    /// Waits until all that the primary has executed now is in the bucket, as binlogs or in a dump.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn has_all(&self, cluster: &Cluster) -> Result<()> {
        let executed = cluster.executed(&cluster.primary().await?).await?;
        until("what was executed to be in the bucket", SOON, async || {
            let restorable = cluster.status().await?.restorable.and_then(|restorable| restorable.gtid);
            let restorable: GtidSet = restorable.unwrap_or_default().parse().unwrap_or_default();
            let missing = executed.subtract(&self.shipped(cluster).await?).subtract(&restorable);
            Ok(if missing.is_empty() { Look::Done(()) } else { Look::Not(format!("{missing} is not there")) })
        })
        .await
    }

    /// A copy made of the bucket alone has the ledger's rows: all that were there when this began, and none that is not there in
    /// the end (I9). Writers may go on.
    ///
    /// # Errors
    /// When it has not.
    pub async fn restores(&self, cluster: &Cluster) -> Result<()> {
        let rows = self.compared(cluster, async || {
            let mysqld = self.restored(cluster).await?;
            let restored = mysqld.sql(&ledger::question()).map_err(anyhow::Error::msg)?;
            Ok(restored.lines().map(str::to_owned).collect())
        });
        rows.await.map(drop)
    }

    /// Compares the rows of a copy with those of the primary before and after it was made; how many there are.
    async fn compared(&self, cluster: &Cluster, copy: impl AsyncFnOnce() -> Result<BTreeSet<String>>) -> Result<usize> {
        let there = async || ledger::rows(cluster, &cluster.primary().await?).await;
        let before = there().await?;
        self.has_all(cluster).await?;
        let restored = copy().await?;
        let after = there().await?;
        let lacks = before.difference(&restored).next();
        let (wanted, count) = (before.len(), restored.len());
        ensure!(lacks.is_none(), "of {wanted} rows {count} were restored, and one is missing: {lacks:?}");
        let strange = restored.difference(&after).next();
        ensure!(strange.is_none(), "{strange:?} was restored, and the primary does not have it");
        Ok(count)
    }
}
