//! The Kubernetes that is tested, and what must be there before a test starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use common::crd::MySQLCluster;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

/// Namespace of the daemons.
pub const OPERATOR_NAMESPACE: &str = "pelorus-system";
/// Daemons that have to run.
pub const DAEMONS: [&str; 4] = ["topology-ctl", "failover-d", "binlog-shipper", "backup-d"];
/// A daemon is waited for so long: after an outage of the API server client-go lets some of them, and kubelets, wait for a minute.
const AVAILABLE: Duration = Duration::from_secs(180);
/// What to do when they do not.
const ADVICE: &str = "run `make cluster images install` first";

/// A Kubernetes with Pelorus on it.
#[derive(Clone)]
pub struct Harness {
    /// Client of an administrator.
    pub client: Client,
    /// What it was made from, for clients of other kinds.
    pub config: Arc<Config>,
    /// Where that was read from.
    pub kubeconfig: PathBuf,
    /// The development cluster, unless `KUBECONFIG` names another one.
    pub dev: Option<pelorus_dev::Cluster>,
}

impl Harness {
    /// Opens the cluster of `KUBECONFIG`, or the development cluster, and makes sure that Pelorus is installed.
    ///
    /// # Errors
    /// Says what is missing and how to get it.
    pub async fn open() -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let harness = Self::connect().await.context(ADVICE)?;
        harness.check().await.context(ADVICE)?;
        Ok(harness)
    }

    async fn connect() -> Result<Self> {
        let named = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let ours = pelorus_dev::Paths::from_env().kubeconfig();
        let dev = match &named {
            Some(path) if *path != ours => None,
            _ => Some(pelorus_dev::Cluster::open().context("open the development cluster")?),
        };
        let kubeconfig = named.unwrap_or(ours);
        let file = Kubeconfig::read_from(&kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self { client: client(config.clone())?, config: Arc::new(config), kubeconfig, dev })
    }

    async fn check(&self) -> Result<()> {
        let clusters: Api<MySQLCluster> = Api::all(self.client.clone());
        clusters
            .list_metadata(&ListParams::default().limit(1))
            .await
            .context("list MySQLClusters: are the CRDs installed?")?;
        for daemon in DAEMONS {
            self.deployment(daemon).await?;
        }
        // What is there may not be available for the test before, which took the API server away.
        self.wait_daemons(AVAILABLE).await
    }

    /// The Deployment of a daemon, whatever the release is called.
    ///
    /// # Errors
    /// When there is none.
    pub async fn deployment(&self, daemon: &str) -> Result<Deployment> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let all = api.list(&ListParams::default()).await.context("list the Deployments of Pelorus")?;
        all.into_iter()
            .find(|deployment| deployment.name_any().ends_with(daemon))
            .with_context(|| format!("namespace {OPERATOR_NAMESPACE} has no Deployment of {daemon}"))
    }

    /// Does something blocking to the development cluster (faults block).
    ///
    /// # Errors
    /// Those of `act`, and when the tests run on another cluster.
    pub async fn dev<T: Send + 'static>(
        &self,
        act: impl FnOnce(&pelorus_dev::Cluster) -> pelorus_dev::Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = self.dev.clone().context("this needs the development cluster: unset KUBECONFIG")?;
        Ok(tokio::task::spawn_blocking(move || act(&cluster)).await??)
    }
}

fn client(mut config: Config) -> Result<Client> {
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(30));
    config.write_timeout = Some(Duration::from_secs(30));
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
