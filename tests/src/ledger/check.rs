//! What clients were told, against what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Entry, Log, Outcome, SCHEMA};
use crate::Cluster;

/// Longest wait until all instances have executed the same.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Most comparisons until one meets a primary that commits nothing meanwhile.
const COMPARISONS: u32 = 5;

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged rows that are not there.
    pub lost: Vec<String>,
    /// Rows that are there although they were refused.
    pub phantom: Vec<String>,
    /// Checksums of the ledger's table that differ between instances at equal GTIDs.
    pub differing: Vec<String>,
    /// Transactions that an instance has and the primary has not.
    pub errant: Vec<String>,
}

impl Verdict {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Asks for each row of the ledger as one text, its uuid first.
pub fn question() -> String {
    format!("SELECT CONCAT_WS(' ', uuid, writer, seq, SHA2(payload, 256)) FROM {SCHEMA}.entries")
}

/// All rows that an instance has.
///
/// # Errors
/// When it cannot be asked.
pub async fn rows(cluster: &Cluster, pod: &str) -> Result<BTreeSet<String>> {
    let rows: Vec<(String,)> = cluster.rows(pod, &question()).await?;
    Ok(rows.into_iter().map(|(row,)| row).collect())
}

fn judge(entries: &[Entry], present: &BTreeSet<String>) -> Verdict {
    let name =
        |entry: &Entry| format!("{}/{} {} answered at {:?}", entry.writer, entry.seq, entry.uuid, entry.answered);
    let mut verdict = Verdict::default();
    for entry in entries {
        match (&entry.outcome, present.contains(&entry.uuid)) {
            (Outcome::Ok, false) => verdict.lost.push(name(entry)),
            (Outcome::Refused(_), true) => verdict.phantom.push(name(entry)),
            (Outcome::Ok, true) | (Outcome::Refused(_), false) | (Outcome::Unknown(_), _) => {}
        }
    }
    verdict
}

fn differing(checksums: &BTreeMap<String, Option<u64>>) -> Vec<String> {
    let distinct: BTreeSet<_> = checksums.values().collect();
    if distinct.len() <= 1 && !distinct.contains(&None) {
        return Vec::new();
    }
    checksums.iter().map(|(pod, checksum)| format!("{pod}: {checksum:?}")).collect()
}

impl Log {
    /// Compares the log with the primary's rows, and all instances with each other. Nothing else may write meanwhile.
    ///
    /// # Errors
    /// When the instances cannot be asked or do not catch up.
    pub async fn check(&self, cluster: &Cluster) -> Result<Verdict> {
        self.check_without(cluster, &[]).await
    }

    /// As [`Log::check`], but some instances are not looked at: what a person has spoilt, a person mends.
    ///
    /// # Errors
    /// When the other instances cannot be asked or do not catch up.
    pub async fn check_without(&self, cluster: &Cluster, apart: &[String]) -> Result<Verdict> {
        let primary = cluster.primary().await?;
        let rows: Vec<(String,)> = cluster.rows(&primary, &format!("SELECT uuid FROM {SCHEMA}.entries")).await?;
        let mut verdict = judge(&self.entries, &rows.into_iter().map(|(uuid,)| uuid).collect());
        let pods: Vec<String> = cluster.pods().await?.into_keys().filter(|pod| !apart.contains(pod)).collect();
        let mut checksums = BTreeMap::new();
        // What was given up by its writer may still be committed: compare again when the primary has moved on.
        for _ in 0..COMPARISONS {
            let executed = cluster.executed(&primary).await?;
            for pod in pods.iter().filter(|pod| **pod != primary) {
                cluster.wait_executed(pod, &executed, CATCH_UP).await?;
            }
            for pod in &pods {
                let rows: Vec<(String, Option<u64>)> =
                    cluster.rows(pod, &format!("CHECKSUM TABLE {SCHEMA}.entries")).await?;
                checksums.insert(pod.clone(), rows.into_iter().next().and_then(|(_, checksum)| checksum));
            }
            if cluster.executed(&primary).await? == executed {
                break;
            }
        }
        for pod in pods.iter().filter(|pod| **pod != primary) {
            // The replica's set before the primary's, or what arrives in between looks errant.
            let own = cluster.executed(pod).await?;
            let errant = own.subtract(&cluster.executed(&primary).await?);
            if !errant.is_empty() {
                verdict.errant.push(format!("{pod} has {errant}, which {primary} has not"));
            }
        }
        verdict.differing = differing(&checksums);
        if !verdict.differing.is_empty() {
            verdict.differing.extend(self.differences(cluster, &primary, &pods).await?);
        }
        Ok(verdict)
    }

    /// Which rows instances have that the primary has not, and the other way round.
    async fn differences(&self, cluster: &Cluster, primary: &str, pods: &[String]) -> Result<Vec<String>> {
        let known: BTreeMap<&str, &Entry> = self.entries.iter().map(|entry| (entry.uuid.as_str(), entry)).collect();
        let told = |row: &String| match row.split(' ').next().and_then(|uuid| known.get(uuid)) {
            Some(entry) => format!("{row}, sent at {:?}, {:?} at {:?}", entry.sent, entry.outcome, entry.answered),
            None => format!("{row}, of nobody"),
        };
        let theirs = rows(cluster, primary).await?;
        let mut found = Vec::new();
        for pod in pods.iter().filter(|pod| *pod != primary) {
            let own = rows(cluster, pod).await?;
            found.extend(own.difference(&theirs).take(20).map(|row| format!("{pod} has besides {}", told(row))));
            found.extend(theirs.difference(&own).take(20).map(|row| format!("{pod} lacks {}", told(row))));
        }
        Ok(found)
    }

    /// No acknowledged row is lost, no refused one is there, all instances are equal (I1, I5).
    ///
    /// # Errors
    /// Names what is wrong.
    pub async fn expect_lossless(&self, cluster: &Cluster) -> Result<()> {
        println!("{}", self.summary());
        let verdict = self.check(cluster).await?;
        ensure!(verdict.is_clean(), "{}: {verdict:#?}", self.summary());
        Ok(())
    }

    /// Beyond [`Log::expect_lossless`], nothing failed.
    ///
    /// # Errors
    /// Names what is wrong.
    pub async fn expect_flawless(&self, cluster: &Cluster) -> Result<()> {
        self.expect_lossless(cluster).await?;
        let failed: Vec<_> = self.failed().take(5).collect();
        ensure!(failed.is_empty(), "writes failed; {}; the first: {failed:#?}", self.summary());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uuid: &str, outcome: Outcome) -> Entry {
        Entry {
            writer: 1,
            seq: 1,
            uuid: uuid.into(),
            server: 1,
            sent: Duration::ZERO,
            answered: Duration::ZERO,
            outcome,
        }
    }

    #[test]
    fn lost_and_phantom_rows_are_found_and_unknown_ones_are_not() {
        let entries = [
            entry("ok-there", Outcome::Ok),
            entry("ok-gone", Outcome::Ok),
            entry("refused-there", Outcome::Refused(1290)),
            entry("refused-gone", Outcome::Refused(1290)),
            entry("unknown-there", Outcome::Unknown(String::new())),
            entry("unknown-gone", Outcome::Unknown(String::new())),
        ];
        let present = ["ok-there", "refused-there", "unknown-there"].map(str::to_owned).into();
        let verdict = judge(&entries, &present);
        assert_eq!(verdict.lost.len(), 1);
        assert!(verdict.lost.iter().all(|row| row.contains("ok-gone")));
        assert_eq!(verdict.phantom.len(), 1);
        assert!(verdict.phantom.iter().all(|row| row.contains("refused-there")));
    }

    #[test]
    fn checksums_differ_when_one_does_or_is_missing() {
        let of = |pairs: &[(&str, Option<u64>)]| {
            differing(&pairs.iter().map(|(pod, checksum)| ((*pod).to_owned(), *checksum)).collect())
        };
        assert!(of(&[("a", Some(1)), ("b", Some(1))]).is_empty());
        assert_eq!(of(&[("a", Some(1)), ("b", Some(2))]).len(), 2);
        assert_eq!(of(&[("a", Some(1)), ("b", None)]).len(), 2);
        assert_eq!(of(&[("a", None), ("b", None)]).len(), 2);
    }
}
