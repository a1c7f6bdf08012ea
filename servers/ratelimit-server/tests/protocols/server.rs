//! Both servers on loopback, with rules of tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ratelimit_core::rules::{Domain, Node, NodeValue, Rule, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, Limit, Rate, TableSize};
use ratelimit_rules::Engine;
use ratelimit_server::LimitService;
use ratelimit_server::access::{Access, AccessToken};
use ratelimit_server::http::HttpServer;
use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use ratelimit_server::rls::{RlsServer, RlsService};
use service_kit::admission::AdmissionLimits;
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits, Phase, Readiness, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tower_layers::client_ip::{ClientIpPolicy, ForwardingHeader, TrustedNetworks};
use tower_layers::headers::HeaderStyle;
use tower_layers::rate_limit::SystemClock;

const DEADLINE: Duration = Duration::from_secs(20);

/// `web`: 3 per minute for each `client_ip`, 100 per minute in shadow for each `trial`, nothing for `banned`, no end for
/// `friend`, 2 at a time for `worker`, and for `client_ip` behind `path=/login` one per hour.
pub fn rules() -> RuleSet {
    let minute = |burst| Rule::new(Limit::gcra(Rate::per_minute(3), burst).expect("a limit"));
    let hour = Rule::new(Limit::fixed_window(1, Duration::from_secs(3_600)).expect("a limit"));
    let workers = Rule::new(Limit::concurrency(2, Duration::from_secs(60)).expect("a limit"));
    let any = |key: &str, rule| Node::new(key, NodeValue::Any).with_rule(rule);
    let login = Node::new("path", NodeValue::Exact("/login".to_owned()));
    let nodes = vec![
        any("client_ip", minute(3).named("per-client")),
        any("trial", minute(1).named("trial").enforced(Enforcement::Shadow)),
        any("banned", Rule::new(Limit::DenyAll)),
        any("friend", Rule::new(Limit::Unlimited)),
        any("worker", workers),
        login.with_node(any("client_ip", hour.named("login"))),
    ];
    RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules")
}

pub struct TestServers {
    pub http: SocketAddr,
    pub rls: SocketAddr,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

#[derive(Default)]
pub struct Setup {
    pub check_token: Option<&'static str>,
    pub admin_token: Option<&'static str>,
    pub trusts_loopback: bool,
}

impl TestServers {
    pub async fn start(setup: Setup) -> Self {
        let engine =
            Engine::new(rules(), TableSize::for_keys(10_000), HashSecret([7; 16])).expect("an engine");
        let clock = Arc::new(SystemClock::new());
        let limits = LimitService::new(Arc::new(engine.into()), clock, HeaderStyle::DRAFT10_AND_DRAFT03);
        let token = |text: Option<&str>| text.map(|text| AccessToken::new(Secret::new(text.to_owned())));
        let access = Access { check: token(setup.check_token), admin: token(setup.admin_token) };
        let client_ip = if setup.trusts_loopback {
            let trusted = TrustedNetworks::new(["127.0.0.1/32".parse().expect("a network")]).expect("a list");
            ClientIpPolicy::behind(ForwardingHeader::XForwardedFor, trusted)
        } else {
            ClientIpPolicy::peer_only()
        };
        let listener_limits = ListenerLimits::default();
        let bind = async |name, protocol| {
            let loopback = "127.0.0.1:0".parse().expect("an address");
            Listener::bind(name, loopback, protocol, None, &ListenerLimits::default()).await.expect("a port")
        };
        let (http, rls) = (bind("http", Protocol::Http1).await, bind("rls", Protocol::Http2).await);
        let addresses = (http.local_address(), rls.local_address());
        let (stop, stopped) = watch::channel(false);
        let stopping = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let readiness = Readiness::starting();
        readiness.advance(Phase::Ready);
        let service = RlsService::new(limits.clone(), access.clone());
        let rls_server = RlsServer::new(service, listener_limits.clone(), AdmissionLimits::default());
        let http_server = HttpServer::new(limits, access, client_ip, listener_limits);
        let until = stopping(stopped.clone());
        let gone = stopping(stopped);
        let serving = vec![
            tokio::spawn(async move { http_server.serve(http, until).await }),
            tokio::spawn(async move { rls_server.serve(rls, readiness, gone).await.expect("described") }),
        ];
        Self { http: addresses.0, rls: addresses.1, stop, serving }
    }

    pub async fn open() -> Self {
        Self::start(Setup::default()).await
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        for serving in self.serving {
            timeout(DEADLINE, serving).await.expect("in time").expect("an orderly end");
        }
    }

    pub async fn rls(&self) -> RateLimitServiceClient<Channel> {
        let url = format!("http://{}", self.rls);
        timeout(DEADLINE, RateLimitServiceClient::connect(url)).await.expect("in time").expect("a connection")
    }

    /// One request over HTTP/1.1.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> HttpAnswer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await.expect("a connection");
            // A server that refuses early may not read all of it.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).expect("text")
        };
        HttpAnswer::read(&timeout(DEADLINE, exchange).await.expect("in time"))
    }

    pub async fn get(&self, path: &str) -> HttpAnswer {
        self.call("GET", path, &[], "").await
    }

    pub async fn check(&self, body: &str) -> HttpAnswer {
        self.call("POST", "/v1/check", &[], body).await
    }
}

#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl HttpAnswer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self {
            status: status.parse().expect("a number"),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}
