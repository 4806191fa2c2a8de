//! Named points between the steps of an operation, at which a test makes a daemon die, wait, or see an error.
//!
//! ```text
//! PELORUS_FAILPOINTS="record.after.failover.fencing=kill; order.before.promote=pause(30s); route.before=error"
//! PELORUS_FAILPOINTS_DIR=/run/failpoints     where it is noted that a point was passed
//! ```
//!
//! Without `PELORUS_FAILPOINTS` a point does nothing: one look at a value that was read when the process began. Each
//! point strikes once per folder, so that a daemon that was killed there gets past it when it is started again; without
//! a folder, once per process. A name that ends in `*` stands for all points that begin like it (and strikes once).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Which points are armed, and with what.
pub const POINTS_VARIABLE: &str = "PELORUS_FAILPOINTS";
/// Folder in which passed points are noted.
pub const FOLDER_VARIABLE: &str = "PELORUS_FAILPOINTS_DIR";

/// The error of a point that was told to fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {0}")]
pub struct Injected(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Pause(Duration),
    Error,
}

#[derive(Debug)]
struct Armed {
    points: Vec<(String, Action)>,
    passed: Mutex<Vec<String>>,
    folder: Option<PathBuf>,
}

static POINTS: OnceLock<Option<Armed>> = OnceLock::new();

fn parse(text: &str) -> Result<Vec<(String, Action)>, String> {
    let points = text.split(';').map(str::trim).filter(|point| !point.is_empty());
    points
        .map(|point| {
            let (name, action) = point.split_once('=').ok_or_else(|| format!("{point:?} has no action"))?;
            let action = match action.trim() {
                "kill" => Action::Kill,
                "error" => Action::Error,
                other => {
                    let seconds = other.strip_prefix("pause(").and_then(|rest| rest.strip_suffix("s)"));
                    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
                    Action::Pause(Duration::from_secs(seconds.ok_or_else(|| format!("{other:?} is no action"))?))
                }
            };
            Ok((name.trim().to_owned(), action))
        })
        .collect()
}

fn points() -> Option<&'static Armed> {
    let read = || {
        let text = std::env::var(POINTS_VARIABLE).ok()?;
        match parse(&text) {
            Ok(points) => {
                tracing::warn!(text, "failpoints are armed");
                let folder = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
                Some(Armed { points, passed: Mutex::default(), folder })
            }
            Err(error) => {
                tracing::error!(error, "PELORUS_FAILPOINTS is not understood and does nothing");
                None
            }
        }
    };
    POINTS.get_or_init(read).as_ref()
}

impl Armed {
    /// What to do at this point, the first time that it is reached.
    fn strike(&self, name: &str) -> Option<Action> {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        let (pattern, action) = self.points.iter().find(|(pattern, _)| matches(pattern))?;
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.contains(pattern) || !self.folder.as_deref().is_none_or(|folder| first(folder, pattern)) {
            return None;
        }
        passed.push(pattern.clone());
        Some(*action)
    }
}

/// Notes that a point was reached; false when that was noted before.
fn first(folder: &Path, pattern: &str) -> bool {
    std::fs::OpenOptions::new().write(true).create_new(true).open(folder.join(pattern.replace('*', "+"))).is_ok()
}

/// A point between two steps.
///
/// # Errors
/// When the point was told to fail.
pub async fn hit(name: &str) -> Result<(), Injected> {
    let Some(action) = points().and_then(|points| points.strike(name)) else { return Ok(()) };
    tracing::warn!(failpoint = name, ?action, "failpoint");
    match action {
        Action::Kill => std::process::abort(),
        Action::Pause(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        Action::Error => Err(Injected(name.to_owned())),
    }
}

/// The same in code that may block: a pause is one of the thread.
///
/// # Errors
/// When the point was told to fail.
pub fn hit_blocking(name: &str) -> Result<(), Injected> {
    let Some(action) = points().and_then(|points| points.strike(name)) else { return Ok(()) };
    tracing::warn!(failpoint = name, ?action, "failpoint");
    match action {
        Action::Kill => std::process::abort(),
        Action::Pause(pause) => {
            std::thread::sleep(pause);
            Ok(())
        }
        Action::Error => Err(Injected(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Action, Armed, parse};
    use std::sync::Mutex;
    use std::time::Duration;

    #[test]
    fn points_are_parsed_or_refused_as_a_whole() {
        let points = parse("a.b=kill; c = pause(30s);d=error;").unwrap();
        let wanted = [("a.b", Action::Kill), ("c", Action::Pause(Duration::from_secs(30))), ("d", Action::Error)];
        assert_eq!(points, wanted.map(|(name, action)| (name.to_owned(), action)));
        for bad in ["a", "a=explode", "a=pause(x)", "a=kill;b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_point_strikes_once_also_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let start = || Armed {
            points: parse("order.*=kill;route=error").unwrap(),
            passed: Mutex::default(),
            folder: Some(folder.path().to_owned()),
        };
        let points = start();
        assert_eq!(points.strike("record"), None);
        assert_eq!(points.strike("order.before.fence"), Some(Action::Kill));
        assert_eq!(points.strike("order.after.fence"), None);
        let points = start();
        assert_eq!(points.strike("order.before.fence"), None);
        assert_eq!(points.strike("route"), Some(Action::Error));
        assert_eq!(points.strike("route"), None);
    }
}
