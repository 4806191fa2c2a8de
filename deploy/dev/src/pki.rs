//! Certificates of the control plane and the nodes, and the kubeconfigs that use them.
//!
//! Everything is made in a temporary folder that gets its name at the end: there is a whole PKI or none.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::{
    cache, command,
    error::{Error, Result},
    paths::{API_PORT, API_SERVICE_IP, HOST_IP, Node, Paths},
};

/// Holder of a certificate.
struct Subject {
    name: String,
    common_name: String,
    organization: Option<&'static str>,
    dns: Vec<String>,
    ips: Vec<String>,
}

impl Subject {
    fn client(name: &str, common_name: &str, organization: Option<&'static str>) -> Self {
        Self { name: name.into(), common_name: common_name.into(), organization, dns: vec![], ips: vec![] }
    }
}

fn subjects() -> Vec<Subject> {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    let mut all = vec![
        Subject {
            name: "apiserver".into(),
            common_name: "kube-apiserver".into(),
            organization: None,
            dns: names.map(String::from).into(),
            ips: ["127.0.0.1", HOST_IP, API_SERVICE_IP].map(String::from).into(),
        },
        Subject::client("admin", "admin", Some("system:masters")),
        Subject::client("provisioner", "pelorus-dev-provisioner", Some("system:masters")),
        Subject::client("apikubelet", "kube-apiserver-kubelet", Some("system:masters")),
        Subject::client("controllers", "system:kube-controller-manager", None),
        Subject::client("scheduler", "system:kube-scheduler", None),
        Subject::client("proxy", "system:kube-proxy", None),
    ];
    all.extend(Node::all().map(|node| Subject {
        name: node.name(),
        common_name: format!("system:node:{}", node.name()),
        organization: Some("system:nodes"),
        dns: vec![node.name()],
        ips: vec![node.ip()],
    }));
    all
}

/// Makes the PKI and the kubeconfigs unless they are there.
pub(crate) fn ensure(paths: &Paths) -> Result<()> {
    let folder = paths.pki();
    if !folder.exists() {
        let temporary = paths.state.join("pki.tmp");
        let _ = fs::remove_dir_all(&temporary);
        command::folder(&temporary)?;
        generate(&temporary)?;
        fs::rename(&temporary, &folder).map_err(Error::file("rename to", &folder))?;
    }
    command::folder(&paths.state.join("etc"))?;
    for name in ["admin", "provisioner", "controllers", "scheduler", "proxy"]
        .map(String::from)
        .into_iter()
        .chain(Node::all().map(Node::name))
    {
        command::write(&paths.kubeconfig_of(&name), kubeconfig(&folder, &name))?;
    }
    Ok(())
}

fn generate(folder: &Path) -> Result<()> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| Error::Certificate { name, source }
    };
    let ca_key = KeyPair::generate().map_err(failed("ca"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "pelorus-dev-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca = params.self_signed(&ca_key).map_err(failed("ca"))?;
    save(folder, "ca.crt", &ca.pem())?;
    save(folder, "ca.key", &ca_key.serialize_pem())?;
    let issuer = Issuer::new(params, ca_key);

    let tokens = KeyPair::generate().map_err(failed("sa"))?;
    save(folder, "sa.key", &tokens.serialize_pem())?;
    save(folder, "sa.pub", &tokens.public_key_pem())?;

    for subject in subjects() {
        let key = KeyPair::generate().map_err(failed(&subject.name))?;
        let mut params = CertificateParams::new(subject.dns).map_err(failed(&subject.name))?;
        params.subject_alt_names.extend(subject.ips.iter().filter_map(|ip| ip.parse().ok()).map(SanType::IpAddress));
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        if let Some(organization) = subject.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).map_err(failed(&subject.name))?;
        save(folder, &format!("{}.crt", subject.name), &certificate.pem())?;
        save(folder, &format!("{}.key", subject.name), &key.serialize_pem())?;
    }
    Ok(())
}

fn save(folder: &Path, name: &str, pem: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, pem).map_err(Error::file("write", &path))?;
    let mode = if pem.contains("PRIVATE KEY") { 0o600 } else { 0o644 };
    cache::set_mode(&path, mode)
}

fn kubeconfig(pki: &Path, name: &str) -> String {
    let pki = pki.display();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: pelorus-dev
  cluster: {{server: \"https://{HOST_IP}:{API_PORT}\", certificate-authority: {pki}/ca.crt}}
users:
- name: {name}
  user: {{client-certificate: {pki}/{name}.crt, client-key: {pki}/{name}.key}}
contexts:
- name: pelorus-dev
  context: {{cluster: pelorus-dev, user: {name}}}
current-context: pelorus-dev
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_half_written_pki_is_replaced_and_a_whole_one_kept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { state: root.path().into(), cache: root.path().join("cache"), run: root.path().join("run") };
        fs::create_dir_all(root.path().join("pki.tmp")).unwrap();
        fs::write(root.path().join("pki.tmp/ca.crt"), "torn").unwrap();
        ensure(&paths).unwrap();
        let ca = fs::read_to_string(paths.pki().join("ca.crt")).unwrap();
        assert!(ca.contains("BEGIN CERTIFICATE"));
        for subject in subjects() {
            assert!(paths.pki().join(format!("{}.key", subject.name)).exists());
        }
        ensure(&paths).unwrap();
        assert_eq!(fs::read_to_string(paths.pki().join("ca.crt")).unwrap(), ca);
        assert!(fs::read_to_string(paths.kubeconfig()).unwrap().contains("admin.crt"));
    }
}
