//! Copies of transactions that were thrown away go to the bucket, so that they outlive the volume.
//!
//! ```text
//! each file of a copy -> its description, last -> marked as archived
//! ```
//!
//! Keys carry the time of the copy: another volume in the same epoch numbers its copies anew. Cut anywhere, it is done again: what is
//! there stays.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use archive::{Root, Store};
use common::instance::{ArchiveOrder, InstanceState, Refusal, RefusalCode};

use super::answer;
use super::copy::archive_error;
use crate::error::{Error, Result};
use crate::instance::{Instance, millis};
use crate::rewind::{self, Copied};

/// Accepts at once; that it is done shows in the state.
///
/// # Errors
/// The refusal.
pub async fn archive(instance: &Arc<Instance>, order: ArchiveOrder) -> Result<InstanceState, Refusal> {
    let begun = Instant::now();
    answer(instance, "archive", begun, begin(instance, order))
}

fn begin(instance: &Arc<Instance>, order: ArchiveOrder) -> Result<InstanceState> {
    if instance.archiving.swap(true, Ordering::AcqRel) {
        return Err(Error::Refused(RefusalCode::Busy, "copies are on their way already".to_owned()));
    }
    let report = instance.report();
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let begun = Instant::now();
        match run(&instance, &order).await {
            Ok(count) => tracing::info!(count, elapsed_ms = millis(begun.elapsed()), "copies are archived"),
            // It is ordered again as long as there is one.
            Err(error) => tracing::info!(%error, "a copy is not archived yet"),
        }
        instance.archiving.store(false, Ordering::Release);
    });
    Ok(report)
}

async fn run(instance: &Instance, order: &ArchiveOrder) -> Result<usize> {
    let store = Store::new(&order.location).map_err(archive_error)?;
    let identity = &instance.identity;
    let uid = instance.config().cluster_uid;
    let root = Root::new(&order.location.prefix, &identity.namespace, &identity.cluster, &uid);
    let copies = rewind::not_archived(&instance.volume)?;
    for Copied { name, time, files } in &copies {
        let copy = format!("{time:010}-{name}");
        for file in files {
            let path = instance.volume.saved_dir().join(file);
            let opened = File::open(&path).map_err(Error::file("open", &path))?;
            store.put_new_from(&root.rewound(&identity.name, &copy, file), opened).await.map_err(archive_error)?;
        }
        rewind::note_archived(&instance.volume, name)?;
        tracing::info!(copy, "transactions that were thrown away are in the bucket");
    }
    instance.change(|facts| facts.copies_to_archive = 0);
    Ok(copies.len())
}
