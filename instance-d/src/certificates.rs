//! Certificates change without a restart: the files are looked at, and what changed is taken into use by the API and by
//! mysqld. A half-written pair changes nothing; the next look repairs it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use common::instance::Phase;
use common::tls::{Material, server_config};
use sha2::{Digest, Sha256};

use crate::api::CurrentTls;
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT};

/// Pace of looking. Kubernetes itself takes up to a minute to bring a changed Secret.
const PACE: Duration = Duration::from_secs(5);

type Fingerprint = [u8; 32];

fn read(layout: &Layout) -> Result<(Material, Fingerprint)> {
    let material = Material::from_dir(&layout.tls).map_err(Error::file("read certificates in", &layout.tls))?;
    let mut hash = Sha256::new();
    for part in [&material.certificate, &material.key, &material.authorities] {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    Ok((material, hash.finalize().into()))
}

/// What the API starts with.
///
/// # Errors
/// Files that cannot be read or used.
pub fn load(layout: &Layout) -> Result<CurrentTls> {
    let (material, _) = read(layout)?;
    let config = server_config(&material).map_err(|error| Error::Configuration(error.to_string()))?;
    Ok(Arc::new(RwLock::new(Arc::new(config))))
}

/// Looks for changes for as long as the process lives.
pub async fn watch(instance: Arc<Instance>, current: CurrentTls) {
    let mut api = read(&instance.layout).ok().map(|(_, fingerprint)| fingerprint);
    let mut before = api;
    // mysqld reads the files when it starts: only what changes later is told.
    let mut mysqld = api;
    let mut mysqld_pid = None;
    let mut ticks = tokio::time::interval(PACE);
    loop {
        ticks.tick().await;
        let (material, fingerprint) = match read(&instance.layout) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "keeping the certificates that are in use");
                continue;
            }
        };
        if api != Some(fingerprint) {
            match server_config(&material) {
                Ok(config) => {
                    *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    api = Some(fingerprint);
                    tracing::info!("the API uses changed certificates");
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificates cannot be used");
                    continue;
                }
            }
        }
        let pid = instance.child().map(|child| child.pid());
        let earlier = before.replace(fingerprint);
        if pid != mysqld_pid {
            mysqld_pid = pid;
            // It was started since the look before. Had the files changed since then it may have read either.
            mysqld = earlier.filter(|earlier| *earlier == fingerprint);
        }
        let running = instance.look(|facts| facts.phase) == Phase::Running;
        if mysqld != Some(fingerprint) && pid.is_some() && running {
            match reload(&instance).await {
                Ok(()) => mysqld = Some(fingerprint),
                Err(error) => tracing::warn!(%error, "mysqld did not reload its certificates"),
            }
        }
    }
}

async fn reload(instance: &Arc<Instance>) -> Result<()> {
    let mut session = instance.another_session().await?;
    Ok(session.exec("ALTER INSTANCE RELOAD TLS", STATEMENT).await?)
}
