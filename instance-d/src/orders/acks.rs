//! Acks: who may acknowledge on the serving primary, and how many a commit needs.
//!
//! A struck replica stops counting (account locked, dump thread gone) before fewer acknowledgements are asked for.

use std::sync::Arc;

use common::instance::{RefusalCode, Role};

use super::Done;
use super::replication::{set_acks, set_locks};
use crate::error::{Error, Result};
use crate::instance::Instance;

pub(super) async fn acks(instance: &Arc<Instance>) -> Result<Done> {
    if !instance.look(|facts| facts.opened) {
        return Err(Error::Refused(RefusalCode::Busy, "this primary is not open: promote it first".to_owned()));
    }
    let Role::Primary { acks_needed, struck } = instance.look(|facts| facts.promise.role.clone()) else {
        return Err(Error::Unexpected("an acks order without a primary".to_owned()));
    };
    let mut hands = instance.hands().await?;
    set_locks(&mut hands, &struck, true).await?;
    set_acks(&mut hands, acks_needed).await?;
    Ok(Done::InForce)
}
