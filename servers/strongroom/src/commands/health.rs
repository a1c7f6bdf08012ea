//! `strongroom health`

use std::time::Duration;

use clap::Args;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ledger_client::tls_hint;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::discovery::TlsArgs;
use crate::failure::{Exit, Failure, with_causes};
use crate::output::Output;
use crate::ttl;

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 * 1_048_576;
/// Most characters of an answer that are shown: probes say one line, a page of metrics many.
const SHOWN_CHARACTERS_MAX: usize = 1_500;

/// Ask a server whether it is ready. Exit code 7 when it is not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom health http://127.0.0.1:9090          the probes: /readyz\n  \
    strongroom health http://127.0.0.1:9090/livez    another probe\n  \
    strongroom health http://127.0.0.1:50051 --grpc  the ledger: grpc.health.v1\n  \
    strongroom health https://ledger.example:50051 --grpc --tls-ca ca.pem")]
pub struct Health {
    /// URL of the server's probes (http only: they have no TLS), or with --grpc of a gRPC service.
    url: Uri,
    /// Ask with grpc.health.v1.
    #[arg(long)]
    grpc: bool,
    /// Longest time to wait.
    #[arg(long, default_value = "5s", value_parser = ttl::parse, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
}

impl Health {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let known = match self.url.scheme_str() {
            Some("http") => true,
            Some("https") => self.grpc,
            _ => false,
        };
        if !known || self.url.host().is_none() {
            let form = if self.grpc { "http://HOST:PORT or https://HOST:PORT" } else { "http://HOST:PORT" };
            return Err(Failure::usage(format!("{} is not a URL of the form {form}", self.url)));
        }
        let ask = async {
            if self.grpc { ask_grpc(&self.url, &self.tls).await } else { ask_probe(&self.url).await }
        };
        let late = || unavailable(&self.url, &format!("no answer within {} ms", self.timeout.as_millis()));
        let (ready, said) = tokio::time::timeout(self.timeout, ask).await.map_err(|_| late())??;
        if !ready {
            return Err(Failure::new(
                Exit::Unavailable,
                "NOT_READY",
                format!("{} is not ready: {said}", self.url),
            ));
        }
        let document = json!({ "url": self.url.to_string(), "ready": true, "answer": said });
        output.result(&document, || {
            // More than the word is a notice: a vault that is not served, a disk that is full.
            let notices = said.strip_prefix("200 ready").map(str::trim).filter(|_| is_readiness(&self.url));
            let notices = notices.unwrap_or_default().lines().map(|line| format!("\n  {line}"));
            format!("ready  {}{}", self.url, notices.collect::<String>())
        })
    }
}

fn is_readiness(url: &Uri) -> bool {
    matches!(url.path(), "" | "/" | "/readyz")
}

async fn ask_probe(url: &Uri) -> Result<(bool, String), Failure> {
    let path = match url.path() {
        "" | "/" => "/readyz",
        path => path,
    };
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let asked = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    let asked = asked.map_err(|error| Failure::usage(error.to_string()))?;
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(asked).await.map_err(|error| unavailable(url, &with_causes(&error)))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| unavailable(url, &error.to_string()))?.to_bytes();
    let said: String = String::from_utf8_lossy(&body).trim().chars().take(SHOWN_CHARACTERS_MAX).collect();
    Ok((status.is_success(), format!("{} {said}", status.as_u16()).trim().to_owned()))
}

async fn ask_grpc(url: &Uri, tls: &TlsArgs) -> Result<(bool, String), Failure> {
    let mut endpoint = tonic::transport::Channel::builder(url.clone());
    if url.scheme_str() == Some("https") {
        let configured = endpoint.tls_config(tls.options()?.client_config()?);
        endpoint = configured.map_err(|error| Failure::usage(with_causes(&error)))?;
    }
    let channel = endpoint.connect().await.map_err(|error| unavailable(url, &with_causes(&error)))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let answer = answer.map_err(|status| unavailable(url, &said(&status)))?.into_inner();
    let status = ServingStatus::try_from(answer.status).unwrap_or(ServingStatus::Unknown);
    Ok((status == ServingStatus::Serving, status.as_str_name().to_owned()))
}

/// The message with its causes: the status's own text is for debugging.
fn said(status: &tonic::Status) -> String {
    let cause = std::error::Error::source(status).map(with_causes);
    cause.map_or_else(|| status.message().to_owned(), |cause| format!("{}: {cause}", status.message()))
}

fn unavailable(url: &Uri, reason: &str) -> Failure {
    Failure::new(Exit::Unavailable, "UNAVAILABLE", format!("{url} does not answer: {reason}"))
        .with_hint(tls_hint(reason).unwrap_or("is the server running, and is this its address?"))
}
