//! The simulated network: messages take time, get lost, overtake each other and come twice; a wire can be cut in one
//! direction.
//!
//! Every wire has its own dice, so the faults of one do not depend on the traffic of another. A message arrives at the
//! step of the world in which it is due; whoever waits for an answer waits on the runtime of its own host.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ledger_node::peers::{
    NodeName, PeerError, PeerFuture, PeerMethod, PeerRefusal, PeerRequest, PeerTransport,
};
use tokio::sync::oneshot;

use crate::client_calls::{CallError, ClientAnswer, ClientRequest};
use crate::dice::Dice;
use crate::trace::Trace;

/// A host on the network: a node, or the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(pub u8);

impl Endpoint {
    /// The host that all clients are on.
    pub const CLIENTS: Self = Self(u8::MAX);
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CLIENTS { f.write_str("clients") } else { write!(f, "n{}", self.0) }
    }
}

/// How a wire treats messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireQuality {
    /// Shortest time on the wire, microseconds.
    pub delay_us_min: u64,
    /// Longest time on the wire, microseconds. Messages overtake each other within these bounds.
    pub delay_us_max: u64,
    /// Messages in a thousand that get lost.
    pub loss_per_mille: u32,
    /// Requests in a thousand that arrive twice.
    pub duplicate_per_mille: u32,
    /// Messages in a thousand that take up to [`STRAGGLER_US_MAX`] longer.
    pub straggler_per_mille: u32,
}

/// How much longer a straggler takes at most, microseconds: longer than an election timeout.
pub const STRAGGLER_US_MAX: u64 = 1_500_000;

impl WireQuality {
    /// A wire that does what wires should.
    pub const GOOD: Self = Self {
        delay_us_min: 200,
        delay_us_max: 2_000,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        straggler_per_mille: 0,
    };
}

/// What the network did. Zero of one in a campaign means that it tested less than it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Messages that arrived.
    pub delivered: u64,
    /// Messages that got lost by chance.
    pub lost: u64,
    /// Messages that were sent into a cut wire, or were on it when it was cut.
    pub cut: u64,
    /// Requests that arrived twice.
    pub duplicated: u64,
    /// Messages that arrived before one that was sent earlier on the same wire.
    pub overtaken: u64,
}

impl std::ops::AddAssign for NetworkCounters {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.cut += other.cut;
        self.duplicated += other.duplicated;
        self.overtaken += other.overtaken;
    }
}

/// A request or an answer on its way.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Peer(PeerRequest),
    Client(ClientRequest),
    Answer(Reply),
}

/// What goes back to whoever called.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Peer(Result<Bytes, PeerRefusal>),
    Client(ClientAnswer),
    /// Nobody listens there.
    ConnectionRefused,
}

/// Names a call from its request to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallNumber(u64);

/// A message that has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub from: Endpoint,
    pub to: Endpoint,
    pub call: CallNumber,
    pub body: Body,
    /// What the request asked for, also in its answer.
    pub method: Option<PeerMethod>,
    sent: u64,
}

/// An answer between nodes that was put on the wire: whoever breaks things wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSent {
    /// Who answered.
    pub by: Endpoint,
    /// Whom.
    pub to: Endpoint,
    /// What had been asked.
    pub method: PeerMethod,
    /// Whether it was more than a refusal.
    pub accepted: bool,
}

/// The network. Clones share it.
#[derive(Debug, Clone)]
pub struct Network(Arc<Mutex<Wires>>);

#[derive(Debug)]
struct Wires {
    seed: u64,
    now_us: u64,
    sent: u64,
    calls: u64,
    wires: BTreeMap<(Endpoint, Endpoint), Wire>,
    quality: WireQuality,
    in_flight: BTreeMap<(u64, u64), Message>,
    waiting: BTreeMap<CallNumber, oneshot::Sender<Reply>>,
    addresses: BTreeMap<String, (Endpoint, NodeName)>,
    answers: Vec<AnswerSent>,
    counters: NetworkCounters,
    trace: Trace,
}

#[derive(Debug)]
struct Wire {
    dice: Dice,
    is_cut: bool,
    quality: Option<WireQuality>,
    newest_arrived: u64,
}

impl Network {
    /// A network without hosts.
    pub fn new(seed: u64, quality: WireQuality, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Wires {
            seed,
            now_us: 0,
            sent: 0,
            calls: 0,
            wires: BTreeMap::new(),
            quality,
            in_flight: BTreeMap::new(),
            waiting: BTreeMap::new(),
            addresses: BTreeMap::new(),
            answers: Vec::new(),
            counters: NetworkCounters::default(),
            trace,
        })))
    }

    /// Gives a host its address and the name that its certificate would carry.
    pub fn attach(&self, endpoint: Endpoint, address: impl Into<String>, name: NodeName) {
        self.lock().addresses.insert(address.into(), (endpoint, name));
    }

    /// The port that the node at an endpoint sends through.
    pub fn transport(&self, from: Endpoint) -> Arc<dyn PeerTransport> {
        Arc::new(Transport { network: self.clone(), from })
    }

    /// Sets how all wires treat messages from now on, those with a quality of their own excepted.
    pub fn set_quality(&self, quality: WireQuality) {
        self.lock().quality = quality;
    }

    /// Gives one wire its own quality, or takes it back.
    pub fn set_wire_quality(&self, from: Endpoint, to: Endpoint, quality: Option<WireQuality>) {
        self.lock().wire(from, to).quality = quality;
    }

    /// Cuts the wire from one host to another; the way back is another wire. What is on it is lost.
    pub fn cut(&self, from: Endpoint, to: Endpoint) {
        let mut wires = self.lock();
        wires.wire(from, to).is_cut = true;
        let before = wires.in_flight.len();
        wires.in_flight.retain(|_, message| (message.from, message.to) != (from, to));
        wires.counters.cut += (before - wires.in_flight.len()) as u64;
    }

    /// Mends every wire that was cut.
    pub fn heal(&self) {
        self.lock().wires.values_mut().for_each(|wire| wire.is_cut = false);
    }

    /// Whether a wire is cut.
    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.lock().wire(from, to).is_cut
    }

    /// What the network did so far.
    pub fn counters(&self) -> NetworkCounters {
        self.lock().counters
    }

    /// Answers between nodes that were sent since the last call.
    pub fn take_answers(&self) -> Vec<AnswerSent> {
        std::mem::take(&mut self.lock().answers)
    }

    /// Sends a client's request and waits for the answer.
    pub async fn client_call(
        &self,
        to: Endpoint,
        request: ClientRequest,
        timeout: Duration,
    ) -> Result<ClientAnswer, CallError> {
        match self.call(Endpoint::CLIENTS, to, Body::Client(request), timeout).await {
            Some(Reply::Client(answer)) => Ok(answer),
            Some(Reply::ConnectionRefused) => Err(CallError::Refused),
            _ => Err(CallError::Timeout),
        }
    }

    /// Moves the time, and hands out what is due by then, in the order of arrival.
    pub(crate) fn advance(&self, now_us: u64) -> Vec<Message> {
        let mut wires = self.lock();
        wires.now_us = now_us;
        let later = wires.in_flight.split_off(&(now_us + 1, 0));
        let due = std::mem::replace(&mut wires.in_flight, later);
        due.into_values().inspect(|message| wires.arrived(message)).collect()
    }

    /// Sends the answer to a request that has arrived.
    pub(crate) fn answer(&self, request: &Message, reply: Reply) {
        let mut wires = self.lock();
        if let (Some(method), Reply::Peer(answer)) = (request.method, &reply) {
            let accepted = answer.is_ok();
            wires.answers.push(AnswerSent { by: request.to, to: request.from, method, accepted });
        }
        let (call, method) = (request.call, request.method);
        wires.send(Message {
            from: request.to,
            to: request.from,
            call,
            body: Body::Answer(reply),
            method,
            sent: 0,
        });
    }

    /// Hands an answer to whoever waits for it, if somebody still does.
    pub(crate) fn finish(&self, call: CallNumber, reply: Reply) {
        let waiting = self.lock().waiting.remove(&call);
        if let Some(waiting) = waiting {
            let _ = waiting.send(reply);
        }
    }

    async fn call(&self, from: Endpoint, to: Endpoint, body: Body, timeout: Duration) -> Option<Reply> {
        let (sender, answer) = oneshot::channel();
        let call = {
            let mut wires = self.lock();
            wires.calls += 1;
            let call = CallNumber(wires.calls);
            wires.waiting.insert(call, sender);
            let method = match &body {
                Body::Peer(request) => Some(request.method),
                _ => None,
            };
            wires.send(Message { from, to, call, body, method, sent: 0 });
            call
        };
        let _forget = ForgetAtDrop { network: self, call };
        tokio::time::timeout(timeout, answer).await.ok()?.ok()
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever gave up, or crashed, waits for no answer.
struct ForgetAtDrop<'a> {
    network: &'a Network,
    call: CallNumber,
}

impl Drop for ForgetAtDrop<'_> {
    fn drop(&mut self) {
        self.network.lock().waiting.remove(&self.call);
    }
}

impl Wires {
    fn wire(&mut self, from: Endpoint, to: Endpoint) -> &mut Wire {
        let seed = self.seed;
        self.wires.entry((from, to)).or_insert_with(|| Wire {
            dice: Dice::new(seed, ("wire", from, to)),
            is_cut: false,
            quality: None,
            newest_arrived: 0,
        })
    }

    fn send(&mut self, mut message: Message) {
        self.sent += 1;
        message.sent = self.sent;
        let (now_us, common) = (self.now_us, self.quality);
        let wire = self.wire(message.from, message.to);
        let quality = wire.quality.unwrap_or(common);
        let is_lost = wire.dice.chance(quality.loss_per_mille);
        let comes_twice = wire.dice.chance(quality.duplicate_per_mille);
        let due = [wire.due(now_us, quality), wire.due(now_us, quality)];
        if wire.is_cut {
            self.counters.cut += 1;
            return;
        }
        if is_lost {
            self.counters.lost += 1;
            return;
        }
        if comes_twice && may_come_twice(&message.body) {
            self.counters.duplicated += 1;
            self.sent += 1;
            self.in_flight.insert((due[1], self.sent), message.clone());
        }
        self.in_flight.insert((due[0], message.sent), message);
    }

    fn arrived(&mut self, message: &Message) {
        self.counters.delivered += 1;
        let wire = self.wire(message.from, message.to);
        let overtaken = message.sent < wire.newest_arrived;
        wire.newest_arrived = wire.newest_arrived.max(message.sent);
        self.counters.overtaken += u64::from(overtaken);
        let Message { from, to, call, .. } = message;
        match &message.body {
            Body::Peer(request) => {
                self.trace
                    .tell(format_args!("{from} -> {to} #{} {:?}", call.0, request.method), &request.body);
            }
            Body::Client(request) => {
                self.trace.tell(format_args!("{from} -> {to} #{} {}", call.0, request.name()), &[]);
            }
            Body::Answer(Reply::Peer(Ok(body))) => {
                self.trace
                    .tell(format_args!("{from} -> {to} #{} answer to {:?}", call.0, message.method), body);
            }
            Body::Answer(Reply::Peer(Err(refusal))) => {
                self.trace.tell(format_args!("{from} -> {to} #{} refusal: {refusal}", call.0), &[]);
            }
            Body::Answer(Reply::Client(answer)) => {
                self.trace.tell(format_args!("{from} -> {to} #{} {answer:?}", call.0), &[]);
            }
            Body::Answer(Reply::ConnectionRefused) => {
                self.trace.tell(format_args!("{from} -> {to} #{} connection refused", call.0), &[]);
            }
        }
    }
}

/// A transport repeats no request by itself; that a node repeats what asks or tells, and changes nothing by being
/// repeated, must be harmless. Writes are repeated by clients, with their idempotency key.
fn may_come_twice(body: &Body) -> bool {
    match body {
        Body::Peer(request) => !matches!(
            request.method,
            PeerMethod::Propose
                | PeerMethod::Membership
                | PeerMethod::Join
                | PeerMethod::Promise
                | PeerMethod::Settle
        ),
        Body::Client(_) | Body::Answer(_) => false,
    }
}

impl Wire {
    fn due(&mut self, now_us: u64, quality: WireQuality) -> u64 {
        let delay_us = self.dice.within(quality.delay_us_min..=quality.delay_us_max);
        let straggles = self.dice.chance(quality.straggler_per_mille);
        let longer_us = self.dice.within(0..=STRAGGLER_US_MAX);
        now_us + delay_us + if straggles { longer_us } else { 0 }
    }
}

#[derive(Debug)]
struct Transport {
    network: Network,
    from: Endpoint,
}

impl PeerTransport for Transport {
    fn call<'a>(
        &'a self,
        address: &'a str,
        expect: Option<&'a NodeName>,
        request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let target = self.network.lock().addresses.get(address).cloned();
            let address = address.to_owned();
            let Some((to, name)) = target else {
                return Err(PeerError::Unreachable { address, reason: "no such host".to_owned() });
            };
            if let Some(expected) = expect
                && *expected != name
            {
                return Err(PeerError::Untrusted { address, reason: format!("it is {name}") });
            }
            match self.network.call(self.from, to, Body::Peer(request), timeout).await {
                Some(Reply::Peer(answer)) => {
                    answer.map_err(|refusal| PeerError::Refused { address, refusal })
                }
                Some(_) => Err(PeerError::Unreachable { address, reason: "connection refused".to_owned() }),
                None => Err(PeerError::Timeout { address, timeout }),
            }
        })
    }
}
