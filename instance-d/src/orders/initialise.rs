//! Initialise: a new, empty data directory with Pelorus' accounts and no GTID.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::instance::{InstanceState, Phase, Progress, Refusal, RefusalCode, Restored};
use common::mysql::{Credentials, Password, Session};

use super::answer;
use super::replication::executed;
use crate::accounts;
use crate::data::Provisioned;
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT, Start, millis};
use crate::process::{self, Mysqld};
use crate::settings;

/// Longest `mysqld --initialize`: 2 s measured, more on a slow disk.
const INITIALISE: Duration = Duration::from_secs(600);
/// Longest account statement on a fresh server.
const ACCOUNT: Duration = Duration::from_secs(30);

/// Accepts at once; the rest shows as a phase.
///
/// # Errors
/// The refusal.
pub async fn initialise(instance: &Arc<Instance>) -> Result<InstanceState, Refusal> {
    let begun = Instant::now();
    let work = |instance| async move { run(&instance).await };
    answer(instance, "initialise", begun, begin(instance, "initialisation", work).await)
}

/// Fills an empty instance in the background; when that fails it is empty again and says why.
pub(super) async fn begin<W>(
    instance: &Arc<Instance>,
    what: &'static str,
    work: impl FnOnce(Arc<Instance>) -> W,
) -> Result<InstanceState>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    if instance.look(|facts| facts.phase) == Phase::Initialising {
        return Ok(instance.report());
    }
    let pass = instance.gate.enter(false, false).await?;
    match instance.look(|facts| facts.phase) {
        Phase::Empty => {}
        phase => return Err(Error::Refused(RefusalCode::HoldsData, format!("this instance is not empty ({phase:?})"))),
    }
    instance.change(|facts| {
        facts.phase = Phase::Initialising;
        facts.problem = None;
        facts.progress = Some(step("initialising the data directory"));
    });
    let work = work(Arc::clone(instance));
    let instance = Arc::clone(instance);
    let report = instance.report();
    tokio::spawn(async move {
        let begun = Instant::now();
        match work.await {
            Ok(()) => tracing::info!(what, elapsed_ms = millis(begun.elapsed()), "the instance has data"),
            Err(error) => undo(&instance, &error, what).await,
        }
        drop(pass);
    });
    Ok(report)
}

pub(super) fn step(step: &str) -> Progress {
    Progress { step: step.to_owned(), done_bytes: 0, total_bytes: 0 }
}

/// Back to an empty instance that says why, and can be ordered again.
pub(super) async fn undo(instance: &Arc<Instance>, error: &Error, what: &str) {
    tracing::error!(%error, "{what} failed");
    let undone = match instance.kill().await {
        Ok(()) => instance.volume.wipe(),
        Err(error) => Err(error),
    };
    instance.change(|facts| {
        facts.data_id = None;
        facts.progress = None;
        facts.problem = Some(format!("{what}: {error}"));
        facts.phase = Phase::Empty;
        if let Err(error) = undone {
            facts.problem = Some(format!("{what}: could not throw the remains away: {error}"));
            facts.phase = Phase::Failed;
        }
    });
}

async fn run(instance: &Arc<Instance>) -> Result<()> {
    with_accounts(instance).await?;
    finish(instance, None)
}

/// A running server with Pelorus' accounts and nothing else, and a session on it.
pub(super) async fn with_accounts(instance: &Arc<Instance>) -> Result<Session> {
    let (_, mut root) = bare_server(instance).await?;
    instance.change(|facts| facts.progress = Some(step("making accounts")));
    make_accounts(instance, &mut root).await?;
    drop(root);
    let mut session = instance.another_session().await?;
    let history = executed(&mut session).await?;
    if !history.is_empty() {
        return Err(Error::Unexpected(format!("a fresh data directory has the history {history}")));
    }
    Ok(session)
}

/// A running server on a bare data directory, and a session of its root.
pub(super) async fn bare_server(instance: &Arc<Instance>) -> Result<(Arc<Mysqld>, Session)> {
    bare(instance).await?;
    let child = instance.start(Start::Plain)?;
    let root = instance.wait_for_login(&child, &root()).await?;
    Ok((child, root))
}

/// Root of a bare data directory: no password, over the socket only.
pub(super) fn root() -> Credentials {
    Credentials::new("root", Password::default())
}

/// A data directory as `mysqld --initialize` makes it.
pub(super) async fn bare(instance: &Arc<Instance>) -> Result<()> {
    let volume = instance.volume.clone();
    let wiped = tokio::task::spawn_blocking(move || volume.wipe().and_then(|()| volume.fresh_tmp())).await;
    wiped.map_err(|error| Error::Unexpected(format!("wiping broke: {error}")))??;
    let arguments = settings::initialise_arguments(&instance.layout);
    let (status, said) = process::run(&instance.layout.mysqld, &arguments, INITIALISE).await?;
    if status.success() {
        return Ok(());
    }
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("[ERROR]")).take(4).collect();
    Err(Error::Exited { what: "initialising", status: status.to_string(), tail: format!(": {}", errors.join("; ")) })
}

/// Pelorus' accounts, in the place of those that another cluster had.
pub(super) async fn make_accounts(instance: &Instance, root: &mut Session) -> Result<()> {
    root.exec("SET SESSION sql_log_bin=0", STATEMENT).await?;
    root.exec("SET GLOBAL super_read_only=OFF", STATEMENT).await?;
    for statement in accounts::statements(|name| instance.layout.password(name))? {
        root.exec(&statement, ACCOUNT).await?;
    }
    root.exec("SET GLOBAL super_read_only=ON", STATEMENT).await?;
    Ok(())
}

/// Names the data, makes it durable, and only then says that it is there.
pub(super) fn finish(instance: &Instance, restored: Option<Restored>) -> Result<()> {
    let cluster_uid = instance.config().cluster_uid;
    let provisioned = Provisioned { data_id: uuid::Uuid::new_v4().to_string(), cluster_uid, restored };
    instance.volume.finish_provisioning(&provisioned)?;
    instance.change(|facts| {
        facts.restored = provisioned.restored;
        facts.data_id = Some(provisioned.data_id);
        facts.progress = None;
        facts.problem = None;
        facts.answers_from_now();
    });
    Ok(())
}
