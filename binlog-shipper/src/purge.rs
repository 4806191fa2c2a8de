//! Which binlogs the servers need no more, and their end (invariant 7: nobody purges what is not in the archive).
//!
//! ```text
//! safe = in the archive and committed longer ago than `keep`  ∩  executed by every instance
//! a file goes when all that it and the files before it hold is safe; the one that is being written never does
//! ```
//!
//! What a file holds is known without reading it: each begins with the set of all earlier transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use archive::catalogue::Held;
use archive::{Segment, retain};
use common::gtid::{GtidSet, ParseError};
use common::mysql::{self, Session};
use common::sql::quote_str;

/// Deadline of a question.
const ASK: Duration = Duration::from_secs(5);
/// Deadline of a purge: each file is deleted before the answer.
const PURGE: Duration = Duration::from_secs(60);

/// Ages are told apart by minutes, so that a busy week takes little memory.
const MINUTE: u64 = 60_000_000;

/// What is in the archive, by age.
#[derive(Debug, Clone, Default)]
pub struct Horizon {
    /// By latest commit time, microseconds since 1970, in whole minutes and never earlier than it was.
    young: BTreeMap<u64, GtidSet>,
    old: GtidSet,
}

impl Horizon {
    /// Of what the archive holds.
    pub fn new(held: &[Held]) -> Self {
        let mut horizon = Self { old: retain::before(held), ..Self::default() };
        for part in held.iter().flat_map(|file| &file.segments) {
            horizon.add(part.last_commit, &part.gtid);
        }
        horizon
    }

    /// A segment is in the archive.
    pub fn shipped(&mut self, segment: &Segment) {
        self.add(segment.last_commit, &segment.gtid);
    }

    fn add(&mut self, last_commit: u64, gtid: &GtidSet) {
        if !gtid.is_empty() {
            self.young.entry(last_commit.div_ceil(MINUTE) * MINUTE).or_default().extend_with(gtid);
        }
    }

    /// What is in the archive and was committed before a moment (microseconds since 1970, which only grows).
    pub fn before(&mut self, moment: u64) -> &GtidSet {
        let younger = self.young.split_off(&moment);
        for gtid in std::mem::replace(&mut self.young, younger).into_values() {
            self.old.extend_with(&gtid);
        }
        &self.old
    }
}

/// Why binlogs were not purged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server.
    #[error(transparent)]
    MySql(#[from] mysql::Error),
    /// A binlog that does not begin as one.
    #[error("{0} does not say what came before it")]
    NoBeginning(String),
}

/// Purges what a server needs no more; the first file that stays, if any went.
///
/// # Errors
/// The server's. Nothing was purged then that is not safe.
pub async fn purge(session: &mut Session, safe: &GtidSet) -> Result<Option<String>, Error> {
    let listed: Vec<(String, u64, String)> = session.rows("SHOW BINARY LOGS", ASK).await?;
    let mut names = listed.into_iter().map(|(name, ..)| name);
    let Some(first) = names.next() else { return Ok(None) };
    let start = before(session, &first).await?;
    let mut stays = None;
    for file in names {
        let held = before(session, &file).await?.subtract(&start);
        if !held.is_subset(safe) {
            break;
        }
        stays = Some(file);
    }
    if let Some(stays) = &stays {
        session.exec(&format!("PURGE BINARY LOGS TO {}", quote_str(stays, false)), PURGE).await?;
    }
    Ok(stays)
}

/// What came before a binlog.
async fn before(session: &mut Session, file: &str) -> Result<GtidSet, Error> {
    let no_beginning = || Error::NoBeginning(file.to_owned());
    // Its format description, and then what came before.
    let sql = format!("SHOW BINLOG EVENTS IN {} LIMIT 2", quote_str(file, false));
    let events: Vec<(String, u64, String, u64, u64, String)> = session.rows(&sql, ASK).await?;
    let said = events.into_iter().find(|(_, _, kind, ..)| kind == "Previous_gtids").ok_or_else(no_beginning)?;
    said.5.parse().map_err(|_: ParseError| no_beginning())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn set(numbers: &str) -> GtidSet {
        format!("{UUID}:{numbers}").parse().unwrap()
    }

    #[test]
    fn the_horizon_holds_what_is_older() {
        let mut horizon = Horizon::default();
        horizon.add(10 * MINUTE, &set("1-3"));
        horizon.add(29 * MINUTE + 1, &set("6"));
        horizon.add(20 * MINUTE, &set("4"));
        horizon.add(19 * MINUTE + 5, &set("5:9"));
        horizon.add(0, &GtidSet::default());
        assert!(horizon.before(10 * MINUTE).is_empty());
        assert_eq!(*horizon.before(20 * MINUTE), set("1-3"));
        assert_eq!(*horizon.before(25 * MINUTE), set("1-5:9"));
        // A clock that is set back takes nothing back.
        assert_eq!(*horizon.before(5 * MINUTE), set("1-5:9"));
        assert_eq!(*horizon.before(30 * MINUTE + 1), set("1-6:9"));
    }
}
