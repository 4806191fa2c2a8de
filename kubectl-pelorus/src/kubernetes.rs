//! The Kubernetes that is meant, and the namespace in it.

use std::fmt::Debug;
use std::time::Duration;

use common::crd::MySQLCluster;
use common::read;
use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Target;
use crate::error::{Error, Result};

/// Who does not answer by then will not.
const CONNECT: Duration = Duration::from_secs(10);
/// Longer than the API server keeps a silent watch open.
const SILENCE: Duration = Duration::from_secs(330);

/// A client, and the namespace that is meant.
pub struct Kubernetes {
    pub client: Client,
    pub namespace: String,
}

impl Kubernetes {
    /// As kubectl would.
    pub async fn connect(target: &Target) -> Result<Self> {
        let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &target.kubeconfig {
            Some(file) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            None if target.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.write_timeout = Some(SILENCE);
        let namespace = target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Error::kubernetes("connect"))?;
        Ok(Self { client, namespace })
    }

    /// Objects of the namespace.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object of this name.
    pub async fn get<K>(&self, name: &str) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        Ok(read::object(&self.client, &self.namespace, name).await?)
    }

    /// The cluster of this name, as it is now.
    pub async fn cluster(&self, name: &str) -> Result<MySQLCluster> {
        self.get(name).await
    }

    /// Makes an object.
    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let what = format!("make {} {}", K::kind(&()), object.name_any());
        self.api().create(&PostParams::default(), object).await.map_err(Error::kubernetes(what))
    }
}
