//! Whose account it is: the mark that Pelorus leaves in an account's attributes, and what follows from it.
//!
//! `ALTER USER … ATTRIBUTE '{"pelorus": {…}}'` merges, so attributes of others stay. The mark travels with the account
//! into replicas, dumps and copies: one that names another cluster was restored, and belongs to the object of the same
//! name in the new cluster.

use std::cmp::Reverse;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Key in the attributes of an account.
pub const KEY: &str = "pelorus";

/// Who made an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// uid of the MySQLCluster.
    pub cluster: String,
    /// uid of the MySQLUser.
    pub uid: String,
    /// `namespace/name` of the MySQLUser, for people and after a restore.
    pub object: String,
}

impl Mark {
    /// Value of ATTRIBUTE.
    pub fn attribute(&self) -> String {
        serde_json::json!({ KEY: self }).to_string()
    }

    /// Value of ATTRIBUTE that takes a mark away.
    pub fn none() -> String {
        serde_json::json!({ KEY: null }).to_string()
    }
}

/// What may be done with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is none: make it.
    Create,
    /// It bears the mark.
    Ours,
    /// Take it over, and say why.
    Adopt(Adoption),
    /// Leave it alone, and say why.
    Conflict(Conflict),
}

/// Why an account is taken over that does not bear the mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Adoption {
    /// The spec says so.
    #[error("it existed, and spec.adopt is set")]
    Asked,
    /// It came with the data of another cluster, or of this one before.
    #[error("it was restored with the data of another cluster, where it belonged to {0}")]
    Restored(String),
    /// Its object is gone, and this one has its name.
    #[error("the MySQLUser {0} that made it is gone, and this one has its name")]
    Recreated(String),
}

/// Why an account is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Nobody marked it.
    #[error("it exists and was not made by Pelorus: set spec.adopt to take it over")]
    Foreign,
    /// Another object has it.
    #[error("it belongs to the MySQLUser {0}")]
    Other(String),
}

/// Decides about one account. `exists`: none, or what mark it bears. `lives`: whether a MySQLUser with this uid is there.
pub fn claim(ours: &Mark, exists: Option<Option<&Mark>>, adopt: bool, lives: impl Fn(&str) -> bool) -> Claim {
    let mark = match exists {
        None => return Claim::Create,
        Some(None) if adopt => return Claim::Adopt(Adoption::Asked),
        Some(None) => return Claim::Conflict(Conflict::Foreign),
        Some(Some(mark)) => mark,
    };
    if mark.cluster != ours.cluster {
        return Claim::Adopt(Adoption::Restored(mark.object.clone()));
    }
    if mark.uid == ours.uid {
        return Claim::Ours;
    }
    if lives(&mark.uid) {
        return Claim::Conflict(Conflict::Other(mark.object.clone()));
    }
    match (mark.object == ours.object, adopt) {
        (true, _) => Claim::Adopt(Adoption::Recreated(mark.object.clone())),
        (false, true) => Claim::Adopt(Adoption::Asked),
        (false, false) => Claim::Conflict(Conflict::Other(mark.object.clone())),
    }
}

/// One of several objects that declare the same account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// uid of the object.
    pub uid: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The uid of the one that has the account: the oldest; of objects of one second that with the smallest uid.
pub fn oldest(rivals: &[Rival]) -> Option<&str> {
    let oldest = rivals.iter().max_by_key(|rival| Reverse((rival.created_at, rival.uid.as_str())));
    oldest.map(|rival| rival.uid.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::indexing_slicing)]

    use super::*;

    fn mark(cluster: &str, uid: &str, object: &str) -> Mark {
        Mark { cluster: cluster.to_owned(), uid: uid.to_owned(), object: object.to_owned() }
    }

    #[test]
    fn accounts_of_others_are_left_alone() {
        let ours = mark("c1", "u1", "ns/app");
        let other = |object: &str| Claim::Conflict(Conflict::Other(object.to_owned()));
        let adopt = Claim::Adopt;
        for (exists, asked, alive, wanted) in [
            (None, false, &[][..], Claim::Create),
            (None, true, &[], Claim::Create),
            (Some(None), false, &[], Claim::Conflict(Conflict::Foreign)),
            (Some(None), true, &[], adopt(Adoption::Asked)),
            (Some(Some(mark("c1", "u1", "ns/app"))), false, &["u1"], Claim::Ours),
            (Some(Some(mark("c1", "u2", "ns/old"))), false, &["u2"], other("ns/old")),
            // Not even when asked: two objects would fight about it for ever.
            (Some(Some(mark("c1", "u2", "ns/old"))), true, &["u2"], other("ns/old")),
            (Some(Some(mark("c1", "u2", "ns/old"))), false, &[], other("ns/old")),
            (Some(Some(mark("c1", "u2", "ns/old"))), true, &[], adopt(Adoption::Asked)),
            (Some(Some(mark("c1", "u2", "ns/app"))), false, &[], adopt(Adoption::Recreated("ns/app".to_owned()))),
            (Some(Some(mark("c0", "u9", "ns/app"))), false, &["u9"], adopt(Adoption::Restored("ns/app".to_owned()))),
        ] {
            let lives = |uid: &str| alive.contains(&uid);
            assert_eq!(claim(&ours, exists.as_ref().map(Option::as_ref), asked, lives), wanted, "{exists:?} {asked}");
        }
    }

    #[test]
    fn the_older_object_wins() {
        let rival = |uid: &str, at: i64| Rival { uid: uid.to_owned(), created_at: Timestamp::from_second(at).unwrap() };
        assert_eq!(oldest(&[]), None);
        assert_eq!(oldest(&[rival("b", 5), rival("a", 7)]), Some("b"));
        assert_eq!(oldest(&[rival("b", 5), rival("a", 5), rival("c", 5)]), Some("a"));
    }

    #[test]
    fn a_mark_reads_back() {
        let ours = mark("c1", "u1", "ns/it's \\ \"x\"");
        let value: serde_json::Value = serde_json::from_str(&ours.attribute()).unwrap();
        assert_eq!(serde_json::from_value::<Mark>(value[KEY].clone()).unwrap(), ours);
    }
}
