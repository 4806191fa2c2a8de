//! Knowing that mysqld dies before it is dead.
//!
//! A process that is killed is waited for until the kernel has given back its memory: 40 to 130 ms for a small buffer pool,
//! more for a large one, while nobody serves. But its threads end within a millisecond: one that lives as long as mysqld
//! does is watched by a pidfd of its own, and when it ends it is looked whether the whole process is ending. From then on
//! no thread of it runs a program any more; its files and sockets stay with it until it is gone.
//!
//! Before Linux 6.9 a thread has no descriptor, and the end is what is waited for. What an ending process looks like:
//! proc_pid_status(5) and proc_pid_stat(5).

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::threads;

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
        let threads: Vec<OwnedFd> =
            threads::named(process, INNODB).into_iter().take(WATCHED).filter_map(threads::open).collect();
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
    ["SigPnd", "ShdPnd"].iter().filter_map(|name| threads::mask(status, name)).any(|mask| mask & SIGKILL != 0)
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
        assert!(threads::named(process, INNODB).len() >= WATCHED, "no lasting threads");
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), begins(process)).await;
        assert!(early.is_err(), "it runs");
        let told = tokio::spawn(begins(process));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        mysqld.kill();
        let tells = threads::open(std::process::id().cast_signed()).is_some();
        assert!(!tells || tokio::time::timeout(std::time::Duration::from_secs(5), told).await.is_ok());
    }
}
