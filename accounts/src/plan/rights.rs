//! Differences of rights.
//!
//! MySQL's statements are not symmetrical, and the order heeds that:
//! - REVOKE for a table takes the privilege from its columns too: tables are revoked before their columns are granted.
//! - GRANT for a schema whose privilege of `*.*` is revoked there lifts the revoke and grants nothing: when the
//!   privilege of `*.*` goes, the schema's is granted after that.
//! - REVOKE for a schema of a privilege that is held on `*.*` makes a partial revoke: what `*.*` includes is left to
//!   stand below it (and left out of both sides, see [`crate::model`]).
//! - GRANT OPTION on `*.*` is given to dynamic privileges too, and REVOKE GRANT OPTION takes it from them in the tables but
//!   not in the server's memory, where they stay for ever from then on (seen on 9.7.4): who loses it loses these
//!   privileges in the same statement and gets them anew.
//! - REVOKE of dynamic privileges alone is refused: see [`companion`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, Kind, Phase};
use crate::model::{Account, Object, SYSTEM_SCHEMA};
use crate::privilege::{Privilege, companion, is_given, is_kept_from_system_schema};
use crate::statement::{Action, Privileges};
use common::sql::Account as Name;

/// Plans what makes `held` the same as `wanted`.
pub(super) fn compare(wanted: &Account, held: &Account, draft: &mut Draft) {
    let name = &wanted.name;
    for what in &held.strange {
        draft.find(name, Kind::Stays, what.as_str());
    }
    let objects: BTreeSet<&Object> = wanted.privileges.keys().chain(held.privileges.keys()).collect();
    let (mut grants, mut revokes) = (Changes::new(), Changes::new());
    for object in objects {
        let (want, have) = (wanted.held(object), held.held(object));
        for privilege in want.difference(&have) {
            draft.find(name, Kind::Missing, format!("{privilege} on {object}"));
            add(&mut grants, object, privilege);
        }
        for privilege in have.difference(&want) {
            if covered(wanted, object, privilege) {
                continue;
            }
            if stays(held, object, privilege) {
                draft.find(name, Kind::Stays, format!("{privilege} on {object}"));
                continue;
            }
            draft.find(name, Kind::Extra, format!("{privilege} on {object}"));
            add(&mut revokes, object, privilege);
        }
    }
    global(wanted, held, &mut grants, &mut revokes, draft);
    for (on, mut privileges) in revokes {
        let alone = |one: &Privilege| one.is_dynamic() || one.as_str() == Privilege::GRANT_OPTION;
        if on == Object::Global && privileges.keys().all(alone) {
            privileges.extend(companion(&wanted.held(&Object::Global)).map(|one| (one, BTreeSet::new())));
        }
        let phase = if matches!(on, Object::Table(..)) { Phase::RevokeFirst } else { Phase::Revoke };
        draft.step(phase, name, Action::Revoke { on, privileges });
    }
    for (on, privileges) in grants {
        let (late, now): (Privileges, Privileges) =
            privileges.into_iter().partition(|(privilege, _)| is_restricted(held, &on, privilege));
        for (phase, privileges) in [(Phase::Grant, now), (Phase::GrantLast, late)] {
            if !privileges.is_empty() {
                draft.step(phase, name, Action::Grant { on: on.clone(), privileges, passes_on: false });
            }
        }
    }
    restrictions(wanted, held, draft);
    roles(wanted, held, draft);
}

/// Changes by what stands after ON.
type Changes = BTreeMap<Object, Privileges>;

fn add(changes: &mut Changes, object: &Object, privilege: &Privilege) {
    let (on, column) = match object {
        Object::Column(schema, table, column) => (Object::Table(schema.clone(), table.clone()), Some(column.clone())),
        Object::Global | Object::Schema(_) | Object::Table(..) | Object::Routine(..) => (object.clone(), None),
    };
    let columns = changes.entry(on).or_default().entry(privilege.clone()).or_default();
    columns.extend(column);
}

/// Whether what is extra for a schema will be included in `*.*`, and is left out of the comparison from then on.
fn covered(wanted: &Account, object: &Object, privilege: &Privilege) -> bool {
    let Object::Schema(schema) = object else { return false };
    let restricted = wanted.revokes.get(schema).is_some_and(|revoked| revoked.contains(privilege));
    privilege.as_str() != Privilege::GRANT_OPTION && wanted.held(&Object::Global).contains(privilege) && !restricted
}

/// Whether `pelorus_users` may not take it away.
fn stays(held: &Account, object: &Object, privilege: &Privilege) -> bool {
    match object {
        Object::Global => {
            let kept = held.revokes.get(SYSTEM_SCHEMA);
            let everywhere =
                is_kept_from_system_schema(privilege) && !kept.is_some_and(|kept| kept.contains(privilege));
            !is_given(privilege) || everywhere
        }
        Object::Schema(schema)
        | Object::Table(schema, _)
        | Object::Column(schema, ..)
        | Object::Routine(_, schema, _) => schema == SYSTEM_SCHEMA && is_kept_from_system_schema(privilege),
    }
}

fn is_restricted(held: &Account, on: &Object, privilege: &Privilege) -> bool {
    let Object::Schema(schema) = on else { return false };
    held.revokes.get(schema).is_some_and(|revoked| revoked.contains(privilege))
}

/// Dynamic privileges, which carry the right to pass them on each for itself.
fn global(wanted: &Account, held: &Account, grants: &mut Changes, revokes: &mut Changes, draft: &mut Draft) {
    let name = &wanted.name;
    let have = held.held(&Object::Global);
    // Held with the right, wanted without: only taken away together.
    for privilege in held.passes_on.difference(&wanted.passes_on) {
        let wants = wanted.held(&Object::Global).contains(privilege);
        if !wants || !is_given(privilege) {
            continue;
        }
        draft.find(name, Kind::Extra, format!("GRANT OPTION for {privilege} on *.*"));
        add(revokes, &Object::Global, privilege);
        let privileges = Privileges::from([(privilege.clone(), BTreeSet::new())]);
        draft.step(Phase::GrantLast, name, Action::Grant { on: Object::Global, privileges, passes_on: false });
    }
    let mut passed = Privileges::new();
    for privilege in wanted.passes_on.difference(&held.passes_on) {
        if have.contains(privilege) {
            draft.find(name, Kind::Missing, format!("GRANT OPTION for {privilege} on *.*"));
        }
        passed.insert(privilege.clone(), BTreeSet::new());
    }
    if let Some(missing) = grants.get_mut(&Object::Global) {
        missing.retain(|privilege, _| !passed.contains_key(privilege));
        if missing.is_empty() {
            grants.remove(&Object::Global);
        }
    }
    if !passed.is_empty() {
        draft.step(Phase::Grant, name, Action::Grant { on: Object::Global, privileges: passed, passes_on: true });
    }
}

/// Partial revokes. Those of the system schema come by themselves with what `pelorus_users` grants on `*.*`.
fn restrictions(wanted: &Account, held: &Account, draft: &mut Draft) {
    let name = &wanted.name;
    let none = BTreeSet::new();
    let schemas: BTreeSet<&String> = wanted.revokes.keys().chain(held.revokes.keys()).collect();
    for schema in schemas {
        let want = wanted.revokes.get(schema).unwrap_or(&none);
        let have = held.revokes.get(schema).unwrap_or(&none);
        let system = schema == SYSTEM_SCHEMA;
        let mut revoked = Privileges::new();
        for privilege in want.difference(have) {
            let what = format!("REVOKE of {privilege} on {schema}.*");
            if system && is_kept_from_system_schema(privilege) {
                if held.held(&Object::Global).contains(privilege) {
                    draft.find(name, Kind::Stays, format!("{privilege} on {schema}.*"));
                }
                continue;
            }
            draft.find(name, Kind::Missing, what);
            revoked.insert(privilege.clone(), BTreeSet::new());
        }
        let mut lifted = Privileges::new();
        for privilege in have.difference(want) {
            // It goes with the privilege.
            if !wanted.held(&Object::Global).contains(privilege) {
                continue;
            }
            let kind = if system && is_kept_from_system_schema(privilege) { Kind::Stays } else { Kind::Extra };
            draft.find(name, kind, format!("REVOKE of {privilege} on {schema}.*"));
            if kind == Kind::Extra {
                lifted.insert(privilege.clone(), BTreeSet::new());
            }
        }
        let on = Object::Schema(schema.clone());
        if !revoked.is_empty() {
            draft.step(Phase::Restrict, name, Action::Revoke { on: on.clone(), privileges: revoked });
        }
        if !lifted.is_empty() {
            draft.step(Phase::Grant, name, Action::Grant { on, privileges: lifted, passes_on: false });
        }
    }
}

fn roles(wanted: &Account, held: &Account, draft: &mut Draft) {
    let name = &wanted.name;
    let (mut granted, mut revoked, mut again) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (role, membership) in &wanted.roles {
        match held.roles.get(role) {
            Some(have) if have == membership => {}
            Some(_) => {
                draft.find(name, Kind::Extra, format!("ADMIN OPTION for the role {role}"));
                again.insert(role.clone());
            }
            None => {
                draft.find(name, Kind::Missing, format!("the role {role}"));
                granted.insert(role.clone());
            }
        }
    }
    for role in held.roles.keys().filter(|role| !wanted.roles.contains_key(role)) {
        draft.find(name, Kind::Extra, format!("the role {role}"));
        revoked.insert(role.clone());
    }
    let lost: BTreeSet<Name> = revoked.union(&again).cloned().collect();
    // A role that is revoked is no default any more.
    let left: BTreeSet<Name> = held.default_roles.difference(&lost).cloned().collect();
    if left != wanted.default_roles {
        draft.step(Phase::DefaultRoles, name, Action::DefaultRoles(wanted.default_roles.clone()));
        for role in wanted.default_roles.difference(&held.default_roles) {
            draft.find(name, Kind::Missing, format!("the default role {role}"));
        }
        for role in left.difference(&wanted.default_roles) {
            draft.find(name, Kind::Extra, format!("the default role {role}"));
        }
    }
    for (phase, roles) in [(Phase::Grant, granted), (Phase::GrantLast, again)] {
        if !roles.is_empty() {
            draft.step(phase, name, Action::GrantRoles(roles));
        }
    }
    if !lost.is_empty() {
        draft.step(Phase::Revoke, name, Action::RevokeRoles(lost));
    }
}
