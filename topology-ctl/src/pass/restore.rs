//! Where `spec.restore` leads to.

use std::collections::BTreeSet;

use common::crd::{MySQLBinlog, Restore, RestoreLocation};
use common::gtid::GtidSet;
use common::instance::{RestoreOrder, RestoreTarget};
use common::location::Location;
use common::names::LABEL_CLUSTER_UID;
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
        let target = target(restore)?;
        let place = match (&restore.from_location, &restore.from_selector) {
            (Some(from), _) => self.named(from),
            (None, Some(selector)) => self.selected(selector).await?,
            (None, None) => return Err("spec.restore says not from where".to_owned()),
        };
        let location = Location::resolve(&self.context.client, &self.cluster.namespace, &place.location).await;
        let location = location.map_err(|error| format!("spec.restore: {error}"))?;
        Ok(RestoreOrder { location, namespace: place.namespace, cluster: place.cluster, uid: place.uid, target })
    }

    fn named(&self, from: &RestoreLocation) -> Place {
        Place {
            location: from.location_ref.name.clone(),
            namespace: from.namespace.clone().unwrap_or_else(|| self.cluster.namespace.clone()),
            cluster: from.cluster.clone(),
            uid: from.uid.clone(),
        }
    }

    /// The one archive that the selected records are of.
    async fn selected(&self, selector: &LabelSelector) -> Result<Place, String> {
        let field = "spec.restore.fromSelector";
        let selector: Selector =
            selector.clone().try_into().map_err(|error| format!("{field} is not understood: {error}"))?;
        let api: Api<MySQLBinlog> = Api::namespaced(self.context.client.clone(), &self.cluster.namespace);
        let selected = ListParams::default().labels_from(&selector);
        let records = act::bounded("list", "MySQLBinlog", "of a restore", api.list(&selected)).await;
        let records = records.map_err(|error| error.to_string())?;
        let places: BTreeSet<Place> = records.iter().map(place).collect();
        let mut places = places.into_iter();
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            (None, _) => Err(format!("{field} selects no MySQLBinlog in this namespace")),
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
