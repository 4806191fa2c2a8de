//! SIGTERM: leave without losing or falsely answering anything (FAILOVER, Never 1).
//!
//! ```text
//! open primary  -> say "leaving", serve on -> demoted and told to follow, or the bound is over
//!                  -> super_read_only=ON returned? yes: SIGTERM, bounded, SIGKILL   no: SIGKILL
//! anything else -> receiver stopped, coordinator killed, sessions ended, SIGTERM, bounded, SIGKILL
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::instance::{Phase, Role};
use common::mysql::Session;

use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT};
use crate::orders;

/// Longest `super_read_only=ON` on the way out.
const CLOSE: Duration = Duration::from_secs(10);
/// Longest graceful end of mysqld; what is not flushed then is recovered at the next start.
const STOP: Duration = Duration::from_secs(15);
/// After a demotion without a follow: the candidate may still fetch the tail from here.
const AFTER_DEMOTION: Duration = Duration::from_secs(10);
/// Without any replica connected for so long nobody can take over: the whole cluster is going.
const ALONE: Duration = Duration::from_secs(3);
/// Longest wait for an order that is being carried out.
const POLL: Duration = Duration::from_millis(50);

/// Leaves. Returns when mysqld is gone.
pub async fn leave(instance: &Arc<Instance>) {
    instance.change(|facts| facts.leaving = true);
    let begun = Instant::now();
    let (opened, acks_needed) = instance.look(|facts| {
        let acks_needed = if let Role::Primary { acks_needed, .. } = facts.promise.role { acks_needed } else { 0 };
        (facts.opened, acks_needed)
    });
    if opened && acks_needed > 0 {
        tracing::info!(bound_seconds = instance.layout.hand_over.as_secs(), "waiting for a hand-over");
        hand_over(instance).await;
    }
    if let Err(error) = stop(instance).await {
        tracing::error!(%error, "mysqld could not be stopped");
    }
    tracing::info!(elapsed_ms = crate::instance::millis(begun.elapsed()), "left");
}

/// Serves on until another instance has taken over, bounded.
async fn hand_over(instance: &Arc<Instance>) {
    let begun = Instant::now();
    let mut demoted_at = None;
    let mut connected_at = begun;
    while begun.elapsed() < instance.layout.hand_over && instance.child().is_some() {
        let (opened, follows) =
            instance.look(|facts| (facts.opened, facts.in_force && matches!(facts.promise.role, Role::Replica { .. })));
        if !opened && follows {
            return;
        }
        if opened {
            demoted_at = None;
        } else if demoted_at.get_or_insert_with(Instant::now).elapsed() > AFTER_DEMOTION {
            return;
        }
        let dumps =
            instance.look(|facts| facts.mysqld.as_ref().is_some_and(|(state, _)| !state.source.dumps.is_empty()));
        if dumps {
            connected_at = Instant::now();
        } else if opened && connected_at.elapsed() > ALONE {
            tracing::info!("no replica is connected: nobody can take over");
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn stop(instance: &Arc<Instance>) -> Result<()> {
    if let Ok(pass) = instance.gate.enter(true, false).await {
        stop_inside(instance).await?;
        drop(pass);
        return Ok(());
    }
    // Provisioning goes on: its data does not count yet.
    instance.kill().await
}

async fn stop_inside(instance: &Arc<Instance>) -> Result<()> {
    let Some(child) = instance.child() else {
        instance.gone().await;
        return Ok(());
    };
    if !matches!(instance.look(|facts| facts.phase), Phase::Running | Phase::Failed) {
        return instance.kill().await;
    }
    instance.change(|facts| {
        facts.phase = Phase::Stopping;
        facts.in_force = false;
    });
    if let Err(error) = prepare(instance).await {
        tracing::warn!(%error, "stopping by SIGKILL");
        return instance.kill().await;
    }
    child.terminate();
    match child.exited_within(STOP).await {
        Some(status) if status.success() => {
            instance.volume.mark_clean()?;
            tracing::info!("mysqld stopped cleanly");
            Ok(())
        }
        Some(status) => Err(Error::Unexpected(format!("mysqld ended with {status}"))),
        None => {
            tracing::warn!("mysqld did not stop in its time");
            instance.kill().await
        }
    }
}

/// After this nobody waits for an acknowledgement, and nothing that the end would wait for is left.
async fn prepare(instance: &Arc<Instance>) -> Result<()> {
    // On a replica it is on already and returns at once. Its return is what counts.
    orders::stop_writes(instance, CLOSE).await.map_err(|(error, _)| error)?;
    instance.change(|facts| facts.opened = false);
    let mut hands = instance.hands().await?;
    hands.exec("SET GLOBAL offline_mode=ON", STATEMENT).await?;
    if orders::channel(hands.session()?).await?.is_some() {
        orders::stop_receiver(&mut hands).await?;
        orders::kill_coordinator(&mut hands).await?;
    }
    end_sessions(hands.session()?).await
}

/// mysqld's end waits ten seconds for sessions that remain, dump threads among them.
async fn end_sessions(session: &mut Session) -> Result<()> {
    let sql = "SELECT PROCESSLIST_ID FROM performance_schema.threads \
        WHERE TYPE='FOREGROUND' AND PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_ID<>CONNECTION_ID() \
        AND PROCESSLIST_COMMAND<>'Daemon'";
    for (id,) in session.rows::<(u64,)>(sql, STATEMENT).await? {
        session.kill(id, STATEMENT).await?;
    }
    Ok(())
}
