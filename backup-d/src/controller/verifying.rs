//! Verification: a dump is restored into a scratch cluster of one instance, which is thrown away. Nothing but a restore proves a
//! backup: this is the one that `spec.restore` makes, every piece compared with the manifest, and the GTID set with the dump's.
//!
//! ```text
//! Verifying -> scratch cluster -> Restored? -> it is deleted -> Succeeded, with Verified True or False
//! ```
//!
//! It is deleted before it is said what came of it: whoever dies between verifies again.

use std::collections::BTreeMap;

use common::conditions::Finding;
use common::crd::Verified;

use super::scratch::Scratch;
use super::{Action, DumpPhase, Error, LATER, Look, ResourceExt, SOON, Value, info, json, read, time, warn};
use crate::decide::{self, Verification};

/// Label of a scratch cluster with the name of the dump that is restored into it.
const LABEL_VERIFIES: &str = "pelorus.dev/verifies";
/// Our condition.
const VERIFIED: &str = "Verified";

impl Look {
    pub(super) async fn verify(&self) -> Result<Action, Error> {
        let name = self.scratch_name();
        let scratch = match self.scratch(&name).await? {
            Ok(scratch) => scratch,
            Err(stranger) => return self.conclude(Err(stranger)).await,
        };
        let patience = self.context.config.verify_patience_seconds;
        match decide::verification(scratch.as_ref(), common::clock::now(), patience) {
            Verification::Begins => self.begin(&name).await,
            Verification::Waits(why) => {
                self.tell(&Finding::bad(VERIFIED, "Verifying", why)).await?;
                Ok(Action::requeue(SOON))
            }
            Verification::Ends(outcome) => {
                if let Some(scratch) = scratch {
                    self.throw_away(&scratch).await?;
                }
                self.conclude(outcome).await
            }
        }
    }

    async fn begin(&self, name: &str) -> Result<Action, Error> {
        if self.are_enough(LABEL_VERIFIES).await? {
            self.tell(&Finding::bad(VERIFIED, "Verifying", "another dump is being verified")).await?;
            return Ok(Action::requeue(LATER));
        }
        let of = match self.cluster().await {
            Ok(of) => of,
            Err(error @ read::Error::Missing(_)) => return self.conclude(Err(error.to_string())).await,
            Err(error) => return Err(error.into()),
        };
        let status = self.seen().status.unwrap_or_default();
        let Some((_, id)) = status.manifest.as_ref().and_then(|manifest| manifest.place()) else {
            return self.conclude(Err("the status does not say where it lies".to_owned())).await;
        };
        info!(scratch = name, "a dump is verified");
        let wanted =
            Scratch { name, label: LABEL_VERIFIES, annotations: BTreeMap::new(), id, gtid: status.gtid.clone() };
        if let Err(refused) = self.begin_scratch(&of, wanted).await? {
            return self.conclude(Err(refused)).await;
        }
        Ok(Action::requeue(SOON))
    }

    /// One that was begun anew by a replica that had not heard of the end.
    pub(super) async fn forget_scratch(&self) -> Result<Action, Error> {
        if self.dump.spec.verify
            && let Ok(Some(left)) = self.scratch(&self.scratch_name()).await?
        {
            self.throw_away(&left).await?;
        }
        Ok(Action::await_change())
    }

    fn scratch_name(&self) -> String {
        format!("verify{}", self.mark())
    }

    /// Says what came of it, for good.
    async fn conclude(&self, outcome: Result<(), String>) -> Result<Action, Error> {
        let labels = self.labels();
        let gtid = self.dump.status.as_ref().and_then(|status| status.gtid.clone()).unwrap_or_default();
        let data = json!({"dump": self.dump.name_any(), "gtid": gtid});
        let mut fields = json!({"phase": DumpPhase::Succeeded});
        let finding = match &outcome {
            Ok(()) => {
                let verified = Verified { at: time(common::clock::now()), gtid: gtid.clone() };
                fields = json!({"phase": DumpPhase::Succeeded, "verified": verified});
                Finding::good(VERIFIED, "Restored", "it was restored, and is what its manifest says")
            }
            Err(problem) => Finding::bad(VERIFIED, "NotRestored", problem.clone()),
        };
        self.write(fields, &finding).await?;
        match &outcome {
            Ok(()) => {
                info!(gtid, "a dump was verified");
                self.context.metrics.verified.get_or_create(&labels).inc();
                self.event("backup.verified", data);
            }
            Err(problem) => {
                warn!(problem, "a dump could not be verified");
                self.context.metrics.refuted.get_or_create(&labels).inc();
                self.event("backup.refuted", super::merged(&data, json!({"problem": problem})));
            }
        }
        Ok(Action::await_change())
    }

    /// The condition, if it differs.
    async fn tell(&self, finding: &Finding) -> Result<(), Error> {
        let said = self.condition();
        if said.is_some_and(|said| said.reason == finding.reason && said.message == finding.message) {
            return Ok(());
        }
        self.write(json!({}), finding).await
    }

    fn condition(&self) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
        let conditions = self.dump.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().find(|condition| condition.type_ == VERIFIED)
    }

    /// The status as it is, with some fields and our condition anew.
    async fn write(&self, fields: Value, finding: &Finding) -> Result<(), Error> {
        let now = time(common::clock::now());
        let condition = finding.condition(self.condition(), self.dump.metadata.generation, &now);
        let mut status = super::merged(&json!(self.seen().status.unwrap_or_default()), fields);
        status = super::merged(&status, json!({"conditions": [condition]}));
        self.say(status).await
    }
}
