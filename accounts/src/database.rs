//! Schemas: what a MySQLDatabase declares, and the statement that makes it so.
//!
//! A schema has no room for a mark, and nothing of its data is touched but by DROP: so one that exists is taken as it
//! is, and only the defaults for new tables are changed. Existing tables keep their character sets.

use std::time::Duration;

use common::crd::{MySQLDatabaseSpec, OnDelete};
use common::mysql::Session;
use common::sql::{Identifier, SqlError, quote_str};

use crate::error::Result;
use crate::wanted::RESERVED_SCHEMAS;

/// Longest wait for an answer about a schema.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// A schema as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: Identifier,
    /// Default character set.
    pub character_set: Word,
    /// Default collation; none: the character set's own.
    pub collation: Option<Word>,
    /// What becomes of it with the object.
    pub on_delete: OnDelete,
}

/// Name of a character set or collation: goes into SQL as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    fn new(text: &str) -> Option<Self> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        plain.then(|| Self(text.to_owned()))
    }
}

/// Why there is no such schema to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No name of a schema.
    #[error("spec.name: {0}")]
    Name(#[from] SqlError),
    /// Of the server or of Pelorus.
    #[error("spec.name: {0} belongs to MySQL and Pelorus")]
    Reserved(String),
    /// No name of a character set.
    #[error("spec.characterSet: {0:?} is no name of a character set")]
    CharacterSet(String),
    /// No name of a collation of this character set.
    #[error("spec.collation: {0:?} is no collation of the character set {1}")]
    Collation(String, String),
}

/// Normalises the spec of the object with this name.
///
/// # Errors
/// The first field that cannot be as it is.
pub fn wanted(object: &str, spec: &MySQLDatabaseSpec) -> std::result::Result<Database, Refusal> {
    let name = Identifier::new(spec.name.as_deref().unwrap_or(object))?;
    if RESERVED_SCHEMAS.contains(&name.as_str().to_lowercase().as_str()) {
        return Err(Refusal::Reserved(name.into()));
    }
    let character_set =
        Word::new(&spec.character_set).ok_or_else(|| Refusal::CharacterSet(spec.character_set.clone()))?;
    let collation = spec.collation.as_ref().map(|text| {
        let belongs = text == &character_set.0 || text.starts_with(&format!("{}_", character_set.0));
        Word::new(text).filter(|_| belongs).ok_or_else(|| Refusal::Collation(text.clone(), character_set.0.clone()))
    });
    Ok(Database { name, character_set, collation: collation.transpose()?, on_delete: spec.on_delete })
}

/// A schema as a server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Default character set.
    pub character_set: String,
    /// Default collation.
    pub collation: String,
    /// Whether that is the character set's own.
    pub is_default: bool,
}

/// Reads a schema; none when there is none.
///
/// # Errors
/// The server's.
pub async fn read(session: &mut Session, name: &Identifier) -> Result<Option<Held>> {
    // The data dictionary tells cases apart as the file system does; its names compare without.
    let sql = format!(
        "SELECT s.DEFAULT_CHARACTER_SET_NAME, s.DEFAULT_COLLATION_NAME, c.IS_DEFAULT='Yes' FROM \
         information_schema.SCHEMATA s JOIN information_schema.COLLATIONS c ON c.COLLATION_NAME=s.DEFAULT_COLLATION_NAME \
         WHERE BINARY s.SCHEMA_NAME = BINARY {}",
        quote_str(name.as_str(), false)
    );
    let row: Option<(String, String, bool)> = session.first(&sql, READ_WITHIN).await?;
    Ok(row.map(|(character_set, collation, is_default)| Held { character_set, collation, is_default }))
}

/// What makes it so; none when it is.
pub fn plan(wanted: &Database, held: Option<&Held>) -> Option<String> {
    let verb = match held {
        None => "CREATE DATABASE",
        Some(held) if is_as_wanted(wanted, held) => return None,
        Some(_) => "ALTER DATABASE",
    };
    let collation = wanted.collation.as_ref().map(|word| format!(" COLLATE {}", word.0)).unwrap_or_default();
    Some(format!("{verb} {} CHARACTER SET {}{collation}", wanted.name.quoted(), wanted.character_set.0))
}

fn is_as_wanted(wanted: &Database, held: &Held) -> bool {
    held.character_set == wanted.character_set.0
        && wanted.collation.as_ref().map_or(held.is_default, |word| held.collation == word.0)
}

/// What is done when the object is deleted.
pub fn farewell(wanted: &Database) -> Option<String> {
    match wanted.on_delete {
        OnDelete::Drop => Some(format!("DROP DATABASE IF EXISTS {}", wanted.name.quoted())),
        OnDelete::Keep => None,
    }
}

/// Reads, executes what differs, and reads back: whether it is as it should be.
///
/// # Errors
/// The server's.
pub async fn apply(session: &mut Session, wanted: &Database, within: Duration) -> Result<bool> {
    let held = read(session, &wanted.name).await?;
    let Some(sql) = plan(wanted, held.as_ref()) else { return Ok(true) };
    session.exec(&sql, within).await?;
    Ok(read(session, &wanted.name).await?.is_some_and(|held| is_as_wanted(wanted, &held)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::indexing_slicing)]

    use super::*;

    fn spec(json: serde_json::Value) -> MySQLDatabaseSpec {
        let mut all = serde_json::json!({"clusterRef": {"name": "shop"}});
        all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn schemas_are_made_changed_and_left() {
        let held = |character_set: &str, collation: &str, is_default| Held {
            character_set: character_set.to_owned(),
            collation: collation.to_owned(),
            is_default,
        };
        let own = held("utf8mb4", "utf8mb4_0900_ai_ci", true);
        let binary = held("utf8mb4", "utf8mb4_bin", false);
        let plain = spec(serde_json::json!({}));
        let collated = spec(serde_json::json!({"collation": "utf8mb4_bin"}));
        for (spec, held, planned) in [
            (&plain, None, Some("CREATE DATABASE `a``b` CHARACTER SET utf8mb4")),
            (&collated, None, Some("CREATE DATABASE `a``b` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")),
            (&plain, Some(&own), None),
            (&plain, Some(&binary), Some("ALTER DATABASE `a``b` CHARACTER SET utf8mb4")),
            (&collated, Some(&binary), None),
            (&collated, Some(&own), Some("ALTER DATABASE `a``b` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")),
        ] {
            assert_eq!(plan(&wanted("a`b", spec).unwrap(), held).as_deref(), planned, "{spec:?} {held:?}");
        }
    }

    #[test]
    fn schemas_of_others_are_refused() {
        for name in ["mysql", "MySQL", "sys", "information_schema", "performance_schema", "pelorus", "", "x ", "a\0b"] {
            assert!(wanted(name, &spec(serde_json::json!({}))).is_err(), "{name:?}");
        }
        for json in [
            serde_json::json!({"characterSet": "utf8mb4 COLLATE x"}),
            serde_json::json!({"collation": "latin1_bin"}),
            serde_json::json!({"collation": "utf8mb4_bin; DROP"}),
        ] {
            assert!(wanted("shop", &spec(json.clone())).is_err(), "{json}");
        }
    }

    #[test]
    fn data_stays_unless_it_is_said_to_go() {
        let of = |json| farewell(&wanted("shop", &spec(json)).unwrap());
        assert_eq!(of(serde_json::json!({})), None);
        assert_eq!(of(serde_json::json!({"onDelete": "Drop"})).as_deref(), Some("DROP DATABASE IF EXISTS `shop`"));
    }
}
