//! Giving orders: at most one of a kind to an instance at a time, and not the same failing one over and over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::client::{Error, InstanceClient};
use common::failpoint;
use common::instance::{InstanceState, Phase, RefusalCode};
use tokio::sync::mpsc;
use tracing::{Instrument, info, warn};

use crate::decide::{Answer, Name, Order, Outcome};
use crate::metrics::Metrics;
use crate::stream::Update;

/// Pause before an order that failed, or that changed nothing, is given again.
const AGAIN: Duration = Duration::from_millis(400);
/// Pause between two looks that a decision waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(3);

/// Deadlines of orders. instance-d bounds each by itself; these only cover the way.
fn deadline(order: &Order) -> Duration {
    match order {
        Order::Fence(_) | Order::Acks(_) => Duration::from_secs(5),
        Order::Look => Duration::from_secs(1),
        Order::Demote(demote) => Duration::from_millis(demote.budget_ms) + Duration::from_secs(3),
        Order::Follow(_) => Duration::from_secs(20),
        Order::Promote(promote) => Duration::from_millis(promote.apply_timeout_ms) + Duration::from_secs(5),
    }
}

/// The name of an order's kind, for logs and metrics.
pub fn kind(order: &Order) -> &'static str {
    match order {
        Order::Fence(_) => "fence",
        Order::Follow(_) => "follow",
        Order::Promote(_) => "promote",
        Order::Acks(_) => "acks",
        Order::Demote(_) => "demote",
        Order::Look => "look",
    }
}

/// The epoch that an order carries; a look carries none.
fn epoch(order: &Order) -> u64 {
    match order {
        Order::Fence(order) => order.epoch,
        Order::Follow(order) => order.epoch,
        Order::Promote(order) => order.epoch,
        Order::Acks(order) => order.epoch,
        Order::Demote(order) => order.epoch,
        Order::Look => 0,
    }
}

#[derive(Debug)]
struct Given {
    order: Order,
    in_flight: bool,
    at: Instant,
}

/// Orders given to the instances of one cluster.
#[derive(Debug, Default)]
pub struct Orders {
    given: HashMap<(Name, &'static str), Given>,
}

impl Orders {
    /// Gives an order in the background unless the same is under way or was tried a moment ago.
    pub fn give(
        &mut self,
        name: &Name,
        order: Order,
        client: InstanceClient,
        updates: &mpsc::Sender<Update>,
        metrics: &Metrics,
        now: Instant,
    ) {
        let key = (name.clone(), kind(&order));
        if let Some(given) = self.given.get(&key) {
            let same = given.order == order;
            let pause = if order == Order::Look { LOOK_AGAIN } else { AGAIN };
            let resting = now.duration_since(given.at) < pause;
            // A changed order of the same kind is given at once: its epoch, or its content, is newer.
            if same && (given.in_flight || resting) {
                return;
            }
        }
        self.given.insert(key, Given { order: order.clone(), in_flight: true, at: now });
        let (name, updates, metrics) = (name.clone(), updates.clone(), metrics.clone());
        let exchange = async move {
            let started = Instant::now();
            let timeout = deadline(&order);
            if failpoint::hit(&format!("order.before.{}", kind(&order))).await.is_err() {
                let lost =
                    Error::Timeout { what: "failpoint".into(), address: client.address(), after: Duration::ZERO };
                updates.send(Update::Answered(name, order, Box::new(Err(lost)))).await.ok();
                return;
            }
            let result = match &order {
                Order::Fence(order) => client.fence(order, timeout).await,
                Order::Follow(order) => client.follow(order, timeout).await,
                Order::Promote(order) => client.promote(order, timeout).await,
                Order::Acks(order) => client.acks(order, timeout).await,
                Order::Demote(order) => client.demote(order, timeout).await,
                Order::Look => client.look(timeout).await,
            };
            failpoint::hit(&format!("order.after.{}", kind(&order))).await.ok();
            let elapsed = started.elapsed();
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            metrics.order(kind(&order), result.is_ok(), elapsed);
            match &result {
                Ok(_) if order == Order::Look => {}
                Ok(_) => {
                    info!(
                        instance = name,
                        operation = client.operation(),
                        order = kind(&order),
                        epoch = epoch(&order),
                        elapsed_ms,
                        "order obeyed"
                    );
                }
                Err(error) => {
                    warn!(instance = name, operation = client.operation(), order = kind(&order), epoch = epoch(&order), elapsed_ms, %error, "order not obeyed");
                }
            }
            updates.send(Update::Answered(name, order, Box::new(result))).await.ok();
        };
        tokio::spawn(exchange.in_current_span());
    }

    /// Notes that an order was answered.
    pub fn answered(&mut self, name: &Name, order: &Order, now: Instant) {
        if let Some(given) = self.given.get_mut(&(name.clone(), kind(order)))
            && given.order == *order
        {
            given.in_flight = false;
            given.at = now;
        }
    }
}

/// What an answer to a fence or demote order means for the operation. `None`: nothing, ask again.
pub fn outcome(order: &Order, result: &Result<InstanceState, Error>) -> Option<Answer> {
    let demotes_gently = match order {
        Order::Demote(demote) => !demote.kill,
        Order::Fence(_) => false,
        Order::Follow(_) | Order::Promote(_) | Order::Acks(_) | Order::Look => return None,
    };
    let outcome = match result {
        Ok(state) if state.phase == Phase::Running && state.mysqld.is_some() => Outcome::Held(Box::new(state.clone())),
        // The order starts it: asked again, it will say what it holds.
        Ok(state) if matches!(state.phase, Phase::Starting | Phase::Rewinding) => return None,
        Ok(_) => Outcome::Dead,
        Err(Error::Refused(refusal)) if demotes_gently && refusal.code == RefusalCode::Declined => {
            Outcome::Declined(refusal.message.clone())
        }
        Err(_) => return None,
    };
    Some(Answer { epoch: epoch(order), outcome })
}
