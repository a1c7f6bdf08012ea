//! Asking a rate limit server over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use ledger_client::tls_hint;
use serde_json::Value;

use super::connection::Target;
use crate::discovery::{DevFile, TlsArgs, read_dev_file, read_text};
use crate::failure::{Exit, Failure};
use crate::{state_home, ttl};

/// Where the rate limit server is, and how to speak to it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct RateLimitServer {
    /// URL of its HTTP API, http or https. Default: the server that `strongroom dev` started.
    #[arg(long, env = "STRONGROOM_RATELIMIT_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the token to send. Default: the token of the server that `strongroom dev` started.
    #[arg(long, env = "STRONGROOM_RATELIMIT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Longest time to wait.
    #[arg(long, default_value = "10s", value_parser = ttl::parse, value_name = "DURATION")]
    timeout: Duration,
}

impl RateLimitServer {
    /// Asks. Documents are those of status 200, and of 429, a denial: everything else is a failure.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (url, token) = self.place()?;
        let uri = format!("{}{path}", url.trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(|_| not_a_url(&url))?;
        let target = Target::of(&uri, &self.tls.options()?)?.ok_or_else(|| not_a_url(&url))?;
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(text)));
        let request = request.map_err(|error| Failure::usage(error.to_string()))?;
        let asked = tokio::time::timeout(self.timeout, target.exchange(request)).await;
        let late = || format!("no answer within {} ms", self.timeout.as_millis());
        let (status, body) = asked.unwrap_or_else(|_| Err(late())).map_err(|why| unavailable(&url, &why))?;
        let document = serde_json::from_slice(&body).unwrap_or_default();
        match status {
            StatusCode::OK | StatusCode::TOO_MANY_REQUESTS => Ok(document),
            status => Err(refused(status, &document)),
        }
    }

    /// The URL and the token. A token goes only to the server that it belongs to.
    fn place(&self) -> Result<(String, Option<String>), Failure> {
        let given = self.token_file.clone();
        let (url, file) = match &self.url {
            Some(url) => (url.clone(), given),
            None => {
                let dev = read_dev_file(&state_home::dev_file())?;
                let here = dev
                    .and_then(|DevFile { ratelimit_url, token_file, .. }| Some((ratelimit_url?, token_file)));
                let (url, of_dev) = here.ok_or_else(no_server)?;
                (url, given.or(of_dev))
            }
        };
        let token = file.map(|path| read_text(&path)).transpose()?;
        Ok((url, token.map(|text| text.trim().to_owned())))
    }
}

fn no_server() -> Failure {
    Failure::new(Exit::Unavailable, "NO_SERVER", "no rate limit server is named and none runs here")
        .with_hint("start one with `strongroom dev`, or name one with --url or STRONGROOM_RATELIMIT_URL")
}

fn not_a_url(url: &str) -> Failure {
    Failure::usage(format!("{url} is not a URL of the form http://HOST:PORT or https://HOST:PORT"))
}

fn unavailable(url: &str, why: &str) -> Failure {
    // What a TLS server says to plain HTTP, when it says anything.
    const PLAIN_TO_TLS: [&str; 3] = ["connection closed", "invalid HTTP", "reset by peer"];
    let is_plain = url.starts_with("http://");
    let hint = if is_plain && PLAIN_TO_TLS.iter().any(|said| why.contains(said)) {
        "the server may speak TLS at this address: try https:// and --tls-ca"
    } else {
        tls_hint(why).unwrap_or("is the server running, and is this its HTTP address?")
    };
    Failure::new(Exit::Unavailable, "UNAVAILABLE", format!("{url} does not answer: {why}")).with_hint(hint)
}

/// A problem document's own words, when it is one.
fn refused(status: StatusCode, document: &Value) -> Failure {
    let detail = document["detail"].as_str();
    let message = detail.map_or_else(|| format!("the server answered {status}"), str::to_owned);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Failure::new(Exit::NotAuthorized, "NOT_AUTHORIZED", message)
                .with_hint("name the file with the server's token with --token-file")
        }
        StatusCode::NOT_FOUND => Failure::not_found(message),
        status if status.is_client_error() => Failure::usage(message),
        _ => Failure::error(message),
    }
}
