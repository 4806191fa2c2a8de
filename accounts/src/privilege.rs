//! What MySQL's privileges are called, where each can be held, and which of them Pelorus gives away.
//!
//! The names are those of GRANT. The grant tables write them in three other ways (a column each, two kinds of SET);
//! [`STATIC`] is the one place that knows. What may be granted follows from what `pelorus_users` holds: nobody can grant
//! what would break replication, stop a server or write around the binlog (docs/failover-protocol.md).

use std::collections::BTreeSet;
use std::fmt;

/// Protects an account from those that do not have it.
const SYSTEM_USER: &str = "SYSTEM_USER";

/// Name of a privilege as in GRANT, upper case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Privilege(String);

impl Privilege {
    /// The right to pass on what is held for the same object.
    pub const GRANT_OPTION: &'static str = "GRANT OPTION";

    /// A name as in GRANT, or as a SET of the grant tables has it. Only letters, digits, spaces and underscores: it goes
    /// into statements as it is.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_uppercase();
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_'));
        let name = if name == "GRANT" { Self::GRANT_OPTION.to_owned() } else { name };
        plain.then_some(Self(name))
    }

    /// The name, fit for SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of those that components register, which exist on `*.*` only.
    pub fn is_dynamic(&self) -> bool {
        self.known().is_none()
    }

    fn known(&self) -> Option<&'static Static> {
        STATIC.iter().find(|known| known.name == self.0)
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of object a privilege is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `*.*`.
    Global,
    /// `schema.*`.
    Schema,
    /// A table or view.
    Table,
    /// A column.
    Column,
    /// A procedure, function or library.
    Routine,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "*.*",
            Self::Schema => "a schema",
            Self::Table => "a table",
            Self::Column => "columns",
            Self::Routine => "a routine",
        })
    }
}

/// Why a privilege cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such privilege.
    #[error("there is no privilege {0}")]
    Unknown(String),
    /// Elsewhere, but not there.
    #[error("{privilege} cannot be held for {level}")]
    Level {
        /// The privilege.
        privilege: String,
        /// Where it was wanted.
        level: Level,
    },
    /// Reaches beyond the user's own data.
    #[error("{0} reaches beyond the data of one user: set allowAdministration if that is meant")]
    NeedsFlag(String),
    /// What Pelorus gives to nobody.
    #[error("{0} is given to nobody: with it replication, the binlog or the server itself could be broken")]
    Withheld(String),
    /// Proxy users.
    #[error("proxy users are not supported: grant a role instead, which shows whose privileges a session has")]
    Proxy,
}

/// A privilege that is built into the server.
struct Static {
    name: &'static str,
    /// Its column in `mysql.user` and, where there is a schema level, in `mysql.db`.
    column: &'static str,
    /// Levels beside `*.*`: s, t, c, r.
    levels: &'static str,
    reach: Reach,
}

/// How far a privilege on `*.*` reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Data, or nothing.
    Plain,
    /// Other accounts, or everything.
    Administration,
    /// Given to nobody.
    Withheld,
}

use Reach::{Administration, Plain, Withheld};

const fn of(name: &'static str, column: &'static str, levels: &'static str, reach: Reach) -> Static {
    Static { name, column, levels, reach }
}

/// Every static privilege (the manual's table "Permissible Static Privileges").
const STATIC: [Static; 31] = [
    of("SELECT", "Select_priv", "stc", Plain),
    of("INSERT", "Insert_priv", "stc", Plain),
    of("UPDATE", "Update_priv", "stc", Plain),
    of("DELETE", "Delete_priv", "st", Plain),
    of("CREATE", "Create_priv", "st", Plain),
    of("DROP", "Drop_priv", "st", Plain),
    of("RELOAD", "Reload_priv", "", Withheld),
    of("SHUTDOWN", "Shutdown_priv", "", Withheld),
    of("PROCESS", "Process_priv", "", Plain),
    of("FILE", "File_priv", "", Withheld),
    of("GRANT OPTION", "Grant_priv", "str", Administration),
    of("REFERENCES", "References_priv", "stc", Plain),
    of("INDEX", "Index_priv", "st", Plain),
    of("ALTER", "Alter_priv", "st", Plain),
    of("SHOW DATABASES", "Show_db_priv", "", Plain),
    of("SUPER", "Super_priv", "", Withheld),
    of("CREATE TEMPORARY TABLES", "Create_tmp_table_priv", "s", Plain),
    of("LOCK TABLES", "Lock_tables_priv", "s", Plain),
    of("EXECUTE", "Execute_priv", "sr", Plain),
    // Whoever has it can pose as a replica and acknowledge what nobody holds.
    of("REPLICATION SLAVE", "Repl_slave_priv", "", Withheld),
    of("REPLICATION CLIENT", "Repl_client_priv", "", Plain),
    of("CREATE VIEW", "Create_view_priv", "st", Plain),
    of("SHOW VIEW", "Show_view_priv", "st", Plain),
    of("CREATE ROUTINE", "Create_routine_priv", "s", Plain),
    of("ALTER ROUTINE", "Alter_routine_priv", "sr", Plain),
    of("CREATE USER", "Create_user_priv", "", Administration),
    of("EVENT", "Event_priv", "s", Plain),
    of("TRIGGER", "Trigger_priv", "st", Plain),
    of("CREATE TABLESPACE", "Create_tablespace_priv", "", Withheld),
    of("CREATE ROLE", "Create_role_priv", "", Administration),
    of("DROP ROLE", "Drop_role_priv", "", Administration),
];

/// Dynamic privileges that `pelorus_users` can pass on.
const DYNAMIC: [(&str, Reach); 9] = [
    ("APPLICATION_PASSWORD_ADMIN", Plain),
    ("FLUSH_OPTIMIZER_COSTS", Plain),
    ("FLUSH_STATUS", Plain),
    ("FLUSH_TABLES", Plain),
    ("FLUSH_USER_RESOURCES", Plain),
    ("ROLE_ADMIN", Administration),
    ("SET_ANY_DEFINER", Administration),
    (SYSTEM_USER, Administration),
    ("XA_RECOVER_ADMIN", Plain),
];

/// All others that 8.4 and 9.7 know (`SHOW PRIVILEGES`).
const DYNAMIC_WITHHELD: [&str; 40] = [
    "ALLOW_NONEXISTENT_DEFINER",
    "AUDIT_ABORT_EXEMPT",
    "AUDIT_ADMIN",
    "AUTHENTICATION_POLICY_ADMIN",
    "BACKUP_ADMIN",
    "BINLOG_ADMIN",
    "BINLOG_ENCRYPTION_ADMIN",
    "CLONE_ADMIN",
    "CONNECTION_ADMIN",
    "CREATE_SPATIAL_REFERENCE_SYSTEM",
    "ENCRYPTION_KEY_ADMIN",
    "FIREWALL_ADMIN",
    "FIREWALL_EXEMPT",
    "FIREWALL_USER",
    "FLUSH_PRIVILEGES",
    "GROUP_REPLICATION_ADMIN",
    "GROUP_REPLICATION_STREAM",
    "INNODB_REDO_LOG_ARCHIVE",
    "INNODB_REDO_LOG_ENABLE",
    "MANAGE_DATA_MASKING_POLICY",
    "MASKING_DICTIONARIES_ADMIN",
    "NDB_STORED_USER",
    "OPTIMIZE_LOCAL_TABLE",
    "PASSWORDLESS_USER_ADMIN",
    "PERSIST_RO_VARIABLES_ADMIN",
    "REPLICATION_APPLIER",
    "REPLICATION_SLAVE_ADMIN",
    "RESOURCE_GROUP_ADMIN",
    "RESOURCE_GROUP_USER",
    "SENSITIVE_VARIABLES_OBSERVER",
    "SERVICE_CONNECTION_ADMIN",
    "SESSION_VARIABLES_ADMIN",
    "SET_USER_ID",
    "SHOW_ROUTINE",
    "SKIP_QUERY_REWRITE",
    "SYSTEM_VARIABLES_ADMIN",
    "TABLE_ENCRYPTION_ADMIN",
    "TELEMETRY_LOG_ADMIN",
    "TRANSACTION_GTID_TAG",
    "VERSION_TOKEN_ADMIN",
];

/// What an account with the privilege on `*.*` is kept from in the schema `mysql` all the same: `pelorus_users` is, and
/// the server hands a grantor's restrictions on to whom it grants (manual, "Privilege Restriction Using Partial
/// Revokes").
const NOT_ON_SYSTEM_SCHEMA: [&str; 16] = [
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
];

impl Level {
    fn letter(self) -> Option<char> {
        match self {
            Self::Global => None,
            Self::Schema => Some('s'),
            Self::Table => Some('t'),
            Self::Column => Some('c'),
            Self::Routine => Some('r'),
        }
    }

    fn has(self, known: &Static) -> bool {
        self.letter().is_none_or(|letter| known.levels.contains(letter))
    }
}

/// A declared privilege, when it can be held there and may be had. `administration`: the flag is set.
pub fn declared(name: &str, level: Level, administration: bool) -> Result<Privilege, Refusal> {
    let unknown = || Refusal::Unknown(name.to_owned());
    let privilege = Privilege::new(name).ok_or_else(unknown)?;
    let name = || privilege.0.clone();
    if privilege.0 == "PROXY" {
        return Err(Refusal::Proxy);
    }
    let reach = if let Some(known) = privilege.known() {
        if !level.has(known) {
            return Err(Refusal::Level { privilege: name(), level });
        }
        if level == Level::Global { known.reach } else { Plain }
    } else {
        let given = DYNAMIC.iter().find(|(dynamic, _)| *dynamic == privilege.0).map(|(_, reach)| *reach);
        let withheld = || DYNAMIC_WITHHELD.contains(&privilege.as_str()).then_some(Withheld);
        let reach = given.or_else(withheld).ok_or_else(unknown)?;
        if level != Level::Global {
            return Err(Refusal::Level { privilege: name(), level });
        }
        reach
    };
    match reach {
        Withheld => Err(Refusal::Withheld(name())),
        Administration if !administration => Err(Refusal::NeedsFlag(name())),
        Administration | Plain => Ok(privilege),
    }
}

/// What `ALL` means on a level: everything that can be had but GRANT OPTION and SYSTEM_USER, which are asked for by name.
pub fn all(level: Level) -> Vec<Privilege> {
    let fixed = STATIC
        .iter()
        .filter(|known| known.name != Privilege::GRANT_OPTION && level.has(known))
        .filter(|known| level != Level::Global || known.reach != Withheld)
        .map(|known| known.name);
    let dynamic = DYNAMIC.iter().map(|(name, _)| *name).filter(|name| *name != SYSTEM_USER);
    let dynamic = dynamic.filter(|_| level == Level::Global);
    fixed.chain(dynamic).map(|name| Privilege(name.to_owned())).collect()
}

/// Static privileges that mean nothing for a schema, in whose company others are revoked.
const COMPANIONS: [&str; 6] =
    ["CREATE ROLE", "DROP ROLE", "CREATE USER", "REPLICATION CLIENT", "SHOW DATABASES", "PROCESS"];

/// What is revoked along with dynamic privileges that are revoked alone; none of `wanted`. The server refuses whom it keeps
/// from a part of `mysql`, as it does `pelorus_users`, a REVOKE of nothing but dynamic privileges and GRANT OPTION (error
/// 3879, seen on 9.7.4), and takes it as soon as another one is in it, held or not.
pub(crate) fn companion(wanted: &BTreeSet<Privilege>) -> Option<Privilege> {
    COMPANIONS.iter().map(|name| Privilege((*name).to_owned())).find(|privilege| !wanted.contains(privilege))
}

/// Whether `pelorus_users` can grant it and take it away.
pub fn is_given(privilege: &Privilege) -> bool {
    match privilege.known() {
        Some(known) => known.reach != Withheld,
        None => DYNAMIC.iter().any(|(name, _)| *name == privilege.as_str()),
    }
}

/// Whether holders on `*.*` are kept from it in `mysql`.
pub fn is_kept_from_system_schema(privilege: &Privilege) -> bool {
    NOT_ON_SYSTEM_SCHEMA.contains(&privilege.as_str())
}

/// SQL that lists the privileges of a row of `mysql.user` (or `mysql.db`), parted by commas.
pub(crate) fn listed(level: Level) -> String {
    let columns: Vec<String> = STATIC
        .iter()
        .filter(|known| level.has(known))
        .map(|known| format!("IF({}='Y','{}',NULL)", known.column, known.name))
        .collect();
    format!("CONCAT_WS(',',{})", columns.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn privileges_are_refused_with_the_reason() {
        use Level::{Column, Global, Routine, Schema, Table};
        let level = |privilege: &str, level| Err(Refusal::Level { privilege: privilege.to_owned(), level });
        let flag = |name: &str| Err(Refusal::NeedsFlag(name.to_owned()));
        let withheld = |name: &str| Err(Refusal::Withheld(name.to_owned()));
        let fine = |name: &str| Ok(Privilege(name.to_owned()));
        for (name, at, administration, wanted) in [
            ("SELECT", Global, false, fine("SELECT")),
            ("select", Column, false, fine("SELECT")),
            ("DELETE", Column, false, level("DELETE", Column)),
            ("EXECUTE", Table, false, level("EXECUTE", Table)),
            ("EXECUTE", Routine, false, fine("EXECUTE")),
            ("SELECT", Routine, false, level("SELECT", Routine)),
            ("EVENT", Schema, false, fine("EVENT")),
            ("EVENT", Table, false, level("EVENT", Table)),
            ("PROCESS", Schema, false, level("PROCESS", Schema)),
            ("FLUSH_TABLES", Global, false, fine("FLUSH_TABLES")),
            ("FLUSH_TABLES", Schema, true, level("FLUSH_TABLES", Schema)),
            ("GRANT OPTION", Schema, false, fine("GRANT OPTION")),
            ("GRANT OPTION", Global, false, flag("GRANT OPTION")),
            ("CREATE USER", Global, false, flag("CREATE USER")),
            ("CREATE USER", Global, true, fine("CREATE USER")),
            ("SYSTEM_USER", Global, false, flag("SYSTEM_USER")),
            ("SYSTEM_USER", Global, true, fine("SYSTEM_USER")),
            ("SUPER", Global, true, withheld("SUPER")),
            ("REPLICATION SLAVE", Global, true, withheld("REPLICATION SLAVE")),
            ("SYSTEM_VARIABLES_ADMIN", Global, true, withheld("SYSTEM_VARIABLES_ADMIN")),
            ("PROXY", Global, true, Err(Refusal::Proxy)),
            ("SELEKT", Global, true, Err(Refusal::Unknown("SELEKT".to_owned()))),
            ("SELECT ON x.* TO y; --", Global, true, Err(Refusal::Unknown("SELECT ON x.* TO y; --".to_owned()))),
        ] {
            assert_eq!(declared(name, at, administration), wanted, "{name} on {at}");
        }
    }

    #[test]
    fn all_is_what_can_be_had_there() {
        let count = |level| all(level).len();
        assert_eq!((count(Level::Schema), count(Level::Table), count(Level::Routine)), (18, 12, 2));
        for privilege in all(Level::Global) {
            assert_eq!(declared(privilege.as_str(), Level::Global, true), Ok(privilege));
        }
        assert!(!all(Level::Global).iter().any(|privilege| privilege.as_str() == SYSTEM_USER));
    }
}
