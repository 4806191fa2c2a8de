//! Leadership by a Lease, for controllers whose duplicate work is waste and not danger.
//!
//! client-go's algorithm: every write carries the resourceVersion it was decided on, so of two candidates one loses
//! with a conflict. Whether a holder is gone is judged by the local monotonic clock, from the moment its record was last
//! seen to change: clocks of other machines do not matter. A leader that could not renew for the renew deadline stops
//! its work before anyone else may begin.
//!
//! ```text
//! acquire --(held by another: wait until its record has not changed for its duration)--> term
//! term    --(renewed each retry)--> term
//!         --(renew deadline missed, or another holder seen)--> token cancelled, work stopped --> Ended::Lost
//!         --(stop)--> token cancelled, work stopped, record released --> Ended::Stopped
//! ```
//!
//! Assumes that the process is not suspended between its last look at the token and its act: a write that must not come
//! late carries a resourceVersion or an epoch of its own, never the Lease alone.

mod api;
mod decide;
pub mod members;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::api::{Api, Held};
pub use self::api::{ClientError, client, client_of};
use self::decide::Candidate;

/// Name, place and pace of a Lease.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are: unique among candidates that may live at the same time, the pod's name for instance.
    pub identity: String,
    /// How long others wait after the last renewal they saw.
    pub duration: Duration,
    /// How long the leader goes on without a renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl Config {
    /// The pace that Kubernetes' own controllers have: 15, 10 and 2 seconds.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// The pause between two attempts, with jitter, so that candidates do not meet each time.
    fn pause(&self) -> Duration {
        self.retry.mul_f64(1.0 + 0.2 * rand::random::<f64>())
    }
}

/// A time of leadership.
#[derive(Clone, Debug)]
pub struct Term {
    /// Cancelled when leadership ends, for whatever reason: stop writing.
    pub token: CancellationToken,
    /// `leaseTransitions` of the record: grows with each change of the holder.
    pub transitions: i32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the stop token. The record is released, so that another candidate need not wait.
    Stopped,
    /// The work ended by itself. The record is released.
    Finished,
    /// Leadership was lost. The work was told and, if that did not help, dropped. The process should exit: what it
    /// knows may be stale.
    Lost,
}

/// A candidate for leadership.
#[derive(Debug)]
pub struct Lease {
    api: Api,
    config: Config,
}

impl Lease {
    /// A candidate that uses this client, which should be one of [`client`]: kube's default retries for minutes.
    pub fn new(client: kube::Client, config: Config) -> Self {
        Self { api: Api::new(client, &config), config }
    }

    /// Waits for leadership, runs `work` while it lasts, and returns when either is over.
    ///
    /// After the term's token is cancelled `work` has what is left between the renew deadline and the lease's duration
    /// to come to an end, then it is dropped: it must not leave tasks behind that outlive it.
    pub async fn run<W: Future<Output = ()>>(&self, stop: CancellationToken, work: impl FnOnce(Term) -> W) -> Ended {
        let Some(held) = stop.run_until_cancelled(self.acquire()).await else { return Ended::Stopped };
        let token = CancellationToken::new();
        let term = Term { token: token.clone(), transitions: held.transitions() };
        info!(lease = self.config.name, identity = self.config.identity, transitions = term.transitions, "leading");
        let mut held = held;
        let mut work = Box::pin(work(term));
        let ended = tokio::select! {
            () = &mut work => {
                token.cancel();
                self.release(held).await;
                return Ended::Finished;
            }
            () = self.keep(&mut held) => Ended::Lost,
            () = stop.cancelled() => Ended::Stopped,
        };
        token.cancel();
        let grace = self.config.duration.saturating_sub(self.config.renew_deadline) / 2;
        if timeout(grace, work).await.is_err() {
            warn!(lease = self.config.name, "the work of the term did not end in time and was dropped");
        }
        match ended {
            Ended::Stopped | Ended::Finished => self.release(held).await,
            Ended::Lost => warn!(lease = self.config.name, identity = self.config.identity, "leadership is lost"),
        }
        ended
    }

    /// Tries until the record is ours.
    async fn acquire(&self) -> Held {
        let mut candidate = Candidate::default();
        loop {
            let since = Instant::now();
            match self.api.get().await {
                Ok(found) => {
                    let now = Instant::now().into_std();
                    let step = candidate.decide(found.as_ref().map(decide::Record::of), &self.config, now);
                    match self.api.obey(step, found, since).await {
                        Ok(Some(held)) => return held,
                        Ok(None) => {}
                        Err(error) => warn!(lease = self.config.name, %error, "cannot take the lease"),
                    }
                }
                Err(error) => warn!(lease = self.config.name, %error, "cannot look at the lease"),
            }
            sleep(self.config.pause()).await;
        }
    }

    /// Renews until that has failed for the renew deadline or another holder is seen.
    async fn keep(&self, held: &mut Held) {
        loop {
            sleep(self.config.retry).await;
            let deadline = held.renewed_at + self.config.renew_deadline;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match timeout(left, self.api.renew(held)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(api::RenewError::Usurped(holder))) => {
                        warn!(lease = self.config.name, holder, "the lease has another holder");
                        return;
                    }
                    Ok(Err(api::RenewError::Failed(error))) => {
                        warn!(lease = self.config.name, %error, "cannot renew the lease");
                        // Never past the deadline.
                        sleep((self.config.retry / 4).min(deadline.saturating_duration_since(Instant::now()))).await;
                    }
                    Err(_) => return,
                }
                if Instant::now() >= deadline {
                    return;
                }
            }
        }
    }

    /// Lets others have it at once. A failure costs them the wait, no more.
    async fn release(&self, held: Held) {
        match timeout(self.config.retry, self.api.release(held)).await {
            Ok(Ok(())) => info!(lease = self.config.name, "released"),
            Ok(Err(error)) => warn!(lease = self.config.name, %error, "cannot release the lease"),
            Err(_) => warn!(lease = self.config.name, "cannot release the lease: no answer"),
        }
    }
}
