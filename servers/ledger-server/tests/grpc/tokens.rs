//! Tokens: minted, replicated, imported, revoked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ledger_proto::v1;
use ledger_server::access::{Role, Scope};
use ledger_server::tokens::{TokenId, TokenRegistry};
use sha2::Digest;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::{Clients, Setup, TestServer, refused};

/// No test waits longer for what must happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The text of the first administrator's token.
fn admin_token(server: &TestServer) -> String {
    let text = std::fs::read_to_string(server.tokens.admin_token_file().unwrap()).unwrap();
    text.trim_end().to_owned()
}

/// Whether any file below a directory but `admin.token` has these bytes.
fn is_stored(directory: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_stored(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap();
        !path.ends_with("admin.token") && content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_mints_one_administrator_and_stores_only_its_hash() {
    let server = TestServer::start().await;
    let path = server.tokens.admin_token_file().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = admin_token(&server);
    let caller = server.tokens.authenticate(&text).unwrap();
    assert_eq!((caller.role, caller.scope), (Role::Admin, Scope::Everything));
    let (_, other) = server.token(Role::Reader, "*").await;
    assert!(!format!("{:?}", server.tokens).contains(&text[20..]));
    let directory = server.stop().await;
    for text in [text, other] {
        // The secret may contain the separator.
        let secret = text.splitn(3, '_').nth(2).unwrap();
        assert!(!is_stored(directory.path(), secret.as_bytes()), "neither the log nor the state has it");
        let digest = sha2::Sha256::digest(text.as_bytes());
        assert!(is_stored(directory.path(), &digest), "they have its hash");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_survive_a_restart_and_revoked_ones_do_not_come_back() {
    let server = TestServer::start().await;
    let (kept, kept_text) = server.token(Role::Reader, "acme").await;
    let (gone, gone_text) = server.token(Role::Reader, "acme/main").await;
    let actors: Vec<String> =
        server.tokens.list().iter().map(|token| token.actor.as_str().to_owned()).collect();
    assert!(actors.contains(&format!("client:{kept}")), "{actors:?}");
    server.tokens.revoke(gone).await.unwrap();
    assert!(server.tokens.authenticate(&gone_text).is_none());
    let listed = server.tokens.list();
    let admin = admin_token(&server);
    let server = TestServer::start_in(server.stop().await, Setup::default()).await;
    assert_eq!(server.tokens.list(), listed);
    assert_eq!(admin_token(&server), admin, "none is minted again");
    assert!(server.tokens.authenticate(&kept_text).is_some());
    assert!(server.tokens.authenticate(&gone_text).is_none());
    let again = server.tokens.revoke(gone).await.unwrap_err().to_string();
    assert!(again.contains("there is no token"), "{again}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_secret_under_a_known_id_is_refused() {
    let server = TestServer::start().await;
    let (_, text) = server.token(Role::Reader, "*").await;
    for position in 20..text.len() {
        let mut altered = text.as_bytes().to_vec();
        altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(server.tokens.authenticate(&altered).is_none(), "{position}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_of_everything_cannot_be_revoked() {
    let server = TestServer::start().await;
    let mut admin = server.admin().await;
    let first = server.tokens.list()[0].id;
    server.token(Role::Admin, "acme").await;
    let request = |id: TokenId| v1::RevokeTokenRequest { id: id.to_string() };
    let refusal = admin.admin.revoke_token(request(first)).await;
    refused(refusal, Code::FailedPrecondition, "LAST_ADMIN_TOKEN");
    let (second, text) = server.token(Role::Admin, "*").await;
    admin.admin.revoke_token(request(first)).await.unwrap();
    assert!(server.tokens.admin_token_file().is_none(), "a revoked token is not offered");
    let mut admin = server.clients(Some(&text)).await;
    let refusal = admin.admin.revoke_token(request(second)).await;
    refused(refusal, Code::FailedPrecondition, "LAST_ADMIN_TOKEN");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_an_earlier_release_are_taken_into_the_ledger_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let text = "sr_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let sha256 = hex::encode(sha2::Sha256::digest(text.as_bytes()));
    let line = |id: &str, role: &str| {
        format!(
            r#"{{"id":"{id}","sha256":"{sha256}","role":"{role}","scope":"*","actor":"client:ci","created_at_ms":7}}"#
        )
    };
    let format_line = r#"{"format":"strongroom.tokens","version":1}"#;
    let (admin, reader) = (line("0123456789abcdef", "admin"), line("fedcba9876543210", "reader"));
    std::fs::write(&file, format!("{format_line}\n{admin}\n{reader}\n")).unwrap();
    let server = TestServer::start_in(directory, Setup::default()).await;
    let caller = server.tokens.authenticate(text).unwrap();
    assert_eq!((caller.role, caller.actor.as_str()), (Role::Admin, "client:ci"));
    assert_eq!(server.tokens.list().len(), 2);
    assert!(server.tokens.admin_token_file().is_none(), "nothing is minted");
    server.tokens.revoke("fedcba9876543210".parse().unwrap()).await.unwrap();

    let directory = server.stop().await;
    assert!(!directory.path().join("tokens").exists());
    let kept = std::fs::read_to_string(directory.path().join("tokens.imported")).unwrap();
    // Put back by mistake: what was revoked stays revoked.
    std::fs::write(directory.path().join("tokens"), kept).unwrap();
    let server = TestServer::start_in(directory, Setup::default()).await;
    assert_eq!(server.tokens.list().len(), 1);
    assert!(!server.directory.path().join("tokens").exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_newer_file_of_an_earlier_release_is_refused_by_name_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let ledger = crate::support::open_ledger(directory.path()).await;
    let tokens = TokenRegistry::new(ledger.clone(), directory.path());
    let format_line = r#"{"format":"strongroom.tokens","version":1}"#;
    let hash = "00".repeat(32);
    let token = format!(
        r#"{{"id":"0123456789abcdef","sha256":"{hash}","role":"admin","scope":"*","actor":"client:ci","created_at_ms":7}}"#
    );
    for (content, expected) in [
        (String::new(), "tokens, line 1"),
        (format!("{format_line}\n{}", token.replace("\"admin\"", "\"root\"")), "line 2"),
        (format_line.replace("\"version\":1", "\"version\":2"), "version 2"),
        (format!("{format_line}\n{token}\n{token}\n"), "twice"),
    ] {
        std::fs::write(&path, content).unwrap();
        let refusal = tokens.ensure_first(2).await.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(tokens.list().is_empty() && path.exists(), "nothing is taken and nothing is put away");
    }
    ledger.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_administrator_is_minted_when_a_file_asks_for_it_and_only_then() {
    let server = TestServer::start().await;
    let first = admin_token(&server);
    let directory = server.stop().await;
    std::fs::remove_file(directory.path().join("admin.token")).unwrap();
    let server = TestServer::start_in(directory, Setup::default()).await;
    assert!(server.tokens.admin_token_file().is_none() && server.tokens.authenticate(&first).is_some());
    let directory = server.stop().await;
    std::fs::write(directory.path().join("admin.token.wanted"), "").unwrap();
    let server = TestServer::start_in(directory, Setup::default()).await;
    let second = admin_token(&server);
    assert_ne!(first, second);
    assert_eq!(server.tokens.list().len(), 2);
    assert!(!server.directory.path().join("admin.token.wanted").exists());
    server.stop().await;
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
    let (id, text) = server.token(Role::Reader, "*").await;
    let (_, other) = server.token(Role::Reader, "*").await;
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
