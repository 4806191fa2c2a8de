//! The life of each MySQLDump: asked for, made, kept, taken away.
//!
//! ```text
//! (new) -> Pending -> Running -> Succeeded           deleted: objects of the bucket go first, then the finalizer
//!             ^___________|  `-> Failed, after ATTEMPTS
//! ```
//!
//! What was made is known from the bucket alone: a dump is named after its object's uid, and exists when it has a manifest. So one that
//! was finished by a process that died before it said so is taken as it is, and what another left behind is cleared away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use archive::{Root, Store};
use common::crd::{BackupMethod, DumpPhase, MySQLCluster, MySQLDump, MySQLDumpStatus};
use common::daemon::{Patience, everywhere, watching};
use common::events::{Event, Events};
use common::lease::members::Members;
use common::location::Location;
use common::names::LABEL_CLUSTER;
use common::read;
use common::source::source;
use dump::manifest::Found;
use futures::Stream;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Config as Pace, Controller};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::config::Config;
use crate::metrics::{Cluster, Metrics};
use crate::objects::{self, time};
use crate::{decide, dumping};

mod copying;
mod scratch;
mod verifying;

/// Keeps the object until what it stands for is gone from the bucket.
const FINALIZER: &str = "pelorus.dev/dump";
/// Attempts at one dump.
const ATTEMPTS: u32 = 3;
/// Pauses: for what may be there in a moment, and for what a person has to mend.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(20);

/// Attempts that failed, by uid; losing them costs attempts.
pub type Attempts = Mutex<HashMap<String, u32>>;

/// What all share.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// NATS.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Configuration.
    pub config: Config,
    /// Who we are among the members.
    pub identity: String,
    /// Who else is at work.
    pub members: watch::Receiver<Members>,
    /// See [`Attempts`].
    pub attempts: Attempts,
}

impl Context {
    /// Whether the object belongs to this replica's share.
    pub fn owns(&self, object: &impl ResourceExt) -> bool {
        self.members.borrow().is_mine(&object.uid().unwrap_or_default())
    }

    /// An item each time that shares change: whose each object is has to be asked anew.
    pub fn moves(&self) -> impl Stream<Item = ()> + Send + 'static {
        futures::stream::unfold(self.members.clone(), |mut members| async {
            members.changed().await.ok().map(|()| ((), members))
        })
    }
}

/// Why nothing can be done about an object now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write of ours.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    /// Something that is named.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The bucket.
    #[error(transparent)]
    Store(#[from] archive::store::Error),
    /// The dump.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// Another replica has written the status since.
    #[error("another replica has it")]
    Superseded,
}

/// Runs until the token is cancelled. Dumps that are being made are given up then, and made anew by whoever works next.
pub async fn run(context: Arc<Context>, token: CancellationToken) {
    let dumps = everywhere::<MySQLDump>(&context.client, context.config.watch_namespace.as_deref());
    let controller = Controller::new(dumps, watching())
        .with_config(Pace::default().concurrency(context.config.concurrency))
        .trigger_backoff(Patience::default())
        .reconcile_all_on(context.moves());
    let look = |dump: Arc<MySQLDump>, context: Arc<Context>| async move {
        let (namespace, name) = (dump.namespace().unwrap_or_default(), dump.name_any());
        let span = info_span!("dump", namespace, cluster = dump.spec.cluster_ref.name, name);
        Look::new(dump, context).run().instrument(span).await
    };
    let wait = |dump: Arc<MySQLDump>, error: &Error, _: Arc<Context>| {
        if matches!(error, Error::Superseded) {
            return Action::requeue(SOON);
        }
        warn!(%error, namespace = dump.namespace(), name = dump.name_any(), "it is looked at again");
        Action::requeue(LATER)
    };
    objects::drive(controller.run(look, wait, context), token).await;
}

/// One look at one object.
struct Look {
    dump: Arc<MySQLDump>,
    context: Arc<Context>,
    /// resourceVersion and status of the object as they were last seen or written. Writes are made to exactly that: whoever was paused,
    /// or looks at what is out of date, does not undo what another has said since.
    seen: Mutex<Seen>,
}

#[derive(Clone)]
struct Seen {
    version: Option<String>,
    status: Option<MySQLDumpStatus>,
}

impl Seen {
    fn of(dump: &MySQLDump) -> Self {
        Self { version: dump.resource_version(), status: dump.status.clone() }
    }
}

/// Where a dump lies.
struct Place {
    store: Store,
    root: Root,
    cluster: MySQLCluster,
}

impl Look {
    fn new(dump: Arc<MySQLDump>, context: Arc<Context>) -> Self {
        let seen = Mutex::new(Seen::of(&dump));
        Self { dump, context, seen }
    }

    async fn run(&self) -> Result<Action, Error> {
        let is_ours = decide::is_ours(&self.dump, &self.context.members.borrow(), &self.context.identity);
        if !is_ours {
            return Ok(Action::await_change());
        }
        if self.dump.metadata.deletion_timestamp.is_some() {
            return Box::pin(self.take_away()).await;
        }
        match decide::phase(&self.dump) {
            Some(DumpPhase::Verifying) => return Box::pin(self.verify()).await,
            Some(DumpPhase::Succeeded | DumpPhase::Failed) => return self.forget_scratch().await,
            Some(DumpPhase::Pending | DumpPhase::Running | DumpPhase::Deleting) | None => {}
        }
        self.hold(true).await?;
        let is_physical = self.dump.spec.method == BackupMethod::Physical;
        if is_physical && !(self.dump.spec.schemas.is_empty() && self.dump.spec.exclude_tables.is_empty()) {
            let why =
                "spec.method Physical copies all files: spec.schemas and spec.excludeTables are for Logical dumps";
            return self.fail(why).await;
        }
        let place = match self.place().await {
            Ok(place) => place,
            Err(Error::Read(error @ read::Error::Missing(_))) => return self.wait(&error.to_string(), LATER).await,
            Err(error) => return Err(error),
        };
        if is_physical {
            return Box::pin(self.copy(&place)).await;
        }
        if let Some(found) = Box::pin(self.cleared(&place)).await? {
            return self.succeed(&found, None).await;
        }
        let source = match source(place.cluster.status.as_ref()) {
            Ok(source) => source.to_owned(),
            Err(why) => return self.wait(why, SOON).await,
        };
        self.make(&place, &source).await
    }

    /// The first eight letters of the uid: the end of all names of this dump in the bucket.
    fn mark(&self) -> String {
        let uid = self.dump.uid().unwrap_or_default();
        format!("-{}", uid.get(..8).unwrap_or(&uid))
    }

    /// The name of the attempt that began then.
    fn id(&self, began: jiff::Timestamp) -> String {
        dump::make::id(began, self.mark().trim_start_matches('-'))
    }

    async fn place(&self) -> Result<Place, Error> {
        let namespace = self.dump.namespace().unwrap_or_default();
        let cluster: MySQLCluster =
            read::object(&self.context.client, &namespace, &self.dump.spec.cluster_ref.name).await?;
        let location = Location::resolve(&self.context.client, &namespace, &self.dump.spec.location_ref.name).await?;
        let root = Root::new(&location.prefix, &namespace, &cluster.name_any(), &cluster.uid().unwrap_or_default());
        Ok(Place { store: Store::new(&location)?, root, cluster })
    }

    /// Names that this dump has in the bucket.
    async fn names(&self, place: &Place) -> Result<Vec<String>, Error> {
        let mark = self.mark();
        let all = place.store.folders(&place.root.dumps()).await?;
        Ok(all.into_iter().filter(|name| name.ends_with(&mark)).collect())
    }

    /// The manifest, if the dump was made; what attempts that were cut left behind is taken away.
    async fn cleared(&self, place: &Place) -> Result<Option<Found>, Error> {
        let mut made = None;
        let mut names = self.names(place).await?;
        // An attempt that has put nothing yet is given up, too: who makes it may wake.
        let running = self.dump.status.as_ref().filter(|status| status.phase == Some(DumpPhase::Running));
        names.extend(running.and_then(|status| status.started_at.as_ref()).map(|at| self.id(at.0)));
        for id in names {
            made = made_or_given_up(place, &id).await?.or(made);
        }
        Ok(made)
    }

    async fn make(&self, place: &Place, source: &str) -> Result<Action, Error> {
        // As the status says it: the name follows from it.
        let began = time(common::clock::now()).0;
        info!(source, "a dump begins");
        let running = json!({
            "phase": DumpPhase::Running,
            "source": source,
            "startedAt": time(began),
            "worker": self.context.identity,
        });
        self.say(running.clone()).await?;
        self.event("backup.started", json!({"dump": self.dump.name_any(), "source": source}));
        self.context.metrics.running.inc();
        let making = dumping::Dumping {
            client: self.context.client.clone(),
            dump: Arc::clone(&self.dump),
            source: source.to_owned(),
            id: self.id(began),
            store: place.store.clone(),
            root: place.root.clone(),
            connections: self.context.config.connections,
        };
        let made = making.run(|progress| self.say(merged(&running, json!({"progress": progress})))).await;
        self.context.metrics.running.dec();
        match made {
            Ok(found) => self.succeed(&found, Some((began, source))).await,
            Err(dumping::Ended::Deleted) => Ok(Action::requeue(Duration::ZERO)),
            Err(dumping::Ended::Superseded) => {
                info!("another replica makes it now");
                Err(Error::Superseded)
            }
            Err(dumping::Ended::Failed(problem)) => self.failed(&problem).await,
        }
    }

    /// An attempt came to nothing.
    async fn failed(&self, problem: &str) -> Result<Action, Error> {
        self.context.metrics.failed.get_or_create(&self.labels()).inc();
        let failures = {
            let mut attempts = self.context.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let failures = attempts.entry(self.dump.uid().unwrap_or_default()).or_default();
            *failures += 1;
            *failures
        };
        warn!(problem, failures, "a dump failed");
        if failures < ATTEMPTS {
            return self.wait(&format!("{problem}; it is tried again"), SOON).await;
        }
        self.fail(problem).await
    }

    /// `made`: when it was begun, and from where, if that is known better than by the object, which is as it was then.
    async fn succeed(&self, found: &Found, made: Option<(jiff::Timestamp, &str)>) -> Result<Action, Error> {
        let Found { manifest, blob } = found;
        let began = made.map(|(began, _)| began);
        let (stored, rows, bytes) = (manifest.stored(), manifest.rows(), manifest.bytes());
        let before = self.dump.status.as_ref();
        let started = before.and_then(|status| status.started_at.as_ref()).map(|at| at.0);
        let seconds = began.map(|began| common::clock::now().as_second().saturating_sub(began.as_second()).max(0));
        let verifies = self.dump.spec.verify && manifest.whole;
        let mut status = json!({
            "phase": if verifies { DumpPhase::Verifying } else { DumpPhase::Succeeded },
            "progress": objects::present(json!({"rows": rows, "bytes": bytes, "percent": 100})),
            "source": made.map(|(_, source)| source).or_else(|| before?.source.as_deref()),
            "gtid": manifest.gtid.to_string(),
            "startedAt": began.or(started).map(time),
            "size": format!("{}Ki", stored.div_ceil(1024)),
            "manifest": {"key": blob.key, "sha256": blob.sha256},
        });
        if let (Some(seconds), Some(fields)) = (seconds, status.as_object_mut()) {
            fields.insert("duration".to_owned(), json!(format!("{seconds}s")));
        }
        self.say(status).await?;
        let labels = self.labels();
        self.context.metrics.succeeded.get_or_create(&labels).inc();
        self.context.metrics.bytes.get_or_create(&labels).inc_by(stored);
        let taken_at = i64::try_from(manifest.taken_at / 1_000_000).unwrap_or(0);
        self.context.metrics.taken_at.get_or_create(&labels).set(taken_at);
        info!(id = manifest.id, rows, bytes, stored, seconds, gtid = %manifest.gtid, "a dump was made");
        let data =
            json!({"dump": self.dump.name_any(), "gtid": manifest.gtid.to_string(), "bytes": stored, "rows": rows});
        self.event("backup.succeeded", data);
        // The next look verifies it, if that is asked for.
        Ok(Action::await_change())
    }

    async fn wait(&self, why: &str, pause: Duration) -> Result<Action, Error> {
        self.say(json!({"phase": DumpPhase::Pending, "problem": why})).await?;
        Ok(Action::requeue(pause))
    }

    async fn fail(&self, why: &str) -> Result<Action, Error> {
        self.say(json!({"phase": DumpPhase::Failed, "problem": why})).await?;
        self.event("backup.failed", json!({"dump": self.dump.name_any(), "problem": why}));
        Ok(Action::await_change())
    }

    /// The object was deleted: what it stands for goes, then the object may.
    async fn take_away(&self) -> Result<Action, Error> {
        if !self.dump.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(Action::await_change());
        }
        if let Some(copier) = self.copier().await? {
            // It puts what would be taken away.
            self.throw_away(&copier).await?;
            return Ok(Action::requeue(SOON));
        }
        let done = match (self.place().await, self.key()) {
            (Ok(place), _) => {
                for id in self.names(&place).await? {
                    // The word that one was given up stays: it is there for who wakes late.
                    if made_or_given_up(&place, &id).await?.is_some() {
                        remove(&place.store, &place.root.dump(&id, "")).await?;
                    }
                }
                Ok(())
            }
            // The cluster is gone: the dump itself says where it lies.
            (Err(Error::Read(read::Error::Missing(_))), Some(key)) => self.remove_made(key).await,
            (Err(error), _) => Err(error),
        };
        match done {
            Ok(()) => info!("a dump was taken out of the bucket"),
            // Without its location nobody can say where it lies: what is in the bucket stays.
            Err(Error::Read(error @ read::Error::Missing(_))) => warn!(%error, "its objects stay in the bucket"),
            Err(error) => return Err(error),
        }
        self.hold(false).await?;
        Ok(Action::await_change())
    }

    /// Key of the manifest, of a dump that was made.
    fn key(&self) -> Option<&str> {
        Some(self.dump.status.as_ref()?.manifest.as_ref()?.key.as_str())
    }

    async fn remove_made(&self, key: &str) -> Result<(), Error> {
        let namespace = self.dump.namespace().unwrap_or_default();
        let location = Location::resolve(&self.context.client, &namespace, &self.dump.spec.location_ref.name).await?;
        // Whatever the status says: nothing but a dump of this object is taken away.
        let folder = key.strip_suffix("manifest.json").filter(|folder| folder.ends_with(&format!("{}/", self.mark())));
        match folder {
            Some(folder) => remove(&Store::new(&location)?, folder).await,
            None => Ok(()),
        }
    }

    /// Puts the finalizer on, and what a selector finds it by; or takes the finalizer off.
    async fn hold(&self, wanted: bool) -> Result<(), Error> {
        let mut finalizers = self.dump.finalizers().to_vec();
        if finalizers.iter().any(|name| name == FINALIZER) == wanted {
            return Ok(());
        }
        finalizers.retain(|name| name != FINALIZER);
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        }
        let mut patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": self.seen().version}});
        if wanted && let Some(metadata) = patch.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.insert("labels".to_owned(), json!({LABEL_CLUSTER: self.dump.spec.cluster_ref.name}));
        }
        match self.api().patch(&self.dump.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(held) => {
                self.see(|seen| seen.version = held.resource_version());
                Ok(())
            }
            Err(kube::Error::Api(refused)) if refused.is_conflict() => Err(Error::Superseded),
            Err(error) => Err(error.into()),
        }
    }

    fn api(&self) -> Api<MySQLDump> {
        Api::namespaced(self.context.client.clone(), &self.dump.namespace().unwrap_or_default())
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn labels(&self) -> Cluster {
        let namespace = self.dump.namespace().unwrap_or_default();
        Cluster { namespace, cluster: self.dump.spec.cluster_ref.name.clone() }
    }

    fn event(&self, kind: &'static str, data: Value) {
        let Cluster { namespace, cluster } = self.labels();
        self.context.events.publish(Event { namespace, cluster, kind, data });
    }

    /// Writes the whole status.
    async fn say(&self, status: Value) -> Result<(), Error> {
        let generation = json!({"observedGeneration": self.dump.metadata.generation});
        let status = merged(&status, generation);
        loop {
            let seen = self.seen();
            match objects::say_at(&self.context.client, &*self.dump, seen.version.as_deref(), status.clone()).await {
                Ok(Some(written)) => {
                    self.see(|seen| *seen = Seen::of(&written));
                    return Ok(());
                }
                // It is gone, and needs none.
                Ok(None) => return Ok(()),
                Err(kube::Error::Api(refused)) if refused.is_conflict() => {
                    let Some(now) = self.api().get_opt(&self.dump.name_any()).await? else { return Ok(()) };
                    // A label, say, is no news; a status is somebody's.
                    if now.uid() != self.dump.uid() || now.status != seen.status {
                        return Err(Error::Superseded);
                    }
                    self.see(|seen| seen.version = now.resource_version());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A dump that was made. What an attempt that was cut left behind goes, but for the word that it was given up: whoever was paused in
/// it cannot finish it any more.
async fn made_or_given_up(place: &Place, id: &str) -> Result<Option<Found>, Error> {
    let Place { store, root, .. } = place;
    let made = match dump::load::manifest(store, root, id).await? {
        Some(found) => Some(found),
        None => dump::make::give_up(store, root, id).await?,
    };
    if made.is_none() {
        let word = root.dump(id, "manifest.json");
        for object in store.list(&root.dump(id, "")).await?.iter().filter(|object| object.key != word) {
            store.delete(&object.key).await?;
        }
    }
    Ok(made)
}

/// Everything in a dump's folder; the manifest first, so that what is left is no dump.
async fn remove(store: &Store, folder: &str) -> Result<(), Error> {
    store.delete(&format!("{folder}manifest.json")).await?;
    for object in store.list(folder).await? {
        store.delete(&object.key).await?;
    }
    Ok(())
}

/// The fields of both.
fn merged(one: &Value, other: Value) -> Value {
    let mut all = one.clone();
    if let (Some(all), Value::Object(other)) = (all.as_object_mut(), other) {
        all.extend(other);
    }
    all
}
