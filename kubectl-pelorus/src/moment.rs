//! Times as people write and read them. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// RFC 3339, or `YYYY-MM-DD HH:MM[:SS[.ffffff]]` of a time zone; microseconds at most. The error is for people.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let form =
        || format!("'{text}' is no time: write RFC 3339, or YYYY-MM-DD HH:MM[:SS[.ffffff]] of the local time zone");
    // A date alone is a time for jiff, and hardly what was meant.
    if !text.contains(':') {
        return Err(form());
    }
    let at = if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else {
        let local: DateTime = text.parse().map_err(|_| form())?;
        let at = zone.to_ambiguous_timestamp(local).unambiguous();
        at.map_err(|_| {
            format!("there is no '{text}', or two, for clocks were changed: write it with an offset, as RFC 3339")
        })?
    };
    if at.subsec_nanosecond() % 1000 != 0 {
        return Err(format!("'{text}' has more than microseconds"));
    }
    Ok(at)
}

/// RFC 3339 with the offset of a time zone: what [`parse`] takes again.
pub fn shown(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

/// How long ago something was, in the largest unit that has at least two.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        let (seoul, new_york) = (TimeZone::get("Asia/Seoul").unwrap(), TimeZone::get("America/New_York").unwrap());
        for (text, zone, wanted) in [
            ("2026-11-20T10:15:00.250001Z", &seoul, "2026-11-20T10:15:00.250001Z"),
            ("2026-11-20T19:15:00+09:00", &new_york, "2026-11-20T10:15:00Z"),
            ("2026-11-20 10:15", &seoul, "2026-11-20T01:15:00Z"),
            (" 2026-11-20 10:15:07 ", &seoul, "2026-11-20T01:15:07Z"),
            ("2026-11-20T10:15:07.000001", &seoul, "2026-11-20T01:15:07.000001Z"),
            ("2026-07-01 10:15:07.5", &new_york, "2026-07-01T14:15:07.5Z"),
        ] {
            assert_eq!(parse(text, zone).unwrap().to_string(), wanted, "{text}");
        }
        for (text, why) in [
            ("2026-11-20", "is no time"),
            ("10:15", "is no time"),
            ("yesterday", "is no time"),
            ("2026-13-20 10:15", "is no time"),
            ("", "is no time"),
            ("2026-11-20 10:15:00.0000001", "more than microseconds"),
            ("2026-03-08 02:30", "clocks were changed"),
            ("2026-11-01 01:30", "clocks were changed"),
        ] {
            let error = parse(text, &new_york).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let (zone, at) = (TimeZone::get("Asia/Seoul").unwrap(), "2026-11-20T10:15:00.25Z".parse().unwrap());
        assert_eq!(shown(at, &zone), "2026-11-20T19:15:00.25+09:00");
        assert_eq!(parse(&shown(at, &zone), &TimeZone::UTC).unwrap(), at);
    }

    #[test]
    fn ages_have_one_unit() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, wanted) in
            [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(at(1000), at(1000 + seconds)), wanted);
        }
    }
}
