//! The option file of mysqld: defaults, then the user's settings, then the guarded ones. Pure.
//!
//! mysqld reads this file alone (`--defaults-file`) and no persisted variables, and the last mention of a key counts: so
//! what stands below wins, and the guarded block stands at the end. Every guarded setting also has its reason in
//! [`common::guarded`], where it is refused before it gets here.

use std::collections::BTreeMap;
use std::fmt::Write;

use common::guarded;
use common::instance::InstanceConfig;

use crate::config::{Identity, Layout};
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Kept beside the buffer pool for everything else: threads, performance schema, temporary tables.
const BESIDE_THE_POOL: u64 = 400 * MIB;
/// Smallest buffer pool that serves.
const POOL_MIN: u64 = 32 * MIB;
/// The pool grows in chunks of this size; between, mysqld would round up.
const POOL_CHUNK: u64 = 128 * MIB;

/// mysqld's own default of `max_connections`.
const MAX_CONNECTIONS: u64 = 151;
/// Connections that no single account of users takes away.
const RESERVED: u64 = 32;

/// Storage engines whose changes cannot be rolled back, so not rewound either.
const DISABLED_ENGINES: &str = "MyISAM,CSV,MEMORY,ARCHIVE,BLACKHOLE,FEDERATED,MERGE,NDB";

/// Whether mysqld purges old binlogs by itself.
pub const AUTO_PURGE: &str = "binlog_expire_logs_auto_purge";

/// Its value: binlogs that go into an archive are purged by whoever ships them.
pub fn auto_purge(archived: bool) -> &'static str {
    if archived { "OFF" } else { "ON" }
}

/// The whole option file.
///
/// # Errors
/// A guarded key or a value that could break out of its line, in the user's settings.
pub fn render(layout: &Layout, identity: &Identity, config: &InstanceConfig) -> Result<String> {
    let mut text = String::from("# Made by instance-d at each start of mysqld; changes are lost.\n[mysqld]\n");
    text.push_str("\n# Defaults.\n");
    for (key, value) in defaults(config.memory_limit_bytes) {
        line(&mut text, key, &value);
    }
    line(&mut text, "max_user_connections", &for_one_account(&config.settings).to_string());
    text.push_str("\n# Asked for in the custom resource.\n");
    for (key, value) in &config.settings {
        check(key, value)?;
        line(&mut text, &guarded::normalise(key), value);
    }
    text.push_str("\n# Guarded.\n");
    for (key, value) in guarded(layout, identity, config.archived) {
        line(&mut text, key, &value);
    }
    Ok(text)
}

/// Connections of one account: all but those that replication, clones, the archive and orders need. Writers that wait for an
/// acknowledgement keep theirs, also when their clients are gone; if they had all of them, no replica could come and acknowledge.
fn for_one_account(settings: &BTreeMap<String, String>) -> u64 {
    let settings = normalised(settings);
    let asked = settings.get("max_connections").and_then(|value| plain_number(value)?.parse().ok());
    let all: u64 = asked.unwrap_or(MAX_CONNECTIONS);
    all.saturating_sub(RESERVED.min(all / 4)).max(1)
}

/// Second wall behind topology-ctl's.
///
/// # Errors
/// Says what may not be set, and why.
pub fn check(key: &str, value: &str) -> Result<()> {
    guarded::check(key)
        .and_then(|()| guarded::check_value(value))
        .map_err(|reason| Error::Configuration(format!("{key:?} may not be set: {reason}")))
}

/// Defaults that users may change.
fn defaults(memory_limit: u64) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("character_set_server", "utf8mb4".to_owned()),
        ("binlog_row_image", "FULL".to_owned()),
        ("max_binlog_size", "256M".to_owned()),
        ("replica_parallel_workers", "4".to_owned()),
        ("innodb_buffer_pool_size", buffer_pool(memory_limit).to_string()),
        ("innodb_numa_interleave", "OFF".to_owned()),
        ("log_error_verbosity", "2".to_owned()),
    ];
    if memory_limit > 0 {
        all.push(("temptable_max_ram", (memory_limit / 16).clamp(16 * MIB, GIB).to_string()));
    }
    if memory_limit >= 4 * GIB {
        all.push(("innodb_redo_log_capacity", (memory_limit / 4).clamp(GIB, 8 * GIB).to_string()));
    }
    if memory_limit > 0 && memory_limit < 2 * GIB {
        // Half of what a small server takes is the performance schema's guess at a large one; and dozens of small
        // servers on a node would exhaust the kernel's asynchronous IO slots.
        all.extend([
            ("table_open_cache", "400".to_owned()),
            ("table_definition_cache", "400".to_owned()),
            ("performance_schema_digests_size", "500".to_owned()),
            ("performance_schema_error_size", "0".to_owned()),
            ("performance_schema_events_statements_history_long_size", "100".to_owned()),
            ("performance_schema_events_stages_history_long_size", "0".to_owned()),
            ("performance_schema_events_transactions_history_long_size", "0".to_owned()),
            ("performance_schema_events_waits_history_long_size", "0".to_owned()),
            ("performance_schema_max_table_instances", "400".to_owned()),
            ("innodb_use_native_aio", "OFF".to_owned()),
            ("innodb_log_buffer_size", "8M".to_owned()),
        ]);
    }
    all
}

/// A little over half of the limit, leaving room for the rest, in whole chunks.
fn buffer_pool(memory_limit: u64) -> u64 {
    if memory_limit == 0 {
        return 128 * MIB;
    }
    let wanted = (memory_limit / 20 * 11).min(memory_limit.saturating_sub(BESIDE_THE_POOL)).max(POOL_MIN);
    let chunk = if wanted >= POOL_CHUNK { POOL_CHUNK } else { 16 * MIB };
    wanted / chunk * chunk
}

/// Settings that nobody overrides, in ARCHITECTURE's order: durability, replication, role, identity, places, TLS, access.
fn guarded(layout: &Layout, identity: &Identity, archived: bool) -> Vec<(&'static str, String)> {
    let text = |value: &str| value.to_owned();
    let bind = layout.bind.map_or_else(|| text("*"), |address| address.to_string());
    let tls = |file: &str| layout.tls.join(file).display().to_string();
    let mut all = vec![
        // Durability.
        ("gtid_mode", text("ON")),
        ("enforce_gtid_consistency", text("ON")),
        ("log_bin", text("binlog")),
        ("log_replica_updates", text("ON")),
        ("sync_binlog", text("1")),
        ("binlog_error_action", text("ABORT_SERVER")),
        ("innodb_flush_log_at_trx_commit", text("1")),
        ("innodb_doublewrite", text("ON")),
        ("plugin_load_add", text("rpl_semi_sync_source=semisync_source.so")),
        ("plugin_load_add", text("rpl_semi_sync_replica=semisync_replica.so")),
        ("plugin_load_add", text("clone=mysql_clone.so")),
        ("rpl_semi_sync_source_wait_point", text("AFTER_SYNC")),
        // Milliseconds; 2^64-1: never give up waiting.
        ("rpl_semi_sync_source_timeout", text("18446744073709551615")),
        ("rpl_semi_sync_source_wait_no_replica", text("ON")),
        // Both sides are switched on by orders only.
        ("rpl_semi_sync_source_enabled", text("OFF")),
        ("rpl_semi_sync_replica_enabled", text("OFF")),
        ("relay_log", text("relay")),
        ("relay_log_recovery", text("OFF")),
        ("sync_relay_log", text("1")),
        ("replica_preserve_commit_order", text("ON")),
        ("disabled_storage_engines", text(DISABLED_ENGINES)),
        // A receiver that has turned to "Connecting" takes 2 s to stop, so it must not turn before a failover is over;
        // and a connection that died silently must not stay for minutes. Heartbeats come twice a second.
        ("replica_net_timeout", text("20")),
        ("binlog_expire_logs_seconds", text("604800")),
        (AUTO_PURGE, text(auto_purge(archived))),
        // Role: closed until an order opens it.
        ("super_read_only", text("ON")),
        ("read_only", text("ON")),
        ("offline_mode", text("ON")),
        ("skip_replica_start", text("ON")),
        // Identity.
        ("server_id", identity.server_id().to_string()),
        ("report_host", identity.host()),
        ("report_port", layout.port_mysql.to_string()),
        // Places.
        ("datadir", layout.data().display().to_string()),
        ("tmpdir", layout.tmp().display().to_string()),
        ("socket", layout.socket().display().to_string()),
        ("pid_file", layout.run.join("mysqld.pid").display().to_string()),
        ("port", layout.port_mysql.to_string()),
        ("bind_address", bind.clone()),
        ("mysqlx_port", layout.port_mysqlx.to_string()),
        ("mysqlx_bind_address", bind),
        ("mysqlx_socket", layout.run.join("mysqlx.sock").display().to_string()),
        ("secure_file_priv", text("NULL")),
        // The built-in authority is self-signed by nature, and RSA keys are of no use where everything is TLS.
        ("log_error_suppression_list", text("MY-010068,MY-010284")),
        // TLS.
        ("require_secure_transport", text("ON")),
        ("tls_version", text("TLSv1.2,TLSv1.3")),
        ("ssl_ca", tls("ca.crt")),
        ("ssl_cert", tls("tls.crt")),
        ("ssl_key", tls("tls.key")),
        ("loose_auto_generate_certs", text("OFF")),
        ("loose_caching_sha2_password_auto_generate_rsa_keys", text("OFF")),
        ("loose_sha256_password_auto_generate_rsa_keys", text("OFF")),
        // Access.
        ("skip_name_resolve", text("ON")),
        ("partial_revokes", text("ON")),
        ("persisted_globals_load", text("OFF")),
        ("performance_schema", text("ON")),
    ];
    if layout.root {
        all.push(("user", text("root")));
    }
    all
}

/// Quotes where the option file's syntax asks for it: `#` begins a comment, a backslash an escape.
fn line(text: &mut String, key: &str, value: &str) {
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.,:/+*=@%;".contains(&byte));
    let escaped = value.replace('\\', "\\\\");
    // Writing to a String does not fail.
    let _ = if plain {
        writeln!(text, "{key}={value}")
    } else if value.contains('"') {
        writeln!(text, "{key}='{escaped}'")
    } else {
        writeln!(text, "{key}=\"{escaped}\"")
    };
}

/// Arguments of the quick initialisation of a data directory: nothing in it has to be durable by itself, because the
/// whole file system is synced before the directory counts.
pub fn initialise_arguments(layout: &Layout) -> Vec<String> {
    let mut all = vec![
        "--no-defaults".to_owned(),
        "--initialize-insecure".to_owned(),
        format!("--datadir={}", layout.data().display()),
        format!("--tmpdir={}", layout.tmp().display()),
        "--log-error-verbosity=1".to_owned(),
        "--skip-log-bin".to_owned(),
        "--performance-schema=OFF".to_owned(),
        "--innodb-doublewrite=OFF".to_owned(),
        "--innodb-flush-method=nosync".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
        "--innodb-redo-log-capacity=64M".to_owned(),
        "--innodb-buffer-pool-size=64M".to_owned(),
        "--innodb-use-native-aio=OFF".to_owned(),
        "--innodb-numa-interleave=OFF".to_owned(),
        "--secure-file-priv=NULL".to_owned(),
        "--loose-mysqlx=OFF".to_owned(),
        "--loose-auto-generate-certs=OFF".to_owned(),
        "--loose-caching-sha2-password-auto-generate-rsa-keys=OFF".to_owned(),
        "--loose-sha256-password-auto-generate-rsa-keys=OFF".to_owned(),
    ];
    if layout.root {
        all.push("--user=root".to_owned());
    }
    all
}

/// Numbers with a unit, switches and plain text, so that `128M` and `134217728` or `ON` and `1` compare equal.
pub fn canonical(value: &str) -> String {
    let value = value.trim();
    match value.to_ascii_uppercase().as_str() {
        "ON" | "TRUE" | "YES" => return "1".to_owned(),
        "OFF" | "FALSE" | "NO" => return "0".to_owned(),
        _ => {}
    }
    if let Some(number) = plain_number(value) {
        return number;
    }
    value.to_ascii_lowercase()
}

/// A number as SQL takes it, when the text is a number with or without a unit.
pub fn plain_number(value: &str) -> Option<String> {
    let (digits, shift) = match value.char_indices().last()? {
        (end, 'k' | 'K') => (value.get(..end)?, 10),
        (end, 'm' | 'M') => (value.get(..end)?, 20),
        (end, 'g' | 'G') => (value.get(..end)?, 30),
        (end, 't' | 'T') => (value.get(..end)?, 40),
        (end, 'p' | 'P') => (value.get(..end)?, 50),
        _ => (value, 0),
    };
    if let Ok(number) = digits.parse::<i128>() {
        return number.checked_mul(1_i128 << shift).map(|number| number.to_string());
    }
    let number: f64 = digits.parse().ok().filter(|number: &f64| number.is_finite() && shift == 0)?;
    Some(number.to_string())
}

/// User settings by normalised key.
pub fn normalised(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    settings.iter().map(|(key, value)| (guarded::normalise(key), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{MIB, buffer_pool, canonical, plain_number, render};
    use crate::config::{Identity, Layout};
    use common::instance::InstanceConfig;
    use std::time::Duration;

    fn layout() -> Layout {
        Layout {
            volume: "/var/lib/pelorus".into(),
            config: "/c".into(),
            accounts: "/a".into(),
            tls: "/t".into(),
            run: "/r".into(),
            mysqld: "/usr/sbin/mysqld".into(),
            bind: None,
            port_mysql: 3306,
            port_mysqlx: 33060,
            port_api: 7080,
            hand_over: Duration::from_secs(30),
            root: false,
        }
    }

    fn rendered(settings: &[(&str, &str)]) -> crate::error::Result<String> {
        let config = InstanceConfig {
            namespace: "n".into(),
            cluster: "db".into(),
            cluster_uid: "u".into(),
            settings: settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            memory_limit_bytes: 512 * MIB,
            hang_after_ms: 1500,
            isolated_after_ms: 5000,
            archived: false,
        };
        let identity = Identity { name: "db-2".into(), namespace: "n".into(), cluster: "db".into(), ordinal: 2 };
        render(&layout(), &identity, &config)
    }

    #[test]
    fn guarded_settings_come_last() {
        let text = rendered(&[("max-connections", "77")]).unwrap();
        let user = text.find("max_connections=77").unwrap();
        for guarded in ["sync_binlog=1", "super_read_only=ON", "server_id=3", "require_secure_transport=ON"] {
            assert!(text.find(guarded).unwrap() > user, "{guarded}");
        }
    }

    #[test]
    fn no_account_takes_all_connections() {
        for (settings, expected) in [
            (&[][..], 119),
            (&[("max_connections", "1k")], 992),
            (&[("max-connections", "40")], 30),
            (&[("max_connections", "1")], 1),
        ] {
            let text = rendered(settings).unwrap();
            assert!(text.contains(&format!("max_user_connections={expected}\n")), "{settings:?}: {text}");
        }
        let text = rendered(&[("max_user_connections", "0")]).unwrap();
        assert!(text.find("max_user_connections=0").unwrap() > text.find("max_user_connections=119").unwrap());
    }

    #[test]
    fn guarded_keys_and_line_breaks_are_refused() {
        assert!(rendered(&[("sync_binlog", "0")]).is_err());
        assert!(rendered(&[("max_connections", "1\nskip_grant_tables")]).is_err());
    }

    #[test]
    fn comments_and_escapes_are_quoted() {
        let text =
            rendered(&[("init_connect", "SET @a='x' # y"), ("sql_mode", ""), ("ft_stopword_file", "a\\b")]).unwrap();
        assert!(text.contains("init_connect=\"SET @a='x' # y\"\n"));
        assert!(text.contains("ft_stopword_file=\"a\\\\b\"\n"));
    }

    #[test]
    fn the_pool_leaves_room() {
        assert_eq!(buffer_pool(0), 128 * MIB);
        assert_eq!(buffer_pool(256 * MIB), 32 * MIB);
        assert_eq!(buffer_pool(512 * MIB), 112 * MIB);
        assert_eq!(buffer_pool(1024 * MIB), 512 * MIB);
        assert_eq!(buffer_pool(16 * 1024 * MIB), 8960 * MIB);
    }

    #[test]
    fn values_compare_by_meaning() {
        for (left, right) in
            [("128M", "134217728"), ("on", "1"), ("OFF", "0"), ("2", "2.000000"), ("READ-COMMITTED", "read-committed")]
        {
            assert_eq!(canonical(left), canonical(right), "{left} {right}");
        }
        assert_ne!(canonical("128M"), canonical("128K"));
        assert_eq!(plain_number("8X"), None);
        assert_eq!(plain_number("1G").unwrap(), "1073741824");
        assert_eq!(plain_number(""), None);
    }
}
