//! mysqld settings that a user may not set, each with its reason.
//!
//! Two places ask: topology-ctl refuses the custom resource, and instance-d refuses the configuration again before it
//! renders it (the second wall). mysqld takes one setting under many names (`-` for `_`, `loose_`, `skip_`,
//! `disable_`, `enable_`, `maximum_`, `plugin_`, unique beginnings), so names are unwrapped before they are compared,
//! and a beginning of a guarded name is refused like the name itself.

const DURABILITY: &str = "an acknowledged write would not survive a crash (invariant 1)";
const REPLICATION: &str = "replication, failover and rewinding stand on it";
const ROLE: &str = "Pelorus alone decides who takes writes";
const IDENTITY: &str = "Pelorus gives every instance its identity";
const PLACE: &str = "Pelorus places files, sockets and ports";
const TLS: &str = "every link is encrypted with the certificates that Pelorus mounts and rotates";
const CODE: &str = "it would run code or statements that Pelorus does not know of";
const ACCESS: &str = "Pelorus' own accounts and their protection stand on it";
const ARCHIVE: &str = "Pelorus purges binlogs, when they are archived and held by every replica";
const FIXED: &str = "it is fixed when the data directory is made";
const SECRETS: &str = "passwords would show in logs";
const OBSERVE: &str = "Pelorus observes the server through it";
const MODE: &str = "it makes mysqld do something else than serve";

/// Guarded names.
const NAMES: &[(&str, &str)] = &[
    ("admin_address", PLACE),
    ("admin_port", PLACE),
    ("authentication_policy", ACCESS),
    ("auto_generate_certs", TLS),
    ("basedir", PLACE),
    ("bind_address", PLACE),
    ("binlog_do_db", REPLICATION),
    ("binlog_error_action", DURABILITY),
    ("binlog_expire_logs_auto_purge", ARCHIVE),
    ("binlog_expire_logs_seconds", ARCHIVE),
    ("binlog_format", REPLICATION),
    ("binlog_gtid_simple_recovery", REPLICATION),
    ("binlog_ignore_db", REPLICATION),
    ("binlog_order_commits", REPLICATION),
    ("caching_sha2_password_auto_generate_rsa_keys", TLS),
    ("caching_sha2_password_private_key_path", TLS),
    ("caching_sha2_password_public_key_path", TLS),
    ("character_sets_dir", PLACE),
    ("chroot", PLACE),
    ("console", PLACE),
    ("create_admin_listener_thread", PLACE),
    ("daemonize", MODE),
    ("datadir", PLACE),
    ("disabled_storage_engines", "what cannot be rolled back cannot be rewound"),
    ("enforce_gtid_consistency", REPLICATION),
    ("expire_logs_days", ARCHIVE),
    ("general_log_file", PLACE),
    ("gtid_mode", REPLICATION),
    ("help", MODE),
    ("init_file", CODE),
    ("init_replica", CODE),
    ("init_slave", CODE),
    ("initialize", MODE),
    ("initialize_insecure", MODE),
    ("innodb_checksum_algorithm", DURABILITY),
    ("innodb_data_file_path", PLACE),
    ("innodb_data_home_dir", PLACE),
    ("innodb_directories", PLACE),
    ("innodb_doublewrite", DURABILITY),
    ("innodb_doublewrite_dir", PLACE),
    ("innodb_flush_log_at_trx_commit", DURABILITY),
    ("innodb_flush_method", DURABILITY),
    ("innodb_force_load_corrupted", DURABILITY),
    ("innodb_force_recovery", DURABILITY),
    ("innodb_log_checksums", DURABILITY),
    ("innodb_log_group_home_dir", PLACE),
    ("innodb_page_size", FIXED),
    ("innodb_read_only", ROLE),
    ("innodb_redo_log_archive_dirs", PLACE),
    ("innodb_temp_data_file_path", PLACE),
    ("innodb_temp_tablespaces_dir", PLACE),
    ("innodb_tmpdir", PLACE),
    ("innodb_undo_directory", PLACE),
    ("lc_messages_dir", PLACE),
    ("log_bin", REPLICATION),
    ("log_bin_basename", REPLICATION),
    ("log_bin_index", REPLICATION),
    ("log_error", PLACE),
    ("log_error_services", PLACE),
    ("log_error_suppression_list", PLACE),
    ("log_raw", SECRETS),
    ("log_replica_updates", REPLICATION),
    ("log_slave_updates", REPLICATION),
    ("log_tc", REPLICATION),
    ("lower_case_table_names", FIXED),
    ("mandatory_roles", ACCESS),
    ("master_info_repository", REPLICATION),
    ("mysqlx_bind_address", PLACE),
    ("mysqlx_port", PLACE),
    ("mysqlx_socket", PLACE),
    ("offline_mode", ROLE),
    ("partial_revokes", ACCESS),
    ("performance_schema", OBSERVE),
    ("persisted_globals_load", "settings come from the custom resource alone"),
    ("pid_file", PLACE),
    ("plugin_dir", CODE),
    ("early_plugin_load", CODE),
    ("port", PLACE),
    ("print_defaults", MODE),
    ("read_only", ROLE),
    ("replica_exec_mode", REPLICATION),
    ("replica_load_tmpdir", PLACE),
    ("replica_net_timeout", REPLICATION),
    ("replica_preserve_commit_order", REPLICATION),
    ("replica_skip_errors", REPLICATION),
    ("report_host", IDENTITY),
    ("report_password", IDENTITY),
    ("report_port", IDENTITY),
    ("report_user", IDENTITY),
    ("require_secure_transport", TLS),
    ("rpl_stop_replica_timeout", REPLICATION),
    ("rpl_stop_slave_timeout", REPLICATION),
    ("secure_file_priv", PLACE),
    ("server_id", IDENTITY),
    ("server_id_bits", IDENTITY),
    ("server_uuid", IDENTITY),
    ("sha256_password_auto_generate_rsa_keys", TLS),
    ("sha256_password_private_key_path", TLS),
    ("sha256_password_public_key_path", TLS),
    ("show_replica_auth_info", SECRETS),
    ("show_slave_auth_info", SECRETS),
    ("skip_grant_tables", ACCESS),
    ("skip_name_resolve", "logins must not wait for DNS"),
    ("skip_networking", PLACE),
    ("skip_replica_start", ROLE),
    ("skip_slave_start", ROLE),
    ("slave_exec_mode", REPLICATION),
    ("slave_load_tmpdir", PLACE),
    ("slave_net_timeout", REPLICATION),
    ("slave_preserve_commit_order", REPLICATION),
    ("slave_skip_errors", REPLICATION),
    ("slow_query_log_file", PLACE),
    ("socket", PLACE),
    ("sql_log_bin", REPLICATION),
    ("sql_replica_skip_counter", REPLICATION),
    ("sql_slave_skip_counter", REPLICATION),
    ("super_read_only", ROLE),
    ("sync_binlog", DURABILITY),
    ("sync_master_info", DURABILITY),
    ("sync_relay_log", DURABILITY),
    ("sync_relay_log_info", DURABILITY),
    ("sync_source_info", DURABILITY),
    ("tc_heuristic_recover", REPLICATION),
    ("terminology_use_previous", OBSERVE),
    ("tls_version", TLS),
    ("tmpdir", PLACE),
    ("upgrade", MODE),
    ("user", PLACE),
    ("validate_config", MODE),
];

/// Guarded families: every name that begins so.
const FAMILIES: &[(&str, &str)] = &[
    ("admin_ssl_", TLS),
    ("admin_tls_", TLS),
    ("clone", REPLICATION),
    ("defaults_", MODE),
    ("gtid_executed", REPLICATION),
    ("gtid_purged", REPLICATION),
    ("group_replication", REPLICATION),
    ("keyring_migration_", MODE),
    ("mysqlx_ssl_", TLS),
    ("plugin_load", CODE),
    ("relay_log", REPLICATION),
    ("replicate_", "what is not replicated is lost with the primary (invariant 1)"),
    ("rpl_semi_sync_", DURABILITY),
    ("ssl_", TLS),
];

/// Real settings that are not guarded though they begin like one that is.
const BEGINNINGS_ALLOWED: &[&str] = &["general_log", "lc_messages", "mysqlx", "slow_query_log"];

/// Wrappers that mysqld takes before a name.
const WRAPPERS: &[&str] = &["loose_", "skip_", "disable_", "enable_", "maximum_", "plugin_"];

/// Longest name of a setting that is taken.
const NAME_LENGTH_MAX: usize = 128;
/// Longest value of a setting that is taken.
const VALUE_LENGTH_MAX: usize = 4096;

/// The one spelling of a key: lower case, underscores.
pub fn normalise(key: &str) -> String {
    key.trim().to_ascii_lowercase().replace('-', "_")
}

/// Refuses what a user may not set, with the reason for people.
///
/// # Errors
/// The reason, a part of a sentence: "... may not be set: <reason>".
pub fn check(key: &str) -> Result<(), &'static str> {
    let key = normalise(key);
    if key.is_empty() || key.len() > NAME_LENGTH_MAX {
        return Err("it is no name of a setting");
    }
    if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'.') {
        return Err("it is no name of a setting: letters, digits, underscores and dots only");
    }
    let mut name = key.as_str();
    loop {
        check_unwrapped(name)?;
        match WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
            Some("") => return Err("it is no name of a setting"),
            Some(inner) => name = inner,
            None => return Ok(()),
        }
    }
}

fn check_unwrapped(name: &str) -> Result<(), &'static str> {
    if let Some((_, reason)) = NAMES.iter().find(|(guarded, _)| *guarded == name) {
        return Err(reason);
    }
    if let Some((_, reason)) = FAMILIES.iter().find(|(family, _)| name.starts_with(family)) {
        return Err(reason);
    }
    let abbreviates = NAMES.iter().chain(FAMILIES).any(|(guarded, _)| guarded.starts_with(name));
    if abbreviates && !BEGINNINGS_ALLOWED.contains(&name) {
        return Err("it is the beginning of a guarded setting's name, and mysqld would take it for that");
    }
    Ok(())
}

/// Refuses values that could say more in an option file than the value of one setting.
///
/// # Errors
/// The reason, a part of a sentence.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    if value.len() > VALUE_LENGTH_MAX {
        return Err("its value is too long");
    }
    if value.chars().any(char::is_control) {
        return Err("its value holds a line break or another control character");
    }
    if value.contains('\'') && value.contains('"') {
        return Err("its value holds both kinds of quotes");
    }
    Ok(())
}

/// All guarded names and families (`name_*`) with their reasons, for documentation.
pub fn all() -> impl Iterator<Item = (String, &'static str)> {
    let names = NAMES.iter().map(|(name, reason)| ((*name).to_owned(), *reason));
    names.chain(FAMILIES.iter().map(|(family, reason)| (format!("{family}*"), *reason)))
}

#[cfg(test)]
mod tests {
    use super::{check, check_value};

    #[test]
    fn guarded_keys_are_refused_under_every_name() {
        for key in [
            "sync_binlog",
            "sync-binlog",
            "SYNC_BINLOG",
            "loose_sync_binlog",
            "loose-skip-log-bin",
            "skip_log_bin",
            "disable_log_bin",
            "enable_super_read_only",
            "maximum_sync_binlog",
            "plugin_innodb_doublewrite",
            "innodb_doublew",
            "innodb_flush_log_at_trx",
            "rpl_semi_sync_source_enabled",
            "rpl_semi",
            "rpl_semi_sync_source_timeout",
            "plugin_load_add",
            "plugin-load",
            "replicate_ignore_db",
            "ssl_ca",
            "require_secure_transport",
            "relay_log_recovery",
            "skip_replica_start",
            "skip_grant_tables",
            "skip-grant",
            "port",
            "log_raw",
            "",
            "loose_",
            "max_connections\nskip_grant_tables",
            "[client]",
        ] {
            assert!(check(key).is_err(), "{key:?} must be refused");
        }
    }

    #[test]
    fn ordinary_keys_are_allowed() {
        for key in [
            "max_connections",
            "innodb_buffer_pool_size",
            "loose_innodb_buffer_pool_size",
            "binlog_row_image",
            "event_scheduler",
            "sql_mode",
            "sql_generate_invisible_primary_key",
            "general_log",
            "slow_query_log",
            "skip_show_database",
            "long_query_time",
            "replica_parallel_workers",
            "innodb_doublewrite_pages",
            "performance_schema_digests_size",
            "time_zone",
            "local_infile",
        ] {
            assert_eq!(check(key), Ok(()), "{key:?} must be allowed");
        }
    }

    #[test]
    fn values_cannot_break_out() {
        for value in ["1\nskip_grant_tables", "a\rb", "\0", "'\""] {
            assert!(check_value(value).is_err(), "{value:?}");
        }
        for value in ["ON", "128M", "a # b", "STRICT_TRANS_TABLES,NO_ZERO_DATE", "it's", ""] {
            assert_eq!(check_value(value), Ok(()), "{value:?}");
        }
    }
}
