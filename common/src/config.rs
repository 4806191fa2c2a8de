//! Configuration of a daemon: defaults, then `/etc/pelorus/<daemon>.json`, then variables `PELORUS_...`.
//!
//! The variable of a field is its path in upper case, joined by underscores: `PELORUS_NATS_URL` is `nats_url` or, in a
//! nested structure, `nats.url`. The default tells the type: where it is text or absent the variable is taken as it is
//! (figment alone would read `12345` as a number and then fail on a text field), otherwise it is parsed.
//!
//! Unknown variables are refused here, unknown keys of the file by `#[serde(deny_unknown_fields)]` on the structure.
//! Secrets have no place in a configuration, only the paths of their files: it is printed once, when loaded.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Json, Serialized};
use figment::value::{Dict, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the variables of a configuration start with.
const PREFIX: &str = "PELORUS_";

/// Variables with this prefix that belong to something else: logging, and where tools keep their files.
const OTHERS: [&str; 8] = [
    crate::telemetry::FILTER,
    crate::telemetry::FORMAT,
    crate::failpoint::POINTS_VARIABLE,
    crate::failpoint::FOLDER_VARIABLE,
    crate::clock::OFFSET_VARIABLE,
    "PELORUS_CACHE",
    "PELORUS_DEV_DIR",
    "PELORUS_MYSQL_ROOT",
];

/// Why the configuration is no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable that names no field.
    #[error("unknown variable {0}")]
    Variable(String),
    /// Wrong type, unknown key, broken file. figment's text names the key and where it comes from.
    #[error("bad configuration: {0}")]
    Figment(#[from] Box<figment::Error>),
}

/// Loads and prints the configuration of a daemon.
pub fn load<T: Default + Serialize + DeserializeOwned>(daemon: &str) -> Result<T, Error> {
    let file = PathBuf::from(format!("/etc/pelorus/{daemon}.json"));
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = load_from::<T>(&file, variables.collect())?;
    let shown = serde_json::to_string(&config).unwrap_or_default();
    tracing::info!(configuration = %shown, "configuration loaded");
    Ok(config)
}

/// Loads a configuration from a file, if it exists, and variables.
pub fn load_from<T: Default + Serialize + DeserializeOwned>(
    file: &Path,
    mut variables: Vec<(String, String)>,
) -> Result<T, Error> {
    let defaults = Figment::from(Serialized::defaults(T::default()));
    let known: Dict = defaults.extract().map_err(Box::new)?;
    let mut figment = defaults;
    // A file that cannot be looked at is an error, told by the reading; only one that is not there is not.
    if !matches!(file.try_exists(), Ok(false)) {
        figment = figment.merge(Json::file_exact(file));
    }
    without_service_links(&mut variables);
    for (name, text) in variables {
        let Some(field) = name.strip_prefix(PREFIX).filter(|_| !OTHERS.contains(&name.as_str())) else { continue };
        let (path, default) = find(&known, &field.to_lowercase()).ok_or_else(|| Error::Variable(name.clone()))?;
        let value = match default {
            Value::String(..) | Value::Char(..) | Value::Empty(..) => Value::from(text),
            // Parsing a value cannot fail: what is nothing else is text.
            Value::Bool(..) | Value::Num(..) | Value::Dict(..) | Value::Array(..) => match text.parse() {
                Ok(value) => value,
                Err(never) => match never {},
            },
        };
        figment = figment.merge(Serialized::default(&path, value));
    }
    Ok(figment.extract().map_err(Box::new)?)
}

/// Kubernetes sets variables for each Service, `PELORUS_NATS_SERVICE_HOST` and `PELORUS_NATS_PORT` for one named
/// `pelorus-nats`, unless the pod has `enableServiceLinks: false`. They are no configuration.
fn without_service_links(variables: &mut Vec<(String, String)>) {
    let services: Vec<String> =
        variables.iter().filter_map(|(name, _)| name.strip_suffix("_SERVICE_HOST")).map(str::to_owned).collect();
    variables.retain(|(name, _)| {
        !services.iter().any(|service| {
            let rest = name.strip_prefix(service.as_str()).unwrap_or_default();
            rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_")
        })
    });
}

/// The field that a name in lower case with underscores means: its path with dots, and its default.
fn find<'a>(known: &'a Dict, name: &str) -> Option<(String, &'a Value)> {
    known.iter().find_map(|(key, value)| match (name.strip_prefix(&snake_case(key))?, value) {
        ("", value) => Some((key.clone(), value)),
        (rest, Value::Dict(_, inner)) => {
            let (path, value) = find(inner, rest.strip_prefix('_')?)?;
            Some((format!("{key}.{path}"), value))
        }
        _ => None,
    })
}

fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        http_port: u16,
        name: String,
        optional: Option<String>,
        wake: bool,
        nats: Nats,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Nats {
        url: Option<String>,
        ca_file: Option<PathBuf>,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { http_port: 8080, name: "x".into(), optional: None, wake: true, nats: Nats::default() }
        }
    }

    fn load(json: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        if let Some(json) = json {
            std::fs::write(&file, json).unwrap();
        }
        load_from(&file, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn later_sources_win() {
        assert_eq!(load(None, &[]).unwrap(), Config::default());
        let file = r#"{"http_port": 1, "name": "file", "nats": {"url": "a", "caFile": "/ca"}}"#;
        let config = load(Some(file), &[("PELORUS_NAME", "12345"), ("PELORUS_NATS_URL", "tls://n:1"), ("HOME", "/")]);
        let nats = Nats { url: Some("tls://n:1".into()), ca_file: Some("/ca".into()) };
        assert_eq!(config.unwrap(), Config { http_port: 1, name: "12345".into(), nats, ..Config::default() });
    }

    #[test]
    fn variables_have_the_type_of_the_default() {
        let variables = [
            ("PELORUS_HTTP_PORT", "9"),
            ("PELORUS_WAKE", "false"),
            ("PELORUS_OPTIONAL", "true"),
            ("PELORUS_NATS_CA_FILE", "/x"),
            ("PELORUS_LOG", "debug"),
        ];
        let config = load(None, &variables).unwrap();
        assert_eq!((config.http_port, config.wake, config.optional.as_deref()), (9, false, Some("true")));
        assert_eq!(config.nats.ca_file, Some("/x".into()));
        assert!(load(None, &[("PELORUS_HTTP_PORT", "many")]).is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(
            matches!(load(None, &[("PELORUS_NATS_PORTS", "1")]), Err(Error::Variable(name)) if name == "PELORUS_NATS_PORTS")
        );
        assert!(load(Some(r#"{"htttp_port": 1}"#), &[]).unwrap_err().to_string().contains("htttp_port"));
        assert!(load(Some("{"), &[]).is_err());
    }

    #[test]
    fn service_links_of_kubernetes_are_ignored() {
        let links = [
            ("PELORUS_NATS_SERVICE_HOST", "10.0.0.1"),
            ("PELORUS_NATS_SERVICE_PORT_CLIENT", "4222"),
            ("PELORUS_NATS_PORT", "tcp://10.0.0.1:4222"),
            ("PELORUS_NATS_PORT_4222_TCP_ADDR", "10.0.0.1"),
            ("PELORUS_HTTP_PORT", "7"),
        ];
        assert_eq!(load(None, &links).unwrap().http_port, 7);
    }
}
