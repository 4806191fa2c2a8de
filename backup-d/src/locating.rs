//! Whether each MySQLBackupLocation works: a write, a read, a listing and a put that must not overwrite are each tried.

use std::sync::Arc;
use std::time::Duration;

use archive::Store;
use archive::store::Put;
use common::conditions::Finding;
use common::crd::{LocationCheck, MySQLBackupLocation};
use common::daemon::{Patience, everywhere, watching};
use common::location::Location;
use kube::ResourceExt;
use kube::runtime::controller::{Action, Controller};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::controller::{Context, Error};
use crate::objects::{self, time};

/// Our condition.
const REACHABLE: &str = "Reachable";
/// Pace of a location that works, and of one that does not.
const PACE: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(30);
/// What is written. Any bucket that takes it takes more.
const BODY: &str = "pelorus was here\n";

/// Runs until the token is cancelled.
pub async fn run(context: Arc<Context>, token: CancellationToken) {
    let locations = everywhere::<MySQLBackupLocation>(&context.client, context.config.watch_namespace.as_deref());
    let wait = |location: Arc<MySQLBackupLocation>, error: &Error, _: Arc<Context>| {
        warn!(%error, namespace = location.namespace(), location = location.name_any(), "it is looked at again");
        Action::requeue(SOON)
    };
    let controller =
        Controller::new(locations, watching()).trigger_backoff(Patience::default()).reconcile_all_on(context.moves());
    objects::drive(controller.run(look, wait, context), token).await;
}

async fn look(location: Arc<MySQLBackupLocation>, context: Arc<Context>) -> Result<Action, Error> {
    if location.metadata.deletion_timestamp.is_some() || !context.owns(&*location) {
        return Ok(Action::await_change());
    }
    let now = common::clock::now();
    // Our own writes of the status bring us here: a check that is younger than its pace stands.
    let before = location.status.clone().unwrap_or_default();
    let pace = if before.reachable == Some(true) { PACE } else { SOON };
    let is_same = before.observed_generation == location.metadata.generation;
    let age = before.last_check_at.as_ref().map(|at| now.duration_since(at.0)).and_then(|age| age.try_into().ok());
    if let Some(left) = age.and_then(|age: Duration| pace.checked_sub(age)).filter(|left| is_same && !left.is_zero()) {
        return Ok(Action::requeue(left));
    }
    let namespace = location.namespace().unwrap_or_default();
    let (checks, finding) = match Location::resolve(&context.client, &namespace, &location.name_any()).await {
        Ok(resolved) => judged(check(&resolved, &location).await),
        Err(error) => (Vec::new(), Finding::bad(REACHABLE, "LocationIncomplete", error.to_string())),
    };
    let had = before.conditions.iter().find(|condition| condition.type_ == REACHABLE);
    let condition = finding.condition(had, location.metadata.generation, &time(now));
    if had.is_none_or(|had| had.status != condition.status) {
        info!(namespace, location = location.name_any(), reason = finding.reason, detail = finding.message, "looked");
    }
    let status = json!({
        "reachable": finding.holds,
        "lastCheckAt": time(now),
        "checks": checks,
        "observedGeneration": location.metadata.generation,
        "conditions": [condition],
    });
    objects::say(&context.client, &*location, status).await?;
    Ok(Action::requeue(if finding.holds { PACE } else { SOON }))
}

/// The steps in their order; none after one that failed.
async fn check(location: &Location, object: &MySQLBackupLocation) -> Vec<LocationCheck> {
    let prefix = location.prefix.trim_end_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let uid = object.uid().unwrap_or_default();
    let folder = format!("{prefix}{slash}.pelorus-check/{uid}/");
    let key = format!("{folder}{}", common::clock::now().as_millisecond());
    let mut checks = Vec::new();
    let mut tried = |name: &str, problem: Option<String>| {
        let ok = problem.is_none();
        checks.push(LocationCheck { name: name.to_owned(), ok, problem });
        ok
    };
    let store = match Store::new(location) {
        Ok(store) => store,
        Err(error) => {
            tried("Write", Some(error.to_string()));
            return checks;
        }
    };
    let text = |error: archive::store::Error| Some(error.to_string());
    let wrote = match store.put_new(&key, BODY).await {
        Ok(Put::Stored) => None,
        Ok(Put::Exists) => Some(format!("{key} was there already")),
        Err(error) => text(error),
    };
    if !tried("Write", wrote) {
        return checks;
    }
    let read = match store.get(&key).await {
        Ok(Some(body)) if body == BODY => None,
        Ok(Some(_)) => Some("what was read is not what was written".to_owned()),
        Ok(None) => Some("what was written is not there".to_owned()),
        Err(error) => text(error),
    };
    let listed = match store.list(&folder).await {
        Ok(listed) if listed.iter().any(|object| object.key == key) => None,
        Ok(_) => Some("what was written is in no listing".to_owned()),
        Err(error) => text(error),
    };
    let kept = match store.put_new(&key, "another").await {
        Ok(Put::Exists) => None,
        Ok(Put::Stored) => Some("the server overwrites: If-None-Match is not honoured".to_owned()),
        Err(error) => text(error),
    };
    tried("Read", read);
    tried("List", listed);
    tried("ConditionalPut", kept);
    // Archives need no right to delete: what stays is one small object a check.
    if let Err(error) = store.delete(&key).await {
        debug!(%error, key, "it stays");
    }
    checks
}

fn judged(checks: Vec<LocationCheck>) -> (Vec<LocationCheck>, Finding) {
    let failed = checks.iter().find(|check| !check.ok);
    let finding = match failed {
        None => Finding::good(REACHABLE, "Reachable", ""),
        Some(check) => {
            let problem = check.problem.as_deref().unwrap_or_default();
            Finding::bad(REACHABLE, "CheckFailed", format!("{}: {problem}", check.name))
        }
    };
    (checks, finding)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use testkit::S3;

    use super::*;

    fn object() -> MySQLBackupLocation {
        serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLBackupLocation", "metadata": {"name": "l", "uid": "u"},
            "spec": {"s3": {"bucket": "backups"}},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn each_step_is_tried_on_a_real_server_and_what_fails_is_named() {
        let mut server = S3::start();
        let location: Location = serde_json::from_str(&server.location("prod/")).unwrap();
        let (checks, finding) = judged(check(&location, &object()).await);
        assert!(finding.holds, "{checks:?}");
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["Write", "Read", "List", "ConditionalPut"]);
        let other = Location { bucket: "nobody".to_owned(), ..location.clone() };
        let (_, finding) = judged(check(&other, &object()).await);
        assert!(
            !finding.holds && finding.message.starts_with("Write:") && finding.message.contains("NoSuchBucket"),
            "{finding:?}"
        );
        server.kill();
        let (checks, finding) = judged(check(&location, &object()).await);
        assert_eq!((checks.len(), finding.reason), (1, "CheckFailed"));
    }
}
