//! What every controller's `main` needs: a client for watches, and an end by signal.

use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Longer than the API server keeps a silent watch open.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(330);

/// A client for watches and bounded calls: no retries behind our back.
///
/// # Errors
/// No API server is configured, or TLS cannot be set up.
pub async fn watching_client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(WATCH_READ_TIMEOUT);
    config.write_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

/// Cancels the token at SIGTERM and SIGINT.
pub async fn stop_on_signal(stop: CancellationToken) {
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
