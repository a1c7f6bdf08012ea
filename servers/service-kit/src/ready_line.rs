//! The one line that a started server prints for the program that started it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What runs, as one JSON object. Only fields of what runs are present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyLine {
    ready: bool,
    /// Version of the program.
    pub version: String,
    /// Process id of the program that prints.
    pub pid: u32,
    /// Where data is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The ledger's URL; several nodes are separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_url: Option<String>,
    /// File with the ledger's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The ledger's verifier key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vkey: Option<String>,
    /// URL of the probes and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_url: Option<String>,
    /// The ledger's nodes, when there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<ReadyNode>,
    /// URL of the auth server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_url: Option<String>,
    /// gRPC URL of the auth server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_grpc_url: Option<String>,
    /// File with the auth server's operator token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token_file: Option<PathBuf>,
    /// URL where caught mail is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail_url: Option<String>,
    /// URL of the rate limit service for proxies (gRPC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rls_url: Option<String>,
    /// URL of the rate limiter (HTTP).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratelimit_url: Option<String>,
    /// Address of the rate limiter's RESP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resp_addr: Option<SocketAddr>,
}

/// One node of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyNode {
    /// The node's id.
    pub id: u64,
    /// Its URL for clients.
    pub url: String,
    /// Its address for peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<SocketAddr>,
    /// Its process.
    pub pid: u32,
    /// Its name, where one program runs several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `leader` or `voter` when the line was printed, where one program runs several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where it keeps its data, where one program runs several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// URL of its probes and metrics, where one program runs several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_url: Option<String>,
}

impl ReadyNode {
    /// A node at a URL, in a process.
    pub fn new(id: u64, url: String, pid: u32) -> Self {
        Self { id, url, peer_addr: None, pid, name: None, role: None, data_dir: None, metrics_url: None }
    }
}

impl ReadyLine {
    /// A line for this process in which nothing runs yet.
    pub fn new() -> Self {
        Self {
            ready: true,
            version: crate::BUILD.version.to_owned(),
            pid: std::process::id(),
            data_dir: None,
            ledger_url: None,
            token_file: None,
            vkey: None,
            metrics_url: None,
            nodes: Vec::new(),
            auth_url: None,
            auth_grpc_url: None,
            auth_token_file: None,
            mail_url: None,
            rls_url: None,
            ratelimit_url: None,
            resp_addr: None,
        }
    }

    /// Writes exactly one line and flushes.
    ///
    /// # Errors
    /// The output's.
    pub fn print(&self, output: &mut impl Write) -> io::Result<()> {
        print_line(output, self)
    }

    /// The directory where data is kept, when it is kept.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }
}

impl Default for ReadyLine {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the line of a failed start: `{"ready":false,"error":…}`.
///
/// # Errors
/// The output's.
pub fn print_failed_start(output: &mut impl Write, error: &str) -> io::Result<()> {
    print_line(output, &serde_json::json!({ "ready": false, "error": error }))
}

fn print_line(output: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    // serde_json escapes line ends within strings, so the line is one line.
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}
