//! Changes of mysqld settings: which are applied at once, which take a restart, which are refused.
//!
//! The settings in force are those that were accepted last; they live in the ConfigMap together with a restart digest.
//! A change is accepted only when every running mysqld that could be asked agrees. Removing a key takes a restart: the
//! value it falls back to is known to a booting mysqld only.

use std::collections::{BTreeMap, BTreeSet};

use common::instance::{ConfigAnswer, SettingVerdict};
use sha2::{Digest, Sha256};

/// Settings by name.
pub type Settings = BTreeMap<String, String>;

/// What was accepted last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The settings.
    pub settings: Settings,
    /// Part of the digest of the pod template: changes when an accepted change takes a restart.
    pub restart_digest: String,
}

impl Accepted {
    /// Settings that every pod of a new cluster starts with.
    pub fn at_start(settings: Settings) -> Self {
        let restart_digest = digest(&settings);
        Self { settings, restart_digest }
    }
}

/// What one running instance said about the wanted settings.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Pod name.
    pub instance: String,
    /// Its verdicts, or why there are none.
    pub answer: Result<ConfigAnswer, String>,
}

/// What becomes of the wanted settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are accepted already.
    None,
    /// Accept them.
    Accept {
        /// What is accepted from now on.
        accepted: Accepted,
        /// Keys that take a rolling restart; empty: all are applied at once.
        restart: BTreeSet<String>,
    },
    /// Refused; what was accepted last stays.
    Refuse {
        /// The key, when one is to blame.
        key: Option<String>,
        /// mysqld's words.
        reason: String,
    },
    /// Nobody who runs could be asked; try again.
    Ask {
        /// Why not.
        reason: String,
    },
}

/// Decides on the wanted settings. `accepted` is `None` for a new cluster. `running` says whether any mysqld runs: when
/// none does there is nobody to ask, and nothing to break either.
pub fn change(wanted: &Settings, accepted: Option<&Accepted>, running: bool, answers: &[Answer]) -> Change {
    let Some(accepted) = accepted else {
        return Change::Accept { accepted: Accepted::at_start(wanted.clone()), restart: BTreeSet::new() };
    };
    if accepted.settings == *wanted {
        return Change::None;
    }
    let changed: BTreeSet<&String> =
        wanted.iter().filter(|(key, value)| accepted.settings.get(*key) != Some(*value)).map(|(key, _)| key).collect();
    let mut restart: BTreeSet<String> =
        accepted.settings.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();

    if running {
        let verdicts: Vec<&ConfigAnswer> = answers.iter().filter_map(|answer| answer.answer.as_ref().ok()).collect();
        for verdict in &verdicts {
            for (key, setting) in &verdict.settings {
                match setting {
                    SettingVerdict::Invalid { reason } => {
                        return Change::Refuse { key: Some(key.clone()), reason: reason.clone() };
                    }
                    SettingVerdict::NeedsRestart if changed.contains(key) => {
                        restart.insert(key.clone());
                    }
                    SettingVerdict::InForce | SettingVerdict::Dynamic | SettingVerdict::NeedsRestart => {}
                }
            }
            if let Some(reason) = &verdict.refused {
                return Change::Refuse { key: None, reason: reason.clone() };
            }
        }
        if verdicts.is_empty() {
            let reason = answers
                .iter()
                .find_map(|answer| answer.answer.as_ref().err().map(|error| format!("{}: {error}", answer.instance)));
            return Change::Ask { reason: reason.unwrap_or_else(|| "no instance could be asked".to_owned()) };
        }
    } else {
        restart.extend(changed.into_iter().cloned());
    }

    let restart_digest = if restart.is_empty() { accepted.restart_digest.clone() } else { digest(wanted) };
    Change::Accept { accepted: Accepted { settings: wanted.clone(), restart_digest }, restart }
}

/// Digest of settings, stable over the order of keys.
pub fn digest(settings: &Settings) -> String {
    let mut hasher = Sha256::new();
    for (key, value) in settings {
        for part in [key, value] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hex(&hasher.finalize(), 16)
}

/// The first `digits` hexadecimal digits of a hash.
pub fn hex(hash: &[u8], digits: usize) -> String {
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.take(digits).filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn answer(verdicts: &[(&str, SettingVerdict)]) -> Answer {
        let settings = verdicts.iter().map(|(key, verdict)| ((*key).to_owned(), verdict.clone())).collect();
        Answer { instance: "shop-1".into(), answer: Ok(ConfigAnswer { settings, refused: None }) }
    }

    fn accepted() -> Accepted {
        Accepted::at_start(settings(&[("max_connections", "100"), ("innodb_io_capacity", "200")]))
    }

    #[test]
    fn a_dynamic_change_keeps_the_restart_digest() {
        let wanted = settings(&[("max_connections", "500"), ("innodb_io_capacity", "200")]);
        let answers =
            [answer(&[("max_connections", SettingVerdict::Dynamic), ("innodb_io_capacity", SettingVerdict::InForce)])];
        let Change::Accept { accepted: now, restart } = change(&wanted, Some(&accepted()), true, &answers) else {
            panic!("accepted");
        };
        assert!(restart.is_empty());
        assert_eq!(now, Accepted { settings: wanted, restart_digest: accepted().restart_digest });
    }

    #[test]
    fn static_and_removed_keys_take_a_restart() {
        let removed = settings(&[("max_connections", "100")]);
        let added =
            settings(&[("max_connections", "100"), ("innodb_io_capacity", "200"), ("performance_schema", "OFF")]);
        for (wanted, verdicts, key) in [
            (removed, vec![("max_connections", SettingVerdict::InForce)], "innodb_io_capacity"),
            (added, vec![("performance_schema", SettingVerdict::NeedsRestart)], "performance_schema"),
        ] {
            let Change::Accept { accepted: now, restart } =
                change(&wanted, Some(&accepted()), true, &[answer(&verdicts)])
            else {
                panic!("accepted");
            };
            assert_eq!(restart, BTreeSet::from([key.to_owned()]));
            assert_ne!(now.restart_digest, accepted().restart_digest);
        }
    }

    #[test]
    fn one_refusal_refuses_all() {
        let wanted = settings(&[("max_connections", "lots"), ("innodb_io_capacity", "200")]);
        let bad = SettingVerdict::Invalid { reason: "incorrect argument type".into() };
        let answers = [answer(&[("max_connections", SettingVerdict::Dynamic)]), answer(&[("max_connections", bad)])];
        assert_eq!(
            change(&wanted, Some(&accepted()), true, &answers),
            Change::Refuse { key: Some("max_connections".into()), reason: "incorrect argument type".into() }
        );
    }

    #[test]
    fn nobody_to_ask_is_a_wait_while_mysqld_runs_and_an_accept_when_none_does() {
        let wanted = settings(&[("max_connections", "500")]);
        let silent = [Answer { instance: "shop-1".into(), answer: Err("busy".into()) }];
        assert_eq!(change(&wanted, Some(&accepted()), true, &silent), Change::Ask { reason: "shop-1: busy".into() });
        assert!(matches!(change(&wanted, Some(&accepted()), false, &[]), Change::Accept { .. }));
        assert_eq!(change(&accepted().settings, Some(&accepted()), true, &[]), Change::None);
    }
}
