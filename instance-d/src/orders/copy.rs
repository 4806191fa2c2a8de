//! A physical dump: the data of an instance of another cluster goes into an archive, by way of this one, which keeps nothing.
//!
//! ```text
//! bare data directory -> CLONE from the other -> mysqld on the copy, which no account guards and nobody reaches: recovered? what is in it?
//!      -> it stops cleanly -> files -> manifest, last -> empty again
//! ```
//!
//! Cut anywhere it is begun anew: until there is a manifest there is no dump. One that is there already is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use archive::{Root, Store};
use common::gtid::GtidSet;
use common::instance::{CopyOrder, InstanceState, Phase, Progress, Refusal};
use common::mysql::Session;
use dump::manifest::{Blob, Manifest, PHYSICAL};
use tokio::runtime::Handle;

use super::answer;
use super::clone::{self, Donor};
use super::initialise::{bare, begin, root, step};
use super::replication::executed;
use crate::data::{remove, write_private};
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT, Start, millis};
use crate::process::Mysqld;

/// A clean stop writes what is still in memory only.
const STOP: Duration = Duration::from_secs(600);
/// Pace of saying how far it is.
const SHOW: Duration = Duration::from_millis(500);

/// Accepts at once; the rest shows as a phase and progress.
///
/// # Errors
/// The refusal.
pub async fn copy(instance: &Arc<Instance>, order: CopyOrder) -> Result<InstanceState, Refusal> {
    let begun = Instant::now();
    let work = |instance| async move { run(&instance, &order, begun).await };
    answer(instance, "copy", begun, begin(instance, "copy", work).await)
}

async fn run(instance: &Arc<Instance>, order: &CopyOrder, begun: Instant) -> Result<()> {
    instance.change(|facts| facts.progress = Some(step("reading the archive")));
    let store = Store::new(&order.location).map_err(archive_error)?;
    let archive = Root::new(&order.location.prefix, &order.namespace, &order.cluster, &order.uid);
    if dump::load::manifest(&store, &archive, &order.dump).await.map_err(archive_error)?.is_some() {
        tracing::info!(dump = order.dump, "it was made already");
        return empty(instance);
    }
    let Content { server, version, gtid, taken_at } = cloned(instance, order).await?;
    let manifest = Manifest {
        version: PHYSICAL,
        id: order.dump.clone(),
        server,
        server_version: version,
        gtid,
        whole: true,
        taken_at,
        schema: Blob::default(),
        accounts: Blob::default(),
        tables: Vec::new(),
        files: files(instance, &store, &archive, &order.dump).await?,
    };
    let found = dump::make::finish(&store, &archive, manifest).await.map_err(archive_error)?;
    let (gtid, bytes) = (&found.manifest.gtid, found.manifest.bytes());
    tracing::info!(dump = order.dump, %gtid, bytes, elapsed_ms = millis(begun.elapsed()), "a physical dump was made");
    empty(instance)
}

/// What the copy says of itself.
struct Content {
    server: String,
    version: String,
    gtid: GtidSet,
    taken_at: u64,
}

/// A data directory with the copy, on which no mysqld runs.
async fn cloned(instance: &Arc<Instance>, order: &CopyOrder) -> Result<Content> {
    bare(instance).await?;
    let child = instance.start(Start::Supervised)?;
    let session = instance.wait_for_login(&child, &root()).await?;
    let authority = instance.layout.run.join("donor-ca.crt");
    write_private(&authority, &order.donor_authority)?;
    let donor = Donor {
        host: &order.donor_host,
        password: order.donor_password.clone(),
        // Its authority is another than ours: our certificate says nothing to it.
        tls: vec![("clone_ssl_ca", authority.clone())],
    };
    let copied = clone::copy(instance, &donor, &child, session).await;
    remove(&authority)?;
    copied?;
    instance.change(|facts| facts.progress = Some(step("starting on the copy")));
    let child = instance.start(Start::Unguarded)?;
    let mut session = instance.wait_for_login(&child, &root()).await?;
    clone::verify(&mut session).await?;
    // The donor's channel came along with its data.
    session.exec("RESET REPLICA ALL", STATEMENT).await?;
    let content = content(&mut session).await?;
    drop(session);
    instance.change(|facts| facts.progress = Some(step("stopping")));
    stop(&child).await?;
    Ok(content)
}

async fn content(session: &mut Session) -> Result<Content> {
    let gtid = executed(session).await?;
    // After the last transaction of the copy: who asks for an earlier time gets another dump.
    let sql = "SELECT @@server_uuid, @@version, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)";
    let said = session.first::<(String, String, u64)>(sql, STATEMENT).await?;
    let (server, version, taken_at) = said.ok_or(Error::Unexpected("no answer".to_owned()))?;
    Ok(Content { server, version, gtid, taken_at })
}

/// A clean stop of a server that has no clients.
pub(super) async fn stop(child: &Mysqld) -> Result<()> {
    child.terminate();
    match child.exited_within(STOP).await {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(child.ended("stopping")),
        None => Err(Error::Slow { what: "a clean stop", after: STOP }),
    }
}

/// Puts the files.
async fn files(
    instance: &Arc<Instance>,
    store: &Store,
    archive: &Root,
    id: &str,
) -> Result<Vec<dump::files::DataFile>> {
    let data = instance.layout.data();
    let total_bytes = dump::files::size(&data).map_err(archive_error)?;
    let (handle, store, archive, id) = (Handle::current(), store.clone(), archive.clone(), id.to_owned());
    let put = move |done: &AtomicU64| handle.block_on(dump::files::put(&data, &store, &archive, &id, done));
    busy(instance, "putting files", total_bytes, put).await?.map_err(archive_error)
}

/// Does it on a thread of its own, for packing and unpacking keep that busy, and shows how far it is.
pub(super) async fn busy<T: Send + 'static>(
    instance: &Instance,
    what: &'static str,
    total_bytes: u64,
    work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
) -> Result<T> {
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let mut working = tokio::task::spawn_blocking(move || work(&counted));
    loop {
        let progress = Progress { step: what.to_owned(), done_bytes: done.load(Ordering::Relaxed), total_bytes };
        instance.change(|facts| facts.progress = Some(progress));
        tokio::select! {
            worked = &mut working => {
                return worked.map_err(|error| Error::Unexpected(format!("{what} broke: {error}")));
            }
            () = tokio::time::sleep(SHOW) => {}
        }
    }
}

/// Nothing is kept.
fn empty(instance: &Instance) -> Result<()> {
    instance.volume.wipe()?;
    instance.change(|facts| {
        facts.progress = None;
        facts.problem = None;
        facts.phase = Phase::Empty;
    });
    Ok(())
}

pub(super) fn archive_error(error: impl std::fmt::Display) -> Error {
    Error::Archive(error.to_string())
}
