//! Reads and writes of the Lease object, each with a deadline, each write with a resourceVersion.

use std::time::Duration;

use k8s_openapi::api::coordination::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use tokio::time::{Instant, timeout};

use super::Config;
use super::decide::Step;

pub(super) type Object = k8s::Lease;

/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(4);

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer from the API server within {CALL:?}")]
    Timeout,
    #[error("{0}")]
    Kube(#[from] kube::Error),
}

impl CallError {
    /// Somebody else wrote first.
    pub(super) fn is_conflict(&self) -> bool {
        // 409 is both "conflict" of a replace and "already exists" of a create.
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code == 409)
    }
}

/// A failed renewal.
#[derive(Debug)]
pub(super) enum RenewError {
    /// Another holder is in the record.
    Usurped(String),
    /// May work the next time.
    Failed(CallError),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither in a pod nor with a kubeconfig.
    #[error("cannot find out how to reach the API server")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration makes no client: a broken certificate, mostly.
    #[error("cannot make a client for the API server")]
    Client(#[from] kube::Error),
}

/// A client for leases and other calls that must not take long: no retries behind our back, and deadlines.
///
/// kube's default repeats each call up to 15 times, for minutes, and has no read timeout.
pub async fn client() -> Result<kube::Client, ClientError> {
    client_of(kube::Config::infer().await?)
}

/// The same for an API server that is named.
pub fn client_of(mut config: kube::Config) -> Result<kube::Client, ClientError> {
    config.default_retry = false;
    config.connect_timeout = Some(CALL);
    config.read_timeout = Some(CALL);
    config.write_timeout = Some(CALL);
    Ok(kube::Client::try_from(config)?)
}

/// The record is ours.
#[derive(Debug)]
pub(super) struct Held {
    object: Object,
    /// When the call that made the record what it is began.
    pub(super) renewed_at: Instant,
}

impl Held {
    pub(super) fn transitions(&self) -> i32 {
        self.object.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct Api {
    leases: kube::Api<Object>,
    name: String,
    identity: String,
    seconds: i32,
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    timeout(CALL, call).await.map_err(|_| CallError::Timeout)?.map_err(CallError::Kube)
}

fn now() -> MicroTime {
    MicroTime(crate::clock::now())
}

impl Api {
    pub(super) fn new(client: kube::Client, config: &Config) -> Self {
        Self {
            leases: kube::Api::namespaced(client, &config.namespace),
            name: config.name.clone(),
            identity: config.identity.clone(),
            seconds: i32::try_from(config.duration.as_secs()).unwrap_or(i32::MAX),
        }
    }

    pub(super) async fn get(&self) -> Result<Option<Object>, CallError> {
        within(self.leases.get_opt(&self.name)).await
    }

    fn spec(&self, transitions: i32) -> k8s::LeaseSpec {
        k8s::LeaseSpec {
            acquire_time: Some(now()),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.seconds),
            lease_transitions: Some(transitions),
            renew_time: Some(now()),
            ..k8s::LeaseSpec::default()
        }
    }

    async fn create(&self, since: Instant) -> Result<Held, CallError> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let object = Object { metadata, spec: Some(self.spec(0)) };
        let object = within(self.leases.create(&PostParams::default(), &object)).await?;
        Ok(Held { object, renewed_at: since })
    }

    /// Writes our name into exactly this object: its resourceVersion goes along.
    async fn take(&self, found: Object, transitions: i32, since: Instant) -> Result<Held, CallError> {
        let object = Object { metadata: found.metadata, spec: Some(self.spec(transitions)) };
        let object = self.replace(&object).await?;
        Ok(Held { object, renewed_at: since })
    }

    /// Does what was decided; `None`: somebody else was faster, or holds it.
    pub(super) async fn obey(
        &self,
        step: Step,
        found: Option<Object>,
        since: Instant,
    ) -> Result<Option<Held>, CallError> {
        let written = match (step, found) {
            (Step::Create, _) => self.create(since).await,
            (Step::Take { transitions }, Some(found)) => self.take(found, transitions, since).await,
            (Step::Take { .. } | Step::Wait, _) => return Ok(None),
        };
        match written {
            Ok(held) => Ok(Some(held)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, object: &Object) -> Result<Object, CallError> {
        within(self.leases.replace(&self.name, &PostParams::default(), object)).await
    }

    /// Renews what we hold. After a conflict (somebody set a label, say) it looks again, and goes on if we still hold it.
    pub(super) async fn renew(&self, held: &mut Held) -> Result<(), RenewError> {
        let since = Instant::now();
        let mut object = held.object.clone();
        object.spec.get_or_insert_default().renew_time = Some(now());
        match self.replace(&object).await {
            Ok(object) => {
                *held = Held { object, renewed_at: since };
                Ok(())
            }
            Err(error) => {
                // After a timeout too: the write may have been made, and then ours is the outdated object.
                let found = self.get().await.map_err(RenewError::Failed)?;
                let holder = found.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
                match (found, holder) {
                    (Some(found), Some(holder)) if holder == self.identity => {
                        held.object = found;
                        Err(RenewError::Failed(error))
                    }
                    (_, holder) => Err(RenewError::Usurped(holder.unwrap_or_default())),
                }
            }
        }
    }

    pub(super) async fn release(&self, held: Held) -> Result<(), CallError> {
        let mut object = held.object;
        let spec = object.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(now());
        self.replace(&object).await.map(drop)
    }
}
