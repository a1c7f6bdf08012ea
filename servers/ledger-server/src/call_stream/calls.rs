//! The calls under way on one stream.
//!
//! Pulled by the connection as the caller takes answers, so that nothing piles up: one message of answers is made at a
//! time, and no calls are read while too many are under way.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use ledger_node::{Consistency, ReadFailure};
use ledger_proto::v1;
use ledger_proto::v1::answer::Answer as Reply;
use ledger_proto::v1::call::Call as Asked;
use service_kit::admission;
use tokio::time::Sleep;
use tonic::{Code, Status, Streaming};

use super::{LedgerCallService, Permissions};
use crate::access::Caller;
use crate::call_metrics::Method;
use crate::errors;
use crate::transport_errors::in_own_words;
use crate::wire::read::position;
use crate::wire::{BadField, FieldFault, address, read, required};

/// Calls under way on a stream at which it reads no more, and calls in one message.
const CALLS_MAX: usize = 1_024;
/// Bytes of answers at which a message ends; the last answer may go over.
const MESSAGE_BYTES: usize = 262_144;
/// About what an answer has beside keys and values.
const ANSWER_BYTES: usize = 64;

type Replied = Result<Reply, Status>;

/// The answers of a stream of calls.
pub struct CallStream {
    service: LedgerCallService,
    caller: Arc<Caller>,
    permissions: Permissions,
    /// `None` once the caller has said that no more will come, or the server drains.
    calls: Option<Streaming<v1::CallBatch>>,
    closing: BoxFuture<'static, ()>,
    /// Begun and not answered.
    under_way: HashMap<u64, UnderWay>,
    /// In the order in which their time ends.
    deadlines: VecDeque<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Linearizable reads that came after the barrier below was asked for.
    waiting: Vec<ReadCall>,
    barrier: Option<Barrier>,
    /// Reads that may be done now.
    ready: VecDeque<ReadCall>,
    writes: FuturesUnordered<BoxFuture<'static, (u64, Replied)>>,
    answers: Vec<v1::Answer>,
    answer_bytes: usize,
}

struct UnderWay {
    begun: Instant,
    method: Arc<Method>,
}

/// Linearizable reads that wait together.
struct Barrier {
    passed: BoxFuture<'static, Result<(), ReadFailure>>,
    reads: Vec<ReadCall>,
}

struct ReadCall {
    id: u64,
    asked: ReadAsked,
}

enum ReadAsked {
    Get(v1::GetRequest),
    Check(v1::CheckRequest),
}

impl CallStream {
    pub(super) fn new(
        service: LedgerCallService,
        caller: Caller,
        permissions: Permissions,
        calls: Streaming<v1::CallBatch>,
    ) -> Self {
        let mut closing = service.closing.clone();
        Self {
            service,
            caller: Arc::new(caller),
            permissions,
            calls: Some(calls),
            closing: Box::pin(async move { closing.requested().await }),
            under_way: HashMap::new(),
            deadlines: VecDeque::new(),
            timer: None,
            waiting: Vec::new(),
            barrier: None,
            ready: VecDeque::new(),
            writes: FuturesUnordered::new(),
            answers: Vec::new(),
            answer_bytes: 0,
        }
    }

    /// Takes in what has come, as long as there is room for it.
    fn poll_calls(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        // Writes whose time was up are answered and still under way.
        while self.under_way.len().max(self.writes.len()) < CALLS_MAX
            && self.ready.is_empty()
            && let Some(calls) = &mut self.calls
        {
            match calls.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(Some(batch)) => self.begin(batch.map_err(in_own_words)?)?,
                Poll::Ready(None) => self.calls = None,
            }
        }
        Ok(())
    }

    fn begin(&mut self, batch: v1::CallBatch) -> Result<(), Status> {
        let given = batch.calls.len();
        if given > CALLS_MAX {
            let fault = FieldFault::Entries { limit: CALLS_MAX, given };
            return Err(BadField { field: "calls".to_owned(), fault }.into());
        }
        let begun = Instant::now();
        for (index, call) in batch.calls.into_iter().enumerate() {
            let v1::Call { id, call } = call;
            let asked = required(call, format_args!("calls[{index}].call"))?;
            let method = match &asked {
                Asked::Get(_) => &self.service.methods.get,
                Asked::Check(_) => &self.service.methods.check,
                Asked::Write(_) => &self.service.methods.write,
            };
            let call = UnderWay { begun, method: Arc::clone(method) };
            if self.under_way.insert(id, call).is_some() {
                let field = format!("calls[{index}].id");
                return Err(BadField { field, fault: FieldFault::IdUnderWay { given: id } }.into());
            }
            self.deadlines.push_back((begun + self.service.call_timeout, id));
            match asked {
                Asked::Get(get) => match self.permissions.get.clone() {
                    Ok(()) => self.begin_read(id, get.consistency, ReadAsked::Get(get)),
                    Err(denied) => self.answer(id, Err(denied)),
                },
                Asked::Check(check) => match self.permissions.check.clone() {
                    Ok(()) => self.begin_read(id, check.consistency, ReadAsked::Check(check)),
                    Err(denied) => self.answer(id, Err(denied)),
                },
                Asked::Write(write) => match self.permissions.write.clone() {
                    Ok(()) => self.begin_write(id, write),
                    Err(denied) => self.answer(id, Err(denied)),
                },
            }
        }
        Ok(())
    }

    fn begin_read(&mut self, id: u64, consistency: i32, asked: ReadAsked) {
        let call = ReadCall { id, asked };
        match read::consistency(consistency) {
            Ok(Consistency::Eventual) => self.ready.push_back(call),
            Ok(Consistency::Linearizable) => self.waiting.push(call),
            Err(bad) => self.answer(id, Err(bad.into())),
        }
    }

    fn begin_write(&mut self, id: u64, write: v1::WriteRequest) {
        let (writes, caller) = (self.service.writes.clone(), Arc::clone(&self.caller));
        self.writes
            .push(Box::pin(async move { (id, writes.write_as(&caller, write).await.map(Reply::Write)) }));
    }

    /// Reads that came while a barrier was on its way wait for the next: its index may have been fixed before they came.
    fn poll_barrier(&mut self, context: &mut Context<'_>) {
        loop {
            if self.barrier.is_none() && !self.waiting.is_empty() {
                let ledger = self.service.ledger.clone();
                let passed = Box::pin(async move { ledger.catch_up().await });
                self.barrier = Some(Barrier { passed, reads: std::mem::take(&mut self.waiting) });
            }
            let Some(barrier) = &mut self.barrier else { return };
            let Poll::Ready(passed) = barrier.passed.as_mut().poll(context) else { return };
            let reads = self.barrier.take().map_or_else(Vec::new, |barrier| barrier.reads);
            match passed {
                Ok(()) => self.ready.extend(reads),
                Err(failure) => {
                    let status = errors::read_failed(failure);
                    reads.into_iter().for_each(|call| self.answer(call.id, Err(status.clone())));
                }
            }
        }
    }

    /// Does the reads that may be done, until a message is full.
    fn read_ready(&mut self) {
        while self.answer_bytes < MESSAGE_BYTES
            && let Some(ReadCall { id, asked }) = self.ready.pop_front()
        {
            // Its time may have been up meanwhile.
            if self.under_way.contains_key(&id) {
                let reply = match asked {
                    ReadAsked::Get(get) => self.get(get),
                    ReadAsked::Check(check) => self.check(check),
                };
                self.answer(id, reply);
            }
        }
    }

    fn get(&self, request: v1::GetRequest) -> Replied {
        let vault = self.caller.vault(request.vault)?;
        let key = address::entity_key(request.key, "key")?;
        let found = self.service.ledger.get_applied(&vault, &key).map_err(errors::read_failed)?;
        let position = Some(position(&found));
        let entity = found.value.map(|entity| read::entity_answer(key, entity));
        Ok(Reply::Get(v1::GetResponse { entity, position }))
    }

    fn check(&self, request: v1::CheckRequest) -> Replied {
        let vault = self.caller.vault(request.vault)?;
        let tuple = read::relationship(request.relationship)?;
        let found = self.service.ledger.check_applied(&vault, &tuple).map_err(errors::read_failed)?;
        Ok(Reply::Check(read::check_answer(&found)))
    }

    fn poll_writes(&mut self, context: &mut Context<'_>) {
        while self.answer_bytes < MESSAGE_BYTES
            && let Poll::Ready(Some((id, reply))) = self.writes.poll_next_unpin(context)
        {
            self.answer(id, reply);
        }
    }

    /// Answers those whose time is up.
    fn poll_deadlines(&mut self, context: &mut Context<'_>) {
        loop {
            while let Some((_, id)) = self.deadlines.front()
                && !self.under_way.contains_key(id)
            {
                self.deadlines.pop_front();
            }
            let Some((deadline, _)) = self.deadlines.front() else { return };
            let deadline = *deadline;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if timer.as_mut().poll(context).is_pending() {
                return;
            }
            self.timer = None;
            let now = Instant::now();
            while let Some((deadline, id)) = self.deadlines.front().copied()
                && deadline <= now
            {
                self.deadlines.pop_front();
                self.answer(id, Err(admission::out_of_time()));
            }
        }
    }

    fn answer(&mut self, id: u64, reply: Replied) {
        let Some(UnderWay { begun, method }) = self.under_way.remove(&id) else {
            return;
        };
        let code = reply.as_ref().err().map_or(Code::Ok, Status::code);
        method.answered(code, begun);
        let reply = reply.unwrap_or_else(|status| Reply::Refusal(refusal(&status)));
        self.answer_bytes += ANSWER_BYTES + content_bytes(&reply);
        self.answers.push(v1::Answer { id, answer: Some(reply) });
    }

    fn take_answers(&mut self) -> v1::AnswerBatch {
        self.answer_bytes = 0;
        v1::AnswerBatch { answers: std::mem::take(&mut self.answers) }
    }
}

impl Stream for CallStream {
    type Item = Result<v1::AnswerBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.calls.is_some() && this.closing.as_mut().poll(context).is_ready() {
            // What is under way is still answered.
            this.calls = None;
        }
        loop {
            let reads_were_left = !this.ready.is_empty();
            if let Err(status) = this.poll_calls(context) {
                this.calls = None;
                return Poll::Ready(Some(Err(status)));
            }
            this.poll_barrier(context);
            this.read_ready();
            this.poll_writes(context);
            this.poll_deadlines(context);
            if !this.answers.is_empty() {
                return Poll::Ready(Some(Ok(this.take_answers())));
            }
            if this.calls.is_none() && this.under_way.is_empty() {
                return Poll::Ready(None);
            }
            if !reads_were_left {
                return Poll::Pending;
            }
            // No calls were taken in because of reads whose time was up.
        }
    }
}

fn content_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Get(v1::GetResponse { entity: Some(entity), .. }) => entity.key.len() + entity.value.len(),
        Reply::Write(write) => write.results.len(),
        Reply::Refusal(refusal) => refusal.message.len() + refusal.details.len(),
        Reply::Get(_) | Reply::Check(_) => 0,
    }
}

fn refusal(status: &Status) -> v1::Refusal {
    v1::Refusal {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec().into(),
    }
}
