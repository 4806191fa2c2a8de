//! A primary that is cut off from everybody refuses its clients (FAILOVER, "Fencing a primary that is cut off").
//!
//! Semi-sync stops the writes of an isolated primary, not its reads, and by the time it is isolated another may have
//! been promoted. So a primary that for `failover.isolatedAfter` has no open stream to any failover-d and reaches no
//! replica goes offline: client sessions are ended, new ones refused. Nobody who waits is answered. It stays so until
//! failover-d, heard again, repeats its promote order or says what it is now.
//!
//! A stream counts as long as its peer acknowledges what is sent: TCP gives it up (`TCP_USER_TIMEOUT`) when nothing was
//! acknowledged for as long as the limit. Replicas are only asked while there is no stream: one whose host answers a
//! connection, be it with a refusal, is not cut off from us.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::instance::Role;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

use crate::instance::{Instance, STATEMENT};

/// Pace of looking.
const PACE: Duration = Duration::from_millis(250);
/// Longest connection to a replica.
const REACH: Duration = Duration::from_millis(400);

/// Counts a stream to failover-d for as long as it is held.
#[derive(Debug)]
pub struct Listener(Arc<Instance>);

impl Listener {
    /// One more.
    pub fn new(instance: Arc<Instance>) -> Self {
        instance.listeners.fetch_add(1, Ordering::Relaxed);
        Self(instance)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limit that is configured now.
pub fn limit(instance: &Instance) -> Duration {
    Duration::from_millis(instance.config().isolated_after_ms.max(500))
}

/// A primary whose commits are acknowledged by others: one that is alone by design has nobody to hear.
fn reigns(instance: &Instance) -> bool {
    instance.look(|facts| {
        facts.opened && matches!(facts.promise.role, Role::Primary { acks_needed, .. } if acks_needed > 0)
    })
}

/// Whether any of the replicas' hosts answers.
async fn reaches(peers: BTreeSet<IpAddr>, port: u16) -> bool {
    let mut attempts: FuturesUnordered<_> = peers
        .into_iter()
        .map(|peer| tokio::time::timeout(REACH, TcpStream::connect(SocketAddr::new(peer, port))))
        .collect();
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => return true,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    false
}

async fn go_offline(instance: &Arc<Instance>) -> crate::error::Result<()> {
    // No hands: an order may hold them, and nothing may keep this waiting.
    let mut session = instance.another_session().await?;
    session.exec("SET GLOBAL offline_mode=ON", STATEMENT).await?;
    Ok(())
}

/// Watches for as long as the process lives.
pub async fn watch(instance: Arc<Instance>) {
    let mut heard_at = Instant::now();
    let mut offline = false;
    loop {
        tokio::time::sleep(PACE).await;
        let listened = instance.listeners.load(Ordering::Relaxed) > 0;
        if !reigns(&instance) || listened {
            heard_at = Instant::now();
            offline = false;
            continue;
        }
        let peers = instance.look(|facts| facts.peers.clone());
        let asked_at = Instant::now();
        if reaches(peers, instance.layout.port_api).await {
            heard_at = asked_at;
            offline = false;
            continue;
        }
        if heard_at.elapsed() < limit(&instance) || offline {
            continue;
        }
        match go_offline(&instance).await {
            Ok(()) => {
                offline = true;
                instance.metrics.isolations.inc();
                tracing::warn!(
                    silent_ms = crate::instance::millis(heard_at.elapsed()),
                    "isolated: neither failover-d nor a replica is heard; clients are refused"
                );
            }
            Err(error) => tracing::warn!(%error, "isolated, and clients could not be refused"),
        }
    }
}
