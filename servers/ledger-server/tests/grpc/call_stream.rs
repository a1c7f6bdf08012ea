//! Calls over a stream: the same answers, refusals and limits as requests of their own.

use std::collections::BTreeMap;

use ledger_proto::v1;
use ledger_proto::v1::answer::Answer as Reply;
use ledger_proto::v1::call::Call as Asked;
use ledger_proto::v1::call_service_client::CallServiceClient;
use ledger_server::access::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::support::{Setup, TestServer, new_key, reason, refused, relate, set, tuple, vault_ref};

/// A stream that is open.
struct Line {
    calls: mpsc::Sender<v1::CallBatch>,
    answers: Streaming<v1::AnswerBatch>,
}

impl Line {
    async fn open(server: &TestServer, token: &str) -> Result<Self, Status> {
        let (calls, sent) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(sent));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let channel = server.endpoint().connect().await.unwrap();
        let mut client = CallServiceClient::new(channel).max_decoding_message_size(8 * 1_048_576);
        let answers = client.call(request).await?.into_inner();
        Ok(Self { calls, answers })
    }

    async fn send(&self, calls: impl IntoIterator<Item = (u64, Asked)>) {
        let calls = calls.into_iter().map(|(id, call)| v1::Call { id, call: Some(call) }).collect();
        self.calls.send(v1::CallBatch { calls }).await.unwrap();
    }

    /// The next `count` answers by id.
    async fn receive(&mut self, count: usize) -> BTreeMap<u64, Reply> {
        let mut received = BTreeMap::new();
        while received.len() < count {
            let batch = self.answers.message().await.unwrap().expect("more answers");
            for answer in batch.answers {
                let twice = received.insert(answer.id, answer.answer.unwrap());
                assert!(twice.is_none(), "{} was answered twice", answer.id);
            }
        }
        received
    }
}

fn get(namespace: &str, vault: &str, key: &str) -> Asked {
    let vault = Some(vault_ref(namespace, vault));
    Asked::Get(v1::GetRequest { vault, key: key.to_owned(), consistency: 0 })
}

fn write(vault: &str, operations: Vec<v1::Operation>) -> Asked {
    let vault = Some(vault_ref("acme", vault));
    Asked::Write(v1::WriteRequest { vault, idempotency_key: new_key().into(), operations })
}

fn refusal(reply: &Reply) -> (Code, String) {
    let Reply::Refusal(refusal) = reply else { panic!("it was answered: {reply:?}") };
    let status =
        Status::with_details(Code::from(refusal.code), refusal.message.clone(), refusal.details.clone());
    (status.code(), reason(&status))
}

async fn server_with_vault() -> TestServer {
    let server = TestServer::start().await;
    server.admin().await.create("acme", "main").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_are_answered_by_id_and_see_each_other() {
    let server = server_with_vault().await;
    let mut line = Line::open(&server, &server.token(Role::Writer, "acme/main").await.1).await.unwrap();
    let writes = (0..500).map(|id| (id, write("main", vec![set(&format!("key:{id}"), vec![7; 100])])));
    line.send(writes).await;
    for (id, reply) in line.receive(500).await {
        let Reply::Write(written) = reply else { panic!("{id}: {reply:?}") };
        assert_eq!(written.results, [v1::OperationResult::Created as i32]);
    }
    let door = tuple("door:1", "opens", "user:2");
    line.send([(1_000, write("main", vec![relate(door.clone())]))]).await;
    line.receive(1).await;
    let check = v1::CheckRequest {
        vault: Some(vault_ref("acme", "main")),
        relationship: Some(door),
        consistency: v1::Consistency::Eventual.into(),
    };
    line.send((0..500).map(|id| (id, get("acme", "main", &format!("key:{id}"))))).await;
    line.send([(600, Asked::Check(check)), (601, get("acme", "main", "nothing"))]).await;
    let mut answers = line.receive(502).await;
    assert!(matches!(answers.remove(&600), Some(Reply::Check(found)) if found.exists && found.version > 0));
    assert!(matches!(answers.remove(&601), Some(Reply::Get(found)) if found.entity.is_none()));
    for (id, reply) in answers {
        let Reply::Get(found) = reply else { panic!("{id}: {reply:?}") };
        let entity = found.entity.unwrap();
        assert_eq!((entity.key, entity.value.len()), (format!("key:{id}"), 100));
    }
    drop(line);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_refused_for_itself_with_the_reason_of_the_request_that_does_the_same() {
    let server = server_with_vault().await;
    let mut line = Line::open(&server, &server.token(Role::Reader, "acme/main").await.1).await.unwrap();
    line.send([
        (1, write("main", vec![set("key", "value")])),
        (2, get("acme", "other", "key")),
        (3, get("acme", "main", "")),
        (4, get("acme", "main", "key")),
        (5, Asked::Get(v1::GetRequest { vault: None, key: "key".to_owned(), consistency: 0 })),
        (6, Asked::Get(v1::GetRequest { vault: None, key: "key".to_owned(), consistency: 9 })),
    ])
    .await;
    let answers = line.receive(6).await;
    let denied = (Code::PermissionDenied, "PERMISSION_DENIED".to_owned());
    assert_eq!(refusal(&answers[&1]), denied);
    assert_eq!(refusal(&answers[&2]), denied);
    for id in [3, 5, 6] {
        assert_eq!(refusal(&answers[&id]), (Code::InvalidArgument, "INVALID_ARGUMENT".to_owned()));
    }
    assert!(matches!(&answers[&4], Reply::Get(found) if found.entity.is_none()));
    server.gate.follow_disk(service_kit::disk::DiskState::ReadOnly);
    let mut writer = Line::open(&server, &server.token(Role::Writer, "acme/main").await.1).await.unwrap();
    writer.send([(1, write("main", vec![set("key", "value")]))]).await;
    assert_eq!(
        refusal(&writer.receive(1).await[&1]),
        (Code::ResourceExhausted, "DISK_FULL".to_owned()),
        "the disk guard holds on streams too"
    );
    drop((line, writer));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_fit_one_message_come_in_several() {
    let server = server_with_vault().await;
    let mut line = Line::open(&server, &server.token(Role::Writer, "acme/main").await.1).await.unwrap();
    line.send([(0, write("main", vec![set("large", vec![1; 1_000_000])]))]).await;
    line.receive(1).await;
    // 40 MB of answers, while nobody reads them.
    line.send((0..40).map(|id| (id, get("acme", "main", "large")))).await;
    line.send([(50, write("main", vec![set("small", "value")]))]).await;
    let answers = line.receive(41).await;
    let large = |reply: &Reply| matches!(reply, Reply::Get(found) if found.entity.as_ref().unwrap().value.len() == 1_000_000);
    assert_eq!(answers.values().filter(|reply| large(reply)).count(), 40);
    drop(line);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_too_many_calls_or_with_an_id_under_way_ends_the_stream() {
    let server = server_with_vault().await;
    let token = server.token(Role::Reader, "acme/main").await.1;
    let batches: [Vec<(u64, Asked)>; 2] = [
        (0..1_025).map(|id| (id, get("acme", "main", "key"))).collect(),
        vec![(7, get("acme", "main", "key")), (7, get("acme", "main", "key"))],
    ];
    for batch in batches {
        let mut line = Line::open(&server, &token).await.unwrap();
        line.send(batch).await;
        refused(line.answers.message().await, Code::InvalidArgument, "INVALID_ARGUMENT");
    }
    let mut line = Line::open(&server, &token).await.unwrap();
    line.calls.send(v1::CallBatch { calls: vec![v1::Call { id: 1, call: None }] }).await.unwrap();
    refused(line.answers.message().await, Code::InvalidArgument, "INVALID_ARGUMENT");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_stream_need_no_place_of_a_request_and_a_stream_has_one_of_its_own() {
    let setup = Setup { requests_max: Some(1), streams_max: Some(1), ..Setup::default() };
    let server = TestServer::start_with(setup).await;
    let mut clients = server.admin().await;
    clients.create("acme", "main").await;
    let token = server.token(Role::Writer, "acme/main").await.1;
    let mut line = Line::open(&server, &token).await.unwrap();
    // As many as a stream takes at once, beside a request.
    line.send((0..1_024).map(|id| (id, write("main", vec![set(&format!("key:{id}"), "value")])))).await;
    clients.write(&vault_ref("acme", "main"), vec![set("beside", "value")]).await.unwrap();
    for (id, reply) in line.receive(1_024).await {
        assert!(matches!(reply, Reply::Write(_)), "{id}: {reply:?}");
    }
    let shed = Line::open(&server, &token).await.map(drop).unwrap_err();
    assert_eq!(shed.code(), Code::ResourceExhausted, "{shed}");
    drop(line);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_streams_and_opens_none() {
    let server = server_with_vault().await;
    let (id, token) = server.token(Role::Reader, "acme/main").await;
    let mut line = Line::open(&server, &token).await.unwrap();
    line.send([(1, get("acme", "main", "key"))]).await;
    line.receive(1).await;
    server.tokens.revoke(id).await.unwrap();
    refused(line.answers.message().await, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    let again = Line::open(&server, &token).await.map(|_| ());
    refused(again, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_answers_what_is_under_way_and_ends_the_stream() {
    let server = server_with_vault().await;
    let mut line = Line::open(&server, &server.token(Role::Writer, "acme/main").await.1).await.unwrap();
    line.send((0..200).map(|id| (id, write("main", vec![set(&format!("key:{id}"), "value")])))).await;
    // The first answer shows that the server has read the message.
    let mut received = 0;
    received += line.answers.message().await.unwrap().unwrap().answers.len();
    let stopping = tokio::spawn(server.stop());
    while let Some(batch) = line.answers.message().await.unwrap() {
        received += batch.answers.len();
    }
    assert_eq!(received, 200);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_says_no_more_will_come_gets_all_its_answers() {
    let server = server_with_vault().await;
    let Line { calls, mut answers } =
        Line::open(&server, &server.token(Role::Writer, "acme/main").await.1).await.unwrap();
    let batch = (0..100).map(|id| v1::Call { id, call: Some(write("main", vec![set("key", "value")])) });
    calls.send(v1::CallBatch { calls: batch.collect() }).await.unwrap();
    drop(calls);
    let mut received = 0;
    while let Some(batch) = answers.message().await.unwrap() {
        received += batch.answers.len();
    }
    assert_eq!(received, 100);
    server.stop().await;
}
