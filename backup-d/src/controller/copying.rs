//! Physical dumps: a scratch cluster clones an instance and puts its files into the bucket.
//!
//! ```text
//! Pending -> scratch cluster, which knows its source and the dump's name -> manifest? -> it is deleted -> Succeeded
//!                                                        `-> it fails -> it is deleted, the name is given up -> another attempt
//! ```
//!
//! All of it is in the objects and in the bucket: whoever looks next goes on.

use std::collections::BTreeMap;

use common::conditions::Finding;
use common::names::ANNOTATION_COPIES;
use common::source::source;

use super::scratch::Scratch;
use super::{
    Action, DumpPhase, Error, Found, LATER, Look, MySQLCluster, Place, ResourceExt, SOON, info, json, made_or_given_up,
    time,
};
use crate::decide::{self, Verification};

/// Label of a scratch cluster with the name of the dump that it makes.
const LABEL_COPIES: &str = "pelorus.dev/copies";
/// Our condition, while it is being made.
const COMPLETE: &str = "Complete";

impl Look {
    /// One look at how far it is.
    pub(super) async fn copy(&self, place: &Place) -> Result<Action, Error> {
        if let Some(found) = self.made(place).await? {
            if let Some(scratch) = self.copier().await? {
                self.throw_away(&scratch).await?;
            }
            let status = self.dump.status.as_ref();
            let began = status.and_then(|status| Some((status.started_at.as_ref()?.0, status.source.as_deref()?)));
            return self.succeed(&found, began).await;
        }
        let scratch = match self.scratch(&self.copier_name()).await? {
            Ok(scratch) => scratch,
            // Waiting for it, a dump would begin again and again.
            Err(stranger) => return self.fail(&stranger).await,
        };
        let now = common::clock::now();
        match decide::verification(scratch.as_ref(), now, self.context.config.verify_patience_seconds) {
            Verification::Begins => self.begin_copy(place).await,
            Verification::Waits(said) => {
                self.tell_copying(said).await?;
                Ok(Action::requeue(SOON))
            }
            Verification::Ends(outcome) => {
                if let Some(scratch) = &scratch {
                    self.throw_away(scratch).await?;
                }
                for id in self.names(place).await? {
                    made_or_given_up(place, &id).await?;
                }
                // It was restored, of all things: somebody has taken our annotation off.
                let problem = outcome.err().unwrap_or_else(|| "the scratch cluster made no dump".to_owned());
                self.failed(&problem).await
            }
        }
    }

    /// The scratch cluster that makes it, if there is one.
    pub(super) async fn copier(&self) -> Result<Option<MySQLCluster>, Error> {
        Ok(self.scratch(&self.copier_name()).await?.ok().flatten())
    }

    fn copier_name(&self) -> String {
        format!("copy{}", self.mark())
    }

    /// The manifest, if it was made. Nothing is given up: it may be in the making.
    async fn made(&self, place: &Place) -> Result<Option<Found>, Error> {
        for id in self.names(place).await? {
            if let Some(found) = dump::load::manifest(&place.store, &place.root, &id).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn begin_copy(&self, place: &Place) -> Result<Action, Error> {
        let source = match source(place.cluster.status.as_ref()) {
            Ok(source) => source.to_owned(),
            Err(why) => return self.wait(why, SOON).await,
        };
        if self.are_enough(LABEL_COPIES).await? {
            return self.wait("another physical dump is being made", LATER).await;
        }
        let began = time(common::clock::now());
        self.say(json!({"phase": DumpPhase::Running, "source": source, "startedAt": began})).await?;
        let (name, id) = (self.copier_name(), self.id(began.0));
        let annotations = BTreeMap::from([(ANNOTATION_COPIES.to_owned(), source.clone())]);
        let wanted = Scratch { name: &name, label: LABEL_COPIES, annotations, id: &id, gtid: None };
        if let Err(refused) = self.begin_scratch(&place.cluster, wanted).await? {
            return self.fail(&refused).await;
        }
        info!(source, scratch = name, id, "a physical dump begins");
        self.event("backup.started", json!({"dump": self.dump.name_any(), "source": source}));
        Ok(Action::requeue(SOON))
    }

    /// How far it is, beside what the status says already.
    async fn tell_copying(&self, said: String) -> Result<(), Error> {
        let Some(status) = self.seen().status else { return Ok(()) };
        let had = status.conditions.iter().find(|condition| condition.type_ == COMPLETE);
        if had.is_some_and(|had| had.message == said) {
            return Ok(());
        }
        let finding = Finding::bad(COMPLETE, "Copying", said);
        let condition = finding.condition(had, self.dump.metadata.generation, &time(common::clock::now()));
        let running = json!({"phase": DumpPhase::Running, "source": status.source, "startedAt": status.started_at});
        self.say(super::merged(&running, json!({"conditions": [condition]}))).await
    }
}
