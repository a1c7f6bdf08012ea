//! `strongroom dev --nodes 3`: a cluster on this machine, a process per node.

use std::sync::Arc;
use std::time::Duration;

use ledger_client::{ClientOptions, LedgerClient, MemoryPins};
use ledger_server::settings::LedgerSettings;
use service_kit::ReadyLine;
use service_kit::ready_line::{ReadyNode, print_failed_start};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::dev_file::DevFileGuard;
use super::node_process::{NodeCommand, NodeEvent, NodeLine, NodeProcess, print};
use super::plan::{FirstAddresses, NodePlan, Plan};
use crate::failure::{Failure, with_causes};
use crate::output::Output;
use crate::state_home;

/// Events of nodes that wait.
const EVENTS_MAX: usize = 64;
/// Starts in a row from which a node did not become ready; then it stays away.
const FAILED_STARTS_MAX: u32 = 3;
/// What a node may take beyond its own time for the end, before it is killed.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long the cluster may take to say who leads.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// When a node that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// So long after its end.
    After(Duration),
    /// Not while this `dev` runs.
    Never,
}

/// What is to run.
pub struct Wanted {
    /// The settings that the nodes share.
    pub settings: LedgerSettings,
    /// How they are started, but for the flags that say who the others are.
    pub command: NodeCommand,
    /// How many.
    pub count: usize,
    /// What happens to one that ends.
    pub restart: Restart,
}

/// Starts the nodes, says so, and looks after them until a signal.
pub fn run(
    output: Output,
    wanted: Result<Wanted, Failure>,
    greet: impl FnOnce(&ReadyLine, bool) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut announced = false;
    let served = wanted.and_then(|wanted| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::error(format!("cannot start the runtime: {error}")))?;
        runtime.block_on(async {
            let mut cluster = Cluster::new(wanted)?;
            let served = match cluster.start().await {
                Ok(ready) => {
                    announced = true;
                    cluster.serve(output, ready, greet).await
                }
                Err(failure) => Err(failure),
            };
            let stopped = cluster.stop().await;
            served.and(stopped)
        })
    });
    if let Err(failure) = &served
        && output.is_json()
        && !announced
    {
        // Whoever reads the line may be gone; the exit code says it too.
        let _ = print_failed_start(&mut std::io::stdout().lock(), &failure.message);
    }
    served
}

struct Node {
    plan: NodePlan,
    process: Option<NodeProcess>,
    /// What it said when it was last ready.
    line: Option<NodeLine>,
    /// Whether it was ready since its last start.
    is_ready: bool,
    failed_starts: u32,
}

struct Cluster {
    settings: LedgerSettings,
    command: NodeCommand,
    restart: Restart,
    nodes: Vec<Node>,
    signals: Signals,
    events: mpsc::Receiver<NodeEvent>,
    event_sender: mpsc::Sender<NodeEvent>,
    /// Dropped before the plan: its folder goes after the processes.
    tasks: JoinSet<()>,
    plan: Plan,
}

impl Cluster {
    fn new(wanted: Wanted) -> Result<Self, Failure> {
        let Wanted { settings, mut command, count, restart } = wanted;
        let first = FirstAddresses { listen: settings.listen, metrics: settings.metrics };
        let signals = Signals::listen()
            .map_err(|error| Failure::error(format!("signals are not delivered: {error}")))?;
        let plan = Plan::make(settings.data.as_deref(), count, first)?;
        let peers: Vec<_> = plan.nodes.iter().map(|node| node.peer_listen.to_string()).collect();
        command.flags.push(("bootstrap".to_owned(), count.to_string()));
        command.flags.push(("join".to_owned(), peers.join(",")));
        let node = |plan: &NodePlan| Node {
            plan: plan.clone(),
            process: None,
            line: None,
            is_ready: false,
            failed_starts: 0,
        };
        let nodes = plan.nodes.iter().map(node).collect();
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let tasks = JoinSet::new();
        Ok(Self { settings, command, restart, nodes, signals, events, event_sender, tasks, plan })
    }

    /// Starts all nodes and waits until each is ready.
    async fn start(&mut self) -> Result<ReadyLine, Failure> {
        let started = self.start_all().await;
        if started.is_err() {
            self.plan.forget_unused_addresses();
        }
        started?;
        let mut ready = self.ready_line();
        let leader = leader_of(&ready).await;
        for node in &mut ready.nodes {
            let role = if Some(node.id) == leader { "leader" } else { "voter" };
            node.role = leader.map(|_| role.to_owned());
        }
        Ok(ready)
    }

    async fn start_all(&mut self) -> Result<(), Failure> {
        for place in 0..self.nodes.len() {
            self.start_node(place)
                .map_err(|error| Failure::error(format!("cannot start a node: {}", with_causes(&error))))?;
        }
        while !self.nodes.iter().all(|node| node.is_ready) {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.signals.next() => {
                    return Err(Failure::error("it was asked to end before it was ready"));
                }
            };
            match event {
                Some(NodeEvent::Said { place, line }) => self.heard(place, line)?,
                Some(NodeEvent::Ended { place, .. }) => {
                    return Err(self.start_failed(place, "it ended before it was ready"));
                }
                Some(NodeEvent::Due { .. }) | None => {}
            }
        }
        Ok(())
    }

    fn start_node(&mut self, place: usize) -> std::io::Result<()> {
        let Some(node) = self.nodes.get_mut(place) else { return Ok(()) };
        node.is_ready = false;
        let started = self.command.start(place, &node.plan, &self.event_sender, &mut self.tasks)?;
        node.process = Some(started);
        Ok(())
    }

    /// Takes note of what a node said.
    fn heard(&mut self, place: usize, line: NodeLine) -> Result<(), Failure> {
        if !line.ready {
            let reason = line.error.as_deref().unwrap_or("it does not say why");
            return Err(self.start_failed(place, reason));
        }
        if let Some(node) = self.nodes.get_mut(place) {
            node.line = Some(line);
            node.is_ready = true;
            node.failed_starts = 0;
        }
        Ok(())
    }

    fn start_failed(&self, place: usize, reason: &str) -> Failure {
        let name = self.nodes.get(place).map_or("a node", |node| &node.plan.name);
        let failure = Failure::error(format!("{name} did not start: {reason}"));
        match self.plan.is_ephemeral {
            true => failure,
            false => failure
                .with_hint(format!("the nodes' addresses stand in {}", self.plan.addresses_file().display())),
        }
    }

    fn ready_line(&self) -> ReadyLine {
        let mut ready = ReadyLine::new();
        let lines = || self.nodes.iter().filter_map(|node| node.line.as_ref());
        ready.data_dir = Some(self.plan.folder.clone());
        ready.vkey = lines().find_map(|line| line.vkey.clone());
        ready.token_file = lines().find_map(|line| line.token_file.clone());
        ready.metrics_url = lines().find_map(|line| line.metrics_url.clone());
        ready.nodes = self.nodes.iter().filter_map(Node::ready).collect();
        let urls: Vec<_> = ready.nodes.iter().map(|node| node.url.as_str()).collect();
        ready.ledger_url = Some(urls.join(","));
        ready
    }

    /// Looks after the nodes until a signal.
    async fn serve(
        &mut self,
        output: Output,
        ready: ReadyLine,
        greet: impl FnOnce(&ReadyLine, bool) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut dev_file = DevFileGuard::write(&state_home::dev_file(), &ready)?;
        greet(&ready, self.plan.is_ephemeral)?;
        if output.is_json() {
            let printed = ready.print(&mut std::io::stdout().lock());
            printed.map_err(|error| Failure::error(format!("cannot print the ready line: {error}")))?;
        }
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.signals.next() => return Ok(()),
            };
            match event {
                Some(NodeEvent::Said { place, line }) => match self.heard(place, line) {
                    Ok(()) => {
                        self.note_return(place);
                        dev_file.update(&self.ready_line())?;
                    }
                    Err(failure) => note(&failure.message),
                },
                Some(NodeEvent::Ended { place, status }) => self.ended(place, &status),
                Some(NodeEvent::Due { place }) => {
                    if let Err(error) = self.start_node(place) {
                        note(&format!("a node cannot be started again: {error}"));
                    }
                }
                None => {}
            }
        }
    }

    fn note_return(&self, place: usize) {
        let Some(node) = self.nodes.get(place) else { return };
        let pid = node.process.as_ref().map_or(0, |process| process.pid);
        note(&format!("{} is back, pid {pid}", node.plan.name));
    }

    /// Says that a node ended, and has it started again.
    fn ended(&mut self, place: usize, status: &std::io::Result<std::process::ExitStatus>) {
        let Some(node) = self.nodes.get_mut(place) else { return };
        let pid = node.process.take().map_or(0, |process| process.pid);
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        node.failed_starts = if node.is_ready { 0 } else { node.failed_starts.saturating_add(1) };
        node.is_ready = false;
        let what = match self.restart {
            Restart::After(_) if node.failed_starts >= FAILED_STARTS_MAX => {
                "it does not become ready, and stays away".to_owned()
            }
            Restart::After(delay) => {
                let events = self.event_sender.clone();
                self.tasks.spawn(async move {
                    sleep(delay).await;
                    // A receiver that is gone starts nothing any more.
                    let _ = events.send(NodeEvent::Due { place }).await;
                });
                format!("it is started again in {:.1} s", delay.as_secs_f64())
            }
            Restart::Never => "it stays away: --restart-after never".to_owned(),
        };
        note(&format!("{} (pid {pid}) ended: {how}; the others go on; {what}", node.plan.name));
    }

    /// Ends all nodes. What does not end in time, or before another signal, is killed.
    async fn stop(&mut self) -> Result<(), Failure> {
        // The end of their standard input asks them; a signal of the terminal has reached them already.
        let mut running: Vec<bool> =
            self.nodes.iter_mut().map(|node| node.process.take().is_some()).collect();
        let deadline = Instant::now() + self.settings.drain.total + STOP_MARGIN;
        let mut failed = Vec::new();
        while running.contains(&true) {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.signals.next() => break,
                () = sleep_until(deadline) => break,
            };
            let Some(NodeEvent::Ended { place, status }) = event else { continue };
            if let Some(running) = running.get_mut(place) {
                *running = false;
            }
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success)
                && let Some(node) = self.nodes.get(place)
            {
                failed.push(node.plan.name.clone());
            }
        }
        // Kills what is left.
        self.tasks.shutdown().await;
        let left = self.nodes.iter().zip(&running).filter(|(_, is_running)| **is_running);
        failed.extend(left.map(|(node, _)| node.plan.name.clone()));
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Failure::error(format!(
                "not everything was finished at the end of {}",
                failed.join(", ")
            ))),
        }
    }
}

impl Node {
    fn ready(&self) -> Option<ReadyNode> {
        let line = self.line.as_ref()?;
        let facts = line.nodes.first()?;
        let pid = self.process.as_ref().map_or(0, |process| process.pid);
        Some(ReadyNode {
            peer_addr: Some(self.plan.peer_listen),
            name: Some(self.plan.name.clone()),
            data_dir: Some(self.plan.data.clone()),
            metrics_url: line.metrics_url.clone(),
            ..ReadyNode::new(facts.id, facts.url.clone(), pid)
        })
    }
}

/// Who leads; `None` when nobody says so in time.
async fn leader_of(ready: &ReadyLine) -> Option<u64> {
    let mut options = ClientOptions::new(ready.ledger_url.clone()?);
    let token = ready.token_file.as_deref().map(std::fs::read_to_string)?.ok()?;
    options.token = Some(token.trim_end().to_owned());
    let client = LedgerClient::connect(options, Arc::new(MemoryPins::default())).ok()?;
    timeout(LEADER_TIMEOUT, client.cluster_info()).await.ok()?.ok()?.leader_id
}

/// A line about the nodes, beside those of the nodes.
fn note(text: &str) {
    print("dev    | ", text.as_bytes());
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
