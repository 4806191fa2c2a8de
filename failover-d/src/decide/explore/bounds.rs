//! How far an exploration goes, and what is broken on purpose in it.

use std::time::Duration;

/// Kinds of disturbances, as bits.
pub(super) mod kind {
    /// mysqld dies.
    pub(in super::super) const CRASH: u16 = 1;
    /// A pod goes without a word, and comes back later.
    pub(in super::super) const VANISH: u16 = 1 << 1;
    /// A volume is lost.
    pub(in super::super) const LOSE: u16 = 1 << 2;
    /// A pod is asked to stop, and comes back later.
    pub(in super::super) const LEAVE: u16 = 1 << 3;
    /// An instance is cut off from everybody.
    pub(in super::super) const ISOLATE: u16 = 1 << 4;
    /// A controller does not hear an instance.
    pub(in super::super) const DEAF: u16 = 1 << 5;
    /// The primary seems to hang, and does not.
    pub(in super::super) const WARY: u16 = 1 << 6;
    /// A person asks for another primary.
    pub(in super::super) const SWITCH: u16 = 1 << 7;
    /// A person asks for fewer instances, or more.
    pub(in super::super) const SCALE: u16 = 1 << 8;
    /// A person fences an instance, or lets it go.
    pub(in super::super) const FENCE: u16 = 1 << 9;
    pub(in super::super) const ALL: u16 = (1 << 10) - 1;
}

/// What a controller takes the time to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mood {
    /// Everything has just happened.
    Prompt,
    /// An operation has been going on for some seconds.
    Patient,
    /// All that waits has waited for an hour.
    Late,
    /// As `Prompt`, and the primary does not answer its canaries.
    Wary,
}

impl Mood {
    pub(super) fn operation_age(self) -> Duration {
        match self {
            Self::Prompt | Self::Wary => Duration::ZERO,
            Self::Patient => Duration::from_secs(3),
            Self::Late => Duration::from_secs(3600),
        }
    }

    /// For how long an acker that does not follow has been missing; how long ago a switchover was given up.
    pub(super) fn age(self) -> Duration {
        match self {
            Self::Prompt | Self::Wary | Self::Patient => Duration::ZERO,
            Self::Late => Duration::from_secs(3600),
        }
    }
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sabotage {
    Nothing,
    /// The candidate is whoever has answered.
    ProofSkipped,
    /// A strike is recorded although the others lack something.
    StrikeUnproven,
    /// A strike is recorded before the account is locked.
    StrikeUnlocked,
    /// Earlier reigns are forgotten when a promotion is recorded.
    ReignsDropped,
    /// A primary's word counts for its reign, whatever data it holds.
    AnyData,
    /// A state of long ago is taken for one of now.
    StaleBelieved,
    /// What is about to be committed is not looked at.
    OwnedIgnored,
    /// A promise is forgotten when mysqld dies.
    PromiseForgotten,
    /// A former primary follows with its tail.
    RewindSkipped,
    /// A rewound server keeps its UUID.
    UuidKept,
    /// A primary opens before all that it received is applied.
    Unapplied,
    /// A primary that comes back opens before its tail is proven.
    TailServed,
    /// A primary that has declined a demotion obeys the same when it is asked once more.
    DeclineForgotten,
    /// The candidate of a switchover opens with what it has received when it is told.
    RestNotAwaited,
}

/// The bounds of one exploration.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) instances: u8,
    /// Controllers that see what is there.
    pub(super) prompt: u8,
    /// Controllers that see what they looked at, when they looked at it.
    pub(super) slow: u8,
    /// Steps of slow controllers.
    pub(super) slow_steps: u16,
    pub(super) writes: u8,
    /// Disturbances, of these kinds.
    pub(super) faults: u16,
    pub(super) kinds: u16,
    pub(super) moods: &'static [Mood],
    /// Orders that are still on their way, and arrive at any time, any number of times.
    pub(super) letters: usize,
    /// Epochs that are recorded or claimed.
    pub(super) epochs: u16,
    /// Everything may happen between the steps of an order.
    pub(super) split: bool,
    /// Everything may happen between receiving and applying.
    pub(super) apply: bool,
    /// Everything may happen between an acknowledgement and the commit.
    pub(super) commit: bool,
    /// Controllers remember the largest received sets that they saw.
    pub(super) remember: bool,
    pub(super) available: bool,
    /// Nobody has been the primary yet.
    pub(super) newborn: bool,
    pub(super) sabotage: Sabotage,
}

impl Bounds {
    /// Three instances and one controller, to which nothing happens.
    pub(super) fn three() -> Self {
        Self {
            instances: 3,
            prompt: 1,
            slow: 0,
            slow_steps: 0,
            writes: 2,
            faults: 0,
            kinds: 0,
            moods: &[Mood::Prompt],
            letters: 0,
            epochs: 4,
            split: false,
            apply: false,
            commit: false,
            remember: false,
            available: false,
            newborn: false,
            sabotage: Sabotage::Nothing,
        }
    }

    pub(super) fn allow(&self, kind: u16) -> bool {
        self.kinds & kind != 0
    }
}
