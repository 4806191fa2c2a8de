//! Replicas of a daemon that share its work, where work that is done twice is waste and not danger.
//!
//! There is a fixed list of Leases, `<name>-0` to `<name>-<seats - 1>`, so that RBAC can name them. Each replica holds one; who finds none
//! free waits, and takes the first that becomes free. What belongs to whom follows from which are held, by rendezvous hashing: a replica
//! that comes or goes moves its own share and nothing else.
//!
//! ```text
//! no seat --(one is free, or its holder has been silent for its duration)--> seated --(another holder is seen)--> no seat
//!                                                                              `-----(stop)--> released
//! ```
//!
//! An API server that is away takes no seat and moves nothing: everybody goes on with what they had. Two replicas may therefore hold
//! themselves for the owner of one object for some seconds, or longer while one of them is cut off.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Config;
use super::api::{Api, CallError, Held, Object, RenewError};
use super::decide::{Candidate, Record, Step};

/// Who is at work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    mine: Option<u32>,
    holders: BTreeMap<u32, String>,
}

impl Members {
    /// Those of these seats, of which one may be ours.
    pub fn new(mine: Option<u32>, holders: impl IntoIterator<Item = (u32, String)>) -> Self {
        Self { mine, holders: holders.into_iter().collect() }
    }

    /// Our seat.
    pub fn seat(&self) -> Option<u32> {
        self.mine
    }

    /// Whether the object (by its UID, or any other name that all replicas know it by) is ours to work on.
    pub fn is_mine(&self, object: &str) -> bool {
        let weight = |seat: &u32| Sha256::digest(format!("{seat}/{object}"));
        self.mine.is_some() && self.holders.keys().copied().max_by_key(weight) == self.mine
    }

    /// Whether this replica is at work.
    pub fn include(&self, identity: &str) -> bool {
        self.holders.values().any(|holder| holder == identity)
    }
}

/// One replica's way to a seat.
#[derive(Debug)]
pub struct Seats {
    config: Config,
    apis: Vec<Api>,
    candidates: Vec<Candidate>,
    held: Option<(u32, Held)>,
}

/// What a look at a seat that is not ours said.
#[derive(Debug, PartialEq)]
enum Seat {
    /// Somebody works there.
    Held(String),
    /// It can be had. Ours by name when we held it before this process began.
    Free { step: Step, ours: bool },
}

fn judge(candidate: &mut Candidate, record: Option<Record>, config: &Config, now: std::time::Instant) -> Seat {
    let holder = record.as_ref().map(|record| record.holder.clone()).unwrap_or_default();
    match candidate.decide(record, config, now) {
        Step::Wait => Seat::Held(holder),
        step => Seat::Free { step, ours: holder == config.identity },
    }
}

impl Seats {
    /// `config.name` is what the names of the Leases begin with.
    pub fn new(client: &kube::Client, config: Config, seats: u32) -> Self {
        let named = |seat| Config { name: format!("{}-{seat}", config.name), ..config.clone() };
        let apis: Vec<Api> = (0..seats).map(|seat| Api::new(client.clone(), &named(seat))).collect();
        let candidates = apis.iter().map(|_| Candidate::default()).collect();
        Self { config, apis, candidates, held: None }
    }

    /// Takes and keeps a seat, and says who else has one, until it is told to stop. The seat is held until [`Self::release`].
    pub async fn keep(&mut self, stop: &CancellationToken, members: &watch::Sender<Members>) {
        let keeping = async {
            loop {
                match self.round().await {
                    Ok(seen) => {
                        members.send_if_modified(|known| {
                            let differs = *known != seen;
                            if differs {
                                info!(seat = seen.mine, holders = ?seen.holders, "who is at work");
                                *known = seen;
                            }
                            differs
                        });
                    }
                    Err(error) => {
                        warn!(lease = self.config.name, %error, "cannot look at the leases of the members");
                        // Nobody could renew either: silence counts from the next look.
                        self.candidates.fill_with(Candidate::default);
                    }
                }
                sleep(self.config.pause()).await;
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// Lets others have the seat at once. A failure costs them the wait, no more.
    pub async fn release(mut self) {
        let Some((seat, held)) = self.held.take() else { return };
        let Some(api) = self.api(seat) else { return };
        if !matches!(timeout(self.config.retry, api.release(held)).await, Ok(Ok(()))) {
            warn!(lease = self.config.name, seat, "cannot release the seat");
        }
    }

    fn api(&self, seat: u32) -> Option<&Api> {
        self.apis.get(usize::try_from(seat).ok()?)
    }

    /// One look at all seats.
    async fn round(&mut self) -> Result<Members, CallError> {
        self.renew().await?;
        let mut holders = BTreeMap::new();
        let mut free: Vec<(bool, u32, Step, Option<Object>, Instant)> = Vec::new();
        for (seat, (api, candidate)) in (0..).zip(self.apis.iter().zip(&mut self.candidates)) {
            if self.held.as_ref().is_some_and(|(mine, _)| *mine == seat) {
                holders.insert(seat, self.config.identity.clone());
                continue;
            }
            let since = Instant::now();
            let found = api.get().await?;
            match judge(candidate, found.as_ref().map(Record::of), &self.config, Instant::now().into_std()) {
                Seat::Held(holder) => drop(holders.insert(seat, holder)),
                Seat::Free { step, ours } => free.push((!ours, seat, step, found, since)),
            }
        }
        // The one that was ours before this process began comes first: nobody else waits for its holder to fall silent.
        free.sort_by_key(|(other, seat, ..)| (*other, *seat));
        for (_, seat, step, found, since) in free {
            if self.held.is_some() {
                break;
            }
            let Some(api) = self.api(seat) else { continue };
            if let Some(held) = api.obey(step, found, since).await? {
                holders.insert(seat, self.config.identity.clone());
                self.held = Some((seat, held));
            }
        }
        Ok(Members { mine: self.held.as_ref().map(|(seat, _)| *seat), holders })
    }

    /// Renews what is held; what another holds by now is given up.
    async fn renew(&mut self) -> Result<(), CallError> {
        let Some((seat, held)) = &mut self.held else { return Ok(()) };
        let Some(api) = usize::try_from(*seat).ok().and_then(|seat| self.apis.get(seat)) else { return Ok(()) };
        match api.renew(held).await {
            Err(RenewError::Usurped(holder)) => {
                warn!(lease = self.config.name, seat, holder, "the seat has another holder");
                self.held = None;
                Ok(())
            }
            // A conflict: it is ours, and renewed in the next round.
            Err(RenewError::Failed(error)) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Resolves as soon as the object is ours, or is not; never when nobody tells any more.
pub async fn when(members: &mut watch::Receiver<Members>, object: &str, mine: bool) {
    if members.wait_for(|members| members.is_mine(object) == mine).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::Duration;

    use super::*;

    fn members(mine: u32, seats: &[u32]) -> Members {
        Members::new(Some(mine), seats.iter().map(|seat| (*seat, format!("pod-{seat}"))))
    }

    fn owner(object: &str, seats: &[u32]) -> u32 {
        let owners: Vec<u32> = seats.iter().copied().filter(|seat| members(*seat, seats).is_mine(object)).collect();
        assert_eq!(owners.len(), 1, "{owners:?} own {object}");
        owners[0]
    }

    #[test]
    fn each_object_has_one_owner_and_a_member_that_goes_moves_its_own_share_alone() {
        let objects: Vec<String> = (0..3000).map(|n| format!("uid-{n}")).collect();
        let mut shares = BTreeMap::<u32, usize>::new();
        for object in &objects {
            let before = owner(object, &[0, 1, 2]);
            *shares.entry(before).or_default() += 1;
            let after = owner(object, &[0, 2]);
            assert!(before == 1 || after == before, "{object} moved from {before} to {after}");
            assert_eq!(owner(object, &[0, 1, 2]), before);
        }
        assert!(shares.values().all(|share| (900..1100).contains(share)), "{shares:?}");
    }

    #[test]
    fn who_has_no_seat_owns_nothing() {
        let standby = Members::new(None, [(0, "a".to_owned())]);
        assert!(!standby.is_mine("x") && !Members::default().is_mine("x"));
        assert!(standby.include("a") && !standby.include("b"));
    }

    #[test]
    fn a_seat_is_free_when_it_was_never_held_was_released_was_ours_or_is_silent() {
        let config = Config { duration: Duration::from_secs(3), ..Config::new("ns", "d", "me") };
        let record = |holder: &str, version: &str| {
            Some(Record {
                resource_version: Some(version.to_owned()),
                holder: holder.to_owned(),
                duration: Some(Duration::from_secs(3)),
                transitions: 4,
            })
        };
        let mut candidate = Candidate::default();
        let start = std::time::Instant::now();
        let mut at = |record, seconds| judge(&mut candidate, record, &config, start + Duration::from_secs(seconds));
        assert_eq!(at(None, 0), Seat::Free { step: Step::Create, ours: false });
        assert_eq!(at(record("", "1"), 0), Seat::Free { step: Step::Take { transitions: 5 }, ours: false });
        assert_eq!(at(record("me", "2"), 0), Seat::Free { step: Step::Take { transitions: 4 }, ours: true });
        assert_eq!(at(record("other", "3"), 0), Seat::Held("other".to_owned()));
        assert_eq!(at(record("other", "4"), 2), Seat::Held("other".to_owned()));
        assert_eq!(at(record("other", "4"), 5), Seat::Held("other".to_owned()));
        assert_eq!(at(record("other", "4"), 6), Seat::Free { step: Step::Take { transitions: 5 }, ours: false });
    }

    #[tokio::test]
    async fn an_object_that_moves_is_noticed() {
        let (sender, mut receiver) = watch::channel(members(0, &[0]));
        assert!(receiver.borrow().is_mine("x"));
        let moving = when(&mut receiver, "x", false);
        // Whichever it was, it is not seat 0's when seat 0 is not ours.
        sender.send_replace(Members::new(None, [(0, "pod-0".to_owned())]));
        tokio::time::timeout(Duration::from_secs(5), moving).await.unwrap();
    }
}
