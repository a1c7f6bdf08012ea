//! A write is sent again only when that is safe, and always as the same write.

mod scripted;

use std::time::Duration;

use ledger_client::{ClientError, ErrorCode};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, IdempotencyKey, Operation, Transaction};
use scripted::{Script, client, lock};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn put() -> Vec<Operation> {
    let action = Action::SetEntity {
        key: EntityKey::new("door").expect("a valid key"),
        value: EntityValue::new(b"open".to_vec()).expect("a small value"),
        expires_at_ms: 0,
    };
    vec![Operation { action, condition: None }]
}

fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: std::collections::HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let details = ErrorDetails::with_error_info(reason, ledger_proto::ERROR_DOMAIN, metadata);
    Status::with_error_details(code, "scripted", details)
}

fn keys_seen(script: &Script) -> Vec<Vec<u8>> {
    lock(&script.writes_seen).iter().map(|(_, request)| request.idempotency_key.to_vec()).collect()
}

#[tokio::test]
async fn a_write_with_unknown_outcome_is_repeated_under_the_same_key() {
    let script = Script::new();
    lock(&script.write_answers)
        .extend([Err(Status::unavailable("the node restarts")), Err(Status::deadline_exceeded("slow disk"))]);
    let receipt = client(&script).await.write(&vault(), put()).await.expect("the third try succeeds");
    assert_eq!(receipt.version, 1);
    let keys = keys_seen(&script);
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key == &keys[0]), "{keys:?}");
}

#[tokio::test]
async fn an_overloaded_server_is_given_the_time_it_asks_for() {
    let script = Script::new();
    let mut details = ErrorDetails::with_error_info(
        "OVERLOADED",
        ledger_proto::ERROR_DOMAIN,
        std::collections::HashMap::<String, String>::new(),
    );
    details.set_retry_info(Some(Duration::from_millis(300)));
    let overloaded = Status::with_error_details(Code::ResourceExhausted, "full", details);
    lock(&script.write_answers).push_back(Err(overloaded));
    client(&script).await.write(&vault(), put()).await.expect("the second try succeeds");
    let seen = lock(&script.writes_seen);
    assert_eq!(seen.len(), 2);
    assert!(seen[1].0 - seen[0].0 >= Duration::from_millis(300));
}

#[tokio::test]
async fn tries_end_after_three() {
    let script = Script::new();
    lock(&script.write_answers).extend((0..9).map(|_| Err(Status::unavailable("down"))));
    let error = client(&script).await.write(&vault(), put()).await.expect_err("it stays down");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(error.refusal().map(|refusal| refusal.tries), Some(3));
    assert_eq!(keys_seen(&script).len(), 3);
}

#[tokio::test]
async fn a_failed_condition_is_not_repeated_and_carries_its_facts() {
    let script = Script::new();
    let metadata = [("op_index", "2"), ("current_version", "41"), ("current_value_base64", "b3Blbg==")];
    lock(&script.write_answers).push_back(Err(status(
        Code::FailedPrecondition,
        "VERSION_MISMATCH",
        &metadata,
    )));
    let error = client(&script).await.write(&vault(), put()).await.expect_err("the condition fails");
    assert_eq!((error.code(), error.reason()), (ErrorCode::ConditionFailed, "VERSION_MISMATCH"));
    let refusal = error.refusal().expect("a refusal");
    assert_eq!((refusal.op_index, refusal.current_version), (Some(2), Some(41)));
    assert_eq!(refusal.current_value.as_deref(), Some(b"open".as_slice()));
    assert_eq!(keys_seen(&script).len(), 1);
}

#[tokio::test]
async fn keys_carry_the_ledgers_time_which_is_asked_for_once() {
    let script = Script::new();
    *lock(&script.log_time_ms) = 1_700_000_000_000;
    let client = client(&script).await;
    client.write(&vault(), put()).await.expect("a write");
    client.write(&vault(), put()).await.expect("a write");
    let stamps: Vec<u64> = keys_seen(&script)
        .iter()
        .map(|key| {
            IdempotencyKey::new(key.as_slice().try_into().expect("16 bytes")).expect("version 7").unix_ms()
        })
        .collect();
    assert!((1_700_000_000_000..1_700_000_060_000).contains(&stamps[0]), "{stamps:?}");
    // The first receipt taught a later time.
    assert!((1_800_000_000_500..1_800_000_060_500).contains(&stamps[1]), "{stamps:?}");
    assert_eq!(*lock(&script.node_info_calls), 1);
}

#[tokio::test]
async fn a_key_refused_for_its_time_is_minted_anew_only_when_nothing_can_have_happened() {
    let script = Script::new();
    let future = || {
        Err(status(Code::InvalidArgument, "IDEMPOTENCY_KEY_IN_FUTURE", &[("log_time_ms", "1750000000000")]))
    };
    lock(&script.write_answers).push_back(future());
    let client = client(&script).await;
    client.write(&vault(), put()).await.expect("the corrected key is taken");
    let keys = keys_seen(&script);
    assert_ne!(keys[0], keys[1]);
    let corrected = IdempotencyKey::new(keys[1].as_slice().try_into().expect("16 bytes")).expect("version 7");
    assert!((1_750_000_000_000..1_750_000_060_000).contains(&corrected.unix_ms()));

    // After a try with unknown outcome the same refusal must reach the caller.
    lock(&script.write_answers).extend([Err(Status::unavailable("lost")), future()]);
    let error = client.write(&vault(), put()).await.expect_err("the outcome of the first try is unknown");
    assert_eq!(error.reason(), "IDEMPOTENCY_KEY_IN_FUTURE");
    assert_eq!(keys_seen(&script).len(), 4);
}

#[tokio::test]
async fn expiries_count_from_the_time_of_the_key_also_after_a_correction() {
    let script = Script::new();
    let refused =
        status(Code::InvalidArgument, "IDEMPOTENCY_KEY_IN_FUTURE", &[("log_time_ms", "1750000000000")]);
    lock(&script.write_answers).push_back(Err(refused));
    let expiring = |time_ms: u64| -> Result<Vec<Operation>, ClientError> {
        let mut operations = put();
        if let Action::SetEntity { expires_at_ms, .. } = &mut operations[0].action {
            *expires_at_ms = time_ms + 60_000;
        }
        Ok(operations)
    };
    client(&script).await.write_expiring(&vault(), expiring).await.expect("the corrected key is taken");
    let seen = lock(&script.writes_seen);
    assert_eq!(seen.len(), 2);
    for (_, request) in seen.iter() {
        let key = IdempotencyKey::new(request.idempotency_key.as_ref().try_into().expect("16 bytes"));
        let Some(ledger_proto::v1::operation::Action::SetEntity(set)) = &request.operations[0].action else {
            panic!("not a put")
        };
        assert_eq!(set.expires_at_ms, key.expect("version 7").unix_ms() + 60_000);
    }
}

#[tokio::test]
async fn what_breaks_a_limit_of_the_ledger_is_not_sent() {
    let script = Script::new();
    let client = client(&script).await;
    let value = EntityValue::new(vec![b'v'; 1_048_576]).expect("as large as allowed");
    let large = |n: u32, expires_at_ms: u64| Operation {
        action: Action::SetEntity {
            key: EntityKey::new(&format!("{n}")).expect("a valid key"),
            value: value.clone(),
            expires_at_ms,
        },
        condition: None,
    };
    let error = client.write(&vault(), (0..5).map(|n| large(n, 0)).collect()).await.expect_err("over 4 MiB");
    assert_eq!((error.code(), error.reason()), (ErrorCode::InvalidArgument, "TRANSACTION_TOO_LARGE"));
    let error = client.write(&vault(), vec![large(0, u64::MAX)]).await.expect_err("no signed number");
    assert!(error.code() == ErrorCode::InvalidArgument && error.to_string().contains("expiry"), "{error}");
    assert_eq!(keys_seen(&script).len(), 0);
}

#[tokio::test]
async fn a_callers_own_transaction_keeps_its_key() {
    let script = Script::new();
    let key = IdempotencyKey::from_parts(1_800_000_000_000, [5; 10]);
    let transaction = Transaction::new(key, put()).expect("a small transaction");
    client(&script).await.write_transaction(&vault(), &transaction).await.expect("a write");
    assert_eq!(keys_seen(&script), [key.as_bytes().to_vec()]);
    assert_eq!(*lock(&script.authorizations_seen), ["Bearer sr_0123456789abcdef_x"]);
}

#[tokio::test]
async fn nobody_there_is_unavailable_with_a_hint() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let pins = std::sync::Arc::new(ledger_client::MemoryPins::default());
    let client = ledger_client::LedgerClient::connect(scripted::options(&url), pins).expect("valid options");
    let error = client.node_info().await.expect_err("nobody listens");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.hint().is_some_and(|hint| hint.contains("--url")));
    assert!(matches!(error, ClientError::Refused(_)));
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_by_name() {
    let pins = || std::sync::Arc::new(ledger_client::MemoryPins::default());
    for (urls, expected) in [("", "no URL"), ("localhost:1", "not a URL"), ("https://h:1", "--tls-ca")] {
        let error = ledger_client::LedgerClient::connect(ledger_client::ClientOptions::new(urls), pins());
        let error = error.expect_err(urls).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_client_outside_of_a_runtime_is_refused() {
    let pins = std::sync::Arc::new(ledger_client::MemoryPins::default());
    let options = ledger_client::ClientOptions::new("http://127.0.0.1:1");
    let error = ledger_client::LedgerClient::connect(options, pins).expect_err("no runtime");
    assert!(error.to_string().contains("tokio runtime"));
}
