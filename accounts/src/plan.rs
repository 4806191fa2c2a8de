//! The difference between what is wanted and what is held, as statements and as words for people.
//!
//! Guarantees: nothing differs, nothing is planned. An account that is not ours is in no statement. What is missing is
//! granted before what is extra is taken away, but where MySQL makes the one undo the other (see [`rights`]). What
//! `pelorus_users` may not take away is named and left, instead of failing at each resync.

mod rights;

use std::collections::BTreeMap;
use std::fmt;

use common::crd::OnDelete;
use common::mysql::Password;
use common::sql::Account as Name;
use rand::RngExt;

use crate::held::Held;
use crate::mark::{Claim, Conflict, Mark, claim};
use crate::model::{Account, Login};
use crate::password::Hash;
use crate::statement::{Action, Statement};
use crate::wanted::Wanted;

/// What is to be done, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub statements: Vec<Statement>,
    /// Every difference, the ones that stay too.
    pub findings: Vec<Finding>,
    /// Whose each wanted account is.
    pub claims: BTreeMap<Name, Claim>,
}

impl Plan {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.findings.is_empty()
    }

    /// The accounts that are left alone.
    pub fn conflicts(&self) -> impl Iterator<Item = (&Name, &Conflict)> {
        self.claims.iter().filter_map(|(name, claim)| match claim {
            Claim::Conflict(conflict) => Some((name, conflict)),
            Claim::Create | Claim::Ours | Claim::Adopt(_) => None,
        })
    }
}

/// One difference of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose.
    pub account: Name,
    /// What becomes of it.
    pub kind: Kind,
    /// What differs.
    pub what: String,
}

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was not there: it is added.
    Missing,
    /// It is there and is not declared: it is taken away.
    Extra,
    /// It is otherwise than declared: it is changed.
    Changed,
    /// Pelorus has no right to change it.
    Stays,
}

/// For events: `app@%: extra: DELETE on shop.orders`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Changed => "changed",
            Kind::Stays => "cannot be changed by Pelorus",
        };
        write!(f, "{}: {kind}: {}", self.account, self.what)
    }
}

/// When a statement comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accounts that are no longer declared go first: they may hold the limit of connections.
    Drop,
    /// Accounts are made.
    Create,
    /// What a revoke would undo if it came after, is revoked before.
    RevokeFirst,
    /// Rights are added.
    Grant,
    /// Rights are taken away.
    Revoke,
    /// What a revoke undoes, or what could not be granted before it.
    GrantLast,
    /// Parts of what is granted by now are taken away.
    Restrict,
    /// Of roles that are granted by now.
    DefaultRoles,
    /// At the end, so that an account bears the mark and is open when it holds what it should.
    Alter,
}

/// Steps of all accounts of a user; equal ones become one statement.
#[derive(Default)]
pub(crate) struct Draft {
    steps: Vec<(Phase, Action, Vec<Name>)>,
    findings: Vec<Finding>,
}

impl Draft {
    pub(crate) fn step(&mut self, phase: Phase, account: &Name, action: Action) {
        match self.steps.iter_mut().find(|(at, same, _)| *at == phase && *same == action) {
            Some((_, _, accounts)) => accounts.push(account.clone()),
            None => self.steps.push((phase, action, vec![account.clone()])),
        }
    }

    pub(crate) fn find(&mut self, account: &Name, kind: Kind, what: impl Into<String>) {
        self.findings.push(Finding { account: account.clone(), kind, what: what.into() });
    }

    fn finish(mut self, hashes: &BTreeMap<Name, Hash>, claims: BTreeMap<Name, Claim>) -> Plan {
        self.steps.sort_by_key(|(phase, ..)| *phase);
        let mut statements = Vec::new();
        for (_, action, accounts) in &self.steps {
            match Statement::new(action, accounts.clone(), hashes) {
                Ok(statement) => statements.push(statement),
                // Held names only: what is wanted was checked.
                Err(error) => self.findings.extend(accounts.iter().map(|account| Finding {
                    account: account.clone(),
                    kind: Kind::Stays,
                    what: error.to_string(),
                })),
            }
        }
        Plan { statements, findings: self.findings, claims }
    }
}

/// What a decision is made from, beside what is wanted and held.
pub struct Context<'a> {
    /// The mark of the object.
    pub mark: &'a Mark,
    /// Whether there is a MySQLUser with this uid.
    pub lives: &'a dyn Fn(&str) -> bool,
    /// Of accounts that have to be made: see [`crate::rotate::Recorded::initial`]. None for roles.
    pub password: Option<&'a Password>,
}

/// Compares. `held`: all accounts with the user name of `wanted`.
pub fn plan(wanted: &Wanted, held: &BTreeMap<Name, Held>, context: &Context<'_>, random: &mut impl RngExt) -> Plan {
    let mut draft = Draft::default();
    let (mut claims, mut hashes) = (BTreeMap::new(), BTreeMap::new());
    for account in &wanted.accounts {
        let name = &account.name;
        let there = held.get(name);
        let claim = claim(context.mark, there.map(|held| held.mark.as_ref()), wanted.adopt, context.lives);
        match (&claim, there) {
            (Claim::Conflict(_), _) => {}
            (Claim::Create, _) | (Claim::Ours | Claim::Adopt(_), None) => {
                if wanted.login {
                    // Without its password an account is not made: it would let in anybody.
                    let Some(password) = context.password else {
                        draft.find(name, Kind::Stays, "the account, as it has no password yet");
                        continue;
                    };
                    hashes.insert(name.clone(), Hash::make(password, random));
                }
                draft.find(name, Kind::Missing, "the account");
                let made = Account::new(name.clone(), account.login.clone());
                let create = Action::Create { login: made.login.clone(), attribute: context.mark.attribute() };
                draft.step(Phase::Create, name, create);
                rights::compare(account, &made, &mut draft);
            }
            (Claim::Adopt(adoption), Some(there)) => {
                draft.find(name, Kind::Changed, format!("the account is taken over: {adoption}"));
                alter(account, there, Some(context.mark.attribute()), &mut draft);
                rights::compare(account, &there.account, &mut draft);
            }
            (Claim::Ours, Some(there)) => {
                let attribute = (there.mark.as_ref() != Some(context.mark)).then(|| context.mark.attribute());
                if attribute.is_some() {
                    draft.find(name, Kind::Changed, "the mark of the account");
                }
                alter(account, there, attribute, &mut draft);
                rights::compare(account, &there.account, &mut draft);
            }
        }
        claims.insert(name.clone(), claim);
    }
    for (name, _) in ours(held, context.mark).filter(|(name, _)| !wanted.accounts.iter().any(|one| one.name == **name))
    {
        draft.find(name, Kind::Extra, "the account: its host is not declared any more");
        draft.step(Phase::Drop, name, Action::Drop);
    }
    draft.finish(&hashes, claims)
}

/// What is done when the object is deleted. Only accounts that bear its mark are touched.
pub fn farewell(held: &BTreeMap<Name, Held>, mark: &Mark, on_delete: OnDelete) -> Plan {
    let mut draft = Draft::default();
    for (name, _) in ours(held, mark) {
        let (phase, action) = match on_delete {
            OnDelete::Drop => (Phase::Drop, Action::Drop),
            OnDelete::Keep => (Phase::Alter, Action::Alter { login: None, attribute: Some(Mark::none()) }),
        };
        draft.find(
            name,
            Kind::Extra,
            match on_delete {
                OnDelete::Drop => "the account: its MySQLUser is deleted",
                OnDelete::Keep => "the mark of the account: its MySQLUser is deleted",
            },
        );
        draft.step(phase, name, action);
    }
    draft.finish(&BTreeMap::new(), BTreeMap::new())
}

fn ours<'a>(held: &'a BTreeMap<Name, Held>, mark: &'a Mark) -> impl Iterator<Item = (&'a Name, &'a Held)> {
    held.iter().filter(|(_, held)| {
        held.mark.as_ref().is_some_and(|there| there.cluster == mark.cluster && there.uid == mark.uid)
    })
}

fn alter(wanted: &Account, held: &Held, attribute: Option<String>, draft: &mut Draft) {
    let login = (wanted.login != held.account.login).then(|| wanted.login.clone());
    if login.is_some() {
        let what = changed(&wanted.login, &held.account.login);
        draft.find(&wanted.name, Kind::Changed, what);
    }
    if login.is_some() || attribute.is_some() {
        draft.step(Phase::Alter, &wanted.name, Action::Alter { login, attribute });
    }
}

/// What differs of a login.
fn changed(wanted: &Login, held: &Login) -> String {
    let Login { require, limits, locked, lifetime, attempts } = wanted;
    let parts = [
        (*require != held.require, "the transport that is required"),
        (*limits != held.limits, "the limits"),
        (*locked != held.locked, "the lock"),
        (*lifetime != held.lifetime, "when the password expires"),
        (*attempts != held.attempts, "how many failed logins lock it"),
    ];
    let parts: Vec<&str> = parts.iter().filter(|(differs, _)| *differs).map(|(_, what)| *what).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests;
