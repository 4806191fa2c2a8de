//! Pelorus' own MySQL accounts: one a purpose, with what the purpose needs.
//!
//! They are the same on every instance and are made without the binlog, before the data directory counts. All of them
//! hold SYSTEM_USER, whose only effect here is protection: an account without it (every account that users make) can
//! neither change them nor end their sessions, nor name them as the definer of a routine.
//! Replication, clone and shipper accounts hold CONNECTION_ADMIN so that a server in offline mode takes them in and
//! keeps their sessions: a primary that is being demoted or opened needs its replicas connected.

use common::mysql::Password;
use common::names::{INSTANCES_MAX, account};
use common::sql::{Account, quote_str};

use crate::error::{Error, Result};

/// What only the owner of data needs: everything on schemas and accounts, and nothing that could break replication,
/// stop the server, write around the binlog (`SESSION_VARIABLES_ADMIN`), throw binlogs away (`RELOAD`, `BINLOG_ADMIN`),
/// bypass a closed server (`CONNECTION_ADMIN`, `SUPER`) or read files (`FILE`).
const OWNER: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
    CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, \
    CREATE USER, CREATE ROLE, DROP ROLE, PROCESS, SHOW DATABASES, REPLICATION CLIENT, \
    ROLE_ADMIN, APPLICATION_PASSWORD_ADMIN, SET_ANY_DEFINER, XA_RECOVER_ADMIN, FLUSH_TABLES, FLUSH_STATUS, \
    FLUSH_OPTIMIZER_COSTS, FLUSH_USER_RESOURCES";

/// Taken back on the system schema: grant tables are changed by account statements only.
const NOT_ON_SYSTEM_SCHEMA: &str = "INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
    CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER";

/// instance-d's hands:
/// - `CONNECTION_ADMIN`, `SYSTEM_USER`: works in offline mode, ends any session; `RELOAD`: certificates, RESET
/// - `SYSTEM_VARIABLES_ADMIN`, `SESSION_VARIABLES_ADMIN`: read-only flags, semi-sync, `sql_log_bin`
/// - `REPLICATION_SLAVE_ADMIN`, `REPLICATION_APPLIER`, `REPLICATION CLIENT`: the channel
/// - `CREATE USER`: locks and unlocks replication accounts; `CLONE_ADMIN`, `BACKUP_ADMIN`: clone
/// - `SHUTDOWN`: nobody else has it; `PROCESS` and `SELECT`: observes threads, accounts and the performance schema
const LOCAL: &str = "SELECT, RELOAD, SHUTDOWN, PROCESS, REPLICATION CLIENT, REPLICATION SLAVE, CREATE USER, \
    CONNECTION_ADMIN, SYSTEM_USER, SYSTEM_VARIABLES_ADMIN, SESSION_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN, \
    REPLICATION_APPLIER, CLONE_ADMIN, BACKUP_ADMIN, ROLE_ADMIN, SERVICE_CONNECTION_ADMIN, FLUSH_TABLES";

/// One account and its privileges.
struct Own {
    name: String,
    host: &'static str,
    /// Over TCP everything is TLS; the socket cannot be.
    tls: bool,
    grants: Vec<String>,
    /// Ends the grants with the right to pass them on.
    passes_on: bool,
}

fn all() -> Vec<Own> {
    let remote = |name: &str, grants: Vec<String>, passes_on: bool| Own {
        name: name.to_owned(),
        host: "%",
        tls: true,
        grants,
        passes_on,
    };
    let global = |privileges: &str| vec![format!("{privileges} ON *.*")];
    let mut accounts = vec![
        Own { name: account::LOCAL.to_owned(), host: "localhost", tls: false, grants: global(LOCAL), passes_on: false },
        // Donor side: BACKUP_ADMIN is what CLONE asks of it.
        remote(account::CLONE, global("BACKUP_ADMIN, CONNECTION_ADMIN, SYSTEM_USER"), false),
        // A consistent logical dump of everything, without a way to change it.
        remote(
            account::BACKUP,
            global(
                "SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, PROCESS, REPLICATION CLIENT, BACKUP_ADMIN, FLUSH_TABLES, \
                 SHOW_ROUTINE, XA_RECOVER_ADMIN, SYSTEM_USER",
            ),
            false,
        ),
        // Streams the binlog; purges it once it is archived.
        remote(
            account::SHIPPER,
            global("REPLICATION SLAVE, REPLICATION CLIENT, BINLOG_ADMIN, CONNECTION_ADMIN, SYSTEM_USER"),
            false,
        ),
        // Makes users and databases: can only grant what it holds.
        remote(account::USERS, global(&format!("{OWNER}, SYSTEM_USER")), true),
        // Exporters look at counters, not at data.
        remote(
            account::MONITOR,
            vec![
                "PROCESS, REPLICATION CLIENT, SYSTEM_USER ON *.*".to_owned(),
                "SELECT ON `performance_schema`.*".to_owned(),
                "SELECT ON `sys`.*".to_owned(),
            ],
            false,
        ),
        remote(account::ADMIN, global(OWNER), true),
    ];
    for ordinal in 0..INSTANCES_MAX {
        accounts.push(remote(
            &account::replication(ordinal),
            vec![
                "REPLICATION SLAVE, CONNECTION_ADMIN, SYSTEM_USER ON *.*".to_owned(),
                // The errant check of a follower asks what its source has received and not yet applied.
                "SELECT ON `performance_schema`.`replication_connection_status`".to_owned(),
            ],
            false,
        ));
    }
    accounts
}

/// Statements that make all accounts and remove root. For a session of root with `sql_log_bin=0` on a server that takes
/// no client yet.
///
/// # Errors
/// A password that cannot be read.
pub fn statements(password: impl Fn(&str) -> Result<Password>) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for own in all() {
        let account =
            Account::new(own.name.as_str(), own.host).map_err(|error| Error::Unexpected(error.to_string()))?;
        let quoted = account.quoted();
        let secret = password(&own.name)?;
        if secret.expose().is_empty() {
            return Err(Error::Configuration(format!("the password of {} is empty", own.name)));
        }
        // A copy of the files of another cluster has that one's.
        statements.push(format!("DROP USER IF EXISTS {quoted}"));
        let require = if own.tls { " REQUIRE SSL" } else { "" };
        statements.push(format!(
            "CREATE USER {quoted} IDENTIFIED WITH caching_sha2_password BY {}{require} PASSWORD EXPIRE NEVER",
            quote_str(secret.expose(), false)
        ));
        let option = if own.passes_on { " WITH GRANT OPTION" } else { "" };
        statements.extend(own.grants.iter().map(|grant| format!("GRANT {grant} TO {quoted}{option}")));
        if own.name == account::ADMIN || own.name == account::USERS {
            statements.push(format!("REVOKE {NOT_ON_SYSTEM_SCHEMA} ON `mysql`.* FROM {quoted}"));
        }
    }
    statements.push("DROP USER IF EXISTS 'root'@'localhost'".to_owned());
    Ok(statements)
}

/// `ALTER USER` that locks or unlocks the replication accounts of these ordinals.
///
/// # Errors
/// Never for ordinals of a cluster.
pub fn lock_statement(ordinals: &[u32], lock: bool) -> Result<String> {
    let accounts = ordinals
        .iter()
        .map(|ordinal| {
            Account::anywhere(account::replication(*ordinal))
                .map(|account| account.quoted())
                .map_err(|error| Error::Unexpected(error.to_string()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(format!("ALTER USER {} ACCOUNT {}", accounts.join(", "), if lock { "LOCK" } else { "UNLOCK" }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{OWNER, lock_statement, statements};
    use common::mysql::Password;

    #[test]
    fn the_owner_cannot_break_what_pelorus_keeps() {
        for privilege in [
            "SHUTDOWN",
            "RELOAD",
            "SUPER",
            "FILE",
            "BINLOG_ADMIN",
            "SYSTEM_VARIABLES_ADMIN",
            "SESSION_VARIABLES_ADMIN",
            "REPLICATION_SLAVE_ADMIN",
            "CONNECTION_ADMIN",
            "SYSTEM_USER",
            "CLONE_ADMIN",
            "REPLICATION SLAVE",
        ] {
            assert!(!OWNER.split(", ").any(|held| held.trim() == privilege), "{privilege}");
        }
    }

    #[test]
    fn every_remote_account_requires_tls_and_every_account_is_made_once() {
        let all = statements(|name| Ok(Password::new(format!("secret of {name}'s")))).unwrap();
        let made: Vec<_> = all.iter().filter(|sql| sql.starts_with("CREATE USER")).collect();
        assert_eq!(made.len(), 16);
        assert!(
            made.iter()
                .all(|sql| sql.contains("REQUIRE SSL") || sql.contains("`localhost`") || sql.contains("'localhost'"))
        );
        assert!(all.last().unwrap().starts_with("DROP USER"));
    }

    #[test]
    fn empty_passwords_are_refused() {
        assert!(statements(|_| Ok(Password::new(""))).is_err());
    }

    #[test]
    fn locks_name_their_accounts() {
        let sql = lock_statement(&[1, 8], true).unwrap();
        assert!(sql.contains("pelorus_repl_1") && sql.contains("pelorus_repl_8") && sql.ends_with("ACCOUNT LOCK"));
    }
}
