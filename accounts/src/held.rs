//! What a server holds: one query for all accounts of a page of user names, into the form that is compared.
//!
//! The grant tables are read, not the text of SHOW GRANTS, and all of them in one statement: it sees one moment. User
//! names rather than accounts are asked for, so that hosts which are no longer declared are found too.

mod query;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::mysql::Session;
use common::sql::Account as Name;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::model::Account;
use crate::password::Hash;

/// User names that are asked for at a time: a few hundred kilobytes of answer at most for ordinary accounts.
pub const PAGE: usize = 256;
/// Longest wait for a page.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The only plugin that accounts log in by.
const PLUGIN: &str = "caching_sha2_password";

/// An account as a server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// All but the password.
    pub account: Account,
    /// Who made it.
    pub mark: Option<Mark>,
    /// Its passwords.
    pub credential: Credential,
}

/// The passwords of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Authentication plugin.
    pub plugin: String,
    /// Has to be changed at the next login.
    pub expired: bool,
    /// The password.
    pub primary: Hash,
    /// The one before, while it is valid too.
    pub secondary: Option<Hash>,
    /// When the first was set, by the server's clock. DISCARD OLD PASSWORD does not change it.
    pub changed_at: Option<Timestamp>,
}

impl Credential {
    /// Whether a client that knows the password gets in with it.
    pub fn is_usable(&self) -> bool {
        self.plugin == PLUGIN && !self.expired && !self.primary.is_empty()
    }
}

/// One moment of a server.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The server's clock.
    pub at: Timestamp,
    /// The accounts that were asked for.
    pub accounts: BTreeMap<Name, Held>,
}

/// Reads all accounts with these user names.
///
/// # Errors
/// The server's; `partial_revokes=OFF`; grant tables of an unknown kind.
pub async fn read(session: &mut Session, users: &BTreeSet<String>) -> Result<Snapshot> {
    let rows: Vec<row::Row> = session.rows(&query::accounts(users), READ_WITHIN).await?;
    row::snapshot(rows)
}

/// A page of accounts that bear the mark of this cluster, in the order of host and user; `after`: the last one of the page before.
/// What is left behind by objects that nobody deleted in order is found so.
///
/// # Errors
/// The server's.
pub async fn marked(session: &mut Session, cluster: &str, after: Option<&Name>) -> Result<Vec<(Name, Mark)>> {
    let rows: Vec<(String, String, String)> = session.rows(&query::marked(cluster, after), READ_WITHIN).await?;
    let parsed = rows.into_iter().map(|(user, host, mark)| {
        let mark =
            serde_json::from_str(&mark).map_err(|error| Error::Held(format!("the mark of {user}@{host}: {error}")))?;
        Ok((Name::new(user, host)?, mark))
    });
    parsed.collect()
}
