//! What a MySQLBackupLocation leads to: a bucket, and the way in.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::crd::{MySQLBackupLocation, SecretRef};
use crate::mysql::{Password, exposed};
use crate::read::{self, Error};

/// Which bucket, and who asks. Serialised, it holds secrets: nothing but the body of an order over mutual TLS has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Name of the bucket.
    pub bucket: String,
    /// What every key in it starts with, with or without a slash at its end.
    pub prefix: String,
    /// Its region.
    pub region: String,
    /// URL of the server; absent: AWS.
    pub endpoint: Option<String>,
    /// The bucket is in the path, not in the host name.
    pub force_path_style: bool,
    /// Who asks.
    pub key: Key,
    /// PEM of the authority that the server's certificate is checked against; absent: those of the system.
    pub authority: Option<String>,
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Its secret.
    #[serde(serialize_with = "exposed")]
    pub secret: Password,
    /// Of temporary ones.
    pub token: Option<Token>,
}

/// What goes along with a temporary access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(#[serde(serialize_with = "exposed")] pub Password);

impl Location {
    /// Of the object of this name, with what its Secrets say now.
    ///
    /// # Errors
    /// A location that is not there, or lacks something.
    pub async fn resolve(client: &Client, namespace: &str, name: &str) -> Result<Self, Error> {
        let object: MySQLBackupLocation = read::object(client, namespace, name).await?;
        let s3 = object.spec.s3;
        let secret = async |reference: &SecretRef| read::object::<Secret>(client, namespace, &reference.name).await;
        let Some(credentials) = &s3.credentials_secret_ref else {
            return Err(Error::Missing(format!("MySQLBackupLocation {name} has no spec.s3.credentialsSecretRef")));
        };
        let keys = secret(credentials).await?;
        let key = Key {
            id: read::text(&keys, "accessKeyId")?,
            secret: Password::new(read::text(&keys, "secretAccessKey")?),
            token: read::text(&keys, "sessionToken").ok().map(Password::new).map(Token),
        };
        let authority = match &s3.ca_secret_ref {
            Some(reference) => Some(read::text(&secret(reference).await?, "ca.crt")?),
            None => None,
        };
        Ok(Self {
            bucket: s3.bucket,
            prefix: s3.prefix,
            region: s3.region,
            endpoint: s3.endpoint,
            force_path_style: s3.force_path_style,
            key,
            authority,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn secrets_are_in_the_body_of_an_order_and_in_no_log() {
        let location = Location {
            bucket: "backups".to_owned(),
            prefix: "prod/".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: None,
            force_path_style: true,
            key: Key {
                id: "id".to_owned(),
                secret: Password::new("hidden-1"),
                token: Some(Token(Password::new("hidden-2"))),
            },
            authority: None,
        };
        let text = serde_json::to_string(&location).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&text).unwrap(), location);
        assert!(!format!("{location:?}").contains("hidden"));
    }
}
