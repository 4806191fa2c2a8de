//! Processes in pods: freezing, thawing, killing by name.

use nix::{sys::signal, unistd::Pid};
use serde::{Deserialize, Serialize};

pub use nix::sys::signal::Signal;

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    pods, process,
};

use super::{Fault, forget, record, recorded};

/// A process of this host that cannot be mistaken for another one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its number, as this host counts.
    pub pid: i32,
    start_time: u64,
}

impl Process {
    /// The process with this number, when there is one.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: process::start_time(pid)? })
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }

    /// Sends it a signal, now. False when it is gone already. For tests that measure the time from a signal: find the process first.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && signal::kill(Pid::from_raw(self.pid), signal).is_ok()
    }
}

/// The processes of a container that run `program` (its file name, `mysqld` for instance).
pub fn processes_in_pod(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: &str,
    program: &str,
) -> Result<Vec<Process>> {
    let pids = pods::find(cluster, namespace, pod, container)?.processes(cluster, program);
    let found: Vec<_> = pids.into_iter().filter_map(Process::of).collect();
    if found.is_empty() {
        return Err(Error::NotFound(format!(
            "no process {program} runs in container {container} of pod {namespace}/{pod}"
        )));
    }
    Ok(found)
}

/// Sends a signal to the processes of a container that run `program`; the result is those it was sent to.
pub fn kill_in_pod(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: &str,
    program: &str,
    signal: Signal,
) -> Result<Vec<Process>> {
    let mut found = processes_in_pod(cluster, namespace, pod, container, program)?;
    found.retain(|one| one.signal(signal));
    Ok(found)
}

/// Stops processes where they are (SIGSTOP): sockets stay open, nothing answers.
pub fn freeze(cluster: &Cluster, namespace: &str, pod: &str, container: &str, program: &str) -> Result<()> {
    let processes = processes_in_pod(cluster, namespace, pod, container, program)?;
    let text = |text: &str| text.to_owned();
    let fault = Fault::Frozen {
        namespace: text(namespace),
        pod: text(pod),
        container: text(container),
        program: text(program),
        processes: processes.clone(),
    };
    record(cluster, &fault)?;
    for process in processes {
        process.signal(Signal::SIGSTOP);
    }
    Ok(())
}

/// Lets frozen processes go on. Those that have ended meanwhile are no error.
pub fn thaw(cluster: &Cluster, namespace: &str, pod: &str, container: &str, program: &str) -> Result<()> {
    let text = |text: &str| text.to_owned();
    let fault = Fault::Frozen {
        namespace: text(namespace),
        pod: text(pod),
        container: text(container),
        program: text(program),
        processes: vec![],
    };
    let identity = fault.identity();
    if let Some(Fault::Frozen { processes, .. }) = recorded(cluster, &identity) {
        for process in processes {
            process.signal(Signal::SIGCONT);
        }
    }
    forget(cluster, &identity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_signal_goes_only_to_the_very_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        let successor = Process { start_time: process.start_time + 1, ..process };
        assert!(!successor.signal(Signal::SIGKILL));
        assert!(process.is_alive());
        assert!(process.signal(Signal::SIGKILL));
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(!process.signal(Signal::SIGKILL));
    }
}
