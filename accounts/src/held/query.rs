//! The questions.

use std::collections::BTreeSet;

use common::sql::{Account as Name, quote_str};

use super::PAGE;
use crate::mark::KEY;
use crate::privilege::{Level, listed};

/// A value of a grant table as text of the connection's character set: theirs are utf8mb3, ascii and JSON.
fn text(expression: &str) -> String {
    format!("IFNULL(CONVERT({expression} USING utf8mb4),'')")
}

/// One part of the union: what kind of row, whose, and four values.
fn part(kind: &str, columns: [&str; 6], from: &str, condition: &str) -> String {
    let columns: Vec<String> = columns.iter().map(|column| text(column)).collect();
    format!("SELECT '{kind}',{} FROM {from} WHERE {condition}", columns.join(","))
}

/// All that is known of accounts with these user names.
pub(super) fn accounts(users: &BTreeSet<String>) -> String {
    let names: Vec<String> = users.iter().map(|user| quote_str(user, false)).collect();
    // `IN ()` is no SQL; no account that is looked for has an empty name.
    let names = if names.is_empty() { "''".to_owned() } else { names.join(",") };
    let of = |column: &str| format!("{column} IN ({names})");
    let login = "JSON_OBJECT('plugin',plugin,'hash',HEX(authentication_string),'expired',password_expired,\
                 'locked',account_locked,'ssl',ssl_type,'queries',max_questions,'updates',max_updates,\
                 'connections',max_connections,'at_one_time',max_user_connections,'lifetime',password_lifetime,\
                 'changed',UNIX_TIMESTAMP(password_last_changed),'attributes',User_attributes)";
    let parts = [
        "SELECT 'server','','',CAST(UNIX_TIMESTAMP() AS CHAR),CAST(@@GLOBAL.partial_revokes AS CHAR),'',''".to_owned(),
        part("user", ["User", "Host", login, &listed(Level::Global), "''", "''"], "mysql.user", &of("User")),
        part("dynamic", ["USER", "HOST", "PRIV", "WITH_GRANT_OPTION", "''", "''"], "mysql.global_grants", &of("USER")),
        part("schema", ["User", "Host", "Db", &listed(Level::Schema), "''", "''"], "mysql.db", &of("User")),
        part("table", ["User", "Host", "Db", "Table_name", "Table_priv", "''"], "mysql.tables_priv", &of("User")),
        part(
            "column",
            ["User", "Host", "Db", "Table_name", "Column_name", "Column_priv"],
            "mysql.columns_priv",
            &of("User"),
        ),
        part(
            "routine",
            ["User", "Host", "Db", "Routine_name", "Routine_type", "Proc_priv"],
            "mysql.procs_priv",
            &of("User"),
        ),
        part(
            "role",
            ["TO_USER", "TO_HOST", "FROM_USER", "FROM_HOST", "WITH_ADMIN_OPTION", "''"],
            "mysql.role_edges",
            &of("TO_USER"),
        ),
        part(
            "default",
            ["USER", "HOST", "DEFAULT_ROLE_USER", "DEFAULT_ROLE_HOST", "''", "''"],
            "mysql.default_roles",
            &of("USER"),
        ),
        part("proxy", ["User", "Host", "Proxied_user", "Proxied_host", "''", "''"], "mysql.proxies_priv", &of("User")),
    ];
    parts.join(" UNION ALL ")
}

/// User, host and mark of accounts that bear one of this cluster.
pub(super) fn marked(cluster: &str, after: Option<&Name>) -> String {
    let mark = format!("User_attributes->'$.metadata.{KEY}'");
    let after = after.map(|name| {
        format!(" AND (Host, User) > ({}, {})", quote_str(name.host(), false), quote_str(name.user(), false))
    });
    format!(
        "SELECT {}, {}, {} FROM mysql.user WHERE User_attributes->>'$.metadata.{KEY}.cluster'={}{} \
         ORDER BY Host, User LIMIT {PAGE}",
        text("User"),
        text("Host"),
        text(&mark),
        quote_str(cluster, false),
        after.unwrap_or_default()
    )
}
