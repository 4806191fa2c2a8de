//! The way to the MySQL of an instance, as its cluster's Secrets say now.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;

use crate::mysql::{Ca, Credentials, Endpoint, Password, Tls};
use crate::names::{self, object};
use crate::read::{self, Error};

/// Where an instance answers, and who asks.
#[derive(Clone, Debug)]
pub struct Access {
    /// DNS name of the instance.
    pub host: String,
    /// PEM of the authority that its certificate is checked against.
    pub authority: String,
    /// The account.
    pub credentials: Credentials,
}

impl Access {
    /// To an instance by one of Pelorus' own accounts ([`names::account`]).
    ///
    /// # Errors
    /// Secrets that are not there yet.
    pub async fn of(
        client: &Client,
        namespace: &str,
        cluster: &str,
        instance: &str,
        account: &str,
    ) -> Result<Self, Error> {
        let passwords: Secret = read::object(client, namespace, &object::accounts_secret(cluster)).await?;
        let certificates: Secret = read::object(client, namespace, &object::tls_secret(cluster)).await?;
        Ok(Self {
            host: names::instance_host(namespace, cluster, instance),
            authority: read::text(&certificates, "ca.crt")?,
            credentials: Credentials::new(account, Password::new(read::text(&passwords, account)?)),
        })
    }

    /// Over TLS, with the name that the certificate must be valid for.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp {
            host: self.host.clone(),
            port: names::PORT_MYSQL,
            tls: Tls { ca: Ca::Pem(self.authority.clone()), server_name: self.host.clone() },
        }
    }
}
