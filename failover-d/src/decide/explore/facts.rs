//! The record in small, and what a person wishes.

use super::super::{Kind, Operation, OperationPhase, Record, Reign, operation_id};
use super::sets::{Bits, Epoch, bits, data_name, data_number, name, names, number};

/// [`Record`] in small. Losses are left out: nobody accepts any here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub(super) epoch: Epoch,
    pub(super) primary: Option<u8>,
    pub(super) data: u16,
    pub(super) ackers: Bits,
    pub(super) needed: u8,
    pub(super) unproven: Vec<Rule>,
    pub(super) operation: Option<Intent>,
}

/// [`Reign`] in small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) primary: u8,
    pub(super) data: u16,
    pub(super) ackers: Bits,
    pub(super) needed: u8,
}

/// [`Operation`] in small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Intent {
    pub(super) kind: Kind,
    pub(super) epoch: Epoch,
    pub(super) from: Option<u8>,
    pub(super) to: Option<u8>,
    pub(super) data: u16,
    pub(super) phase: OperationPhase,
    pub(super) ackers: Bits,
    pub(super) needed: u8,
}

/// What a person wishes, as far as it changes here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hope {
    pub(super) instances: u8,
    pub(super) primary: Option<u8>,
    pub(super) fenced: Bits,
}

fn reign(rule: &Rule) -> Reign {
    Reign {
        primary: name(rule.primary),
        primary_data: data_name(rule.data),
        ackers: names(rule.ackers),
        acks_needed: rule.needed.into(),
    }
}

fn rule(reign: &Reign) -> Rule {
    Rule {
        primary: number(&reign.primary),
        data: data_number(reign.primary_data.as_deref()),
        ackers: bits(&reign.ackers),
        needed: reign.acks_needed as u8,
    }
}

impl Facts {
    pub(super) fn record(&self) -> Record {
        Record {
            epoch: self.epoch.into(),
            primary: self.primary.map(name),
            ackers: names(self.ackers),
            acks_needed: self.needed.into(),
            primary_data: data_name(self.data),
            unproven: self.unproven.iter().map(reign).collect(),
            losses: Vec::new(),
            operation: self.operation.as_ref().map(|intent| Operation {
                id: operation_id(intent.kind, intent.epoch.into()),
                kind: intent.kind,
                epoch: intent.epoch.into(),
                from: intent.from.map(name),
                to: intent.to.map(name),
                to_data: data_name(intent.data),
                phase: intent.phase,
                ackers: names(intent.ackers),
                acks_needed: intent.needed.into(),
                reason: String::new(),
            }),
        }
    }

    pub(super) fn from(record: &Record) -> Self {
        Self {
            epoch: record.epoch as Epoch,
            primary: record.primary.as_deref().map(number),
            data: data_number(record.primary_data.as_deref()),
            ackers: bits(&record.ackers),
            needed: record.acks_needed as u8,
            unproven: record.unproven.iter().map(rule).collect(),
            operation: record.operation.as_ref().map(|operation| Intent {
                kind: operation.kind,
                epoch: operation.epoch as Epoch,
                from: operation.from.as_deref().map(number),
                to: operation.to.as_deref().map(number),
                data: data_number(operation.to_data.as_deref()),
                phase: operation.phase,
                ackers: bits(&operation.ackers),
                needed: operation.acks_needed as u8,
            }),
        }
    }

    /// What tells one operation from another.
    pub(super) fn operation_key(&self) -> Option<(Kind, Epoch)> {
        self.operation.as_ref().map(|intent| (intent.kind, intent.epoch))
    }

    /// The epoch whose answers count: of the operation under way, or of the failover that comes next.
    pub(super) fn epoch_of_answers(&self) -> Epoch {
        self.operation.as_ref().map_or(self.epoch + 1, |intent| intent.epoch)
    }

    /// The candidate that may be promoted in the operation under way.
    pub(super) fn candidate(&self) -> Option<(u8, &Intent)> {
        let intent = self.operation.as_ref().filter(|intent| intent.phase.may_have_promoted())?;
        Some((intent.to?, intent))
    }
}
