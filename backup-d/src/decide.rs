//! What a scratch cluster says of a dump, whether those of a cluster are well, and when one is needed at once. Pure.

use std::collections::BTreeMap;

use common::conditions::Finding;
use common::crd::{
    BackupMethod, ClusterRef, DumpPhase, LocationRef, MySQLBackupSchedule, MySQLCluster, MySQLDump, MySQLDumpSpec,
    RESTORABLE, RESTORED,
};
use common::lease::members::Members;
use common::names::{LABEL_CLUSTER, LABEL_SCHEDULE};
use jiff::Timestamp;

use crate::schedule::Schedule;

/// A scratch cluster that is not even filled for so long never will be: its volume or its pod does not come.
const GIVE_UP_SECONDS: u64 = 86_400;

/// How far a verification is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// There is no scratch cluster.
    Begins,
    /// For what.
    Waits(String),
    /// It was restored, or why it cannot be.
    Ends(Result<(), String>),
}

/// By the scratch cluster. A restore that fails is tried again by itself: for so many seconds after the beginning that is waited
/// for, because a bucket may be away for a moment.
pub fn verification(scratch: Option<&MySQLCluster>, now: Timestamp, patience_seconds: u64) -> Verification {
    let Some(scratch) = scratch else { return Verification::Begins };
    if scratch.metadata.deletion_timestamp.is_some() {
        return Verification::Waits("an earlier scratch cluster is being taken away".to_owned());
    }
    let began = scratch.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
    let age = u64::try_from(now.duration_since(began).as_secs()).unwrap_or(0);
    let condition = scratch.status.as_ref().and_then(|status| status.condition(RESTORED));
    let said = condition.map_or_else(|| "the scratch cluster starts".to_owned(), |condition| condition.message.clone());
    match condition {
        Some(condition) if condition.status == "True" => Verification::Ends(Ok(())),
        Some(condition) if condition.reason == "RestoreFailed" && age >= patience_seconds => {
            Verification::Ends(Err(said))
        }
        _ if age >= GIVE_UP_SECONDS => Verification::Ends(Err(format!("it was not restored within a day: {said}"))),
        _ => Verification::Waits(said),
    }
}

/// Whether a dump is for this replica to look at: one that is being made stays with who makes it, for as long as that one is at work.
pub fn is_ours(dump: &MySQLDump, members: &Members, identity: &str) -> bool {
    let running = dump.status.as_ref().filter(|status| status.phase == Some(DumpPhase::Running));
    let worker = running.and_then(|status| status.worker.as_deref()).filter(|worker| members.include(worker));
    match worker {
        Some(worker) => worker == identity && members.seat().is_some(),
        None => members.is_mine(dump.metadata.uid.as_deref().unwrap_or_default()),
    }
}

/// How far a dump is.
pub fn phase(dump: &MySQLDump) -> Option<DumpPhase> {
    dump.status.as_ref().and_then(|status| status.phase)
}

/// Whether it was made. One that is being verified is.
pub fn is_made(dump: &MySQLDump) -> bool {
    matches!(phase(dump), Some(DumpPhase::Succeeded | DumpPhase::Verifying))
}

/// Whether it was made, or given up.
pub fn is_over(dump: &MySQLDump) -> bool {
    is_made(dump) || phase(dump) == Some(DumpPhase::Failed)
}

/// When it was asked for.
pub fn asked_at(dump: &MySQLDump) -> Option<Timestamp> {
    dump.metadata.creation_timestamp.as_ref().map(|at| at.0)
}

/// The dump of a schedule for a time.
pub fn dump_of(schedule: &MySQLBackupSchedule, at: Timestamp) -> MySQLDump {
    let (name, spec) = (schedule.metadata.name.clone().unwrap_or_default(), &schedule.spec);
    let mut dump = asked(&name, at, &spec.cluster_ref.name, &spec.location_ref);
    (dump.spec.method, dump.spec.verify) = (spec.method, spec.verify);
    // No owner: a schedule that is deleted takes no backups along.
    dump.metadata.labels.get_or_insert_default().insert(LABEL_SCHEDULE.to_owned(), name);
    dump
}

fn asked(name: &str, at: Timestamp, cluster: &str, location: &LocationRef) -> MySQLDump {
    let spec = MySQLDumpSpec {
        cluster_ref: ClusterRef { name: cluster.to_owned() },
        location_ref: location.clone(),
        method: BackupMethod::Logical,
        schemas: Vec::new(),
        exclude_tables: Vec::new(),
        verify: false,
    };
    let mut dump = MySQLDump::new(&format!("{name}-{}", at.strftime("%Y%m%d%H%M")), spec);
    dump.metadata.labels = Some(BTreeMap::from([(LABEL_CLUSTER.to_owned(), cluster.to_owned())]));
    dump
}

/// A dump that closed no gap is followed by another after so many seconds.
const AGAIN_SECONDS: i64 = 600;

/// The dump that a cluster needs at once: its archive begins late, or binlogs were purged before they were in it, so what is
/// committed since cannot be restored without (the condition Restorable). It is one of the schedule that writes to the
/// same place, if there is one, and goes when its time is over; otherwise it stays until a person deletes it.
pub fn needed(
    cluster: &MySQLCluster,
    schedules: &[MySQLBackupSchedule],
    dumps: &[MySQLDump],
    now: Timestamp,
) -> Option<MySQLDump> {
    let condition = cluster.status.as_ref()?.condition(RESTORABLE).filter(|condition| condition.status == "False")?;
    let location = &cluster.spec.archive.as_ref()?.location_ref;
    let recent = now.as_second() - AGAIN_SECONDS;
    let since = condition.last_transition_time.0.as_second().max(recent);
    let counts = |dump: &&MySQLDump| {
        let whole = dump.spec.schemas.is_empty() && dump.spec.exclude_tables.is_empty();
        let is_new = || asked_at(dump).is_none_or(|at| at.as_second() >= since);
        whole && dump.spec.location_ref == *location && (!is_over(dump) || is_new())
    };
    if cluster.metadata.deletion_timestamp.is_some() || dumps.iter().any(|dump| counts(&dump)) {
        return None;
    }
    let fits = |schedule: &&MySQLBackupSchedule| {
        let spec = &schedule.spec;
        !spec.suspend && spec.location_ref == *location
    };
    let name = cluster.metadata.name.as_deref()?;
    let schedule = schedules.iter().filter(fits).min_by_key(|schedule| &schedule.metadata.name);
    Some(schedule.map_or_else(|| asked(&format!("{name}-needed"), now, name, location), |one| dump_of(one, now)))
}

/// The condition of a cluster that says whether its backups are well.
pub const BACKUP_HEALTHY: &str = "BackupHealthy";

/// By all schedules of a cluster, and its dumps: the worst of them is told.
pub fn health(schedules: &[MySQLBackupSchedule], dumps: &[MySQLDump], now: Timestamp) -> Finding {
    let mut newest: Option<&str> = None;
    for schedule in schedules.iter().filter(|schedule| !schedule.spec.suspend) {
        let name = schedule.metadata.name.as_deref().unwrap_or_default();
        let bad = |reason, what: String| Finding::bad(BACKUP_HEALTHY, reason, format!("{name}: {what}"));
        let spec = &schedule.spec;
        let times = match Schedule::new(&spec.schedule, &spec.time_zone, spec.starting_deadline.into()) {
            Ok(times) => times,
            Err(problem) => return bad("ScheduleInvalid", problem),
        };
        let ours = dumps.iter().filter(|dump| {
            let labels = dump.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(LABEL_SCHEDULE)).is_some_and(|label| label == name)
        });
        let name_of = |dump: &MySQLDump| dump.metadata.name.clone().unwrap_or_default();
        // Their names end with the time that they are for.
        let last = ours.filter(|dump| is_over(dump)).max_by_key(|dump| name_of(dump));
        let problem = last.and_then(|dump| dump.status.as_ref()?.problem.as_deref()).unwrap_or_default();
        if let Some(last) = last.filter(|dump| phase(dump) == Some(DumpPhase::Failed)) {
            return bad("BackupFailed", format!("{} failed: {problem}", name_of(last)));
        }
        let refuted = |dump: &&MySQLDump| {
            let conditions = dump.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.reason == "NotRestored")
        };
        if let Some(last) = last.filter(refuted) {
            return bad("BackupNotVerified", format!("{} could not be restored: see its condition", name_of(last)));
        }
        let status = schedule.status.as_ref();
        let success = status.and_then(|status| status.last_success_at.as_ref()).map(|at| at.0);
        let since = success.or_else(|| schedule.metadata.creation_timestamp.as_ref().map(|at| at.0)).unwrap_or(now);
        if times.is_overdue(since, now) {
            let what = success.map_or("there is none yet".to_owned(), |at| format!("the last one was made at {at}"));
            return bad("BackupOverdue", format!("backups are missing: {what}"));
        }
        newest = newest.max(last.map(|_| status.and_then(|status| status.last_dump.as_deref()).unwrap_or_default()));
    }
    let (reason, message) = match newest {
        Some(newest) => ("Scheduled", format!("the newest is {newest}")),
        None if schedules.iter().all(|schedule| schedule.spec.suspend) => {
            return Finding::bad(BACKUP_HEALTHY, "Suspended", "no schedule makes backups");
        }
        None => ("Scheduled", "the first is not due yet".to_owned()),
    };
    Finding::good(BACKUP_HEALTHY, reason, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::needless_pass_by_value)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_that_is_being_made_stays_with_its_worker_while_that_one_lives() {
        let dump = |worker: Option<&str>, phase: &str, deleted: Option<&str>| -> MySQLDump {
            serde_json::from_value(json!({
                "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLDump",
                "metadata": {"name": "d", "uid": "4711", "deletionTimestamp": deleted},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}},
                "status": {"phase": phase, "worker": worker},
            }))
            .unwrap()
        };
        let holders = [(0, "a".to_owned()), (1, "b".to_owned())];
        let [a, b] = [0, 1].map(|seat| Members::new(Some(seat), holders.clone()));
        let whose = |dump: &MySQLDump| [is_ours(dump, &a, "a"), is_ours(dump, &b, "b")];
        let owner = whose(&dump(None, "Pending", None));
        assert_eq!(owner.iter().filter(|is_ours| **is_ours).count(), 1);
        assert_eq!(whose(&dump(Some("a"), "Running", None)), [true, false]);
        assert_eq!(whose(&dump(Some("b"), "Running", None)), [false, true]);
        assert_eq!(whose(&dump(Some("gone"), "Running", None)), owner, "its worker is gone");
        let [one, other] = ["a", "b"].map(|worker| whose(&dump(Some(worker), "Verifying", None)));
        assert_eq!((one, other), (owner, owner), "a verification is anybody's");
        let going = dump(Some("b"), "Running", Some("2026-11-30T00:00:00Z"));
        assert_eq!(whose(&going), [false, true], "it is taken away by who knows that it writes no more");
        let standby = Members::new(None, holders);
        assert!(!is_ours(&dump(None, "Pending", None), &standby, "c"));
    }

    #[test]
    fn a_verification_ends_with_what_the_restore_says() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let scratch = |status: &str, reason: &str| -> MySQLCluster {
            serde_json::from_value(json!({
                "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster",
                "metadata": {"name": "verify-1", "creationTimestamp": at(0).to_string()}, "spec": {},
                "status": {"conditions": [{
                    "type": "Restored", "status": status, "reason": reason, "message": "said", "lastTransitionTime": at(0).to_string(),
                }]},
            }))
            .unwrap()
        };
        let of = |scratch: &MySQLCluster, seconds| verification(Some(scratch), at(seconds), 600);
        let (waits, ends) = (Verification::Waits("said".into()), Verification::Ends(Err("said".into())));
        assert_eq!(verification(None, at(0), 600), Verification::Begins);
        assert_eq!(of(&scratch("True", "Restored"), 5), Verification::Ends(Ok(())));
        assert_eq!(of(&scratch("False", "Restoring"), 5000), waits);
        assert_eq!(of(&scratch("False", "RestoreFailed"), 599), waits, "the bucket may be away for a moment");
        assert_eq!(of(&scratch("False", "RestoreFailed"), 600), ends);
        assert!(matches!(of(&scratch("False", "Restoring"), 86_400), Verification::Ends(Err(_))));
        let mut silent = scratch("True", "Restored");
        silent.status = None;
        assert!(matches!(of(&silent, 50), Verification::Waits(_)));
        assert!(matches!(of(&silent, 86_400), Verification::Ends(Err(_))), "its pod never came");
        let mut going = scratch("True", "Restored");
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert!(matches!(of(&going, 5), Verification::Waits(_)), "whose restore that was is not known any more");
    }

    #[test]
    fn a_cluster_is_well_while_its_newest_backups_are() {
        let at = |minutes: i64| Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap();
        let schedule = |suspend: bool, success: Option<i64>| -> MySQLBackupSchedule {
            serde_json::from_value(json!({
                "metadata": {"name": "hourly", "creationTimestamp": at(0).to_string()},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}, "schedule": "0 * * * *",
                         "startingDeadline": "30m", "suspend": suspend},
                "status": {"lastSuccessAt": success.map(|minutes| at(minutes).to_string()), "lastDump": "hourly-2"},
            }))
            .unwrap()
        };
        let dump = |name: &str, phase: &str, conditions: serde_json::Value| -> MySQLDump {
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"pelorus.dev/schedule": "hourly"}},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}},
                "status": {"phase": phase, "problem": "no room", "conditions": conditions},
            }))
            .unwrap()
        };
        let refuted = json!([{"type": "Verified", "status": "False", "reason": "NotRestored", "message": "",
                              "lastTransitionTime": at(0).to_string()}]);
        let [good, failed] = ["Succeeded", "Failed"].map(|phase| dump("hourly-2", phase, json!([])));
        let reason = |schedule: &MySQLBackupSchedule, dumps: &[MySQLDump], minutes| {
            let finding = health(std::slice::from_ref(schedule), dumps, at(minutes));
            (finding.holds, finding.reason)
        };
        let fresh = schedule(false, Some(100));
        assert_eq!(reason(&schedule(false, None), &[], 30), (true, "Scheduled"), "the first is not due yet");
        assert_eq!(reason(&fresh, std::slice::from_ref(&good), 130), (true, "Scheduled"));
        assert_eq!(reason(&fresh, &[dump("hourly-1", "Failed", json!([])), good.clone()], 130), (true, "Scheduled"));
        assert_eq!(reason(&fresh, &[dump("hourly-1", "Succeeded", json!([])), failed], 130), (false, "BackupFailed"));
        assert_eq!(reason(&fresh, &[good.clone(), dump("hourly-3", "Running", json!([]))], 130), (true, "Scheduled"));
        assert_eq!(reason(&fresh, &[dump("hourly-2", "Succeeded", refuted)], 130), (false, "BackupNotVerified"));
        assert_eq!(reason(&fresh, std::slice::from_ref(&good), 400), (false, "BackupOverdue"));
        assert_eq!(reason(&schedule(false, None), &[], 300), (false, "BackupOverdue"), "none was ever made");
        assert_eq!(reason(&schedule(true, Some(100)), &[good], 400), (false, "Suspended"));
        let mut wrong = fresh;
        wrong.spec.schedule = "99 * * * *".into();
        assert_eq!(reason(&wrong, &[], 130), (false, "ScheduleInvalid"));
    }

    #[test]
    fn what_cannot_be_restored_without_a_dump_gets_one_at_once() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let cluster = |status: &str| -> MySQLCluster {
            serde_json::from_value(json!({
                "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster", "metadata": {"name": "shop"},
                "spec": {"archive": {"locationRef": {"name": "here"}}},
                "status": {"conditions": [{
                    "type": "Restorable", "status": status, "reason": "DumpNeeded", "message": "",
                    "lastTransitionTime": at(0).to_string(),
                }]},
            }))
            .unwrap()
        };
        let schedule = |place: &str, suspend: bool| -> MySQLBackupSchedule {
            serde_json::from_value(json!({
                "metadata": {"name": "nightly"},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": place}, "schedule": "0 3 * * *",
                         "suspend": suspend, "verify": true},
            }))
            .unwrap()
        };
        let dump = |seconds: i64, phase: &str, schemas: serde_json::Value| -> MySQLDump {
            serde_json::from_value(json!({
                "metadata": {"name": "one", "creationTimestamp": at(seconds).to_string()},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}, "schemas": schemas},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let of = |schedules: &[MySQLBackupSchedule], dumps: &[MySQLDump], seconds| {
            needed(&cluster("False"), schedules, dumps, at(seconds))
        };
        assert_eq!(needed(&cluster("True"), &[], &[], at(5)), None);
        let plain = of(&[schedule("elsewhere", false), schedule("here", true)], &[], 5).unwrap();
        assert!(plain.metadata.name.unwrap().starts_with("shop-needed-2027"));
        assert!(!plain.metadata.labels.unwrap().contains_key(LABEL_SCHEDULE));
        let scheduled = of(&[schedule("here", false)], &[], 5).unwrap();
        assert_eq!(scheduled.metadata.labels.unwrap()[LABEL_SCHEDULE], "nightly");
        assert!(scheduled.spec.verify && scheduled.metadata.name.unwrap().starts_with("nightly-2027"));

        let whole = |seconds, phase| [dump(seconds, phase, json!([]))];
        assert!(of(&[], &whole(-60, "Succeeded"), 5).is_some(), "it is of before the gap");
        assert!(of(&[], &whole(-60, "Running"), 5).is_none(), "one after the other");
        assert!(of(&[], &whole(10, "Pending"), 5000).is_none());
        assert!(of(&[], &whole(10, "Succeeded"), 609).is_none(), "it is looked for");
        assert!(of(&[], &whole(10, "Failed"), 611).is_some());
        assert!(of(&[], &[dump(10, "Succeeded", json!(["some"]))], 20).is_some(), "it is not everything");
    }
}
