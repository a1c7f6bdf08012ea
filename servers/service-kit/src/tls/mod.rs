//! TLS from PEM files: of listeners for clients, and between the nodes of a cluster. Changed files are read again
//! while the server runs ([`Followed`]).

mod error;
mod followed;
mod peers;
mod pem_file;
mod validity;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use error::TlsError;
pub use followed::{CertificateEnd, CertificateFiles, Followed, RELOAD_INTERVAL, ServerConfigs};
pub use peers::{PeerTls, PeerTlsFiles, certificate_carries};
use pem_file::{KeyPair, Named, authorities, client_verifier};
pub use validity::not_after_s;

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
        let pair = KeyPair {
            certificate: Named { path: &self.certificate, flag: "tls-cert" },
            key: Named { path: &self.key, flag: "tls-key" },
        };
        let loaded = pair.load()?;
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|source| pair.unusable(source))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let file = Named { path, flag: "client-ca" };
                builder.with_client_cert_verifier(client_verifier(file, authorities(file)?)?)
            }
        };
        let config = builder.with_single_cert(loaded.chain, loaded.key);
        let mut config = config.map_err(|source| pair.unusable(source))?;
        config.alpn_protocols = protocol.alpn();
        Ok(ServerTls { config: Arc::new(config), not_after_s: loaded.not_after_s })
    }

    /// Reads the files, and again whenever they change, in a task on this runtime. `name` stands in logs and metrics.
    ///
    /// # Errors
    /// As [`TlsFiles::load`]; later errors are logged and counted, and what was read before stays.
    pub fn follow(self, name: &'static str, protocol: Protocol) -> Result<Followed<ServerTls>, TlsError> {
        followed::follow(name, ListenerFiles { files: self, protocol }, RELOAD_INTERVAL)
    }
}

/// The files of a listener for clients, to be followed.
struct ListenerFiles {
    files: TlsFiles,
    protocol: Protocol,
}

impl CertificateFiles for ListenerFiles {
    type Loaded = ServerTls;

    fn paths(&self) -> Vec<PathBuf> {
        let TlsFiles { certificate, key, client_ca } = &self.files;
        [Some(certificate), Some(key), client_ca.as_ref()].into_iter().flatten().cloned().collect()
    }

    fn load(&self) -> Result<ServerTls, TlsError> {
        self.files.load(self.protocol)
    }

    fn not_after_s(loaded: &ServerTls) -> u64 {
        loaded.not_after_s
    }
}

impl ServerConfigs for Followed<ServerTls> {
    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.get().config)
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
