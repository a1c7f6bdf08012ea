//! Hosts, each with a runtime of its own under paused time, moved on together in steps of a millisecond.
//!
//! A crash is what it is on a real machine: the runtime is dropped, and with it every task, wherever it waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_node::Ledger;
use ledger_node::peers::PeerHandler;
use tokio::runtime::Runtime;

use crate::client_calls::{ClientAnswer, ClientRequest};
use crate::clock::WorldTime;
use crate::dice::Dice;
use crate::network::{Body, Endpoint, Message, Network, Reply};
use crate::trace::Trace;

/// How far all hosts move at once.
pub const STEP: Duration = Duration::from_millis(1);
const STEP_US: u64 = 1_000;

/// A boxed future.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What runs on a host.
pub trait Node: Send + Sync + 'static {
    /// Answers other nodes.
    fn peers(&self) -> Arc<dyn PeerHandler>;

    /// Answers clients.
    fn serve(&self, request: ClientRequest) -> Boxed<ClientAnswer>;

    /// The ledger, when it is one.
    fn ledger(&self) -> Option<&Ledger> {
        None
    }
}

/// What a boot leads to: a node, or why there is none.
pub type Booted = Result<Arc<dyn Node>, String>;

/// The state of a host.
#[derive(Clone)]
pub enum HostState {
    /// No process runs.
    Down,
    /// The node opens its stores.
    Booting,
    /// The node runs.
    Up(Arc<dyn Node>),
    /// The node refused to start.
    Refused(String),
}

struct Host {
    runtime: Option<Runtime>,
    /// How far the host has come; paused ones fall behind.
    moved_to_us: u64,
    is_paused: bool,
    state: Arc<Mutex<HostState>>,
    /// Messages for a host that does not run at the moment.
    inbox: Vec<Message>,
}

impl Host {
    fn state(&self) -> HostState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_state(&self, state: HostState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// All hosts, the network and the time.
pub struct World {
    hosts: BTreeMap<Endpoint, Host>,
    network: Network,
    trace: Trace,
    order: Dice,
    now_us: u64,
    time: WorldTime,
}

impl World {
    /// A world with nothing but a network.
    pub fn new(seed: u64, network: Network, trace: Trace) -> Self {
        let order = Dice::new(seed, "order of hosts");
        Self { hosts: BTreeMap::new(), network, trace, order, now_us: 0, time: WorldTime::default() }
    }

    /// The true time, for the clocks of hosts.
    pub fn time(&self) -> &WorldTime {
        &self.time
    }

    /// The time since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.now_us)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The record of the run.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Starts a host, or the process on it again. `boot` runs on the host's runtime.
    ///
    /// # Errors
    /// When the runtime cannot be built.
    pub fn boot(
        &mut self,
        endpoint: Endpoint,
        boot: impl Future<Output = Booted> + Send + 'static,
    ) -> io::Result<()> {
        let runtime = self.start_process(endpoint)?;
        let state = Arc::new(Mutex::new(HostState::Booting));
        let outcome = Arc::clone(&state);
        let trace = self.trace.clone();
        runtime.spawn(async move {
            let booted = boot.await;
            let next = match booted {
                Ok(node) => HostState::Up(node),
                Err(reason) => {
                    trace.tell(format_args!("{endpoint} refuses to start: {reason}"), &[]);
                    HostState::Refused(reason)
                }
            };
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = next;
        });
        self.install(endpoint, runtime, state);
        Ok(())
    }

    /// Starts a host that answers nobody: `body` runs on it.
    ///
    /// # Errors
    /// When the runtime cannot be built.
    pub fn run_on(
        &mut self,
        endpoint: Endpoint,
        body: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let runtime = self.start_process(endpoint)?;
        runtime.spawn(body);
        self.install(endpoint, runtime, Arc::new(Mutex::new(HostState::Booting)));
        Ok(())
    }

    fn start_process(&mut self, endpoint: Endpoint) -> io::Result<Runtime> {
        self.trace.tell(format_args!("{endpoint} boots"), &[]);
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
    }

    fn install(&mut self, endpoint: Endpoint, runtime: Runtime, state: Arc<Mutex<HostState>>) {
        let host = Host {
            runtime: Some(runtime),
            moved_to_us: self.now_us,
            is_paused: false,
            state,
            inbox: Vec::new(),
        };
        if let Some(before) = self.hosts.insert(endpoint, host) {
            drop_process(before.runtime);
        }
    }

    /// Ends the process on a host at once.
    pub fn crash(&mut self, endpoint: Endpoint) {
        let Some(host) = self.hosts.get_mut(&endpoint) else { return };
        self.trace.tell(format_args!("{endpoint} crashes"), &[]);
        host.inbox.clear();
        host.is_paused = false;
        // The node goes before its runtime does: what it still does as it is dropped finds no runtime.
        host.set_state(HostState::Down);
        drop_process(host.runtime.take());
    }

    /// Stops a process without ending it, as a debugger or a hypervisor does; its clock jumps when it goes on.
    pub fn pause(&mut self, endpoint: Endpoint) {
        self.set_paused(endpoint, true);
    }

    /// Lets a paused process go on.
    pub fn resume(&mut self, endpoint: Endpoint) {
        self.set_paused(endpoint, false);
    }

    fn set_paused(&mut self, endpoint: Endpoint, paused: bool) {
        if let Some(host) = self.hosts.get_mut(&endpoint)
            && host.runtime.is_some()
            && host.is_paused != paused
        {
            self.trace.tell(format_args!("{endpoint} {}", if paused { "pauses" } else { "goes on" }), &[]);
            host.is_paused = paused;
        }
    }

    /// Lets a host do something more; `false` when no process runs there.
    pub fn spawn(&self, endpoint: Endpoint, body: impl Future<Output = ()> + Send + 'static) -> bool {
        let runtime = self.hosts.get(&endpoint).and_then(|host| host.runtime.as_ref());
        runtime.map(|runtime| runtime.spawn(body)).is_some()
    }

    /// The node on a host, when one is open there.
    pub fn node(&self, endpoint: Endpoint) -> Option<Arc<dyn Node>> {
        match self.state(endpoint) {
            HostState::Up(node) => Some(node),
            _ => None,
        }
    }

    /// Whether the process on a host stands still.
    pub fn is_paused(&self, endpoint: Endpoint) -> bool {
        self.hosts.get(&endpoint).is_some_and(|host| host.is_paused)
    }

    /// Whether a process runs, or is paused, on a host.
    pub fn is_running(&self, endpoint: Endpoint) -> bool {
        self.hosts.get(&endpoint).is_some_and(|host| host.runtime.is_some())
    }

    /// The state of a host.
    pub fn state(&self, endpoint: Endpoint) -> HostState {
        self.hosts.get(&endpoint).map_or(HostState::Down, Host::state)
    }

    /// Moves all hosts on by one step.
    pub fn step(&mut self) {
        self.now_us += STEP_US;
        self.trace.set_now_us(self.now_us);
        self.time.set_us(self.now_us);
        for message in self.network.advance(self.now_us) {
            match self.hosts.get_mut(&message.to) {
                Some(host) if host.runtime.is_some() => host.inbox.push(message),
                _ => refuse_connection(&self.network, &message),
            }
        }
        let mut order: Vec<Endpoint> = self.hosts.keys().copied().collect();
        self.order.shuffle(&mut order);
        for endpoint in order {
            if let Some(host) = self.hosts.get_mut(&endpoint) {
                host.step(self.now_us, &self.network);
            }
        }
    }

    /// Moves on by a duration.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until {
            self.step();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in self.hosts.values_mut() {
            host.set_state(HostState::Down);
            drop_process(host.runtime.take());
        }
    }
}

/// No thread outlives the process: nothing in it may block.
fn drop_process(runtime: Option<Runtime>) {
    if let Some(runtime) = runtime {
        runtime.shutdown_background();
    }
}

fn refuse_connection(network: &Network, message: &Message) {
    if !matches!(message.body, Body::Answer(_)) {
        network.answer(message, Reply::ConnectionRefused);
    }
}

impl Host {
    fn step(&mut self, now_us: u64, network: &Network) {
        let Some(runtime) = &self.runtime else { return };
        if self.is_paused {
            return;
        }
        let behind_us = now_us.saturating_sub(STEP_US).saturating_sub(self.moved_to_us);
        self.moved_to_us = now_us;
        let inbox = std::mem::take(&mut self.inbox);
        let state = self.state();
        let network = network.clone();
        runtime.block_on(async move {
            let end = tokio::time::Instant::now() + Duration::from_micros(behind_us) + STEP;
            if behind_us > 0 {
                tokio::time::advance(Duration::from_micros(behind_us)).await;
            }
            for message in inbox {
                deliver(message, &state, &network);
            }
            tokio::time::sleep_until(end).await;
        });
    }
}

fn deliver(message: Message, state: &HostState, network: &Network) {
    let node = match (&message.body, state) {
        (Body::Answer(reply), _) => return network.finish(message.call, reply.clone()),
        (_, HostState::Up(node)) => Arc::clone(node),
        _ => return refuse_connection(network, &message),
    };
    let network = network.clone();
    tokio::spawn(async move {
        let reply = match message.body.clone() {
            Body::Peer(request) => Reply::Peer(node.peers().handle(request).await),
            Body::Client(request) => Reply::Client(node.serve(request).await),
            Body::Answer(reply) => reply,
        };
        network.answer(&message, reply);
    });
}
