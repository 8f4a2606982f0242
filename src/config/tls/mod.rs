//! TLS as a user gives it: authorities, own certificate, own key, out of PEM. Parsed once; what is wrong is said with the
//! file it is in.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig};
use webpki::{EndEntityCert, KeyUsage};

/// What both sides of a TLS handshake must offer (RFC 7301).
pub(crate) const ALPN: &[u8] = b"karere/1";
/// A name that nobody has: asking for it lists those that a certificate has.
const NOBODY: &str = "nobody.karere.invalid";

/// What is wrong with certificates or keys. Nothing was started or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} in {place}: {why}")]
    Unreadable {
        /// Authority, certificate or key.
        what: &'static str,
        /// The file.
        place: String,
        /// What the operating system says.
        why: String,
    },
    /// There is no PEM section of the kind that must be there, or it is broken.
    #[error("there is no {what} in PEM in {place}: {why}")]
    NotPem {
        /// Authority, certificate or key.
        what: &'static str,
        /// The file, or `memory`.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// It is PEM, and what is in it cannot be used.
    #[error("the {what} in {place} cannot be used: {why}")]
    Unusable {
        /// Authority, certificate or key.
        what: &'static str,
        /// The file, or `memory`.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key are not of one pair.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// The key's file, or `memory`.
        key: String,
        /// The certificate's file, or `memory`.
        certificate: String,
    },
    /// The own certificate is not valid any more, or not yet.
    #[error("the certificate in {certificate} {when}: renew it, or set the clock right")]
    Expired {
        /// Its file, or `memory`.
        certificate: String,
        /// `expired 3 days ago`, `is valid in 2 hours only`.
        when: String,
    },
    /// Under TLS a member needs a name, because its certificate is bound to it.
    #[error(
        "under TLS a member needs a name: give it one that the certificate in {certificate} is for: {names}"
    )]
    NoName {
        /// The certificate's file, or `memory`.
        certificate: String,
        /// What it is for.
        names: String,
    },
    /// The own certificate is for others.
    #[error("the certificate in {certificate} is for {names}, not for this member's name `{name}`")]
    NameNotCovered {
        /// Its file, or `memory`.
        certificate: String,
        /// The member's name.
        name: String,
        /// What it is for.
        names: String,
    },
    /// The messenger was started without TLS, and a process is all TLS or all plain.
    #[error("this messenger was started without TLS")]
    Plain,
}

/// Mutual TLS 1.3: who is trusted, and what proves who this is. Cheap to clone.
///
/// A certificate must cover the member's name ([`Builder::name`](crate::Builder::name)) in its subject alternative names, as a DNS name or an IP
/// address (RFC 6125, RFC 9525); and, if others dial it by host, that host. `karere certs` makes such for development.
#[derive(Clone)]
pub struct Tls {
    pub(crate) inner: Arc<Ready>,
}

/// Checked, and ready for handshakes.
pub(crate) struct Ready {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// Where the own certificate came from, for errors.
    certificate: String,
}

/// Bytes, and where they came from.
struct Source<'a> {
    what: &'static str,
    place: String,
    pem: &'a [u8],
}

const AUTHORITY: &str = "authority's certificate";
const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";

impl Tls {
    /// Reads three PEM files: the certificates of the authorities that are trusted; the own certificate with whatever leads to an
    /// authority behind it; its key. Blocks for three small files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file it is in.
    pub fn from_files(
        authorities: impl AsRef<Path>,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let read = |what, path: &Path| {
            let place = path.display().to_string();
            match std::fs::read(path) {
                Ok(pem) => Ok((place, pem)),
                Err(error) => Err(TlsError::Unreadable { what, place, why: error.to_string() }),
            }
        };
        let (authorities, chain, key) = (
            read(AUTHORITY, authorities.as_ref())?,
            read(CERTIFICATE, chain.as_ref())?,
            read(KEY, key.as_ref())?,
        );
        let source = |what, (place, pem)| Source { what, place, pem };
        Self::parse(
            &source(AUTHORITY, (authorities.0, &authorities.1)),
            &source(CERTIFICATE, (chain.0, &chain.1)),
            &source(KEY, (key.0, &key.1)),
        )
    }

    /// As [`Tls::from_files`], out of memory.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn from_pem(authorities: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let source = |what, pem| Source { what, place: "memory".to_owned(), pem };
        Self::parse(&source(AUTHORITY, authorities), &source(CERTIFICATE, chain), &source(KEY, key))
    }

    fn parse(authorities: &Source<'_>, chain: &Source<'_>, key: &Source<'_>) -> Result<Self, TlsError> {
        // Given to each configuration; nothing is installed for the process.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in authorities.certificates()? {
            roots.add(authority).map_err(|error| authorities.unusable(&error))?;
        }
        let roots = Arc::new(roots);
        let own = chain.certificates()?;
        let leaf = own.first().ok_or_else(|| chain.unusable(&"it is empty"))?;
        EndEntityCert::try_from(leaf).map_err(|error| chain.unusable(&error))?;
        let secret = key.key()?;
        match CertifiedKey::from_der(own.clone(), secret.clone_key(), &provider) {
            Ok(_) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let (key, certificate) = (key.place.clone(), chain.place.clone());
                return Err(TlsError::KeyMismatch { key, certificate });
            }
            Err(error) => return Err(key.unusable(&error)),
        }
        let client =
            client(&provider, &roots, &own, &secret).map_err(|error| authorities.unusable(&error))?;
        let server = server(&provider, &roots, &own, secret).map_err(|error| authorities.unusable(&error))?;
        let (client, server) = (Arc::new(client), Arc::new(server));
        let certificate = chain.place.clone();
        Ok(Self { inner: Arc::new(Ready { client, server, roots, chain: own, provider, certificate }) })
    }

    /// The names and addresses that the own certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner.chain.first().map(names).unwrap_or_default()
    }

    /// Whether the own certificate is for this name.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.inner.chain.first().is_some_and(|leaf| covers(leaf, name))
    }

    /// Whether a member of this name can run with it, `now` since the Unix epoch.
    pub(crate) fn check(&self, name: &str, now: Duration) -> Result<(), TlsError> {
        self.check_time(now)?;
        let certificate = self.inner.certificate.clone();
        let names = || format!("`{}`", self.names().join("`, `"));
        if name.is_empty() {
            return Err(TlsError::NoName { certificate, names: names() });
        }
        if !self.covers(name) {
            return Err(TlsError::NameNotCovered { certificate, name: name.to_owned(), names: names() });
        }
        Ok(())
    }

    /// Verifies the own certificate as others will: what they would refuse is better told here.
    fn check_time(&self, now: Duration) -> Result<(), TlsError> {
        let ready = &*self.inner;
        let certificate = ready.certificate.clone();
        let Some((leaf, between)) = ready.chain.split_first() else { return Ok(()) };
        let Ok(leaf) = EndEntityCert::try_from(leaf) else { return Ok(()) };
        let algorithms = ready.provider.signature_verification_algorithms.all;
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            let time = UnixTime::since_unix_epoch(now);
            let anchors = &ready.roots.roots;
            match leaf.verify_for_usage(algorithms, anchors, between, time, usage, None, None) {
                Ok(_) => {}
                Err(webpki::Error::CertExpired { time, not_after }) => {
                    let ago = time.as_secs().saturating_sub(not_after.as_secs());
                    return Err(TlsError::Expired {
                        certificate,
                        when: format!("expired {} ago", span(ago)),
                    });
                }
                Err(webpki::Error::CertNotValidYet { time, not_before }) => {
                    let left = not_before.as_secs().saturating_sub(time.as_secs());
                    let when = format!("is not valid before {} from now", span(left));
                    return Err(TlsError::Expired { certificate, when });
                }
                Err(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                    let why = "its extended key usage must allow both, server and client".to_owned();
                    return Err(TlsError::Unusable { what: CERTIFICATE, place: certificate, why });
                }
                // It may be right: while authorities change, others may trust one that is not trusted here.
                Err(error) => {
                    tracing::warn!(%error, "the certificate in {certificate} would be refused here")
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        let authorities = self.inner.roots.len();
        f.debug_struct("Tls").field("names", &self.names()).field("authorities", &authorities).finish()
    }
}

impl Source<'_> {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.pem).collect();
        let found = found.map_err(|error| self.not_pem(&error))?;
        if found.is_empty() { Err(self.not_pem(&pem::Error::NoItemsFound)) } else { Ok(found) }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.pem).map_err(|error| self.not_pem(&error))
    }

    fn not_pem(&self, error: &pem::Error) -> TlsError {
        let why = match error {
            pem::Error::NoItemsFound => "no such section was found".to_owned(),
            other => other.to_string(),
        };
        TlsError::NotPem { what: self.what, place: self.place.clone(), why }
    }

    fn unusable(&self, error: &dyn fmt::Display) -> TlsError {
        TlsError::Unusable { what: self.what, place: self.place.clone(), why: error.to_string() }
    }
}

type Fault = Box<dyn std::error::Error>;

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ClientConfig, Fault> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each handshake shows certificates anew: an authority that was taken away must not live on in tickets.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Fault> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Whether a certificate is for this name or address, by its subject alternative names.
pub(crate) fn covers(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    let certificate = EndEntityCert::try_from(certificate);
    certificate.is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// The names and addresses that a certificate is for, to be shown.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let (Ok(certificate), Ok(nobody)) = (EndEntityCert::try_from(certificate), ServerName::try_from(NOBODY))
    else {
        return Vec::new();
    };
    match certificate.verify_is_valid_for_subject_name(&nobody) {
        Err(webpki::Error::CertNotValidForName(context)) => {
            context.presented.iter().map(|name| plain_name(name)).collect()
        }
        Ok(()) | Err(_) => certificate.valid_dns_names().map(str::to_owned).collect(),
    }
}

/// `DnsName("alpha")` and `IpAddress(127.0.0.1)`, as webpki writes them, without the wrapping.
pub(crate) fn plain_name(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let inner = inner.unwrap_or(presented).trim_matches('"');
    // `0::1` is how webpki writes `::1`.
    inner.parse::<IpAddr>().map_or_else(|_| inner.to_owned(), |address| address.to_string())
}

/// A span of time for people, in its largest whole unit.
pub(crate) fn span(secs: u64) -> String {
    let (count, unit) = match secs {
        0..120 => (secs, "seconds"),
        120..7200 => (secs / 60, "minutes"),
        7200..172_800 => (secs / 3600, "hours"),
        _ => (secs / 86_400, "days"),
    };
    format!("{count} {unit}")
}
