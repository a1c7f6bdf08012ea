//! TLS, client certificates, health, reflection, the end.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use service_kit::Phase;
use service_kit::tls::{Protocol, ServerTls, TlsFiles};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Clients, Setup, TestServer, refused};

/// An authority, with what it signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn server_tls(authority: &Authority, client_ca: Option<&Authority>) -> (ServerTls, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = authority.sign("localhost");
    let files = TlsFiles {
        certificate: file("server.pem", &certificate),
        key: file("server.key", &key),
        client_ca: client_ca.map(|authority| file("clients.pem", &authority.pem)),
    };
    (files.load(Protocol::Http2).unwrap(), directory)
}

async fn connect(
    server: &TestServer,
    authority: &Authority,
    identity: Option<(String, String)>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem)).domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_serves_clients_that_trust_the_authority_and_no_plaintext() {
    let authority = Authority::new();
    let (tls, _files) = server_tls(&authority, None);
    let server = TestServer::start_with(Setup { tls: Some(tls), ..Setup::default() }).await;
    let token = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    let channel = connect(&server, &authority, None).await.unwrap();
    Clients::new(channel, Some(token.trim_end())).create("acme", "main").await;
    assert!(connect(&server, &Authority::new(), None).await.is_err(), "an unknown authority");
    let plain = server.endpoint().connect().await;
    if let Ok(channel) = plain {
        let call = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        assert!(call.is_err(), "plaintext");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_authority_only_its_clients_get_through_and_still_need_a_token() {
    let (authority, clients_authority) = (Authority::new(), Authority::new());
    let (tls, _files) = server_tls(&authority, Some(&clients_authority));
    let server = TestServer::start_with(Setup { tls: Some(tls), ..Setup::default() }).await;
    let token = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    let identity = clients_authority.sign("client");
    let channel = connect(&server, &authority, Some(identity)).await.unwrap();
    Clients::new(channel.clone(), Some(token.trim_end())).create("acme", "main").await;
    let stranger =
        Clients::new(channel, None).admin.get_node_info(ledger_proto::v1::GetNodeInfoRequest {}).await;
    refused(stranger, Code::Unauthenticated, "CREDENTIAL_MISSING");
    for identity in [None, Some(Authority::new().sign("client"))] {
        // With TLS 1.3 the refusal may arrive after the client's half of the handshake.
        if let Ok(channel) = connect(&server, &authority, identity).await {
            let call = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            assert!(call.is_err(), "a client without a certificate of the authority");
        }
    }
    server.stop().await;
}

async fn health(server: &TestServer, service: &str) -> Result<ServingStatus, tonic::Status> {
    let channel = server.endpoint().connect().await.unwrap();
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).check(request).await.map(|answer| answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_tells_of_the_drain() {
    let server = TestServer::start().await;
    let services = [
        "",
        "strongroom.ledger.v1.ReadService",
        "strongroom.ledger.v1.WriteService",
        "strongroom.ledger.v1.AdminService",
    ];
    for service in services {
        assert_eq!(health(&server, service).await.unwrap(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(health(&server, "no.such.Service").await.unwrap_err().code(), Code::NotFound);
    let channel = server.endpoint().connect().await.unwrap();
    let mut watched =
        HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.readiness.advance(Phase::Draining);
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    for service in services {
        assert_eq!(health(&server, service).await.unwrap(), ServingStatus::NotServing, "{service}");
    }
    server.readiness.advance(Phase::ShuttingDown);
    assert_eq!(watched.message().await.unwrap(), None, "a watch ends, or it would hold up the end");
    server.stop().await;
}

const SERVICES: [&str; 4] = [
    "grpc.health.v1.Health",
    "strongroom.ledger.v1.AdminService",
    "strongroom.ledger.v1.ReadService",
    "strongroom.ledger.v1.WriteService",
];

async fn reflected_v1(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let list = MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
    match answers.message().await?.unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

async fn reflected_v1alpha(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let list = MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
    match answers.message().await?.unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions_on_loopback() {
    let server = TestServer::start().await;
    let channel = server.endpoint().connect().await.unwrap();
    let lists = [reflected_v1(channel.clone()).await.unwrap(), reflected_v1alpha(channel).await.unwrap()];
    for list in lists {
        for service in SERVICES {
            assert!(list.iter().any(|name| name == service), "{service} in {list:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_reflection_needs_a_token() {
    let address = "0.0.0.0:0".parse().unwrap();
    let server = TestServer::start_with(Setup { address: Some(address), ..Setup::default() }).await;
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.address.port())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    for refused in [reflected_v1(channel.clone()).await, reflected_v1alpha(channel.clone()).await] {
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    server.stop().await;
}
