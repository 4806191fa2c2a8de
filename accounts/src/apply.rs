//! Executes a plan on a primary, and reads back.
//!
//! One statement that the server refuses does not keep the others from being tried, unless it made or dropped an
//! account: a grant for a table that is not there yet must not hold up all others. What could not be done is part of the
//! answer, with the account and the statement without its hashes. A session that broke ends the execution; what was under way may
//! or may not have happened, which the next reading tells.

use std::collections::BTreeMap;
use std::time::Duration;

use common::mysql::{Error as SessionError, Session};
use common::sql::Account as Name;
use rand::RngExt;

use crate::error::Result;
use crate::held::{self, Held};
use crate::plan::{Context, Finding, Plan, plan};
use crate::statement::Statement;
use crate::wanted::Wanted;

/// Some of MySQL's statements undo a part of others in ways that are seen by reading back only; more rounds than this
/// no difference needs.
const ROUNDS: usize = 3;

/// A statement that was not executed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {statement}: {source}", names(statement.accounts()))]
pub struct Failure {
    /// Which; shows no hash.
    pub statement: Statement,
    /// Why.
    pub source: SessionError,
}

fn names(accounts: &[Name]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Failure {
    /// Whether the schema, table, column, routine or role that it names is not there (yet): worth another try later.
    pub fn is_missing_object(&self) -> bool {
        /// Unknown database, table, column, routine, table in a grant, role.
        const MISSING: [u16; 6] = [1049, 1146, 1054, 1305, 1147, 3523];
        self.source.code().is_some_and(|code| MISSING.contains(&code))
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// The first plan: what differed and what was to be done.
    pub plan: Plan,
    /// Statements that were executed.
    pub executed: usize,
    /// What the server refused.
    pub failures: Vec<Failure>,
    /// What still differs, by the last reading. Empty: what is declared is what the server holds.
    pub left: Vec<Finding>,
    /// The last reading.
    pub held: BTreeMap<Name, Held>,
}

impl Applied {
    /// What is declared was read back, and no account is another's.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty() && self.failures.is_empty() && self.plan.conflicts().next().is_none()
    }
}

/// Reads, plans, executes and reads back. For a session on the primary, with enough replicas connected to acknowledge,
/// and no other execution on the cluster. `within`: longest wait for each statement.
///
/// # Errors
/// Reading failed; nothing was executed, or it is not known what.
pub async fn apply(
    session: &mut Session,
    wanted: &Wanted,
    context: &Context<'_>,
    random: &mut impl RngExt,
    within: Duration,
) -> Result<Applied> {
    let users = [wanted.user.clone()].into();
    let mut held = held::read(session, &users).await?.accounts;
    let first = plan(wanted, &held, context, random);
    let mut applied = Applied { left: first.findings.clone(), plan: first.clone(), ..Applied::default() };
    let mut next = first;
    for _ in 0..ROUNDS {
        if next.statements.is_empty() {
            break;
        }
        applied.failures.clear();
        applied.executed += execute(session, &next.statements, &mut applied.failures, within).await;
        held = held::read(session, &users).await?.accounts;
        let again = plan(wanted, &held, context, random);
        applied.left.clone_from(&again.findings);
        // The same would fail in the same way.
        if !applied.failures.is_empty() || again.findings == next.findings {
            break;
        }
        next = again;
    }
    applied.held = held;
    Ok(applied)
}

/// Executes statements in order; gives how many were.
pub async fn execute(
    session: &mut Session,
    statements: &[Statement],
    failures: &mut Vec<Failure>,
    within: Duration,
) -> usize {
    let mut executed = 0;
    for statement in statements {
        match session.exec(statement.sql(), within).await {
            Ok(()) => {
                tracing::debug!(%statement, "executed");
                executed += 1;
            }
            Err(source) => {
                let stops = session.is_closed() || statement.makes_or_drops();
                failures.push(Failure { statement: statement.clone(), source });
                if stops {
                    break;
                }
            }
        }
    }
    executed
}
