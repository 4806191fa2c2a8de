//! Whether mysqld purges old binlogs by itself follows the configuration while it runs: a cluster may get an archive later.

use std::sync::Arc;
use std::time::Duration;

use common::instance::Phase;

use crate::error::Result;
use crate::instance::{Instance, STATEMENT};
use crate::settings::{AUTO_PURGE, auto_purge};

/// Pace of looking: the kubelet takes up to a minute to bring a changed file.
const PACE: Duration = Duration::from_secs(10);

/// Looks for changes for as long as the process lives.
pub async fn watch(instance: Arc<Instance>) {
    // Which mysqld was told what. One that was just started has read the same file, or one just before.
    let mut told = None;
    let mut ticks = tokio::time::interval(PACE);
    loop {
        ticks.tick().await;
        let Some(child) = instance.child().filter(|_| instance.look(|facts| facts.phase) == Phase::Running) else {
            continue;
        };
        let Ok(config) = instance.layout.instance_config() else { continue };
        let now = Some((child.pid(), config.archived));
        if told == now {
            continue;
        }
        match tell(&instance, config.archived).await {
            Ok(()) => told = now,
            Err(error) => tracing::warn!(%error, "mysqld was not told who purges its binlogs"),
        }
    }
}

async fn tell(instance: &Arc<Instance>, archived: bool) -> Result<()> {
    let mut session = instance.another_session().await?;
    Ok(session.exec(&format!("SET GLOBAL {AUTO_PURGE}={}", auto_purge(archived)), STATEMENT).await?)
}
