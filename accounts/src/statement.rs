//! Account statements as data, and the only text that is made of them.
//!
//! One statement takes several accounts, so the hosts of a user cost no more statements than one. Each can be repeated.
//! What is shown of a statement in logs and errors has no hash in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use common::sql::{Account as Name, Identifier, SqlError, quote_str};

use crate::model::{Limits, Login, Object, Require};
use crate::password::Hash;
use crate::privilege::Privilege;

/// Privileges with the columns that they are limited to; none: all.
pub type Privileges = BTreeMap<Privilege, BTreeSet<String>>;

/// What is done to each account of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// CREATE USER.
    Create {
        /// How it logs in.
        login: Login,
        /// The mark.
        attribute: String,
    },
    /// ALTER USER, but for passwords.
    Alter {
        /// How it logs in.
        login: Option<Login>,
        /// The mark.
        attribute: Option<String>,
    },
    /// GRANT of privileges.
    Grant {
        /// On what; never a column.
        on: Object,
        /// Which.
        privileges: Privileges,
        /// May be passed on.
        passes_on: bool,
    },
    /// REVOKE of privileges.
    Revoke {
        /// On what; never a column.
        on: Object,
        /// Which.
        privileges: Privileges,
    },
    /// GRANT of roles.
    GrantRoles(BTreeSet<Name>),
    /// REVOKE of roles.
    RevokeRoles(BTreeSet<Name>),
    /// SET DEFAULT ROLE.
    DefaultRoles(BTreeSet<Name>),
    /// DROP USER.
    Drop,
}

/// What becomes of the password of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new one; the one before stays valid, as the second.
    Retain(Hash),
    /// A new one instead of the first; the second stays as it is.
    Replace(Hash),
    /// The second is not valid any more.
    Discard,
}

/// One statement.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    accounts: Vec<Name>,
    sql: String,
    shown: String,
}

impl Statement {
    /// What is done to these accounts. `hashes`: of CREATE USER, by account; accounts without have no password.
    ///
    /// # Errors
    /// Names of objects that cannot go into SQL.
    pub fn new(action: &Action, accounts: Vec<Name>, hashes: &BTreeMap<Name, Hash>) -> Result<Self, SqlError> {
        let sql = text(action, &accounts, &|name| hashes.get(name).map(Hash::literal))?;
        let shown = text(action, &accounts, &|name| hashes.get(name).map(|_| HIDDEN.to_owned()))?;
        Ok(Self { accounts, sql, shown })
    }

    /// Changes of passwords, all in one statement: all of them happen, or none.
    pub fn passwords(changes: &BTreeMap<Name, Change>) -> Self {
        let render = |literal: &dyn Fn(&Hash) -> String| {
            let each = changes.iter().map(|(name, change)| format!("{} {}", name.quoted(), clause(change, literal)));
            format!("ALTER USER {}", each.collect::<Vec<_>>().join(", "))
        };
        Self {
            accounts: changes.keys().cloned().collect(),
            sql: render(&Hash::literal),
            shown: render(&|_| HIDDEN.to_owned()),
        }
    }

    /// Whom it is about.
    pub fn accounts(&self) -> &[Name] {
        &self.accounts
    }

    /// Whether what comes after it rests on it.
    pub(crate) fn makes_or_drops(&self) -> bool {
        self.sql.starts_with("CREATE USER") || self.sql.starts_with("DROP USER")
    }

    /// For the server.
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }
}

/// Stands where a hash was.
const HIDDEN: &str = "0x[hash]";

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn clause(change: &Change, literal: &dyn Fn(&Hash) -> String) -> String {
    match change {
        Change::Retain(hash) => format!("{} RETAIN CURRENT PASSWORD", identified(&literal(hash))),
        Change::Replace(hash) => identified(&literal(hash)),
        Change::Discard => "DISCARD OLD PASSWORD".to_owned(),
    }
}

fn identified(literal: &str) -> String {
    format!("IDENTIFIED WITH caching_sha2_password AS {literal}")
}

fn text(action: &Action, accounts: &[Name], hash: &dyn Fn(&Name) -> Option<String>) -> Result<String, SqlError> {
    let names = list(accounts);
    Ok(match action {
        Action::Create { login, attribute } => {
            let each = accounts.iter().map(|name| match hash(name) {
                Some(hash) => format!("{} {}", name.quoted(), identified(&hash)),
                None => format!("{} IDENTIFIED WITH caching_sha2_password", name.quoted()),
            });
            let each = each.collect::<Vec<_>>().join(", ");
            format!("CREATE USER {each}{} ATTRIBUTE {}", options(login), quote_str(attribute, false))
        }
        Action::Alter { login, attribute } => {
            let options = login.as_ref().map(options).unwrap_or_default();
            let attribute = attribute.as_ref().map(|text| format!(" ATTRIBUTE {}", quote_str(text, false)));
            format!("ALTER USER {names}{options}{}", attribute.unwrap_or_default())
        }
        Action::Grant { on, privileges, passes_on } => {
            let option = if *passes_on { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {} ON {} TO {names}{option}", listed(privileges)?, on.quoted()?)
        }
        Action::Revoke { on, privileges } => {
            format!("REVOKE IF EXISTS {} ON {} FROM {names}", listed(privileges)?, on.quoted()?)
        }
        Action::GrantRoles(roles) => format!("GRANT {} TO {names}", list(roles)),
        Action::RevokeRoles(roles) => format!("REVOKE IF EXISTS {} FROM {names}", list(roles)),
        Action::DefaultRoles(roles) if roles.is_empty() => format!("SET DEFAULT ROLE NONE TO {names}"),
        Action::DefaultRoles(roles) => format!("SET DEFAULT ROLE {} TO {names}", list(roles)),
        Action::Drop => format!("DROP USER IF EXISTS {names}"),
    })
}

fn list<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    names.into_iter().map(Name::quoted).collect::<Vec<_>>().join(", ")
}

fn listed(privileges: &Privileges) -> Result<String, SqlError> {
    let each = privileges.iter().map(|(privilege, columns)| {
        let columns = columns.iter().map(|column| Ok(Identifier::new(column.as_str())?.quoted()));
        let columns = columns.collect::<Result<Vec<_>, SqlError>>()?;
        let of = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        Ok(format!("{privilege}{of}"))
    });
    Ok(each.collect::<Result<Vec<_>, SqlError>>()?.join(", "))
}

/// Everything of a login, said in full: what is not said would stay as it is.
fn options(login: &Login) -> String {
    let require = match login.require {
        Require::None | Require::Specified => "NONE",
        Require::Tls => "SSL",
        Require::X509 => "X509",
    };
    let Limits { queries, updates, connections, user_connections } = login.limits;
    let expire = match login.lifetime {
        None => "DEFAULT".to_owned(),
        Some(0) => "NEVER".to_owned(),
        Some(days) => format!("INTERVAL {days} DAY"),
    };
    let lock = if login.locked { "LOCK" } else { "UNLOCK" };
    let (attempts, days) = login.attempts;
    let days = if days < 0 { "UNBOUNDED".to_owned() } else { days.to_string() };
    format!(
        " REQUIRE {require} WITH MAX_QUERIES_PER_HOUR {queries} MAX_UPDATES_PER_HOUR {updates} \
         MAX_CONNECTIONS_PER_HOUR {connections} MAX_USER_CONNECTIONS {user_connections} PASSWORD EXPIRE {expire} \
         FAILED_LOGIN_ATTEMPTS {attempts} PASSWORD_LOCK_TIME {days} ACCOUNT {lock}"
    )
}
