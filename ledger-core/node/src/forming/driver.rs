//! Runs the machine: over a transport, with a clock, on a directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::errors::{FormingError, Waiting};
use super::events::{Admitted, Answer, Call, CallFailure, Change, Effect, Event, Formed, Goal, Start};
use super::front::{Asked, PeerFront};
use super::machine::Machine;
use super::standing_word::StandingWord;
use crate::directory::{FIRST_MEMBERS_MAX, Formation, NodeDirectory, random_bytes};
use crate::peers::messages::{self, JoinAnswer, JoinRequest, MessageError};
use crate::peers::{
    ClusterId, LedgerKey, MemberRecord, PeerError, PeerFuture, PeerIdentity, PeerMethod, PeerRefusal,
    PeerRequest, PeerTransport,
};

/// How long a peer may take to answer: longer than connecting may take, so that the reason is known when it cannot be
/// reached.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a leader may take to change the membership.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long addresses may be looked for.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node says again what it waits for, when that is still the same.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a node that gives up waits for the last words that it sent.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Finds the addresses of a node's peers.
pub trait PeerDiscovery: std::fmt::Debug + Send + Sync + 'static {
    /// The peers' addresses, `host:port`, as far as they are known now; the node's own may be among them. An error says
    /// that there may be more than those of the last time.
    fn addresses(&self) -> PeerFuture<'_, Result<Vec<String>, String>>;
}

/// What a node does that belongs to no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrapping {
    /// It forms one alone, at once.
    Alone,
    /// It looks for others.
    With(Goal),
}

impl Bootstrapping {
    /// As `--bootstrap` says it: 0 joins, 1 is alone, more form a cluster of so many.
    ///
    /// # Errors
    /// More nodes than a cluster is formed of.
    pub fn from_expected(nodes: u32) -> Result<Self, FormingError> {
        match nodes {
            0 => Ok(Self::With(Goal::Join)),
            1 => Ok(Self::Alone),
            nodes if nodes as usize <= FIRST_MEMBERS_MAX => Ok(Self::With(Goal::Form { nodes })),
            given => Err(FormingError::Size { given, max: FIRST_MEMBERS_MAX }),
        }
    }
}

/// How a node comes into a cluster.
#[derive(Debug, Clone)]
pub struct FormingSettings {
    /// What it does when it belongs to none.
    pub bootstrapping: Bootstrapping,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where its clients reach it.
    pub client_url: String,
    /// Time between two looks around while nothing is under way.
    pub poll: Duration,
    /// How long forming a cluster may take. Joining one has no limit: the node says every minute what it waits for.
    pub timeout: Duration,
}

/// A node on its way into a cluster.
#[derive(Debug)]
pub struct Forming {
    /// Its directory.
    pub directory: NodeDirectory,
    /// How it reaches its peers.
    pub transport: Arc<dyn PeerTransport>,
    /// How it finds them.
    pub discovery: Arc<dyn PeerDiscovery>,
    /// Answers them.
    pub front: PeerFront,
    /// What it does.
    pub settings: FormingSettings,
}

impl Forming {
    /// Runs until the node belongs to a cluster; one that does already is done at once. Dropping the future is a crash:
    /// what the node promised stays promised.
    ///
    /// # Errors
    /// When it will belong to none: end the process then.
    pub async fn run(mut self) -> Result<NodeDirectory, FormingError> {
        let me = MemberRecord {
            identity: self.directory.identity(),
            peer_address: self.settings.peer_address.clone(),
            client_url: self.settings.client_url.clone(),
        };
        if self.directory.cluster_id().is_none() {
            match self.settings.bootstrapping {
                Bootstrapping::Alone => self.directory.found_single(ClusterId(random_bytes()?))?,
                Bootstrapping::With(goal) => self.with_others(me.clone(), goal).await?,
            }
        }
        self.front.belong(StandingWord::of(&self.directory, me)?);
        Ok(self.directory)
    }

    async fn with_others(&mut self, me: MemberRecord, goal: Goal) -> Result<(), FormingError> {
        if matches!(goal, Goal::Form { .. }) && self.directory.holds_ledger() {
            return Err(FormingError::HoldsLedger);
        }
        let promise = match self.directory.formation() {
            Formation::Promised(promise) => Some(promise.clone()),
            _ => None,
        };
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let start = Start {
            me: me.clone(),
            goal,
            promise,
            now_ms: 0,
            poll_ms: milliseconds(self.settings.poll),
            timeout_ms: milliseconds(self.settings.timeout),
        };
        let (questions, waiting) = self.front.form(me.identity.node_id);
        let run = Run {
            machine: Machine::new(start),
            begun: Instant::now(),
            me: me.identity,
            transport: &self.transport,
            discovery: &self.discovery,
            directory: &mut self.directory,
            calls: FuturesUnordered::new(),
            discovering: None,
            open: BTreeMap::new(),
            next_question: 0,
            waiting,
            said_at: Instant::now(),
        };
        let formed = run.until_done(questions).await?;
        tracing::info!(
            cluster = %self.directory.cluster_id().map_or_else(String::new, |id| id.to_string()),
            how = match formed {
                Formed::Founded => "founded with others",
                Formed::Settled => "formed with others",
                Formed::Joined => "joined",
            },
            "this node belongs to a cluster"
        );
        Ok(())
    }
}

type CallDone = (u64, Result<Answer, CallFailure>);

struct Run<'a> {
    machine: Machine,
    begun: Instant,
    me: PeerIdentity,
    transport: &'a Arc<dyn PeerTransport>,
    discovery: &'a Arc<dyn PeerDiscovery>,
    directory: &'a mut NodeDirectory,
    calls: FuturesUnordered<BoxFuture<'a, CallDone>>,
    discovering: Option<BoxFuture<'a, Result<Vec<String>, String>>>,
    open: BTreeMap<u64, oneshot::Sender<Result<Answer, PeerRefusal>>>,
    next_question: u64,
    /// What it waits for, for whoever shows that.
    waiting: watch::Sender<Option<Waiting>>,
    /// When that was logged last.
    said_at: Instant,
}

impl Run<'_> {
    async fn until_done(mut self, mut questions: mpsc::Receiver<Asked>) -> Result<Formed, FormingError> {
        loop {
            let event = self.next_event(&mut questions).await?;
            let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            // At most one is minted in an event.
            let fresh = ClusterId(random_bytes()?);
            let effects = self.machine.handle(now_ms, event, &mut || fresh);
            for effect in effects {
                match effect {
                    Effect::Finish(formed) => return Ok(formed),
                    Effect::Fail(error) => {
                        self.send_last_words().await;
                        return Err(error);
                    }
                    Effect::Store(change) => self.store(change)?,
                    Effect::Discover => self.discover(),
                    Effect::Reply { question, answer } => {
                        if let Some(waiting) = self.open.remove(&question) {
                            // Whoever asked may be gone.
                            let _ = waiting.send(answer);
                        }
                    }
                    Effect::Call { call, address, to, request } => self.call(call, address, to, &request),
                }
            }
            self.say();
        }
    }

    async fn next_event(&mut self, questions: &mut mpsc::Receiver<Asked>) -> Result<Event, FormingError> {
        let say_again_at = self.said_at + SAY_AGAIN_AFTER;
        let due = self.machine.wake_at_ms().map(|at| self.begun + Duration::from_millis(at));
        let tick = tokio::time::sleep_until(due.map_or(say_again_at, |due| due.min(say_again_at)));
        let discovered = async {
            match &mut self.discovering {
                Some(discovering) => discovering.await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            asked = questions.recv() => {
                let Some(Asked { from, question, answer }) = asked else { return Err(FormingError::Stopped) };
                let number = self.next_question;
                self.next_question += 1;
                self.open.insert(number, answer);
                Event::Asked { question: number, from, request: question }
            }
            Some((call, answer)) = self.calls.next(), if !self.calls.is_empty() => Event::Answered { call, answer },
            found = discovered => {
                self.discovering = None;
                Event::Discovered(found)
            }
            () = tick => Event::Tick,
        })
    }

    /// A few small files, synced: nothing else happens on this node before they are.
    fn store(&mut self, change: Change) -> Result<(), FormingError> {
        match change {
            Change::Promise(promise) => self.directory.promise(promise)?,
            Change::Release => self.directory.release()?,
            Change::Found { cluster } => self.directory.found(cluster)?,
            Change::Settle { cluster, key } => self.directory.settle(cluster, &key)?,
            Change::Adopt { cluster, key } => self.directory.adopt(cluster, &key)?,
        }
        Ok(())
    }

    fn discover(&mut self) {
        let discovery = self.discovery;
        self.discovering = Some(Box::pin(async move {
            match tokio::time::timeout(DISCOVERY_TIMEOUT, discovery.addresses()).await {
                Ok(found) => found,
                Err(_) => Err(format!("no answer within {} s", DISCOVERY_TIMEOUT.as_secs())),
            }
        }));
    }

    fn call(&mut self, call: u64, address: String, to: Option<PeerIdentity>, request: &Call) {
        let (method, body) = match request {
            Call::NodeInfo(request) => (PeerMethod::NodeInfo, messages::encode(request)),
            Call::Promise(request) => (PeerMethod::Promise, messages::encode(request)),
            Call::Settle(request) => (PeerMethod::Settle, messages::encode(request)),
            Call::Join(request) => {
                (PeerMethod::Join, messages::encode(&JoinRequest { member: request.node.clone() }))
            }
        };
        let (transport, from) = (self.transport, self.me.clone());
        let timeout = if method == PeerMethod::Join { JOIN_TIMEOUT } else { CALL_TIMEOUT };
        self.calls.push(Box::pin(async move {
            let body = match body {
                Ok(body) => body,
                Err(error) => return (call, Err(CallFailure::Lost(error.to_string()))),
            };
            let (node_id, name) = to.map(|to| (to.node_id, to.name)).unzip();
            let request = PeerRequest { cluster: None, from, to: node_id, method, body };
            let answered = transport.call(&address, name.as_ref(), request, timeout).await;
            let answer = match answered {
                Ok(body) => decode(method, &body).map_err(|error| CallFailure::Lost(error.to_string())),
                Err(PeerError::Refused { refusal, .. }) => Err(CallFailure::Refused(refusal)),
                Err(lost) => Err(CallFailure::Lost(reason(lost))),
            };
            (call, answer)
        }));
    }

    /// That a cluster will never exist, so that the others need not find out by themselves.
    async fn send_last_words(&mut self) {
        let all = async { while self.calls.next().await.is_some() {} };
        // They are a courtesy.
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, all).await;
    }

    fn say(&mut self) {
        let waiting = self.machine.waiting();
        let is_news = self.waiting.send_if_modified(|shown| {
            let is_news = shown.as_ref() != Some(waiting);
            if is_news {
                *shown = Some(waiting.clone());
            }
            is_news
        });
        if is_news || self.said_at.elapsed() >= SAY_AGAIN_AFTER {
            tracing::info!(waits_for = %waiting, "this node belongs to no cluster yet");
            self.said_at = Instant::now();
        }
    }
}

/// Without the address: whoever called says it.
fn reason(error: PeerError) -> String {
    match error {
        PeerError::Unreachable { reason, .. } => reason,
        PeerError::Timeout { timeout, .. } => format!("no answer within {timeout:?}"),
        PeerError::Untrusted { reason, .. } => format!("it is not who it should be: {reason}"),
        other => other.to_string(),
    }
}

fn decode(method: PeerMethod, body: &[u8]) -> Result<Answer, MessageError> {
    Ok(match method {
        PeerMethod::NodeInfo => Answer::NodeInfo(messages::decode(body)?),
        PeerMethod::Promise => Answer::Promise(messages::decode(body)?),
        PeerMethod::Settle => Answer::Settle(messages::decode(body)?),
        _ => {
            let JoinAnswer { cluster_id, log_key, .. } = messages::decode(body)?;
            Answer::Join(Admitted { cluster: cluster_id, key: LedgerKey::new(log_key) })
        }
    })
}
