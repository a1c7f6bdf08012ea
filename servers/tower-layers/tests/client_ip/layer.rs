//! The layer in front of a service.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::Request;
use tower::{Layer, ServiceExt, service_fn};
use tower_layers::client_ip::{ClientIp, ClientIpLayer, ClientIpPolicy, ForwardingHeader, PeerAddress};

use crate::chain::trusted;

async fn seen(layer: ClientIpLayer, request: Request<()>) -> Option<String> {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(request.extensions().get::<ClientIp>().map(|client| client.address().to_string()))
    }));
    service.oneshot(request).await.expect("answered")
}

fn request() -> Request<()> {
    let builder = Request::builder().header("x-forwarded-for", "1.1.1.1, 203.0.113.5");
    builder.body(()).expect("a request")
}

fn layer() -> ClientIpLayer {
    ClientIpLayer::new(ClientIpPolicy::behind(ForwardingHeader::XForwardedFor, trusted()))
}

#[tokio::test]
async fn every_request_with_a_peer_gets_its_client() {
    let mut from_proxy = request();
    from_proxy.extensions_mut().insert(PeerAddress::from(SocketAddr::from(([10, 1, 0, 1], 4000))));
    assert_eq!(seen(layer(), from_proxy).await.as_deref(), Some("203.0.113.5"));
    let mut from_elsewhere = request();
    from_elsewhere.extensions_mut().insert(PeerAddress::from(SocketAddr::from(([192, 0, 2, 1], 4000))));
    assert_eq!(seen(layer(), from_elsewhere).await.as_deref(), Some("192.0.2.1"));
}

#[tokio::test]
async fn without_a_peer_there_is_no_client_not_even_one_that_somebody_left_there() {
    let mut unknown = request();
    let policy = ClientIpPolicy::peer_only();
    unknown
        .extensions_mut()
        .insert(policy.resolve("192.0.2.1".parse().expect("an address"), &request().headers().clone()));
    assert_eq!(seen(layer(), unknown).await, None);
}

#[tokio::test]
async fn a_server_says_where_it_keeps_the_peer() {
    let mut request = request();
    request.extensions_mut().insert(SocketAddr::from(([10, 1, 0, 1], 4000)));
    let layer = layer().with_peer_source(|extensions| extensions.get::<SocketAddr>().map(SocketAddr::ip));
    assert_eq!(seen(layer, request).await.as_deref(), Some("203.0.113.5"));
}
