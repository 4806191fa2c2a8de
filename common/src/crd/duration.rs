//! Durations as people write them in a spec: `1500ms`, `10s`, `1h30m`, `168h`.
//!
//! kube's own type prints `168h` as `604800s`; what a user wrote should read the same in a default or a `kubectl get`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration in Go's syntax with the units `ms`, `s`, `m` and `h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GoDuration(Duration);

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration: write a number with a unit, like 1500ms, 10s, 5m or 168h")]
pub struct DurationError(String);

impl GoDuration {
    /// A number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// A number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A number of hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    /// The duration.
    pub const fn as_std(self) -> Duration {
        self.0
    }

    /// Whole milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.0
    }
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        duration.to_string()
    }
}

impl TryFrom<String> for GoDuration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        text.parse()
    }
}

impl fmt::Display for GoDuration {
    /// In the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOUR: u128 = 3_600_000;
        const MINUTE: u128 = 60_000;
        let milliseconds = self.0.as_millis();
        if !self.0.subsec_nanos().is_multiple_of(1_000_000) {
            write!(f, "{}ms", self.0.as_secs_f64() * 1000.0)
        } else if milliseconds == 0 {
            f.write_str("0s")
        } else if milliseconds.is_multiple_of(HOUR) {
            write!(f, "{}h", milliseconds / HOUR)
        } else if milliseconds.is_multiple_of(MINUTE) {
            write!(f, "{}m", milliseconds / MINUTE)
        } else if milliseconds.is_multiple_of(1000) {
            write!(f, "{}s", milliseconds / 1000)
        } else {
            write!(f, "{milliseconds}ms")
        }
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let refuse = || DurationError(text.chars().take(64).collect());
        let mut rest = text;
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(refuse)?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_end);
            let seconds_per_unit = match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(refuse()),
            };
            let number: f64 = number.parse().map_err(|_| refuse())?;
            let part = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| refuse())?;
            total = total.checked_add(part).ok_or_else(refuse)?;
            rest = next;
        }
        Ok(Self(total))
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::GoDuration;

    #[test]
    fn reads_and_prints_what_people_write() {
        for (text, milliseconds) in [
            ("1500ms", 1500),
            ("10s", 10_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("168h", 604_800_000),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!((duration.as_millis(), duration.to_string()), (milliseconds, text.to_owned()));
        }
        assert_eq!("1h30m".parse::<GoDuration>().unwrap().to_string(), "90m");
        assert_eq!("1.5s".parse::<GoDuration>().unwrap().to_string(), "1500ms");
        assert_eq!("0s".parse::<GoDuration>().unwrap().to_string(), "0s");
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "5", "s", "-5s", "5d", "5 s", "1..5s", "9999999999999999999999999999h", "5s5"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
