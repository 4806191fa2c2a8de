//! Clone: the data of another instance, by MySQL's own CLONE over TLS.
//!
//! ```text
//! (save what the order names) -> wipe -> bare data directory -> mysqld with MYSQLD_PARENT_PID -> CLONE INSTANCE -> exit 16: "start me again"
//!      -> start -> clone_status Completed? -> RESET REPLICA ALL (a replica's channel comes along) -> provisioned
//! ```
//!
//! Until the last step the data directory is garbage: whatever fails leaves an empty instance that says why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::instance::{CloneOrder, InstanceState, Phase, Progress, Refusal, RefusalCode, Role};
use common::mysql::{Password, Session};
use common::names::account;
use common::sql::{Account, quote_str};

use super::answer;
use super::initialise::{bare, finish, root, step, undo};
use crate::data::Promise;
use crate::error::{Error, Result};
use crate::instance::{Instance, LOGIN, STATEMENT, Start, millis};
use crate::process::{EXIT_START_AGAIN, Mysqld};
use crate::rewind;

/// A clone that does not move for this long has failed; one that moves may take as long as it takes.
const STALLED: Duration = Duration::from_secs(120);
/// Longest CLONE statement: the stall above ends it earlier.
const FOREVER: Duration = Duration::from_secs(30 * 86400);
/// Pace of looking at the progress.
const POLL: Duration = Duration::from_millis(500);
/// mysqld's own end after the last byte.
const END: Duration = Duration::from_secs(120);

/// Accepts at once; the rest shows as a phase and progress.
///
/// # Errors
/// The refusal.
pub async fn clone(instance: &Arc<Instance>, order: CloneOrder) -> Result<InstanceState, Refusal> {
    let begun = Instant::now();
    answer(instance, "clone", begun, begin(instance, order).await)
}

async fn begin(instance: &Arc<Instance>, order: CloneOrder) -> Result<InstanceState> {
    if order.donor == instance.identity.name {
        return Err(Error::Refused(RefusalCode::BadRequest, "an instance cannot clone itself".to_owned()));
    }
    if instance.look(|facts| facts.phase) == Phase::Cloning {
        return Ok(instance.report());
    }
    let pass = instance.gate.enter(false, false).await?;
    let (phase, data_id, opened) = instance.look(|facts| (facts.phase, facts.data_id.clone(), facts.opened));
    let acknowledges =
        instance.look(|facts| facts.in_force && matches!(facts.promise.role, Role::Replica { acknowledges: true, .. }));
    match phase {
        Phase::Empty => {}
        Phase::Initialising | Phase::Cloning => {
            return Err(Error::Refused(RefusalCode::Busy, format!("this instance is {phase:?}")));
        }
        Phase::Crashed | Phase::Rewinding | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Failed => {
            if order.condemns.is_none() || order.condemns != data_id {
                return Err(Error::Refused(
                    RefusalCode::HoldsData,
                    "this instance holds data that the order does not condemn".to_owned(),
                ));
            }
            if opened {
                return Err(Error::Refused(RefusalCode::Conflict, "this instance is an open primary".to_owned()));
            }
            // It was condemned when it was not, and is late.
            if acknowledges && phase == Phase::Running {
                return Err(Error::Refused(RefusalCode::Conflict, "this instance acknowledges writes".to_owned()));
            }
        }
    }
    instance.change(|facts| {
        facts.phase = Phase::Cloning;
        facts.in_force = false;
        facts.data_id = None;
        facts.problem = None;
        facts.progress = Some(step("preparing"));
    });
    let report = instance.report();
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let begun = Instant::now();
        if let Err(error) = save(&instance, &order).await {
            tracing::error!(%error, "nothing is thrown away: it could not be saved");
            let died =
                instance.child().is_none() && matches!(phase, Phase::Starting | Phase::Running | Phase::Stopping);
            instance.change(|facts| {
                facts.phase = if died { Phase::Crashed } else { phase };
                facts.data_id = data_id;
                facts.progress = None;
                facts.problem = Some(format!("clone: {error}"));
            });
            return;
        }
        match run(&instance, &order).await {
            Ok(()) => tracing::info!(donor = order.donor, elapsed_ms = millis(begun.elapsed()), "cloned"),
            Err(error) => undo(&instance, &error, "clone").await,
        }
        drop(pass);
    });
    Ok(report)
}

/// The data is as it was when this fails.
async fn save(instance: &Arc<Instance>, order: &CloneOrder) -> Result<()> {
    let Some(gtids) = order.saves.clone().filter(|gtids| !gtids.is_empty()) else { return Ok(()) };
    instance.change(|facts| facts.progress = Some(step("saving what is thrown away")));
    let (volume, data, donor) = (instance.volume.clone(), instance.layout.data(), order.donor.clone());
    let epoch = instance.look(|facts| facts.promise.epoch);
    let work = move || rewind::save_before_clone(&volume, &data, epoch, &donor, &gtids);
    let saved = tokio::task::spawn_blocking(work).await;
    saved.unwrap_or_else(|error| Err(Error::Unexpected(format!("saving broke: {error}"))))
}

async fn run(instance: &Arc<Instance>, order: &CloneOrder) -> Result<()> {
    // Condemned data: what was to be saved of it is, so nothing has to stop gracefully.
    instance.kill().await?;
    instance.change(|facts| facts.condemned = None);
    bare(instance).await?;
    // The epoch stays promised; what the data stood for is gone with the data.
    instance.promise(Promise { epoch: instance.look(|facts| facts.promise.epoch), ..Promise::default() })?;
    let child = instance.start(Start::Supervised)?;
    let session = instance.wait_for_login(&child, &root()).await?;
    let tls = [("clone_ssl_ca", "ca.crt"), ("clone_ssl_cert", "tls.crt"), ("clone_ssl_key", "tls.key")];
    let donor = Donor {
        host: &order.donor_host,
        password: instance.layout.password(account::CLONE)?,
        tls: tls.map(|(variable, file)| (variable, instance.layout.tls.join(file))).to_vec(),
    };
    copy(instance, &donor, &child, session).await?;
    instance.change(|facts| facts.progress = Some(step("starting on the copy")));
    let child = instance.start(Start::Plain)?;
    let credentials = instance.layout.credentials(account::LOCAL)?;
    let mut session = instance.wait_for_login(&child, &credentials).await?;
    verify(&mut session).await?;
    // Before anything else: the donor's channel configuration came along with its data.
    session.exec("RESET REPLICA ALL", STATEMENT).await?;
    finish(instance, None)
}

/// Who gives its data.
pub(super) struct Donor<'a> {
    /// Its DNS name.
    pub(super) host: &'a str,
    /// Of its `pelorus_clone`.
    pub(super) password: Password,
    /// Variables and files of the TLS to it.
    pub(super) tls: Vec<(&'static str, PathBuf)>,
}

/// Copies over what a bare server has; mysqld has ended then.
pub(super) async fn copy(
    instance: &Arc<Instance>,
    donor: &Donor<'_>,
    child: &Arc<Mysqld>,
    mut session: Session,
) -> Result<()> {
    let port = instance.layout.port_mysql;
    let account = Account::new(account::CLONE, donor.host)
        .map_err(|error| Error::Refused(RefusalCode::BadRequest, error.to_string()))?;
    let set = |variable: &str, value: &str| format!("SET GLOBAL {variable}={}", quote_str(value, false));
    session.exec("SET SESSION sql_log_bin=0, wait_timeout=31536000", STATEMENT).await?;
    session.exec(&set("clone_valid_donor_list", &format!("{}:{port}", donor.host)), STATEMENT).await?;
    for (variable, path) in &donor.tls {
        session.exec(&set(variable, &path.display().to_string()), STATEMENT).await?;
    }
    let statement = format!(
        "CLONE INSTANCE FROM {}:{port} IDENTIFIED BY {} REQUIRE SSL",
        account.quoted(),
        quote_str(donor.password.expose(), false)
    );
    instance.change(|facts| facts.progress = Some(step("copying")));
    let cloning = session.exec(&statement, FOREVER);
    let stalled = progress(instance);
    let refused = tokio::select! {
        done = cloning => done.err(),
        error = stalled => return Err(error),
        _ = child.exited() => None,
    };
    // When it succeeds, mysqld ends and takes the connection along: only a word of the server is a failure.
    if let Some(error) = refused
        && error.code().is_some()
    {
        return Err(error.into());
    }
    match child.exited_within(END).await.and_then(|status| status.code()) {
        Some(EXIT_START_AGAIN) => Ok(()),
        Some(_) | None => Err(child.ended("cloning")),
    }
}

/// Reports how far the copy is; ends only when it does not move any more.
async fn progress(instance: &Instance) -> Error {
    let mut last = (0, Instant::now());
    let mut session = None;
    loop {
        tokio::time::sleep(POLL).await;
        let asked = async {
            let mut held = match session.take() {
                Some(held) => held,
                None => Session::connect(&instance.layout.endpoint(), &root(), LOGIN).await?,
            };
            let sql = "SELECT CAST(COALESCE(SUM(ESTIMATE),0) AS UNSIGNED), CAST(COALESCE(SUM(DATA),0) AS UNSIGNED), \
                COALESCE(MAX(CASE WHEN STATE='In Progress' THEN STAGE END), '') FROM performance_schema.clone_progress";
            let row: Option<(u64, u64, String)> = held.first(sql, STATEMENT).await?;
            session = Some(held);
            Ok::<_, Error>(row.unwrap_or_default())
        };
        if let Ok((total_bytes, done_bytes, stage)) = asked.await {
            if done_bytes != last.0 {
                last = (done_bytes, Instant::now());
            }
            let step = if stage.is_empty() { "copying".to_owned() } else { format!("copying: {stage}") };
            instance.change(|facts| facts.progress = Some(Progress { step, done_bytes, total_bytes }));
        }
        if last.1.elapsed() > STALLED {
            return Error::Slow { what: "the next byte of a clone", after: STALLED };
        }
    }
}

/// The copy is a whole one.
pub(super) async fn verify(session: &mut Session) -> Result<()> {
    let sql = "SELECT STATE, ERROR_NO, COALESCE(ERROR_MESSAGE, '') FROM performance_schema.clone_status";
    match session.first::<(String, i64, String)>(sql, STATEMENT).await? {
        Some((state, 0, _)) if state == "Completed" => Ok(()),
        Some((state, code, message)) => Err(Error::Unexpected(format!("the clone is {state}: {code} {message}"))),
        None => Err(Error::Unexpected("the copy knows nothing of a clone".to_owned())),
    }
}
