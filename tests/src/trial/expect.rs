//! What a row expects beyond what holds for all.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a row expects beyond I1 to I9.
#[derive(Clone, Debug)]
pub struct Expect {
    /// How often the primary changed.
    pub changes: RangeInclusive<usize>,
    /// How many instances serve in the end; none: as many as the spec says.
    pub instances: Option<u32>,
    /// Instances that were spoilt by hand: they are not compared, and need not serve.
    pub apart: Vec<String>,
    /// Instances that were spoilt by hand and served what they should not have meanwhile.
    pub spoilt: Vec<String>,
    /// Parts of WARN and ERROR lines that belong to the row.
    pub lines: Vec<&'static str>,
    /// No write failed at all.
    pub flawless: bool,
    /// Longest time without an acknowledgement since the first fault.
    pub gap: Option<Duration>,
    /// No instance was ever called errant.
    pub never_errant: bool,
    /// The rule was broken on purpose: the verdict has to find this, or it is worth nothing.
    pub violates: Vec<&'static str>,
}

impl Expect {
    /// The primary changed so many times.
    pub fn changes(times: usize) -> Self {
        Self::changes_within(times..=times)
    }

    /// The primary changed so many times, between two numbers.
    pub fn changes_within(changes: RangeInclusive<usize>) -> Self {
        Self {
            changes,
            instances: None,
            apart: Vec::new(),
            spoilt: Vec::new(),
            lines: Vec::new(),
            flawless: false,
            gap: None,
            never_errant: false,
            violates: Vec::new(),
        }
    }

    /// The primary stayed.
    pub fn unchanged() -> Self {
        Self::changes(0)
    }

    /// Nothing beyond I1 to I9.
    pub fn anything() -> Self {
        Self::changes_within(0..=usize::MAX)
    }

    /// So many instances serve in the end.
    #[must_use]
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = Some(instances);
        self
    }

    /// These instances were spoilt by hand, and are not mended.
    #[must_use]
    pub fn apart(mut self, pods: &[String]) -> Self {
        self.apart = pods.to_vec();
        self.spoilt(pods)
    }

    /// These instances were spoilt by hand, and are mended in the end.
    #[must_use]
    pub fn spoilt(mut self, pods: &[String]) -> Self {
        self.spoilt = pods.to_vec();
        self
    }

    /// These WARN and ERROR lines belong to the row.
    #[must_use]
    pub fn lines(mut self, parts: &[&'static str]) -> Self {
        self.lines = parts.to_vec();
        self
    }

    /// No write failed at all.
    #[must_use]
    pub fn flawless(mut self) -> Self {
        self.flawless = true;
        self
    }

    /// Writes never paused longer since the first fault.
    #[must_use]
    pub fn gap(mut self, gap: Duration) -> Self {
        self.gap = Some(gap);
        self
    }

    /// No instance was ever called errant.
    #[must_use]
    pub fn never_errant(mut self) -> Self {
        self.never_errant = true;
        self
    }

    /// The rule was broken on purpose, and the verdict has to find findings that begin like these.
    #[must_use]
    pub fn violates(mut self, findings: &[&'static str]) -> Self {
        self.violates = findings.to_vec();
        self
    }
}
