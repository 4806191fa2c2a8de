//! How far a cluster is that is being restored. Pure.

use common::crd::{MySQLCluster, RESTORED};
use kube::ResourceExt;

use crate::error::{Error, Result};
use crate::progress::View;
use crate::show;
use crate::wait::Look;

/// Conditions of topology-ctl and failover-d.
const SPEC_ACCEPTED: &str = "SpecAccepted";
const PROVISIONED: &str = "Provisioned";
const READY: &str = "Ready";

/// What the object says now: it is there when all its instances serve.
pub fn look(cluster: Option<MySQLCluster>) -> Result<Look<MySQLCluster>> {
    let Some(cluster) = cluster else { return Err(Error::Failed("the MySQLCluster was deleted meanwhile".to_owned())) };
    let name = cluster.name_any();
    let status = cluster.status.clone().unwrap_or_default();
    let refused = |what: &str, message: &str| {
        let message = format!("MySQLCluster {name}: {what}: {message}");
        Err(Error::Refused(format!(
            "{message}\nIt stays, and serves nothing; `kubectl delete mysqlcluster {name}` takes it away"
        )))
    };
    let restored = status.condition(RESTORED);
    if let Some(restored) = restored.filter(|it| matches!(it.reason.as_str(), "RestoreFailed" | "HoldsData")) {
        return refused(&restored.reason, &restored.message);
    }
    if let Some(accepted) = status.condition(SPEC_ACCEPTED).filter(|accepted| accepted.status == "False") {
        return refused(&accepted.reason, &accepted.message);
    }
    let all = cluster.spec.instances;
    let ready = status.condition(READY);
    let is_current = |generation: Option<i64>| generation >= cluster.metadata.generation;
    if status.ready.as_deref() == Some(&format!("{all}/{all}"))
        && ready.is_some_and(|ready| ready.status == "True" && is_current(ready.observed_generation))
    {
        return Ok(Look::Done(cluster));
    }
    let words = |type_| status.condition(type_).map(|condition| condition.message.clone()).unwrap_or_default();
    let serve = status.ready.clone().unwrap_or_else(|| format!("0/{all}"));
    let view = match restored {
        None => View { detail: words(PROVISIONED), ..View::step("Starting the first instance") },
        Some(restored) if restored.status == "True" => {
            View { detail: words(PROVISIONED), ..View::step(format!("Restored, {serve} instances serve")) }
        }
        // The message begins with the step, which is news, and goes on with how far that is.
        Some(restored) => {
            let (step, detail) = restored.message.split_once(", ").unwrap_or((&restored.message, ""));
            View { step: format!("Restoring {step}"), detail: detail.to_owned(), percent: percent(detail) }
        }
    };
    Ok(Look::Not(view))
}

/// Of `<done> of <total> bytes`.
fn percent(text: &str) -> Option<u64> {
    let (done, total) = text.strip_suffix(" bytes")?.split_once(" of ")?;
    done.parse::<u64>().ok()?.checked_mul(100)?.checked_div(total.parse().ok()?).map(|percent| percent.min(100))
}

/// What was made.
pub fn made(cluster: &MySQLCluster) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let restored = status.condition(RESTORED).map(|condition| condition.message.clone());
    show::facts(&[
        ("cluster", Some(cluster.name_any())),
        ("restored", restored),
        ("ready", status.ready),
        ("primary", status.primary),
        ("version", status.version),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2026-11-20T10:00:00Z"})
    }

    fn cluster(ready: &str, conditions: &[Value]) -> MySQLCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "copy", "generation": 1}, "spec": {"instances": 3},
            "status": {"ready": ready, "primary": "copy-0", "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn it_is_followed_until_it_serves_or_is_refused() {
        let restoring = |message| condition("Restored", "False", "Restoring", message);
        let restored = condition("Restored", "True", "Restored", "u:1-5 of prod/n/shop/u/ in 1.0 s");
        let ready = |status, generation: i64| {
            let mut ready = condition("Ready", status, "Serving", "");
            ready.as_object_mut().unwrap().insert("observedGeneration".to_owned(), json!(generation));
            ready
        };
        for (at, conditions, wanted) in [
            ("0/3", vec![], "Starting the first instance"),
            (
                "0/3",
                vec![condition("Provisioned", "False", "", "copy-0 waits for its volume")],
                "Starting the first instance: copy-0 waits for its volume",
            ),
            (
                "0/3",
                vec![restoring("copy-0: replaying, 3 of 12 bytes")],
                "Restoring copy-0: replaying: 3 of 12 bytes, 25 %",
            ),
            ("0/3", vec![restoring("copy-0: replaying")], "Restoring copy-0: replaying"),
            ("1/3", vec![restored.clone(), ready("False", 1)], "Restored, 1/3 instances serve"),
            ("3/3", vec![restored.clone(), ready("True", 0)], "Restored, 3/3 instances serve"),
            ("3/3", vec![restored.clone(), ready("True", 1)], "done"),
            (
                "0/3",
                vec![condition("Restored", "False", "RestoreFailed", "the archive reaches to x")],
                "4: MySQLCluster copy: RestoreFailed: the archive reaches to x",
            ),
            (
                "0/3",
                vec![condition("Restored", "False", "HoldsData", "volumes")],
                "4: MySQLCluster copy: HoldsData: volumes",
            ),
            (
                "0/3",
                vec![condition("SpecAccepted", "False", "GuardedSetting", "no")],
                "4: MySQLCluster copy: GuardedSetting: no",
            ),
        ] {
            let said = match look(Some(cluster(at, &conditions))) {
                Ok(Look::Done(_)) => "done".to_owned(),
                Ok(Look::Not(view)) => view.line(),
                Err(error) => format!("{}: {}", error.code(), error.to_string().lines().next().unwrap()),
            };
            assert_eq!(said, wanted);
        }
        assert!(look(None).is_err());
        let told = made(&cluster("3/3", &[restored]));
        assert!(told.contains("restored   u:1-5 of prod/n/shop/u/ in 1.0 s\n"), "{told}");
    }

    #[test]
    fn parts_are_of_a_hundred() {
        for (text, wanted) in [
            ("3 of 12 bytes", Some(25)),
            ("7 of 0 bytes", None),
            ("9 of 3 bytes", Some(100)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(percent(text), wanted, "{text}");
        }
    }
}
