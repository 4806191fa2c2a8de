//! Restore: a new data directory with what an archive holds, up to a target.
//!
//! ```text
//! the newest dump within the target -> plan -> bare data directory -> dump is loaded -> accounts, gtid_purged
//!      -> for each batch: relay logs -> MySQL's own parallel applier -> executed = planned? -> settings as they were -> provisioned
//! ```
//!
//! Until the last step the data directory is garbage: whatever fails leaves an empty instance that says why. Nothing has to be
//! durable on the way, so the applier waits for no disk.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use archive::catalogue::{self, Held};
use archive::plan::{self, Plan, Step, Target, begins, reach};
use archive::{Root, Store, fetch};
use common::clock::commit_time;
use common::failpoint;
use common::gtid::GtidSet;
use common::instance::{InstanceState, Progress, Refusal, RestoreOrder, RestoreTarget, Restored};
use common::mysql::Session;
use common::names::account;
use dump::Manifest;
use dump::manifest::Found;
use tokio::runtime::Handle;

use super::answer;
use super::copy::{archive_error, busy, stop};
use super::initialise::{self, bare_server, begin, finish, make_accounts, step, with_accounts};

use super::replication::executed;
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT, Start};

/// In no event of any instance: an applier passes over what its own server has written, and instances count from 1.
const SERVER_ID: u32 = 4_000_000_000;
/// Bytes of binlogs that are replayed at a time, whole segments: so much lies on the volume twice.
const BATCH: u64 = 512 << 20;
/// What an applier that nobody waits for can use.
const WORKERS: usize = 16;
/// Connections that load a dump: each has a few MiB.
const LOADERS: usize = 8;
/// Pace of looking how far the applier is.
const POLL: Duration = Duration::from_millis(50);
/// Longest change of a setting, and of the channel.
const CHANGE: Duration = Duration::from_secs(30);
/// Longest flush of what was replayed.
const FLUSH: Duration = Duration::from_secs(600);

/// Accepts at once; the rest shows as a phase and progress.
///
/// # Errors
/// The refusal.
pub async fn restore(instance: &Arc<Instance>, order: RestoreOrder) -> Result<InstanceState, Refusal> {
    let begun = Instant::now();
    let work = |instance| async move { run(&instance, order, begun).await };
    answer(instance, "restore", begun, begin(instance, "restore", work).await)
}

async fn run(instance: &Arc<Instance>, order: RestoreOrder, begun: Instant) -> Result<()> {
    // First what may well fail, and tells people what they got wrong.
    instance.change(|facts| facts.progress = Some(step("reading the archive")));
    let source = Source::open(&order).await?;
    let (dump, plan) = source.plan(order.dump.as_deref(), &order.target).await?;
    after("planned").await?;
    let mut session = match &dump {
        Some(dump) => source.load(instance, dump).await?,
        None => with_accounts(instance).await?,
    };
    after("loaded").await?;
    let before = prepare(&mut session).await?;
    let mut gtids = dump.map(|dump| dump.gtid).unwrap_or_default();
    gtids.extend_with(&source.replay(instance, &mut session, &plan).await?);
    after("replayed").await?;
    let there = executed(&mut session).await?;
    if there != gtids {
        let (more, less) = (there.subtract(&gtids), gtids.subtract(&there));
        return Err(Error::Unexpected(format!("after the replay {less} is missing and {more} is there besides")));
    }
    settle(&mut session, before).await?;
    after("settled").await?;
    drop(session);
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(%gtids, seconds, archive = source.root.prefix(), "restored");
    finish(instance, Some(Restored { archive: source.root.prefix().to_owned(), gtids, seconds }))
}

/// A point between two steps.
async fn after(step: &str) -> Result<()> {
    let hit = failpoint::hit(&format!("restore.after.{step}")).await;
    hit.map_err(|injected| Error::Unexpected(injected.to_string()))
}

/// An archive, and all that it holds.
struct Source {
    store: Store,
    root: Root,
    held: Vec<Held>,
}

impl Source {
    async fn open(order: &RestoreOrder) -> Result<Self> {
        let store = Store::new(&order.location).map_err(archive_error)?;
        let root = root(&store, order).await?;
        let held = catalogue::read(&store, &root).await.map_err(archive_error)?;
        Ok(Self { store, root, held })
    }

    /// Where to begin, and what to replay on top of it.
    async fn plan(&self, dump: Option<&str>, target: &RestoreTarget) -> Result<(Option<Manifest>, Plan)> {
        let target = match target {
            RestoreTarget::Newest => Target::Newest,
            RestoreTarget::Time(time) => Target::Time(*time),
            RestoreTarget::Gtid(set) => Target::Gtid(set.clone()),
        };
        let dump = match dump {
            Some(id) => Some(self.named(id, &target).await?),
            None => self.newest(&target).await?,
        };
        let base = dump.as_ref().map(|dump| dump.gtid.clone()).unwrap_or_default();
        let plan = plan::plan(&base, &self.held, &target).map_err(archive_error)?;
        let reach = reach(&base, &self.held);
        if plan.steps.is_empty() && dump.is_none() {
            let first = self.held.iter().flat_map(|file| &file.segments).map(|part| part.first_commit);
            let first = first.filter(|first| *first > 0).min();
            return Err(Error::Archive(match first {
                None => format!("there is nothing in the archive {}", self.root.prefix()),
                Some(first) if reach.gtid.is_empty() => format!(
                    "the archive {} does not begin with an empty server, and no dump is within the target: {} is missing before the \
                     commit time {}",
                    self.root.prefix(),
                    reach.gap,
                    commit_time(first)
                ),
                Some(first) => format!(
                    "the archive begins with the commit time {} and reaches to {}: there is nothing before that",
                    commit_time(first),
                    commit_time(reach.last_commit)
                ),
            }));
        }
        if target == Target::Newest && !reach.gap.is_empty() {
            tracing::warn!(gap = %reach.gap, "the archive has a gap: what lies behind it is not restored");
        }
        Ok((dump, plan))
    }

    /// A dump by its name, if a restore to this target can begin with it.
    async fn named(&self, id: &str, target: &Target) -> Result<Manifest> {
        let found = dump::load::manifest(&self.store, &self.root, id).await.map_err(archive_error)?;
        let refused = |why: &str| Error::Archive(format!("the dump {id} in {} {why}", self.root.prefix()));
        let Found { manifest, .. } = found.ok_or_else(|| refused("is not there"))?;
        if !manifest.whole {
            return Err(refused("is one of a part: a restore cannot begin with it"));
        }
        if !begins(&manifest.gtid, manifest.taken_at, &self.held, target) {
            return Err(refused("holds what is not within the target"));
        }
        Ok(manifest)
    }

    /// The newest dump that a restore to this target can begin with.
    async fn newest(&self, target: &Target) -> Result<Option<Manifest>> {
        let ids = self.store.folders(&self.root.dumps()).await.map_err(archive_error)?;
        // Names are in the order of time.
        for id in ids.iter().rev() {
            let found = dump::load::manifest(&self.store, &self.root, id).await.map_err(archive_error)?;
            if let Some(Found { manifest, .. }) = found
                && manifest.whole
                && begins(&manifest.gtid, manifest.taken_at, &self.held, target)
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// A running server with a dump's content, Pelorus' accounts and nothing else, and a session on it.
    async fn load(&self, instance: &Arc<Instance>, dump: &Manifest) -> Result<Session> {
        if dump.is_physical() {
            return self.fill(instance, dump).await;
        }
        let (child, mut root) = bare_server(instance).await?;
        // Events of the dump are not to run here.
        root.exec("SET GLOBAL event_scheduler=OFF", STATEMENT).await?;
        root.exec("SET GLOBAL super_read_only=OFF", STATEMENT).await?;
        tokio::select! {
            loaded = self.loading(instance, dump) => loaded?,
            _ = child.exited() => return Err(child.ended("loading a dump")),
        }
        make_accounts(instance, &mut root).await?;
        drop(root);
        let mut session = instance.another_session().await?;
        session.exec("RESET BINARY LOGS AND GTIDS", CHANGE).await?;
        session.exec(&format!("SET GLOBAL gtid_purged='{}'", dump.gtid), CHANGE).await?;
        session.exec("SET GLOBAL event_scheduler=DEFAULT", STATEMENT).await?;
        tracing::info!(dump = dump.id, gtid = %dump.gtid, "a dump was loaded");
        Ok(session)
    }

    /// The files of a physical dump, with Pelorus' accounts of this cluster in the place of that one's.
    async fn fill(&self, instance: &Arc<Instance>, dump: &Manifest) -> Result<Session> {
        instance.volume.wipe()?;
        let (data, store, files, handle) =
            (instance.layout.data(), self.store.clone(), dump.files.clone(), Handle::current());
        let get = move |done: &AtomicU64| handle.block_on(dump::files::get(&files, &data, &store, done));
        busy(instance, "getting files", dump.stored(), get).await?.map_err(archive_error)?;
        instance.change(|facts| facts.progress = Some(initialise::step("starting on the copy")));
        let child = instance.start(Start::Unguarded)?;
        let mut root = instance.wait_for_login(&child, &initialise::root()).await?;
        // Account statements are refused as long as there are no grant tables.
        root.exec("FLUSH NO_WRITE_TO_BINLOG PRIVILEGES", STATEMENT).await?;
        make_accounts(instance, &mut root).await?;
        drop(root);
        stop(&child).await?;
        let child = instance.start(Start::Plain)?;
        let session = instance.wait_for_login(&child, &instance.layout.credentials(account::LOCAL)?).await?;
        tracing::info!(dump = dump.id, gtid = %dump.gtid, "the files of a dump are in place");
        Ok(session)
    }

    async fn loading(&self, instance: &Instance, dump: &Manifest) -> Result<()> {
        let (endpoint, store, handle) = (instance.layout.endpoint(), self.store.clone(), Handle::current());
        let (total_bytes, dump) = (dump.stored(), dump.clone());
        let load = move |done: &AtomicU64| {
            let connections = std::thread::available_parallelism().map_or(4, std::num::NonZero::get).clamp(2, LOADERS);
            let order = dump::load::Order {
                endpoint: &endpoint,
                credentials: &initialise::root(),
                connections,
                store: &store,
                done,
            };
            handle.block_on(dump::load::load(&order, &dump))
        };
        busy(instance, "loading a dump", total_bytes, load).await?.map_err(archive_error)
    }

    /// Replays all of a plan; what is there then.
    async fn replay(&self, instance: &Arc<Instance>, session: &mut Session, plan: &Plan) -> Result<GtidSet> {
        let total_bytes: u64 = plan.steps.iter().map(length).sum();
        let (mut done_bytes, mut replayed) = (0, GtidSet::default());
        for steps in batches(&plan.steps) {
            let show = |step: &str, done_bytes: u64| {
                let step = step.to_owned();
                instance.change(|facts| facts.progress = Some(Progress { step, done_bytes, total_bytes }));
            };
            show("fetching binlogs", done_bytes);
            let batch = Plan { steps: steps.to_vec(), reaches: GtidSet::default() };
            let (count, fetched) = self.fetch(instance, &batch).await?;
            after("fetched").await?;
            show("replaying binlogs", done_bytes);
            apply(session, count, &fetched).await?;
            replayed.extend_with(&fetched);
            done_bytes += steps.iter().map(length).sum::<u64>();
        }
        Ok(replayed)
    }

    /// Writes relay logs; how many, and what is in them.
    async fn fetch(&self, instance: &Instance, batch: &Plan) -> Result<(usize, GtidSet)> {
        let mut count = 0;
        let open = |number: usize| {
            count = number + 1;
            File::create(relay_log(instance, number)).map(BufWriter::new)
        };
        let fetched = fetch::relay_logs(&self.store, &self.root, &self.held, batch, open).await;
        let fetched = fetched.map_err(archive_error)?;
        let index: Vec<String> = (0..count).map(|number| format!("./{}\n", name(number))).collect();
        let path = instance.layout.data().join("relay.index");
        fs::write(&path, index.concat()).map_err(Error::file("write", path))?;
        Ok((count, fetched))
    }
}

/// Where the archive lies: without a uid there must be one of that name.
async fn root(store: &Store, order: &RestoreOrder) -> Result<Root> {
    let RestoreOrder { location, namespace, cluster, uid, .. } = order;
    if let Some(uid) = uid {
        return Ok(Root::new(&location.prefix, namespace, cluster, uid));
    }
    let prefix = Root::of_name(&location.prefix, namespace, cluster);
    let found = store.folders(&prefix).await.map_err(archive_error)?;
    match found.as_slice() {
        [uid] => Ok(Root::new(&location.prefix, namespace, cluster, uid)),
        [] => Err(Error::Archive(format!("there is no archive below {prefix} in the bucket {}", location.bucket))),
        several => Err(Error::Archive(format!(
            "several clusters named {namespace}/{cluster} have written there: say which, by its uid, one of {}",
            several.join(", ")
        ))),
    }
}

fn length(step: &Step) -> u64 {
    step.key.length()
}

/// Cuts a plan into pieces of about [`BATCH`] bytes.
fn batches(mut steps: &[Step]) -> Vec<&[Step]> {
    let mut batches = Vec::new();
    while !steps.is_empty() {
        let mut bytes = 0;
        let end = steps.iter().position(|step| {
            bytes += length(step);
            bytes >= BATCH
        });
        let (batch, rest) = steps.split_at(end.map_or(steps.len(), |end| end + 1));
        batches.push(batch);
        steps = rest;
    }
    batches
}

fn name(number: usize) -> String {
    format!("relay.{:06}", number + 1)
}

fn relay_log(instance: &Instance, number: usize) -> PathBuf {
    instance.layout.data().join(name(number))
}

/// Settings of a replay, and what they were before.
async fn prepare(session: &mut Session) -> Result<Vec<(&'static str, String)>> {
    let workers = std::thread::available_parallelism().map_or(4, |cores| (2 * cores.get()).clamp(4, WORKERS));
    let wanted = [
        ("server_id", SERVER_ID.to_string()),
        ("replica_parallel_workers", workers.to_string()),
        ("sync_binlog", "0".to_owned()),
        ("innodb_flush_log_at_trx_commit", "0".to_owned()),
    ];
    let mut before = Vec::new();
    for (variable, value) in wanted {
        let was: Option<String> =
            session.first(&format!("SELECT CAST(@@GLOBAL.{variable} AS CHAR)"), STATEMENT).await?;
        before.push((variable, was.unwrap_or_default()));
        session.exec(&format!("SET GLOBAL {variable}={value}"), CHANGE).await?;
    }
    Ok(before)
}

/// Settings as they were, and everything that mysqld still holds back is written.
async fn settle(session: &mut Session, before: Vec<(&'static str, String)>) -> Result<()> {
    for (variable, value) in before {
        session.exec(&format!("SET GLOBAL {variable}={value}"), CHANGE).await?;
    }
    session.exec("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS, BINARY LOGS", FLUSH).await?;
    Ok(())
}

/// Replays so many relay logs until all of these transactions are there.
async fn apply(session: &mut Session, count: usize, gtids: &GtidSet) -> Result<()> {
    if count == 0 || gtids.is_empty() {
        return Ok(());
    }
    let change =
        format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST='archive', RELAY_LOG_FILE='{}', RELAY_LOG_POS=4", name(0));
    session.exec(&change, CHANGE).await?;
    session.exec("START REPLICA SQL_THREAD", CHANGE).await?;
    while !gtids.is_subset(&executed(session).await?) {
        if let Some(problem) = problem(session).await? {
            return Err(Error::Archive(format!("the replay ended with an error: {problem}")));
        }
        tokio::time::sleep(POLL).await;
    }
    session.exec("STOP REPLICA", CHANGE).await?;
    session.exec("RESET REPLICA ALL", CHANGE).await?;
    Ok(())
}

/// Why the applier does not go on.
async fn problem(session: &mut Session) -> Result<Option<String>> {
    let sql = "SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker \
        WHERE LAST_ERROR_NUMBER<>0 UNION ALL \
        SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_coordinator \
        WHERE LAST_ERROR_NUMBER<>0 UNION ALL \
        SELECT 'the applier has stopped' FROM performance_schema.replication_applier_status WHERE SERVICE_STATE='OFF' LIMIT 1";
    Ok(session.first(sql, STATEMENT).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use archive::{BinlogFile, SegmentKey};

    use super::*;

    fn steps(lengths: &[u64]) -> Vec<Step> {
        let file = BinlogFile { epoch: 1, server: uuid::Uuid::nil(), name: "binlog.000001".parse().unwrap() };
        let mut first = 0;
        let one = |length: &u64| {
            let key = SegmentKey::new(file.clone(), first, first + length).unwrap();
            first += length;
            Step { key, take: GtidSet::default(), until: None }
        };
        lengths.iter().map(one).collect()
    }

    #[test]
    fn a_plan_is_cut_into_batches_of_whole_segments() {
        let sizes = |lengths: &[u64]| batches(&steps(lengths)).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[1, 2, 3]), [3]);
        assert_eq!(sizes(&[BATCH]), [1]);
        assert_eq!(sizes(&[BATCH - 1, 1, 1]), [2, 1]);
        assert_eq!(sizes(&[1, 3 * BATCH, 1, BATCH, 1]), [2, 2, 1]);
    }
}
