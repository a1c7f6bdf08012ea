//! One request on a connection of its own, with TLS when the URL says https.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use ledger_client::TlsOptions;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::failure::{Failure, with_causes};

/// Most bytes of an answer that are read: 1,024 keys of 4 KiB, each byte as JSON writes the longest.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Where a request goes.
pub(super) struct Target {
    host: String,
    port: u16,
    /// Set with https.
    tls: Option<Tls>,
}

struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Target {
    /// The server of a URL; `None` when the URL has no host, or another scheme.
    pub(super) fn of(uri: &Uri, tls: &TlsOptions) -> Result<Option<Self>, Failure> {
        let Some(host) = uri.host() else { return Ok(None) };
        // An IPv6 address stands in brackets in a URL, and nowhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, usual_port) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (None, 80),
            Some(scheme) if *scheme == Scheme::HTTPS => (Some(Tls::to(&host, tls)?), 443),
            _ => return Ok(None),
        };
        Ok(Some(Self { host, port: uri.port_u16().unwrap_or(usual_port), tls }))
    }

    /// Sends the request and reads the answer.
    pub(super) async fn exchange(self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        match self.tls {
            None => exchange(stream, request).await,
            Some(Tls { config, server_name }) => {
                let secured = TlsConnector::from(config).connect(server_name, stream).await;
                exchange(secured.map_err(|error| with_causes(&error))?, request).await
            }
        }
    }
}

impl Tls {
    fn to(host: &str, options: &TlsOptions) -> Result<Self, Failure> {
        let name = options.server_name.as_deref().unwrap_or(host).to_owned();
        let server_name = ServerName::try_from(name);
        let server_name =
            server_name.map_err(|error| Failure::usage(format!("the server's name: {error}")))?;
        Ok(Self { config: Arc::new(client_config(options)?), server_name })
    }
}

/// There is no default trust store: as with the ledger, the authority is named.
fn client_config(options: &TlsOptions) -> Result<ClientConfig, Failure> {
    let Some(ca) = &options.ca_pem else {
        let what = "https:// needs the certificate authority of the server: name its PEM file (--tls-ca)";
        return Err(Failure::usage(what));
    };
    let mut roots = RootCertStore::empty();
    for authority in chain(ca, "--tls-ca")? {
        roots.add(authority).map_err(|error| unusable("--tls-ca", &error))?;
    }
    let builder = ClientConfig::builder_with_provider(service_kit::tls::provider());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| unusable("--tls-ca", &error))?.with_root_certificates(roots);
    match (&options.client_certificate_pem, &options.client_key_pem) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
            let key = key.map_err(|error| unusable("--tls-key", &error))?;
            let config = builder.with_client_auth_cert(chain(certificate, "--tls-cert")?, key);
            config.map_err(|error| unusable("--tls-cert", &error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn chain(pem: &str, flag: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| unusable(flag, &error))?;
    if chain.is_empty() {
        return Err(Failure::usage(format!("the file of {flag} has no certificate in it")));
    }
    Ok(chain)
}

fn unusable(flag: &str, error: &dyn std::error::Error) -> Failure {
    Failure::usage(format!("the file of {flag} cannot be used: {error}"))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let host = HeaderValue::try_from(host).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| with_causes(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| with_causes(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    // The connection moves while the answer is waited for; what it fails with, the answer fails with.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
