//! TLS for listeners, from PEM files.

mod validity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use validity::not_after_s;

/// Certificates that end within this time are worth a warning at start.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// The files of `--tls-cert`, `--tls-key` and `--client-ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain, its own first.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// Authorities of client certificates; when set, a client without one of theirs is refused.
    pub client_ca: Option<PathBuf>,
}

/// Protocols that a listener offers through ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone: gRPC.
    Http2,
    /// HTTP/1.1 alone: probes.
    Http1,
    /// HTTP/2 and HTTP/1.1: web servers.
    Http,
}

impl Protocol {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// TLS ready to serve.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What a handshake needs.
    pub config: Arc<ServerConfig>,
    /// End of the certificate's validity, in seconds since 1970.
    pub not_after_s: u64,
}

/// What is wrong with the TLS files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate without a key, or the reverse, or client authorities without either.
    #[error("--{given} needs --{missing} too")]
    Incomplete {
        /// The flag that was given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path} (--{flag}): {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds nothing of the kind.
    #[error("{path} (--{flag}) holds no {expected}: expected PEM with such a section")]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A file is not well-formed PEM.
    #[error("{path} (--{flag}) is not well-formed PEM: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The certificate belongs to another key.
    #[error(
        "the key in {key} (--tls-key) does not belong to the first certificate in {certificate} (--tls-cert)"
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate's dates cannot be read.
    #[error("the first certificate in {certificate} (--tls-cert) is not a well-formed X.509 certificate")]
    NotX509 {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The key or certificate is of a kind that TLS cannot use.
    #[error("the certificate in {certificate} (--tls-cert) and its key are not usable: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The client authorities are not usable.
    #[error("the authorities in {path} (--client-ca) are not usable: {source}")]
    ClientAuthorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
}

impl TlsFiles {
    /// The files that the flags name; `None` when none is given.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub fn from_flags(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        match (certificate, key, client_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), client_ca) => Ok(Some(Self { certificate, key, client_ca })),
            (Some(_), None, _) => Err(TlsError::Incomplete { given: "tls-cert", missing: "tls-key" }),
            (None, Some(_), _) => Err(TlsError::Incomplete { given: "tls-key", missing: "tls-cert" }),
            (None, None, Some(_)) => Err(TlsError::Incomplete { given: "client-ca", missing: "tls-cert" }),
        }
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// Every [`TlsError`] that names a file.
    pub fn load(&self, protocol: Protocol) -> Result<ServerTls, TlsError> {
        let chain = certificates(&self.certificate, "tls-cert")?;
        let key = private_key(&self.key)?;
        let not_x509 = || TlsError::NotX509 { certificate: self.certificate.clone() };
        let not_after_s =
            chain.first().and_then(|certificate| not_after_s(certificate)).ok_or_else(not_x509)?;
        warn_about_expiry(&self.certificate, not_after_s);

        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|source| self.unusable(source))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| self.unusable(source))?;
        config.alpn_protocols = protocol.alpn();
        Ok(ServerTls { config: Arc::new(config), not_after_s })
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        let certificate = self.certificate.clone();
        match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { certificate, key: self.key.clone() }
            }
            source => TlsError::Unusable { certificate, source },
        }
    }
}

/// The one cryptography provider, also made the process' default for clients that ask for it.
pub fn provider() -> Arc<CryptoProvider> {
    if CryptoProvider::get_default().is_none() {
        // A race is won by another caller with the same provider.
        let _ = aws_lc_rs::default_provider().install_default();
    }
    CryptoProvider::get_default().map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone)
}

fn client_verifier(path: &Path) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |source| TlsError::ClientAuthorities { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "client-ca")? {
        let added = roots.add(certificate);
        added.map_err(|_| TlsError::Empty {
            path: path.to_owned(),
            flag: "client-ca",
            expected: "certificate of an authority",
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(unusable)
}

fn certificates(path: &Path, flag: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path, flag)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|source| TlsError::Malformed { path: path.to_owned(), flag, source })?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), flag, expected: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let flag = "tls-key";
    let pem = zeroize::Zeroizing::new(read(path, flag)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Empty { path: path.to_owned(), flag, expected: "private key" },
        source => TlsError::Malformed { path: path.to_owned(), flag, source },
    })
}

fn read(path: &Path, flag: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), flag, source })
}

fn warn_about_expiry(path: &Path, not_after_s: u64) {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    let certificate = path.display();
    if not_after_s <= now.as_secs() {
        tracing::error!(%certificate, not_after_s, "the certificate has expired: clients will refuse it");
    } else if not_after_s <= now.saturating_add(EXPIRY_WARNING).as_secs() {
        tracing::warn!(%certificate, not_after_s, "the certificate expires soon: renew it");
    }
}
