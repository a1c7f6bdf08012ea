//! Finding the ledger: flags, then variables, then the file that `dev` leaves.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ledger_client::{CallPath, ClientOptions, DirectoryPins, LedgerClient, TlsOptions, UnlistedNodes};
use ledger_verify::note::VerifierKey;
use serde::Deserialize;

use crate::failure::{Exit, Failure};
use crate::{state_home, ttl};

/// Largest token, certificate or discovery file, in bytes.
const FILE_BYTES_MAX: u64 = 1_048_576;

/// Where the ledger is and how to speak to it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// URL of the ledger, several separated by commas. Default: the server that `strongroom dev` started.
    #[arg(long, env = "STRONGROOM_LEDGER_URL", value_name = "URL")]
    pub url: Option<String>,
    /// File with the token to send. Default: the token of the server that `strongroom dev` started.
    #[arg(long, env = "STRONGROOM_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Longest time for one try of a call.
    #[arg(long, default_value = "30s", value_parser = ttl::parse, value_name = "DURATION")]
    pub timeout: Duration,
}

/// How to speak to a server with TLS.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct TlsArgs {
    /// PEM file with the authority of the server's certificate (https only).
    #[arg(long, env = "STRONGROOM_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// PEM file with a client certificate (https only).
    #[arg(long, env = "STRONGROOM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the key of the client certificate.
    #[arg(long, env = "STRONGROOM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name to expect in the server's certificate, when it is not the URL's host.
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
}

impl TlsArgs {
    /// The same with the files read.
    pub fn options(&self) -> Result<TlsOptions, Failure> {
        Ok(TlsOptions {
            ca_pem: self.tls_ca.as_deref().map(read_text).transpose()?,
            client_certificate_pem: self.tls_cert.as_deref().map(read_text).transpose()?,
            client_key_pem: self.tls_key.as_deref().map(read_text).transpose()?,
            server_name: self.tls_server_name.clone(),
        })
    }
}

/// On what to believe a proof.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Trust")]
pub struct TrustArgs {
    /// Key that must have signed the checkpoint; may repeat while a key is rotated. Without it the key is trusted
    /// on first use and pinned.
    #[arg(long = "vkey", value_name = "KEY")]
    pub verifier_keys: Vec<VerifierKey>,
}

/// What the file of `dev` says.
#[derive(Debug, Deserialize)]
pub struct DevFile {
    /// The ledger's URL; of a cluster those of all nodes, separated by commas.
    pub ledger_url: String,
    /// File with its token.
    pub token_file: Option<PathBuf>,
    /// The HTTP URL of its rate limits; the ledger's token administers them.
    #[serde(default)]
    pub ratelimit_url: Option<String>,
    /// The process that wrote the file.
    pub pid: u32,
}

impl ServerArgs {
    /// Connects, with pins in the user's state directory.
    pub fn client(&self) -> Result<LedgerClient, Failure> {
        self.trusting_client(&TrustArgs::default())
    }

    /// Connects, believing these keys when there are some.
    pub fn trusting_client(&self, trust: &TrustArgs) -> Result<LedgerClient, Failure> {
        let mut options = self.options()?;
        options.verifier_keys.clone_from(&trust.verifier_keys);
        options.calls = CallPath::Requests;
        self.connect(options)
    }

    /// Connects for load: with several connections, and to a leader that it was not told of or not.
    pub fn client_for_load(
        &self,
        connections: usize,
        calls: CallPath,
        unlisted_nodes: UnlistedNodes,
    ) -> Result<LedgerClient, Failure> {
        let mut options = self.options()?;
        options.connections = connections;
        options.calls = calls;
        options.unlisted_nodes = unlisted_nodes;
        self.connect(options)
    }

    /// Connects for what any node can do by itself: to the node that is named when it is one, else to whichever answers.
    pub fn client_of_named_node(&self) -> Result<LedgerClient, Failure> {
        let mut options = self.options()?;
        if options.url_list().nth(1).is_none() {
            options.unlisted_nodes = UnlistedNodes::Ignore;
        }
        self.connect(options)
    }

    /// Connects to the one node that is named, and to no other that it tells of.
    pub fn client_of_one_node(&self) -> Result<LedgerClient, Failure> {
        let mut options = self.options()?;
        options.unlisted_nodes = UnlistedNodes::Ignore;
        if options.url_list().nth(1).is_some() {
            return Err(Failure::usage("this is about one node: name its URL alone with --url"));
        }
        self.connect(options)
    }

    /// Connects to one node of the same ledger, for a quick question.
    pub fn client_at(&self, url: &str, timeout: Duration) -> Result<LedgerClient, Failure> {
        let mut options = self.options()?;
        url.clone_into(&mut options.urls);
        options.unlisted_nodes = UnlistedNodes::Ignore;
        options.retry.tries_max = 1;
        (options.request_timeout, options.connect_timeout) = (timeout, timeout);
        options.call_timeout = timeout;
        self.connect(options)
    }

    /// The URL, when there is one.
    pub fn only_url(&self) -> Option<String> {
        let urls = self.options().ok()?.urls;
        (!urls.contains(',')).then_some(urls)
    }

    fn connect(&self, options: ClientOptions) -> Result<LedgerClient, Failure> {
        let pins = DirectoryPins::in_state_home().map_err(|error| Failure::error(error.to_string()))?;
        Ok(LedgerClient::connect(options, Arc::new(pins))?)
    }

    fn options(&self) -> Result<ClientOptions, Failure> {
        let dev = read_dev_file(&state_home::dev_file())?;
        let (url, token_file) = self.server(dev)?;
        let mut options = ClientOptions::new(url);
        options.token = token_file.as_deref().map(read_token).transpose()?;
        options.request_timeout = self.timeout;
        options.tls = self.tls.options()?;
        Ok(options)
    }

    /// The URL and the token file. A token goes only to the server that it belongs to.
    fn server(&self, dev: Option<DevFile>) -> Result<(String, Option<PathBuf>), Failure> {
        let given = self.token_file.clone();
        match (&self.url, dev) {
            (Some(urls), Some(dev)) if are_nodes_of(urls, &dev) => {
                Ok((urls.clone(), given.or(dev.token_file)))
            }
            (Some(url), _) => Ok((url.clone(), given)),
            (None, Some(dev)) => Ok((dev.ledger_url, given.or(dev.token_file))),
            (None, None) => {
                Err(Failure::new(Exit::Unavailable, "NO_SERVER", "no ledger is named and none runs here")
                    .with_hint(
                        "start one with `strongroom dev`, or name one with --url or STRONGROOM_LEDGER_URL",
                    ))
            }
        }
    }
}

/// Whether every URL is one of those that `dev` serves.
fn are_nodes_of(urls: &str, dev: &DevFile) -> bool {
    let listed = |text: &str| -> Vec<String> {
        text.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect()
    };
    let served = listed(&dev.ledger_url);
    listed(urls).iter().all(|url| served.contains(url))
}

/// The file of `dev`, when there is one. Another user's file would lead calls, and what they carry, to that user.
pub fn read_dev_file(path: &Path) -> Result<Option<DevFile>, Failure> {
    let owner = match std::fs::metadata(path) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path, &error)),
    };
    if state_home::own_user_id().is_some_and(|own| own != owner) {
        let message = format!("{} belongs to another user: it is not believed", path.display());
        return Err(Failure::error(message).with_hint("name the server with --url, or set XDG_RUNTIME_DIR"));
    }
    let text = read_text(path)?;
    let parsed: Result<DevFile, _> = serde_json::from_str(&text);
    let dev = parsed.map_err(|error| {
        Failure::error(format!("{} is damaged: {error}", path.display()))
            .with_hint("remove it, then start `strongroom dev` again")
    })?;
    // Left by a `dev` that was killed: nobody serves there any more, or somebody else does.
    let alive = Path::new("/proc").join(dev.pid.to_string()).exists();
    Ok(alive.then_some(dev))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = read_text(path)?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(token), None) if token.starts_with("sr_") => Ok(token.to_owned()),
        _ => Err(Failure::usage(format!("{} is not a token file: it has one line, sr_…", path.display()))),
    }
}

/// A small text file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(url: Option<&str>, token_file: Option<&str>) -> ServerArgs {
        ServerArgs {
            url: url.map(str::to_owned),
            token_file: token_file.map(PathBuf::from),
            tls: TlsArgs::default(),
            timeout: Duration::from_secs(30),
        }
    }

    fn dev() -> Option<DevFile> {
        Some(DevFile {
            ledger_url: "http://dev:1".to_owned(),
            token_file: Some("dev-token".into()),
            ratelimit_url: None,
            pid: 1,
        })
    }

    #[test]
    fn flags_win_over_the_file_of_dev() {
        let server = |url, token| arguments(url, token).server(dev()).ok();
        assert_eq!(server(None, None), Some(("http://dev:1".to_owned(), Some("dev-token".into()))));
        assert_eq!(server(None, Some("mine")), Some(("http://dev:1".to_owned(), Some("mine".into()))));
        assert_eq!(
            server(Some("http://dev:1"), None),
            Some(("http://dev:1".to_owned(), Some("dev-token".into())))
        );
        assert!(arguments(None, None).server(None).is_err());
    }

    #[test]
    fn the_token_of_dev_goes_to_no_other_server() {
        let server = arguments(Some("http://other:2"), None).server(dev()).ok();
        assert_eq!(server, Some(("http://other:2".to_owned(), None)));
        let server = arguments(Some("http://dev:1,http://other:2"), None).server(dev()).ok();
        assert_eq!(server, Some(("http://dev:1,http://other:2".to_owned(), None)));
    }

    #[test]
    fn the_token_of_dev_goes_to_every_one_of_its_nodes() {
        let dev = || {
            let ledger_url = "http://dev:1,http://dev:2,http://dev:3".to_owned();
            Some(DevFile { ledger_url, token_file: Some("dev-token".into()), ratelimit_url: None, pid: 1 })
        };
        for urls in ["http://dev:2", "http://dev:3, http://dev:1/"] {
            let server = arguments(Some(urls), None).server(dev()).ok();
            assert_eq!(server, Some((urls.to_owned(), Some("dev-token".into()))));
        }
    }
}
