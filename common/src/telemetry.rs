//! Logs: lines of JSON (or text for people) on standard error, one line of build information at the start.
//!
//! | variable | meaning |
//! |---|---|
//! | `PELORUS_LOG` | filter, as in `info,kube_client=warn`; by default `info` without kube_client and the watches of kube_runtime, whose errors whoever called them tells |
//! | `PELORUS_LOG_FORMAT` | `json` (default) or `text` |
//!
//! Lines of the `log` crate (rustls, hyper) come along. A panic is logged as an ERROR before anything else happens.

use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Variable with the filter.
pub const FILTER: &str = "PELORUS_LOG";
/// Variable with the format.
pub const FORMAT: &str = "PELORUS_LOG_FORMAT";

/// What is logged when nothing is said about it.
const FILTER_DEFAULT: &str = "info,kube_client=off,kube_runtime::watcher=off";

/// Commit that was built, when the build says so.
pub const COMMIT: &str = match option_env!("PELORUS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Why there will be no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `PELORUS_LOG` is no filter.
    #[error("{FILTER} is not a filter")]
    Filter(#[from] ParseError),
    /// `PELORUS_LOG_FORMAT` is neither of the two.
    #[error("{FORMAT} is {0:?}, must be json or text")]
    Format(String),
    /// Somebody else was faster.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the process and says what is running. To be called once, first thing in `main`.
pub fn init(daemon: &str) -> Result<(), Error> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let filter = EnvFilter::try_new(variable(FILTER).as_deref().unwrap_or(FILTER_DEFAULT))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match variable(FORMAT).as_deref() {
        None | Some("json") => lines.json().flatten_event(true).with_span_list(false).finish().try_init()?,
        Some("text") => lines.with_ansi(false).finish().try_init()?,
        Some(other) => return Err(Error::Format(other.to_owned())),
    }
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        tracing::error!(panic = %what, "a task panicked");
        default(what);
    }));
    tracing::info!(daemon, version = env!("CARGO_PKG_VERSION"), commit = COMMIT, "started");
    Ok(())
}
