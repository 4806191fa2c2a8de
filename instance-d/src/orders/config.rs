//! Settings of a user: what mysqld thinks of them, and setting the dynamic ones.
//!
//! `check` changes nothing: the whole candidate goes through `mysqld --validate-config`, and each key is asked for by
//! setting it to the value it has, which only a read-only variable refuses (error 1238).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::guarded;
use common::instance::{ConfigAnswer, ConfigRequest, InstanceConfig, Refusal, SettingVerdict};
use common::mysql::{Error as MysqlError, Session};
use common::sql::{Identifier, quote_str};

use super::answer;
use crate::data::write_private;
use crate::error::{Error, Result};
use crate::instance::{Instance, STATEMENT};
use crate::{process, settings};

/// Longest `--validate-config`.
const VALIDATE: Duration = Duration::from_secs(60);
/// Longest SET of a dynamic variable: resizing the buffer pool goes on behind it.
const SET: Duration = Duration::from_secs(10);
/// `ER_INCORRECT_GLOBAL_LOCAL_VAR`: read-only.
const READ_ONLY: u16 = 1238;
/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN: u16 = 1193;

/// Verdicts, without a change.
///
/// # Errors
/// The refusal, when mysqld does not answer.
pub async fn check(instance: &Arc<Instance>, request: &ConfigRequest) -> Result<ConfigAnswer, Refusal> {
    let begun = Instant::now();
    let done = judge(instance, request).await;
    answer(instance, "config-check", begun, done)
}

/// Sets the dynamic ones that are not in force, unless the whole is refused.
///
/// # Errors
/// The refusal, when mysqld does not answer.
pub async fn apply(instance: &Arc<Instance>, request: &ConfigRequest) -> Result<ConfigAnswer, Refusal> {
    let begun = Instant::now();
    let done = async {
        let _pass = instance.gate.enter(false, true).await?;
        let mut answer = judge(instance, request).await?;
        if answer.refused.is_some() {
            return Ok(answer);
        }
        let mut hands = instance.hands().await?;
        let wanted = settings::normalised(&request.settings);
        for (key, verdict) in &mut answer.settings {
            if *verdict == SettingVerdict::Dynamic
                && let Some(value) = wanted.get(&guarded::normalise(key))
            {
                *verdict = set(hands.session()?, &guarded::normalise(key), value).await?;
            }
        }
        Ok(answer)
    };
    let done = done.await;
    answer(instance, "config-apply", begun, done)
}

async fn judge(instance: &Arc<Instance>, request: &ConfigRequest) -> Result<ConfigAnswer> {
    let mut verdicts = BTreeMap::new();
    let mut candidate = BTreeMap::new();
    for (key, value) in &request.settings {
        match settings::check(key, value) {
            Ok(()) => {
                candidate.insert(key.clone(), value.clone());
            }
            Err(error) => {
                verdicts.insert(key.clone(), SettingVerdict::Invalid { reason: error.to_string() });
            }
        }
    }
    let mut refused = validate(instance, candidate.clone()).await?;
    if let Some(words) = &refused {
        // Which one? mysqld stops at the first: ask for each alone.
        let mut found = false;
        for (key, value) in candidate.clone() {
            let alone = BTreeMap::from([(key.clone(), value)]);
            if let Some(reason) = validate(instance, alone).await? {
                found = true;
                candidate.remove(&key);
                verdicts.insert(key, SettingVerdict::Invalid { reason });
            }
        }
        if !found {
            tracing::warn!(%words, "mysqld refuses the settings together but none alone");
        }
    }
    let mut hands = instance.hands().await?;
    for (key, value) in candidate {
        let verdict = compare(hands.session()?, &guarded::normalise(&key), &value).await?;
        verdicts.insert(key, verdict);
    }
    if refused.is_none() && verdicts.values().any(|verdict| matches!(verdict, SettingVerdict::Invalid { .. })) {
        refused = Some("at least one setting is not valid".to_owned());
    }
    Ok(ConfigAnswer { settings: verdicts, refused })
}

/// What mysqld says against these settings.
async fn validate(instance: &Instance, settings: BTreeMap<String, String>) -> Result<Option<String>> {
    let keys: Vec<String> = settings.keys().map(|key| guarded::normalise(key)).collect();
    let config = InstanceConfig { settings, ..instance.config() };
    let text = settings::render(&instance.layout, &instance.identity, &config)?;
    let path = instance.layout.run.join(format!("check-{}.cnf", uuid::Uuid::new_v4()));
    write_private(&path, &text)?;
    let arguments = [
        format!("--defaults-file={}", path.display()),
        "--validate-config".to_owned(),
        "--log-error-verbosity=2".to_owned(),
    ];
    let run = process::run(&instance.layout.mysqld, &arguments, VALIDATE).await;
    // Left behind it would only be litter in a scratch directory.
    let _ = std::fs::remove_file(&path);
    let (status, said) = run?;
    Ok(complaint(&said, status.success(), &keys))
}

/// Errors count when the check failed; a warning counts when it says that one of the asked values was bent.
fn complaint(said: &str, success: bool, keys: &[String]) -> Option<String> {
    let words = |line: &str, level: &str| line.split_once(level).map(|(_, text)| text.trim().to_owned());
    if !success {
        let errors: Vec<String> =
            said.lines().filter_map(|line| words(line, "[ERROR]")).filter(|text| !text.contains("Aborting")).collect();
        return Some(if errors.is_empty() {
            "mysqld refuses the configuration without a word".to_owned()
        } else {
            errors.join("; ")
        });
    }
    said.lines().filter_map(|line| words(line, "[Warning]")).find(|text| {
        let names = text.to_ascii_lowercase().replace('-', "_");
        text.contains("adjusted") && keys.iter().any(|key| names.contains(&format!("'{key}'")))
    })
}

async fn compare(session: &mut Session, key: &str, value: &str) -> Result<SettingVerdict> {
    let invalid = |reason: String| SettingVerdict::Invalid { reason };
    let name = match Identifier::new(key.strip_prefix("loose_").unwrap_or(key)) {
        Ok(name) => name,
        Err(error) => return Ok(invalid(error.to_string())),
    };
    let sql = format!(
        "SELECT VARIABLE_VALUE FROM performance_schema.global_variables WHERE VARIABLE_NAME={}",
        quote_str(name.as_str(), false)
    );
    let Some(current) = session.first::<(String,)>(&sql, STATEMENT).await? else {
        // An option without a variable (or one that only exists at start): mysqld took it, so it counts from a restart.
        return Ok(SettingVerdict::NeedsRestart);
    };
    if settings::canonical(&current.0) == settings::canonical(value) {
        return Ok(SettingVerdict::InForce);
    }
    let quoted = name.quoted();
    match session.exec(&format!("SET GLOBAL {quoted}=@@GLOBAL.{quoted}"), SET).await {
        Ok(()) => Ok(SettingVerdict::Dynamic),
        Err(error) if error.code() == Some(READ_ONLY) => Ok(SettingVerdict::NeedsRestart),
        Err(error) if error.code() == Some(UNKNOWN) => Ok(invalid(said(&error))),
        // Its own value is refused: it cannot be set while the server runs.
        Err(error) if error.code().is_some() => Ok(SettingVerdict::NeedsRestart),
        Err(error) => Err(error.into()),
    }
}

async fn set(session: &mut Session, key: &str, value: &str) -> Result<SettingVerdict> {
    let name = Identifier::new(key.strip_prefix("loose_").unwrap_or(key))
        .map_err(|error| Error::Configuration(error.to_string()))?;
    let literal = settings::plain_number(value).unwrap_or_else(|| quote_str(value, false));
    match session.exec(&format!("SET GLOBAL {}={literal}", name.quoted()), SET).await {
        Ok(()) => Ok(SettingVerdict::InForce),
        Err(error) if error.code() == Some(READ_ONLY) => Ok(SettingVerdict::NeedsRestart),
        Err(error) if error.code().is_some() => Ok(SettingVerdict::Invalid { reason: said(&error) }),
        Err(error) => Err(error.into()),
    }
}

/// mysqld's own words.
fn said(error: &MysqlError) -> String {
    match error {
        MysqlError::Server { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn errors_and_bent_values_are_complaints() {
        let unknown = "2026-01-01T00:00:00Z 0 [ERROR] [MY-000067] [Server] unknown variable 'x=1'.\n\
                       2026-01-01T00:00:00Z 0 [ERROR] [MY-010119] [Server] Aborting\n";
        assert_eq!(complaint(unknown, false, &[]), Some("[MY-000067] [Server] unknown variable 'x=1'.".to_owned()));
        let bent =
            "0 [Warning] [MY-000081] [Server] option 'max_connections': unsigned value 999999 adjusted to 100000.\n";
        assert!(complaint(bent, true, &["max_connections".to_owned()]).is_some());
        assert_eq!(complaint(bent, true, &["sort_buffer_size".to_owned()]), None);
        assert_eq!(complaint("0 [Warning] [MY-1] [Server] something else\n", true, &["something".to_owned()]), None);
    }
}
