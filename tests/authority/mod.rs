//! Certificates for tests: an authority, and what it issues.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use karere::Tls;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub(crate) const ALPN: &[u8] = b"karere/1";

pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self::called(&format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// Two of the same name are still two.
    pub(crate) fn called(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// For these names or addresses, valid now.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 4000)
    }

    /// Valid until the beginning of a year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { chain, key: key.serialize_pem() }
    }

    /// The settings of a member of this name at 127.0.0.1.
    pub(crate) fn member(&self, name: &str) -> Tls {
        self.issue(&[name, "127.0.0.1"]).tls(&[self])
    }
}

impl Issued {
    /// The settings of a member who shows this and trusts these.
    pub(crate) fn tls(&self, trusted: &[&Authority]) -> Tls {
        let trusted: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        Tls::from_pem(trusted.as_bytes(), self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }

    /// A server that is no karere, and asks nobody for a certificate.
    pub(crate) fn raw_server(&self, alpn: &[&[u8]]) -> ServerConfig {
        let (chain, key) = self.parts();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// A client that is no karere, with a certificate or without.
pub(crate) fn raw_client(trusts: &Authority, shows: Option<&Issued>, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(roots);
    let mut config = match shows.map(Issued::parts) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}
