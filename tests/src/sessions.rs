//! MySQL sessions as the owner of the data has them: user `admin`, TLS, the server's name verified.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::gtid::GtidSet;
use common::mysql::{Ca, Credentials, Endpoint, FromRow, Password, Session, Tls};
use common::names;
use k8s_openapi::api::core::v1::Service;

use crate::Cluster;
use crate::node::{InNode, client_node};

/// Longest wait for an answer unless a test says otherwise.
pub const ANSWER: Duration = Duration::from_secs(15);

/// A server and who wants in.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// Who wants in.
    pub credentials: Credentials,
}

impl Target {
    /// Logs in.
    ///
    /// # Errors
    /// Those of the connection and the login.
    pub async fn connect(&self) -> Result<Session> {
        Ok(Session::connect(&self.endpoint, &self.credentials, ANSWER).await?)
    }
}

impl Cluster {
    /// Certificates that the servers' certificates are checked against.
    ///
    /// # Errors
    /// When the admin Secret is not there.
    pub async fn authorities(&self) -> Result<String> {
        self.secret(&names::object::admin_secret(&self.name), "ca.crt").await
    }

    /// Credentials of the owner of the data.
    ///
    /// # Errors
    /// When the admin Secret is not there.
    pub async fn admin(&self) -> Result<Credentials> {
        let secret = names::object::admin_secret(&self.name);
        let user = self.secret(&secret, "username").await?;
        Ok(Credentials::new(user, Password::new(self.secret(&secret, "password").await?)))
    }

    /// Credentials of one of Pelorus' own accounts.
    ///
    /// # Errors
    /// When it has no password.
    pub async fn account(&self, account: &str) -> Result<Credentials> {
        let password = self.secret(&names::object::accounts_secret(&self.name), account).await?;
        Ok(Credentials::new(account, Password::new(password)))
    }

    async fn target(&self, host: String, server_name: String) -> Result<Target> {
        let tls = Tls { ca: Ca::Pem(self.authorities().await?), server_name };
        let endpoint = Endpoint::Tcp { host, port: names::PORT_MYSQL, tls };
        Ok(Target { endpoint, credentials: self.admin().await? })
    }

    /// One instance at its pod's own address, reached from here.
    ///
    /// # Errors
    /// When the pod has no address yet.
    pub async fn instance(&self, pod: &str) -> Result<Target> {
        let host = names::instance_host(&self.namespace, &self.name, pod);
        self.target(self.pod_ip(pod).await?, host).await
    }

    /// ClusterIP of a Service.
    ///
    /// # Errors
    /// When it has none.
    pub async fn cluster_ip(&self, service: &str) -> Result<String> {
        let found = self.api::<Service>().get(service).await.with_context(|| format!("get Service {service}"))?;
        found.spec.and_then(|spec| spec.cluster_ip).with_context(|| format!("Service {service} has no ClusterIP"))
    }

    /// A Service at its ClusterIP, which only nodes reach ([`InNode`]).
    ///
    /// # Errors
    /// When it has no ClusterIP.
    pub async fn service(&self, service: &str) -> Result<Target> {
        self.target(self.cluster_ip(service).await?, format!("{service}.{}.svc", self.namespace)).await
    }

    /// The primary Service.
    ///
    /// # Errors
    /// When it has no ClusterIP.
    pub async fn primary_service(&self) -> Result<Target> {
        self.service(&names::object::primary_service(&self.name)).await
    }

    /// Works on a session through the primary Service, on a node.
    ///
    /// # Errors
    /// Those of the connection and of `work`.
    pub async fn through_primary<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let target = self.primary_service().await?;
        let task = move || async move {
            let mut session = target.connect().await?;
            work(&mut session).await
        };
        InNode::spawn(client_node(&self.harness), task).join().await
    }

    /// Runs statements through the primary Service.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn write(&self, statements: &[&str]) -> Result<()> {
        let statements: Vec<String> = statements.iter().map(|sql| (*sql).to_owned()).collect();
        self.through_primary(async move |session| {
            for sql in &statements {
                session.exec(sql, ANSWER).await?;
            }
            Ok(())
        })
        .await
    }

    /// Rows of a query on one instance.
    ///
    /// # Errors
    /// Those of the connection and the query.
    pub async fn rows<T: FromRow + Send + 'static>(&self, pod: &str, sql: &str) -> Result<Vec<T>> {
        let mut session = self.instance(pod).await?.connect().await.with_context(|| format!("connect to {pod}"))?;
        session.rows(sql, ANSWER).await.with_context(|| format!("ask {pod}"))
    }

    /// The one value of a query on one instance.
    ///
    /// # Errors
    /// Those of the connection and the query, and when there is no row.
    pub async fn value<T>(&self, pod: &str, sql: &str) -> Result<T>
    where
        T: common::mysql::FromValue + Send + 'static,
        (T,): FromRow,
    {
        let rows: Vec<(T,)> = self.rows(pod, sql).await?;
        rows.into_iter().next().map(|(value,)| value).with_context(|| format!("{pod} answered {sql:?} without a row"))
    }

    /// What an instance has executed.
    ///
    /// # Errors
    /// Those of the connection and the query.
    pub async fn executed(&self, pod: &str) -> Result<GtidSet> {
        let text: String = self.value(pod, "SELECT @@GLOBAL.gtid_executed").await?;
        text.parse().map_err(|error| anyhow::anyhow!("gtid_executed of {pod}: {error}"))
    }

    /// Waits until an instance has executed a set.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn wait_executed(&self, pod: &str, set: &GtidSet, within: Duration) -> Result<()> {
        let mut session = self.instance(pod).await?.connect().await.with_context(|| format!("connect to {pod}"))?;
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {})", within.as_secs().max(1));
        let answer: Option<(i64,)> = session.first(&sql, within + ANSWER).await?;
        ensure!(answer == Some((0,)), "{pod} has not executed {set} within {within:?}");
        Ok(())
    }

    /// Waits until every instance has executed what the primary has executed now, and returns their names.
    ///
    /// # Errors
    /// When one has not in time.
    pub async fn wait_caught_up(&self, within: Duration) -> Result<Vec<String>> {
        let primary = self.primary().await?;
        let set = self.executed(&primary).await?;
        let pods: Vec<String> = self.pods().await?.into_keys().collect();
        for pod in pods.iter().filter(|pod| **pod != primary) {
            self.wait_executed(pod, &set, within).await?;
        }
        Ok(pods)
    }
}
