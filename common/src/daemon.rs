//! What every controller's `main` needs: a client for watches, and a life under a Lease that ends by signal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::{self, Readiness};
use crate::lease::members::{Members, Seats};
use crate::lease::{self, Ended, Lease};

/// The API server ends a watch after so many seconds, and a fresh one goes on from there. kube gives up on a watch that is silent for five
/// seconds longer: nothing else notices that the machine at its other end has lost its power, as there are no keepalives.
/// kube's own number, 290, is for how many clients share the API server; ours are few.
const WATCH: u32 = 30;
/// The same for a call whose connection has died while it was not used, a new watch among them.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// Pace of complaints about watches that fail.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// What is left of the work has so long to come to an end.
const GRACE: Duration = Duration::from_secs(5);

/// How daemons watch: what happens is known, at the latest, [`WATCH`] and a few seconds after a connection has died without a word.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

/// Pauses of watches that fail: a tenth of a second, doubled to two.
///
/// kube's own go up to a minute, and the watches of a controller share them: of an API server that is back each of them learns by an
/// error of its own (`Expired`), after each of which all of them pause. With six of them that took over three minutes.
#[derive(Debug, Default)]
pub struct Patience(u32);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(100).saturating_mul(1 << self.0).min(Duration::from_secs(2));
        self.0 = (self.0 + 1).min(8);
        Some(pause.mul_f64(0.5 + 0.5 * rand::random::<f64>()))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Says that a watch failed, but not more often than each ten seconds: in an outage several fail each second.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<Option<Instant>>);

impl Complaint {
    /// Of a watch of this.
    pub fn about(&self, watch: &str, error: &dyn std::fmt::Display) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= COMPLAINTS) {
            *told = Some(Instant::now());
            warn!(%error, watch, "a watch failed and is tried again");
        }
    }
}

/// A client for watches and bounded calls, of the API server that is configured.
///
/// # Errors
/// No API server is configured, or TLS cannot be set up.
pub async fn watching_client() -> anyhow::Result<Client> {
    watching_client_of(kube::Config::infer().await.context("find the API server")?)
}

/// A client for watches and bounded calls: no retries behind our back (a write that is tried again may be a stale write).
///
/// # Errors
/// TLS cannot be set up.
pub fn watching_client_of(mut config: kube::Config) -> anyhow::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).context("set up the client of the API server")
}

/// An API of all namespaces, or of one.
pub fn everywhere<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

/// A controller of which one replica works and the others wait.
pub struct Controller {
    /// Port of probes and metrics.
    pub http_port: u16,
    /// What is served there.
    pub registry: Registry,
    /// The Lease that says who works.
    pub lease: lease::Config,
    /// 1 while this replica works.
    pub leader: Gauge,
}

impl Controller {
    /// Serves probes and metrics, and works while the Lease is held. `work` has to come to an end when its token is cancelled.
    /// Returns when the process was asked to stop.
    ///
    /// # Errors
    /// Whatever else ended it: a fresh process looks anew.
    pub async fn run<W: Future<Output = ()>>(self, work: impl FnOnce(CancellationToken) -> W) -> anyhow::Result<()> {
        let Self { http_port, registry, lease, leader } = self;
        let (stop, server) = serve(http_port, registry);
        let lease = Lease::new(lease::client().await?, lease);
        // Work is whatever the daemon does: of any size.
        let term = lease.run(stop.clone(), async |term| {
            leader.set(1);
            work(term.token).await;
            leader.set(0);
        });
        let ended = Box::pin(term).await;
        stop.cancel();
        server.await.context("the server of probes and metrics panicked")??;
        match ended {
            Ended::Stopped => Ok(()),
            // What was known may be stale.
            Ended::Lost => anyhow::bail!("leadership was lost"),
            Ended::Finished => anyhow::bail!("the controller ended by itself"),
        }
    }
}

/// A daemon whose replicas share its work.
pub struct Member {
    /// Port of probes and metrics.
    pub http_port: u16,
    /// What is served there.
    pub registry: Registry,
    /// What the names of the members' Leases begin with, and their pace.
    pub lease: lease::Config,
    /// How many there are.
    pub seats: u32,
    /// 1 while this replica has a share.
    pub seated: Gauge,
}

impl Member {
    /// Serves probes and metrics, and works, with what it is told of the other members, until the process is asked to stop. `work` has to
    /// come to an end when its token is cancelled; it is dropped when it has not after a while.
    ///
    /// # Errors
    /// No API server is configured, a port is taken, or the work ended by itself.
    pub async fn run<W: Future<Output = ()>>(
        self,
        work: impl FnOnce(watch::Receiver<Members>, CancellationToken) -> W,
    ) -> anyhow::Result<()> {
        let Self { http_port, registry, lease, seats, seated } = self;
        let (stop, server) = serve(http_port, registry);
        let mut seats = Seats::new(&lease::client().await?, lease, seats);
        let (members, seen) = watch::channel(Members::default());
        let mut told = seen.clone();
        let show = async {
            while told.changed().await.is_ok() {
                seated.set(i64::from(told.borrow_and_update().seat().is_some()));
            }
        };
        let mut working = Box::pin(work(seen, stop.clone()));
        let by_itself = tokio::select! {
            () = &mut working => !stop.is_cancelled(),
            () = async { tokio::join!(seats.keep(&stop, &members), stop.run_until_cancelled(show)); } => {
                if timeout(GRACE, working).await.is_err() {
                    warn!("the work did not end in time and was dropped");
                }
                false
            }
        };
        stop.cancel();
        seats.release().await;
        server.await.context("the server of probes and metrics panicked")??;
        anyhow::ensure!(!by_itself, "the work ended by itself");
        Ok(())
    }
}

/// Serves probes and metrics until the token is cancelled, which a signal does. A standby is ready, too: it takes over when asked.
fn serve(http_port: u16, registry: Registry) -> (CancellationToken, JoinHandle<Result<(), http::Error>>) {
    let (stop, readiness) = (CancellationToken::new(), Readiness::default());
    readiness.set(true);
    let server = tokio::spawn(http::serve(http_port, readiness, Arc::new(registry), stop.clone()));
    tokio::spawn(stop_on_signal(stop.clone()));
    (stop, server)
}

/// Cancels the token at SIGTERM and SIGINT.
async fn stop_on_signal(stop: CancellationToken) {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => info!("SIGTERM"),
        () = wait(SignalKind::interrupt()) => info!("SIGINT"),
    }
    stop.cancel();
}

/// What is configured, or the pod's name, or the daemon's.
pub fn identity(configured: Option<&str>, daemon: &str) -> String {
    let host = || std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    configured.map(str::to_owned).or_else(host).unwrap_or_else(|| daemon.to_owned())
}
