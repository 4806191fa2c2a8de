//! The life of each MySQLBackupSchedule: makes MySQLDump objects when they are due, and deletes those that may go.
//!
//! A dump is named after its schedule and the time that it is for, so a scheduler that dies between making it and saying so makes no
//! second one. One dump of a schedule at a time. NATS is not needed.

use std::sync::Arc;
use std::time::Duration;

use common::conditions::Finding;
use common::crd::{MySQLBackupSchedule, MySQLDump};
use common::daemon::{Patience, everywhere, watching};
use common::names::LABEL_SCHEDULE;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::controller::{Context, Error};
use crate::decide::{self, asked_at, is_made, is_over};
use crate::objects::{self, time};
use crate::schedule::{Ended, Schedule, may_go};

/// Our condition.
const READY: &str = "Ready";
/// Longest pause between two looks: retention goes by the clock.
const PACE: Duration = Duration::from_secs(60);
/// Pause after what failed.
const LATER: Duration = Duration::from_secs(20);

/// Runs until the token is cancelled.
pub async fn run(context: Arc<Context>, token: CancellationToken) {
    let schedules: Api<MySQLBackupSchedule> = everywhere(&context.client, context.config.watch_namespace.as_deref());
    let dumps: Api<MySQLDump> = everywhere(&context.client, context.config.watch_namespace.as_deref());
    // A dump that is over frees its schedule for the next.
    let owner = |dump: MySQLDump| {
        let name = dump.labels().get(LABEL_SCHEDULE)?.clone();
        Some(ObjectRef::<MySQLBackupSchedule>::new(&name).within(&dump.namespace()?))
    };
    let controller = Controller::new(schedules, watching()).watches(dumps, watching().labels(LABEL_SCHEDULE), owner);
    let controller = controller.trigger_backoff(Patience::default()).reconcile_all_on(context.moves());
    let look = |schedule: Arc<MySQLBackupSchedule>, context: Arc<Context>| async move {
        if !context.owns(&*schedule) {
            return Ok(Action::await_change());
        }
        let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
        let span = info_span!("schedule", namespace, cluster = schedule.spec.cluster_ref.name, name);
        Look { schedule, context }.run().instrument(span).await
    };
    let wait = |schedule: Arc<MySQLBackupSchedule>, error: &Error, _: Arc<Context>| {
        warn!(%error, namespace = schedule.namespace(), schedule = schedule.name_any(), "it is looked at again");
        Action::requeue(LATER)
    };
    objects::drive(controller.run(look, wait, context), token).await;
}

/// One look at one schedule.
struct Look {
    schedule: Arc<MySQLBackupSchedule>,
    context: Arc<Context>,
}

impl Look {
    async fn run(&self) -> Result<Action, Error> {
        if self.schedule.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let spec = &self.schedule.spec;
        let now = common::clock::now();
        let dumps = self.dumps().await?;
        let before = self.schedule.status.clone().unwrap_or_default();
        let last_success = dumps.iter().filter(|dump| is_made(dump)).filter_map(ended_at).max();
        let mut status = json!({
            "observedGeneration": self.schedule.metadata.generation,
            "lastScheduledAt": before.last_scheduled_at,
            "lastSuccessAt": last_success.map(time),
            "lastDump": before.last_dump,
            "missed": before.missed,
        });
        let (finding, pause) = match Schedule::new(&spec.schedule, &spec.time_zone, spec.starting_deadline.into()) {
            Err(problem) => (Finding::bad(READY, "ScheduleInvalid", problem), None),
            Ok(_) if spec.suspend => (Finding::bad(READY, "Suspended", "spec.suspend is true"), Some(PACE)),
            Ok(schedule) => {
                let made_at = self.schedule.creation_timestamp().map_or(now, |at| at.0);
                let last = before.last_scheduled_at.as_ref().map_or(made_at, |at| at.0);
                let due = schedule.due(last, now);
                let running = dumps.iter().find(|dump| !is_over(dump));
                let fields = status.as_object_mut();
                if let (Some(fields), Some(next)) = (fields, due.next) {
                    fields.insert("nextAt".to_owned(), json!(time(next)));
                }
                match (due.at, running) {
                    (Some(_), Some(running)) => {
                        let why = format!("{} is not over yet; the next one waits for it", running.name_any());
                        (Finding::good(READY, "Running", why), Some(LATER))
                    }
                    (at, _) => {
                        let name = match at {
                            Some(at) => Some(self.make(at).await?),
                            None => None,
                        };
                        if let (Some(fields), Some(passed)) = (status.as_object_mut(), due.passed) {
                            info!(dump = name, missed = due.missed, "a dump is due, or was left out");
                            fields.insert("lastScheduledAt".to_owned(), json!(time(passed)));
                            fields.insert("missed".to_owned(), json!(before.missed.unwrap_or(0) + due.missed));
                            if let Some(name) = name {
                                fields.insert("lastDump".to_owned(), json!(name));
                            }
                        }
                        let next = due.next.map(|next| next.duration_since(now));
                        let next = next.and_then(|pause| Duration::try_from(pause).ok());
                        (Finding::good(READY, "Scheduled", ""), Some(next.unwrap_or(PACE).min(PACE)))
                    }
                }
            }
        };
        self.clear(&dumps, now).await?;
        self.say(status, &finding, now).await?;
        Ok(pause.map_or_else(Action::await_change, |pause| Action::requeue(pause.max(Duration::from_secs(1)))))
    }

    fn api(&self) -> Api<MySQLDump> {
        Api::namespaced(self.context.client.clone(), &self.schedule.namespace().unwrap_or_default())
    }

    /// The dumps of this schedule.
    async fn dumps(&self) -> Result<Vec<MySQLDump>, Error> {
        let ours = ListParams::default().labels(&format!("{LABEL_SCHEDULE}={}", self.schedule.name_any()));
        Ok(self.api().list(&ours).await?.items)
    }

    /// Asks for the dump of a time; its name.
    async fn make(&self, at: Timestamp) -> Result<String, Error> {
        let dump = decide::dump_of(&self.schedule, at);
        objects::ask(&self.api(), &dump).await?;
        Ok(dump.name_any())
    }

    /// Deletes the dumps that may go. Their objects in the bucket go with them.
    async fn clear(&self, dumps: &[MySQLDump], now: Timestamp) -> Result<(), Error> {
        let ended = dumps.iter().filter(|dump| is_over(dump) && dump.metadata.deletion_timestamp.is_none());
        let ended: Vec<Ended> = ended
            .filter_map(|dump| Some(Ended { name: dump.name_any(), at: asked_at(dump)?, made: is_made(dump) }))
            .collect();
        for name in may_go(&ended, &self.schedule.spec.retention, now) {
            info!(dump = name, "it is older than the schedule keeps dumps");
            match self.api().delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// Writes the status, if it differs.
    async fn say(&self, mut status: serde_json::Value, finding: &Finding, now: Timestamp) -> Result<(), Error> {
        let before = self.schedule.status.clone().unwrap_or_default();
        let had = before.conditions.iter().find(|condition| condition.type_ == READY);
        let condition = finding.condition(had, self.schedule.metadata.generation, &time(now));
        if let Some(fields) = status.as_object_mut() {
            fields.insert("conditions".to_owned(), json!([condition]));
        }
        let status = objects::present(status);
        if json!(before) == status {
            return Ok(());
        }
        Ok(objects::say(&self.context.client, &*self.schedule, status).await?)
    }
}

/// When it was over.
fn ended_at(dump: &MySQLDump) -> Option<Timestamp> {
    let status = dump.status.as_ref()?;
    let took = status.duration.map_or(Duration::ZERO, Duration::from);
    status.started_at.as_ref().and_then(|at| at.0.checked_add(took).ok()).or_else(|| asked_at(dump))
}
