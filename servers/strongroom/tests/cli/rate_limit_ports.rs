//! The ports of a rate limit server as a whole: TLS on all of them, and their end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::every_setting::{Certificates, certificates};
use crate::harness::{DEADLINE, Home, Server, eventually, runtime};
use crate::rate_limits::{RULES, url};

/// Asks for nothing, in a message of gRPC: answered with `INVALID_ARGUMENT` by whoever reads it.
pub const EMPTY_MESSAGE: &[u8] = &[0, 0, 0, 0, 0];
pub const INVALID_ARGUMENT: &str = "3";

type Body = BoxBody<Bytes, std::convert::Infallible>;
type Call = JoinHandle<Result<String, String>>;

/// A message that is there at once.
pub fn whole(message: &'static [u8]) -> Body {
    Full::new(Bytes::from_static(message)).boxed()
}

/// A message that comes when the sender says so, and not before.
pub fn held() -> (oneshot::Sender<()>, Body) {
    let (send, come) = oneshot::channel::<()>();
    let message = async move {
        match come.await {
            Ok(()) => Ok(Frame::data(Bytes::from_static(EMPTY_MESSAGE))),
            Err(_) => std::future::pending().await,
        }
    };
    (send, StreamBody::new(stream::once(message)).boxed())
}

/// The status of gRPC that a call of Envoy's protocol ends with, or what went wrong before there was one.
pub async fn rls_call(address: String, header: Option<String>, body: Body) -> Result<String, String> {
    let stream = tokio::net::TcpStream::connect(address.as_str()).await.map_err(|error| error.to_string())?;
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let path = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
    let mut request = Request::post(format!("http://{address}/{path}"));
    request = request.header("content-type", "application/grpc").header("te", "trailers");
    if let Some(header) = header {
        request = request.header("x-long", header);
    }
    let request = request.body(body).expect("a request");
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = |headers: &HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_owned());
    if let Some(status) = status(answer.headers()) {
        return Ok(status);
    }
    let http_status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    body.trailers().and_then(status).ok_or_else(|| format!("{http_status} without grpc-status"))
}

/// Where Envoy's protocol is.
pub fn rls(server: &Server) -> String {
    let url = server.ready["rls_url"].as_str().expect("a URL");
    url.rsplit('/').next().expect("an address").to_owned()
}

/// A call that a server of one call at a time works on until its message is sent: seen by others being shed meanwhile.
/// `None` when nobody is shed for so long.
pub fn call_worked_on(
    runtime: &Runtime,
    server: &Server,
    longest: Duration,
) -> Option<(oneshot::Sender<()>, Call)> {
    let start = || {
        let (send, message) = held();
        (send, runtime.spawn(rls_call(rls(server), None, message)))
    };
    let started = Instant::now();
    let (mut send, mut call) = start();
    // Twice: the one before may be what the first was shed for.
    let mut shed = 0;
    while started.elapsed() < longest {
        let other = runtime.block_on(rls_call(rls(server), None, whole(EMPTY_MESSAGE)));
        shed = if other.as_deref() == Ok(INVALID_ARGUMENT) { 0 } else { shed + 1 };
        std::thread::sleep(Duration::from_millis(20));
        if call.is_finished() {
            // It came while another was worked on, and was shed itself.
            (send, call) = start();
            shed = 0;
        } else if shed == 2 {
            return Some((send, call));
        }
    }
    call.abort();
    None
}

/// `ratelimit serve` of [`RULES`] with a certificate; the path of its authority.
fn serve_tls(home: &Home, flags: &[&str]) -> (Server, String) {
    let Certificates { ca, certificate, key } = certificates();
    let files = [("ca.pem", ca), ("cert.pem", certificate), ("key.pem", key)];
    let [ca, certificate, key] = files.map(|(name, pem)| home.write(name, pem));
    let rules = home.write("rules.yaml", RULES);
    let mut arguments = vec!["ratelimit", "serve", "--rules", &rules];
    for flag in ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    arguments.extend(["--tls-cert", &certificate, "--tls-key", &key]);
    arguments.extend(flags);
    (Server::start(home, &arguments), ca)
}

#[test]
fn every_command_speaks_https_to_a_server_whose_authority_is_named() {
    let home = Home::new();
    let token = home.write("admin.token", "of-admins\n");
    let (server, ca) = serve_tls(&home, &["--admin-token-file", &token]);
    assert!(url(&server).starts_with("https://127.0.0.1:"), "{}", url(&server));
    let there = ["--url", url(&server), "--tls-ca", &ca, "--token-file", &token];
    let key = ["shop", "client_ip=192.0.2.1"];
    let ask = |command: &[&str]| home.json(&[&["ratelimit"], command, &there].concat());
    assert_eq!(ask(&[["check"].as_slice(), &key].concat())["remaining"], 2);
    assert_eq!(ask(&["rules", "list"])["rules"][0]["allowed"], 1);
    assert_eq!(ask(&["top"])["top"], serde_json::json!([]));
    assert_eq!(ask(&[["reset"].as_slice(), &key].concat())["reset"], 1);
    assert_eq!(ask(&[["check"].as_slice(), &key].concat())["remaining"], 2);

    // Every mistake with TLS is named.
    let plain = url(&server).replace("https://", "http://");
    let other = home.write("other.pem", certificates().ca);
    let check = ["ratelimit", "check", "shop", "client_ip=192.0.2.1"];
    let hint = |code: i32, flags: &[&str]| {
        let refusal = home.refusal(code, &[check.as_slice(), flags].concat());
        format!("{} {}", refusal["message"], refusal["hint"])
    };
    assert!(hint(7, &["--url", &plain]).contains("https://"));
    assert!(hint(2, &["--url", url(&server)]).contains("--tls-ca"));
    assert!(hint(7, &["--url", url(&server), "--tls-ca", &other]).contains("--tls-ca"));
    let renamed = ["--url", url(&server), "--tls-ca", &ca, "--tls-server-name", "elsewhere.example"];
    assert!(hint(7, &renamed).contains("--tls-server-name"));
    let not_a_certificate = hint(2, &["--url", url(&server), "--tls-ca", &token]);
    assert!(not_a_certificate.contains("--tls-ca"), "{not_a_certificate}");
    server.stop();
}

#[test]
fn redis_cli_is_answered_over_tls() {
    let Some(program) = crate::judges::program("redis-cli") else { return };
    let home = Home::new();
    let (server, ca) = serve_tls(&home, &[]);
    let port = crate::judges::address(&server, "resp_addr").port().to_string();
    let ask = |flags: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["-p", &port]).args(flags).args(["CL.THROTTLE", "user:1", "1", "1", "3600"]);
        let output = command.output().expect("it runs");
        String::from_utf8(output.stdout).expect("text").replace('\n', " ")
    };
    let secured = ["--tls", "--cacert", ca.as_str()];
    assert!(ask(&secured).starts_with("0 2 1 -1 "));
    assert!(ask(&secured).starts_with("0 2 0 -1 "));
    assert!(ask(&secured).starts_with("1 2 0 "));
    let other = home.write("other.pem", certificates().ca);
    assert_eq!(ask(&["--tls", "--cacert", &other]), "", "the certificate is of another authority");
    server.stop();
}

#[test]
fn sigterm_finishes_what_is_under_way_on_every_port_and_takes_nothing_new() {
    let home = Home::new();
    let rules = home.write("rules.yaml", RULES);
    let mut arguments = vec!["ratelimit", "serve", "--rules", &rules];
    for flag in ["--rls-listen", "--http-listen", "--resp-listen", "--metrics"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    // One call at a time: a second one is shed while the first is worked on.
    arguments.extend(["--concurrent", "1"]);
    let server = Server::start(&home, &arguments);
    let addresses = ["ratelimit_url", "resp_addr"].map(|name| crate::judges::address(&server, name));

    // A request whose body is half there, a call whose message has not come, a connection that waits.
    let body = r#"{"domain":"shop","descriptors":[{"entries":[{"key":"client_ip","value":"192.0.2.1"}]}]}"#;
    let (first, rest) = body.split_at(20);
    let mut http = TcpStream::connect(addresses[0]).expect("it listens");
    http.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let expecting = format!("expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    http.write_all(format!("POST /v1/check HTTP/1.1\r\nhost: test\r\n{expecting}").as_bytes()).expect("sent");
    const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = [0; GO_ON.len()];
    http.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, GO_ON);
    http.write_all(first.as_bytes()).expect("sent");
    let runtime = runtime();
    let mut resp = TcpStream::connect(addresses[1]).expect("it listens");
    resp.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut answer = [0; 7];
    resp.write_all(b"PING\r\n").expect("sent");
    resp.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
    let (send, call) = call_worked_on(&runtime, &server, DEADLINE).expect("the call is worked on");

    server.signal("TERM");
    eventually("nobody is taken any more", || {
        addresses.iter().all(|address| TcpStream::connect(address).is_err()).then_some(())
    });
    let mut end = Vec::new();
    resp.read_to_end(&mut end).expect("the connection ends");
    assert_eq!(end, b"");
    http.write_all(rest.as_bytes()).expect("sent");
    let mut answer = String::new();
    http.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""remaining":2"#), "{answer}");
    send.send(()).expect("the call waits");
    let status = runtime.block_on(async { tokio::time::timeout(DEADLINE, call).await });
    assert_eq!(status.expect("in time").expect("no panic").as_deref(), Ok(INVALID_ARGUMENT));
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    runtime.shutdown_timeout(Duration::from_secs(1));
}
