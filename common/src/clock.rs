//! The time of day, for what people and other daemons read: statuses, events, certificates. Whatever is waited for, or
//! counts as late, goes by a monotonic clock.
//!
//! A test sets a daemon's clock off: `PELORUS_CLOCK_OFFSET_SECONDS=-600`. (The daemons are static programs, to which
//! libfaketime cannot be preloaded.) Without the variable this is the system's clock.

use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};

/// Seconds by which a test has set the clock off.
pub const OFFSET_VARIABLE: &str = "PELORUS_CLOCK_OFFSET_SECONDS";

static OFFSET: OnceLock<SignedDuration> = OnceLock::new();

/// Now.
pub fn now() -> Timestamp {
    let read = || {
        let seconds = std::env::var(OFFSET_VARIABLE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if seconds != 0 {
            tracing::warn!(seconds, "the clock is set off");
        }
        SignedDuration::from_secs(seconds)
    };
    let now = Timestamp::now();
    now.checked_add(*OFFSET.get_or_init(read)).unwrap_or(now)
}

/// A commit time, microseconds since 1970, for people and as a restore takes it: RFC 3339.
pub fn commit_time(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    time.map_or_else(|| format!("{micros} microseconds after 1970"), |time| format!("{time:.6}"))
}
