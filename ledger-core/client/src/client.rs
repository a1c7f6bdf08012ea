//! The client: options, channels, clock; and how one call is made.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger_core::names::VaultRef;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::call_line::Outcome;
use crate::error::{ClientError, Refusal};
use crate::idempotency::LedgerClock;
use crate::leader_hint::LeaderHint;
use crate::nodes::{Destination, Node, NodeHealth, Nodes};
use crate::options::{CallPath, ClientOptions};
use crate::pins::{PinId, PinStore};
use crate::retry::{Effort, Repeatable};
use crate::streamed::StreamedCall;

/// Largest answer that is read, in bytes: pages stop at 4 MiB, one entity may go over by its size.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1_048_576;
/// Largest request, in bytes: what the server decodes.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 * 1_048_576 + 65_536;
/// Vaults whose identity is remembered between calls.
const KNOWN_VAULTS_MAX: usize = 10_000;

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Longest time for one try.
    pub timeout: Duration,
    /// Which failures are worth another try.
    pub repeatable: Repeatable,
    /// Whom to ask first.
    pub destination: Destination,
}

/// A ledger as a client sees it. Cheap to clone; clones share connections, clock and pins.
#[derive(Clone)]
pub struct LedgerClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) pins: Arc<dyn PinStore>,
    pub(crate) clock: LedgerClock,
    /// Held by verified calls that lost a race for a pin.
    pub(crate) verification_turn: tokio::sync::Mutex<()>,
    pub(crate) nodes: Arc<Nodes>,
    authorization: Option<MetadataValue<Ascii>>,
    known_vaults: Mutex<HashMap<VaultRef, PinId>>,
}

impl LedgerClient {
    /// Checks the options and makes the channels. Each one connects when it is first used, so an unreachable
    /// server shows at the first call. It must be called inside a tokio runtime, and is refused elsewhere.
    pub fn connect(options: ClientOptions, pins: Arc<dyn PinStore>) -> Result<Self, ClientError> {
        options.validate()?;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            let what = "a client is made inside a tokio runtime: its connections live there".to_owned();
            return Err(ClientError::Options { what });
        };
        let authorization = options.token.as_deref().map(bearer).transpose()?;
        let nodes = Nodes::new(&options, authorization.as_ref(), &runtime)?;
        let known_vaults = Mutex::new(HashMap::new());
        let inner = Inner {
            options,
            pins,
            clock: LedgerClock::default(),
            verification_turn: tokio::sync::Mutex::new(()),
            nodes,
            authorization,
            known_vaults,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The ledger's time by its last answer and the time since then, unix milliseconds; `None` before the first.
    pub fn log_time_ms(&self) -> Option<u64> {
        self.inner.clock.now_ms()
    }

    /// How the nodes that this client knows have answered so far.
    pub fn nodes(&self) -> Vec<NodeHealth> {
        self.inner.nodes.health()
    }

    /// Makes a call on the leader, where it is known; and again, there or on other nodes, while that is allowed and
    /// worth it.
    pub(crate) async fn call<Req, Res, Send, Answer>(
        &self,
        repeatable: Repeatable,
        request: Req,
        send: Send,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let timeout = self.inner.options.request_timeout;
        self.call_as(Manner { timeout, repeatable, destination: Destination::Leader }, request, send).await
    }

    /// Makes a read on the leader or on any node.
    pub(crate) async fn call_at<Req, Res, Send, Answer>(
        &self,
        destination: Destination,
        request: Req,
        send: Send,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let timeout = self.inner.options.request_timeout;
        self.call_as(Manner { timeout, repeatable: Repeatable::Always, destination }, request, send).await
    }

    pub(crate) async fn call_as<Req, Res, Send, Answer>(
        &self,
        manner: Manner,
        request: Req,
        send: Send,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let (request, send) = (&request, &send);
        self.repeat(manner, |node, timeout| async move {
            let mut message = self.authorized(request.clone());
            message.set_timeout(timeout);
            let answer = send(node.channel()?, message);
            Ok(self.answer(&node, timeout, answer).await)
        })
        .await
    }

    /// Makes a call that may be repeated over a stream, where that is wanted and possible.
    pub(crate) async fn streamed_call<Req: StreamedCall>(
        &self,
        destination: Destination,
        request: Req,
    ) -> Result<Req::Answer, ClientError> {
        if self.inner.options.calls == CallPath::Requests {
            return self.call_at(destination, request, Req::request).await;
        }
        let timeout = self.inner.options.request_timeout;
        let manner = Manner { timeout, repeatable: Repeatable::Always, destination };
        let request = &request;
        self.repeat(manner, |node, timeout| async move { self.streamed(&node, timeout, request).await }).await
    }

    /// Tries on one node after the other until it succeeds, fails for good, or was tried often enough.
    async fn repeat<Res, Attempt>(
        &self,
        manner: Manner,
        attempt: impl Fn(Arc<Node>, Duration) -> Attempt,
    ) -> Result<Res, ClientError>
    where
        Attempt: Future<Output = Result<Result<Res, Refusal>, ClientError>>,
    {
        let Manner { timeout, repeatable, destination } = manner;
        let Inner { options, nodes, .. } = &*self.inner;
        let mut effort = Effort::within(options.call_timeout.max(timeout), destination);
        loop {
            let node = effort.choose(nodes)?;
            let time = effort.time_for_a_try(timeout);
            let mut refusal = match attempt(Arc::clone(&node), time).await? {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            match effort.wait_after(&options.retry, &mut refusal, repeatable, nodes, &node) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(refusal.into()),
            }
        }
    }

    /// Opens a stream on a node, once. Only its beginning has to come within the time of a call.
    pub(crate) async fn open_stream<Req, Res, Send, Answer>(
        &self,
        node: &Node,
        message: Req,
        send: Send,
    ) -> Result<Result<Streaming<Res>, Refusal>, ClientError>
    where
        Send: FnOnce(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Streaming<Res>>, Status>>,
    {
        let timeout = self.inner.options.request_timeout;
        let answer = send(node.channel()?, self.authorized(message));
        Ok(self.answer(node, timeout, answer).await)
    }

    /// One try over the stream of one of the node's connections.
    async fn streamed<Req: StreamedCall>(
        &self,
        node: &Node,
        timeout: Duration,
        request: &Req,
    ) -> Result<Result<Req::Answer, Refusal>, ClientError> {
        let nodes = &self.inner.nodes;
        let line = node.line()?;
        let outcome = tokio::time::timeout(timeout, line.call(request.clone().into_call())).await;
        if let Some(hint) = line.take_hint() {
            nodes.learn(&hint);
        }
        let refusal = match outcome {
            Ok(Outcome::Answered(answer)) => {
                nodes.answered(node);
                let answer = Req::answer(answer);
                return answer
                    .map(Ok)
                    .ok_or(ClientError::Answer { what: "it is the answer to another call" });
            }
            Ok(Outcome::Unsupported) => {
                let mut message = self.authorized(request.clone());
                message.set_timeout(timeout);
                return Ok(self.answer(node, timeout, Req::request(line.channel(), message)).await);
            }
            Ok(Outcome::Refused(refusal)) => refusal,
            Err(_) => Refusal::deadline(timeout),
        };
        Ok(Err(self.naming(node, refusal)))
    }

    /// Where there are several nodes, a refusal names the one that it came from.
    fn naming(&self, node: &Node, mut refusal: Refusal) -> Refusal {
        if self.inner.nodes.count() > 1 {
            refusal.message = format!("{}: {}", node.url, refusal.message);
        }
        refusal
    }

    fn authorized<Req>(&self, message: Req) -> Request<Req> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.inner.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Waits for an answer, and takes in what it tells of the nodes.
    async fn answer<Res>(
        &self,
        node: &Node,
        timeout: Duration,
        answer: impl Future<Output = Result<Response<Res>, Status>>,
    ) -> Result<Res, Refusal> {
        let nodes = &self.inner.nodes;
        let refusal = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(response)) => {
                nodes.answered(node);
                if let Some(hint) = LeaderHint::from_header(response.metadata()) {
                    nodes.learn(&hint);
                }
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => Refusal::from_status(&status),
            Err(_) => Refusal::deadline(timeout),
        };
        Err(self.naming(node, refusal))
    }

    pub(crate) fn known_vault(&self, vault: &VaultRef) -> Option<PinId> {
        self.known_vaults().get(vault).copied()
    }

    pub(crate) fn remember_vault(&self, vault: &VaultRef, id: PinId) {
        let mut known = self.known_vaults();
        if known.len() >= KNOWN_VAULTS_MAX {
            known.clear();
        }
        known.insert(vault.clone(), id);
    }

    pub(crate) fn forget_vault(&self, vault: &VaultRef) {
        self.known_vaults().remove(vault);
    }

    fn known_vaults(&self) -> std::sync::MutexGuard<'_, HashMap<VaultRef, PinId>> {
        self.inner.known_vaults.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LedgerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerClient").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, ClientError> {
    let refused =
        |_| ClientError::Options { what: "the token has characters that a header cannot carry".to_owned() };
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}
