//! Which role orders are obeyed. Pure.
//!
//! An order below the promise is refused (invariant 3). Above it everything is obeyed that makes sense for the
//! instance. Within the promised epoch an order is obeyed when it repeats or continues what was obeyed, and refused when
//! it contradicts it: one epoch never has two primaries (invariant 2).

use common::instance::{Epoch, RefusalCode, Role};
use serde::{Deserialize, Serialize};

/// Kinds of role orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderKind {
    /// Hold still.
    Fence,
    /// Replicate.
    Follow,
    /// Take writes.
    Promote,
    /// Change the acknowledgements needed.
    Acks,
    /// Take no more writes.
    Demote,
}

impl OrderKind {
    /// For metrics and texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Follow => "follow",
            Self::Promote => "promote",
            Self::Acks => "acks",
            Self::Demote => "demote",
        }
    }
}

/// What an order asks for, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which order.
    pub kind: OrderKind,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it makes of the instance when it is done.
    pub role: Role,
}

/// What the instance stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Pod name.
    pub name: &'a str,
    /// The promise.
    pub epoch: Epoch,
    /// What the last order made of it.
    pub role: &'a Role,
    /// The last order.
    pub order: Option<OrderKind>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Promise the epoch and do it.
    Obey,
    /// Leave everything as it is.
    Refuse(RefusalCode, String),
}

/// Decides about an order. Whether there is data is another question, asked before.
pub fn accept(standing: &Standing<'_>, ask: &Ask) -> Verdict {
    let refuse = |code, message: String| Verdict::Refuse(code, message);
    if ask.epoch < standing.epoch {
        return refuse(
            RefusalCode::EpochTooLow,
            format!("{} of epoch {} is below the promised epoch {}", ask.kind.name(), ask.epoch, standing.epoch),
        );
    }
    if let Role::Replica { source, .. } = &ask.role
        && source == standing.name
    {
        return refuse(RefusalCode::BadRequest, format!("{source} cannot follow itself"));
    }
    let primary = matches!(standing.role, Role::Primary { .. });
    if ask.kind == OrderKind::Acks && !primary {
        return refuse(RefusalCode::Conflict, "acks is for the primary, and this instance is none".to_owned());
    }
    if ask.epoch > standing.epoch {
        return Verdict::Obey;
    }
    if ask.kind == OrderKind::Demote && primary && standing.order.is_none() {
        return refuse(RefusalCode::Declined, format!("the demotion of epoch {} was given up", ask.epoch));
    }
    let agrees = match (ask.kind, standing.role) {
        // Nothing contradictory was obeyed in this epoch yet, or an election is continued; or the primary of this
        // epoch is asked again: to open when its tail is proven, or to what it is already.
        (OrderKind::Fence | OrderKind::Demote | OrderKind::Follow | OrderKind::Promote, Role::None | Role::Fenced)
        | (OrderKind::Promote, Role::Primary { .. }) => true,
        (OrderKind::Follow, Role::Replica { source, .. }) => {
            matches!(&ask.role, Role::Replica { source: asked, .. } if asked == source)
        }
        // Fewer acknowledgements take a new epoch: a late order of this one must not undo a raise that was recorded.
        (OrderKind::Acks, Role::Primary { acks_needed, .. }) => {
            matches!(&ask.role, Role::Primary { acks_needed: asked, .. } if asked >= acks_needed)
        }
        // A demotion that was cut short is asked for again or gone on with.
        (OrderKind::Demote | OrderKind::Fence | OrderKind::Follow, Role::Primary { .. }) => {
            standing.order == Some(OrderKind::Demote)
        }
        (OrderKind::Fence | OrderKind::Demote | OrderKind::Promote, Role::Replica { .. })
        | (OrderKind::Acks, Role::None | Role::Fenced | Role::Replica { .. }) => false,
    };
    if agrees {
        Verdict::Obey
    } else {
        refuse(
            RefusalCode::Conflict,
            format!(
                "{} contradicts what was obeyed in epoch {}: {}",
                ask.kind.name(),
                ask.epoch,
                describe(standing.role)
            ),
        )
    }
}

/// A role for people.
pub fn describe(role: &Role) -> String {
    match role {
        Role::None => "no role".to_owned(),
        Role::Fenced => "fenced".to_owned(),
        Role::Replica { source, acknowledges: true } => format!("replica of {source}, acknowledging"),
        Role::Replica { source, acknowledges: false } => format!("replica of {source}"),
        Role::Primary { acks_needed, struck } => {
            format!("primary with {acks_needed} acknowledgements needed and {struck:?} locked out")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ask, OrderKind, Standing, Verdict, accept};
    use common::instance::{RefusalCode, Role};

    fn replica(source: &str, acknowledges: bool) -> Role {
        Role::Replica { source: source.to_owned(), acknowledges }
    }

    fn primary(acks_needed: u32) -> Role {
        Role::Primary { acks_needed, struck: Vec::new() }
    }

    fn outcome(
        epoch: u64,
        role: &Role,
        order: Option<OrderKind>,
        kind: OrderKind,
        asked: u64,
        result: Role,
    ) -> Option<RefusalCode> {
        let standing = Standing { name: "db-0", epoch, role, order };
        match accept(&standing, &Ask { kind, epoch: asked, role: result }) {
            Verdict::Obey => None,
            Verdict::Refuse(code, _) => Some(code),
        }
    }

    #[test]
    fn orders_below_the_promise_are_refused() {
        for kind in [OrderKind::Fence, OrderKind::Follow, OrderKind::Promote, OrderKind::Acks, OrderKind::Demote] {
            let refused = outcome(5, &primary(1), Some(OrderKind::Promote), kind, 4, primary(1));
            assert_eq!(refused, Some(RefusalCode::EpochTooLow), "{kind:?}");
        }
    }

    #[test]
    fn a_higher_epoch_is_obeyed() {
        for role in [Role::None, Role::Fenced, replica("db-1", true), primary(1)] {
            assert_eq!(outcome(5, &role, None, OrderKind::Fence, 6, Role::Fenced), None);
            assert_eq!(outcome(5, &role, None, OrderKind::Demote, 6, Role::Fenced), None);
            assert_eq!(outcome(5, &role, None, OrderKind::Promote, 6, primary(1)), None);
            assert_eq!(outcome(5, &role, None, OrderKind::Follow, 6, replica("db-2", false)), None);
        }
    }

    #[test]
    fn within_an_epoch_only_repetition_and_continuation() {
        use OrderKind::{Acks, Demote, Fence, Follow, Promote};
        let conflict = Some(RefusalCode::Conflict);
        let table = [
            // standing, its order, ask, result, expected
            (Role::Fenced, Some(Fence), Fence, Role::Fenced, None),
            (Role::Fenced, Some(Fence), Follow, replica("db-1", true), None),
            (Role::Fenced, Some(Fence), Promote, primary(1), None),
            (Role::Fenced, Some(Demote), Promote, primary(1), None),
            (Role::Fenced, Some(Demote), Follow, replica("db-1", false), None),
            (Role::None, None, Follow, replica("db-1", true), None),
            (replica("db-1", true), Some(Follow), Follow, replica("db-1", true), None),
            (replica("db-1", false), Some(Follow), Follow, replica("db-1", true), None),
            (replica("db-1", true), Some(Follow), Follow, replica("db-2", true), conflict),
            (replica("db-1", true), Some(Follow), Promote, primary(1), conflict),
            (replica("db-1", true), Some(Follow), Fence, Role::Fenced, conflict),
            (replica("db-1", true), Some(Follow), Demote, Role::Fenced, conflict),
            (replica("db-1", true), Some(Follow), Acks, primary(1), conflict),
            (primary(1), Some(Promote), Promote, primary(1), None),
            (primary(1), Some(Promote), Follow, replica("db-1", true), conflict),
            (primary(1), Some(Promote), Fence, Role::Fenced, conflict),
            (primary(1), Some(Promote), Demote, Role::Fenced, conflict),
            (primary(1), Some(Demote), Demote, Role::Fenced, None),
            (primary(1), None, Demote, Role::Fenced, Some(RefusalCode::Declined)),
            (primary(1), None, Fence, Role::Fenced, conflict),
            (primary(1), None, Follow, replica("db-1", true), conflict),
            (primary(1), Some(Demote), Promote, primary(1), None),
            (primary(1), Some(Demote), Follow, replica("db-1", true), None),
            (primary(1), Some(Demote), Fence, Role::Fenced, None),
            (primary(1), Some(Acks), Follow, replica("db-1", true), conflict),
            (primary(1), Some(Acks), Acks, primary(1), None),
            (primary(1), Some(Acks), Acks, primary(2), None),
            (primary(2), Some(Acks), Acks, primary(1), conflict),
        ];
        for (role, order, kind, result, expected) in table {
            assert_eq!(outcome(5, &role, order, kind, 5, result.clone()), expected, "{role:?} {kind:?} {result:?}");
        }
    }

    #[test]
    fn acks_is_for_primaries_whatever_the_epoch() {
        assert_eq!(outcome(5, &primary(1), None, OrderKind::Acks, 6, primary(2)), None);
        assert_eq!(outcome(5, &Role::Fenced, None, OrderKind::Acks, 6, primary(2)), Some(RefusalCode::Conflict));
    }

    #[test]
    fn nobody_follows_itself() {
        assert_eq!(
            outcome(5, &Role::Fenced, None, OrderKind::Follow, 6, replica("db-0", true)),
            Some(RefusalCode::BadRequest)
        );
    }
}
