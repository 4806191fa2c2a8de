//! instance-d: PID 1 of the MySQL container, parent of mysqld, and the hands of the operator.
//!
//! It provisions the data directory, starts mysqld closed and read-only, obeys orders that carry the epoch it has
//! promised, streams the instance's state, and stops mysqld without a false answer to anybody. It never talks to
//! Kubernetes and decides nothing about roles.

mod accounts;
mod api;
mod certificates;
mod config;
mod data;
mod death;
mod decide;
mod error;
mod gate;
mod hosts;
mod instance;
mod isolation;
mod leave;
mod metrics;
mod nudge;
mod observe;
mod orders;
mod process;
mod purge;
mod rewind;
mod settings;
mod starvation;
mod steps;
mod threads;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use common::instance::Phase;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Identity, Layout};
use crate::instance::Instance;

/// Pace of looking whether the volume is free.
const VOLUME_POLL: std::time::Duration = std::time::Duration::from_millis(200);

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next();
    match (command.as_deref().and_then(|command| command.to_str()), arguments.next(), arguments.next()) {
        (Some("install"), Some(path), hosts) => {
            if let Some(hosts) = hosts {
                hosts::create(Path::new(&hosts)).context("make the hosts file")?;
            }
            data::install(&PathBuf::from(path)).context("install")
        }
        (Some("run"), None, None) => {
            common::telemetry::init("instance-d")?;
            // Two threads: a blocked one (disk) must not hide the pulse. More would only cost memory.
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("start the runtime")?
                .block_on(run())
        }
        _ => bail!("usage: instance-d install <path> [<hosts file>] | instance-d run"),
    }
}

async fn run() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let layout = Layout::from_env()?;
    Instance::prepare_run_dir(&layout.run)?;
    let config = layout.instance_config()?;
    let identity = Identity::from_env(&config)?;
    tracing::info!(instance = identity.name, namespace = identity.namespace, cluster = identity.cluster, "starting");
    let _held = tokio::select! {
        held = take_volume(&layout) => held?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let instance = Instance::open(layout, identity, config)?;
    let tls = certificates::load(&instance.layout)?;
    let listener = api::listen(instance.layout.api_address()).await?;

    let reaper = Arc::clone(&instance);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(api::serve(listener, Arc::clone(&tls), Arc::clone(&instance)));
    tasks.spawn(observe::observe(Arc::clone(&instance)));
    tasks.spawn(observe::disk(Arc::clone(&instance)));
    tasks.spawn(observe::canary(Arc::clone(&instance)));
    tasks.spawn(observe::login_canary(Arc::clone(&instance)));
    tasks.spawn(starvation::watch(Arc::clone(&instance)));
    tasks.spawn(hosts::watch(Arc::clone(&instance)));
    tasks.spawn(isolation::watch(Arc::clone(&instance)));
    tasks.spawn(rewind::keep(Arc::clone(&instance)));
    tasks.spawn(purge::watch(Arc::clone(&instance)));
    tasks.spawn(certificates::watch(Arc::clone(&instance), tls));
    tokio::spawn(process::reap_orphans(move || reaper.process().map(|child| child.pid())));
    tokio::spawn(boot(Arc::clone(&instance)));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = tasks.join_next() => {
            // Without one of them nobody could judge this instance: end, and let the container start again.
            if let Err(error) = instance.kill().await {
                tracing::error!(%error, "could not kill mysqld");
            }
            bail!("a task that must not end has ended: {ended:?}");
        }
    }
    leave::leave(&instance).await;
    Ok(())
}

/// Waits until no other instance-d or mysqld uses the volume.
async fn take_volume(layout: &Layout) -> anyhow::Result<data::VolumeLock> {
    let volume = data::Volume::new(layout.volume.clone());
    let mut waiting = false;
    loop {
        if let Some(lock) = volume.lock()? {
            return Ok(lock);
        }
        if !waiting {
            tracing::warn!("the volume is still in use by the pod before this one; waiting for its end");
            waiting = true;
        }
        tokio::time::sleep(VOLUME_POLL).await;
    }
}

/// After a clean stop mysqld starts by itself, closed and read-only. After any other stop it waits for an order that
/// says what it is now (Never 7). What no provisioning completed is thrown away.
async fn boot(instance: Arc<Instance>) {
    let phase = instance.look(|facts| facts.phase);
    tracing::info!(?phase, "found");
    let Ok(pass) = instance.gate.enter(false, phase != Phase::Empty).await else { return };
    let done = match phase {
        Phase::Empty => instance.volume.wipe(),
        Phase::Starting => pass.run(instance.ensure_running()).await,
        Phase::Initialising
        | Phase::Cloning
        | Phase::Crashed
        | Phase::Rewinding
        | Phase::Running
        | Phase::Stopping
        | Phase::Failed => Ok(()),
    };
    if let Err(error) = done {
        tracing::error!(%error, "could not start");
        instance.change(|facts| {
            facts.problem = Some(error.to_string());
            if phase == Phase::Empty {
                facts.phase = Phase::Failed;
            } else if facts.phase == Phase::Starting && instance.child().is_none() {
                facts.phase = Phase::Crashed;
            }
        });
    }
}
