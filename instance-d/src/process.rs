//! mysqld as a child process: start, watch, kill, terminate.
//!
//! Nothing here decides whether a signal may be sent. SIGTERM makes mysqld answer OK to sessions that wait for an
//! acknowledgement (FAILOVER, Never 1), so [`Mysqld::terminate`] has one caller, which knows that there are none.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::death;
use crate::error::{Error, Result};

/// mysqld's error lines that are kept for people.
const TAIL_LINES: usize = 8;
/// Longest wait for what is left in mysqld's pipes after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How mysqld ends when it wants to be started again (after a clone, or RESTART).
pub const EXIT_START_AGAIN: i32 = 16;

/// A running, or ended, mysqld.
#[derive(Debug)]
pub struct Mysqld {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
    dying: watch::Sender<bool>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Mysqld {
    /// Starts the program. `supervised` tells mysqld that its parent starts it again when it ends with
    /// [`EXIT_START_AGAIN`].
    ///
    /// # Errors
    /// A program that cannot be run.
    pub fn start(program: &Path, arguments: &[String], supervised: bool) -> Result<Arc<Self>> {
        let mut command = Command::new(program);
        // Its own process group: a terminal's Ctrl-C is not for it.
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        if supervised {
            command.env("MYSQLD_PARENT_PID", std::process::id().to_string());
        }
        let mut child =
            command.spawn().map_err(|source| Error::Spawn { program: program.display().to_string(), source })?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
            .ok_or_else(|| Error::Unexpected("mysqld ended before it began".to_owned()))?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let mut outputs = JoinSet::new();
        if let Some(output) = child.stdout.take() {
            outputs.spawn(forward(output, Arc::clone(&tail)));
        }
        if let Some(output) = child.stderr.take() {
            outputs.spawn(forward(output, Arc::clone(&tail)));
        }
        let (sender, exit) = watch::channel(None);
        tokio::spawn(wait(child, outputs, sender));
        Ok(Arc::new(Self { pid, exit, dying: watch::Sender::new(false), tail }))
    }

    /// Watches for the beginning of its end, from when it answers: its lasting threads run by then.
    pub fn watch_its_threads(self: &Arc<Self>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = death::begins(this.pid()) => {
                    this.dying.send_replace(true);
                }
                _ = this.exited() => {}
            }
        });
    }

    /// Waits until it begins to end, which is known earlier than the end where the kernel tells.
    pub async fn dies(&self) {
        let mut dying = self.dying.subscribe();
        tokio::select! {
            _ = dying.wait_for(|dying| *dying) => {}
            _ = self.exited() => {}
        }
    }

    /// Whether it runs: from when it begins to end nothing more is to be had of it, but it may hold its files for a moment.
    pub fn lives(&self) -> bool {
        !self.has_exited() && !*self.dying.borrow()
    }

    /// Waits for the end.
    pub async fn exited(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Whether it has ended.
    pub fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for the end, but not for ever.
    pub async fn exited_within(&self, within: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(within, self.exited()).await.ok().flatten()
    }

    /// SIGKILL: nothing unacknowledged is answered, everything is as after a crash.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// SIGTERM. Only when `super_read_only=ON` has returned OK, so that nobody waits for an acknowledgement.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    fn signal(&self, signal: Signal) {
        // An ended process is reaped by its watcher: its id may belong to somebody else by now.
        if !self.has_exited()
            && let Err(error) = kill(self.pid, signal)
        {
            tracing::warn!(pid = self.pid.as_raw(), %signal, %error, "could not signal mysqld");
        }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its last error lines, for people: empty, or beginning with a colon.
    pub fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.is_empty() {
            String::new()
        } else {
            format!(": {}", tail.iter().map(String::as_str).collect::<Vec<_>>().join("; "))
        }
    }

    /// The error for an end that was not expected.
    pub fn ended(&self, what: &'static str) -> Error {
        let status = self.exit.borrow().map_or_else(|| "running".to_owned(), |status| status.to_string());
        Error::Exited { what, status, tail: self.tail() }
    }
}

async fn wait(mut child: Child, mut outputs: JoinSet<()>, exit: watch::Sender<Option<ExitStatus>>) {
    let status = match child.wait().await {
        Ok(status) => status,
        Err(error) => {
            // Somebody else reaped it: it is gone, and how is not known.
            tracing::error!(%error, "could not wait for mysqld");
            ExitStatus::from_raw(-1)
        }
    };
    // Its last words are in the pipes; they explain an error, and must not delay the news of a death.
    if status.code().is_some_and(|code| code != 0) {
        let drained = async { while outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, drained).await.is_err() {
            tracing::debug!("mysqld's output goes on after its end");
        }
    }
    exit.send_replace(Some(status));
    outputs.detach_all();
}

async fn forward(output: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<String>>>) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match output.read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        if line.contains("[ERROR]") {
            tracing::error!(target: "mysqld", "{line}");
            let text = line.split_once("[ERROR] ").map_or(line, |(_, text)| text);
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.push_back(text.to_owned());
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        } else if line.contains("[Warning]") {
            tracing::warn!(target: "mysqld", "{line}");
        } else if !line.is_empty() {
            tracing::info!(target: "mysqld", "{line}");
        }
    }
}

/// Runs a short-lived mysqld (`--initialize`, `--validate-config`) and returns how it ended and what it said.
///
/// # Errors
/// A program that cannot be run, or that does not end in time (it is killed then).
pub async fn run(program: &Path, arguments: &[String], within: Duration) -> Result<(ExitStatus, String)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let spawn = |source| Error::Spawn { program: program.display().to_string(), source };
    let output = tokio::time::timeout(within, command.output())
        .await
        .map_err(|_| Error::Slow { what: "a run of mysqld", after: within })?
        .map_err(spawn)?;
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    Ok((output.status, said))
}

/// As PID 1, instance-d inherits orphans (of `kubectl exec`): takes their exit codes so that they leave no zombies.
/// mysqld's own end is left to its watcher.
pub async fn reap_orphans(own: impl Fn() -> Option<i32>) {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
    use tokio::signal::unix::{SignalKind, signal};
    if std::process::id() != 1 {
        return;
    }
    let Ok(mut children) = signal(SignalKind::child()) else { return };
    loop {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, flags) {
            let orphan = match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if Some(pid.as_raw()) != own() => pid,
                _ => break,
            };
            // Short-lived runs of mysqld are children too: give their own waiters the first chance.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
        }
        children.recv().await;
    }
}
