//! Telling people and programs what was recorded: logs, metrics, Kubernetes Events, events on NATS.

use std::time::{Duration, Instant};

use common::events::Event;
use kube::Resource;
use kube::runtime::events::{Event as KubeEvent, EventType};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Loop, SECRET_TIMEOUT};
use crate::decide::{Kind, Plan, Record};
use crate::metrics::ExemplarLabels;
use crate::timeline::Timeline;

impl Loop {
    /// Tells of a change of the record that we wrote.
    pub(super) fn recorded(&mut self, before: &Record, next: &Record, plan: &Plan, elapsed: Duration) {
        let now = Instant::now();
        if plan.undone {
            self.memory.undone(now);
        }
        if let Some(operation) = &next.operation
            && before.operation.as_ref().is_none_or(|known| known.id != operation.id)
        {
            info!(
                operation = operation.id,
                epoch = operation.epoch,
                from = operation.from,
                to = operation.to,
                phase = ?operation.phase,
                reason = plan.why,
                "operation claimed"
            );
            let data = json!({"operation": operation.id, "epoch": operation.epoch, "from": operation.from, "to": operation.to, "reason": plan.why});
            let message = format!("{}: {}", operation.id, plan.why);
            match operation.kind {
                Kind::Failover => {
                    self.tell("failover.started", EventType::Warning, "FailoverStarted", &message, data);
                }
                Kind::Switchover => {
                    self.tell("switchover.started", EventType::Normal, "SwitchoverStarted", &message, data);
                }
                Kind::Fence => {
                    self.tell("instance.fenced", EventType::Warning, "FencedByHand", &message, data);
                }
                Kind::Bootstrap | Kind::Reconfigure => {}
            }
            return;
        }
        let Some(operation) = &before.operation else {
            info!(epoch = next.epoch, ackers = ?next.ackers, acks_needed = next.acks_needed, reason = plan.why, "recorded");
            return;
        };
        if next.losses.len() > before.losses.len() {
            warn!(operation = operation.id, epoch = before.epoch, reason = plan.why, "loss accepted");
            let data = json!({"operation": operation.id, "epoch": before.epoch, "to": next.operation.as_ref().and_then(|it| it.to.clone()), "knownLost": next.losses.last().map(|loss| loss.known_lost.to_string())});
            let message = format!("{}: {}", operation.id, plan.why);
            self.tell("failover.loss-accepted", EventType::Warning, "LossAccepted", &message, data);
        }
        if let Some(advanced) = &next.operation {
            info!(operation = operation.id, epoch = operation.epoch, phase = ?advanced.phase, reason = plan.why, "operation advanced");
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let kind = match operation.kind {
            Kind::Bootstrap => "bootstrap",
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
            Kind::Reconfigure => "reconfigure",
            Kind::Fence => "fence",
        };
        let outcome = if plan.undone { "undone" } else { "completed" };
        let which = ExemplarLabels { cluster: self.name.clone(), operation: operation.id.clone() };
        self.context.metrics.operation(kind, outcome, elapsed, &which);
        let mut timeline = self.timeline.take().unwrap_or_else(|| Timeline::new(operation, now));
        timeline.note("recorded", now);
        self.context.metrics.steps(kind, timeline.steps(), &which);
        info!(operation = operation.id, epoch = next.epoch, primary = next.primary, ackers = ?next.ackers, acks_needed = next.acks_needed, seconds, outcome, steps = timeline.text(), reason = plan.why, "operation ended");
        let data = json!({"operation": operation.id, "epoch": next.epoch, "from": operation.from, "to": next.primary, "seconds": seconds, "steps": timeline.json(), "reason": plan.why});
        let message = format!("{}: {} ({seconds:.3} s)", operation.id, plan.why);
        match (operation.kind, plan.undone) {
            (Kind::Failover, false) => {
                self.tell("failover.completed", EventType::Warning, "FailoverCompleted", &message, data);
            }
            (Kind::Switchover, false) => {
                self.tell("switchover.completed", EventType::Normal, "SwitchoverCompleted", &message, data);
            }
            (Kind::Switchover, true) => {
                self.tell("switchover.undone", EventType::Warning, "SwitchoverUndone", &message, data);
            }
            (Kind::Bootstrap, _) => {
                self.tell("cluster.bootstrapped", EventType::Normal, "Bootstrapped", &message, data);
            }
            (Kind::Reconfigure | Kind::Failover | Kind::Fence, _) => {}
        }
    }

    pub(super) fn tell(&self, kind: &'static str, type_: EventType, reason: &str, note: &str, data: serde_json::Value) {
        self.publish(kind, data);
        let event = KubeEvent {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: reason.to_owned(),
            secondary: None,
        };
        let recorder = self.context.recorder.clone();
        let reference = self.cluster.object_ref(&());
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(SECRET_TIMEOUT, recorder.publish(&event, &reference)).await {
                warn!(%error, "event not written");
            }
        });
    }

    pub(super) fn publish(&self, kind: &'static str, data: serde_json::Value) {
        self.context.events.publish(Event {
            namespace: self.namespace.clone(),
            cluster: self.name.clone(),
            kind,
            data,
        });
    }
}
