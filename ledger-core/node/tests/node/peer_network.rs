//! A network in memory: handlers by address, and cuts between nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_node::peers::{
    NodeName, PeerError, PeerFuture, PeerHandler, PeerMethod, PeerRefusal, PeerRequest, PeerTransport,
};

/// The network of one test.
#[derive(Debug, Clone, Default)]
pub struct PeerNetwork(Arc<Mutex<State>>);

/// What becomes of a message that a test looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Lost,
    /// It arrives, and the answer does not.
    AnswerLost,
}

type Hook = Arc<dyn Fn(&mut PeerRequest) -> Fate + Send + Sync>;

#[derive(Default)]
struct State {
    handlers: BTreeMap<String, Arc<dyn PeerHandler>>,
    /// Nobody reaches these nodes, and they reach nobody.
    isolated: BTreeSet<String>,
    /// Every n-th message is lost on its way; 0 = none.
    lose_every: u64,
    sent: u64,
    /// Answers to these are lost.
    unanswered: BTreeSet<u8>,
    /// The last byte of answers to these, for the node at this address, is another one.
    forged: BTreeSet<(u8, String)>,
    hook: Option<Hook>,
    /// Answers to this are kept.
    kept: Option<PeerMethod>,
    answers: Vec<Bytes>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl PeerNetwork {
    /// The transport of the node at an address.
    pub fn transport(&self, address: &str) -> Arc<dyn PeerTransport> {
        Arc::new(Transport { network: self.clone(), address: address.to_owned() })
    }

    pub fn listen(&self, address: &str, handler: Arc<dyn PeerHandler>) {
        self.0.lock().unwrap().handlers.insert(address.to_owned(), handler);
    }

    pub fn silence(&self, address: &str) {
        self.0.lock().unwrap().handlers.remove(address);
    }

    pub fn isolate(&self, address: &str) {
        self.0.lock().unwrap().isolated.insert(address.to_owned());
    }

    /// Ends the isolation of one node; everything else stays as it is.
    pub fn reconnect(&self, address: &str) {
        self.0.lock().unwrap().isolated.remove(address);
    }

    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.isolated.clear();
        state.unanswered.clear();
        state.forged.clear();
        state.lose_every = 0;
        state.hook = None;
    }

    /// Lets every message pass a test, which may change it and says what becomes of it.
    pub fn intercept(&self, hook: impl Fn(&mut PeerRequest) -> Fate + Send + Sync + 'static) {
        self.0.lock().unwrap().hook = Some(Arc::new(hook));
    }

    fn fate(&self, request: &mut PeerRequest) -> Fate {
        let hook = self.0.lock().unwrap().hook.clone();
        hook.map_or(Fate::Delivered, |hook| hook(request))
    }

    pub fn lose_every(&self, n: u64) {
        self.0.lock().unwrap().lose_every = n;
    }

    pub fn lose_answers(&self, method: PeerMethod) {
        self.0.lock().unwrap().unanswered.insert(method as u8);
    }

    pub fn forge_answers(&self, method: PeerMethod, to: &str) {
        self.0.lock().unwrap().forged.insert((method as u8, to.to_owned()));
    }

    /// Keeps every answer of peers to this from now on.
    pub fn keep_answers(&self, to: PeerMethod) {
        self.0.lock().unwrap().kept = Some(to);
    }

    pub fn kept_answers(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().answers.clone()
    }

    /// What a peer at `to` says to a request, whoever sends it.
    pub async fn ask(&self, to: &str, request: PeerRequest) -> Result<Bytes, PeerRefusal> {
        let handler = self.0.lock().unwrap().handlers.get(to).cloned().expect("nobody listens there");
        handler.handle(request).await
    }

    /// `None` = the message is lost.
    fn route(&self, from: &str, to: &str) -> Option<Arc<dyn PeerHandler>> {
        if !self.passes(from, to) {
            return None;
        }
        self.0.lock().unwrap().handlers.get(to).cloned()
    }

    /// Whether a message passes. Whoever waits for an answer gets it also before it listens itself.
    fn passes(&self, from: &str, to: &str) -> bool {
        let mut state = self.0.lock().unwrap();
        state.sent += 1;
        let is_lost = state.lose_every > 0 && state.sent.is_multiple_of(state.lose_every);
        !is_lost && !state.isolated.contains(from) && !state.isolated.contains(to)
    }

    fn carried(&self, method: PeerMethod, to: &str, answer: &Bytes) -> Bytes {
        let mut state = self.0.lock().unwrap();
        if state.kept == Some(method) {
            state.answers.push(answer.clone());
        }
        let is_forged = state.forged.contains(&(method as u8, to.to_owned()));
        let mut bytes = answer.to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| is_forged) {
            *last ^= 1;
        }
        bytes.into()
    }

    fn loses_answer(&self, method: PeerMethod) -> bool {
        self.0.lock().unwrap().unanswered.contains(&(method as u8))
    }
}

#[derive(Debug)]
struct Transport {
    network: PeerNetwork,
    address: String,
}

impl PeerTransport for Transport {
    fn call<'a>(
        &'a self,
        address: &'a str,
        _expect: Option<&'a NodeName>,
        mut request: PeerRequest,
        timeout: Duration,
    ) -> PeerFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let unreachable =
                || PeerError::Unreachable { address: address.to_owned(), reason: "lost".to_owned() };
            let method = request.method;
            let fate = self.network.fate(&mut request);
            if fate == Fate::Lost {
                return Err(unreachable());
            }
            let handler = self.network.route(&self.address, address).ok_or_else(unreachable)?;
            let answer = tokio::time::timeout(timeout, handler.handle(request)).await;
            if fate == Fate::AnswerLost
                || self.network.loses_answer(method)
                || !self.network.passes(address, &self.address)
            {
                return Err(unreachable());
            }
            match answer {
                Ok(Ok(answer)) => Ok(self.network.carried(method, &self.address, &answer)),
                Ok(Err(refusal)) => Err(PeerError::Refused { address: address.to_owned(), refusal }),
                Err(_) => Err(PeerError::Timeout { address: address.to_owned(), timeout }),
            }
        })
    }
}
