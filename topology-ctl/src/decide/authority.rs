//! When certificates are renewed, and how a certificate authority hands over to the next.
//!
//! Leaves live one year, the authority ten; each is renewed at two thirds of its life. A new authority is trusted for
//! a while before it issues, so that no peer meets a certificate it cannot verify:
//!
//! ```text
//! issuing ──2/3──> issuing + next, both trusted ──OVERLAP──> next issues, the old one stays trusted until it expires
//! ```

use std::time::Duration;

/// Life of an authority.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// Life of a leaf.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How long the next authority is trusted before it issues: mounted Secrets are refreshed within minutes.
pub const OVERLAP: Duration = Duration::from_secs(86_400);

/// Validity of a certificate in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub from: i64,
    /// Until.
    pub until: i64,
}

impl Validity {
    /// Whether two thirds of its life have passed.
    pub fn is_due(self, now: i64) -> bool {
        now >= self.from + (self.until - self.from) / 3 * 2
    }

    /// Whether it is no longer valid.
    pub fn is_over(self, now: i64) -> bool {
        now >= self.until
    }
}

/// What to do about the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none, or it is over: make one.
    Create,
    /// It is fine.
    Keep,
    /// Make the next one, and trust it beside this one.
    Prepare,
    /// The next one issues from now on; this one stays trusted.
    Switch,
}

/// Decides on the authority.
pub fn step(current: Option<Validity>, next: Option<Validity>, now: i64) -> Step {
    match (current, next) {
        (None, _) => Step::Create,
        (Some(current), Some(next)) => {
            let trusted_for = now.saturating_sub(next.from);
            let overlap = i64::try_from(OVERLAP.as_secs()).unwrap_or(i64::MAX);
            if trusted_for >= overlap || current.is_over(now) { Step::Switch } else { Step::Keep }
        }
        (Some(current), None) if current.is_over(now) => Step::Create,
        (Some(current), None) if current.is_due(now) => Step::Prepare,
        (Some(_), None) => Step::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_hands_over_in_two_steps() {
        let day = 86_400;
        let current = Validity { from: 0, until: 300 * day };
        let next = Validity { from: 200 * day, until: 500 * day };
        for (current, next, now, expected) in [
            (None, None, 0, Step::Create),
            (Some(current), None, 199 * day, Step::Keep),
            (Some(current), None, 200 * day, Step::Prepare),
            (Some(current), Some(next), 200 * day + 1, Step::Keep),
            (Some(current), Some(next), 201 * day, Step::Switch),
            (Some(current), None, 300 * day, Step::Create),
            (Some(Validity { from: 0, until: 200 * day }), Some(next), 200 * day + 1, Step::Switch),
        ] {
            assert_eq!(step(current, next, now), expected, "{now}");
        }
    }

    #[test]
    fn a_leaf_is_due_at_two_thirds_of_its_life() {
        let leaf = Validity { from: 0, until: 300 };
        assert!(!leaf.is_due(199));
        assert!(leaf.is_due(200));
        assert!(!leaf.is_over(299));
        assert!(leaf.is_over(300));
    }
}
