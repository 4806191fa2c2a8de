//! What is asked for, where it comes from, and whether that can be. Pure.

use common::crd::{MySQLCluster, MySQLClusterSpec, MySQLDump, Restorable, Restore, RestoreLocation, Services};
use common::gtid::GtidSet;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::{dumps, moment};

/// Ends of a window are in whole seconds, and never outside of it: a moment that is nearer to one may be inside.
const ROUNDED: SignedDuration = SignedDuration::from_secs(1);
/// The clock of this machine may be so far behind those of the servers.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// How far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// As far as the archive reaches.
    Newest,
    /// Everything that was committed up to then.
    Time(Timestamp),
    /// Exactly these transactions.
    Gtid(GtidSet),
}

impl Target {
    /// As the command line has it. The error is for people.
    pub fn parse(at: Option<&str>, gtid: Option<&str>, zone: &TimeZone) -> Result<Self, String> {
        match (at, gtid) {
            (Some(at), _) => moment::parse(at, zone).map(Self::Time).map_err(|error| format!("--at: {error}")),
            (None, Some(gtid)) => match gtid.parse::<GtidSet>() {
                Ok(set) if set.is_empty() => Err("--gtid is empty".to_owned()),
                Ok(set) => Ok(Self::Gtid(set)),
                Err(error) => Err(format!("--gtid is no GTID set: {error}")),
            },
            (None, None) => Ok(Self::Newest),
        }
    }
}

/// Whether a target can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, or that is not known.
    Go,
    /// Not now, and maybe soon.
    NotYet(String),
    /// No.
    Refuse(String),
}

/// By the window of the cluster. What its status does not say is left to the restore itself.
pub fn verdict(target: &Target, restorable: Option<&Restorable>, now: Timestamp, zone: &TimeZone) -> Verdict {
    let Some(restorable) = restorable else { return Verdict::Go };
    let window = dumps::reach(restorable, zone).unwrap_or_else(|| "nothing".to_owned());
    match target {
        Target::Newest => Verdict::Go,
        Target::Time(at) => {
            let shown = moment::shown(*at, zone);
            let is_before = |from: Timestamp| at.saturating_add(ROUNDED).is_ok_and(|at| at <= from);
            let is_after = |to: Timestamp| to.saturating_add(ROUNDED).is_ok_and(|to| *at >= to);
            if now.saturating_add(SKEW).is_ok_and(|latest| *at > latest) {
                Verdict::Refuse(format!("{shown} is in the future; restorable {window}"))
            } else if restorable.from.as_ref().is_some_and(|from| is_before(from.0)) {
                Verdict::Refuse(format!("{shown} is before what can be restored; restorable {window}"))
            } else if restorable.to.as_ref().is_some_and(|to| is_after(to.0)) {
                let newest = "for the newest leave --at out";
                Verdict::NotYet(format!(
                    "{shown} is after the last commit in the archive; restorable {window} ({newest})"
                ))
            } else {
                Verdict::Go
            }
        }
        Target::Gtid(set) => {
            let archived = restorable.gtid.as_ref().and_then(|gtid| gtid.parse::<GtidSet>().ok());
            let missing = archived.map(|archived| set.subtract(&archived)).unwrap_or_default();
            if missing.is_empty() {
                Verdict::Go
            } else {
                Verdict::NotYet(format!("{missing} is not in the archive; restorable {window}"))
            }
        }
    }
}

/// Where the archive lies: that of the cluster, or where a dump of it is. The error is a refusal, for people.
pub fn place(of: &MySQLCluster, dump: Option<&MySQLDump>, target: &Target) -> Result<RestoreLocation, String> {
    let name = of.name_any();
    let Some(dump) = dump else {
        let archive = of.spec.archive.as_ref();
        let archive =
            archive.ok_or_else(|| format!("MySQLCluster {name} has no archive: name a dump with --from-dump"))?;
        let location_ref = archive.location_ref.clone();
        return Ok(RestoreLocation { location_ref, cluster: name, namespace: None, uid: of.uid(), dump: None });
    };
    let (named, whose) = (dump.name_any(), &dump.spec.cluster_ref.name);
    if *whose != name {
        return Err(format!("MySQLDump {named} is of MySQLCluster {whose}, not of {name}"));
    }
    let status = dump.status.as_ref();
    let place = status.and_then(|status| status.manifest.as_ref()).and_then(|manifest| manifest.place());
    let (uid, id) = place.ok_or_else(|| format!("MySQLDump {named} was not made, or not yet"))?;
    if !dump.spec.schemas.is_empty() || !dump.spec.exclude_tables.is_empty() {
        return Err(format!("MySQLDump {named} is not of everything: no cluster can be made of it"));
    }
    match target {
        Target::Newest => {}
        Target::Time(at) => {
            let began = status.and_then(|status| status.started_at.as_ref()).map(|began| began.0);
            if began.is_some_and(|began| began > *at) {
                return Err(format!("MySQLDump {named} was made after that moment: it begins no restore to it"));
            }
        }
        Target::Gtid(set) => {
            let held = status.and_then(|status| status.gtid.as_ref()).and_then(|gtid| gtid.parse::<GtidSet>().ok());
            let beyond = held.map(|held| held.subtract(set)).unwrap_or_default();
            if !beyond.is_empty() {
                return Err(format!(
                    "MySQLDump {named} holds {beyond}, which --gtid does not: it begins no restore to it"
                ));
            }
        }
    }
    let location_ref = dump.spec.location_ref.clone();
    Ok(RestoreLocation {
        location_ref,
        cluster: name,
        namespace: None,
        uid: Some(uid.to_owned()),
        dump: Some(id.to_owned()),
    })
}

/// The spec of the new cluster: that of the other, without what is of that one alone.
///
/// A primary is one of its own instances. Services may carry a name in DNS or an address (annotations, load balancers), which two
/// clusters cannot have. Both archives may be in one place: each cluster's lies under its own uid.
pub fn spec(of: MySQLClusterSpec, restore: Restore, instances: Option<u32>) -> MySQLClusterSpec {
    MySQLClusterSpec {
        instances: instances.unwrap_or(of.instances),
        primary: None,
        services: Services::default(),
        restore: Some(restore),
        paused: false,
        hibernated: false,
        ..of
    }
}

/// Fields of a spec that [`spec`] does not take over, of those that say something.
pub fn left_out(of: &MySQLClusterSpec) -> Vec<&'static str> {
    let fields = [
        (of.primary.is_some(), "spec.primary"),
        (of.services != Services::default(), "spec.services"),
        (of.paused, "spec.paused"),
        (of.hibernated, "spec.hibernated"),
    ];
    fields.into_iter().filter_map(|(is_said, name)| is_said.then_some(name)).collect()
}

/// The same in words, after a sentence.
pub fn without(fields: &[&str]) -> String {
    if fields.is_empty() { String::new() } else { format!(", without {}", fields.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::crd::{ServiceType, Storage};
    use serde_json::{Value, json};

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn time(text: &str) -> Target {
        Target::Time(text.parse().unwrap())
    }

    fn gtid(interval: &str) -> Target {
        Target::Gtid(format!("{UUID}:{interval}").parse().unwrap())
    }

    #[test]
    fn targets_are_read() {
        let zone = TimeZone::get("Asia/Seoul").unwrap();
        let of = |at: Option<&str>, gtid: Option<&str>| Target::parse(at, gtid, &zone);
        assert_eq!(of(None, None).unwrap(), Target::Newest);
        assert_eq!(of(Some("2026-11-20 10:15"), None).unwrap(), time("2026-11-20T01:15:00Z"));
        assert_eq!(of(None, Some(&format!("{UUID}:1-5"))).unwrap(), gtid("1-5"));
        assert!(of(Some("soon"), None).unwrap_err().starts_with("--at: "));
        assert!(of(None, Some("nonsense")).unwrap_err().starts_with("--gtid is no GTID set"));
        assert!(of(None, Some("")).unwrap_err().contains("empty"));
    }

    #[test]
    fn what_is_outside_of_the_window_is_refused_with_the_window() {
        let restorable = Restorable {
            from: serde_json::from_value(json!("2026-11-20T10:00:00Z")).unwrap(),
            to: serde_json::from_value(json!("2026-11-20T12:00:00Z")).unwrap(),
            gtid: Some(format!("{UUID}:1-9")),
            proven_at: None,
        };
        let now = "2026-11-20T13:00:00Z".parse().unwrap();
        let said = |target: &Target| match verdict(target, Some(&restorable), now, &TimeZone::UTC) {
            Verdict::Go => "go".to_owned(),
            Verdict::NotYet(why) => format!("not yet: {why}"),
            Verdict::Refuse(why) => format!("no: {why}"),
        };
        for (target, wanted) in [
            (Target::Newest, "go"),
            (time("2026-11-20T11:00:00Z"), "go"),
            (time("2026-11-20T10:00:00Z"), "go"),
            (time("2026-11-20T09:59:59.000001Z"), "go"),
            (time("2026-11-20T09:59:59Z"), "no: 2026-11-20T09:59:59+00:00 is before"),
            (time("2026-11-20T12:00:00.999999Z"), "go"),
            (time("2026-11-20T12:00:01Z"), "not yet: 2026-11-20T12:00:01+00:00 is after the last commit"),
            (time("2026-11-20T13:01:00Z"), "not yet: 2026-11-20T13:01:00+00:00 is after the last commit"),
            (time("2026-11-20T13:01:00.000001Z"), "no: 2026-11-20T13:01:00.000001+00:00 is in the future"),
            (gtid("1-9"), "go"),
            (gtid("3"), "go"),
            (gtid("8-10"), "not yet: 07070707-0707-0707-0707-070707070707:10 is not in the archive"),
        ] {
            let said = said(&target);
            assert!(said.starts_with(wanted), "{target:?}: {said}");
            assert!(
                said == "go" || said.contains("from 2026-11-20T10:00:00+00:00 to 2026-11-20T12:00:00+00:00"),
                "{said}"
            );
        }
        for target in [time("1999-01-01T00:00:00Z"), gtid("99")] {
            assert_eq!(verdict(&target, None, now, &TimeZone::UTC), Verdict::Go, "nothing is known");
            assert_eq!(verdict(&target, Some(&Restorable::default()), now, &TimeZone::UTC), Verdict::Go);
        }
    }

    fn cluster(archive: &Value) -> MySQLCluster {
        let metadata = json!({"name": "shop", "uid": "uid-1"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"archive": archive}})).unwrap()
    }

    fn dump(of: &str, schemas: &Value, manifest: &Value) -> MySQLDump {
        serde_json::from_value(json!({
            "metadata": {"name": "one"},
            "spec": {"clusterRef": {"name": of}, "locationRef": {"name": "there"}, "schemas": schemas},
            "status": {"startedAt": "2026-11-20T10:00:00Z", "gtid": format!("{UUID}:1-5"), "manifest": manifest},
        }))
        .unwrap()
    }

    #[test]
    fn it_comes_from_the_archive_or_from_where_a_dump_is() {
        let archived = cluster(&json!({"locationRef": {"name": "here"}}));
        let location = |name: &str, uid: &str, dump: Value| -> RestoreLocation {
            let place = json!({"locationRef": {"name": name}, "cluster": "shop", "uid": uid, "dump": dump});
            serde_json::from_value(place).unwrap()
        };
        assert_eq!(place(&archived, None, &Target::Newest), Ok(location("here", "uid-1", Value::Null)));
        let bare = cluster(&Value::Null);
        assert!(place(&bare, None, &Target::Newest).unwrap_err().contains("--from-dump"));
        let manifest = json!({"key": "prod/n/shop/uid-0/dumps/20261120-1/manifest.json", "sha256": ""});
        let good = dump("shop", &json!([]), &manifest);
        let wanted = Ok(location("there", "uid-0", json!("20261120-1")));
        for target in [Target::Newest, time("2026-11-20T10:00:00Z"), gtid("1-5"), gtid("1-7")] {
            assert_eq!(place(&bare, Some(&good), &target), wanted);
        }
        for (dump, target, why) in [
            (&dump("crm", &json!([]), &manifest), Target::Newest, "is of MySQLCluster crm, not of shop"),
            (&dump("shop", &json!([]), &Value::Null), Target::Newest, "was not made"),
            (&dump("shop", &json!(["a"]), &manifest), Target::Newest, "not of everything"),
            (&good, time("2026-11-20T09:59:59Z"), "was made after"),
            (&good, gtid("1-4"), "holds 07070707-0707-0707-0707-070707070707:5"),
        ] {
            let error = place(&archived, Some(dump), &target).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_copy_is_as_the_other_but_for_what_is_of_that_alone() {
        let mut of =
            MySQLClusterSpec { instances: 5, primary: Some("shop-1".to_owned()), ..MySQLClusterSpec::default() };
        of.storage = Storage { size: serde_json::from_value(json!("7Gi")).unwrap(), ..of.storage };
        of.config.insert("max_connections".to_owned(), "77".to_owned());
        of.archive = serde_json::from_value(json!({"locationRef": {"name": "here"}})).unwrap();
        of.services.primary.type_ = ServiceType::LoadBalancer;
        (of.paused, of.hibernated) = (true, true);
        assert_eq!(left_out(&of), ["spec.primary", "spec.services", "spec.paused", "spec.hibernated"]);
        let restore: Restore = serde_json::from_value(json!({"pointInTime": "2026-11-20T10:00:00.000001Z"})).unwrap();
        let copy = spec(of.clone(), restore.clone(), None);
        assert_eq!((copy.instances, &copy.restore), (5, &Some(restore.clone())));
        assert_eq!((&copy.storage, &copy.config, &copy.archive), (&of.storage, &of.config, &of.archive));
        assert_eq!(left_out(&copy), [""; 0]);
        assert_eq!(spec(of, restore, Some(1)).instances, 1);
        assert_eq!(without(&[]), "");
        assert_eq!(without(&["a", "b"]), ", without a, b");
    }
}
