//! Calls over one stream: what is known of them when it breaks, and that they are repeated as the same calls.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_client::{CallPath, ClientError, ClientOptions, Consistency, ErrorCode, LedgerClient, MemoryPins};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, IdempotencyKey, Operation, Transaction};
use ledger_proto::v1;
use ledger_proto::v1::answer::Answer as Reply;
use ledger_proto::v1::call::Call as Asked;
use ledger_proto::v1::call_service_server::{CallService, CallServiceServer};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

/// What the server does with the next call that it reads.
enum Step {
    Answer,
    /// Ends the stream with this status; without one, in order.
    End(Option<Status>),
    /// Reads on and never answers.
    Ignore,
}

#[derive(Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    streams: Mutex<u32>,
    /// Calls of each message.
    messages: Mutex<Vec<Vec<v1::Call>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(call: Asked) -> Reply {
    match call {
        Asked::Get(get) => Reply::Get(v1::GetResponse {
            entity: Some(v1::Entity {
                key: get.key,
                value: "value".into(),
                version: 1,
                modified_height: 1,
                expires_at_ms: 0,
            }),
            position: Some(v1::ReadPosition { height: 1, log_time_ms: 1_800_000_000_000 }),
        }),
        Asked::Check(_) => Reply::Check(v1::CheckResponse::default()),
        Asked::Write(write) => Reply::Write(v1::WriteResponse {
            receipt: Some(v1::Receipt {
                vault_id: vec![9; 16].into(),
                height: 1,
                version: 1,
                index_in_block: 0,
                block_hash: vec![1; 32].into(),
                time_ms: 1_800_000_000_500,
            }),
            results: vec![v1::OperationResult::Created.into(); write.operations.len()],
            replayed: false,
        }),
    }
}

struct Service(Arc<Script>);

#[tonic::async_trait]
impl CallService for Service {
    type CallStream = Pin<Box<dyn Stream<Item = Result<v1::AnswerBatch, Status>> + Send>>;

    async fn call(
        &self,
        request: Request<Streaming<v1::CallBatch>>,
    ) -> Result<Response<Self::CallStream>, Status> {
        *lock(&self.0.streams) += 1;
        let (script, mut calls) = (Arc::clone(&self.0), request.into_inner());
        let (answers, sent) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(Ok(batch)) = calls.next().await {
                lock(&script.messages).push(batch.calls.clone());
                let mut done = Vec::new();
                for v1::Call { id, call } in batch.calls {
                    let step = lock(&script.steps).pop_front().unwrap_or(Step::Answer);
                    match step {
                        Step::Answer => done.push(v1::Answer { id, answer: call.map(reply) }),
                        Step::Ignore => {}
                        Step::End(Some(status)) => return drop(answers.send(Err(status)).await),
                        Step::End(None) => return,
                    }
                }
                if answers.send(Ok(v1::AnswerBatch { answers: done })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(sent))))
    }
}

async fn client(script: &Arc<Script>, timeout: Duration) -> LedgerClient {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound address"));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = CallServiceServer::new(Service(Arc::clone(script)));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut options = ClientOptions::new(url);
    options.request_timeout = timeout;
    options.retry.backoff_min = Duration::from_millis(2);
    assert_eq!(options.calls, CallPath::Streamed, "what clients do when nobody says otherwise");
    LedgerClient::connect(options, Arc::new(MemoryPins::default())).expect("valid options")
}

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn transaction() -> Transaction {
    let action = Action::SetEntity {
        key: EntityKey::new("door").expect("a valid key"),
        value: EntityValue::new(b"open".to_vec()).expect("a small value"),
        expires_at_ms: 0,
    };
    let key = IdempotencyKey::from_parts(1_800_000_000_000, [5; 10]);
    Transaction::new(key, vec![Operation { action, condition: None }]).expect("a valid transaction")
}

fn keys_seen(script: &Script) -> Vec<Vec<u8>> {
    let messages = lock(&script.messages);
    let calls = messages.iter().flatten().filter_map(|call| call.call.as_ref());
    calls
        .filter_map(|call| match call {
            Asked::Write(write) => Some(write.idempotency_key.to_vec()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_write_whose_stream_breaks_is_repeated_on_another_one_under_the_same_key() {
    let script = Arc::new(Script::default());
    lock(&script.steps).extend([Step::End(Some(Status::unavailable("restarting"))), Step::End(None)]);
    let client = client(&script, Duration::from_secs(30)).await;
    client.write_transaction(&vault(), &transaction()).await.expect("the third try succeeds");
    let keys = keys_seen(&script);
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key == &keys[0]), "{keys:?}");
    assert_eq!(*lock(&script.streams), 3);
}

#[tokio::test]
async fn calls_made_at_once_share_a_stream_and_their_messages() {
    let script = Arc::new(Script::default());
    let client = client(&script, Duration::from_secs(30)).await;
    let reads = (0..200).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let key = EntityKey::new(&format!("key:{number}")).expect("a valid key");
            client.get(&vault(), &key, Consistency::Linearizable).await.expect("an answer")
        })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.expect("no panic").height, 1);
    }
    assert_eq!(*lock(&script.streams), 1);
    let messages = lock(&script.messages).len();
    assert!(messages < 100, "200 calls went out in {messages} messages");
}

#[tokio::test]
async fn a_call_without_an_answer_ends_with_its_time_and_leaves_the_others_alone() {
    let script = Arc::new(Script::default());
    lock(&script.steps).extend([Step::Ignore, Step::Answer, Step::Ignore, Step::Ignore]);
    let client = client(&script, Duration::from_millis(300)).await;
    let key = EntityKey::new("key").expect("a valid key");
    let vault = vault();
    let late = client.get(&vault, &key, Consistency::Eventual);
    let other = client.get(&vault, &key, Consistency::Eventual);
    let (late, other) = tokio::join!(late, other);
    other.expect("the second call was answered");
    let error = late.expect_err("no try was answered");
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded, "{error}");
    assert_eq!(*lock(&script.streams), 1, "the stream goes on");
}

#[tokio::test]
async fn a_refusal_of_the_stream_is_the_refusal_of_every_call_on_it() {
    let script = Arc::new(Script::default());
    lock(&script.steps).push_back(Step::End(Some(Status::new(Code::Unauthenticated, "revoked"))));
    let client = client(&script, Duration::from_secs(30)).await;
    let error = client.write_transaction(&vault(), &transaction()).await.expect_err("it was refused");
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.tries == 1), "{error:?}");
    assert_eq!(error.code(), ErrorCode::Unauthorized);
}
