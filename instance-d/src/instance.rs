//! The instance: what it knows, its child, its sessions, and what it reports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::instance::{
    Canary, Disk, InstanceConfig, InstanceState, MysqldState, Phase, Progress, ReceiverState, Restored, Rewound, Role,
};
use common::mysql::{Credentials, Session};
use common::names::account;
use tokio::sync::{Notify, watch};

use crate::config::{Identity, Layout};
use crate::data::{Promise, Volume, write_private};
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::orders::RoleOrder;
use crate::process::Mysqld;
use crate::rewind::{self, Condemned};
use crate::{settings, starvation};

mod hands;

pub use self::hands::Hands;
use self::hands::long_lived;

/// Longest login over the socket of a healthy server.
pub const LOGIN: Duration = Duration::from_secs(3);
/// Longest statement that has no reason to take long.
pub const STATEMENT: Duration = Duration::from_secs(3);
/// Pace of looking whether a starting mysqld answers.
const READY_POLL: Duration = Duration::from_millis(40);
/// The problem of an instance whose mysqld has begun to end, until it is known how it ended.
const ENDING: &str = "mysqld is ending, and nobody asked it to";
/// `ER_ACCESS_DENIED_ERROR`.
const ACCESS_DENIED: u16 = 1045;

/// How mysqld is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As it serves.
    Plain,
    /// It is told that its parent starts it again when it ends with [`crate::process::EXIT_START_AGAIN`].
    Supervised,
    /// On data whose accounts are of another cluster: it asks nobody who he is, and is to be had through its socket only.
    Unguarded,
}

/// Everything that changes.
#[derive(Debug)]
pub struct Facts {
    /// As it stands on disk.
    pub promise: Promise,
    /// The running mysqld is in the promised role.
    pub in_force: bool,
    /// This mysqld has been opened for writes since it started, and has not been closed for sure since.
    pub opened: bool,
    /// What is being done.
    pub phase: Phase,
    /// SIGTERM was received.
    pub leaving: bool,
    /// For people.
    pub problem: Option<String>,
    /// Of provisioning.
    pub progress: Option<Progress>,
    /// Name of the data.
    pub data_id: Option<String>,
    /// Space on the volume, when it was last looked at.
    pub disk: Disk,
    /// Last observation and when it was made.
    pub mysqld: Option<(MysqldState, Instant)>,
    /// Last answers: on a held session, by a new login.
    pub canary: Option<(Instant, Instant)>,
    /// So long somebody who is needed for the next answer has waited for a CPU.
    pub starved: Duration,
    /// Hosts of the replicas that were connected last.
    pub peers: BTreeSet<IpAddr>,
    /// A role order that is being carried out in the background.
    pub carrying: Option<RoleOrder>,
    /// What the data was made from, as it stands on disk, when that was an archive.
    pub restored: Option<Restored>,
    /// The last tail that was cut off, as it stands on disk.
    pub rewound: Option<Rewound>,
    /// Foreign transactions that keep the data from being served, as they stand on disk.
    pub condemned: Option<Condemned>,
    /// Since when a tail is being cut off.
    pub rewind_begun: Option<Instant>,
    /// Copies of what was thrown away that are in no archive.
    pub copies_to_archive: u32,
}

impl Facts {
    /// mysqld answers: its canaries count from now, not from the start of the process.
    pub fn answers_from_now(&mut self) {
        let now = Instant::now();
        self.phase = Phase::Running;
        self.canary = Some((now, now));
    }
}

/// One MySQL instance.
#[derive(Debug)]
pub struct Instance {
    /// Places.
    pub layout: Layout,
    /// Who.
    pub identity: Identity,
    /// Files that say what the data is worth.
    pub volume: Volume,
    /// Counters.
    pub metrics: Metrics,
    /// One order at a time.
    pub gate: Gate,
    /// Wakes the observer before its time.
    pub ask: Notify,
    /// An observation has been taken in.
    pub observed: Notify,
    /// Copies are on their way to the bucket.
    pub archiving: AtomicBool,
    /// Open streams to failover-d.
    pub listeners: AtomicUsize,
    config: Mutex<InstanceConfig>,
    facts: Mutex<Facts>,
    child: Mutex<Option<Arc<Mysqld>>>,
    hands: Mutex<Option<Session>>,
    changed: watch::Sender<u64>,
    sequence: AtomicU64,
    incarnation: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    /// Looks at the volume and says where things stand; nothing is started yet.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn open(layout: Layout, identity: Identity, config: InstanceConfig) -> Result<Arc<Self>> {
        let volume = Volume::new(layout.volume.clone());
        let promise = volume.promise()?;
        let provisioned = volume.provisioned()?;
        let phase = match &provisioned {
            None => Phase::Empty,
            Some(_) if volume.is_clean() => Phase::Starting,
            Some(_) => Phase::Crashed,
        };
        let facts = Facts {
            promise,
            in_force: false,
            opened: false,
            phase,
            leaving: false,
            problem: None,
            progress: None,
            restored: provisioned.as_ref().and_then(|provisioned| provisioned.restored.clone()),
            data_id: provisioned.map(|provisioned| provisioned.data_id),
            disk: volume.disk(),
            mysqld: None,
            canary: None,
            starved: Duration::ZERO,
            peers: BTreeSet::new(),
            carrying: None,
            rewound: volume.rewound()?,
            condemned: volume.condemned()?,
            rewind_begun: None,
            copies_to_archive: 0,
        };
        Ok(Arc::new(Self {
            layout,
            identity,
            volume,
            metrics: Metrics::new(),
            gate: Gate::default(),
            ask: Notify::new(),
            observed: Notify::new(),
            archiving: AtomicBool::new(false),
            listeners: AtomicUsize::new(0),
            config: Mutex::new(config),
            facts: Mutex::new(facts),
            child: Mutex::new(None),
            hands: Mutex::new(None),
            changed: watch::Sender::new(0),
            sequence: AtomicU64::new(0),
            incarnation: uuid::Uuid::new_v4().to_string(),
        }))
    }

    /// Looks at the facts.
    pub fn look<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&lock(&self.facts))
    }

    /// Changes the facts and tells every stream.
    pub fn change<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let answer = change(&mut lock(&self.facts));
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
        answer
    }

    /// Changes what only ages; streams see it with their next heartbeat.
    pub fn change_quietly(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.facts));
    }

    /// Sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Moves to a phase.
    pub fn set_phase(&self, phase: Phase) {
        self.change(|facts| facts.phase = phase);
    }

    /// Persists a promise, then takes it as a fact.
    ///
    /// # Errors
    /// A volume that cannot be written: the order must not be obeyed.
    pub fn promise(&self, promise: Promise) -> Result<()> {
        if self.look(|facts| facts.promise != promise) {
            self.volume.save_promise(&promise)?;
        }
        self.change(|facts| facts.promise = promise);
        Ok(())
    }

    /// The state now, with ages as of now.
    pub fn report(&self) -> InstanceState {
        let facts = lock(&self.facts);
        let mysqld = facts.mysqld.as_ref().map(|(state, observed_at)| {
            let since = millis(observed_at.elapsed());
            let mut state = state.clone();
            if state.source.waiters > 0 {
                state.source.oldest_wait_ms += since;
            }
            if let Some(replication) = &mut state.replication
                && replication.receiver == ReceiverState::Yes
                && let Some(age) = &mut replication.heard_age_ms
            {
                *age += since;
            }
            state
        });
        InstanceState {
            name: self.identity.name.clone(),
            namespace: self.identity.namespace.clone(),
            cluster: self.identity.cluster.clone(),
            incarnation: self.incarnation.clone(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            promised: facts.promise.epoch,
            role: facts.promise.role.clone(),
            in_force: facts.in_force,
            tail_unproven: facts.promise.tail_unproven,
            phase: facts.phase,
            leaving: facts.leaving,
            problem: facts.problem.clone(),
            progress: facts.progress.clone(),
            data_id: facts.data_id.clone(),
            disk: facts.disk,
            mysqld,
            canary: facts.canary.map(|(session, login)| Canary {
                session_age_ms: millis(starvation::discounted(session.elapsed(), facts.starved)),
                login_age_ms: millis(starvation::discounted(login.elapsed(), facts.starved)),
            }),
            restored: facts.restored.clone().filter(|_| facts.data_id.is_some()),
            rewound: facts.rewound.clone(),
            errant: facts.condemned.as_ref().map(Condemned::report),
            copies_to_archive: facts.copies_to_archive,
        }
    }

    /// Ready: mysqld answers, and a role is in force.
    pub fn is_ready(&self) -> bool {
        let hang_after = Duration::from_millis(lock(&self.config).hang_after_ms.max(1000));
        let facts = lock(&self.facts);
        facts.phase == Phase::Running
            && facts.in_force
            && matches!(facts.promise.role, Role::Primary { .. } | Role::Replica { .. })
            && facts.canary.is_some_and(|(session, _)| session.elapsed() < hang_after)
    }

    /// The configuration as it was last read.
    pub fn config(&self) -> InstanceConfig {
        lock(&self.config).clone()
    }

    /// mysqld, when it runs. From when it begins to end there is none.
    pub fn child(&self) -> Option<Arc<Mysqld>> {
        self.process().filter(|process| process.lives())
    }

    /// The process, until it is gone for good.
    pub fn process(&self) -> Option<Arc<Mysqld>> {
        lock(&self.child).clone()
    }

    /// Waits until a mysqld that has begun to end is gone: until then it holds its files, and a lock on them.
    pub async fn gone(&self) {
        if let Some(process) = self.process().filter(|process| !process.lives()) {
            process.exited().await;
            self.ended(&process);
        }
    }

    /// Renders the option file and starts mysqld, closed and read-only. `supervised`: see [`Mysqld::start`].
    ///
    /// # Errors
    /// Files, settings, or the program.
    pub fn start(self: &Arc<Self>, how: Start) -> Result<Arc<Mysqld>> {
        match self.layout.instance_config() {
            Ok(config) => *lock(&self.config) = config,
            Err(error) => tracing::warn!(%error, "keeping the configuration that was read before"),
        }
        let text = settings::render(&self.layout, &self.identity, &self.config())?;
        write_private(&self.layout.my_cnf(), &text)?;
        clear_run_dir(&self.layout.run)?;
        // A cut that was begun is seen through whatever order starts mysqld: half of it would be worse than either.
        rewind::carry_on(&self.volume, &self.layout.data())?;
        self.volume.fresh_tmp()?;
        self.volume.mark_running(rewind::last_binlog(&self.layout.data())?.as_deref())?;
        let mut arguments = vec![format!("--defaults-file={}", self.layout.my_cnf().display())];
        if how == Start::Unguarded {
            arguments.extend(["--skip-grant-tables", "--skip-networking"].map(str::to_owned));
        }
        let child = Mysqld::start(&self.layout.mysqld, &arguments, how == Start::Supervised)?;
        *lock(&self.hands) = None;
        *lock(&self.child) = Some(Arc::clone(&child));
        self.metrics.starts.inc();
        let now = Instant::now();
        self.change(|facts| {
            facts.in_force = false;
            facts.opened = false;
            facts.mysqld = None;
            facts.canary = Some((now, now));
        });
        let instance = Arc::clone(self);
        let watched = Arc::clone(&child);
        tokio::spawn(async move {
            watched.dies().await;
            instance.dies(&watched);
            watched.exited().await;
            instance.ended(&watched);
        });
        Ok(child)
    }

    /// mysqld is as good as gone. Whoever stopped it on purpose has set the phase and goes on from there.
    fn dies(&self, dying: &Arc<Mysqld>) {
        if !self.process().is_some_and(|process| Arc::ptr_eq(&process, dying)) {
            return;
        }
        *lock(&self.hands) = None;
        self.change(|facts| {
            facts.in_force = false;
            facts.opened = false;
            facts.mysqld = None;
            facts.canary = None;
            match facts.phase {
                Phase::Starting | Phase::Running | Phase::Failed => {
                    facts.phase = Phase::Crashed;
                    facts.problem = Some(ENDING.to_owned());
                }
                Phase::Empty
                | Phase::Initialising
                | Phase::Cloning
                | Phase::Crashed
                | Phase::Rewinding
                | Phase::Stopping => {}
            }
        });
    }

    /// It is gone for good: another may be started.
    fn ended(&self, ended: &Arc<Mysqld>) {
        let mut child = lock(&self.child);
        if !child.as_ref().is_some_and(|child| Arc::ptr_eq(child, ended)) {
            return;
        }
        *child = None;
        drop(child);
        if self.look(|facts| facts.problem.as_deref() == Some(ENDING)) {
            let error = ended.ended("nobody asked it to");
            tracing::error!(%error, "mysqld ended");
            self.change(|facts| facts.problem = Some(error.to_string()));
        }
    }

    /// Waits until a login is answered, as long as the process lives: crash recovery may take its time.
    ///
    /// # Errors
    /// The process ended, or the password is wrong.
    pub async fn wait_for_login(&self, child: &Arc<Mysqld>, credentials: &Credentials) -> Result<Session> {
        let endpoint = self.layout.endpoint();
        loop {
            tokio::select! {
                biased;
                _ = child.exited() => return Err(child.ended("starting")),
                login = Session::connect(&endpoint, credentials, LOGIN) => match login {
                    Ok(session) => {
                        child.watch_its_threads();
                        return Ok(session);
                    }
                    Err(error) if error.code() == Some(ACCESS_DENIED) => return Err(error.into()),
                    Err(_) => tokio::time::sleep(READY_POLL).await,
                },
            }
        }
    }

    /// Starts mysqld when it does not run, and waits until it answers.
    ///
    /// # Errors
    /// It did not come up.
    pub async fn ensure_running(self: &Arc<Self>) -> Result<()> {
        let child = if let Some(child) = self.child() {
            child
        } else {
            self.gone().await;
            self.set_phase(Phase::Starting);
            self.start(Start::Plain).inspect_err(|_| self.set_phase(Phase::Crashed))?
        };
        if self.look(|facts| facts.phase) != Phase::Starting {
            return Ok(());
        }
        let credentials = self.layout.credentials(account::LOCAL)?;
        let session = self.wait_for_login(&child, &credentials).await?;
        *lock(&self.hands) = Some(long_lived(session).await?);
        self.change(|facts| {
            if facts.phase == Phase::Starting {
                facts.answers_from_now();
                facts.problem = None;
            }
        });
        tracing::info!(pid = child.pid(), "mysqld answers");
        Ok(())
    }

    /// SIGKILL, and wait until it is over. The phase afterwards is `Crashed`.
    ///
    /// # Errors
    /// A process that survives SIGKILL (it hangs in the kernel).
    pub async fn kill(&self) -> Result<()> {
        if let Some(child) = self.process() {
            self.metrics.kills.inc();
            child.kill();
            let bound = Duration::from_secs(10);
            child
                .exited_within(bound)
                .await
                .ok_or(Error::Slow { what: "the end of mysqld after SIGKILL", after: bound })?;
            self.dies(&child);
            self.ended(&child);
        }
        Ok(())
    }

    /// Whether the option file's directory can be used: made by the pod's emptyDir, by tests themselves.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn prepare_run_dir(dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))
    }
}

/// Sockets and their locks that a killed mysqld left behind: the process id in a lock may belong to somebody else by now
/// (in a new container it surely does), and mysqld would refuse to start. Data has locks of its own.
fn clear_run_dir(dir: &Path) -> Result<()> {
    for name in ["mysqld.sock", "mysqld.sock.lock", "mysqlx.sock", "mysqlx.sock.lock", "mysqld.pid"] {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
