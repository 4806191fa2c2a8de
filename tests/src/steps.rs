//! The steps of a change of primary, from the lines that failover-d logs: what happened how long after the fault.
//!
//! The line `operation ended` holds the steps as failover-d saw them, counted from its decision; that decision is
//! `detected` here. Orders are told apart by their kind, and the first that was obeyed counts, whoever of the replicas of
//! failover-d gave it. All clocks are this host's.

use std::collections::BTreeMap;

use anyhow::Result;
use common::names::daemon;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::Cluster;
use crate::harness::OPERATOR_NAMESPACE;

/// Operations that change the primary, by the beginning of their ids.
const CHANGES: [&str; 2] = ["failover-", "switchover-"];

/// Milliseconds from the fault to each step.
pub type Steps = BTreeMap<String, f64>;

/// `claimed 11 ms, answered 30 ms` as numbers.
fn listed(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.split(", ").filter_map(|part| {
        let (name, rest) = part.split_once(' ')?;
        Some((name, rest.strip_suffix(" ms")?.parse().ok()?))
    })
}

/// The steps that a line names, in milliseconds after the fault.
fn steps_of(line: &str, namespace: &str, cluster: &str, fault: jiff::Timestamp) -> Option<Vec<(String, f64)>> {
    let parsed: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| parsed.get(key).and_then(Value::as_str);
    let about = |key: &str| text(key).or_else(|| parsed.get("span")?.get(key)?.as_str());
    if about("namespace")? != namespace || about("cluster")? != cluster {
        return None;
    }
    let at: jiff::Timestamp = text("timestamp")?.parse().ok()?;
    let after = at.duration_since(fault).as_secs_f64() * 1000.0;
    let steps = match text("message")? {
        "order obeyed" => vec![(format!("{} obeyed", text("order")?), after)],
        "operation ended" if CHANGES.iter().any(|kind| text("operation").is_some_and(|id| id.starts_with(kind))) => {
            let steps: Vec<(&str, f64)> = listed(text("steps")?).collect();
            let detected = after - steps.last()?.1;
            let mut all = vec![("detected".to_owned(), detected)];
            all.extend(steps.into_iter().map(|(name, since)| (name.to_owned(), detected + since)));
            all
        }
        _ => return None,
    };
    (after >= 0.0).then_some(steps)
}

/// What failover-d said of a cluster since a fault.
///
/// # Errors
/// Those of the API server; replicas whose node is away are passed over.
pub async fn since(cluster: &Cluster, fault: jiff::Timestamp) -> Result<Steps> {
    let pods: Api<Pod> = Api::namespaced(cluster.harness.client.clone(), OPERATOR_NAMESPACE);
    let seconds = jiff::Timestamp::now().duration_since(fault).as_secs() + 2;
    let mut steps = Steps::new();
    for pod in cluster.harness.daemon_pods(daemon::FAILOVER_D).await? {
        let what = LogParams { since_seconds: Some(seconds), ..LogParams::default() };
        let text = pods.logs(&pod.name_any(), &what).await.unwrap_or_default();
        let lines = text.lines().filter_map(|line| steps_of(line, &cluster.namespace, &cluster.name, fault));
        for (name, milliseconds) in lines.flatten() {
            steps.entry(name).and_modify(|first| *first = first.min(milliseconds)).or_insert(milliseconds);
        }
    }
    Ok(steps)
}

/// The mean of each step over several runs, in their order, with how many runs had it.
pub fn means(runs: &[Steps]) -> Vec<(String, f64, u32)> {
    let mut sums: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
    for (name, milliseconds) in runs.iter().flatten() {
        let (sum, count) = sums.entry(name).or_default();
        *sum += milliseconds;
        *count += 1;
    }
    let mut means: Vec<_> =
        sums.into_iter().map(|(name, (sum, count))| (name.to_owned(), sum / f64::from(count), count)).collect();
    means.sort_by(|one, other| one.1.total_cmp(&other.1));
    means
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]

    use super::*;

    #[test]
    fn steps_are_counted_from_the_fault() {
        let fault: jiff::Timestamp = "2026-11-20T10:00:00Z".parse().unwrap_or_default();
        let line = |rest: &str| {
            format!(r#"{{"timestamp":"2026-11-20T10:00:00.100Z","span":{{"namespace":"n","cluster":"c"}},{rest}}}"#)
        };
        let of = |rest: &str| steps_of(&line(rest), "n", "c", fault);
        let step = |name: &str, after: f64| (name.to_owned(), after);
        assert_eq!(of(r#""message":"order obeyed","order":"fence""#), Some(vec![step("fence obeyed", 100.0)]));
        let ended = r#""message":"operation ended","operation":"failover-7","steps":"claimed 8 ms, recorded 60 ms""#;
        let wanted = vec![step("detected", 40.0), step("claimed", 48.0), step("recorded", 100.0)];
        assert_eq!(of(ended), Some(wanted));
        assert_eq!(of(&ended.replace("failover-7", "reconfigure-7")), None);
        assert_eq!(steps_of(&line(ended), "n", "another", fault), None);
        assert_eq!(of(r#""message":"watching""#), None);
    }

    #[test]
    fn means_are_in_the_order_of_the_steps() {
        let run = |pairs: &[(&str, f64)]| pairs.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect::<Steps>();
        let runs = [run(&[("routed", 90.0), ("claimed", 10.0)]), run(&[("claimed", 30.0)])];
        let means = means(&runs);
        assert_eq!(means, [("claimed".to_owned(), 20.0, 2), ("routed".to_owned(), 90.0, 1)]);
    }
}
