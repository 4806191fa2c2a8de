//! Where `spec.restore` leads to.

use std::collections::BTreeSet;

use common::access::Access;
use common::crd::{Manifest, MySQLBinlog, MySQLDump, Restore, RestoreLocation};
use common::gtid::GtidSet;
use common::instance::{CopyOrder, RestoreOrder, RestoreTarget};
use common::location::Location;
use common::names::{ANNOTATION_COPIES, LABEL_CLUSTER_UID, account};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::core::Selector;

use super::Pass;
use crate::act;

/// An archive: its location, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    location: String,
    namespace: String,
    cluster: String,
    uid: Option<String>,
}

impl Pass<'_> {
    /// The order that `spec.restore` amounts to, with what the location's Secrets say now.
    pub(super) async fn restore_order(&self) -> Result<RestoreOrder, String> {
        let restore = self.object.spec.restore.as_ref().ok_or("spec.restore is absent")?;
        let mut target = target(restore)?;
        let place = match (&restore.from_location, &restore.from_selector) {
            (Some(from), _) => self.named(from),
            (None, Some(selector)) => {
                let (place, dump) = self.selected(selector).await?;
                if let (RestoreTarget::Newest, Some(gtid)) = (&target, dump) {
                    target = RestoreTarget::Gtid(gtid);
                }
                place
            }
            (None, None) => return Err("spec.restore says not from where".to_owned()),
        };
        let location = Location::resolve(&self.context.client, &self.cluster.namespace, &place.location).await;
        let location = location.map_err(|error| format!("spec.restore: {error}"))?;
        let dump = restore.from_location.as_ref().and_then(|from| from.dump.clone());
        Ok(RestoreOrder { location, namespace: place.namespace, cluster: place.cluster, uid: place.uid, dump, target })
    }

    /// The instance that a scratch cluster copies, instead of being restored.
    pub(super) fn copies(&self) -> Option<&String> {
        self.object.annotations().get(ANNOTATION_COPIES)
    }

    /// The order that a scratch cluster's annotation amounts to: into the place that it would be restored from otherwise.
    pub(super) async fn copy_order(&self) -> Result<CopyOrder, String> {
        let instance = self.copies().ok_or("it copies nothing")?;
        let RestoreOrder { location, namespace, cluster, uid, dump, .. } = self.restore_order().await?;
        let (Some(uid), Some(dump)) = (uid, dump) else {
            return Err("spec.restore.fromLocation lacks a uid or a dump".to_owned());
        };
        let access = Access::of(&self.context.client, &namespace, &cluster, instance, account::CLONE).await;
        let Access { host, authority, credentials } = access.map_err(|error| format!("{instance}: {error}"))?;
        Ok(CopyOrder {
            location,
            namespace,
            cluster,
            uid,
            dump,
            donor_host: host,
            donor_authority: authority,
            donor_password: credentials.password,
        })
    }

    fn named(&self, from: &RestoreLocation) -> Place {
        Place {
            location: from.location_ref.name.clone(),
            namespace: from.namespace.clone().unwrap_or_else(|| self.cluster.namespace.clone()),
            cluster: from.cluster.clone(),
            uid: from.uid.clone(),
        }
    }

    /// The one archive that the selected records are of. Where nothing but dumps are selected: what the newest of them holds.
    async fn selected(&self, selector: &LabelSelector) -> Result<(Place, Option<GtidSet>), String> {
        let field = "spec.restore.fromSelector";
        let selector: Selector =
            selector.clone().try_into().map_err(|error| format!("{field} is not understood: {error}"))?;
        let selected = ListParams::default().labels_from(&selector);
        let (client, namespace) = (&self.context.client, &self.cluster.namespace);
        let (binlogs, dumps): (Api<MySQLBinlog>, Api<MySQLDump>) =
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
        let binlogs = act::bounded("list", "MySQLBinlog", "of a restore", binlogs.list(&selected)).await;
        let binlogs = binlogs.map_err(|error| error.to_string())?;
        let dumps = act::bounded("list", "MySQLDump", "of a restore", dumps.list(&selected)).await;
        let dumps = dumps.map_err(|error| error.to_string())?;
        let made: Vec<&MySQLDump> = dumps.iter().filter(|dump| manifest(dump).is_some()).collect();
        let places: BTreeSet<Place> =
            binlogs.iter().map(place).chain(made.iter().filter_map(|dump| place_of_dump(dump))).collect();
        let gtid = if binlogs.items.is_empty() { newest(&made) } else { None };
        let mut places = places.into_iter();
        match (places.next(), places.next()) {
            (Some(place), None) => Ok((place, gtid)),
            (None, _) => {
                Err(format!("{field} selects no MySQLBinlog and no MySQLDump that was made, in this namespace"))
            }
            (Some(one), Some(other)) => Err(format!("{field} selects more than one archive: {one:?} and {other:?}")),
        }
    }
}

fn place(record: &MySQLBinlog) -> Place {
    Place {
        location: record.spec.location_ref.name.clone(),
        namespace: record.namespace().unwrap_or_default(),
        cluster: record.spec.cluster_ref.name.clone(),
        uid: record.labels().get(LABEL_CLUSTER_UID).cloned(),
    }
}

fn manifest(dump: &MySQLDump) -> Option<&Manifest> {
    dump.status.as_ref()?.manifest.as_ref()
}

fn place_of_dump(dump: &MySQLDump) -> Option<Place> {
    let (uid, _) = manifest(dump)?.place()?;
    Some(Place {
        location: dump.spec.location_ref.name.clone(),
        namespace: dump.namespace().unwrap_or_default(),
        cluster: dump.spec.cluster_ref.name.clone(),
        uid: Some(uid.to_owned()),
    })
}

/// What the newest holds: names of dumps are in the order of time.
fn newest(made: &[&MySQLDump]) -> Option<GtidSet> {
    let newest = made.iter().max_by_key(|dump| manifest(dump).map(|manifest| &manifest.key))?;
    newest.status.as_ref()?.gtid.as_ref()?.parse().ok()
}

fn target(restore: &Restore) -> Result<RestoreTarget, String> {
    match (&restore.point_in_time, &restore.gtid) {
        (Some(time), _) => u64::try_from(time.0.as_microsecond())
            .map(RestoreTarget::Time)
            .map_err(|_| "spec.restore.pointInTime is before 1970".to_owned()),
        (None, Some(text)) => text
            .parse::<GtidSet>()
            .map(RestoreTarget::Gtid)
            .map_err(|error| format!("spec.restore.gtid is no GTID set: {error}")),
        (None, None) => Ok(RestoreTarget::Newest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn restore(fields: serde_json::Value) -> Restore {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn targets_are_read_to_the_microsecond() {
        let of = |fields| target(&restore(fields));
        assert_eq!(of(serde_json::json!({})), Ok(RestoreTarget::Newest));
        let time = serde_json::json!({"pointInTime": "2026-11-20T10:15:00.250001Z"});
        assert_eq!(of(time), Ok(RestoreTarget::Time(1_795_169_700_250_001)));
        let set = "07070707-0707-0707-0707-070707070707:1-5";
        assert_eq!(of(serde_json::json!({"gtid": set})), Ok(RestoreTarget::Gtid(set.parse().unwrap())));
        assert!(of(serde_json::json!({"gtid": "nonsense"})).unwrap_err().contains("spec.restore.gtid"));
    }
}
