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
use crate::options::{CallPath, ClientOptions};
use crate::pins::{PinId, PinStore};
use crate::pool::ChannelPool;
use crate::retry::Repeatable;
use crate::streamed::StreamedCall;

/// Largest answer that is read, in bytes: pages stop at 4 MiB, one entity may go over by its size.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1_048_576;
/// Largest request, in bytes: what the server decodes.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 * 1_048_576 + 65_536;
/// Vaults whose identity is remembered between calls.
const KNOWN_VAULTS_MAX: usize = 10_000;

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
    pool: ChannelPool,
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
        let pool = ChannelPool::new(&options, authorization.as_ref(), &runtime)?;
        let known_vaults = Mutex::new(HashMap::new());
        let inner = Inner {
            options,
            pins,
            clock: LedgerClock::default(),
            verification_turn: tokio::sync::Mutex::new(()),
            pool,
            authorization,
            known_vaults,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The ledger's time by its last answer and the time since then, unix milliseconds; `None` before the first.
    pub fn log_time_ms(&self) -> Option<u64> {
        self.inner.clock.now_ms()
    }

    /// Makes a call, and makes it again on other channels while that is allowed and worth it.
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
        self.call_within(self.inner.options.request_timeout, repeatable, request, send).await
    }

    /// As [`call`](Self::call), with a time of its own for one try.
    pub(crate) async fn call_within<Req, Res, Send, Answer>(
        &self,
        timeout: Duration,
        repeatable: Repeatable,
        request: Req,
        send: Send,
    ) -> Result<Res, ClientError>
    where
        Req: Clone,
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        self.repeat(repeatable, || self.try_once(timeout, request.clone(), &send)).await
    }

    /// Makes a call over a stream where that is wanted and possible, and again as [`call`](Self::call) does.
    pub(crate) async fn streamed_call<Req: StreamedCall>(
        &self,
        repeatable: Repeatable,
        request: Req,
    ) -> Result<Req::Answer, ClientError> {
        let timeout = self.inner.options.request_timeout;
        if self.inner.options.calls == CallPath::Requests {
            return self.call(repeatable, request, Req::request).await;
        }
        let request = &request;
        let attempt = || async move {
            let line = self.inner.pool.next_line()?;
            let call = request.clone().into_call();
            let Ok(outcome) = tokio::time::timeout(timeout, line.call(call)).await else {
                return Ok(Err(Refusal::deadline(timeout)));
            };
            match outcome {
                Outcome::Answered(answer) => match Req::answer(answer) {
                    Some(answer) => Ok(Ok(answer)),
                    None => Err(ClientError::Answer { what: "it is the answer to another call" }),
                },
                Outcome::Refused(refusal) => Ok(Err(refusal)),
                Outcome::Unsupported => self.try_once(timeout, request.clone(), &Req::request).await,
            }
        };
        self.repeat(repeatable, attempt).await
    }

    /// Tries until it succeeds, fails for good, or was tried often enough.
    async fn repeat<Res, Attempt>(
        &self,
        repeatable: Repeatable,
        attempt: impl Fn() -> Attempt,
    ) -> Result<Res, ClientError>
    where
        Attempt: Future<Output = Result<Result<Res, Refusal>, ClientError>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut refusal = match attempt().await? {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            refusal.tries = tries;
            match self.inner.options.retry.wait_after(tries, &refusal, repeatable) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(refusal.into()),
            }
        }
    }

    /// Opens a stream, once. Only its beginning has to come within the time of a call.
    pub(crate) async fn open_stream<Req, Res, Send, Answer>(
        &self,
        message: Req,
        send: Send,
    ) -> Result<Result<Streaming<Res>, Refusal>, ClientError>
    where
        Send: FnOnce(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Streaming<Res>>, Status>>,
    {
        let timeout = self.inner.options.request_timeout;
        let answer = send(self.inner.pool.next()?, self.authorized(message));
        Ok(match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(&status)),
            Err(_) => Err(Refusal::deadline(timeout)),
        })
    }

    fn authorized<Req>(&self, message: Req) -> Request<Req> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.inner.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    async fn try_once<Req, Res, Send, Answer>(
        &self,
        timeout: Duration,
        message: Req,
        send: &Send,
    ) -> Result<Result<Res, Refusal>, ClientError>
    where
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let mut request = self.authorized(message);
        request.set_timeout(timeout);
        let answer = send(self.inner.pool.next()?, request);
        Ok(match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(&status)),
            Err(_) => Err(Refusal::deadline(timeout)),
        })
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
