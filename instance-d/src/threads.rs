//! Threads of a process, by name, by descriptor, and what they do with signals.
//!
//! Sources: proc_pid_task(5), proc_pid_status(5); pidfd_open(2), `PIDFD_THREAD` (Linux 6.9; older kernels refuse it).

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `PIDFD_THREAD`: the descriptor stands for a thread. It has the value of `O_EXCL`.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0o200);

/// Threads whose name begins so, oldest first. Not the first thread of the process: its descriptor tells of the end of all.
pub fn named(process: i32, beginning: &str) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<i32> = entries
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with(beginning))
        })
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|thread| *thread != process)
        .collect();
    threads.sort_unstable();
    threads
}

/// A descriptor of a thread, where there is such a thing.
pub fn open(thread: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(thread)?, PIDFD_THREAD)
        .inspect_err(|error| tracing::debug!(%error, "threads have no descriptors here"))
        .ok()
}

/// A mask of signals in `status`, by its name (`SigBlk`, `SigPnd`...): signal n is bit n - 1.
pub fn mask(status: &str, name: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}
