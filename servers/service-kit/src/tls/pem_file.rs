//! Certificates and keys in PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, not_after_s, provider};

/// Certificates that end within this time are worth a warning when they are read.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// A file with the flag that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub path: &'a Path,
    pub flag: &'static str,
}

/// A certificate chain with the key of its first certificate.
pub(super) struct KeyPair<'a> {
    pub certificate: Named<'a>,
    pub key: Named<'a>,
}

/// What a [`KeyPair`]'s files hold.
pub(super) struct LoadedKeyPair {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub not_after_s: u64,
}

impl KeyPair<'_> {
    pub fn load(&self) -> Result<LoadedKeyPair, TlsError> {
        let chain = certificates(self.certificate)?;
        let key = private_key(self.key)?;
        let Named { path, flag } = self.certificate;
        let not_x509 = || TlsError::NotX509 { certificate: path.to_owned(), flag };
        let not_after_s =
            chain.first().and_then(|certificate| not_after_s(certificate)).ok_or_else(not_x509)?;
        warn_about_expiry(path, not_after_s);
        Ok(LoadedKeyPair { chain, key, not_after_s })
    }

    /// What rustls says of the pair, with the files' names.
    pub fn unusable(&self, source: rustls::Error) -> TlsError {
        let Named { path, flag } = self.certificate;
        let certificate = path.to_owned();
        match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let key = self.key.path.to_owned();
                TlsError::KeyMismatch { certificate, flag, key, key_flag: self.key.flag }
            }
            source => TlsError::Unusable { certificate, flag, source },
        }
    }
}

/// The authorities in a file.
pub(super) fn authorities(file: Named<'_>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let expected = "certificate of an authority";
        let added = roots.add(certificate);
        added.map_err(|_| TlsError::Empty { path: file.path.to_owned(), flag: file.flag, expected })?;
    }
    Ok(Arc::new(roots))
}

/// Accepts clients with a certificate of one of the authorities, and no others.
pub(super) fn client_verifier(
    file: Named<'_>,
    roots: Arc<RootCertStore>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = || PathBuf::from(file.path);
    let unusable = |source| TlsError::Authorities { path: path(), flag: file.flag, source };
    WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(unusable)
}

fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let Named { path, flag } = file;
    let pem = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|source| TlsError::Malformed { path: path.to_owned(), flag, source })?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), flag, expected: "certificate" });
    }
    Ok(found)
}

fn private_key(file: Named<'_>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let Named { path, flag } = file;
    let pem = zeroize::Zeroizing::new(read(file)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Empty { path: path.to_owned(), flag, expected: "private key" },
        source => TlsError::Malformed { path: path.to_owned(), flag, source },
    })
}

fn read(Named { path, flag }: Named<'_>) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), flag, source })
}

fn warn_about_expiry(path: &Path, not_after_s: u64) {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    let certificate = path.display();
    if not_after_s <= now.as_secs() {
        tracing::error!(%certificate, not_after_s, "the certificate has expired: it will be refused");
    } else if not_after_s <= now.saturating_add(EXPIRY_WARNING).as_secs() {
        tracing::warn!(%certificate, not_after_s, "the certificate expires soon: renew it");
    }
}
