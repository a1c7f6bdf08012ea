//! A network of IPv6 is one client by every protocol. Only the address that the server filled in itself was grouped: behind a
//! proxy that named the client, each of 2^64 addresses had a counter of its own.

use ratelimit_server::rls::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use serde_json::json;

use crate::rls_calls::{asking, descriptor};
use crate::server::{Setup, TestServers};

fn addresses() -> impl Iterator<Item = String> {
    (0..10).map(|host| format!("2001:db8:0:7::{host:x}"))
}

fn body(address: &str) -> String {
    format!(r#"{{"domain":"web","descriptors":[{{"entries":[{{"key":"client_ip","value":"{address}"}}]}}]}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_addresses_of_one_network_have_one_counter() {
    let (mut by_query, mut by_body, mut by_proxy) = (0, 0, 0);
    let servers = TestServers::open().await;
    for address in addresses() {
        let query = format!("/v1/check?mode=nginx&domain=web&client_ip={address}");
        by_query += usize::from(servers.get(&query).await.status == 200);
    }
    let servers = TestServers::open().await;
    for address in addresses() {
        by_body += usize::from(servers.check(&body(&address)).await.status == 200);
    }
    let servers = TestServers::open().await;
    let mut client = servers.rls().await;
    for address in addresses() {
        let request = asking(vec![descriptor(&[("client_ip", &address)])]);
        let answer = client.should_rate_limit(request).await.expect("decided").into_inner();
        by_proxy += usize::from(answer.overall_code() == Code::Ok);
    }
    assert_eq!([by_query, by_body, by_proxy], [3; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_its_network_and_a_mapped_address_are_one_key_for_all_calls() {
    let servers = TestServers::start(Setup { admin_token: Some("admin"), ..Setup::default() }).await;
    let admin = [("authorization", "Bearer admin")];
    for (charged, seen) in [
        ("2001:db8:0:7::1", ["2001:db8:0:7:ffff::", "2001:db8:0:7::%2F64"]),
        ("::ffff:203.0.113.9", ["203.0.113.9", "::ffff:203.0.113.9"]),
    ] {
        assert_eq!(servers.check(&body(charged)).await.status, 200);
        for seen in seen {
            let peek = servers.get(&format!("/v1/keys/web/client_ip={seen}")).await.json();
            assert_eq!(peek["remaining"], 2, "{seen}");
        }
        let other = &body(&seen[0].replace("%2F", "/"));
        let reset = servers.call("POST", "/v1/reset", &admin, other).await;
        assert_eq!((reset.status, &reset.json()["reset"]), (200, &json!(1)));
        let peek = servers.get(&format!("/v1/keys/web/client_ip={}", seen[1])).await.json();
        assert_eq!(peek["remaining"], 3);
    }
}
