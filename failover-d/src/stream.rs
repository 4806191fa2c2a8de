//! One instance's state stream, kept open for as long as its pod is the same.

use std::time::Duration;

use common::client::{Error, InstanceClient};
use common::instance::InstanceState;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::decide::{Name, Order};

/// Deadline of a connection. A live instance on a live node answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);
/// A stream that brings nothing for so long is given up and opened anew (heartbeats come every 250 ms).
const SILENCE: Duration = Duration::from_millis(2000);
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// What the tasks of a cluster tell its loop.
#[derive(Debug)]
pub enum Update {
    /// An instance said something.
    Heard(Box<InstanceState>),
    /// Nothing listens at the instance's address.
    Refused(Name),
    /// The Services lead where they should in this epoch.
    Routed(u64),
    /// An order was answered.
    Answered(Name, Order, Box<Result<InstanceState, Error>>),
}

/// Follows the stream of `name` until the task is aborted.
pub async fn follow(name: Name, client: InstanceClient, updates: mpsc::Sender<Update>) {
    loop {
        match client.stream(CONNECT_TIMEOUT).await {
            Ok(states) => {
                info!(instance = name, "stream opened");
                let mut states = std::pin::pin!(states);
                loop {
                    match timeout(SILENCE, states.next()).await {
                        Ok(Some(Ok(state))) if state.name == name => {
                            if updates.send(Update::Heard(Box::new(state))).await.is_err() {
                                return;
                            }
                        }
                        Ok(Some(Ok(state))) => {
                            debug!(instance = name, found = state.name, "another instance answers at this address");
                            break;
                        }
                        Ok(Some(Err(error))) => {
                            info!(instance = name, %error, "stream broke");
                            break;
                        }
                        Ok(None) => {
                            info!(instance = name, "stream closed");
                            break;
                        }
                        Err(_) => {
                            info!(instance = name, "stream silent for {SILENCE:?}");
                            break;
                        }
                    }
                }
                // The end of a stream is looked into at once: a refused connection proves that the processes are gone.
                continue;
            }
            Err(Error::ConnectionRefused(_)) => {
                if updates.send(Update::Refused(name.clone())).await.is_err() {
                    return;
                }
            }
            Err(error) => debug!(instance = name, %error, "no stream"),
        }
        sleep(RETRY).await;
    }
}
