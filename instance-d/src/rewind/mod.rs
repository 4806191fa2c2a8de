//! Rewinding: a former primary's unacknowledged tail is cut off its binlog before mysqld starts, so that crash recovery
//! rolls it back instead of committing it (FAILOVER, "Rejoin by rewinding").
//!
//! ```text
//! follow, mysqld down, tail unproven
//!   -> what has the source? -> scan -> nothing foreign ------------------------------> start
//!                                   -> a tail that can be undone, and that no mysqld
//!                                      was started on -> save -> cut -----------------> start with a new server UUID
//!                                   -> anything else --------------------------------> condemned
//! start -> anything foreign executed? no: follow on.  yes: it was committed in the engine before the cut: condemned
//! ```
//!
//! Condemned data is not served. It is copied to the volume, and then topology-ctl may clone over it.
//! Every step is on disk before the next; an order that finds an interrupted rewind begins anew with what is there.

mod cut;
#[cfg(test)]
mod real;
mod save;
mod scan;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{Epoch, ErrantOrigin, ErrantReport, FollowOrder, Phase, Rewound};
use serde::{Deserialize, Serialize};

pub use self::cut::{Intent, Stage, carry_on};
use self::save::Source;
pub use self::save::{Copied, not_archived, note_archived};
use self::scan::{Foreign, Verdict};
use crate::data::{Promise, Volume};
use crate::error::{Error, Result};
use crate::gate::Pass;
use crate::instance::Instance;
use crate::metrics::OutcomeLabel;

/// Pace of looking whether something has to be saved.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a save that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Foreign transactions that keep data from being served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condemned {
    /// Epoch of the order that found them.
    pub epoch: Epoch,
    /// Who does not have them.
    pub source: String,
    /// Them, as far as they are known.
    pub gtids: GtidSet,
    /// The binlog could not be read to its end: its last file is copied whole.
    pub whole: bool,
    /// How they came to be; not known before the binlog was looked through.
    pub origin: Option<ErrantOrigin>,
    /// The finished copy.
    pub saved: Option<String>,
}

impl Condemned {
    /// For the state. What is not known yet is treated as a person's.
    pub fn report(&self) -> ErrantReport {
        ErrantReport {
            gtids: self.gtids.clone(),
            origin: self.origin.unwrap_or(ErrantOrigin::Written),
            saved: self.saved.is_some(),
        }
    }
}

/// Whether a follow order has to look at the tail before mysqld starts.
///
/// # Errors
/// A damaged intent.
pub fn is_due(instance: &Instance) -> Result<bool> {
    let unproven = instance.look(|facts| facts.promise.tail_unproven);
    Ok(instance.child().is_none() && (unproven || instance.volume.intent()?.is_some()))
}

/// What came of looking.
#[derive(Debug)]
enum Outcome {
    Nothing,
    Cut { gtids: GtidSet, bytes: u64 },
    Refused { gtids: GtidSet, whole: bool, reason: String },
}

/// Cuts off what `theirs` lacks and starts mysqld, read-only and closed. What it has executed is still to be checked.
///
/// # Errors
/// [`Error::NotRewindable`]: condemned. Others: everything is as before, or is carried on by the next order.
pub async fn rewind(instance: &Arc<Instance>, order: &FollowOrder, theirs: GtidSet, pass: &Pass) -> Result<()> {
    let work = {
        let (volume, data, order) = (instance.volume.clone(), instance.layout.data(), order.clone());
        let overtaken = pass.overtaken();
        move || cut_off(&volume, &data, &order, &theirs, &|| overtaken.is_cancelled())
    };
    // Not given up half way: whoever overtakes waits until it has noticed.
    let done = tokio::task::spawn_blocking(work).await;
    let outcome = done.map_err(|error| Error::Unexpected(format!("the rewind broke: {error}")))??;
    match outcome {
        Outcome::Nothing => tracing::info!(epoch = order.epoch, source = order.source, "nothing foreign in the binlog"),
        Outcome::Cut { gtids, bytes } => {
            tracing::warn!(
                epoch = order.epoch,
                source = order.source,
                transactions = gtids.count(),
                %gtids,
                bytes,
                "cut transactions off the binlog that nobody acknowledged"
            );
        }
        Outcome::Refused { gtids, whole, reason } => {
            instance.metrics.rewinds.get_or_create(&OutcomeLabel { outcome: "refused" }).inc();
            let source_name = order.source.clone();
            condemn(instance, order, &gtids, whole)?;
            return Err(Error::NotRewindable { source_name, gtids, reason });
        }
    }
    pass.run(instance.ensure_running()).await?;
    step("rewind.after.started")?;
    Ok(())
}

/// Name of the binlog that crash recovery goes by, if there is any.
///
/// # Errors
/// An index that cannot be understood.
pub fn last_binlog(data: &Path) -> Result<Option<String>> {
    match scan::files(data, "binlog") {
        Ok(files) => Ok(files.last().map(|path| scan::name(path))),
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn cut_off(
    volume: &Volume,
    data: &Path,
    order: &FollowOrder,
    theirs: &GtidSet,
    stop: &dyn Fn() -> bool,
) -> Result<Outcome> {
    let foreign = Foreign::NotIn(theirs.clone());
    let files = scan::files(data, "binlog")?;
    let Some(last) = files.last() else { return Ok(Outcome::Nothing) };
    let mut intent = volume.intent()?;
    if let Some(begun) = &intent
        && begun.is_uncut(data)
    {
        // Planned against another source, perhaps: what it would cut is found again, or is not foreign any more.
        volume.forget_intent()?;
        intent = None;
    }
    let held = scan::scan(last, &foreign, stop)?;
    match held.verdict() {
        Verdict::Start => {
            carry_on(volume, data)?;
            Ok(Outcome::Nothing)
        }
        Verdict::Cut(_) if volume.started_on()?.is_some_and(|started| started == held.name()) => {
            // Crash recovery commits what is prepared and in the last binlog, without a word of it in any table: only the
            // binlog tells. Had that start come further there would be another file.
            let reason = format!("mysqld was started on {}: its transactions may be committed", held.name());
            Ok(Outcome::Refused { gtids: held.foreign, whole: held.unreadable, reason })
        }
        Verdict::Cut(position) => {
            let what = [Source { path: held.path.clone(), position, length: held.length }];
            let saved = save::save(volume, order.epoch, &order.source, &held.foreign, &what, stop)?;
            step("rewind.after.saved")?;
            // What an earlier attempt has cut already belongs to what is gone.
            let earlier = intent.map(|intent| intent.gtids).unwrap_or_default();
            let gtids = held.foreign.union(&earlier);
            volume.save_intent(&Intent {
                epoch: order.epoch,
                source: order.source.clone(),
                file: held.name(),
                position,
                gtids: gtids.clone(),
                saved: saved.name,
                saved_bytes: saved.bytes,
                server_uuid: cut::server_uuid(data)?,
                stage: Stage::Planned,
            })?;
            step("rewind.after.planned")?;
            carry_on(volume, data)?;
            Ok(Outcome::Cut { gtids, bytes: saved.bytes })
        }
        Verdict::Refuse(reason) => {
            let all = scan::range(&files, &foreign, stop)?;
            let found = all.iter().fold(held.before.clone(), |found, held| found.union(&held.foreign));
            let whole = all.iter().any(|held| held.unreadable);
            Ok(Outcome::Refused { gtids: found, whole, reason })
        }
    }
}

/// Nothing that this instance holds is foreign: a rewind under way has succeeded, and a tail is proven.
///
/// # Errors
/// The volume.
pub fn finish(instance: &Instance) -> Result<()> {
    if let Some(intent) = instance.volume.intent()? {
        let seconds = instance.look(|facts| facts.rewind_begun).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let rewound = Rewound { epoch: intent.epoch, gtids: intent.gtids, saved_bytes: intent.saved_bytes, seconds };
        instance.volume.save_rewound(&rewound)?;
        step("rewind.after.recorded")?;
        prove(instance)?;
        step("rewind.after.proven")?;
        instance.volume.forget_intent()?;
        instance.metrics.rewinds.get_or_create(&OutcomeLabel { outcome: "rewound" }).inc();
        instance.metrics.rewind_seconds.observe(seconds);
        tracing::info!(epoch = rewound.epoch, gtids = %rewound.gtids, saved = intent.saved, seconds, "rewound");
        instance.change(|facts| facts.rewound = Some(rewound));
    } else {
        prove(instance)?;
    }
    if instance.look(|facts| facts.condemned.is_some()) {
        instance.volume.forget_condemned()?;
    }
    instance.change(|facts| {
        facts.condemned = None;
        facts.rewind_begun = None;
    });
    Ok(())
}

fn prove(instance: &Instance) -> Result<()> {
    instance.promise(instance.look(|facts| Promise { tail_unproven: false, ..facts.promise.clone() }))
}

/// Remembers foreign transactions that stay in the data. They are saved beside whatever else is done.
///
/// # Errors
/// The volume.
pub fn condemn(instance: &Instance, order: &FollowOrder, gtids: &GtidSet, whole: bool) -> Result<()> {
    let known = instance.look(|facts| facts.condemned.clone());
    if known.is_some_and(|known| known.whole == whole && gtids.is_subset(&known.gtids)) {
        return Ok(());
    }
    let intent = instance.volume.intent()?;
    let (origin, saved) = if instance.look(|facts| facts.promise.tail_unproven) {
        match &intent {
            // Cut off the binlog, and yet executed: committed in the engine before the cut.
            Some(intent) if gtids.is_subset(&intent.gtids) => (Some(ErrantOrigin::Tail), Some(intent.saved.clone())),
            Some(_) | None => (None, None),
        }
    } else {
        let own = cut::server_uuid(&instance.layout.data())?;
        let received = !own.is_empty() && gtids.without_uuid(&own) == *gtids;
        (Some(if received { ErrantOrigin::Received } else { ErrantOrigin::Written }), None)
    };
    let condemned =
        Condemned { epoch: order.epoch, source: order.source.clone(), gtids: gtids.clone(), whole, origin, saved };
    instance.volume.save_condemned(&condemned)?;
    if intent.is_some() {
        instance.metrics.rewinds.get_or_create(&OutcomeLabel { outcome: "errant" }).inc();
        instance.volume.forget_intent()?;
    }
    instance.change(|facts| facts.condemned = Some(condemned));
    Ok(())
}

/// Saves what is condemned, for as long as the process lives: room may be made, and what is in the relay log may be
/// executed meanwhile.
pub async fn keep(instance: Arc<Instance>) {
    loop {
        tokio::time::sleep(LOOK).await;
        count_copies(&instance);
        let (condemned, phase) = instance.look(|facts| (facts.condemned.clone(), facts.phase));
        let Some(condemned) = condemned.filter(|known| known.saved.is_none() && phase == Phase::Failed) else {
            continue;
        };
        let (volume, data, what) = (instance.volume.clone(), instance.layout.data(), condemned.clone());
        let work = move || {
            let Condemned { epoch, source, gtids, whole, .. } = &what;
            save::save_range(&volume, &data, *epoch, source, gtids, *whole, &|| false)
        };
        let saved = tokio::task::spawn_blocking(work).await;
        match saved.unwrap_or_else(|error| Err(Error::Unexpected(format!("saving broke: {error}")))) {
            Ok((saved, pure)) => {
                tracing::warn!(gtids = %condemned.gtids, saved = saved.name, bytes = saved.bytes, "saved what is condemned");
                let tail = if pure { ErrantOrigin::Tail } else { ErrantOrigin::Written };
                let origin = condemned.origin.or(Some(tail));
                let kept = Condemned { origin, saved: Some(saved.name), ..condemned.clone() };
                if let Err(error) = note_saved(&instance, &condemned, kept) {
                    tracing::warn!(%error, "could not note what was saved");
                }
                instance.change(|facts| {
                    facts.problem = facts.problem.as_deref().map(|problem| without_unsaved(problem).to_owned());
                });
            }
            Err(error) => {
                tracing::warn!(%error, "what is condemned could not be saved yet");
                instance.change(|facts| facts.problem = Some(unsaved(facts.problem.as_deref(), &error.to_string())));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Says how many copies are on the volume only.
fn count_copies(instance: &Instance) {
    let count = save::count_not_archived(&instance.volume).unwrap_or(0);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if instance.look(|facts| facts.copies_to_archive != count) {
        instance.change(|facts| facts.copies_to_archive = count);
    }
}

/// Stands in a problem's text before what keeps the copy from being made.
const UNSAVED: &str = "; not copied yet: ";

fn without_unsaved(problem: &str) -> &str {
    problem.split_once(UNSAVED).map_or(problem, |(problem, _)| problem)
}

fn unsaved(problem: Option<&str>, error: &str) -> String {
    format!("{}{UNSAVED}{error}", without_unsaved(problem.unwrap_or("errant transactions")))
}

/// The data may have been replaced while it was copied: then there is nothing to note.
fn note_saved(instance: &Instance, before: &Condemned, kept: Condemned) -> Result<()> {
    let stands = |instance: &Instance| instance.look(|facts| facts.condemned.as_ref() == Some(before));
    if !stands(instance) {
        return Ok(());
    }
    instance.volume.save_condemned(&kept)?;
    if stands(instance) {
        instance.change(|facts| facts.condemned = Some(kept));
        Ok(())
    } else {
        instance.volume.forget_condemned()
    }
}

/// Copies transactions of data that is about to be thrown away on purpose. What is in no log any more cannot be saved.
///
/// # Errors
/// No room, or files.
pub fn save_before_clone(volume: &Volume, data: &Path, epoch: Epoch, donor: &str, gtids: &GtidSet) -> Result<()> {
    match save::save_range(volume, data, epoch, donor, gtids, false, &|| false) {
        Ok((saved, _)) => {
            tracing::warn!(%gtids, saved = saved.name, bytes = saved.bytes, "saved what is thrown away");
            Ok(())
        }
        Err(Error::Unexpected(reason)) => {
            tracing::warn!(reason, "not saved");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Between two steps: a rewind that dies here is seen through by the next order.
fn step(name: &'static str) -> Result<()> {
    common::failpoint::hit_blocking(name).map_err(|injected| Error::Unexpected(injected.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{unsaved, without_unsaved};

    #[test]
    fn a_problem_names_the_last_failure_and_forgets_it() {
        let once = unsaved(Some("2 transactions"), "no room");
        assert_eq!(once, "2 transactions; not copied yet: no room");
        assert_eq!(unsaved(Some(&once), "still none"), "2 transactions; not copied yet: still none");
        assert_eq!(without_unsaved(&once), "2 transactions");
    }
}
