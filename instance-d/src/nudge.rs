//! Waking a thread of mysqld out of a sleep in the kernel that takes longer than it has to.
//!
//! Two of its threads sleep where nobody but a signal reaches them, while a change of primary waits for them:
//!
//! | thread | sleeps | until | without a nudge |
//! |---|---|---|---|
//! | the receiver | in connect(2) to a source that does not answer | it is interrupted twice | `STOP REPLICA IO_THREAD` takes 2.0 s: mysqld interrupts it at once, and again after two seconds |
//! | who reads acknowledgements | in poll(2), for a second at a time, of the replicas that were there when it began | one of these acknowledges, or hangs up | commits wait for up to a second for a replica that came since, if no other acknowledges; and `rpl_semi_sync_source_enabled=OFF` takes as long, while no client can log in, because the statement holds the lock of all global variables |
//!
//! The signal is SIGALRM, for which mysqld has a handler that does nothing: it interrupts these threads with it itself. It is
//! only sent to a thread that takes it so.
//!
//! Sources: the rows were measured with MySQL 9.7 (docs/failover-protocol.md, "What MySQL does"); pidfd_send_signal(2), which signals one
//! thread by a descriptor of it since Linux 6.9: on an older kernel nothing is sent, and the last column holds.

use std::future::Future;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use crate::threads;

/// The thread that receives from the source, by the beginning of its name.
const RECEIVER: &str = "rpl_rca_io";
/// The thread that reads what replicas acknowledge.
pub const ACKNOWLEDGEMENTS: &str = "ss_ack";

/// SIGALRM's bit in a mask.
const SIGALRM: u64 = 1 << 13;
/// A receiver that is connected stops within this time by itself; and pace of nudges.
const PACE_RECEIVER: Duration = Duration::from_millis(30);
/// Who reads acknowledgements stops at once, or not before its second is over.
const PACE_ACKNOWLEDGEMENTS: Duration = Duration::from_millis(2);

/// Interrupts the threads of a process whose name begins so. `true`: there was one that takes it.
pub fn nudge(process: i32, name: &str) -> bool {
    let interrupt = |thread: i32| {
        let sent = threads::open(thread).map(|thread| pidfd_send_signal(thread, Signal::ALARM));
        sent.is_some_and(|sent| sent.is_ok())
    };
    let takers = threads::named(process, name).into_iter().filter(|thread| takes_it(process, *thread));
    takers.map(interrupt).fold(false, |any, sent| any | sent)
}

/// Waits for `stop` to end, and interrupts the receiver for as long as it has not.
pub async fn until_receiver_stopped<T>(process: i32, stop: impl Future<Output = T>) -> T {
    until_stopped(process, RECEIVER, PACE_RECEIVER, stop).await
}

/// Waits for `stop` to end, and interrupts who reads acknowledgements for as long as it has not.
pub async fn until_acknowledgements_stopped<T>(process: i32, stop: impl Future<Output = T>) -> T {
    until_stopped(process, ACKNOWLEDGEMENTS, PACE_ACKNOWLEDGEMENTS, stop).await
}

async fn until_stopped<T>(process: i32, name: &str, pace: Duration, stop: impl Future<Output = T>) -> T {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            biased;
            done = &mut stop => return done,
            () = tokio::time::sleep(pace) => { nudge(process, name); }
        }
    }
}

/// Whether SIGALRM would do nothing but interrupt: there is a handler, and the thread does not block it.
fn takes_it(process: i32, thread: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).is_ok_and(|status| has_handler(&status))
}

fn has_handler(status: &str) -> bool {
    let has = |name: &str| threads::mask(status, name).map(|mask| mask & SIGALRM != 0);
    has("SigCgt") == Some(true) && has("SigBlk") == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_sent_only_to_whom_it_interrupts() {
        let status = |caught: &str, blocked: &str| format!("Name:\tss_ack\nSigBlk:\t{blocked}\nSigCgt:\t{caught}\n");
        assert!(has_handler(&status("00000001000024e8", "0000000000084a07")));
        assert!(!has_handler(&status("00000001000004e8", "0000000000084a07")), "it would end the process");
        assert!(!has_handler(&status("00000001000024e8", "0000000000086a07")), "blocked");
        assert!(!has_handler("Name:\tss_ack\n"));
    }

    #[test]
    fn mysqld_has_a_handler_that_does_nothing() {
        let mysqld = testkit::Mysqld::start(testkit::Options::default());
        let process = mysqld.pid().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        assert!(takes_it(process, process));
        // A kernel that cannot tell threads by descriptors nudges nobody.
        let can = threads::open(std::process::id().cast_signed()).is_some();
        assert_eq!(nudge(process, "ib_log_writer"), can);
        assert!(!nudge(process, "no such thread"));
    }
}
