//! One node of `dev --nodes`: this program again, as a process that ends when this one does.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use serde::Deserialize;
use service_kit::logs::LogFormat;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::plan::NodePlan;

/// Longest line that is taken from a node in one piece, in bytes.
const LINE_BYTES_MAX: u64 = 65_536;

/// How every node is started.
#[derive(Debug, Clone)]
pub struct NodeCommand {
    /// This program.
    pub program: PathBuf,
    /// File with settings.
    pub config: Option<PathBuf>,
    /// Flags that all nodes share: names without dashes, and values.
    pub flags: Vec<(String, String)>,
    /// Form of their log lines.
    pub log_format: LogFormat,
}

/// What became of a node.
#[derive(Debug)]
pub enum NodeEvent {
    /// It printed its line.
    Said {
        /// Its place in the plan.
        place: usize,
        /// The line.
        line: NodeLine,
    },
    /// Its process is no more.
    Ended {
        /// Its place in the plan.
        place: usize,
        /// How.
        status: std::io::Result<ExitStatus>,
    },
    /// It is to be started again.
    Due {
        /// Its place in the plan.
        place: usize,
    },
}

/// The line that a node prints when it is ready, or cannot be.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeLine {
    /// Whether it is.
    pub ready: bool,
    /// Why not.
    pub error: Option<String>,
    /// The ledger's verifier key.
    pub vkey: Option<String>,
    /// File with the administrator's token, where this node has it.
    pub token_file: Option<PathBuf>,
    /// URL of its probes and metrics.
    pub metrics_url: Option<String>,
    /// The node itself.
    #[serde(default)]
    pub nodes: Vec<NodeFacts>,
}

/// A node, as it says itself.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeFacts {
    /// Its id.
    pub id: u64,
    /// Its URL for clients.
    pub url: String,
}

/// A process that runs. Dropping it asks the node to end.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its id.
    pub pid: u32,
    _alive: Option<ChildStdin>,
}

impl NodeCommand {
    /// Starts a node. What becomes of it is told to `events` by a task, with which it would be killed.
    pub fn start(
        &self,
        place: usize,
        node: &NodePlan,
        events: &mpsc::Sender<NodeEvent>,
        tasks: &mut JoinSet<()>,
    ) -> std::io::Result<NodeProcess> {
        let mut command = Command::new(&self.program);
        command.args(["ledger", "serve", "--json", "--until-stdin-ends"]);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        for (flag, value) in &self.flags {
            command.arg(format!("--{flag}={value}"));
        }
        command.arg("--data").arg(&node.data);
        for (flag, value) in [
            ("name", node.name.clone()),
            ("listen", node.listen.to_string()),
            ("peer-listen", node.peer_listen.to_string()),
            ("metrics", node.metrics.to_string()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let process = NodeProcess { pid: child.id().unwrap_or_default(), _alive: child.stdin.take() };
        let prefix = match self.log_format {
            LogFormat::Text => format!("{} | ", node.name),
            // Programs read these lines.
            LogFormat::Json => String::new(),
        };
        tasks.spawn(follow(place, child, prefix, events.clone()));
        Ok(process)
    }
}

async fn follow(place: usize, mut child: Child, prefix: String, events: mpsc::Sender<NodeEvent>) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let announce = async {
        let Some(stdout) = stdout else { return };
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while next_line(&mut stdout, &mut line).await {
            if let Ok(line) = serde_json::from_slice(&line) {
                // A receiver that is gone waits for nothing any more.
                let _ = events.send(NodeEvent::Said { place, line }).await;
            }
        }
    };
    let forward = async {
        let Some(stderr) = stderr else { return };
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while next_line(&mut stderr, &mut line).await {
            print(&prefix, &line);
        }
    };
    let (status, (), ()) = tokio::join!(child.wait(), announce, forward);
    let _ = events.send(NodeEvent::Ended { place, status }).await;
}

/// Reads up to the end of a line, which stays out; a longer line comes in pieces.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> bool {
    line.clear();
    let read = reader.take(LINE_BYTES_MAX).read_until(b'\n', line).await;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    matches!(read, Ok(1..))
}

/// A line on standard error, in one piece.
pub fn print(prefix: &str, line: &[u8]) {
    let whole = [prefix.as_bytes(), line, b"\n"].concat();
    // Nobody reads it: that is no reason to end.
    let _ = std::io::stderr().lock().write_all(&whole);
}
