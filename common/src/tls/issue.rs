//! The built-in certificate authority: P-256 keys, one authority a cluster.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::Error;

/// Clocks of two nodes may differ: a certificate is valid from a little before it was made.
const BACKDATE: Duration = Duration::from_secs(600);

/// A certificate authority that can issue.
pub struct Authority {
    certificate: String,
    key: String,
}

/// What a leaf certificate is for.
#[derive(Clone, Debug, Default)]
pub struct LeafRequest {
    /// Subject common name, for people.
    pub common_name: String,
    /// DNS names it is valid for; a leading `*.` is a wildcard of one label.
    pub dns_names: Vec<String>,
    /// Addresses it is valid for.
    pub addresses: Vec<IpAddr>,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// A certificate with its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

fn validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Pelorus");
    name.push(DnType::CommonName, common_name);
    name
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// rcgen's.
    pub fn generate(common_name: &str, lifetime: Duration) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        validity(&mut params, lifetime);
        params.distinguished_name = subject(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Takes up an authority that was made before.
    pub fn from_pem(certificate: String, key: String) -> Self {
        Self { certificate, key }
    }

    /// The authority's certificate as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key as PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Issues a certificate for servers and clients.
    ///
    /// # Errors
    /// A name that no certificate can hold, or an unusable authority.
    pub fn issue(&self, request: &LeafRequest) -> Result<Issued, Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let mut params = CertificateParams::new(request.dns_names.clone())?;
        params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
        validity(&mut params, request.lifetime);
        params.distinguished_name = subject(&request.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Validity of the first certificate in a PEM text: from and until, in seconds since the epoch.
///
/// # Errors
/// No certificate, or one that cannot be parsed.
pub fn not_after(pem: &str) -> Result<(i64, i64), Error> {
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| Error::Parse(error.to_string()))?;
    let certificate = block.parse_x509().map_err(|error| Error::Parse(error.to_string()))?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::names::daemon;
    use crate::tls::{Material, client_config, peer_daemon, server_config};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn issued_certificate_identifies_one_daemon_and_configures_both_sides() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let authority = Authority::generate("test", Duration::from_secs(3600)).unwrap();
        let issued = authority
            .issue(&LeafRequest {
                common_name: "failover-d".into(),
                dns_names: vec![daemon::dns_name(daemon::FAILOVER_D)],
                addresses: vec![IpAddr::from([127, 0, 0, 1])],
                lifetime: Duration::from_secs(600),
            })
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(peer_daemon(Some(&[leaf])), Some(daemon::FAILOVER_D));
        assert_eq!(peer_daemon(None), None);
        let (from, until) = not_after(&issued.certificate).unwrap();
        assert_eq!(until - from, 1200);
        let material =
            Material { certificate: issued.certificate, key: issued.key, authorities: authority.certificate().into() };
        client_config(&material).unwrap();
        server_config(&material).unwrap();
    }
}
