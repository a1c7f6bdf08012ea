//! Many calls over one stream of a channel: a call costs a fraction of what a request of its own costs, on both sides.
//!
//! Calls that are made while the connection is busy go out together in one message. The stream is opened by the first
//! call and again by the first one after it broke; calls that it left unanswered are refused as `Unavailable`.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ledger_proto::v1;
use ledger_proto::v1::call_service_client::CallServiceClient;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::error::Refusal;
use crate::leader_hint::LeaderHint;

/// Most calls in one message; the protocol's limit.
const CALLS_MAX: usize = 1_024;
/// Bytes of calls at which a message ends (1 MiB); the last call may go over.
const MESSAGE_BYTES: usize = 1_048_576;

/// What becomes of a call.
pub(crate) enum Outcome {
    /// Its answer.
    Answered(v1::answer::Answer),
    /// The server refused it, or the stream broke.
    Refused(Refusal),
    /// The server has no streams of calls: it is older than this client.
    Unsupported,
}

/// One channel's stream of calls.
pub(crate) struct CallLine {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    /// Where streams are driven, whichever runtime calls come from.
    runtime: Handle,
    open: Mutex<Option<Arc<OpenStream>>>,
    /// The server said that it has no streams of calls.
    unsupported: AtomicBool,
}

impl CallLine {
    /// The newest word of the node on who leads, once.
    pub fn take_hint(&self) -> Option<LeaderHint> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().and_then(|stream| stream.lock().hint.take())
    }
}

/// A stream: calls that wait to be sent, and callers that wait for answers.
#[derive(Default)]
struct OpenStream {
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    next_id: u64,
    outbox: VecDeque<v1::Call>,
    sender: Option<Waker>,
    callers: HashMap<u64, oneshot::Sender<Outcome>>,
    /// Broken: nothing is sent or answered any more.
    over: bool,
    hint: Option<LeaderHint>,
    /// The line is gone: what is under way is still answered.
    finished: bool,
}

impl CallLine {
    /// A line over a channel; made inside a runtime.
    pub fn new(channel: Channel, authorization: Option<MetadataValue<Ascii>>, runtime: Handle) -> Self {
        let (open, unsupported) = (Mutex::default(), AtomicBool::new(false));
        Self { channel, authorization, runtime, open, unsupported }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Sends a call and waits for what becomes of it. Whoever drops the future forgets the answer.
    pub async fn call(&self, call: v1::call::Call) -> Outcome {
        if self.unsupported.load(Ordering::Relaxed) {
            return Outcome::Unsupported;
        }
        let mut waiting = self.send(call);
        let outcome = (&mut waiting.answer).await.unwrap_or_else(|_| {
            // Never while the stream ends in order; a caller must not hang if it does not.
            Outcome::Refused(Refusal::from_status(&Status::unavailable("the stream of calls ended")))
        });
        waiting.answered = true;
        if matches!(outcome, Outcome::Unsupported) {
            self.unsupported.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn send(&self, call: v1::call::Call) -> Waiting {
        let mut call = Some(call);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(waiting) = open.as_ref().and_then(|stream| stream.push(&mut call)) {
                return waiting;
            }
            let stream = Arc::new(OpenStream::default());
            let driven = drive(self.channel.clone(), self.authorization.clone(), Arc::clone(&stream));
            self.runtime.spawn(driven);
            *open = Some(stream);
        }
    }
}

impl Drop for CallLine {
    /// Lets the stream end once its calls are answered.
    fn drop(&mut self) {
        if let Some(stream) = self.open.lock().unwrap_or_else(PoisonError::into_inner).take() {
            stream.finish();
        }
    }
}

/// A caller that waits for its answer.
struct Waiting {
    answer: oneshot::Receiver<Outcome>,
    id: u64,
    stream: Arc<OpenStream>,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.stream.forget(self.id);
        }
    }
}

impl OpenStream {
    /// Takes the call over, unless the stream is over.
    fn push(self: &Arc<Self>, call: &mut Option<v1::call::Call>) -> Option<Waiting> {
        let mut state = self.lock();
        if state.over || state.finished {
            return None;
        }
        let call = call.take()?;
        let id = state.next_id;
        state.next_id += 1;
        let (sender, answer) = oneshot::channel();
        state.callers.insert(id, sender);
        state.outbox.push_back(v1::Call { id, call: Some(call) });
        let waker = state.sender.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(Waiting { answer, id, stream: Arc::clone(self), answered: false })
    }

    /// The caller is gone; a call that was not sent yet is not made.
    fn forget(&self, id: u64) {
        let mut state = self.lock();
        state.callers.remove(&id);
        state.outbox.retain(|call| call.id != id);
    }

    fn answer(&self, answers: Vec<v1::Answer>) {
        let mut state = self.lock();
        let of_callers: Vec<_> = answers
            .into_iter()
            .filter_map(|v1::Answer { id, answer }| Some((state.callers.remove(&id)?, answer?)))
            .collect();
        drop(state);
        for (caller, answer) in of_callers {
            let outcome = match answer {
                v1::answer::Answer::Refusal(refusal) => Outcome::Refused(refusal_from(refusal)),
                answer => Outcome::Answered(answer),
            };
            // Whoever gave up waiting does not need it.
            let _ = caller.send(outcome);
        }
    }

    /// Answers all that wait; the next call opens another stream.
    fn end(&self, status: &Status) {
        let (callers, waker) = {
            let mut state = self.lock();
            state.over = true;
            state.outbox.clear();
            (std::mem::take(&mut state.callers), state.sender.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        let refusal = Refusal::from_status(status);
        for caller in callers.into_values() {
            let outcome = match status.code() {
                Code::Unimplemented => Outcome::Unsupported,
                _ => Outcome::Refused(refusal.clone()),
            };
            let _ = caller.send(outcome);
        }
    }

    fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        if let Some(waker) = state.sender.take() {
            drop(state);
            waker.wake();
        }
    }

    /// No code panics while it holds this lock, so a poisoned one guards no broken invariant.
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the stream and hands its answers out until it ends.
async fn drive(channel: Channel, authorization: Option<MetadataValue<Ascii>>, stream: Arc<OpenStream>) {
    // However this ends, also with its runtime, nobody waits for ever.
    let _end = EndAtDrop(Arc::clone(&stream));
    let mut request = Request::new(Outbox(Arc::clone(&stream)));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization);
    }
    let mut client = CallServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .max_encoding_message_size(REQUEST_BYTES_MAX + MESSAGE_BYTES);
    let status = match client.call(request).await {
        Err(status) => status,
        Ok(answers) => {
            if let Some(hint) = LeaderHint::from_header(answers.metadata()) {
                stream.lock().hint = Some(hint);
            }
            let mut answers = answers.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(batch)) => stream.answer(batch.answers),
                    Ok(None) => break Status::unavailable("the server ended the stream of calls"),
                    Err(status) => break status,
                }
            }
        }
    };
    stream.end(&status);
}

struct EndAtDrop(Arc<OpenStream>);

impl Drop for EndAtDrop {
    fn drop(&mut self) {
        self.0.end(&Status::unavailable("the client's runtime stopped"));
    }
}

/// The calls of a stream as they are sent: all that wait go into one message.
struct Outbox(Arc<OpenStream>);

impl futures_core::Stream for Outbox {
    type Item = v1::CallBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::CallBatch>> {
        let mut state = self.0.lock();
        if state.outbox.is_empty() {
            if state.over || (state.finished && state.callers.is_empty()) {
                return Poll::Ready(None);
            }
            state.sender = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = 0;
        let mut count = 0;
        for call in state.outbox.iter().take(CALLS_MAX) {
            bytes += call.encoded_len();
            if count > 0 && bytes > MESSAGE_BYTES {
                break;
            }
            count += 1;
        }
        Poll::Ready(Some(v1::CallBatch { calls: state.outbox.drain(..count).collect() }))
    }
}

fn refusal_from(refusal: v1::Refusal) -> Refusal {
    let status = Status::with_details(Code::from(refusal.code), refusal.message, refusal.details);
    Refusal::from_status(&status)
}
