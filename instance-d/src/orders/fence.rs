//! Fence: the receiver is stopped for sure, the applier runs, and the answer says what was received.

use std::sync::Arc;
use std::time::Duration;

use super::replication::{channel, stop_receiver_for_sure};
use super::{Done, close};
use crate::error::Result;
use crate::gate::Pass;
use crate::instance::{Instance, STATEMENT};

/// Longest wait for a primary that is fenced without having been demoted.
const CLOSE: Duration = Duration::from_millis(1500);
/// Longest wait for the applier. What was received a moment ago is applied in a moment; when the answer says so, clients can
/// be led here before this instance opens, and less is left to do until then.
const APPLIED: Duration = Duration::from_millis(20);

pub(super) async fn fence(instance: &Arc<Instance>, pass: &Pass) -> Result<Done> {
    if instance.look(|facts| facts.opened) && close(instance, CLOSE).await.is_err() {
        // Killed: a crashed primary stays down until an order says what becomes of its tail.
        return Ok(Done::NotYet);
    }
    stop_receiver_for_sure(instance, pass).await?;
    let mut hands = instance.hands().await?;
    let session = hands.session()?;
    if let Some(channel) = channel(session).await? {
        if !channel.applier {
            session.exec("START REPLICA SQL_THREAD", STATEMENT).await?;
        }
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', {})", channel.received, APPLIED.as_secs_f64());
        session.first::<(Option<i64>,)>(&sql, STATEMENT).await?;
    }
    Ok(Done::InForce)
}
