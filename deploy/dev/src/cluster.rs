//! The cluster as a whole: opening it, and what all parts need to know about it.

use std::path::PathBuf;

use crate::{
    build::Artifacts,
    cgroup::Hierarchies,
    command,
    error::{Error, Result},
    paths::{Node, Paths},
    pods,
    process::Supervisor,
};

/// The development cluster of this host.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) paths: Paths,
    pub(crate) supervisor: Supervisor,
    pub(crate) cgroups: Hierarchies,
}

impl Cluster {
    /// The cluster that the environment names, whether it runs or not.
    pub fn new() -> Result<Self> {
        let paths = Paths::from_env();
        Ok(Self { supervisor: Supervisor::new(paths.processes()), cgroups: Hierarchies::detect()?, paths })
    }

    /// The cluster that runs on this host. Fails when it was not started.
    pub fn open() -> Result<Self> {
        let cluster = Self::new()?;
        if cluster.kubeconfig().exists() && cluster.supervisor.is_alive(crate::control_plane::ETCD) {
            Ok(cluster)
        } else {
            Err(Error::NotFound("the development cluster does not run; start it with `make cluster`".into()))
        }
    }

    /// Folders of the cluster.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Credentials of the administrator, for `KUBECONFIG`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig()
    }

    /// The node on which a pod runs now, found without asking the API server.
    pub fn node_of_pod(&self, namespace: &str, pod: &str) -> Result<Node> {
        Ok(pods::sandbox(self, namespace, pod)?.node)
    }

    /// The pod's own address, found without asking the API server.
    pub fn pod_ip(&self, namespace: &str, pod: &str) -> Result<String> {
        pods::sandbox(self, namespace, pod)?.ip()
    }

    /// Folder on the host that holds the content of the volume of a claim.
    pub fn volume_folder(&self, namespace: &str, claim: &str) -> Result<PathBuf> {
        Ok(crate::volume::Volume::of_claim(&self.paths, namespace, claim)?.folder(&self.paths))
    }

    /// Runs kubectl as the administrator; its output is the result.
    pub(crate) fn kubectl(&self, artifacts: &Artifacts, args: &[&str]) -> Result<String> {
        let mut kubectl = command::command(artifacts.kubectl(), ["--request-timeout=20s"]);
        kubectl.args(args).env("KUBECONFIG", self.kubeconfig());
        command::output(kubectl)
    }
}
