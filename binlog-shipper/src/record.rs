//! MySQLBinlog objects: what the archive holds of each file, for people and for the selectors of restores.
//!
//! They outlive their cluster, as the archive does: no owner takes them along. Written by apply, at a pace: numbers move with each
//! segment, and nothing rests on them.

use std::collections::BTreeMap;

use archive::catalogue::{Held, Summary};
use archive::segment::earlier;
use archive::{BinlogFile, Segment};
use common::crd::{ClusterRef, LocationRef, MySQLBinlog, MySQLBinlogSpec, MySQLBinlogStatus};
use common::gtid::GtidSet;
use common::names::{LABEL_CLUSTER, LABEL_CLUSTER_UID};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What is known of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    gtid: GtidSet,
    first_commit: u64,
    last_commit: u64,
    bytes: u64,
    segments: u64,
    complete: bool,
    /// It differs from what was written last.
    is_news: bool,
    /// Its object has been made: only the status moves.
    is_made: bool,
}

/// An object that differs from what was written last.
#[derive(Clone, Debug)]
pub struct News {
    /// Its name.
    pub name: String,
    /// The whole object, unless it has been made.
    pub object: Option<Value>,
    /// Its status.
    pub status: Value,
}

impl Known {
    fn add(&mut self, gtid: &GtidSet, first_commit: u64, last_commit: u64, bytes: u64) {
        self.gtid.extend_with(gtid);
        self.first_commit = earlier(self.first_commit, first_commit);
        self.last_commit = self.last_commit.max(last_commit);
        self.bytes += bytes;
        self.segments += 1;
        self.is_news = true;
    }
}

/// Whose files, and where they lie.
#[derive(Debug)]
pub struct Origin {
    /// Namespace of the cluster.
    pub namespace: String,
    /// Its name.
    pub cluster: String,
    /// Its uid.
    pub uid: String,
    /// Name of the MySQLBackupLocation.
    pub location: String,
}

/// All files of one cluster's archive.
#[derive(Debug)]
pub struct Records {
    of: Origin,
    files: BTreeMap<BinlogFile, Known>,
}

impl Records {
    /// Of what the archive holds.
    pub fn new(of: Origin, held: &[Held]) -> Self {
        let mut files: BTreeMap<BinlogFile, Known> = BTreeMap::new();
        for file in held {
            let known = files.entry(file.file.clone()).or_default();
            for part in &file.segments {
                known.add(&part.gtid, part.first_commit, part.last_commit, part.last - part.first);
            }
            known.complete = file.complete;
        }
        Self { of, files }
    }

    /// A segment is in the archive.
    pub fn shipped(&mut self, segment: &Segment) {
        let known = self.files.entry(segment.key.file.clone()).or_default();
        known.add(&segment.gtid, segment.first_commit, segment.last_commit, segment.key.length());
    }

    /// All of a file is.
    pub fn completed(&mut self, complete: &Summary) {
        let known = self.files.entry(complete.file.clone()).or_default();
        (known.complete, known.is_news) = (true, true);
    }

    /// A file is in the archive no more; the name of the object that told of it.
    pub fn forget(&mut self, file: &BinlogFile) -> String {
        self.files.remove(file);
        name(&self.of.cluster, file)
    }

    /// Objects that differ from what was written last. Each is handed out once.
    pub fn news(&mut self) -> Vec<News> {
        let Self { of, files } = self;
        let news = files.iter_mut().filter_map(|(file, known)| {
            if !std::mem::take(&mut known.is_news) {
                return None;
            }
            let is_made = std::mem::replace(&mut known.is_made, true);
            let (name, object, status) = object(of, file, known)?;
            Some(News { name, object: (!is_made).then_some(object), status })
        });
        news.collect()
    }

    /// What was handed out has not been written: all of it is news again.
    pub fn again(&mut self) {
        for known in self.files.values_mut() {
            (known.is_news, known.is_made) = (true, false);
        }
    }
}

/// `<cluster>-<epoch>-<first eight of the server's uuid>-<number of the file>`.
fn name(cluster: &str, file: &BinlogFile) -> String {
    let server = file.server.to_string();
    let server = server.get(..8).unwrap_or_default();
    format!("{cluster}-{}-{server}-{:06}", file.epoch, file.name.number())
}

fn object(of: &Origin, file: &BinlogFile, known: &Known) -> Option<(String, Value, Value)> {
    let Origin { namespace, cluster, uid, location } = of;
    let time = |micros: u64| {
        let micros = i64::try_from(micros).ok().filter(|micros| *micros > 0)?;
        Some(MicroTime(Timestamp::from_microsecond(micros).ok()?))
    };
    let number = |number: u64| i64::try_from(number).ok();
    let name = name(cluster, file);
    let mut object = MySQLBinlog::new(
        &name,
        MySQLBinlogSpec {
            cluster_ref: ClusterRef { name: cluster.clone() },
            location_ref: LocationRef { name: location.clone() },
            server_uuid: file.server.to_string(),
            epoch: number(file.epoch)?,
            file: file.name.to_string(),
        },
    );
    object.metadata.namespace = Some(namespace.clone());
    object.metadata.labels = Some(BTreeMap::from(
        [
            (LABEL_CLUSTER, cluster.as_str()),
            (LABEL_CLUSTER_UID, uid),
            ("app.kubernetes.io/name", "mysql"),
            ("app.kubernetes.io/instance", cluster),
            ("app.kubernetes.io/component", "binlog"),
            ("app.kubernetes.io/managed-by", "pelorus"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    ));
    let status = MySQLBinlogStatus {
        gtid: Some(known.gtid.to_string()),
        first_commit: time(known.first_commit),
        last_commit: time(known.last_commit),
        bytes: number(known.bytes),
        segments: number(known.segments),
        complete: Some(known.complete),
        conditions: Vec::new(),
    };
    let status = json!({"apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLBinlog", "status": status});
    Some((name, serde_json::to_value(object).ok()?, status))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use archive::SegmentKey;

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn origin() -> Origin {
        let [namespace, cluster, uid, location] = ["n", "shop", "u", "here"].map(str::to_owned);
        Origin { namespace, cluster, uid, location }
    }

    fn segment(first: u64, numbers: &str, commits: (u64, u64)) -> Segment {
        let file = BinlogFile { epoch: 7, server: UUID.parse().unwrap(), name: "binlog.000012".parse().unwrap() };
        Segment {
            version: archive::segment::VERSION,
            key: SegmentKey::new(file, first, first + 100).unwrap(),
            basis: GtidSet::default(),
            gtid: format!("{UUID}:{numbers}").parse().unwrap(),
            transactions: 1,
            first_commit: commits.0,
            last_commit: commits.1,
            sha256: String::new(),
        }
    }

    #[test]
    fn a_file_has_one_object_that_follows_its_segments() {
        let mut records = Records::new(origin(), &[]);
        records.shipped(&segment(0, "1-2", (1_700_000_000_000_001, 1_700_000_000_000_005)));
        records.shipped(&segment(100, "3", (1_700_000_000_000_006, 1_700_000_000_000_006)));
        let news = records.news();
        assert_eq!(news.len(), 1);
        let News { name, object: Some(object), status } = &news[0] else { unreachable!("it is new") };
        assert_eq!(name, "shop-7-07070707-000012");
        assert_eq!(object["spec"]["file"], "binlog.000012");
        assert_eq!(object["metadata"]["labels"]["pelorus.dev/cluster"], "shop");
        assert_eq!(object["metadata"]["labels"]["pelorus.dev/cluster-uid"], "u");
        assert_eq!(status["status"]["gtid"], format!("{UUID}:1-3"));
        assert_eq!((&status["status"]["bytes"], &status["status"]["segments"]), (&json!(200), &json!(2)));
        assert_eq!(status["status"]["firstCommit"], "2023-11-14T22:13:20.000001Z");
        assert_eq!(status["status"]["complete"], false);
        assert!(records.news().is_empty());
        records.shipped(&segment(200, "4", (1, 1)));
        assert!(records.news()[0].object.is_none(), "it has been made");
        records.again();
        assert!(records.news()[0].object.is_some(), "nobody knows");
    }
}
