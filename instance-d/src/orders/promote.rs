//! Promote: apply everything that was received, then open.
//!
//! ```text
//! all that it must hold received -> receiver stopped -> received applied -> coordinator idle, or killed
//!   -> tail proven? -no-> semi-sync source on, stay closed
//!          \-yes-> super_read_only=OFF -> account locks -> semi-sync on -> read_only=OFF -> offline_mode=OFF
//!   -> (later) first acknowledgement read; coordinator killed, RESET REPLICA ALL
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gtid::GtidSet;
use common::instance::{PromoteOrder, RefusalCode, Role};

use super::Done;
use super::replication::{
    channel, end_sessions, executed, held_here, kill_coordinator, reset_channel, set_acks, set_locks,
    stop_receiver_for_sure,
};
use crate::data::Promise;
use crate::error::{Error, Result};
use crate::gate::Pass;
use crate::instance::{Hands, Instance, STATEMENT};
use crate::nudge;
use crate::steps::Steps;

/// Sessions of clients that hold a metadata lock for which the applier waits: `LOCK TABLES`, a long transaction's, a global
/// read lock.
const BLOCKS_APPLIER: &str = "SELECT DISTINCT holder.PROCESSLIST_ID \
    FROM performance_schema.metadata_locks waits \
    JOIN performance_schema.threads applier ON applier.THREAD_ID=waits.OWNER_THREAD_ID \
    JOIN performance_schema.metadata_locks held ON held.OBJECT_TYPE=waits.OBJECT_TYPE \
        AND held.OBJECT_SCHEMA<=>waits.OBJECT_SCHEMA AND held.OBJECT_NAME<=>waits.OBJECT_NAME \
        AND held.OWNER_THREAD_ID<>waits.OWNER_THREAD_ID \
    JOIN performance_schema.threads holder ON holder.THREAD_ID=held.OWNER_THREAD_ID \
    WHERE waits.LOCK_STATUS='PENDING' AND held.LOCK_STATUS='GRANTED' AND applier.NAME LIKE 'thread/sql/replica\\_%' \
        AND holder.TYPE='FOREGROUND' AND holder.PROCESSLIST_ID IS NOT NULL";
/// Sessions that wait for an acknowledgement, and commits that were acknowledged.
const WAITING_AND_ACKNOWLEDGED: &str = "SELECT \
    CAST(MAX(IF(VARIABLE_NAME='Rpl_semi_sync_source_wait_sessions', VARIABLE_VALUE, NULL)) AS UNSIGNED), \
    CAST(MAX(IF(VARIABLE_NAME='Rpl_semi_sync_source_yes_tx', VARIABLE_VALUE, NULL)) AS UNSIGNED) \
    FROM performance_schema.global_status \
    WHERE VARIABLE_NAME IN ('Rpl_semi_sync_source_wait_sessions', 'Rpl_semi_sync_source_yes_tx')";
/// So long after the opening the first acknowledgement is looked for.
const FIRST: Duration = Duration::from_secs(2);
/// Pace of looking for it.
const FIRST_LOOK: Duration = Duration::from_millis(25);
/// Longest wait for the rest of what the candidate of a switchover must hold: then the order is asked for again.
const RECEIVE: Duration = Duration::from_secs(2);
/// Pace of looking whether it has arrived.
const RECEIVE_LOOK: Duration = Duration::from_millis(2);
/// One look at the applier while it works.
const APPLY_LOOK: Duration = Duration::from_millis(500);

pub(super) async fn promote(instance: &Arc<Instance>, order: &PromoteOrder, pass: &Pass) -> Result<Done> {
    let (opened, role) = instance.look(|facts| (facts.opened, facts.promise.role.clone()));
    let Role::Primary { acks_needed, struck } = role else {
        return Err(Error::Unexpected("a promote order without a primary".to_owned()));
    };
    let mut steps = Steps::begin();
    if opened {
        // It may have been opened half way, or have gone offline while it was isolated: this order says that it is the primary.
        let mut hands = instance.hands().await?;
        open(&mut hands, acks_needed, &struck, &mut steps).await?;
        tokio::spawn(forget_the_channel(Arc::clone(instance)));
        return Ok(Done::InForce);
    }
    if let Some(wanted) = &order.must_hold {
        let mut hands = instance.hands().await?;
        pass.run(receive(&mut hands, wanted)).await?;
        steps.done("received");
    }
    stop_receiver_for_sure(instance, pass).await?;
    steps.done("receiver");
    let mut hands = instance.hands().await?;
    pass.run(apply_received(&mut hands, Duration::from_millis(order.apply_timeout_ms))).await?;
    steps.done("applied");
    if !applier_is_idle(&mut hands).await? {
        kill_coordinator(&mut hands).await?;
    }
    steps.done("applier");
    hands.exec("SET GLOBAL rpl_semi_sync_replica_enabled=OFF", STATEMENT).await?;
    if !is_proven(instance, order, &mut hands).await? {
        // Replicas may connect and fetch the tail; clients may not see it. The order is repeated with what they hold.
        hands.exec("SET GLOBAL offline_mode=ON", STATEMENT).await?;
        set_acks(&mut hands, acks_needed).await?;
        set_locks(&mut hands, &struck, false).await?;
        return Ok(Done::NotYet);
    }
    instance.promise(instance.look(|facts| Promise { tail_unproven: false, ..facts.promise.clone() }))?;
    steps.done("promise");
    instance.change(|facts| facts.opened = true);
    open(&mut hands, acks_needed, &struck, &mut steps).await?;
    tracing::info!(epoch = order.epoch, %steps, "opened");
    if acks_needed > 0 {
        tokio::spawn(hear_the_first(Arc::clone(instance)));
    }
    tokio::spawn(forget_the_channel(Arc::clone(instance)));
    Ok(Done::InForce)
}

/// Lets clients write. Whatever of it was done before is done again, so that an order that was cut half way is completed by the
/// next. Who is struck is out before fewer acknowledgements are waited for, and these are before clients can write.
async fn open(hands: &mut Hands, acks_needed: u32, struck: &[u32], steps: &mut Steps) -> Result<()> {
    hands.exec("SET GLOBAL super_read_only=OFF", STATEMENT).await?;
    steps.done("writable");
    set_locks(hands, struck, true).await?;
    steps.done("locks");
    set_acks(hands, acks_needed).await?;
    hands.exec("SET GLOBAL read_only=OFF", STATEMENT).await?;
    hands.exec("SET GLOBAL offline_mode=OFF", STATEMENT).await?;
    steps.done("open");
    Ok(())
}

/// Waits until all of `wanted` has been received. It comes from a primary that takes no more writes.
async fn receive(hands: &mut Hands, wanted: &GtidSet) -> Result<()> {
    let begun = Instant::now();
    let session = hands.session()?;
    loop {
        let (held, channel) = held_here(session).await?;
        if wanted.is_subset(&held) {
            return Ok(());
        }
        if channel.is_none_or(|channel| channel.receiver == "OFF") {
            let lacks = wanted.subtract(&held);
            let message = format!("nothing is being received, and {lacks} of the old primary is missing");
            return Err(Error::Refused(RefusalCode::Failed, message));
        }
        if begun.elapsed() >= RECEIVE {
            return Err(Error::Slow { what: "receiving what the old primary held", after: RECEIVE });
        }
        tokio::time::sleep(RECEIVE_LOOK).await;
    }
}

/// Waits until everything in the relay log is executed. Sessions that hold a lock which the applier waits for are ended.
async fn apply_received(hands: &mut Hands, within: Duration) -> Result<()> {
    let begun = Instant::now();
    let session = hands.session()?;
    let Some(first) = channel(session).await? else { return Ok(()) };
    if first.received.is_subset(&executed(session).await?) {
        return Ok(());
    }
    if !first.applier {
        session.exec("START REPLICA SQL_THREAD", STATEMENT).await?;
    }
    loop {
        let sql = format!(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', {})",
            first.received,
            APPLY_LOOK.min(within.saturating_sub(begun.elapsed())).as_secs_f64().max(0.001)
        );
        session.first::<(Option<i64>,)>(&sql, APPLY_LOOK + STATEMENT).await?;
        if first.received.is_subset(&executed(session).await?) {
            return Ok(());
        }
        if channel(session).await?.is_some_and(|channel| !channel.applier) {
            return Err(Error::Refused(
                RefusalCode::Failed,
                "the applier stopped before everything that was received was applied".to_owned(),
            ));
        }
        if begun.elapsed() >= within {
            return Err(Error::Slow { what: "applying what was received", after: within });
        }
        end_sessions(session, BLOCKS_APPLIER, "held a lock that the applier of what was received waits for").await?;
    }
}

/// The applier has nothing in hand: no part of a transaction whose rest never came, which would hold locks that clients
/// wait for. It may then go on waiting for what does not come, until the new primary is open: its end takes up to 0.25 s.
async fn applier_is_idle(hands: &mut Hands) -> Result<bool> {
    let sql = "SELECT \
        (SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_coordinator \
         WHERE CHANNEL_NAME='' AND PROCESSING_TRANSACTION<>''), \
        (SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_worker \
         WHERE CHANNEL_NAME='' AND APPLYING_TRANSACTION<>'')";
    let busy: Option<(i64, i64)> = hands.session()?.first(sql, STATEMENT).await?;
    Ok(busy == Some((0, 0)))
}

/// A primary that comes back in place has committed its tail by crash recovery, and an elected replica may hold what its primary
/// was still waiting to commit: it opens only when enough ackers are known to hold that, too (docs/failover-protocol.md,
/// "A candidate that may hold more than was acknowledged" and "Reopen").
async fn is_proven(instance: &Instance, order: &PromoteOrder, hands: &mut Hands) -> Result<bool> {
    let tail_unproven = order.tail_unproven || instance.look(|facts| facts.promise.tail_unproven);
    if order.acks_needed == 0 || !tail_unproven {
        return Ok(true);
    }
    let own = executed(hands.session()?).await?;
    Ok(order.proven.as_ref().is_some_and(|proven| own.is_subset(proven)))
}

/// Until a commit is acknowledged for the first time: whoever reads acknowledgements is woken while somebody waits for one.
/// It may be asleep on the connection of a replica that has hung up, as one does that is sent here, held still, and sent here
/// again.
async fn hear_the_first(instance: Arc<Instance>) {
    let begun = Instant::now();
    let heard = async {
        let process = instance.child().ok_or(Error::NotRunning)?.pid();
        let mut session = instance.another_session().await?;
        let mut known = None;
        let mut waited = false;
        while begun.elapsed() < FIRST && instance.look(|facts| facts.opened) {
            let Some((waiting, acknowledged)) =
                session.first::<(u64, u64)>(WAITING_AND_ACKNOWLEDGED, STATEMENT).await?
            else {
                break;
            };
            if acknowledged != *known.get_or_insert(acknowledged) {
                break;
            }
            if waiting > 0 && waited && nudge::nudge(process, nudge::ACKNOWLEDGEMENTS) {
                tracing::debug!(waiting, "nudged who reads acknowledgements");
            }
            waited = waiting > 0;
            tokio::time::sleep(FIRST_LOOK).await;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = heard.await {
        tracing::debug!(%error, "the first acknowledgement was not looked for");
    }
}

/// The old channel is of no use to a primary. After the opening, so that it costs no time.
async fn forget_the_channel(instance: Arc<Instance>) {
    let done = async {
        let _pass = instance.gate.enter(false, true).await?;
        if instance.look(|facts| facts.opened) && channel(instance.hands().await?.session()?).await?.is_some() {
            reset_channel(&instance).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = done.await {
        tracing::warn!(%error, "could not reset the replication channel of the new primary");
    }
}
