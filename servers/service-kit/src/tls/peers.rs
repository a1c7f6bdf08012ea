//! TLS between the nodes of a cluster: both sides show a certificate of the same authority, and a certificate stands
//! for the name of its node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};

use super::followed::{self, CertificateFiles, Followed, ServerConfigs};
use super::pem_file::{KeyPair, Named, authorities, client_verifier};
use super::{Protocol, TlsError, provider};

const CERTIFICATE_FLAG: &str = "peer-tls-cert";
const KEY_FLAG: &str = "peer-tls-key";
const AUTHORITIES_FLAG: &str = "peer-ca";

/// The files of `--peer-tls-cert`, `--peer-tls-key` and `--peer-ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsFiles {
    /// The node's certificate chain, its own first: shown to peers that call and to peers that are called.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// The cluster's authorities: of the certificates of all nodes.
    pub authorities: PathBuf,
    /// The node's name, which its own certificate must carry; `None` while it is not known.
    pub name: Option<String>,
}

/// TLS to and from peers.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// What a handshake with a calling peer needs.
    pub server: Arc<ServerConfig>,
    /// End of the certificate's validity, in seconds since 1970.
    pub not_after_s: u64,
    /// For called peers, without the name that they must prove.
    client: ClientConfig,
    roots: Arc<RootCertStore>,
}

impl PeerTlsFiles {
    /// The files that the flags name; `None` when none is given.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub fn from_flags(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        authorities: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        let incomplete = |given, missing| Err(TlsError::Incomplete { given, missing });
        match (certificate, key, authorities) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authorities)) => {
                Ok(Some(Self { certificate, key, authorities, name: None }))
            }
            (Some(_), None, _) => incomplete(CERTIFICATE_FLAG, KEY_FLAG),
            (Some(_), Some(_), None) => incomplete(CERTIFICATE_FLAG, AUTHORITIES_FLAG),
            (None, Some(_), _) => incomplete(KEY_FLAG, CERTIFICATE_FLAG),
            (None, None, Some(_)) => incomplete(AUTHORITIES_FLAG, CERTIFICATE_FLAG),
        }
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// Every [`TlsError`] that names a file.
    pub fn load(&self) -> Result<PeerTls, TlsError> {
        let pair = KeyPair {
            certificate: Named { path: &self.certificate, flag: CERTIFICATE_FLAG },
            key: Named { path: &self.key, flag: KEY_FLAG },
        };
        let loaded = pair.load()?;
        self.check_name(loaded.chain.first())?;
        let file = Named { path: &self.authorities, flag: AUTHORITIES_FLAG };
        let roots = authorities(file)?;
        let unusable = |source| pair.unusable(source);

        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let verifier = client_verifier(file, Arc::clone(&roots))?;
        let builder = builder.map_err(unusable)?.with_client_cert_verifier(verifier);
        let server = builder.with_single_cert(loaded.chain.clone(), loaded.key.clone_key());
        let mut server = server.map_err(unusable)?;
        server.alpn_protocols = Protocol::Http2.alpn();
        // A resumed session would not be checked against authorities that have changed.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(&roots), None));
        let builder = builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(verifier);
        let client = builder.with_client_auth_cert(loaded.chain, loaded.key);
        let mut client = client.map_err(unusable)?;
        client.alpn_protocols = Protocol::Http2.alpn();
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(PeerTls { server: Arc::new(server), not_after_s: loaded.not_after_s, client, roots })
    }

    /// Reads the files, and again whenever they change: looked at every `interval`, in a task on this runtime.
    ///
    /// # Errors
    /// As [`PeerTlsFiles::load`]; later errors are logged and counted, and what was read before stays.
    pub fn follow(self, interval: Duration) -> Result<Followed<PeerTls>, TlsError> {
        followed::follow("peer", self, interval)
    }

    fn check_name(&self, certificate: Option<&CertificateDer<'static>>) -> Result<(), TlsError> {
        let (Some(name), Some(certificate)) = (&self.name, certificate) else { return Ok(()) };
        if certificate_carries(certificate, name) {
            return Ok(());
        }
        let (certificate, flag) = (self.certificate.clone(), CERTIFICATE_FLAG);
        Err(TlsError::OtherName { certificate, flag, name: name.clone() })
    }
}

impl CertificateFiles for PeerTlsFiles {
    type Loaded = PeerTls;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone(), self.authorities.clone()]
    }

    fn load(&self) -> Result<PeerTls, TlsError> {
        PeerTlsFiles::load(self)
    }

    fn not_after_s(loaded: &PeerTls) -> u64 {
        loaded.not_after_s
    }
}

impl ServerConfigs for Followed<PeerTls> {
    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.get().server)
    }
}

impl PeerTls {
    /// What a handshake with a called peer needs. With `name`, its certificate must carry that DNS name; without, any
    /// certificate of the authorities is good.
    pub fn client(&self, name: Option<DnsName<'static>>) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        let verifier = PeerVerifier::new(Arc::clone(&self.roots), name.map(ServerName::DnsName));
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }
}

/// Whether a certificate, whose chain has been verified, carries `name` as a DNS name (RFC 9525).
pub fn certificate_carries(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = DnsName::try_from(name) else { return false };
    ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, &ServerName::DnsName(name)))
        .is_ok()
}

/// Checks the certificate of a called peer. The address is none of its names: what it must prove comes from the caller.
#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    name: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    fn new(roots: Arc<RootCertStore>, name: Option<ServerName<'static>>) -> Self {
        Self { roots, name, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if let Some(name) = &self.name {
            verify_server_name(&certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.3 alone is offered.
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
