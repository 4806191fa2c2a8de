//! What can be restored, as the present primary proves it, and whether that takes a dump first.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::catalogue;
use binlog_shipper::ship::Stream;
use common::conditions::Finding;
use common::crd::{RESTORABLE, Restorable};
use common::mysql::Session;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;
use tracing::{debug, info};

use super::{Loop, RECORDS, Shared};
use crate::connect;
use crate::window::{Proven, Window};

/// Seconds after which a window that has not changed is said to be proven again.
const PROVEN_AGAIN: i64 = 60;
/// Pace of looking for a dump where nothing is restorable without one.
const DUMPS: Duration = Duration::from_secs(20);

impl Loop {
    /// Asks the primary, at a pace, what it has executed of what is in the archive. Never ends: the stream knows first when
    /// there is nobody to ask.
    pub(super) async fn prove(&self, shared: &Mutex<Shared>, session: &mut Session, stream: &Stream) {
        let mut looked = Instant::now();
        loop {
            let needs_dump = shared.lock().unwrap_or_else(PoisonError::into_inner).window.needs_dump();
            if needs_dump && looked.elapsed() > DUMPS {
                looked = Instant::now();
                self.look_for_dumps(shared, stream).await;
            }
            match connect::executed(session).await {
                Ok(executed) => {
                    let proven = shared.lock().unwrap_or_else(PoisonError::into_inner).window.proven(&executed);
                    let mut told = self.restorable.lock().unwrap_or_else(PoisonError::into_inner);
                    *told = proven.and_then(|proven| restorable(&proven, told.as_ref(), common::clock::now()));
                }
                Err(error) => {
                    debug!(%error, "the primary was not asked");
                    return std::future::pending().await;
                }
            }
            sleep(RECORDS).await;
        }
    }

    /// The window anew, from all that is in the bucket by now. What is shipped meanwhile is in the next.
    async fn look_for_dumps(&self, shared: &Mutex<Shared>, stream: &Stream) {
        let looked = async {
            let dumps = connect::dumps(&stream.store, &stream.root).await?;
            if dumps.is_empty() {
                return Ok(None);
            }
            let held = catalogue::read(&stream.store, &stream.root).await?;
            let purged = shared.lock().unwrap_or_else(PoisonError::into_inner).purged.clone();
            Ok::<_, connect::Error>(Some(Window::new(&held, &dumps, &purged)))
        };
        match looked.await {
            Ok(Some(window)) if !window.needs_dump() => {
                info!("a dump makes the cluster restorable again");
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.window = window.and_behind(&shared.window);
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "whether there is a dump is not known"),
        }
    }
}

/// Whether what was shipped can be restored.
pub(super) fn continuity(window: &Window) -> Finding {
    if window.needs_dump() {
        let message = "binlogs were purged before they were in the archive: what was committed after them can be restored from the \
                       next dump on";
        return Finding::bad(RESTORABLE, "DumpNeeded", message);
    }
    Finding::good(RESTORABLE, "Continuous", "status.restorable says from when to when")
}

/// In whole seconds, as the API server keeps times; the window is never said to be larger than it is. One that says the same as
/// the last is proven anew at a slower pace: an idle cluster writes next to nothing.
fn restorable(proven: &Proven, told: Option<&Restorable>, now: Timestamp) -> Option<Restorable> {
    const SECOND: u64 = 1_000_000;
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
        Some(Time(Timestamp::from_second(seconds).ok()?))
    };
    let (from, to) = (time(proven.from.div_ceil(SECOND)), time(proven.to / SECOND));
    let now = Timestamp::from_second(now.as_second()).ok()?;
    let new = Restorable { from, to, gtid: Some(proven.gtid.to_string()), proven_at: Some(Time(now)) };
    match told {
        Some(told) if (&told.from, &told.to, &told.gtid) == (&new.from, &new.to, &new.gtid) => {
            let at = told.proven_at.as_ref().map_or(0, |at| at.0.as_second());
            let is_old = now.as_second().saturating_sub(at) >= PROVEN_AGAIN;
            Some(if is_old { new } else { told.clone() })
        }
        Some(_) | None => Some(new),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_window_that_stays_is_written_rarely() {
        let gtid = "07070707-0707-0707-0707-070707070707:1-3".parse().unwrap();
        let proven = Proven { gtid, from: 1_000_001, to: 5_999_999 };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = restorable(&proven, None, at(100)).unwrap();
        let seconds = |time: &Option<Time>| time.as_ref().unwrap().0.as_second();
        assert_eq!((seconds(&first.from), seconds(&first.to), seconds(&first.proven_at)), (2, 5, 100));
        assert_eq!(restorable(&proven, Some(&first), at(110)).unwrap(), first);
        assert_eq!(seconds(&restorable(&proven, Some(&first), at(200)).unwrap().proven_at), 200);
        let more = Proven { to: 7_000_000, ..proven };
        assert_eq!(seconds(&restorable(&more, Some(&first), at(110)).unwrap().proven_at), 110);
    }
}
