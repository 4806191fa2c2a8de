//! What is needed no more goes: binlogs on the servers that are in the archive, and binlogs of the archive that every dump holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use binlog_shipper::purge;
use binlog_shipper::retire::{self, Retired};
use binlog_shipper::ship::Stream;
use common::crd::{MySQLBinlog, MySQLCluster};
use common::gtid::GtidSet;
use kube::api::{Api, DeleteParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{CALL, Loop, Shared};
use crate::connect;

/// Pace of purging binlogs that the servers need no more. They stay for an hour at least, so this is often enough.
const PURGE: Duration = Duration::from_secs(300);
/// Pace of looking for binlogs that no dump needs: the whole archive is listed for it.
const RETIRE: Duration = Duration::from_secs(3600);

impl Loop {
    /// Takes away, at a pace, what is needed no more: on the servers, and in the bucket. Never ends.
    pub(super) async fn tidy(
        &self,
        shared: &Mutex<Shared>,
        cluster: &watch::Receiver<Arc<MySQLCluster>>,
        stream: &Stream,
        keep: Duration,
    ) {
        let mut retired: Option<Instant> = None;
        loop {
            sleep(PURGE).await;
            let moment = common::clock::now().as_microsecond();
            let moment =
                u64::try_from(moment).unwrap_or(0).saturating_sub(u64::try_from(keep.as_micros()).unwrap_or(u64::MAX));
            let archived = shared.lock().unwrap_or_else(PoisonError::into_inner).horizon.before(moment).clone();
            if archived.is_empty() {
                continue;
            }
            let now = Arc::clone(&cluster.borrow());
            self.purge_all(&now, archived).await;
            if retired.is_none_or(|at| at.elapsed() > RETIRE) {
                retired = Some(Instant::now());
                self.retire(shared, stream, moment).await;
            }
        }
    }

    /// Takes out of the bucket what no restore needs any more, and the objects that told of it.
    async fn retire(&self, shared: &Mutex<Shared>, Stream { store, root, .. }: &Stream, since: u64) {
        let done = async {
            let dumps = connect::dumps(store, root).await?;
            Ok::<_, connect::Error>(retire::retire(store, root, &dumps, since).await?)
        };
        let Retired { files: gone, from } = match done.await {
            Ok(done) => done,
            Err(error) => return warn!(%error, "binlogs that no restore needs stay in the bucket"),
        };
        if gone.is_empty() {
            return;
        }
        info!(files = gone.len(), "binlogs that no restore needs were taken out of the bucket");
        self.context.metrics.retired.get_or_create(&self.labels).inc_by(gone.len() as u64);
        let names: Vec<String> = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.window.begins_at(from);
            gone.iter().map(|file| shared.records.forget(file)).collect()
        };
        let api: Api<MySQLBinlog> = Api::namespaced(self.context.client.clone(), &self.namespace);
        for name in names {
            match timeout(CALL, api.delete(&name, &DeleteParams::default())).await {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {}
                Ok(Err(error)) => warn!(%error, binlog = name, "its object stays"),
                Err(_) => warn!(binlog = name, "its object stays: no answer"),
            }
        }
    }

    /// Purges everywhere what is archived and executed everywhere. An instance that is away counts with what it said last; one
    /// that has no data yet will be cloned, and needs no binlogs from before.
    async fn purge_all(&self, cluster: &MySQLCluster, archived: GtidSet) {
        let mut safe = archived;
        let mut sessions = Vec::new();
        for instance in cluster.status.iter().flat_map(|status| &status.instances) {
            let asked = async {
                let (mut session, _) =
                    connect::instance(&self.context.client, &self.namespace, &self.name, &instance.name).await?;
                let executed = connect::executed(&mut session).await?;
                Ok::<_, connect::Error>((session, executed))
            };
            let said = || instance.executed.as_ref().and_then(|text| text.parse::<GtidSet>().ok());
            let executed = match asked.await {
                Ok((session, executed)) => {
                    sessions.push((&instance.name, session));
                    Some(executed)
                }
                Err(error) => {
                    debug!(%error, instance = instance.name, "it is not asked for its binlogs");
                    said()
                }
            };
            if let Some(executed) = executed {
                safe = safe.intersect(&executed);
            }
        }
        for (instance, mut session) in sessions {
            match purge::purge(&mut session, &safe).await {
                Ok(None) => {}
                Ok(Some(first)) => {
                    info!(instance, first, "binlogs before this one were purged");
                    self.context.metrics.purges.get_or_create(&self.labels).inc();
                }
                Err(error) => warn!(instance, %error, "binlogs were not purged"),
            }
        }
    }
}
