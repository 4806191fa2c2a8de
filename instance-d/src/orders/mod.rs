//! Orders: admitted one at a time, promised on disk, carried out, answered with what mysqld says afterwards.
//!
//! ```text
//! POST -> data? -> gate -> decide::accept -> promise on disk -> mysqld answers?  yes: carry out -> observe -> state
//!                                                                                no:  state at once, the rest behind it
//! ```
//!
//! An order goes on when its caller has gone away. Every step can be repeated.

mod acks;
mod archive;
mod clone;
mod config;
mod copy;
mod demote;
mod fence;
mod follow;
mod initialise;
mod promote;
mod replication;
mod restore;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use common::instance::{
    AcksOrder, DemoteOrder, Epoch, FenceOrder, FollowOrder, InstanceState, Phase, PromoteOrder, Refusal, RefusalCode,
    Role,
};

use common::names::INSTANCES_MAX;

pub use self::archive::archive;
pub use self::clone::clone;
pub use self::config::{apply as apply_config, check as check_config};
pub use self::copy::copy;
pub use self::demote::{close, stop_writes};
pub use self::initialise::initialise;
pub use self::replication::{channel, kill_coordinator, stop_receiver};
pub use self::restore::restore;

use crate::data::Promise;
use crate::decide::{self, Ask, OrderKind, Standing, Verdict};
use crate::error::{Error, Result};
use crate::gate::Pass;
use crate::instance::Instance;
use crate::metrics::{OrderLabels, StepLabels};
use crate::observe::{self, WaitClock};
use tracing::Instrument;

/// An order of failover-d.
#[derive(Clone, Debug, PartialEq)]
pub enum RoleOrder {
    /// Hold still.
    Fence(FenceOrder),
    /// Replicate.
    Follow(FollowOrder),
    /// Take writes.
    Promote(PromoteOrder),
    /// Change the acknowledgements needed.
    Acks(AcksOrder),
    /// Take no more writes.
    Demote(DemoteOrder),
}

impl RoleOrder {
    fn kind(&self) -> OrderKind {
        match self {
            Self::Fence(_) => OrderKind::Fence,
            Self::Follow(_) => OrderKind::Follow,
            Self::Promote(_) => OrderKind::Promote,
            Self::Acks(_) => OrderKind::Acks,
            Self::Demote(_) => OrderKind::Demote,
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Self::Fence(order) => order.epoch,
            Self::Follow(order) => order.epoch,
            Self::Promote(order) => order.epoch,
            Self::Acks(order) => order.epoch,
            Self::Demote(order) => order.epoch,
        }
    }

    /// `own`: the ordinal of this instance, whose own account nobody has to lock.
    fn ask(&self, own: u32) -> Ask {
        let role = match self {
            Self::Fence(_) | Self::Demote(_) => Role::Fenced,
            Self::Follow(order) => Role::Replica { source: order.source.clone(), acknowledges: order.acknowledges },
            Self::Promote(order) => Role::Primary {
                acks_needed: order.acks_needed,
                struck: (0..INSTANCES_MAX)
                    .filter(|ordinal| *ordinal != own && !order.ackers.contains(ordinal))
                    .collect(),
            },
            Self::Acks(order) => {
                let struck: BTreeSet<u32> = order.struck.iter().copied().collect();
                Role::Primary { acks_needed: order.acks_needed, struck: struck.into_iter().collect() }
            }
        };
        Ask { kind: self.kind(), epoch: self.epoch(), role }
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// The running mysqld is in the role.
    InForce,
    /// Obeyed as far as it goes: mysqld stays closed until its tail is proven, or does not run.
    NotYet,
}

/// Obeys or refuses. Goes on when the caller goes away.
///
/// # Errors
/// The refusal.
pub async fn obey(instance: &Arc<Instance>, order: RoleOrder) -> Result<InstanceState, Refusal> {
    let kind = order.kind();
    let begun = Instant::now();
    let task = tokio::spawn(admit(Arc::clone(instance), order).in_current_span());
    let done = task.await.unwrap_or_else(|error| Err(Error::Unexpected(format!("the order broke: {error}"))));
    answer(instance, kind.name(), begun, done)
}

/// Counts an order and turns its error into a refusal.
fn answer<T>(instance: &Instance, order: &'static str, begun: Instant, done: Result<T>) -> Result<T, Refusal> {
    let outcome = match &done {
        Ok(_) => "obeyed".to_owned(),
        Err(error) => format!("{:?}", error.code()),
    };
    instance.metrics.orders.get_or_create(&OrderLabels { order, outcome }).inc();
    match done {
        Ok(value) => {
            instance.metrics.order_seconds.get_or_create(&StepLabels { order }).observe(begun.elapsed().as_secs_f64());
            Ok(value)
        }
        Err(error) => {
            tracing::warn!(order, code = ?error.code(), elapsed_ms = crate::instance::millis(begun.elapsed()), %error, "order refused or failed");
            let promised = instance.look(|facts| facts.promise.epoch);
            Err(Refusal { code: error.code(), message: error.to_string(), promised })
        }
    }
}

fn decide(instance: &Instance, ask: &Ask) -> Result<()> {
    let verdict = instance.look(|facts| {
        let standing = Standing {
            name: &instance.identity.name,
            epoch: facts.promise.epoch,
            role: &facts.promise.role,
            order: facts.promise.order,
        };
        decide::accept(&standing, ask)
    });
    match verdict {
        Verdict::Obey => Ok(()),
        Verdict::Refuse(code, message) => Err(Error::Refused(code, message)),
    }
}

/// A fence that is in force: whoever asks for it once more is told so, and holds up nobody.
fn holds_still(instance: &Instance, ask: &Ask) -> bool {
    ask.kind == OrderKind::Fence
        && instance.look(|facts| {
            let promise = &facts.promise;
            facts.in_force && !facts.opened && promise.epoch == ask.epoch && promise.order == Some(OrderKind::Fence)
        })
}

fn holds_data(instance: &Instance) -> Result<()> {
    match instance.look(|facts| facts.phase) {
        phase @ (Phase::Empty | Phase::Initialising | Phase::Cloning) => {
            Err(Error::Refused(RefusalCode::NoData, format!("this instance holds no data yet ({phase:?})")))
        }
        Phase::Crashed | Phase::Rewinding | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Failed => {
            Ok(())
        }
    }
}

async fn admit(instance: Arc<Instance>, order: RoleOrder) -> Result<InstanceState> {
    let ask = order.ask(instance.identity.ordinal);
    holds_data(&instance)?;
    decide(&instance, &ask)?;
    if instance.look(|facts| facts.carrying.as_ref() == Some(&order)) {
        return Ok(instance.report());
    }
    if holds_still(&instance, &ask) && refresh(&instance).await && holds_still(&instance, &ask) {
        return Ok(instance.report());
    }
    let overtaking = matches!(ask.kind, OrderKind::Fence | OrderKind::Demote);
    let pass = instance.gate.enter(overtaking, true).await?;
    holds_data(&instance)?;
    decide(&instance, &ask)?;
    let answers = instance.child().is_some()
        && matches!(instance.look(|facts| facts.phase), Phase::Running | Phase::Failed | Phase::Stopping);
    if ask.kind == OrderKind::Acks && !answers {
        return Err(Error::NotRunning);
    }
    promise(&instance, &ask)?;
    tracing::info!(order = ask.kind.name(), epoch = ask.epoch, role = %decide::describe(&ask.role), "obeying");
    if answers {
        carry_out(&instance, &order, &pass).await?;
        return Ok(instance.report());
    }
    if !starts(&instance, &order) {
        return Ok(instance.report());
    }
    instance.change(|facts| {
        facts.carrying = Some(order.clone());
        if instance.child().is_none() {
            facts.phase = Phase::Starting;
        }
    });
    let report = instance.report();
    let rest = async move {
        let done = async {
            match &order {
                RoleOrder::Follow(order) => follow::start(&instance, order, &pass).await?,
                _ => pass.run(instance.ensure_running()).await?,
            }
            carry_out(&instance, &order, &pass).await
        };
        if let Err(error) = done.await {
            tracing::warn!(order = order.kind().name(), %error, "order failed after the start of mysqld");
            instance.change(|facts| {
                if !matches!(error, Error::Overtaken) {
                    facts.problem = Some(error.to_string());
                }
                if instance.child().is_none() && matches!(facts.phase, Phase::Starting | Phase::Rewinding) {
                    facts.phase = Phase::Crashed;
                }
                if error.condemns() {
                    facts.phase = Phase::Failed;
                }
            });
        }
        instance.change(|facts| facts.carrying = None);
        drop(pass);
    };
    tokio::spawn(rest.in_current_span());
    Ok(report)
}

/// Whether an order makes mysqld start where it does not run. A primary that crashed is not started to hold still unless
/// that is asked for: its start would commit what nobody acknowledged.
fn starts(instance: &Instance, order: &RoleOrder) -> bool {
    match order {
        RoleOrder::Follow(_) | RoleOrder::Promote(_) => true,
        RoleOrder::Fence(order) => {
            order.start || instance.child().is_some() || instance.look(|facts| !facts.promise.tail_unproven)
        }
        // It may be starting: whoever was waiting for it was overtaken by this order.
        RoleOrder::Demote(_) => instance.child().is_some(),
        RoleOrder::Acks(_) => false,
    }
}

/// Writes the promise before anything is done about the order (invariant 3).
fn promise(instance: &Instance, ask: &Ask) -> Result<()> {
    let runs = instance.child().is_some();
    let (next, moved) = instance.look(|facts| {
        let before = &facts.promise;
        let was_primary = matches!(before.role, Role::Primary { .. });
        let stays_primary = matches!(ask.role, Role::Primary { .. });
        // A demotion keeps the role until super_read_only=ON has returned: when that fails, writes go on.
        // And an open primary that is promoted again in its epoch is what it is: acks may have come in between.
        let demoting = ask.kind == OrderKind::Demote && was_primary && runs && facts.opened;
        let again = ask.kind == OrderKind::Promote && facts.opened && ask.epoch == before.epoch;
        let role = if demoting || again { before.role.clone() } else { ask.role.clone() };
        let tail_unproven = before.tail_unproven
            || (was_primary && !runs)
            || (facts.opened && !stays_primary && ask.kind != OrderKind::Demote);
        // Who may acknowledge changes only when the locks are in place: until then the role is not in force.
        let moved = match (&role, &before.role) {
            (
                Role::Replica { source, acknowledges },
                Role::Replica { source: old_source, acknowledges: old_acknowledges },
            ) => source != old_source || (*old_acknowledges && !acknowledges),
            (Role::Primary { .. }, Role::Primary { .. }) => ask.kind == OrderKind::Acks && role != before.role,
            (new, old) => std::mem::discriminant(new) != std::mem::discriminant(old),
        };
        let next = Promise { epoch: ask.epoch, role, order: Some(ask.kind), tail_unproven, ..before.clone() };
        (next, moved)
    });
    instance.promise(next)?;
    if moved {
        instance.change(|facts| facts.in_force = false);
    }
    Ok(())
}

async fn carry_out(instance: &Arc<Instance>, order: &RoleOrder, pass: &Pass) -> Result<()> {
    let begun = Instant::now();
    let work = async {
        if matches!(order, RoleOrder::Fence(_) | RoleOrder::Follow(_) | RoleOrder::Promote(_))
            && instance.child().is_some()
        {
            replication::carry_on_reset(instance).await?;
        }
        match order {
            RoleOrder::Fence(_) => fence::fence(instance, pass).await,
            RoleOrder::Follow(order) => follow::follow(instance, order, pass).await,
            RoleOrder::Promote(order) => promote::promote(instance, order, pass).await,
            RoleOrder::Acks(_) => acks::acks(instance).await,
            RoleOrder::Demote(order) => demote::demote(instance, order).await,
        }
    };
    let done = work.await;
    match done {
        Ok(done) => {
            // What is reported with a role in force is of after the order: others conclude from it.
            let refreshed = instance.child().is_some() && refresh(instance).await;
            instance.change(|facts| {
                facts.in_force = done == Done::InForce && refreshed && facts.mysqld.is_some();
                if done == Done::InForce {
                    facts.problem = None;
                    if facts.phase == Phase::Failed {
                        facts.phase = Phase::Running;
                    }
                }
            });
            tracing::info!(
                order = order.kind().name(),
                epoch = order.epoch(),
                in_force = done == Done::InForce,
                elapsed_ms = crate::instance::millis(begun.elapsed()),
                "obeyed"
            );
            Ok(())
        }
        Err(error) => {
            if instance.child().is_some() {
                refresh(instance).await;
            }
            instance.change(|facts| {
                if !matches!(error, Error::Overtaken) && order.kind() != OrderKind::Demote {
                    facts.problem = Some(error.to_string());
                }
                match order.kind() {
                    OrderKind::Fence | OrderKind::Follow => facts.in_force = false,
                    OrderKind::Promote => facts.in_force &= facts.opened,
                    // A failed acks order leaves what it had cleared: it is given again.
                    OrderKind::Acks | OrderKind::Demote => {}
                }
                if instance.child().is_none() && facts.phase == Phase::Rewinding {
                    facts.phase = Phase::Crashed;
                }
                if error.condemns() {
                    facts.phase = Phase::Failed;
                }
            });
            Err(error)
        }
    }
}

/// Takes what mysqld says now into the facts, so that the answer of an order shows its effect.
async fn refresh(instance: &Arc<Instance>) -> bool {
    let begun = Instant::now();
    let observed = async {
        let mut hands = instance.hands().await?;
        observe::collect(hands.session()?, &mut WaitClock::default()).await
    };
    match observed.await {
        Ok(state) => {
            observe::publish(instance, state, begun);
            true
        }
        Err(error) => {
            tracing::warn!(%error, "could not observe mysqld after an order");
            false
        }
    }
}
