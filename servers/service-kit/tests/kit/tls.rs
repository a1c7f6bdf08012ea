use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use service_kit::admission::AdmissionLimits;
use service_kit::tls::{Protocol, TlsFiles, not_after_s};
use service_kit::{Connections, Listener, ListenerLimits};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::loopback::{Slow, any_port, call, grpc_status, in_time, read_until_closed, spawn_server};

/// A certificate authority that writes PEM files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    directory: TempDir,
}

struct Issued {
    certificate: PathBuf,
    key: PathBuf,
    certificate_pem: String,
    key_pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), &pem).expect("a file");
        Self { issuer: Issuer::new(params, key), pem, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2_049, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let certificate_pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let key_pem = key.serialize_pem();
        let (certificate, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&certificate, &certificate_pem).expect("a file");
        std::fs::write(&key, &key_pem).expect("a file");
        Issued { certificate, key, certificate_pem, key_pem }
    }
}

fn files(server: &Issued, client_ca: Option<PathBuf>) -> TlsFiles {
    TlsFiles { certificate: server.certificate.clone(), key: server.key.clone(), client_ca }
}

async fn listen(files: &TlsFiles, limits: &ListenerLimits) -> Listener {
    let tls = files.load(Protocol::Http2).expect("usable files");
    Listener::bind("tls", any_port(), Protocol::Http2, Some(tls.config), limits).await.expect("a free port")
}

async fn serve(files: &TlsFiles) -> std::net::SocketAddr {
    let limits = ListenerLimits::default();
    let listener = listen(files, &limits).await;
    let address = listener.local_address();
    spawn_server(listener, &limits, &AdmissionLimits::default(), Routes::new(Slow::default()));
    address
}

async fn connect(address: std::net::SocketAddr, ca: &str, identity: Option<&Issued>) -> Option<Channel> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some(issued) = identity {
        tls = tls.identity(Identity::from_pem(&issued.certificate_pem, &issued.key_pem));
    }
    let endpoint =
        Endpoint::from_shared(format!("https://{address}")).expect("a URL").tls_config(tls).expect("usable");
    in_time("connecting", endpoint.connect()).await.ok()
}

/// Whether a call gets through: with TLS 1.3 a refused client certificate shows only after the handshake.
async fn is_served(channel: Option<Channel>) -> bool {
    let Some(channel) = channel else { return false };
    call(&channel, "/test.Slow/Quick", Default::default())
        .await
        .is_ok_and(|answer| grpc_status(&answer) == "0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_trusts_the_authority_is_served_and_another_refuses() {
    let authority = Authority::new("ours");
    let address = serve(&files(&authority.issue("localhost"), None)).await;
    assert!(is_served(connect(address, &authority.pem, None).await).await);
    assert!(!is_served(connect(address, &Authority::new("theirs").pem, None).await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_client_authority_only_its_clients_are_served() {
    let authority = Authority::new("ours");
    let stranger = Authority::new("theirs").issue("client");
    let address = serve(&files(&authority.issue("localhost"), Some(authority.file("ca.pem")))).await;
    let client = authority.issue("client");
    assert!(is_served(connect(address, &authority.pem, Some(&client)).await).await);
    assert!(
        !is_served(connect(address, &authority.pem, Some(&stranger)).await).await,
        "another authority's client"
    );
    assert!(!is_served(connect(address, &authority.pem, None).await).await, "no certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peers_certificate_is_known_to_the_server() {
    let authority = Authority::new("ours");
    let client = authority.issue("client");
    let server = authority.issue("localhost");
    let listener = listen(&files(&server, Some(authority.file("ca.pem"))), &ListenerLimits::default()).await;
    let address = listener.local_address();
    let mut connections: Connections = listener.accept();
    let dialing =
        tokio::spawn(async move { connect(address, &authority.pem, Some(&client)).await.is_some() });
    let connection = in_time("a connection", connections.next()).await.expect("accepting");
    let [certificate] = connection.peer().certificates.as_ref() else { panic!("one certificate") };
    assert!(certificate.windows(6).any(|bytes| bytes == b"client"), "the client's name is in it");
    assert!(connection.peer().remote.ip().is_loopback());
    drop((connection, connections));
    dialing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_to_the_tls_port_gets_nothing_of_the_protocol() {
    let authority = Authority::new("ours");
    let address = serve(&files(&authority.issue("localhost"), None)).await;
    let mut plain = TcpStream::connect(address).await.expect("a connection");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let received = read_until_closed(&mut plain).await;
    // At most a TLS alert record (type 21): no HTTP/2 frame, no status.
    assert!(received.is_empty() || received[0] == 21 && received.len() <= 7, "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handshake_is_cut_at_the_timeout_and_delays_nobody() {
    let authority = Authority::new("ours");
    let limits =
        ListenerLimits { tls_handshake_timeout: Duration::from_secs(1), ..ListenerLimits::default() };
    let listener = listen(&files(&authority.issue("localhost"), None), &limits).await;
    let address = listener.local_address();
    let mut connections = listener.accept();
    let started = std::time::Instant::now();
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    let mut halfway = TcpStream::connect(address).await.expect("a connection");
    halfway.write_all(&[22, 3, 1, 1]).await.expect("the start of a record");
    let ca = authority.pem.clone();
    let dialing = tokio::spawn(async move { connect(address, &ca, None).await });
    let good = in_time("the good client's connection", connections.next()).await;
    assert!(good.is_some());
    assert_eq!(read_until_closed(&mut silent).await, b"");
    assert_eq!(read_until_closed(&mut halfway).await, b"");
    assert!(started.elapsed() >= limits.tls_handshake_timeout);
    dialing.abort();
}

#[test]
fn the_end_of_validity_is_read_in_both_notations() {
    let authority = Authority::new("ours");
    // 2049 is the last year that X.509 writes with two digits.
    let issued = authority.issue("localhost");
    let loaded = files(&issued, None).load(Protocol::Http2).expect("usable");
    assert_eq!(loaded.not_after_s, 2_524_521_600);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    for (year, month, day, seconds) in [
        (2_024, 2, 29, 1_709_164_800),
        (2_000, 3, 1, 951_868_800),
        (2_050, 1, 1, 2_524_608_000),
        (2_100, 3, 1, 4_107_542_400),
    ] {
        params.not_after = date_time_ymd(year, month, day);
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(not_after_s(certificate.der()), Some(seconds), "{year}-{month}-{day}");
    }
    let whole = params.self_signed(&key).expect("a certificate");
    for end in 0..whole.der().len() {
        let cut = whole.der().get(..end).expect("within");
        assert_eq!(not_after_s(cut), None, "cut at {end}");
    }
}

#[test]
fn unusable_files_are_named_with_their_flag() {
    let authority = Authority::new("ours");
    let (server, other) = (authority.issue("localhost"), authority.issue("other"));
    let load = |files: TlsFiles| files.load(Protocol::Http2).expect_err("unusable").to_string();
    let nowhere = PathBuf::from("/nowhere/x.pem");
    let empty = authority.file("empty.pem");
    std::fs::write(&empty, "nothing here\n").expect("a file");
    let broken = authority.file("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").expect("a file");
    let forged = authority.file("forged.pem");
    std::fs::write(&forged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("a file");

    let says = |error: &str, path: &Path, flag: &str| {
        assert!(error.contains(path.to_str().expect("UTF-8")) && error.contains(flag), "{error}");
    };
    let good = || files(&server, None);
    says(&load(TlsFiles { certificate: nowhere.clone(), ..good() }), &nowhere, "--tls-cert");
    says(&load(TlsFiles { key: nowhere.clone(), ..good() }), &nowhere, "--tls-key");
    says(&load(TlsFiles { client_ca: Some(nowhere.clone()), ..good() }), &nowhere, "--client-ca");
    says(&load(TlsFiles { certificate: empty.clone(), ..good() }), &empty, "--tls-cert");
    says(&load(TlsFiles { key: empty.clone(), ..good() }), &empty, "--tls-key");
    says(&load(TlsFiles { client_ca: Some(empty.clone()), ..good() }), &empty, "--client-ca");
    says(&load(TlsFiles { certificate: broken.clone(), ..good() }), &broken, "--tls-cert");
    says(&load(TlsFiles { certificate: forged.clone(), ..good() }), &forged, "--tls-cert");
    says(&load(TlsFiles { client_ca: Some(forged.clone()), ..good() }), &forged, "--client-ca");
    let mismatch = load(TlsFiles { key: other.key.clone(), ..good() });
    says(&mismatch, &other.key, "does not belong");
}

#[test]
fn half_of_a_pair_of_files_is_refused() {
    let path = || Some(PathBuf::from("x"));
    assert_eq!(TlsFiles::from_flags(None, None, None).ok(), Some(None));
    assert!(TlsFiles::from_flags(path(), path(), None).is_ok_and(|files| files.is_some()));
    for (certificate, key, client_ca, missing) in [
        (path(), None, None, "--tls-key"),
        (None, path(), None, "--tls-cert"),
        (None, None, path(), "--tls-cert"),
    ] {
        let error = TlsFiles::from_flags(certificate, key, client_ca).expect_err("half").to_string();
        assert!(error.ends_with(&format!("needs {missing} too")), "{error}");
    }
}
