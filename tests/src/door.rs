//! The way in to one instance at its own address, found again when its pod was replaced.

use std::time::Duration;

use anyhow::Result;
use common::mysql::{Endpoint, Session};
use common::names;

use crate::Cluster;
use crate::sessions::Target;

/// Longest login.
const LOGIN: Duration = Duration::from_secs(1);
/// Longest look for the pod's address. The API server may be away: then the last one known is used.
const FIND: Duration = Duration::from_secs(1);

/// An instance and how to get in.
pub struct Door {
    cluster: Cluster,
    pod: String,
    target: Target,
    failed: bool,
}

impl Door {
    /// The way in to a pod, which has to be there now.
    ///
    /// # Errors
    /// When it is not, or there are no credentials.
    pub async fn new(cluster: &Cluster, pod: &str) -> Result<Self> {
        let target = cluster.instance(pod).await?;
        Ok(Self { cluster: cluster.clone(), pod: pod.to_owned(), target, failed: false })
    }

    /// Name of the pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// `server_id` of the instance: its ordinal and one.
    pub fn server(&self) -> u32 {
        names::ordinal(&self.cluster.name, &self.pod).map_or(0, |ordinal| ordinal + 1)
    }

    /// A session of the owner of the data; none when nobody answers or nobody is let in.
    pub async fn open(&mut self) -> Option<Session> {
        if self.failed
            && let Ok(Ok(ip)) = tokio::time::timeout(FIND, self.cluster.pod_ip(&self.pod)).await
            && let Endpoint::Tcp { host, .. } = &mut self.target.endpoint
        {
            *host = ip;
        }
        let session = Session::connect(&self.target.endpoint, &self.target.credentials, LOGIN).await.ok();
        self.failed = session.is_none();
        session
    }
}
