//! From what a MySQLUser declares to the accounts that a server should hold, or all reasons why not.
//!
//! The API server has checked lengths and patterns; nothing here relies on that. Everything that a server would refuse,
//! or take and mean something else by, is refused here with the field and the reason. Names of schemas are literal:
//! `%` and `_` are no wildcards, neither here nor on a server with `partial_revokes=ON`.

use std::collections::BTreeSet;

use common::crd::{Grant, MySQLUserSpec, OnDelete, Revoke, RoutineKind};
use common::names::account;
use common::sql::{Account as Name, Identifier, SqlError};

use crate::host;
use crate::model::{Account, Limits, Login, Membership, Object, Require, SYSTEM_SCHEMA};
use crate::privilege::{self, Level, Privilege, Refusal};

/// Schemas of the server and of Pelorus, lower case.
pub const RESERVED_SCHEMAS: [&str; 5] = ["mysql", "sys", "information_schema", "performance_schema", "pelorus"];

/// A field that cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path in the object, as `spec.grants[2].privileges`.
    pub field: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why a field cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A name of no account, schema, table, column or routine.
    #[error(transparent)]
    Name(#[from] SqlError),
    /// A host that matches nobody.
    #[error("host {host:?}: {reason}")]
    Host {
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A privilege that cannot be had.
    #[error(transparent)]
    Privilege(#[from] Refusal),
    /// Belongs to the server or to Pelorus.
    #[error("{0} belongs to MySQL and Pelorus")]
    Reserved(String),
    /// No `*.*`, `schema.*` or `schema.name`.
    #[error(
        "{0:?} is neither *.* nor schema.* nor schema.name: a name with a dot, a backtick or a star goes in backticks"
    )]
    Target(String),
    /// Anything else.
    #[error("{0}")]
    Other(&'static str),
}

/// The accounts of one MySQLUser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// User name of all of them.
    pub user: String,
    /// One for each host, never empty.
    pub accounts: Vec<Account>,
    /// Whether they have a password; roles have none.
    pub login: bool,
    /// Whether accounts that exist already are taken over.
    pub adopt: bool,
    /// What becomes of them with the object.
    pub on_delete: OnDelete,
}

/// Normalises the spec of the object with this name.
///
/// # Errors
/// Every field that cannot be as it is; with a name or hosts that cannot be, those alone.
pub fn wanted(object: &str, spec: &MySQLUserSpec) -> Result<Wanted, Vec<Invalid>> {
    let mut check = Check { administration: spec.allow_administration, found: Vec::new() };
    let user = spec.name.clone().unwrap_or_else(|| object.to_owned());
    let names = check.names(&user, spec);
    let Some(any) = names.first() else { return Err(check.found) };
    let roles = check.roles("spec.roles", &spec.roles);
    let default_roles = match &spec.default_roles {
        Some(names) => check.roles("spec.defaultRoles", names),
        None => roles.clone(),
    };
    if !default_roles.is_subset(&roles) {
        check.refuse("spec.defaultRoles", Reason::Other("it names a role that is not among spec.roles"));
    }
    if roles.iter().any(|role| role.user() == user) {
        check.refuse("spec.roles", Reason::Other("an account cannot be a role of itself"));
    }
    if !spec.login && (spec.password_secret_ref.is_some() || spec.rotation.is_some()) {
        check.refuse("spec.login", Reason::Other("a role has no password"));
    }
    let mut account = Account::new(any.clone(), login(spec));
    for (index, grant) in spec.grants.iter().enumerate() {
        check.grant(&format!("spec.grants[{index}]"), grant, &mut account);
    }
    for (index, revoke) in spec.revokes.iter().enumerate() {
        check.revoke(&format!("spec.revokes[{index}]"), revoke, &mut account);
    }
    account.roles = roles.into_iter().map(|role| (role, Membership { admin: false })).collect();
    account.default_roles = default_roles;
    let global = account.held(&Object::Global);
    if global.iter().any(|privilege| privilege.as_str() == Privilege::GRANT_OPTION) {
        // The server does not give it for the static ones alone.
        account.passes_on = global.into_iter().filter(Privilege::is_dynamic).collect();
    }
    keep_from_system_schema(&mut account, spec.allow_administration);
    account.normalise();
    if !check.found.is_empty() {
        return Err(check.found);
    }
    let accounts = names.into_iter().map(|name| Account { name, ..account.clone() }).collect();
    Ok(Wanted { user, accounts, login: spec.login, adopt: spec.adopt, on_delete: spec.on_delete })
}

fn login(spec: &MySQLUserSpec) -> Login {
    Login {
        require: if spec.login { spec.require.into() } else { Require::None },
        limits: if spec.login {
            Limits {
                queries: spec.limits.max_queries_per_hour,
                updates: spec.limits.max_updates_per_hour,
                connections: spec.limits.max_connections_per_hour,
                user_connections: spec.limits.max_user_connections,
            }
        } else {
            Limits::default()
        },
        locked: spec.locked || !spec.login,
        // Passwords change by rotation, not by locking their users out.
        lifetime: Some(0),
        attempts: (0, 0),
    }
}

/// The server keeps whom `pelorus_users` grants a privilege on `*.*` from changing the grant tables. Reading them, with
/// the hashes of everybody's passwords, is administration too.
fn keep_from_system_schema(account: &mut Account, administration: bool) {
    let kept: BTreeSet<Privilege> = account
        .held(&Object::Global)
        .into_iter()
        .filter(|privilege| {
            privilege::is_kept_from_system_schema(privilege) || (!administration && privilege.as_str() == "SELECT")
        })
        .collect();
    if !kept.is_empty() {
        account.revokes.insert(SYSTEM_SCHEMA.to_owned(), kept);
    }
}

/// Whether users may not have an account of this name.
pub fn is_reserved(user: &str) -> bool {
    user == "root" || user == account::ADMIN || user.starts_with("mysql.") || user.starts_with("pelorus_")
}

/// What is on the left and the right of the dot; none for a star.
type Target = (Option<String>, Option<String>);

/// Takes `on` apart.
fn target(text: &str) -> Option<Target> {
    let (left, rest) = part(text)?;
    let (right, rest) = part(rest.strip_prefix('.')?)?;
    (rest.is_empty() && (left.is_some() || right.is_none())).then_some((left, right))
}

/// One name at the start, in backticks or up to the dot; `Some(None)` is a star.
fn part(text: &str) -> Option<(Option<String>, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let plain = !name.is_empty() && !name.contains(['`', '*']);
        return (plain || name == "*").then(|| (plain.then(|| name.to_owned()), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('`')?;
        name.push_str(before);
        match after.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((Some(name), after)),
        }
    }
}

struct Check {
    administration: bool,
    found: Vec<Invalid>,
}

impl Check {
    fn refuse(&mut self, field: impl Into<String>, reason: impl Into<Reason>) {
        self.found.push(Invalid { field: field.into(), reason: reason.into() });
    }

    fn keep<T>(&mut self, field: &str, result: Result<T, impl Into<Reason>>) -> Option<T> {
        result.map_err(|reason| self.refuse(field, reason)).ok()
    }

    fn names(&mut self, user: &str, spec: &MySQLUserSpec) -> BTreeSet<Name> {
        if is_reserved(user) {
            self.refuse("spec.name", Reason::Reserved(user.to_owned()));
        }
        if let Err(error) = Name::anywhere(user) {
            self.refuse("spec.name", error);
            return BTreeSet::new();
        }
        if spec.hosts.is_empty() {
            self.refuse("spec.hosts", Reason::Other("an account needs a host"));
        }
        if !spec.login && spec.hosts != ["%"] {
            self.refuse("spec.hosts", Reason::Other("a role has the host % only"));
        }
        let mut names = BTreeSet::new();
        for (index, text) in spec.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            let host = host::normalised(text).map_err(|reason| Reason::Host { host: text.clone(), reason });
            let name = self.keep(&field, host).and_then(|host| self.keep(&field, Name::new(user, host)));
            if name.is_some_and(|name| !names.insert(name)) {
                self.refuse(field, Reason::Other("the host is there twice"));
            }
        }
        names
    }

    fn roles(&mut self, field: &str, names: &[String]) -> BTreeSet<Name> {
        let mut roles = BTreeSet::new();
        for (index, text) in names.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if is_reserved(text) {
                self.refuse(field, Reason::Reserved(text.clone()));
            } else {
                roles.extend(self.keep(&field, Name::anywhere(text.as_str())));
            }
        }
        roles
    }

    fn identifier(&mut self, field: &str, name: &str) -> Option<String> {
        self.keep(field, Identifier::new(name)).map(String::from)
    }

    fn schema(&mut self, field: &str, name: &str) -> Option<String> {
        if RESERVED_SCHEMAS.contains(&name.to_lowercase().as_str()) {
            self.refuse(field, Reason::Reserved(name.to_owned()));
            return None;
        }
        self.identifier(field, name)
    }

    /// What a grant is for, without columns.
    fn object(&mut self, field: &str, grant: &Grant) -> Option<Object> {
        let field = format!("{field}.on");
        let Some(target) = target(&grant.on) else {
            self.refuse(field, Reason::Target(grant.on.clone()));
            return None;
        };
        match (target, grant.routine) {
            ((None, _), None) => Some(Object::Global),
            ((Some(schema), None), None) => Some(Object::Schema(self.schema(&field, &schema)?)),
            ((Some(schema), Some(table)), None) => {
                Some(Object::Table(self.schema(&field, &schema)?, self.identifier(&field, &table)?))
            }
            ((Some(schema), Some(name)), Some(kind)) => Some(self.routine(&field, kind, &schema, &name)?),
            ((_, None), Some(_)) => {
                self.refuse(field, Reason::Other("a routine is schema.name"));
                None
            }
            ((None, Some(_)), Some(_)) => None,
        }
    }

    fn routine(&mut self, field: &str, kind: RoutineKind, schema: &str, name: &str) -> Option<Object> {
        Some(Object::Routine(kind, self.schema(field, schema)?, self.identifier(field, name)?.to_lowercase()))
    }

    fn grant(&mut self, field: &str, grant: &Grant, account: &mut Account) {
        let Some(object) = self.object(field, grant) else { return };
        let objects = if grant.columns.is_empty() {
            vec![object]
        } else {
            let columns = format!("{field}.columns");
            let Object::Table(schema, table) = object else {
                return self.refuse(columns, Reason::Other("columns need a table: on is schema.table"));
            };
            let names: Vec<String> =
                grant.columns.iter().filter_map(|column| self.identifier(&columns, column)).collect();
            let column = |name: String| Object::Column(schema.clone(), table.clone(), name);
            names.into_iter().map(column).collect()
        };
        let Some(level) = objects.first().map(Object::level) else { return };
        let privileges = self.privileges(&format!("{field}.privileges"), &grant.privileges, level);
        for object in objects {
            account.privileges.entry(object).or_default().extend(privileges.iter().cloned());
        }
    }

    fn privileges(&mut self, field: &str, names: &[String], level: Level) -> BTreeSet<Privilege> {
        let mut privileges = BTreeSet::new();
        for name in names {
            match name.as_str() {
                "ALL" | "ALL PRIVILEGES" => match level {
                    Level::Global if !self.administration => {
                        self.refuse(field, Refusal::NeedsFlag("ALL on *.*".to_owned()));
                    }
                    Level::Column => {
                        self.refuse(field, Reason::Other("ALL cannot be had for columns: name the privileges"));
                    }
                    Level::Global | Level::Schema | Level::Table | Level::Routine => {
                        privileges.extend(privilege::all(level));
                    }
                },
                // No privileges: what every account has.
                "USAGE" => {}
                name => {
                    privileges.extend(self.keep(field, privilege::declared(name, level, self.administration)));
                }
            }
        }
        privileges
    }

    fn revoke(&mut self, field: &str, revoke: &Revoke, account: &mut Account) {
        let on = format!("{field}.on");
        let Some((Some(schema), None)) = target(&revoke.on) else {
            return self.refuse(on, Reason::Other("what is revoked from *.* is revoked for a schema: schema.*"));
        };
        let Some(schema) = self.schema(&on, &schema) else { return };
        let global = account.held(&Object::Global);
        let field = format!("{field}.privileges");
        let privileges = self.privileges(&field, &revoke.privileges, Level::Schema);
        let all = revoke.privileges.iter().any(|name| name.starts_with("ALL"));
        if privileges.iter().any(|privilege| privilege.as_str() == Privilege::GRANT_OPTION) {
            self.refuse(field.as_str(), Reason::Other("GRANT OPTION cannot be revoked for a schema"));
        }
        // The server ignores what is not there to be revoked.
        if !all && !privileges.is_subset(&global) {
            self.refuse(field, Reason::Other("only what is granted on *.* can be revoked for a schema"));
        }
        let granted: BTreeSet<Privilege> = privileges.intersection(&global).cloned().collect();
        let same = account.privileges.get(&Object::Schema(schema.clone()));
        if same.is_some_and(|held| !held.is_disjoint(&granted)) {
            return self.refuse(on, Reason::Other("the same privilege is granted and revoked for this schema"));
        }
        account.revokes.entry(schema).or_default().extend(granted);
    }
}
