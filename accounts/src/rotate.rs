//! Change of a password without a moment in which the one in the Secret is refused.
//!
//! ```text
//! Generate   a new password is written down, as the pending one       Secret old, pending new   server: old
//! Server     ALTER USER … RETAIN CURRENT PASSWORD                     Secret old, pending new   server: new, old
//! Publish    the Secret gets it, with the time; nothing is pending    Secret new                server: new, old
//! Server     after the overlap: DISCARD OLD PASSWORD                  Secret new                server: new
//! ```
//!
//! Expected flow: read the Secrets, read the server, [`next`], do that one step, begin again. Nothing is remembered in
//! between: a process that dies anywhere, a failover, a primary that cannot be reached only mean that the same step
//! comes out again. What the server holds is recognised by its hashes ([`crate::password`]), so a step that was done is
//! not done twice: RETAIN twice would push the old password out while the Secret still has it.
//!
//! Guarantees: a password that was published and accepted stays accepted until another one is published and its overlap
//! is over. A password that is neither published nor wanted (set by hand, restored) is replaced and not retained.
//!
//! Assumptions: one of these at a time per account, and a reading of the present primary: two that retain at the same
//! time would lose the old password. MySQL holds two passwords: of three changes within one overlap the oldest goes.

use std::collections::BTreeMap;
use std::time::Duration;

use common::crd::MySQLUserSpec;
use common::mysql::Password;
use common::sql::Account as Name;
use jiff::Timestamp;
use rand::RngExt;

use crate::held::{Credential, Held};
use crate::password::{Hash, Known, Unfit, check};
use crate::statement::Change;

/// What Kubernetes holds.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// What the password is to be: the content of `spec.passwordSecretRef`, or the generated one that is pending. None:
    /// it stays the one that is published.
    pub desired: Option<Password>,
    /// What the connection Secret says.
    pub published: Option<Password>,
    /// When it was put there; recorded in the same write.
    pub published_at: Option<Timestamp>,
}

impl Recorded {
    /// The password of accounts that have to be made: the published one, as clients have that already.
    pub fn initial(&self) -> Option<&Password> {
        self.published.as_ref().or(self.desired.as_ref())
    }

    fn target(&self) -> Option<&Password> {
        self.desired.as_ref().or(self.published.as_ref())
    }
}

/// How passwords change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pelorus makes the password.
    pub generated: bool,
    /// How often a generated one changes; none: by hand only.
    pub every: Option<Duration>,
    /// How long the old one is valid beside the new one.
    pub overlap: Duration,
}

impl Policy {
    /// As declared.
    pub fn of(spec: &MySQLUserSpec) -> Self {
        let rotation = spec.rotation.clone();
        let overlap = rotation.clone().unwrap_or_default().overlap;
        Self {
            generated: spec.password_secret_ref.is_none(),
            every: rotation.map(|rotation| Duration::from_millis(rotation.every.as_millis())),
            overlap: Duration::from_millis(overlap.as_millis()),
        }
    }
}

/// The one thing to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a password and write it down as pending. Nothing else happens before that is stored.
    Generate,
    /// [`crate::Statement::passwords`], and read back.
    Server(BTreeMap<Name, Change>),
    /// Put the wanted password into the connection Secret with the time, and take away the pending one, in one write.
    Publish,
    /// Nothing before this moment, or for ever.
    Wait(Option<Timestamp>),
    /// The primary cannot be read: nothing is changed, the Secret neither.
    Unreachable,
    /// There is no password to be had yet: `spec.passwordSecretRef` leads nowhere.
    NoPassword,
    /// The wanted password cannot be one.
    Unfit(Unfit),
}

/// How a password of the server relates to what is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Target,
    Published,
    Unknown,
}

/// Decides. `held`: the accounts of the user that are there and ours; none when the primary cannot be read.
pub fn next(
    recorded: &Recorded,
    policy: &Policy,
    held: Option<&BTreeMap<Name, Held>>,
    now: Timestamp,
    known: &mut Known,
    random: &mut impl RngExt,
) -> Step {
    let Some(held) = held else { return Step::Unreachable };
    let Some(target) = recorded.target() else {
        return if policy.generated { Step::Generate } else { Step::NoPassword };
    };
    if let Err(unfit) = check(target) {
        return Step::Unfit(unfit);
    }
    let mut recognise = |name: &Name, hash: &Hash| {
        if known.is_of(name, hash, target) {
            Is::Target
        } else if recorded.published.as_ref().is_some_and(|published| hash.is_of(published)) {
            Is::Published
        } else {
            Is::Unknown
        }
    };
    let mut changes = BTreeMap::new();
    for (name, there) in held {
        let credential = &there.credential;
        let primary = if credential.is_usable() { recognise(name, &credential.primary) } else { Is::Unknown };
        let change = match primary {
            Is::Target => continue,
            Is::Published => Change::Retain(Hash::make(target, random)),
            Is::Unknown => {
                // The second is what clients have, or it is unknown too and nobody should have it.
                let secondary = credential.secondary.as_ref().map(|hash| recognise(name, hash));
                match secondary {
                    Some(Is::Unknown) => Change::Discard,
                    Some(Is::Target | Is::Published) | None => Change::Replace(Hash::make(target, random)),
                }
            }
        };
        changes.insert(name.clone(), change);
    }
    if !changes.is_empty() {
        return Step::Server(changes);
    }
    // Nobody is told a password that no account has: the accounts are made first.
    if recorded.published.as_ref() != Some(target) {
        return if held.is_empty() { Step::Wait(None) } else { Step::Publish };
    }
    if recorded.desired.is_some() && policy.generated {
        // Published, but the pending one is still written down.
        return Step::Publish;
    }
    finish(recorded, policy, held, now)
}

/// All accounts have the published password.
fn finish(recorded: &Recorded, policy: &Policy, held: &BTreeMap<Name, Held>, now: Timestamp) -> Step {
    let since = |credential: &Credential| credential.changed_at.max(recorded.published_at).unwrap_or(now);
    let over = |there: &Held| since(&there.credential).saturating_add(policy.overlap).unwrap_or(Timestamp::MAX);
    let overlapping = held.iter().filter(|(_, there)| there.credential.secondary.is_some());
    let (done, left): (Vec<_>, Vec<_>) = overlapping.partition(|(_, there)| over(there) <= now);
    if !done.is_empty() {
        return Step::Server(done.into_iter().map(|(name, _)| (name.clone(), Change::Discard)).collect());
    }
    if let Some(until) = left.iter().map(|(_, there)| over(there)).min() {
        return Step::Wait(Some(until));
    }
    let Some(every) = policy.every.filter(|_| policy.generated && !held.is_empty()) else { return Step::Wait(None) };
    let changed = held.values().map(|there| since(&there.credential)).max().unwrap_or(now);
    let due = changed.saturating_add(every).unwrap_or(Timestamp::MAX);
    if due <= now { Step::Generate } else { Step::Wait(Some(due)) }
}

#[cfg(test)]
mod tests;
