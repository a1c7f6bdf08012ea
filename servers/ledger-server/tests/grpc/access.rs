//! Nobody gets more than the credential permits.

use ledger_proto::v1;
use ledger_server::access::Role;
use prost::Message;
use tonic::{Code, Status};

use crate::support::{Setup, TestServer, ledger_methods, raw_call, reason, set, vault_ref};

/// What the definitions say of a method, told here a second time and by other means than the server's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Reader,
    Writer,
    Anyone,
    AdminOfVault,
    AdminOfAll,
}

fn needs(path: &str) -> Needs {
    match path.trim_start_matches("/strongroom.ledger.v1.").split_once('/').unwrap() {
        ("ReadService", _) => Needs::Reader,
        ("WriteService", _) => Needs::Writer,
        ("CallService", _) => Needs::Anyone,
        ("AdminService", "GetNodeInfo") => Needs::Anyone,
        ("AdminService", "CheckIntegrity" | "RecoverVault") => Needs::AdminOfVault,
        ("AdminService", _) => Needs::AdminOfAll,
        other => panic!("{other:?}"),
    }
}

/// A request that every call on a vault understands: the vault is the first field of all of them.
fn on_vault(namespace: &str, vault: &str) -> bytes::Bytes {
    let tip = v1::GetTipRequest { vault: Some(vault_ref(namespace, vault)), consistency: 0 };
    tip.encode_to_vec().into()
}

fn denied(answer: &Result<bytes::Bytes, Status>) -> bool {
    matches!(answer, Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_every_call_is_unauthenticated() {
    let server = TestServer::start().await;
    server.admin().await.create("acme", "main").await;
    let (revoked_id, revoked) = server.token(Role::Admin, "*").await;
    server.tokens.revoke(revoked_id).await.unwrap();
    let (_, valid) = server.token(Role::Admin, "*").await;
    let before = server.fingerprint();
    let altered = format!("{}{}", &valid[..valid.len() - 1], if valid.ends_with('A') { 'B' } else { 'A' });
    let credentials = [
        (None, "CREDENTIAL_MISSING"),
        (Some(String::new()), "CREDENTIAL_REFUSED"),
        (Some("Bearer".to_owned()), "CREDENTIAL_REFUSED"),
        (Some("Bearer ".to_owned()), "CREDENTIAL_REFUSED"),
        (Some(valid.clone()), "CREDENTIAL_REFUSED"),
        (Some(format!("Basic {valid}")), "CREDENTIAL_REFUSED"),
        (Some(format!("Bearer {valid} ")), "CREDENTIAL_REFUSED"),
        (Some(format!("Bearer {altered}")), "CREDENTIAL_REFUSED"),
        (Some(format!("Bearer {revoked}")), "CREDENTIAL_REFUSED"),
        (Some(format!("Bearer {}", "x".repeat(5_000))), "CREDENTIAL_REFUSED"),
    ];
    let channel = server.endpoint().connect().await.unwrap();
    for path in ledger_methods() {
        for (authorization, wanted) in &credentials {
            let body = on_vault("acme", "main");
            let answer = raw_call(channel.clone(), &path, authorization.as_deref(), body).await;
            let status = answer.expect_err(&path);
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, *wanted), "{path}");
            assert!(!status.message().contains(&valid[20..]), "the credential came back: {status}");
        }
    }
    assert_eq!(server.fingerprint(), before);
    let any_case = format!("bEARER {valid}");
    let node_info = "/strongroom.ledger.v1.AdminService/GetNodeInfo";
    raw_call(channel, node_info, Some(&any_case), bytes::Bytes::new()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_permitted_to_exactly_the_roles_and_scopes_it_names() {
    let server = TestServer::start().await;
    let mut admin = server.admin().await;
    admin.create("acme", "main").await;
    admin.create("acme", "side").await;
    admin.create("other", "main").await;
    let channel = server.endpoint().connect().await.unwrap();
    let scopes = [
        ("*", true, true),
        ("acme", true, false),
        ("acme/main", true, false),
        ("acme/side", false, false),
        ("other", false, false),
    ];
    let mut callers = Vec::new();
    for role in [Role::Reader, Role::Writer, Role::Admin] {
        for (scope, covers, everything) in scopes {
            // The administrator of everything would really delete what it is asked to: see the next test.
            if (role, everything) != (Role::Admin, true) {
                callers.push((role, scope, covers, server.token(role, scope).await.1));
            }
        }
    }
    let before = server.fingerprint();
    for path in ledger_methods() {
        for (role, scope, covers, token) in &callers {
            let permitted = match needs(&path) {
                Needs::Reader => *covers,
                Needs::Writer => *covers && *role >= Role::Writer,
                Needs::Anyone => true,
                Needs::AdminOfVault => *covers && *role == Role::Admin,
                Needs::AdminOfAll => false,
            };
            let authorization = format!("Bearer {token}");
            let answer =
                raw_call(channel.clone(), &path, Some(&authorization), on_vault("acme", "main")).await;
            assert_eq!(!denied(&answer), permitted, "{path} as {role} on {scope}: {answer:?}");
            if let Err(status) = answer.as_ref().map(drop)
                && !permitted
            {
                assert_eq!(
                    (status.code(), reason(status).as_str()),
                    (Code::PermissionDenied, "PERMISSION_DENIED")
                );
            }
        }
    }
    assert_eq!(server.fingerprint(), before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_of_everything_may_make_every_call() {
    let server = TestServer::start().await;
    let (_, token) = server.token(Role::Admin, "*").await;
    let channel = server.endpoint().connect().await.unwrap();
    for path in ledger_methods() {
        let authorization = format!("Bearer {token}");
        let answer = raw_call(channel.clone(), &path, Some(&authorization), on_vault("no", "vault")).await;
        assert!(!denied(&answer), "{path}: {answer:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_outside_the_scope_is_denied_whether_it_exists_or_not() {
    let server = TestServer::start().await;
    server.admin().await.create("acme", "main").await;
    let (_, token) = server.token(Role::Admin, "other").await;
    let mut clients = server.clients(Some(&token)).await;
    let mut statuses = Vec::new();
    for vault in ["main", "none"] {
        let get = v1::GetRequest { vault: Some(vault_ref("acme", vault)), key: "k".into(), consistency: 0 };
        let status = clients.reads.get(get).await.unwrap_err();
        statuses.push((status.code(), status.message().replace(vault, "VAULT")));
    }
    assert_eq!(statuses[0], statuses[1]);
    assert_eq!(statuses[0].0, Code::PermissionDenied);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_in_no_table_does_not_exist_for_anyone() {
    let server = TestServer::start().await;
    let (_, token) = server.token(Role::Admin, "*").await;
    let channel = server.endpoint().connect().await.unwrap();
    for path in ["/strongroom.ledger.v1.ReadService/Steal", "/unknown.Service/Call", "/x"] {
        let body = bytes::Bytes::new;
        let stranger = raw_call(channel.clone(), path, None, body()).await.unwrap_err();
        assert_eq!(stranger.code(), Code::Unauthenticated, "{path}");
        let authorization = format!("Bearer {token}");
        let known = raw_call(channel.clone(), path, Some(&authorization), body()).await.unwrap_err();
        assert_eq!(
            (known.code(), reason(&known).as_str()),
            (Code::Unimplemented, "METHOD_UNKNOWN"),
            "{path}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_everybody_is_the_anonymous_administrator() {
    let server = TestServer::start_with(Setup { no_auth: true, ..Setup::default() }).await;
    let mut clients = server.clients(None).await;
    clients.create("acme", "main").await;
    let vault = vault_ref("acme", "main");
    clients.write(&vault, vec![set("k", "v")]).await.unwrap();
    let block = v1::GetBlockRequest { vault: Some(vault), height: 1, first_transaction: 0 };
    let block = clients.reads.get_block(block).await.unwrap().into_inner();
    let transaction = ledger_verify::transaction::decode(&block.transactions[0]).unwrap();
    assert_eq!(transaction.header.actor, "client:anonymous");
    server.stop().await;
}
