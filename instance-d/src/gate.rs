//! One order at a time.
//!
//! Orders wait for each other. Fence and demote do not wait for a follow, promote or start that takes its time (a
//! failover must not): they overtake it, which ends it at its next wait. Provisioning is never overtaken.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Longest wait for the order before.
const WAIT: Duration = Duration::from_secs(5);

/// Where orders queue.
#[derive(Debug, Default)]
pub struct Gate {
    busy: Arc<tokio::sync::Mutex<()>>,
    inside: Arc<Mutex<Option<CancellationToken>>>,
}

/// The right to change the instance.
#[derive(Debug)]
pub struct Pass {
    _busy: OwnedMutexGuard<()>,
    inside: Arc<Mutex<Option<CancellationToken>>>,
    overtaken: CancellationToken,
}

impl Gate {
    /// Waits for the order inside to finish; `overtaking` ends it first.
    ///
    /// # Errors
    /// The order inside does not finish.
    pub async fn enter(&self, overtaking: bool, can_be_overtaken: bool) -> Result<Pass> {
        if overtaking && let Some(inside) = self.inside.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            inside.cancel();
        }
        let busy = tokio::time::timeout(WAIT, Arc::clone(&self.busy).lock_owned())
            .await
            .map_err(|_| Error::Slow { what: "another order", after: WAIT })?;
        let overtaken = CancellationToken::new();
        if can_be_overtaken {
            *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some(overtaken.clone());
        }
        Ok(Pass { _busy: busy, inside: Arc::clone(&self.inside), overtaken })
    }
}

impl Pass {
    /// For work that looks by itself whether it was overtaken.
    pub fn overtaken(&self) -> CancellationToken {
        self.overtaken.clone()
    }

    /// Runs work until it is done or overtaken.
    ///
    /// # Errors
    /// Those of the work, or [`Error::Overtaken`].
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.overtaken.cancelled() => Err(Error::Overtaken),
            done = work => done,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Gate;
    use crate::error::Error;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_fence_overtakes_a_slow_start() {
        let gate = Arc::new(Gate::default());
        let slow = gate.enter(false, true).await.unwrap();
        let running = tokio::spawn(async move { slow.run(std::future::pending::<crate::error::Result<()>>()).await });
        tokio::task::yield_now().await;
        let _fence = gate.enter(true, true).await.unwrap();
        assert!(matches!(running.await.unwrap(), Err(Error::Overtaken)));
    }

    #[tokio::test(start_paused = true)]
    async fn provisioning_is_not_overtaken() {
        let gate = Gate::default();
        let _clone = gate.enter(false, false).await.unwrap();
        assert!(gate.enter(true, true).await.is_err());
    }
}
