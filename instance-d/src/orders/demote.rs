//! Demote: no more writes, proven by the return of `super_read_only=ON` (Never 4), or mysqld is killed.
//!
//! ```text
//! super_read_only=ON --OK--> offline_mode=ON (ends clients, keeps dump threads) -> promise: fenced, tail proven
//!          \--budget over--> kill: promise: fenced, tail unproven; SIGKILL        nothing unacknowledged is answered
//!                            give up: promise: declined; KILL the statement, flags off, writes go on -> Declined
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::instance::{DemoteOrder, RefusalCode, Role};
use common::mysql::Session;

use super::Done;
use super::replication::stop_receiver;
use crate::data::Promise;
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT};
use crate::steps::Steps;

/// Longest wait for an abandoned statement to be gone.
const ABANDON: Duration = Duration::from_secs(2);

pub(super) async fn demote(instance: &Arc<Instance>, order: &DemoteOrder) -> Result<Done> {
    if !instance.look(|facts| facts.opened) {
        // Nothing to close: it was closed before, or never opened. Hold still like everybody else.
        fenced(instance, None)?;
        let mut hands = instance.hands().await?;
        stop_receiver(&mut hands).await?;
        return Ok(Done::InForce);
    }
    let budget = Duration::from_millis(order.budget_ms);
    if order.kill {
        return Ok(if close(instance, budget).await.is_ok() { Done::InForce } else { Done::NotYet });
    }
    let mut steps = Steps::begin();
    // The way back must not need a login: those may be blocked.
    let mut way_back = instance.another_session().await?;
    steps.done("way_back");
    match stop_writes(instance, budget).await {
        Ok(()) => {
            steps.done("read_only");
            closed(instance).await?;
            steps.done("offline");
            tracing::info!(epoch = order.epoch, %steps, "closed");
            Ok(Done::InForce)
        }
        Err((error, statement)) => {
            declined(instance)?;
            reopen(&mut way_back, statement).await?;
            Err(Error::Refused(
                RefusalCode::Declined,
                format!("super_read_only=ON did not return within {budget:?}, writes go on ({error})"),
            ))
        }
    }
}

/// Closes an open primary for writes and clients, or kills it.
///
/// # Errors
/// It had to be killed: the reason why it could not be closed.
pub async fn close(instance: &Arc<Instance>, budget: Duration) -> Result<()> {
    let done = match stop_writes(instance, budget).await {
        Ok(()) => closed(instance).await,
        Err((error, _)) => Err(error),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "killing mysqld: it could not be closed in time");
        fenced(instance, Some(true))?;
        instance.kill().await?;
        return Err(error);
    }
    Ok(())
}

/// `super_read_only=ON`, believed only when it returns. The error comes with the id of the session that may still be
/// at it.
///
/// # Errors
/// It did not return OK within the budget.
pub async fn stop_writes(instance: &Arc<Instance>, budget: Duration) -> Result<(), (Error, Option<u32>)> {
    let mut hands = instance.hands().await.map_err(|error| (error, None))?;
    let session = hands.session().map_err(|error| (error, None))?;
    let id = session.id();
    let outcome = async {
        // A second wall, should we lose the connection: mysqld itself gives up waiting a little later.
        let patience = budget.as_secs() + 1;
        session.exec(&format!("SET SESSION lock_wait_timeout={patience}"), STATEMENT).await?;
        session.exec("SET GLOBAL super_read_only=ON", budget).await?;
        let flags: Option<(bool, bool)> =
            session.first("SELECT @@GLOBAL.super_read_only, @@GLOBAL.read_only", STATEMENT).await?;
        if flags != Some((true, true)) {
            return Err(Error::Unexpected(format!("super_read_only=ON returned, but the flags are {flags:?}")));
        }
        session.exec("SET SESSION lock_wait_timeout=DEFAULT", STATEMENT).await?;
        Ok(())
    };
    outcome.await.map_err(|error| (error, Some(id)))
}

/// Writes have stopped for sure: ends the clients, and says so on disk. Dump threads stay (CONNECTION_ADMIN), so that
/// the tail arrives.
async fn closed(instance: &Arc<Instance>) -> Result<()> {
    instance.change(|facts| facts.opened = false);
    let mut hands = instance.hands().await?;
    hands.exec("SET GLOBAL offline_mode=ON", STATEMENT).await?;
    fenced(instance, Some(false))
}

/// Puts the outcome on disk: `None` leaves what was known about the tail.
fn fenced(instance: &Instance, tail_unproven: Option<bool>) -> Result<()> {
    let promise = instance.look(|facts| {
        let before = &facts.promise;
        // A fence or follow that closes the instance on its way keeps the role it has promised.
        let role = if matches!(before.role, Role::Primary { .. }) { Role::Fenced } else { before.role.clone() };
        let tail_unproven = tail_unproven.unwrap_or(before.tail_unproven);
        Promise { role, tail_unproven, ..before.clone() }
    });
    instance.promise(promise)
}

/// Puts on disk that no demotion of this epoch is obeyed any more: the answer that others act on is given once.
fn declined(instance: &Instance) -> Result<()> {
    instance.promise(instance.look(|facts| Promise { order: None, ..facts.promise.clone() }))
}

/// Undoes an attempt: the statement is ended, and the flags are off again.
async fn reopen(session: &mut Session, statement: Option<u32>) -> Result<()> {
    if let Some(id) = statement {
        session.kill(u64::from(id), STATEMENT).await?;
        let begun = Instant::now();
        let sql = format!("SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_ID={id}");
        while session.first::<(i64,)>(&sql, STATEMENT).await?.is_some() {
            if begun.elapsed() > ABANDON {
                return Err(Error::Slow { what: "the end of an abandoned super_read_only=ON", after: ABANDON });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    session.exec("SET GLOBAL super_read_only=OFF", STATEMENT).await?;
    session.exec("SET GLOBAL read_only=OFF", STATEMENT).await?;
    Ok(())
}
