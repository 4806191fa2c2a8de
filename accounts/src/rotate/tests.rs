//! A table of moments, and a walk that is killed between any two steps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::model::{Account, Limits, Login, Require};

const HOUR: Duration = Duration::from_secs(3600);
const POLICY: Policy = Policy { generated: true, every: Some(Duration::from_secs(100 * 3600)), overlap: HOUR };

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
}

/// Few rounds, or a thousand cases would take minutes.
fn hash(text: &str) -> Hash {
    Hash::quick(&Password::new(text))
}

fn held(name: &str, primary: &str, secondary: Option<&str>, changed: i64) -> (Name, Held) {
    let name = Name::anywhere(name).unwrap();
    let login =
        Login { require: Require::None, limits: Limits::default(), locked: false, lifetime: Some(0), attempts: (0, 0) };
    let credential = Credential {
        plugin: "caching_sha2_password".to_owned(),
        expired: false,
        primary: hash(primary),
        secondary: secondary.map(hash),
        changed_at: Some(at(changed)),
    };
    (name.clone(), Held { account: Account::new(name, login), mark: None, credential })
}

fn recorded(desired: Option<&str>, published: Option<&str>, published_at: i64) -> Recorded {
    Recorded {
        desired: desired.map(Password::new),
        published: published.map(Password::new),
        published_at: published.map(|_| at(published_at)),
    }
}

fn decide(recorded: &Recorded, policy: &Policy, accounts: &[(Name, Held)], now: i64) -> Step {
    let held = accounts.iter().cloned().collect();
    next(recorded, policy, Some(&held), at(now), &mut Known::default(), &mut rand::rng())
}

/// The step in short.
fn short(step: &Step) -> String {
    match step {
        Step::Server(changes) => {
            let each = changes.values().map(|change| match change {
                Change::Retain(_) => "retain",
                Change::Replace(_) => "replace",
                Change::Discard => "discard",
            });
            each.collect::<Vec<_>>().join("+")
        }
        Step::Wait(Some(until)) => format!("wait {}", until.duration_since(at(0)).as_hours()),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn each_moment_has_one_step() {
    let a = |primary, secondary, changed| vec![held("app", primary, secondary, changed)];
    for (desired, published, published_at, accounts, now, wanted) in [
        // First of all.
        (None, None, 0, vec![], 0, "generate"),
        (Some("A"), None, 0, vec![], 0, "wait(none)"),
        (Some("A"), None, 0, a("A", None, 0), 0, "publish"),
        // Nothing to do until it is due.
        (None, Some("A"), 0, a("A", None, 0), 1, "wait 100"),
        (None, Some("A"), 0, a("A", None, 0), 100, "generate"),
        // The four moments of a rotation.
        (Some("B"), Some("A"), 0, a("A", None, 0), 100, "retain"),
        (Some("B"), Some("A"), 0, a("B", Some("A"), 100), 100, "publish"),
        (None, Some("B"), 100, a("B", Some("A"), 100), 100, "wait 101"),
        (None, Some("B"), 100, a("B", Some("A"), 100), 101, "discard"),
        // Published late: the overlap counts from then.
        (None, Some("B"), 150, a("B", Some("A"), 100), 150, "wait 151"),
        // Published, and the pending one not yet taken away.
        (Some("B"), Some("B"), 100, a("B", Some("A"), 100), 100, "publish"),
        // A third one before the second was published: the published one, now the second on the server, stays.
        (Some("C"), Some("A"), 0, a("B", Some("A"), 100), 100, "replace"),
        // Back to the old one.
        (Some("A"), Some("B"), 100, a("B", Some("A"), 100), 100, "retain"),
        // Set by hand or restored: not kept; an unknown second goes first.
        (None, Some("A"), 0, a("X", None, 5), 6, "replace"),
        (None, Some("A"), 0, a("X", Some("Y"), 5), 6, "discard"),
        (None, Some("A"), 0, a("X", Some("A"), 5), 6, "replace"),
        // A host was added in between: one statement for what is left.
        (Some("B"), Some("A"), 0, vec![held("x", "A", None, 0), held("y", "B", Some("A"), 9)], 9, "retain"),
        (Some("B"), Some("A"), 0, vec![held("x", "A", None, 0), held("y", "Z", None, 9)], 9, "retain+replace"),
        (Some(""), Some("A"), 0, a("A", None, 0), 9, "unfit(empty)"),
    ] {
        let step = decide(&recorded(desired, published, published_at), &POLICY, &accounts, now);
        assert_eq!(short(&step), wanted, "{desired:?} {published:?} {accounts:?} {now}");
    }
}

#[test]
fn an_unreachable_primary_changes_nothing() {
    let step =
        next(&recorded(Some("B"), Some("A"), 0), &POLICY, None, at(500), &mut Known::default(), &mut rand::rng());
    assert_eq!(step, Step::Unreachable);
}

#[test]
fn given_passwords_change_when_their_secret_does() {
    let given = Policy { generated: false, every: None, overlap: HOUR };
    let (now, later) = ([held("app", "A", None, 0)], [held("app", "B", Some("A"), 9)]);
    assert_eq!(decide(&recorded(None, None, 0), &given, &[], 0), Step::NoPassword);
    assert_eq!(short(&decide(&recorded(Some("A"), Some("A"), 0), &given, &now, 9999)), "wait(none)");
    assert_eq!(short(&decide(&recorded(Some("B"), Some("A"), 0), &given, &now, 9)), "retain");
    assert_eq!(short(&decide(&recorded(Some("B"), Some("B"), 9), &given, &later, 9)), "wait 10");
    assert_eq!(short(&decide(&recorded(Some("B"), Some("B"), 9), &given, &later, 10)), "discard");
}

#[test]
fn expired_passwords_and_other_plugins_are_set_again() {
    let (name, mut there) = held("app", "A", None, 0);
    there.credential.expired = true;
    assert_eq!(short(&decide(&recorded(None, Some("A"), 0), &POLICY, &[(name.clone(), there.clone())], 1)), "replace");
    there.credential.expired = false;
    there.credential.plugin = "sha256_password".to_owned();
    assert_eq!(short(&decide(&recorded(None, Some("A"), 0), &POLICY, &[(name, there)], 1)), "replace");
}

/// A world that is run by [`next`], one step at a time.
struct World {
    now: i64,
    pending: Option<String>,
    /// Content of `spec.passwordSecretRef`.
    given: Option<String>,
    published: Option<(String, i64)>,
    /// By account: the first and the second, and since when.
    server: Vec<(String, String, Option<String>, i64)>,
    made: u32,
}

impl World {
    fn step(&mut self, policy: &Policy) -> String {
        let desired = if policy.generated { self.pending.clone() } else { self.given.clone() };
        let (published, published_at) = self.published.clone().unzip();
        let recorded = recorded(desired.as_deref(), published.as_deref(), published_at.unwrap_or_default());
        let accounts: Vec<_> = self
            .server
            .iter()
            .map(|(name, primary, secondary, changed)| held(name, primary, secondary.as_deref(), *changed))
            .collect();
        let step = decide(&recorded, policy, &accounts, self.now);
        let target = desired.or(published);
        match &step {
            Step::Generate => {
                self.made += 1;
                self.pending = Some(format!("generated {}", self.made));
            }
            Step::Publish => {
                self.published = target.map(|target| (target, self.now));
                self.pending = None;
            }
            Step::Server(changes) => {
                for (name, primary, secondary, changed) in &mut self.server {
                    let target = target.clone().unwrap();
                    match changes.get(&Name::anywhere(name.as_str()).unwrap()) {
                        Some(Change::Retain(_)) => *secondary = Some(std::mem::replace(primary, target)),
                        Some(Change::Replace(_)) => *primary = target,
                        Some(Change::Discard) => {
                            *secondary = None;
                            continue;
                        }
                        None => continue,
                    }
                    *changed = self.now;
                }
            }
            Step::Wait(_) => {
                let initial = recorded.initial().map(|password| password.expose().to_owned());
                if self.server.is_empty()
                    && let Some(initial) = initial
                {
                    self.server.push(("app".to_owned(), initial, None, self.now));
                }
            }
            Step::Unreachable | Step::NoPassword | Step::Unfit(_) => {}
        }
        short(&step)
    }

    fn is_accepted(&self, password: &str) -> bool {
        let accepts = |(_, primary, secondary, _): &(String, String, Option<String>, i64)| {
            primary == password || secondary.as_deref() == Some(password)
        };
        self.server.iter().all(accepts)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Killed after each step is what this is: nothing is carried from one step to the next but what is stored.
    #[test]
    fn what_is_published_is_accepted(
        generated in any::<bool>(),
        events in proptest::collection::vec((0_u8..8, 0_i64..3), 1..60),
    ) {
        let policy = Policy { generated, ..POLICY };
        let mut world = World { now: 0, pending: None, given: Some("given".to_owned()), published: None, server: vec![], made: 0 };
        let mut was: Option<(String, i64)> = None;
        for (event, amount) in events {
            match event {
                0 => world.now += amount * 40,
                // People change the Secret.
                1 => world.given = Some(format!("given {}", world.now + amount)),
                // Another host is declared: made with what clients have.
                2 if world.server.len() < 3 && world.published.is_some() => {
                    let (password, _) = world.published.clone().unwrap();
                    world.server.push((format!("host{}", world.server.len()), password, None, world.now));
                }
                _ => drop(world.step(&policy)),
            }
            if let Some((password, _)) = &world.published {
                prop_assert!(world.is_accepted(password), "{password} is published, {:?}", world.server);
            }
            // The one before is accepted for the overlap, unless a third one came within it.
            if was.as_ref().map(|(password, _)| password) != world.published.as_ref().map(|(password, _)| password) {
                if let (Some((before, _)), Some(_)) = (&was, &world.published)
                    && world.server.len() == 1
                {
                    prop_assert!(world.is_accepted(before) || world.server[0].2.is_some(), "{before} was published before");
                }
                was.clone_from(&world.published);
            }
        }
        // Left alone, it comes to rest with one password.
        world.now += 2;
        for _ in 0..16 {
            let rests = world.step(&policy).starts_with("wait") && world.published.is_some();
            if rests && world.server.iter().all(|(_, _, second, _)| second.is_none()) {
                break;
            }
            world.now += 1;
        }
        let (published, _) = world.published.clone().unwrap();
        prop_assert!(world.server.iter().all(|(_, first, second, _)| *first == published && second.is_none()), "{:?}", world.server);
    }
}
