//! One dump, on a thread of its own, while what people see of it is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use archive::{Root, Store};
use common::access::Access;
use common::crd::MySQLDump;
use common::names::account;
use dump::make::{self, Progress};
use dump::manifest::Found;
use dump::schema::Selection;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::controller::Error;

/// Pace of what people see, and of looking whether the object is still wanted.
const PACE: Duration = Duration::from_secs(2);

/// Why there is no dump.
#[derive(Debug)]
pub enum Ended {
    /// The object was deleted meanwhile.
    Deleted,
    /// Another replica makes it.
    Superseded,
    /// For people.
    Failed(String),
}

/// A dump that is to be made.
pub struct Dumping {
    /// Kubernetes.
    pub client: Client,
    /// Who asks for it.
    pub dump: Arc<MySQLDump>,
    /// The instance that is read.
    pub source: String,
    /// Its name in the bucket.
    pub id: String,
    /// The bucket.
    pub store: Store,
    /// Where in it.
    pub root: Root,
    /// Connections that carry rows.
    pub connections: usize,
}

impl Dumping {
    /// Makes it.
    ///
    /// # Errors
    /// Whatever kept it from being made.
    pub async fn run<S: Future<Output = Result<(), Error>>>(self, say: impl Fn(Value) -> S) -> Result<Found, Ended> {
        let failed = |error: &dyn std::fmt::Display| Ended::Failed(error.to_string());
        let namespace = self.dump.namespace().unwrap_or_default();
        let cluster = &self.dump.spec.cluster_ref.name;
        let access = Access::of(&self.client, &namespace, cluster, &self.source, account::BACKUP).await;
        let access = access.map_err(|error| failed(&error))?;
        let selection = Selection::new(&self.dump.spec.schemas, &self.dump.spec.exclude_tables);
        let progress = Arc::new(Progress::default());
        let given_up = CancellationToken::new();
        let _gives_up = given_up.clone().drop_guard();
        let (handle, shared) = (Handle::current(), Arc::clone(&progress));
        let api: Api<MySQLDump> = Api::namespaced(self.client.clone(), &namespace);
        let name = self.dump.name_any();
        let mut making = tokio::task::spawn_blocking(move || {
            let endpoint = access.endpoint();
            let order = make::Order {
                endpoint: &endpoint,
                credentials: &access.credentials,
                connections: self.connections,
                selection,
                store: &self.store,
                root: &self.root,
            };
            handle.block_on(given_up.run_until_cancelled(make::make(&order, &self.id, &shared)))
        });
        let begun = Instant::now();
        loop {
            tokio::select! {
                made = &mut making => {
                    return match made {
                        Ok(Some(made)) => made.map_err(|error| failed(&error)),
                        Ok(None) => Err(Ended::Failed("it was given up".to_owned())),
                        Err(error) => Err(failed(&error)),
                    };
                }
                () = tokio::time::sleep(PACE) => {}
            }
            match say(shown(&progress, begun.elapsed())).await {
                Ok(()) => {}
                Err(Error::Superseded) => return Err(Ended::Superseded),
                Err(error) => debug!(%error, "progress was not written"),
            }
            match api.get_metadata_opt(&name).await {
                Ok(Some(object)) if object.metadata.deletion_timestamp.is_none() => {}
                Ok(_) => return Err(Ended::Deleted),
                Err(error) => debug!(%error, "whether it is still wanted is not known"),
            }
        }
    }
}

/// How far it is. The server's estimate of a table's size has more in it than its rows: the percentage stays below 100 until the end.
fn shown(progress: &Progress, elapsed: Duration) -> Value {
    let (rows, bytes) = (progress.rows.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
    let estimate = progress.estimate.load(Ordering::Relaxed);
    let percent = bytes.saturating_mul(100).checked_div(estimate).unwrap_or(0).min(99);
    let mut shown = json!({"rows": rows, "bytes": bytes, "percent": percent});
    if percent > 0
        && let Some(fields) = shown.as_object_mut()
    {
        let left = elapsed.as_secs().saturating_mul(100 - percent) / percent;
        fields.insert("eta".to_owned(), json!(format!("{left}s")));
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::needless_pass_by_value)]

    use super::*;

    #[test]
    fn progress_is_an_estimate_that_never_says_that_it_is_over() {
        let progress = Progress::default();
        assert_eq!(shown(&progress, Duration::from_secs(3))["percent"], 0);
        progress.estimate.store(1000, Ordering::Relaxed);
        progress.bytes.store(250, Ordering::Relaxed);
        let quarter = shown(&progress, Duration::from_secs(10));
        assert_eq!((quarter["percent"].clone(), quarter["eta"].clone()), (json!(25), json!("30s")));
        progress.bytes.store(5000, Ordering::Relaxed);
        assert_eq!(shown(&progress, Duration::from_secs(10))["percent"], 99);
    }
}
