//! WARN and ERROR lines of the daemons (I8): each is on a list, or it is a finding.
//!
//! mysqld's own lines (`target: mysqld`) are passed on by instance-d at mysqld's own levels and are not looked at: it
//! warns of every lost connection.

use anyhow::Result;
use serde_json::Value;

use crate::Harness;
use crate::harness::OPERATOR_NAMESPACE;

/// What a fault brings along anywhere: somebody could not be reached, asked again, was killed as planned.
const ALWAYS: [&str; 38] = [
    "order not obeyed",
    "order refused or failed",
    "order failed after the start of mysqld",
    "blocked",
    "cut transactions off the binlog",
    "record not written",
    "route not written",
    "status not written",
    "role label not written",
    "event not written",
    "client certificate not read",
    "a watch failed and is tried again",
    "reconciliation failed",
    "NATS is not reachable",
    "event dropped",
    "the receiver's stop was not confirmed",
    "killing mysqld",
    "stopping by SIGKILL",
    "mysqld did not stop in its time",
    "could not observe mysqld after an order",
    "could not reset the replication channel",
    "could not signal mysqld",
    "isolated",
    "the provisioning order was not accepted",
    "leadership is lost",
    "cannot look at the lease",
    "cannot take the lease",
    "cannot renew the lease",
    "the lease has another holder",
    "cannot release the lease",
    "the work of the term did not end in time",
    "the work did not end in time",
    "the seat has another holder",
    "cannot release the seat",
    "the condition was not written",
    "it is looked at again",
    "binlogs were not purged",
    "binlogs that no restore needs stay in the bucket",
];

/// What happened to mysqld, said as an error by its parent: expected where the fault was aimed at it.
const ENDED: [&str; 2] = ["mysqld ended", "could not kill mysqld"];

/// Whether a line is a WARN or ERROR that nobody expects. Lines that name another namespace are somebody else's.
fn is_unexpected(line: &str, namespace: &str, since: jiff::Timestamp, also: &[&str]) -> bool {
    let Ok(parsed) = serde_json::from_str::<Value>(line) else { return false };
    let text = |key: &str| parsed.get(key).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("level"), "WARN" | "ERROR") || text("target") == "mysqld" {
        return false;
    }
    if text("timestamp").parse::<jiff::Timestamp>().is_ok_and(|at| at < since) {
        return false;
    }
    let named = parsed.get("namespace").or_else(|| parsed.get("span")?.get("namespace")).and_then(Value::as_str);
    if named.is_some_and(|named| named != namespace) {
        return false;
    }
    let message = text("message");
    let listed = |list: &[&str]| list.iter().any(|part| message.contains(part));
    // The list of the row may name a part of any field.
    !listed(&ALWAYS) && !listed(&ENDED) && !also.iter().any(|part| line.contains(part))
}

/// WARN and ERROR lines about a namespace since a moment that are on no list.
pub(super) async fn unexpected(
    harness: &Harness,
    namespace: &str,
    since: jiff::Timestamp,
    also: &[&str],
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for place in [OPERATOR_NAMESPACE, namespace] {
        for (name, text) in harness.logs(place).await? {
            let lines = text.lines().filter(|line| is_unexpected(line, namespace, since, also));
            found.extend(lines.map(|line| format!("{name}: {}", line.chars().take(600).collect::<String>())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_new_and_unlisted_lines_are_findings() {
        let since: jiff::Timestamp = "2026-11-20T10:00:00Z".parse().unwrap_or_default();
        let line = |level: &str, at: &str, message: &str, namespace: &str| {
            format!(
                r#"{{"timestamp":"{at}","level":"{level}","message":"{message}","target":"failover_d","span":{{"namespace":"{namespace}"}}}}"#
            )
        };
        let (new, old) = ("2026-11-20T10:00:01.5Z", "2026-11-20T09:59:59Z");
        let unexpected = |line: &str| is_unexpected(line, "ours", since, &["of the row"]);
        assert!(unexpected(&line("WARN", new, "something new", "ours")));
        assert!(unexpected(&line("ERROR", new, "a task panicked", "ours")));
        assert!(!unexpected(&line("INFO", new, "something new", "ours")));
        assert!(!unexpected(&line("WARN", old, "something new", "ours")));
        assert!(!unexpected(&line("WARN", new, "something new", "theirs")));
        assert!(!unexpected(&line("WARN", new, "order not obeyed", "ours")));
        assert!(!unexpected(&line("ERROR", new, "this is of the row", "ours")));
        assert!(!unexpected("no JSON"));
        assert!(!unexpected(&line("WARN", new, "x", "ours").replace("failover_d", "mysqld")));
    }
}
