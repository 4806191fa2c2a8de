//! Takes binlogs out of the archive that no restore needs any more.
//!
//! ```text
//! dumps, then binlogs -> which may go (pure: archive::retain) -> each: its summaries, then its segments
//! ```
//!
//! Summaries first: what a pass that was cut leaves behind are segments that nothing vouches for, and the next takes them away.
//! Dumps are listed first: one that is made meanwhile needs nothing from before it.

use archive::catalogue::{self, Held};
use archive::layout::Object;
use archive::retain::{self, Dump};
use archive::{BinlogFile, Root, Store, store};

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Files, oldest first.
    pub files: Vec<BinlogFile>,
    /// The earliest time to which there still is a restore, microseconds since 1970: that of the oldest dump.
    pub from: u64,
}

/// Takes away what may go: nothing that was committed after `since` (microseconds since 1970), and nothing without a dump.
///
/// # Errors
/// The bucket's. What went before is in no summary and is taken away by the next pass.
pub async fn retire(store: &Store, root: &Root, dumps: &[Dump], since: u64) -> Result<Retired, catalogue::Error> {
    if dumps.is_empty() {
        return Ok(Retired::default());
    }
    let held = catalogue::read(store, root).await?;
    let from = retain::usable(&held, dumps).iter().map(|dump| dump.taken_at).min().unwrap_or(0);
    let mut retired = Retired { from, ..Retired::default() };
    for Held { file, .. } in retain::expired(&held, dumps, since) {
        remove(store, root, file).await?;
        retired.files.push(file.clone());
    }
    Ok(retired)
}

async fn remove(store: &Store, root: &Root, file: &BinlogFile) -> Result<(), store::Error> {
    let (segments, summaries): (Vec<_>, Vec<_>) = store
        .list(&root.file(file))
        .await?
        .into_iter()
        .map(|object| object.key)
        .partition(|key| matches!(root.parse(key), Ok(Object::Segment(_))));
    for key in summaries.iter().chain(&segments) {
        store.delete(key).await?;
    }
    Ok(())
}
