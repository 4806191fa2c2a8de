//! One account as data: what is wanted and what a server holds in the same shape, so that comparing them is `==`.
//!
//! Normalised: privileges are sets keyed by the object they hold for, a column's privilege that the table's includes is
//! left out and so is a schema's that `*.*` includes (revoking it would revoke a part of `*.*`), hosts and names of
//! routines are lower case (the server does not tell their cases apart), nothing empty is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use common::crd::{RequiredTransport, RoutineKind};
use common::sql::{Account as Name, Identifier, SqlError};

use crate::privilege::{Level, Privilege};

/// Schema of the grant tables.
pub const SYSTEM_SCHEMA: &str = "mysql";

/// What privileges are held for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// `*.*`.
    Global,
    /// A schema, by its literal name: with `partial_revokes=ON`, which Pelorus sets, `%` and `_` are no wildcards.
    Schema(String),
    /// Schema, table.
    Table(String, String),
    /// Schema, table, column.
    Column(String, String, String),
    /// Kind, schema, name.
    Routine(RoutineKind, String, String),
}

impl Object {
    /// What kind of object it is.
    pub fn level(&self) -> Level {
        match self {
            Self::Global => Level::Global,
            Self::Schema(_) => Level::Schema,
            Self::Table(..) => Level::Table,
            Self::Column(..) => Level::Column,
            Self::Routine(..) => Level::Routine,
        }
    }

    /// As it stands after ON; for a column its table.
    pub fn quoted(&self) -> Result<String, SqlError> {
        let of = |schema: &str, name: &str| {
            Ok::<_, SqlError>(format!("{}.{}", Identifier::new(schema)?.quoted(), Identifier::new(name)?.quoted()))
        };
        match self {
            Self::Global => Ok("*.*".to_owned()),
            Self::Schema(schema) => Ok(format!("{}.*", Identifier::new(schema.as_str())?.quoted())),
            Self::Table(schema, table) | Self::Column(schema, table, _) => of(schema, table),
            Self::Routine(kind, schema, name) => Ok(format!("{} {}", word(*kind), of(schema, name)?)),
        }
    }
}

/// The word that GRANT has for it.
fn word(kind: RoutineKind) -> &'static str {
    match kind {
        RoutineKind::Procedure => "PROCEDURE",
        RoutineKind::Function => "FUNCTION",
        RoutineKind::Library => "LIBRARY",
    }
}

/// For people.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("*.*"),
            Self::Schema(schema) => write!(f, "{schema}.*"),
            Self::Table(schema, table) => write!(f, "{schema}.{table}"),
            Self::Column(schema, table, column) => write!(f, "{schema}.{table}.{column}"),
            Self::Routine(kind, schema, name) => write!(f, "{} {schema}.{name}", word(*kind).to_ascii_lowercase()),
        }
    }
}

/// Privileges by object.
pub type Privileges = BTreeMap<Object, BTreeSet<Privilege>>;

/// What a connection must bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Require {
    /// Nothing.
    None,
    /// TLS.
    Tls,
    /// TLS and a client certificate.
    X509,
    /// A certain cipher, issuer or subject: never wanted, may be held.
    Specified,
}

impl From<RequiredTransport> for Require {
    fn from(required: RequiredTransport) -> Self {
        match required {
            RequiredTransport::None => Self::None,
            RequiredTransport::TLS => Self::Tls,
            RequiredTransport::X509 => Self::X509,
        }
    }
}

/// Limits on use; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Queries in an hour.
    pub queries: u32,
    /// Changing statements in an hour.
    pub updates: u32,
    /// Connections in an hour.
    pub connections: u32,
    /// Connections at one time.
    pub user_connections: u32,
}

/// How an account logs in; everything that ALTER USER sets but the password and its plugin, which [`crate::rotate`] keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Transport.
    pub require: Require,
    /// Limits.
    pub limits: Limits,
    /// No login at all.
    pub locked: bool,
    /// Days until the password expires: 0 never, none the server's default.
    pub lifetime: Option<u16>,
    /// Failed attempts until the account is locked, and for how many days (-1: for ever).
    pub attempts: (i64, i64),
}

/// A role that is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// May be passed on.
    pub admin: bool,
}

/// One account of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User and host.
    pub name: Name,
    /// How it logs in.
    pub login: Login,
    /// Static privileges, and dynamic ones on [`Object::Global`].
    pub privileges: Privileges,
    /// Dynamic privileges that it may pass on.
    pub passes_on: BTreeSet<Privilege>,
    /// Privileges of `*.*` that do not hold in a schema.
    pub revokes: BTreeMap<String, BTreeSet<Privilege>>,
    /// Roles that were granted to it.
    pub roles: BTreeMap<Name, Membership>,
    /// Roles that are active at login.
    pub default_roles: BTreeSet<Name>,
    /// Rights that no statement of ours takes away (proxies, roles with odd names), for people: never wanted.
    pub strange: BTreeSet<String>,
}

impl Account {
    /// An account without any right.
    pub fn new(name: Name, login: Login) -> Self {
        Self {
            name,
            login,
            privileges: Privileges::new(),
            passes_on: BTreeSet::new(),
            revokes: BTreeMap::new(),
            roles: BTreeMap::new(),
            default_roles: BTreeSet::new(),
            strange: BTreeSet::new(),
        }
    }

    /// Puts it into the form that is compared.
    pub(crate) fn normalise(&mut self) {
        let tables: Privileges = self
            .privileges
            .iter()
            .filter(|(object, _)| object.level() == Level::Table)
            .map(|(object, held)| (object.clone(), held.clone()))
            .collect();
        let global = self.held(&Object::Global);
        for (object, held) in &mut self.privileges {
            match object {
                Object::Column(schema, table, _) => {
                    if let Some(whole) = tables.get(&Object::Table(schema.clone(), table.clone())) {
                        held.retain(|privilege| !whole.contains(privilege));
                    }
                }
                Object::Schema(schema) => {
                    let revoked = self.revokes.get(schema);
                    let is_revoked = |privilege: &Privilege| revoked.is_some_and(|revoked| revoked.contains(privilege));
                    // GRANT OPTION of a schema is about what is held for the schema.
                    let covers = |privilege: &Privilege| {
                        privilege.as_str() != Privilege::GRANT_OPTION
                            && global.contains(privilege)
                            && !is_revoked(privilege)
                    };
                    held.retain(|privilege| !covers(privilege));
                }
                Object::Global | Object::Table(..) | Object::Routine(..) => {}
            }
        }
        self.privileges.retain(|_, held| !held.is_empty());
        self.revokes.retain(|_, held| !held.is_empty());
    }

    /// Privileges of an object; none when there are none.
    pub fn held(&self, object: &Object) -> BTreeSet<Privilege> {
        self.privileges.get(object).cloned().unwrap_or_default()
    }
}
