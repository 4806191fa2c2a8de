//! The answers: rows of the union, one at a time, into accounts.

use std::collections::{BTreeMap, BTreeSet};

use common::crd::RoutineKind;
use common::sql::Account as Name;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Credential, Held, Snapshot};
use crate::error::{Error, Result};
use crate::mark::{KEY, Mark};
use crate::model::{Account, Limits, Login, Membership, Object, Require};
use crate::password::Hash;
use crate::privilege::Privilege;

/// Kind, user, host and four values.
pub(super) type Row = (String, String, String, String, String, String, String);

/// The row of `mysql.user`.
#[derive(Deserialize)]
struct User {
    plugin: String,
    hash: Option<String>,
    expired: String,
    locked: String,
    ssl: String,
    queries: u32,
    updates: u32,
    connections: u32,
    at_one_time: u32,
    lifetime: Option<u16>,
    changed: Option<f64>,
    attributes: Option<Attributes>,
}

/// `User_attributes`.
#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(default, rename = "Restrictions")]
    restrictions: Vec<Restriction>,
    additional_password: Option<String>,
    #[serde(default, rename = "Password_locking")]
    locking: Locking,
}

#[derive(Deserialize)]
struct Restriction {
    #[serde(rename = "Database")]
    database: String,
    #[serde(rename = "Privileges")]
    privileges: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Locking {
    #[serde(default)]
    failed_login_attempts: i64,
    #[serde(default)]
    password_lock_time_days: i64,
}

/// Puts the rows together. Accounts that no MySQLUser could have made (anonymous, odd hosts) are passed over.
pub(super) fn snapshot(rows: Vec<Row>) -> Result<Snapshot> {
    let (mut at, mut accounts) = (None, BTreeMap::<Name, Held>::new());
    // Rows of one kind come together, but the order of the kinds is nobody's promise: accounts first.
    let (first, rest): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|(kind, ..)| matches!(kind.as_str(), "server" | "user"));
    for (kind, user, host, a, b, ..) in first {
        if kind == "server" {
            at = Some(second(a.parse().ok())?);
            if b != "1" {
                return Err(Error::Patterns);
            }
        } else if let Ok(name) = Name::new(user, host) {
            accounts.insert(name.clone(), held(name, &a, &b)?);
        }
    }
    for (kind, user, host, a, b, c, d) in rest {
        let Ok(name) = Name::new(user, host) else { continue };
        // Rights of nobody: a grant table that was edited by hand.
        let Some(held) = accounts.get_mut(&name) else { continue };
        right(&mut held.account, &kind, [a, b, c, d])?;
    }
    for held in accounts.values_mut() {
        held.account.normalise();
    }
    let at = at.ok_or_else(|| Error::Held("the server did not tell the time".to_owned()))?;
    Ok(Snapshot { at, accounts })
}

fn second(second: Option<f64>) -> Result<Timestamp> {
    // Whole seconds of this century: no bits are lost.
    #[allow(clippy::cast_possible_truncation)]
    let second = second.map(|second| second as i64);
    let at = second.and_then(|second| Timestamp::from_second(second).ok());
    at.ok_or_else(|| Error::Held("a point in time is none".to_owned()))
}

fn held(name: Name, json: &str, global: &str) -> Result<Held> {
    let user: User =
        serde_json::from_str(json).map_err(|error| Error::Held(format!("the row of {name} in mysql.user: {error}")))?;
    let attributes = user.attributes.unwrap_or_default();
    let primary = hex::decode(user.hash.unwrap_or_default())
        .map_err(|_| Error::Held(format!("the authentication_string of {name}")))?;
    let login = Login {
        require: match user.ssl.as_str() {
            "" => Require::None,
            "ANY" => Require::Tls,
            "X509" => Require::X509,
            _ => Require::Specified,
        },
        limits: Limits {
            queries: user.queries,
            updates: user.updates,
            connections: user.connections,
            user_connections: user.at_one_time,
        },
        locked: user.locked == "Y",
        lifetime: user.lifetime,
        attempts: (attributes.locking.failed_login_attempts, attributes.locking.password_lock_time_days),
    };
    let mut account = Account::new(name, login);
    account.privileges.insert(Object::Global, privileges(global)?);
    for Restriction { database, privileges } in attributes.restrictions {
        account.revokes.insert(database, self::privileges(&privileges.join(","))?);
    }
    // A mark that cannot be read is nobody's.
    let mark: Option<Mark> = attributes.metadata.get(KEY).and_then(|mark| serde_json::from_value(mark.clone()).ok());
    let credential = Credential {
        plugin: user.plugin,
        expired: user.expired == "Y",
        primary: Hash::held(primary),
        secondary: attributes.additional_password.map(|hash| Hash::held(hash.into_bytes())),
        changed_at: user.changed.map(|changed| second(Some(changed))).transpose()?,
    };
    Ok(Held { account, mark, credential })
}

fn privileges(list: &str) -> Result<BTreeSet<Privilege>> {
    let each = list.split(',').filter(|name| !name.is_empty());
    each.map(|name| Privilege::new(name).ok_or_else(|| Error::Held(format!("the privilege {name:?}")))).collect()
}

fn right(account: &mut Account, kind: &str, [a, b, c, d]: [String; 4]) -> Result<()> {
    let mut add = |object: Object, list: &str| {
        account.privileges.entry(object).or_default().extend(privileges(list)?);
        Ok(())
    };
    match kind {
        "dynamic" => {
            add(Object::Global, &a)?;
            if b == "Y" {
                account.passes_on.extend(privileges(&a)?);
            }
            Ok(())
        }
        "schema" => add(Object::Schema(a), &b),
        "table" => add(Object::Table(a, b), &c),
        "column" => add(Object::Column(a, b, c), &d),
        "routine" => {
            let kind = match c.as_str() {
                "PROCEDURE" => RoutineKind::Procedure,
                "FUNCTION" => RoutineKind::Function,
                "LIBRARY" => RoutineKind::Library,
                other => return Err(Error::Held(format!("the kind of routine {other:?}"))),
            };
            add(Object::Routine(kind, a, b.to_lowercase()), &d)
        }
        "role" => {
            match Name::new(a.as_str(), b.as_str()) {
                Ok(role) => drop(account.roles.insert(role, Membership { admin: c == "Y" })),
                Err(_) => drop(account.strange.insert(format!("the role {a}@{b}"))),
            }
            Ok(())
        }
        "default" => {
            // One that cannot be named is strange as a role already.
            account.default_roles.extend(Name::new(a, b));
            Ok(())
        }
        "proxy" => {
            account.strange.insert(format!("PROXY for {a}@{b}"));
            Ok(())
        }
        other => Err(Error::Held(format!("a row of the kind {other:?}"))),
    }
}
