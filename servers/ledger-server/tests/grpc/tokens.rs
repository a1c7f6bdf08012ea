//! The file of tokens.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ledger_proto::v1;
use ledger_server::access::Role;
use ledger_server::tokens::TokenRegistry;
use service_kit::logs::{self, LogSettings};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Clients, Setup, TestServer, refused};

/// No test waits longer for what must happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged_by_opening(directory: &Path) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = logs::layer_to(&LogSettings::default(), move || writer.clone()).unwrap();
    let subscriber = tracing_subscriber::registry().with(vec![layer]);
    tracing::subscriber::with_default(subscriber, || TokenRegistry::open(directory, 1).unwrap());
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_new_token_for_a_ledger_that_had_some_is_worth_a_warning_and_a_first_start_is_not() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(logged_by_opening(directory.path()), "");
    std::fs::write(directory.path().join("state.db"), "a ledger").unwrap();
    assert_eq!(logged_by_opening(directory.path()), "", "the tokens are there");
    std::fs::remove_file(directory.path().join("tokens")).unwrap();
    let warning = logged_by_opening(directory.path());
    assert!(
        warning.contains("\"WARN\"") && warning.contains("administrator's token was minted"),
        "{warning}"
    );
    assert!(!warning.contains("sr_"), "the secret stays out of the log");
}

/// An open reflection stream, which asks what it is told to.
struct OpenStream {
    questions: tokio::sync::mpsc::Sender<ServerReflectionRequest>,
    answers: tonic::Streaming<ServerReflectionResponse>,
}

impl OpenStream {
    async fn open(channel: &Channel, token: &str) -> Self {
        let (questions, asked) = tokio::sync::mpsc::channel(1);
        let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(asked));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut client = ServerReflectionClient::new(channel.clone());
        Self::ask(&questions).await;
        let answers = client.server_reflection_info(request).await.unwrap().into_inner();
        Self { questions, answers }
    }

    async fn ask(questions: &tokio::sync::mpsc::Sender<ServerReflectionRequest>) {
        let question = MessageRequest::ListServices(String::new());
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        questions.send(question).await.unwrap();
    }

    /// The next message, or how the stream ended; the test fails when nothing comes.
    async fn next(&mut self) -> Result<Option<ServerReflectionResponse>, tonic::Status> {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("something comes")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_at_the_next_call_and_its_open_stream_ends_at_once() {
    // Reflection needs a credential on an address that is not loopback.
    let setup = Setup { address: Some("0.0.0.0:0".parse().unwrap()), ..Setup::default() };
    let server = TestServer::start_with(setup).await;
    let (id, text) = server.token(Role::Reader, "*");
    let (_, other) = server.token(Role::Reader, "*");
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.address.port())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut stream = OpenStream::open(&channel, &text).await;
    let mut others = OpenStream::open(&channel, &other).await;
    assert!(stream.next().await.unwrap().is_some() && others.next().await.unwrap().is_some());

    let admin = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    let mut admin = Clients::new(channel.clone(), Some(admin.trim_end()));
    admin.admin.revoke_token(v1::RevokeTokenRequest { id: id.to_string() }).await.unwrap();
    // Nobody asks anything on it: the stream ends by itself.
    refused(stream.next().await, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    let mut revoked = Clients::new(channel.clone(), Some(&text));
    let info = revoked.admin.get_node_info(v1::GetNodeInfoRequest {}).await;
    refused(info, Code::Unauthenticated, "CREDENTIAL_REFUSED");
    OpenStream::ask(&others.questions).await;
    assert!(others.next().await.unwrap().is_some(), "another's stream goes on");
    drop((stream, others));
    server.stop().await;
}
