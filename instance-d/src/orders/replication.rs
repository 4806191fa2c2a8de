//! Parts of the replication channel that several orders handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gtid::GtidSet;
use common::mysql::Session;
use common::names::{INSTANCES_MAX, account};

use crate::accounts;
use crate::data::Promise;
use crate::error::{Error, Result};
use crate::gate::Pass;
use crate::instance::{Hands, Instance, STATEMENT};
use crate::nudge;

/// Longest stop of a receiver: 0.1 s while it is connected, and 2 s while it is connecting and nobody can nudge it.
const STOP_RECEIVER: Duration = Duration::from_millis(2500);
/// Longest stop of an applier after its coordinator was killed: 0.25 s measured.
const STOP_APPLIER: Duration = Duration::from_secs(3);
/// Longest wait for killed dump threads to be gone: 0.07 s measured.
const DUMPS_GONE: Duration = Duration::from_secs(2);
/// Longest RESET REPLICA ALL: 30 ms measured.
const RESET: Duration = Duration::from_secs(10);
/// STOP REPLICA while a session holds the backup lock.
const ER_LOCKED_FOR_BACKUP: u16 = 3857;
/// Sessions in `LOCK INSTANCE FOR BACKUP`: account management waits for them, and STOP REPLICA is refused.
const HOLDS_BACKUP_LOCK: &str = "SELECT DISTINCT PROCESSLIST_ID FROM performance_schema.metadata_locks \
    JOIN performance_schema.threads ON THREAD_ID=OWNER_THREAD_ID \
    WHERE OBJECT_TYPE='BACKUP LOCK' AND LOCK_DURATION='EXPLICIT' AND LOCK_STATUS='GRANTED' AND TYPE='FOREGROUND' \
    AND PROCESSLIST_ID IS NOT NULL";
/// Pace of looking: a killed thread is gone in a moment, and a promotion waits for it.
const POLL: Duration = Duration::from_millis(2);

/// What is configured and running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Where it replicates from.
    pub host: String,
    /// Port there.
    pub port: u16,
    /// Account there.
    pub user: String,
    /// `OFF`, `CONNECTING`, `ON`.
    pub receiver: String,
    /// Whether the applier runs.
    pub applier: bool,
    /// What the relay log holds (whole transactions).
    pub received: GtidSet,
}

/// The channel, when one is configured.
///
/// # Errors
/// Those of MySQL.
pub async fn channel(session: &mut Session) -> Result<Option<Channel>> {
    let sql = "SELECT c.HOST, c.PORT, c.USER, s.SERVICE_STATE, a.SERVICE_STATE, s.RECEIVED_TRANSACTION_SET \
        FROM performance_schema.replication_connection_configuration c \
        JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME) \
        JOIN performance_schema.replication_applier_status a USING (CHANNEL_NAME) WHERE CHANNEL_NAME=''";
    let row: Option<(String, u16, String, String, String, String)> = session.first(sql, STATEMENT).await?;
    row.filter(|(host, ..)| !host.is_empty())
        .map(|(host, port, user, receiver, applier, received)| {
            Ok(Channel { host, port, user, receiver, applier: applier == "ON", received: parse(&received)? })
        })
        .transpose()
}

/// A GTID set in mysqld's words.
///
/// # Errors
/// Words that are no set.
pub fn parse(text: &str) -> Result<GtidSet> {
    text.parse().map_err(|error| Error::Unexpected(format!("mysqld's GTID set is not understood: {error}")))
}

/// `@@gtid_executed`.
///
/// # Errors
/// Those of MySQL.
pub async fn executed(session: &mut Session) -> Result<GtidSet> {
    let set: Option<String> = session.first("SELECT @@GLOBAL.gtid_executed", STATEMENT).await?;
    parse(&set.unwrap_or_default())
}

/// What this instance has executed or received, and the channel as it was when that was read.
///
/// # Errors
/// Those of MySQL.
pub async fn held_here(session: &mut Session) -> Result<(GtidSet, Option<Channel>)> {
    let channel = channel(session).await?;
    let mut held = executed(session).await?;
    if let Some(channel) = &channel {
        held.extend_with(&channel.received);
    }
    Ok((held, channel))
}

/// Stops the receiver for sure: the statement returned and the thread is gone.
///
/// # Errors
/// Not confirmed in time. Only SIGKILL of mysqld is sure then; relay logs survive it.
pub async fn stop_receiver(hands: &mut Hands) -> Result<()> {
    let process = hands.process();
    let session = hands.session()?;
    let Some(before) = channel(session).await? else { return Ok(()) };
    if before.receiver != "OFF" {
        nudge::until_receiver_stopped(process, session.exec("STOP REPLICA IO_THREAD", STOP_RECEIVER)).await?;
    }
    match channel(session).await? {
        Some(after) if after.receiver != "OFF" => {
            Err(Error::Unexpected(format!("the receiver is {} after it was stopped", after.receiver)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Ends the applier by killing its coordinator: `STOP REPLICA` would wait a minute for the other half of a transaction
/// (Never 3). The half is rolled back.
///
/// # Errors
/// It is still there after the bound.
pub async fn kill_coordinator(hands: &mut Hands) -> Result<()> {
    let begun = Instant::now();
    let session = hands.session()?;
    while channel(session).await?.is_some_and(|channel| channel.applier) {
        let coordinator: Option<u64> = session
            .first(
                "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE NAME='thread/sql/replica_sql'",
                STATEMENT,
            )
            .await?;
        if let Some(id) = coordinator {
            session.kill(id, STATEMENT).await?;
        }
        if begun.elapsed() > STOP_APPLIER {
            return Err(Error::Slow {
                what: "the end of the applier after its coordinator was killed",
                after: STOP_APPLIER,
            });
        }
        tokio::time::sleep(POLL).await;
    }
    // Both threads are gone: this only settles the state, in 0.1 ms.
    loop {
        match session.exec("STOP REPLICA", STATEMENT).await {
            Err(error) if error.code() == Some(ER_LOCKED_FOR_BACKUP) && begun.elapsed() < STOP_APPLIER => {
                end_sessions(session, HOLDS_BACKUP_LOCK, "held the backup lock, which keeps replication from stopping")
                    .await?;
                tokio::time::sleep(POLL).await;
            }
            settled => return Ok(settled?),
        }
    }
}

/// Removes a channel of which everything received is executed. mysqld can die in the midst of it and leaves a channel that
/// it cannot read again (1871, 1872) and that keeps an instance from all else; so what was begun is on disk first, and is
/// carried on by the next order (see [`carry_on_reset`]).
///
/// # Errors
/// The volume, or those of MySQL.
pub async fn reset_channel(instance: &Arc<Instance>) -> Result<()> {
    let spent = |channel_spent| instance.look(|facts| Promise { channel_spent, ..facts.promise.clone() });
    instance.promise(spent(true))?;
    let mut hands = instance.hands().await?;
    if channel(hands.session()?).await?.is_some_and(|channel| channel.applier) {
        kill_coordinator(&mut hands).await?;
    }
    hands.exec("RESET REPLICA ALL", RESET).await?;
    instance.promise(spent(false))
}

/// Carries on a reset that was begun.
///
/// # Errors
/// The volume, or those of MySQL.
pub async fn carry_on_reset(instance: &Arc<Instance>) -> Result<()> {
    if instance.look(|facts| facts.promise.channel_spent) {
        tracing::info!("the channel of an earlier promotion is removed");
        reset_channel(instance).await?;
    }
    Ok(())
}

/// Makes the locks of the replication accounts what they should be: `struck` may not replicate, all others may, and
/// whoever may not is disconnected before this returns. The binlog is off on our sessions, so nothing waits for an
/// acknowledgement (Never 6). `writable`: super_read_only is off already.
///
/// # Errors
/// Those of MySQL, or a dump thread that does not end.
pub async fn set_locks(hands: &mut Hands, struck: &[u32], writable: bool) -> Result<()> {
    let session = hands.session()?;
    let sql = format!(
        "SELECT User, account_locked='Y' FROM mysql.user WHERE Host='%' AND User LIKE '{}\\_%'",
        account::REPLICATION_PREFIX.trim_end_matches('_').replace('_', "\\_")
    );
    let rows: Vec<(String, bool)> = session.rows(&sql, STATEMENT).await?;
    let is_locked = |ordinal: u32| {
        let name = account::replication(ordinal);
        rows.iter().find(|(user, _)| *user == name).map(|(_, locked)| *locked)
    };
    let lock: Vec<u32> = struck.iter().copied().filter(|ordinal| is_locked(*ordinal) == Some(false)).collect();
    let unlock: Vec<u32> = (0..INSTANCES_MAX).filter(|o| !struck.contains(o) && is_locked(*o) == Some(true)).collect();
    if !lock.is_empty() || !unlock.is_empty() {
        if !writable {
            // read_only stays on: only accounts with CONNECTION_ADMIN could write, and those hold no such privilege.
            session.exec("SET GLOBAL read_only=ON", STATEMENT).await?;
            session.exec("SET GLOBAL super_read_only=OFF", STATEMENT).await?;
        }
        end_sessions(session, HOLDS_BACKUP_LOCK, "held the backup lock, which keeps accounts from being locked")
            .await?;
        for (ordinals, locked) in [(&lock, true), (&unlock, false)] {
            if !ordinals.is_empty() {
                session.exec(&accounts::lock_statement(ordinals, locked)?, STATEMENT).await?;
            }
        }
        if !writable {
            session.exec("SET GLOBAL super_read_only=ON", STATEMENT).await?;
        }
    }
    end_dumps(session, struck).await
}

/// Ends client sessions that stand in the way of a change of primary or of its ackers: clients wait for that, and what these
/// sessions do, a backup say, can be begun again.
///
/// # Errors
/// Those of MySQL.
pub async fn end_sessions(session: &mut Session, which: &str, why: &'static str) -> Result<()> {
    let blockers: Vec<(u64,)> = session.rows(which, STATEMENT).await?;
    for (id,) in blockers {
        tracing::warn!(session = id, "ended a session: it {why}");
        session.kill(id, STATEMENT).await?;
    }
    Ok(())
}

/// Ends the dump threads of these ordinals and waits until the process list shows none.
async fn end_dumps(session: &mut Session, struck: &[u32]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let dumps: Vec<(u64, Option<String>)> = session
            .rows(
                "SELECT PROCESSLIST_ID, PROCESSLIST_USER FROM performance_schema.threads \
                 WHERE TYPE='FOREGROUND' AND PROCESSLIST_ID IS NOT NULL",
                STATEMENT,
            )
            .await?;
        let of_struck: Vec<u64> = dumps
            .into_iter()
            .filter(|(_, user)| struck.iter().any(|ordinal| user.as_deref() == Some(&account::replication(*ordinal))))
            .map(|(id, _)| id)
            .collect();
        if of_struck.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > DUMPS_GONE {
            return Err(Error::Slow { what: "the end of a struck replica's dump thread", after: DUMPS_GONE });
        }
        for id in of_struck {
            session.kill(id, STATEMENT).await?;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Switches the semi-sync source on with so many acknowledgements, or off for none.
///
/// # Errors
/// Those of MySQL.
pub async fn set_acks(hands: &mut Hands, acks_needed: u32) -> Result<()> {
    if acks_needed == 0 {
        // Releases waiters: what the order says is that no acknowledgement is needed.
        let process = hands.process();
        let off = hands.exec("SET GLOBAL rpl_semi_sync_source_enabled=OFF", STATEMENT);
        return nudge::until_acknowledgements_stopped(process, off).await;
    }
    hands.exec(&format!("SET GLOBAL rpl_semi_sync_source_wait_for_replica_count={acks_needed}"), STATEMENT).await?;
    hands.exec("SET GLOBAL rpl_semi_sync_source_enabled=ON", STATEMENT).await
}

/// The receiver has stopped and said so, or mysqld is killed and started anew without one: relay logs survive that
/// (FAILOVER, step 2).
///
/// # Errors
/// mysqld does not come back, or the order was overtaken.
pub async fn stop_receiver_for_sure(instance: &Arc<Instance>, pass: &Pass) -> Result<()> {
    let stopped = async {
        let mut hands = instance.hands().await?;
        stop_receiver(&mut hands).await
    };
    if let Err(error) = stopped.await {
        tracing::warn!(%error, "the receiver's stop was not confirmed");
        pass.run(kill_and_restart(instance)).await?;
    }
    Ok(())
}

/// Kills mysqld because nothing gentler was confirmed, and brings it up again where that is allowed.
///
/// # Errors
/// It does not end, or does not come up.
async fn kill_and_restart(instance: &Arc<Instance>) -> Result<()> {
    tracing::warn!("killing mysqld: its receiver did not stop in time");
    instance.kill().await?;
    instance.ensure_running().await
}
