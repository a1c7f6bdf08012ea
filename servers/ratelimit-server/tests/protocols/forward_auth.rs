use crate::server::{Setup, TestServers};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_the_same_question() {
    let servers = TestServers::open().await;
    let json = "%5B%7B%22entries%22:%5B%7B%22key%22:%22client_ip%22,%22value%22:%22a%22%7D%5D%7D%5D";
    for (query, status) in [
        ("client_ip=a".to_owned(), 200),
        (format!("descriptors={json}"), 200),
        ("client_ip=a&hits=1".to_owned(), 200),
        ("client_ip=a".to_owned(), 429),
        ("client_ip=a&mode=nginx".to_owned(), 403),
        ("client_ip=a&hits=0".to_owned(), 429),
        ("path=/login&client_ip=a".to_owned(), 200),
        ("path=%2Flogin&client_ip=a".to_owned(), 429),
    ] {
        let answer = servers.get(&format!("/v1/check?domain=web&{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status != 200, "{query}");
        assert!(answer.header("ratelimit").is_some());
    }
    assert_eq!(servers.get("/v1/check?client_ip=a").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_whom_a_trusted_proxy_names_and_else_the_peer() {
    let servers = TestServers::start(Setup { trusts_loopback: true, ..Setup::default() }).await;
    let ask = async |forwarded: &str| {
        servers.call("GET", "/v1/check?domain=web", &[("x-forwarded-for", forwarded)], "").await.status
    };
    for status in [200, 200, 200, 429] {
        assert_eq!(ask("198.51.100.1, 203.0.113.9").await, status);
    }
    assert_eq!(ask("203.0.113.9, 198.51.100.1").await, 200);

    let distrustful = TestServers::open().await;
    let mut passed = 0;
    for client in 0..6 {
        let forwarded = format!("203.0.113.{client}");
        let headers = [("x-forwarded-for", forwarded.as_str())];
        let answer = distrustful.call("GET", "/v1/check?domain=web&client_ip=", &headers, "").await;
        passed += usize::from(answer.status == 200);
    }
    assert_eq!(passed, 3);
}
