//! Certificates: Secrets with what the built-in authority issued, or cert-manager's Certificate objects.

use std::net::IpAddr;

use common::crd::{IssuerKind, IssuerRef};
use common::names::{self, daemon, object};
use common::tls::{Authority, Issued, LeafRequest};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Cluster, Object};
use crate::decide::authority::LEAF_LIFETIME;
use crate::decide::settings::hex;

/// Annotation of a leaf's Secret: digest of its names and its issuer. A difference means: issue anew.
pub const ANNOTATION_CERTIFICATE: &str = "pelorus.dev/certificate";
/// Keys of the authority's Secret for the next authority.
pub const KEY_NEXT_CERTIFICATE: &str = "next.crt";
/// Its private key.
pub const KEY_NEXT_KEY: &str = "next.key";

/// One certificate that a cluster needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The Secret that it lies in.
    pub secret: String,
    /// Subject, for people.
    pub common_name: String,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// Every certificate of a cluster: the instances' and one for each daemon that calls them.
pub fn leaves(cluster: &Cluster) -> Vec<Leaf> {
    let mut leaves = vec![instances(cluster)];
    leaves.extend([daemon::FAILOVER_D, daemon::TOPOLOGY_CTL].map(|name| Leaf {
        secret: object::daemon_tls_secret(&cluster.name, name),
        common_name: name.to_owned(),
        dns_names: vec![daemon::dns_name(name)],
        addresses: Vec::new(),
    }));
    leaves
}

fn instances(cluster: &Cluster) -> Leaf {
    let (name, namespace) = (&cluster.name, &cluster.namespace);
    let mut dns_names = vec![format!("*.{name}.{namespace}.svc"), format!("*.{name}.{namespace}.svc.cluster.local")];
    for service in [object::primary_service(name), object::replicas_service(name)] {
        for suffix in [
            String::new(),
            format!(".{namespace}"),
            format!(".{namespace}.svc"),
            format!(".{namespace}.svc.cluster.local"),
        ] {
            dns_names.push(format!("{service}{suffix}"));
        }
    }
    dns_names.push("localhost".to_owned());
    Leaf {
        secret: object::tls_secret(name),
        common_name: name.clone(),
        dns_names,
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
    }
}

impl Leaf {
    /// What [`ANNOTATION_CERTIFICATE`] says when the certificate is for these names by this issuer.
    pub fn digest(&self, issuer: &str) -> String {
        let mut hasher = Sha256::new();
        for text in [&self.common_name, issuer].into_iter().chain(self.dns_names.iter().map(String::as_str)) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hex(&hasher.finalize(), 16)
    }

    /// Issues it.
    ///
    /// # Errors
    /// The authority's.
    pub fn issue(&self, authority: &Authority) -> Result<Issued, common::tls::Error> {
        authority.issue(&LeafRequest {
            common_name: self.common_name.clone(),
            dns_names: self.dns_names.clone(),
            addresses: self.addresses.clone(),
            lifetime: LEAF_LIFETIME,
        })
    }

    /// The Secret with an issued certificate.
    pub fn secret(&self, cluster: &Cluster, certificate: &[u8], key: &[u8], authorities: &str, digest: &str) -> Object {
        cluster.object::<Secret>(
            &self.secret,
            json!({
                "metadata": {"annotations": {ANNOTATION_CERTIFICATE: digest}},
                "type": "kubernetes.io/tls",
                "data": {
                    "tls.crt": ByteString(certificate.to_vec()),
                    "tls.key": ByteString(key.to_vec()),
                    "ca.crt": ByteString(authorities.as_bytes().to_vec()),
                },
            }),
        )
    }

    /// The Certificate object that lets cert-manager issue it.
    pub fn cert_manager(&self, cluster: &Cluster, issuer: &IssuerRef) -> Object {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
        let kind = match issuer.kind {
            IssuerKind::Issuer => "Issuer",
            IssuerKind::ClusterIssuer => "ClusterIssuer",
        };
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut spec = json!({
            "secretName": self.secret,
            "secretTemplate": {"labels": cluster.labels()},
            "commonName": self.common_name,
            "dnsNames": self.dns_names,
            "duration": format!("{}h", LEAF_LIFETIME.as_secs() / 3600),
            "renewBefore": format!("{}h", LEAF_LIFETIME.as_secs() / 3600 / 3),
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", "server auth", "client auth"],
            "issuerRef": {"name": issuer.name, "kind": kind, "group": issuer.group},
        });
        if !addresses.is_empty() {
            super::merge(&mut spec, json!({"ipAddresses": addresses}));
        }
        cluster.dynamic(resource, &self.secret, json!({"spec": spec}))
    }
}

/// The Secret of the authority: the one that issues, all that are trusted, and the next one when there is one.
pub fn authority_secret(cluster: &Cluster, issuing: &Authority, trusted: &str, next: Option<&Authority>) -> Object {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = json!({
        "tls.crt": bytes(issuing.certificate()),
        "tls.key": bytes(issuing.key()),
        "ca.crt": bytes(trusted),
    });
    if let Some(next) = next {
        super::merge(
            &mut data,
            json!({KEY_NEXT_CERTIFICATE: bytes(next.certificate()), KEY_NEXT_KEY: bytes(next.key())}),
        );
    }
    cluster
        .object::<Secret>(&names::object::ca_secret(&cluster.name), json!({"type": "kubernetes.io/tls", "data": data}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_instances_certificate_is_valid_for_every_name_that_clients_use() {
        let leaves = leaves(&cluster());
        assert_eq!(leaves.len(), 3);
        for name in [
            "*.shop.team-a.svc",
            "shop-primary",
            "shop-primary.team-a.svc.cluster.local",
            "shop-replicas.team-a",
            "localhost",
        ] {
            assert!(leaves[0].dns_names.iter().any(|other| other == name), "{name}");
        }
        assert_eq!(leaves[1].dns_names, ["failover-d.daemons.pelorus.dev"]);
    }

    #[test]
    fn another_issuer_or_another_name_is_another_certificate() {
        let mut leaf = leaves(&cluster()).remove(0);
        let before = leaf.digest("issuer");
        assert_ne!(leaf.digest("other"), before);
        leaf.dns_names.push("more".into());
        assert_ne!(leaf.digest("issuer"), before);
    }

    #[test]
    fn secrets_hold_what_was_issued() {
        let authority = Authority::generate("shop", Duration::from_secs(3600)).unwrap();
        let leaf = leaves(&cluster()).remove(0);
        let issued = leaf.issue(&authority).unwrap();
        let object =
            leaf.secret(&cluster(), issued.certificate.as_bytes(), issued.key.as_bytes(), authority.certificate(), "d");
        assert_known_to::<Secret>(&object);
        assert_known_to::<Secret>(&authority_secret(&cluster(), &authority, authority.certificate(), Some(&authority)));
    }

    #[test]
    fn cert_manager_is_asked_for_the_same_names() {
        let issuer = IssuerRef { kind: IssuerKind::ClusterIssuer, name: "ca".into(), group: "cert-manager.io".into() };
        let leaf = leaves(&cluster()).remove(0);
        let object = leaf.cert_manager(&cluster(), &issuer);
        assert_eq!(object.resource.plural, "certificates");
        assert_eq!(object.body["spec"]["dnsNames"].as_array().unwrap().len(), leaf.dns_names.len());
        assert_eq!(object.body["spec"]["issuerRef"]["kind"], "ClusterIssuer");
    }
}
