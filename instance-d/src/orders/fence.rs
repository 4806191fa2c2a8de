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

pub(super) async fn fence(instance: &Arc<Instance>, pass: &Pass) -> Result<Done> {
    if instance.look(|facts| facts.opened) && close(instance, CLOSE).await.is_err() {
        // Killed: a crashed primary stays down until an order says what becomes of its tail.
        return Ok(Done::NotYet);
    }
    stop_receiver_for_sure(instance, pass).await?;
    let mut hands = instance.hands().await?;
    let session = hands.session()?;
    if channel(session).await?.is_some_and(|channel| !channel.applier) {
        session.exec("START REPLICA SQL_THREAD", STATEMENT).await?;
    }
    Ok(Done::InForce)
}
