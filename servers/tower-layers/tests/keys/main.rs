//! Which requests share a key.

use std::net::SocketAddr;

use http::{HeaderName, Request};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_layers::client_ip::{ClientIp, ClientIpLayer, ClientIpPolicy, Grouping, Ipv6Prefix, PeerAddress};
use tower_layers::keys::{
    ApiKey, ClientAddress, Everyone, Extract, HeaderValueKey, KEY_BYTES_MAX, KeyError, KeyExtractor,
    KeyWriter, Method, PartKind, RequestHead, RequestKey, Route, User,
};

#[derive(Clone)]
struct Account(&'static str);

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn with_headers(headers: &[(&'static str, &str)]) -> Request<()> {
    let mut builder = Request::builder();
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("a request")
}

/// A request as it looks behind the layer that finds addresses.
async fn from_address(address: &str) -> Request<()> {
    let mut request = Request::new(());
    let socket = SocketAddr::new(address.parse().expect("an address"), 4_000);
    request.extensions_mut().insert(PeerAddress::from(socket));
    let layer = ClientIpLayer::new(ClientIpPolicy::peer_only());
    let echo =
        layer.layer(service_fn(async |request: Request<()>| Ok::<_, std::convert::Infallible>(request)));
    echo.oneshot(request).await.expect("echoed")
}

fn key(extractor: &impl KeyExtractor, request: &Request<()>) -> RequestKey {
    extractor.of(request).expect("a key")
}

#[tokio::test]
async fn addresses_of_one_network_share_a_key_and_others_do_not() {
    let narrow = ClientAddress::new(Grouping::default());
    let wide = ClientAddress::new(Grouping { ipv6: Ipv6Prefix::Bits48, ..Grouping::default() });
    let first = from_address("2001:db8:1:2::1").await;
    let neighbour = from_address("2001:db8:1:2:ffff::2").await;
    let cousin = from_address("2001:db8:1:3::1").await;
    assert_eq!(key(&narrow, &first), key(&narrow, &neighbour));
    assert_ne!(key(&narrow, &first), key(&narrow, &cousin));
    assert_eq!(key(&wide, &first), key(&wide, &cousin));
    // A /64 and a /48 that begin alike are two keys.
    let zero = from_address("2001:db8:1::1").await;
    assert_ne!(key(&narrow, &zero), key(&wide, &zero));
    assert_eq!(
        key(&narrow, &from_address("::ffff:192.0.2.1").await),
        key(&narrow, &from_address("192.0.2.1").await)
    );
    assert_ne!(
        key(&narrow, &from_address("192.0.2.2").await),
        key(&narrow, &from_address("192.0.2.1").await)
    );
}

#[test]
fn without_the_layer_that_finds_it_an_address_is_an_error_and_no_shared_bucket() {
    let error = ClientAddress::new(Grouping::default()).of(&Request::new(())).expect_err("no address");
    assert!(matches!(&error, KeyError::NotWired { what } if what == "client address"), "{error}");
}

/// Preflight gave every made-up key of the right length a bucket of its own.
#[tokio::test]
async fn a_credential_that_is_not_known_stays_with_the_address() {
    let known = |credential: &[u8]| credential == b"right";
    let address = ClientAddress::new(Grouping::default());
    let extractor = ApiKey::in_header(name("x-api-key"), known).or(address);
    let with = async |values: &[&str]| {
        let mut request = from_address("192.0.2.1").await;
        for value in values {
            request.headers_mut().append("x-api-key", value.parse().expect("a value"));
        }
        key(&extractor, &request)
    };
    let anonymous = with(&[]).await;
    assert_eq!(with(&["made up"]).await, anonymous);
    assert_eq!(with(&["made up too"]).await, anonymous);
    assert_eq!(
        with(&["right", "made up"]).await,
        anonymous,
        "which of two counts is not the client's to choose"
    );
    assert_ne!(with(&["right"]).await, anonymous);
}

#[test]
fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
    let extractor = ApiKey::bearer(|token: &[u8]| token == b"right");
    let of = |value: &str| extractor.of(&with_headers(&[("authorization", value)]));
    assert!(of("Bearer right").is_ok());
    assert_eq!(of("bearer  right"), of("Bearer right"));
    for value in
        ["right", "Basic right", "Bearer", "Bearer ", "Bearer wrong", "Bearerright", "B\u{e9}arer right"]
    {
        assert!(of(value).is_err(), "{value}");
    }
}

#[test]
fn a_user_is_whom_an_outer_layer_found() {
    let extractor = User::named_by(|account: &Account| account.0);
    let of = |account: &'static str| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Account(account));
        extractor.of(&request)
    };
    assert_eq!(of("ada"), of("ada"));
    assert_ne!(of("ada"), of("bob"));
    assert!(matches!(extractor.of(&Request::new(())), Err(KeyError::NotWired { .. })));
}

#[test]
fn routes_are_named_and_methods_cannot_be_invented() {
    let by_first_segment = Route::named_by(|request: RequestHead<'_>| request.uri.path().split('/').nth(1));
    let of = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        (key(&by_first_segment, &request), key(&Method, &request))
    };
    assert_eq!(of("GET", "/users/1").0, of("POST", "/users/2").0);
    assert_ne!(of("GET", "/users/1").0, of("GET", "/groups/1").0);
    assert_ne!(of("GET", "/").1, of("POST", "/").1);
    assert_eq!(of("BREW", "/").1, of("PURGE", "/").1);
}

#[test]
fn what_is_too_long_is_refused_and_not_cut() {
    let extractor = HeaderValueKey::new(name("x-tenant")).or(Everyone);
    let long = "x".repeat(KEY_BYTES_MAX);
    assert_eq!(extractor.of(&with_headers(&[("x-tenant", &long)])), Err(KeyError::TooLong));
    assert!(extractor.of(&with_headers(&[("x-tenant", &long[..KEY_BYTES_MAX - 20])])).is_ok());
}

#[test]
fn a_key_shows_nothing_of_what_it_holds() {
    let key =
        HeaderValueKey::new(name("x-tenant")).of(&with_headers(&[("x-tenant", "secret")])).expect("a key");
    assert_eq!(format!("{key:?}"), "RequestKey(11 bytes)");
}

/// Written as a golden value: keys are stored by engines that survive a restart.
#[test]
fn the_bytes_of_a_key_are_kind_length_and_value_of_each_part() {
    let extractor = HeaderValueKey::new(name("x-tenant")).and(Method);
    let key = extractor.of(&with_headers(&[("x-tenant", "a"), ("x-tenant", "bc")])).expect("a key");
    assert_eq!(key.as_bytes(), b"\x02\0\0\0\x01a\x02\0\0\0\x02bc\x06\0\0\0\x03GET");
}

/// Writes parts as it is told.
struct Parts(Vec<(PartKind, Vec<u8>)>);

impl KeyExtractor for Parts {
    fn extract(&self, _: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        self.0.iter().try_for_each(|(kind, value)| key.part(*kind, value))
    }
}

fn parts() -> impl Strategy<Value = Vec<(PartKind, Vec<u8>)>> {
    let kind = prop::sample::select(vec![PartKind::Custom, PartKind::Header, PartKind::Everyone]);
    prop::collection::vec(
        (kind, prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2)], 0..4)),
        0..4,
    )
}

proptest! {
    /// ("a", "b_c") and ("a_b", "c") share a counter where parts are joined by a separator.
    #[test]
    fn two_keys_are_the_same_bytes_only_when_every_part_is_the_same(left in parts(), right in parts()) {
        let (left_key, right_key) = (Parts(left.clone()).of(&Request::new(())), Parts(right.clone()).of(&Request::new(())));
        prop_assert_eq!(left_key == right_key, left == right);
    }

    #[test]
    fn a_first_choice_never_shares_a_key_with_a_second_one(value in parts()) {
        let chosen = Parts(value.clone()).or(Everyone).of(&Request::new(()));
        let absent = HeaderValueKey::new(name("x-tenant")).or(Parts(value)).of(&Request::new(()));
        prop_assert_ne!(chosen.expect("a key"), absent.expect("a key"));
    }
}

#[test]
fn an_address_that_is_found_is_what_the_key_rests_on() {
    let client: ClientIp = ClientIpPolicy::peer_only()
        .resolve("192.0.2.1".parse().expect("an address"), &http::HeaderMap::new());
    let mut request = Request::new(());
    request.extensions_mut().insert(client);
    let key = ClientAddress::new(Grouping::default()).of(&request).expect("a key");
    assert_eq!(key.as_bytes(), [1, 0, 0, 0, 4, 192, 0, 2, 1]);
}
