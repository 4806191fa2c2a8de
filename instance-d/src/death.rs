//! Knowing that mysqld dies before it is dead.
//!
//! A process that is killed is waited for until the kernel has given back its memory: 40 to 130 ms for a small buffer pool,
//! more for a large one, while nobody serves. But its threads end within a millisecond: one that lives as long as mysqld
//! does is watched by a pidfd of its own, and when it ends it is looked whether the whole process is ending. From then on
//! no thread of it runs a program any more; its files and sockets stay with it until it is gone.
//!
//! Sources: pidfd_open(2), `PIDFD_THREAD` (Linux 6.9; older kernels refuse it, and then the end is what is waited for);
//! proc_pid_status(5) and proc_pid_stat(5) for what an ending process looks like.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, pidfd_open};
use tokio::sync::oneshot;

use crate::nudge::PIDFD_THREAD;

/// `PF_EXITING` of the kernel's `include/linux/sched.h`.
const PF_EXITING: u64 = 0x4;
/// SIGKILL's bit in a mask of pending signals.
const SIGKILL: u64 = 1 << 8;
/// Threads that live as long as mysqld are InnoDB's; so many are watched, in case that is not true of one.
const WATCHED: usize = 2;
const INNODB: &str = "ib_";

/// Completes when a process begins to end, if this kernel can tell; otherwise never.
pub async fn begins(process: i32) {
    let (sender, told) = oneshot::channel();
    // A thread of its own, which ends with those that it watches: nothing may keep it from telling at once.
    let watcher = std::thread::Builder::new().name("death".to_owned()).stack_size(64 << 10);
    let watched = watcher.spawn(move || {
        let threads: Vec<OwnedFd> = lasting(process).into_iter().take(WATCHED).filter_map(open).collect();
        if one_ends(&threads) && is_ending(process) {
            // Nobody listens any more when the end was known by then.
            let _ = sender.send(());
        }
    });
    if let Err(error) = watched {
        tracing::warn!(%error, "the threads of mysqld are not watched");
    }
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn open(thread: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(thread)?, PIDFD_THREAD)
        .inspect_err(|error| tracing::debug!(%error, "threads cannot be watched here"))
        .ok()
}

/// Waits until one of the threads has ended; not when there are none.
fn one_ends(threads: &[OwnedFd]) -> bool {
    let mut watched: Vec<PollFd<'_>> = threads.iter().map(|thread| PollFd::new(thread, PollFlags::IN)).collect();
    while !watched.is_empty() {
        match poll(&mut watched, None) {
            Ok(ended) => return ended > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Threads that are there as long as mysqld serves, oldest first. Not the first thread of the process: its descriptor tells
/// of the end of all.
fn lasting(process: i32) -> Vec<i32> {
    let folder = format!("/proc/{process}/task");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut threads: Vec<i32> = entries
        .filter(|entry| std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with(INNODB)))
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|thread| *thread != process)
        .collect();
    threads.sort_unstable();
    threads
}

/// Whether all of a process is ending: it is gone, its first thread has ended or is about to, or SIGKILL is on its way to
/// all of it.
fn is_ending(process: i32) -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
    let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else { return true };
    is_exiting(&stat) || is_killed(&status)
}

/// From `stat`: the state and the flags of the first thread.
fn is_exiting(stat: &str) -> bool {
    // The name before them may hold anything, and ends with the last bracket.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    let ended = fields.next().is_some_and(|state| matches!(state, "Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    ended || flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// From `status`: whether SIGKILL is pending, for the first thread or for all.
fn is_killed(status: &str) -> bool {
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & SIGKILL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_process_is_told_from_one_that_goes_on() {
        let stat = |state: &str, flags: u64| format!("7 (a) b) {state} 1 7 7 0 -1 {flags} 0 0 0");
        assert!(!is_exiting(&stat("S", 0x40_0000)));
        assert!(is_exiting(&stat("Z", 0x40_0000)));
        assert!(is_exiting(&stat("D", 0x40_0004)));
        assert!(!is_killed("State:\tS\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n"));
        assert!(is_killed("State:\tD\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(is_killed("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
    }

    #[test]
    fn who_runs_is_not_ending() {
        assert!(!is_ending(std::process::id().cast_signed()));
    }

    #[tokio::test]
    async fn a_mysqld_that_is_killed_is_known_to_end_and_one_that_runs_is_not() {
        let mut mysqld = testkit::Mysqld::start(testkit::Options::default());
        let process = mysqld.pid().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        assert!(lasting(process).len() >= WATCHED, "no lasting threads");
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), begins(process)).await;
        assert!(early.is_err(), "it runs");
        let told = tokio::spawn(begins(process));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        mysqld.kill();
        let tells = open(std::process::id().cast_signed()).is_some();
        assert!(!tells || tokio::time::timeout(std::time::Duration::from_secs(5), told).await.is_ok());
    }
}
