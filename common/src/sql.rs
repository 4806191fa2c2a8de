//! The only place where SQL text is made from values.
//!
//! Names go through [`Identifier`], accounts through [`Account`], text through [`quote_str`] or, where the `sql_mode` is
//! not known, [`quote_str_any_mode`]. MySQL takes no placeholders in CREATE USER, GRANT, CHANGE REPLICATION SOURCE and
//! KILL, so binding values is no way out.
//!
//! Two things decide what a literal means: `NO_BACKSLASH_ESCAPES` (a backslash is an escape or itself) and the character
//! set of the connection (always utf8mb4 here: in GBK a quote can hide behind a backslash). Sessions of
//! [`crate::mysql`] have both fixed, see [`crate::mysql::SQL_MODE`]: pass `false` for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest identifier in characters: that of databases, tables and columns.
pub const IDENTIFIER_LENGTH_MAX: usize = 64;
/// Longest user name in characters.
pub const USER_LENGTH_MAX: usize = 32;
/// Longest host part of an account in characters.
pub const HOST_LENGTH_MAX: usize = 255;

/// Why a value has no place in SQL. Never holds the value of a literal: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// No identifier, or no part of an account.
    #[error("{kind} {text:?} is not valid: {reason}")]
    Name {
        /// What it should have been: identifier, user name or host.
        kind: &'static str,
        /// The offending text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A backslash in text that has to mean the same in every `sql_mode`.
    #[error("the text holds a backslash, whose meaning depends on the sql_mode")]
    Backslash,
}

/// Checks what MySQL asks of every quoted name, and the length.
fn name(kind: &'static str, text: String, longest: usize) -> Result<String, SqlError> {
    let reason = if text.is_empty() {
        "it is empty"
    } else if text.chars().count() > longest {
        "it is too long"
    } else if text.contains('\0') {
        "it holds a NUL character"
    } else if text.chars().any(|c| c > '\u{ffff}') {
        "it holds a character outside of the basic multilingual plane"
    } else if text.ends_with(char::is_whitespace) {
        "it ends with a space"
    } else {
        return Ok(text);
    };
    Err(SqlError::Name { kind, text, reason })
}

/// Backticks around a name; the same in every `sql_mode`.
fn backticked(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Name of a database, table, column, user-defined role and the like: 1 to 64 characters of the basic multilingual
/// plane, no NUL, no space at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identifier(String);

impl Identifier {
    /// Refuses what MySQL refuses.
    pub fn new(text: impl Into<String>) -> Result<Self, SqlError> {
        name("identifier", text.into(), IDENTIFIER_LENGTH_MAX).map(Self)
    }

    /// The name as it is, for people and comparisons. Not for SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in backticks, for SQL.
    pub fn quoted(&self) -> String {
        backticked(&self.0)
    }
}

impl FromStr for Identifier {
    type Err = SqlError;

    fn from_str(text: &str) -> Result<Self, SqlError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Identifier {
    type Error = SqlError;

    fn try_from(text: String) -> Result<Self, SqlError> {
        Self::new(text)
    }
}

impl From<Identifier> for String {
    fn from(identifier: Identifier) -> Self {
        identifier.0
    }
}

/// A MySQL account: user name and host pattern. Anonymous accounts have no place here, nor have names that the server
/// would change: it cuts spaces at the start when the account is made, and quotes around the name when it logs in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    user: String,
    host: String,
}

impl Account {
    /// Refuses names that MySQL refuses, and an empty user name.
    pub fn new(user: impl Into<String>, host: impl Into<String>) -> Result<Self, SqlError> {
        let user = name("user name", user.into(), USER_LENGTH_MAX)?;
        if user.starts_with(char::is_whitespace) || (user.starts_with('\'') && user.ends_with('\'')) {
            return Err(SqlError::Name {
                kind: "user name",
                text: user,
                reason: "it starts with a space or is quoted",
            });
        }
        let host = name("host", host.into(), HOST_LENGTH_MAX)?;
        if host.chars().any(|c| !c.is_ascii_graphic() || c == '@') {
            return Err(SqlError::Name {
                kind: "host",
                text: host,
                reason: "it holds a character no host pattern has",
            });
        }
        Ok(Self { user, host })
    }

    /// The account that may come from anywhere (`%`).
    pub fn anywhere(user: impl Into<String>) -> Result<Self, SqlError> {
        Self::new(user, "%")
    }

    /// User name, not for SQL.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Host pattern, not for SQL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// For SQL: both parts in backticks, which MySQL takes wherever an account stands and which mean the same in every
    /// `sql_mode`, as string literals do not.
    pub fn quoted(&self) -> String {
        format!("{}@{}", backticked(&self.user), backticked(&self.host))
    }
}

/// For people.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// A string literal for a session whose `sql_mode` is known.
pub fn quote_str(text: &str, no_backslash_escapes: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if c == '\'' || (c == '\\' && !no_backslash_escapes) {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

/// A string literal that means the same in every `sql_mode`, for what is not run by a session of ours (an init file).
pub fn quote_str_any_mode(text: &str) -> Result<String, SqlError> {
    if text.contains('\\') { Err(SqlError::Backslash) } else { Ok(quote_str(text, true)) }
}

/// Text as a hexadecimal literal that means the same in every `sql_mode`. Only in expressions: statements on accounts
/// and replication take string literals alone.
pub fn quote_hex(text: &str) -> String {
    format!("_utf8mb4 x'{}'", hex::encode(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Reads a literal as MySQL's lexer does; nothing when it does not end exactly at the end of the text.
    fn read(literal: &str, quote: char, backslash_escapes: bool) -> Option<String> {
        let mut chars = literal.strip_prefix(quote)?.chars();
        let mut out = String::new();
        loop {
            match chars.next()? {
                '\\' if backslash_escapes => out.push(chars.next()?),
                c if c == quote => match chars.next() {
                    None => return Some(out),
                    Some(c) if c == quote => out.push(c),
                    Some(_) => return None,
                },
                c => out.push(c),
            }
        }
    }

    proptest! {
        #[test]
        fn literals_read_back_in_their_mode(text in r"([\\'`\x00]|.){0,40}") {
            prop_assert_eq!(read(&quote_str(&text, false), '\'', true), Some(text.clone()));
            prop_assert_eq!(read(&quote_str(&text, true), '\'', false), Some(text.clone()));
            match quote_str_any_mode(&text) {
                Ok(literal) => for backslash_escapes in [true, false] {
                    prop_assert_eq!(read(&literal, '\'', backslash_escapes), Some(text.clone()));
                },
                Err(error) => prop_assert!(text.contains('\\') && error == SqlError::Backslash),
            }
        }

        #[test]
        fn identifiers_read_back(text in r"([\\'`]|.){0,70}") {
            if let Ok(identifier) = Identifier::new(text.clone()) {
                prop_assert_eq!(read(&identifier.quoted(), '`', false), Some(text));
            }
        }
    }

    #[test]
    fn names_that_mysql_refuses_are_refused() {
        for text in ["", "a\0b", "ends ", "\u{1f42c}", &"x".repeat(65)] {
            assert!(Identifier::new(text).is_err(), "{text:?}");
        }
        assert_eq!(Identifier::new("x".repeat(64)).unwrap().as_str().len(), 64);
        assert_eq!(Identifier::new("we`ird").unwrap().quoted(), "`we``ird`");
        assert!(serde_json::from_str::<Identifier>("\"\"").is_err());
        assert!(Account::new("x".repeat(33), "%").is_err());
        assert!(Account::new("", "%").is_err());
        assert!(Account::new(" x", "%").is_err());
        assert!(Account::new("'x'", "%").is_err());
        assert!(Account::new("x", "a b").is_err());
        assert!(Account::new("x", "a@b").is_err());
        assert_eq!(Account::anywhere("o'b`rien").unwrap().quoted(), "`o'b``rien`@`%`");
    }
}
