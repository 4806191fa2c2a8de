//! Long-running processes of the cluster: started detached, recorded, recognised again, stopped.
//!
//! A record holds the pid together with the time at which that process started (and the boot it started in), so that a number which the kernel
//! has given to somebody else in the meantime is neither trusted nor killed. It also holds the command line: a process that should run
//! with other arguments now is replaced.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    command,
    error::{Error, Result},
};

/// How long a process may take to obey SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// A process that we started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: ticks from boot to the start of the process.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Record {
    /// Whether this very process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        boot_id() == self.boot && start_time(self.pid) == Some(self.start_time)
    }
}

/// Start time of a process that runs.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name in parentheses may itself hold spaces and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The records of all processes, in one folder.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    folder: PathBuf,
}

/// A process as it should run.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Name of the record.
    pub name: &'a str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The cgroups it joins before it becomes the program.
    pub cgroups: Vec<PathBuf>,
}

impl Supervisor {
    /// Records lie in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// The record of a process, when there is a readable one. A torn record is as good as none: its process is found by its cgroup.
    pub fn record(&self, name: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    /// Whether the recorded process runs.
    pub fn is_alive(&self, name: &str) -> bool {
        self.record(name).is_some_and(|record| record.is_alive())
    }

    /// Names of all recorded processes.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
        names.sort();
        names
    }

    /// Starts a process unless it runs already with the same command line. Tells whether it was started.
    pub fn ensure(&self, wanted: &Wanted<'_>) -> Result<bool> {
        if let Some(record) = self.record(wanted.name).filter(Record::is_alive) {
            if record.command == wanted.command {
                return Ok(false);
            }
            self.stop(wanted.name)?;
        }
        command::folder(&self.folder)?;
        wanted.cgroups.iter().try_for_each(|group| command::folder(group))?;
        if let Some(parent) = wanted.log.parent() {
            command::folder(parent)?;
        }
        let log =
            File::options().create(true).append(true).open(&wanted.log).map_err(Error::file("open", &wanted.log))?;
        let errors = log.try_clone().map_err(Error::file("duplicate", &wanted.log))?;
        // The shell joins the cgroups and then becomes the program: the pid stays, and no instant exists in which the program runs outside.
        let mut shell = Command::new("setsid");
        shell
            .args([
                "sh",
                "-ec",
                r#"while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@""#,
                "sh",
            ])
            .args(&wanted.cgroups)
            .arg("--")
            .args(&wanted.command)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let mut child = shell.spawn().map_err(|source| Error::Spawn { program: wanted.name.into(), source })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        // Outlives us as a rule; when it does not, somebody has to take its exit status or it stays a zombie of ours.
        thread::spawn(move || child.wait());
        let started = start_time(pid);
        let start_time = started
            .ok_or_else(|| Error::Invalid(format!("{} ended at once; see {}", wanted.name, wanted.log.display())))?;
        let record = Record { pid, start_time, boot: boot_id(), command: wanted.command.clone() };
        let text = serde_json::to_vec(&record).map_err(Error::json("write a process record"))?;
        command::write(&self.file(wanted.name), text)?;
        Ok(true)
    }

    /// Sends a signal to a recorded process; false when it does not run.
    pub fn signal(&self, name: &str, signal: Signal) -> bool {
        self.record(name).filter(Record::is_alive).is_some_and(|record| kill(Pid::from_raw(record.pid), signal).is_ok())
    }

    /// Stops a process: SIGTERM, SIGKILL after a while. The record goes with it.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.stop_all(&[name.to_owned()])
    }

    /// Stops several processes at once.
    pub fn stop_all(&self, names: &[String]) -> Result<()> {
        for name in names {
            self.signal(name, Signal::SIGTERM);
            self.signal(name, Signal::SIGCONT);
        }
        let started = Instant::now();
        for name in names {
            while self.is_alive(name) {
                if started.elapsed() > GRACE {
                    self.signal(name, Signal::SIGKILL);
                }
                thread::sleep(Duration::from_millis(20));
            }
            self.forget(name)?;
        }
        Ok(())
    }

    /// Kills a process at once.
    pub fn kill(&self, name: &str) -> Result<()> {
        while self.is_alive(name) {
            self.signal(name, Signal::SIGKILL);
            thread::sleep(Duration::from_millis(5));
        }
        self.forget(name)
    }

    fn forget(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", file)(error)),
            _ => Ok(()),
        }
    }
}

/// Polls until `ready` says yes.
pub(crate) fn wait_for(what: &str, limit: Duration, log: Option<&Path>, mut ready: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > limit {
            let hint = log.map(|log| format!("; see {}", log.display())).unwrap_or_default();
            return Err(Error::Timeout { what: what.into(), seconds: limit.as_secs(), hint });
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn start_time_is_read_behind_a_hostile_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_start_time(stat), Some(987_654));
        assert_eq!(parse_start_time(&stat.replace(") S", ") Z")), None);
        assert_eq!(parse_start_time("garbage"), None);
    }

    #[test]
    fn a_recycled_pid_is_not_trusted() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mine = Record { pid, start_time: start_time(pid).unwrap(), boot: boot_id(), command: vec![] };
        assert!(mine.is_alive());
        assert!(!Record { start_time: mine.start_time + 1, ..mine.clone() }.is_alive());
        assert!(!Record { boot: "another boot".into(), ..mine }.is_alive());
    }

    #[test]
    fn processes_are_started_once_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(folder.path().join("records"));
        // Joining the "cgroup" is writing to a file of that name, so a plain folder serves.
        let wanted = |seconds: &str| Wanted {
            name: "sleeper",
            command: vec!["sleep".into(), seconds.into()],
            log: folder.path().join("log"),
            cgroups: vec![folder.path().join("cgroup")],
        };
        assert!(supervisor.ensure(&wanted("60")).unwrap());
        assert!(!supervisor.ensure(&wanted("60")).unwrap());
        let first = supervisor.record("sleeper").unwrap();
        assert!(supervisor.ensure(&wanted("61")).unwrap(), "other arguments replace the process");
        assert!(!first.is_alive());
        assert_eq!(supervisor.names(), ["sleeper"]);
        supervisor.stop("sleeper").unwrap();
        assert!(supervisor.names().is_empty());
        supervisor.stop("sleeper").unwrap();
    }
}
