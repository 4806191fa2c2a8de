//! Passwords and certificates of one cluster: what is missing is made, what is due is renewed, the rest stays.
//!
//! ```text
//! read Secrets ─> passwords: create or add missing keys (never by apply: what exists wins)
//!              ─> authority: Create | Keep | Prepare | Switch      (decide::authority)
//!              ─> leaves:    kept while names, issuer and validity fit, else issued anew
//! ```
//!
//! With an issuer named in the spec, cert-manager does the last two and its Secrets are only read.

use common::crd::MySQLClusterSpec;
use common::names::{account, daemon, object};
use common::tls::{Authority, Material, not_after};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::act;
use crate::build::certificates::{
    ANNOTATION_CERTIFICATE, KEY_NEXT_CERTIFICATE, KEY_NEXT_KEY, Leaf, authority_secret, leaves,
};
use crate::build::{Cluster, Object, secrets};
use crate::decide::authority::{AUTHORITY_LIFETIME, Step, Validity, step};
use crate::decide::settings::hex;
use crate::error::Error;

/// What the Secrets are to be, and what we connect with.
pub struct Credentials {
    /// Objects to apply.
    pub objects: Vec<Object>,
    /// Our client certificate for the instance API; absent until cert-manager has issued it.
    pub client: Option<Material>,
    /// Secrets whose certificate was replaced.
    pub rotated: Vec<String>,
}

/// Makes what is missing and renews what is due. `now` in seconds since the epoch.
pub async fn ensure(
    client: &Client,
    cluster: &Cluster,
    spec: &MySQLClusterSpec,
    now: i64,
) -> Result<Credentials, Error> {
    let wanted = leaves(cluster);
    let accounts = async { ensure_accounts(client, cluster, spec).await };
    let authority = act_secret(client, cluster, object::ca_secret(&cluster.name));
    let existing =
        futures::future::try_join_all(wanted.iter().map(|leaf| act_secret(client, cluster, leaf.secret.clone())));
    let (admin, authority, existing) = futures::try_join!(accounts, authority, existing)?;

    let mut credentials = match &spec.tls {
        None => built_in(cluster, authority.as_ref(), &wanted, &existing, now)?,
        Some(tls) => {
            let objects = wanted.iter().map(|leaf| leaf.cert_manager(cluster, &tls.issuer_ref)).collect();
            Credentials { objects, client: None, rotated: Vec::new() }
        }
    };
    if spec.tls.is_some() {
        let ours = object::daemon_tls_secret(&cluster.name, daemon::TOPOLOGY_CTL);
        credentials.client = existing.iter().flatten().find(|secret| secret.name_any() == ours).and_then(material);
    }
    let authorities = match &spec.tls {
        None => credentials.client.as_ref().map(|material| material.authorities.clone()),
        Some(_) => existing.iter().flatten().find_map(|secret| text(secret, "ca.crt")),
    };
    credentials.objects.push(secrets::admin(cluster, &admin, authorities.as_deref()));
    Ok(credentials)
}

async fn act_secret(client: &Client, cluster: &Cluster, name: String) -> Result<Option<Secret>, Error> {
    act::secret(client, cluster, &name).await
}

/// Adds missing passwords, and returns that of the data's owner.
async fn ensure_accounts(client: &Client, cluster: &Cluster, spec: &MySQLClusterSpec) -> Result<ByteString, Error> {
    let name = object::accounts_secret(&cluster.name);
    let mut existing = act::secret(client, cluster, &name).await?;
    if existing.is_none() {
        let passwords = secrets::missing_passwords(None, secrets::password);
        let created = act::create_secret(client, cluster, &secrets::accounts(cluster, spec, &passwords)).await?;
        if created && let Some(admin) = passwords.get(account::ADMIN) {
            return Ok(admin.clone());
        }
        existing = act::secret(client, cluster, &name).await?;
    }
    let missing_key = || Error::Secret { secret: name.clone(), key: account::ADMIN };
    let existing = existing.ok_or_else(missing_key)?;
    let missing = secrets::missing_passwords(existing.data.as_ref(), secrets::password);
    let owner = secrets::accounts_owner(cluster, spec);
    let owner_differs = json!(existing.owner_references()) != owner;
    if !missing.is_empty() || owner_differs {
        let patch = json!({
            "metadata": {"labels": cluster.labels(), "ownerReferences": owner},
            "data": missing,
        });
        act::merge_secret(client, &existing, patch).await?;
    }
    let admin = missing.get(account::ADMIN).or_else(|| existing.data.as_ref()?.get(account::ADMIN));
    admin.cloned().ok_or_else(missing_key)
}

fn built_in(
    cluster: &Cluster,
    existing_authority: Option<&Secret>,
    wanted: &[Leaf],
    existing: &[Option<Secret>],
    now: i64,
) -> Result<Credentials, Error> {
    let authority_name = object::ca_secret(&cluster.name);
    let tls = |name: &str| {
        let name = name.to_owned();
        move |source| Error::Tls { name, source }
    };
    let generate = || {
        let common_name = format!("{}.{} {}", cluster.name, cluster.namespace, random_name());
        Authority::generate(&common_name, AUTHORITY_LIFETIME).map_err(tls(&authority_name))
    };
    let current = existing_authority.and_then(|secret| authority(secret, "tls.crt", "tls.key"));
    let next = existing_authority.and_then(|secret| authority(secret, KEY_NEXT_CERTIFICATE, KEY_NEXT_KEY));
    let known = existing_authority.and_then(|secret| text(secret, "ca.crt")).unwrap_or_default();
    let life = |authority: &Authority| validity(authority.certificate());
    let decided = step(current.as_ref().and_then(life), next.as_ref().and_then(life), now);
    let (issuing, next) = match (decided, current, next) {
        (Step::Keep, Some(current), next) => (current, next),
        (Step::Prepare, Some(current), _) => (current, Some(generate()?)),
        (Step::Switch, _, Some(next)) => (next, None),
        (Step::Create | Step::Keep | Step::Prepare | Step::Switch, _, _) => (generate()?, None),
    };
    let mut trusted: Vec<String> = [issuing.certificate(), next.as_ref().map_or("", Authority::certificate), &known]
        .into_iter()
        .flat_map(certificates)
        .filter(|pem| validity(pem).is_none_or(|validity| !validity.is_over(now)))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    trusted.retain(|pem| seen.insert(pem.clone()));
    let trusted = trusted.concat();
    let issuer = hex(&<sha2::Sha256 as sha2::Digest>::digest(issuing.certificate().as_bytes()), 32);

    let mut objects = vec![authority_secret(cluster, &issuing, &trusted, next.as_ref())];
    let (mut client, mut rotated) = (None, Vec::new());
    for (leaf, existing) in wanted.iter().zip(existing) {
        let digest = leaf.digest(&issuer);
        let kept = existing.as_ref().and_then(|secret| kept(secret, &digest, now));
        let had_one = existing.as_ref().is_some_and(|secret| text(secret, "tls.crt").is_some());
        let (certificate, key) = if let Some(kept) = kept {
            kept
        } else {
            if had_one {
                rotated.push(leaf.secret.clone());
            }
            let issued = leaf.issue(&issuing).map_err(tls(&leaf.secret))?;
            (issued.certificate, issued.key)
        };
        objects.push(leaf.secret(cluster, certificate.as_bytes(), key.as_bytes(), &trusted, &digest));
        if leaf.secret == object::daemon_tls_secret(&cluster.name, daemon::TOPOLOGY_CTL) {
            client = Some(Material { certificate, key, authorities: trusted.clone() });
        }
    }
    Ok(Credentials { objects, client, rotated })
}

/// Certificate and key of a leaf that fits and is not due.
fn kept(secret: &Secret, digest: &str, now: i64) -> Option<(String, String)> {
    let annotation = secret.annotations().get(ANNOTATION_CERTIFICATE)?;
    let (certificate, key) = (text(secret, "tls.crt")?, text(secret, "tls.key")?);
    (annotation == digest && !validity(&certificate)?.is_due(now)).then_some((certificate, key))
}

fn authority(secret: &Secret, certificate: &str, key: &str) -> Option<Authority> {
    Some(Authority::from_pem(text(secret, certificate)?, text(secret, key)?))
}

fn material(secret: &Secret) -> Option<Material> {
    Some(Material {
        certificate: text(secret, "tls.crt")?,
        key: text(secret, "tls.key")?,
        authorities: text(secret, "ca.crt")?,
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}

fn validity(pem: &str) -> Option<Validity> {
    not_after(pem).ok().map(|(from, until)| Validity { from, until })
}

/// The certificates of a bundle, one text each.
fn certificates(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle
        .split_inclusive(END)
        .map(str::trim)
        .filter(|block| block.ends_with(END))
        .map(|block| format!("{block}\n"))
        .collect()
}

/// Two authorities of one cluster have different names.
fn random_name() -> String {
    let number: u64 = rand::random();
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::build::fixtures::cluster;

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    fn parsed(object: &Object) -> Secret {
        serde_json::from_value(object.body.clone()).unwrap()
    }

    fn days(days: i64) -> i64 {
        now() + days * 86_400
    }

    fn state_of(credentials: &Credentials) -> (Secret, Vec<Option<Secret>>) {
        let secrets: Vec<Secret> = credentials.objects.iter().map(parsed).collect();
        (secrets[0].clone(), secrets[1..].iter().cloned().map(Some).collect())
    }

    #[test]
    fn certificates_are_issued_once_and_renewed_when_due() {
        let (cluster, wanted) = (cluster(), leaves(&cluster()));
        let first = built_in(&cluster, None, &wanted, &[None, None, None], now()).unwrap();
        assert_eq!(first.objects.len(), 4);
        assert!(first.rotated.is_empty() && first.client.is_some());
        let (authority, existing) = state_of(&first);

        let second = built_in(&cluster, Some(&authority), &wanted, &existing, days(200)).unwrap();
        assert!(second.rotated.is_empty());
        assert_eq!(state_of(&second), (authority.clone(), existing.clone()));

        let later = built_in(&cluster, Some(&authority), &wanted, &existing, days(250)).unwrap();
        assert_eq!(later.rotated, ["shop-tls", "shop-failover-d-tls", "shop-topology-ctl-tls"]);
        assert_eq!(state_of(&later).0, authority);
    }

    #[test]
    fn the_next_authority_is_trusted_before_it_issues() {
        let (cluster, wanted) = (cluster(), leaves(&cluster()));
        let first = built_in(&cluster, None, &wanted, &[None, None, None], now()).unwrap();
        let (authority, existing) = state_of(&first);
        let old = text(&authority, "tls.crt").unwrap();

        let due = days(3650 * 2 / 3 + 1);
        let prepared = built_in(&cluster, Some(&authority), &wanted, &existing, due).unwrap();
        let (authority, existing) = state_of(&prepared);
        assert_eq!(text(&authority, "tls.crt").unwrap(), old);
        let next = text(&authority, KEY_NEXT_CERTIFICATE).unwrap();
        let bundle = text(existing[0].as_ref().unwrap(), "ca.crt").unwrap();
        assert_eq!(certificates(&bundle).len(), 2);
        assert!(bundle.contains(old.trim()) && bundle.contains(next.trim()));

        let switched = built_in(&cluster, Some(&authority), &wanted, &existing, due).unwrap();
        let (authority, _) = state_of(&switched);
        assert_eq!(text(&authority, "tls.crt").unwrap(), next);
        assert_eq!(text(&authority, KEY_NEXT_CERTIFICATE), None);
        assert_eq!(certificates(&text(&authority, "ca.crt").unwrap()).len(), 2);
        assert_eq!(switched.rotated.len(), 3);
    }

    #[test]
    fn a_bundle_is_split_into_its_certificates() {
        let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
        assert_eq!(certificates(&format!("{one}\n\n{one}\n")), vec![format!("{one}\n"); 2]);
        assert_eq!(certificates(""), Vec::<String>::new());
    }
}
