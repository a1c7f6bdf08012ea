//! Who is believed, and what a new certificate changes.

use ledger_node::peers::{NodeName, PeerError, PeerMethod, PeerRefusal};
use ledger_server::peer_transport::{PeerSecurity, PeerTransportSettings, open};
use service_kit::tls::PeerTlsFiles;

use crate::authority::{Authority, Ends, replace};
use crate::node::{Node, any_port, limits, until};

fn is_untrusted(error: &PeerError) -> bool {
    matches!(error, PeerError::Untrusted { .. })
}

/// The peer does not accept the caller's certificate.
fn is_identity_refusal(error: &PeerError) -> bool {
    matches!(error, PeerError::Refused { refusal: PeerRefusal::Identity { .. }, .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_at_the_address_is_not_believed() {
    let authority = Authority::new("cluster");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let c = Node::start("node-c", authority.node("node-c")).await;
    let wanted = NodeName::new("node-b").unwrap();
    let error = a.ask_as(&c, Some(&wanted)).await.unwrap_err();
    assert!(is_untrusted(&error) && error.to_string().contains("node-b"), "{error}");
    assert_eq!(a.ask(&c).await.unwrap(), "node-c: hello", "under its own name it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_takes_another_name_than_its_certificate_is_refused() {
    let authority = Authority::new("cluster");
    let b = Node::start("node-b", authority.node("node-b")).await;
    let liar = Node::start("node-a", authority.node("node-x")).await;
    let error = liar.ask(&b).await.unwrap_err();
    assert!(is_identity_refusal(&error) && error.to_string().contains("node-a"), "{error}");

    // Names with more labels, and wildcards, stand for no node.
    let dotted = ["node-a.example.com", "*.example.com", "*"];
    let liar = Node::start("node-a", authority.issue("dotted", &dotted, Ends::Late)).await;
    assert!(is_identity_refusal(&liar.ask(&b).await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_believed_by_neither_side() {
    let (ours, theirs) = (Authority::new("cluster"), Authority::new("cluster"));
    let b = Node::start("node-b", ours.node("node-b")).await;
    let stranger = Node::start("node-a", theirs.node("node-a")).await;
    let error = stranger.ask(&b).await.unwrap_err();
    assert!(is_untrusted(&error), "the caller checks the called: {error}");
    assert!(is_untrusted(&stranger.ask_as(&b, None).await.unwrap_err()));

    // A caller that trusts anybody is not trusted for that.
    let careless = PeerTlsFiles { authorities: ours.ca(), ..theirs.node("careless") };
    let careless = Node::start("careless", careless).await;
    let error = careless.ask(&b).await.unwrap_err();
    assert!(is_identity_refusal(&error) && error.to_string().contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_certificate_is_refused() {
    let authority = Authority::new("cluster");
    let b = Node::start("node-b", authority.node("node-b")).await;
    let pem = std::fs::read_to_string(authority.ca()).unwrap();
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(pem))
        .domain_name("node-b");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", b.address)).unwrap();
    // With TLS 1.3 the refusal may come after the client's half of the handshake.
    if let Ok(channel) = endpoint.tls_config(tls).unwrap().connect().await {
        let mut client = ledger_proto::peer::v1::peer_service_client::PeerServiceClient::new(channel);
        assert!(client.call(ledger_proto::peer::v1::CallRequest::default()).await.is_err());
    }

    let plaintext = Node::start_at("node-a", PeerSecurity::InsecureLoopback, any_port(), limits()).await;
    let error = plaintext.ask(&b).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    let a = Node::start("node-a", authority.node("node-a")).await;
    let error = a.ask(&plaintext).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable { reason, .. } if reason.contains("plaintext")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_believed_by_neither_side() {
    let authority = Authority::new("cluster");
    let fresh = Node::start("node-a", authority.node("node-a")).await;
    let expired = Node::start("node-b", authority.issue("node-b", &["node-b"], Ends::LongAgo)).await;
    let error = fresh.ask(&expired).await.unwrap_err();
    assert!(is_untrusted(&error) && error.to_string().contains("expired"), "{error}");
    let error = expired.ask(&fresh).await.unwrap_err();
    assert!(is_identity_refusal(&error) && error.to_string().contains("Expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_must_carry_the_name_of_its_node() {
    let authority = Authority::new("cluster");
    let files = PeerTlsFiles { name: Some("node-b".to_owned()), ..authority.node("node-a") };
    let security = PeerSecurity::MutualTls(files);
    let refused = open(PeerTransportSettings { listen: any_port(), security, limits: limits() }).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("node-b") && error.contains("--peer-tls-cert"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_takes_effect_without_a_restart() {
    let authority = Authority::new("cluster");
    let files = authority.issue("node-a", &["node-x"], Ends::Late);
    let a = Node::start("node-a", files.clone()).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    assert!(is_identity_refusal(&a.ask(&b).await.unwrap_err()), "its certificate is for node-x");
    assert!(is_untrusted(&b.ask(&a).await.unwrap_err()));

    authority.issue_to(&files, &["node-a"], Ends::Late);
    until("the caller's new certificate counts", || a.ask(&b), Result::ok).await;
    until("the called node's new certificate counts", || b.ask(&a), Result::ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_authority_takes_effect_without_a_restart() {
    let (old, new) = (Authority::new("cluster"), Authority::new("cluster"));
    let a = Node::start("node-a", old.node("node-a")).await;
    let b_files = old.node("node-b");
    let b = Node::start("node-b", b_files.clone()).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello");
    let stranger = Node::start("node-c", PeerTlsFiles { authorities: old.ca(), ..new.node("node-c") }).await;
    assert!(is_identity_refusal(&stranger.ask(&b).await.unwrap_err()));

    let both = [old.ca(), new.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    replace(&b_files.authorities, &both);
    until("the new authority counts", || stranger.ask(&b), Result::ok).await;
    assert_eq!(a.ask(&b).await.unwrap(), "node-b: hello", "and the old one still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_new_files_change_nothing_until_they_are_good() {
    let authority = Authority::new("cluster");
    let files = authority.node("node-a");
    let security = PeerSecurity::MutualTls(PeerTlsFiles { name: Some("node-a".to_owned()), ..files.clone() });
    let a = Node::start_at("node-a", security, any_port(), limits()).await;
    let b = Node::start("node-b", authority.node("node-b")).await;
    let good_key = std::fs::read_to_string(&files.key).unwrap();
    // Each asks over new connections: those of a caller that is new.
    let is_served = async || {
        let asking = Node::start("node-b", authority.node("node-b")).await;
        asking.ask(&a).await
    };
    replace(&files.key, "-----BEGIN PRIVATE KEY-----\n");
    assert!(is_served().await.is_ok() && a.ask(&b).await.is_ok());
    replace(&files.key, &good_key);
    authority.issue_to(&files, &["node-a"], Ends::LongAgo);
    tokio::time::sleep(limits().certificates_interval * 5).await;
    assert!(is_served().await.is_ok() && a.ask(&b).await.is_ok(), "an expired certificate is no improvement");
    authority.issue_to(&files, &["node-x"], Ends::Late);
    tokio::time::sleep(limits().certificates_interval * 5).await;
    assert!(is_served().await.is_ok() && a.ask(&b).await.is_ok(), "nor is another node's");

    authority.issue_to(&files, &["node-a", "node-z"], Ends::Late);
    let wanted = NodeName::new("node-z").unwrap();
    until("the good files count", || b.ask_as(&a, Some(&wanted)), Result::ok).await;
    assert!(
        a.transport
            .call(&b.address, Some(&b.name), a.request(PeerMethod::NodeInfo, ""), crate::node::PATIENCE)
            .await
            .is_ok()
    );
}
