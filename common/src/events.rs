//! Events for people and programs: CloudEvents 1.0 on JetStream.
//!
//! Stream `PELORUS_EVENTS`, subject `pelorus.events.<namespace>.<cluster>.<type>`. Types and fields are listed in
//! `docs/events.md`. Events are a courtesy: publishing never blocks, never fails an operation, and losing, repeating or
//! reordering any of them costs nobody's safety. While NATS is down a bounded number waits; the oldest are dropped and
//! counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// JetStream stream of the events.
pub const STREAM: &str = "PELORUS_EVENTS";
/// Prefix of every subject in it.
pub const SUBJECT_PREFIX: &str = "pelorus.events";
/// Version of the `data` schema; readers ignore versions they do not know.
pub const DATA_VERSION: u32 = 1;

/// Events that wait for NATS before new ones are dropped.
const QUEUE: usize = 1024;
/// Deadline of one publication, acknowledgement by the server included.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a failed publication is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// An event that NATS refuses so often is dropped: it must not hold up the others.
const TRIES: u32 = 5;
/// How long and how much the stream keeps.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
const KEEP_BYTES: i64 = 256 << 20;

/// Where NATS is and who we are there. Secrets come as files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `tls://host:4222`; absent: no events.
    pub url: Option<String>,
    /// PEM file with the authority of NATS' certificate.
    pub ca_file: Option<PathBuf>,
    /// File with the user name.
    pub user_file: Option<PathBuf>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Namespace of the cluster.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: String,
    /// `cluster.ready`, `failover.completed`, … as listed in `docs/events.md`.
    pub kind: &'static str,
    /// Fields of the type; never a secret.
    pub data: Value,
}

/// Publishes in the background.
#[derive(Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<(String, Event)>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connected: AtomicBool,
    dropped: AtomicU64,
    published: AtomicU64,
}

impl Events {
    /// Starts the publisher. Returns at once: NATS may be down, or come later. `source` is the daemon's name.
    pub fn start(config: Config, source: &'static str) -> Self {
        let shared = Arc::new(Shared::default());
        let queue = config.url.is_some().then(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(run(config, source, receiver, Arc::clone(&shared)));
            sender
        });
        Self { queue, shared }
    }

    /// Queues an event. Never blocks; when the queue is full the event is dropped and counted.
    pub fn publish(&self, event: Event) {
        let Some(queue) = &self.queue else { return };
        let id = uuid::Uuid::new_v4().to_string();
        if queue.try_send((id, event)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether NATS answers; `None` when no NATS is configured.
    pub fn connected(&self) -> Option<bool> {
        self.queue.as_ref().map(|_| self.shared.connected.load(Ordering::Relaxed))
    }

    /// Events dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Events that NATS has acknowledged since the start.
    pub fn published(&self) -> u64 {
        self.shared.published.load(Ordering::Relaxed)
    }
}

/// The subject that an event is published under.
pub fn subject(event: &Event) -> String {
    format!("{SUBJECT_PREFIX}.{}.{}.{}", event.namespace, event.cluster, event.kind)
}

/// The CloudEvents envelope (structured mode, JSON).
pub fn envelope(id: &str, source: &str, event: &Event, time: jiff::Timestamp) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("pelorus/{source}"),
        "type": format!("dev.pelorus.{}", event.kind),
        "subject": format!("{}/{}", event.namespace, event.cluster),
        "time": time.to_string(),
        "datacontenttype": "application/json",
        "dataversion": DATA_VERSION,
        "data": event.data,
    })
}

async fn connect(config: &Config) -> Result<async_nats::Client, String> {
    let url = config.url.clone().unwrap_or_default();
    let mut options = async_nats::ConnectOptions::new()
        .connection_timeout(Duration::from_secs(5))
        .request_timeout(Some(PUBLISH_TIMEOUT))
        .name("pelorus");
    if let Some(file) = &config.ca_file {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let (Some(user), Some(password)) = (&config.user_file, &config.password_file) {
        let read = async |file: &PathBuf| {
            tokio::fs::read_to_string(file).await.map_err(|error| format!("{}: {error}", file.display()))
        };
        options =
            options.user_and_password(read(user).await?.trim().to_owned(), read(password).await?.trim().to_owned());
    }
    options.connect(&url).await.map_err(|error| error.to_string())
}

/// An event that could not be published yet.
struct Waiting {
    id: String,
    event: Event,
    tries: u32,
}

async fn run(config: Config, source: &'static str, mut queue: mpsc::Receiver<(String, Event)>, shared: Arc<Shared>) {
    let mut waiting: Option<Waiting> = None;
    loop {
        match session(&config, source, &mut queue, &mut waiting, &shared).await {
            Ok(()) => return,
            Err(error) => {
                if shared.connected.swap(false, Ordering::Relaxed) {
                    warn!(%error, "NATS is not reachable: events wait");
                } else {
                    debug!(%error, "NATS is not reachable yet");
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Publishes until something fails (`Err`, the event at hand stays in `waiting`) or the queue is closed (`Ok`).
async fn session(
    config: &Config,
    source: &'static str,
    queue: &mut mpsc::Receiver<(String, Event)>,
    waiting: &mut Option<Waiting>,
    shared: &Shared,
) -> Result<(), String> {
    let client = connect(config).await?;
    let mut jetstream = jetstream::new(client);
    jetstream.set_timeout(PUBLISH_TIMEOUT);
    jetstream
        .get_or_create_stream(jetstream::stream::Config {
            name: STREAM.into(),
            subjects: vec![format!("{SUBJECT_PREFIX}.>")],
            max_age: KEEP,
            max_bytes: KEEP_BYTES,
            ..Default::default()
        })
        .await
        .map_err(|error| error.to_string())?;
    if !shared.connected.swap(true, Ordering::Relaxed) {
        info!("NATS is reachable: events are published");
    }
    loop {
        let Waiting { id, event, tries } = match waiting.take() {
            Some(waiting) => waiting,
            None => match queue.recv().await {
                Some((id, event)) => Waiting { id, event, tries: 0 },
                None => return Ok(()),
            },
        };
        let body = envelope(&id, source, &event, crate::clock::now()).to_string();
        let publish = jetstream::message::PublishMessage::build().payload(body.into()).message_id(&id);
        let sent = async {
            let acknowledgement =
                jetstream.send_publish(subject(&event), publish).await.map_err(|error| error.to_string())?;
            acknowledgement.await.map_err(|error| error.to_string())
        };
        let error = match tokio::time::timeout(PUBLISH_TIMEOUT, sent).await {
            Ok(Ok(_)) => {
                shared.published.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no acknowledgement within {PUBLISH_TIMEOUT:?}"),
        };
        if tries + 1 < TRIES {
            *waiting = Some(Waiting { id, event, tries: tries + 1 });
        } else {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            warn!(kind = event.kind, %error, "event dropped after {TRIES} tries");
        }
        return Err(error);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn envelope_is_a_cloud_event_with_the_documented_subject() {
        let event = Event {
            namespace: "team-a".into(),
            cluster: "shop".into(),
            kind: "cluster.ready",
            data: json!({"instances": 3}),
        };
        assert_eq!(subject(&event), "pelorus.events.team-a.shop.cluster.ready");
        let body = envelope("1", "failover-d", &event, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(body["specversion"], "1.0");
        assert_eq!(body["type"], "dev.pelorus.cluster.ready");
        assert_eq!(body["time"], "1970-01-01T00:00:00Z");
    }
}
