//! A proxy's bytes, written and read here by hand: none of the types that the server was generated with is on this side.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::server::TestServers;

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// `hits_addend` of a descriptor as Envoy 1.40 sends it for a look: field 3, an empty message.
const LOOK: &[u8] = b"\x1a\x00";
/// The same for 2.
const TWO: &[u8] = b"\x1a\x02\x08\x02";
/// Field 4, true.
const NEGATIVE: &[u8] = b"\x20\x01";

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length).to_vec()))
    }
}

/// A field of bytes. All of them are short.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 128).expect("short");
    [&[number << 3 | 2, length], value].concat()
}

/// A descriptor with one entry, and the bytes of its other fields.
fn descriptor(key: &str, value: &str, others: &[u8]) -> Vec<u8> {
    let entry = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    [&field(1, &entry), others].concat()
}

fn asking(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let descriptors = descriptors.iter().flat_map(|descriptor| field(2, descriptor));
    field(1, b"web").into_iter().chain(descriptors).collect()
}

/// The fields of a message, in their order: numbers, or bytes.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn number(fields: &[(u64, Value)], wanted: u64) -> u64 {
    let found = fields.iter().find(|(number, _)| *number == wanted);
    match found {
        Some((_, Value::Number(number))) => *number,
        None => 0,
        other => panic!("{other:?}"),
    }
}

fn messages(fields: &[(u64, Value)], wanted: u64) -> Vec<&[u8]> {
    let found = fields.iter().filter(|(number, _)| *number == wanted);
    found
        .map(|(_, value)| if let Value::Bytes(bytes) = value { &bytes[..] } else { panic!("a number") })
        .collect()
}

/// A status: its code, name, count and unit of the limit, the rest, and the seconds until there is more.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    code: u64,
    limit: Option<(String, u64, u64)>,
    remaining: u64,
    seconds: Option<u64>,
}

impl Told {
    fn of(status: &[u8]) -> Self {
        let status = fields(status);
        let limit = messages(&status, 2).first().map(|limit| {
            let limit = fields(limit);
            let name =
                messages(&limit, 3).first().map(|name| String::from_utf8(name.to_vec()).expect("text"));
            (name.unwrap_or_default(), number(&limit, 1), number(&limit, 2))
        });
        let seconds = messages(&status, 4).first().map(|duration| number(&fields(duration), 1));
        Self { code: number(&status, 1), limit, remaining: number(&status, 3), seconds }
    }
}

struct Proxy(Grpc<Channel>);

impl Proxy {
    async fn to(servers: &TestServers) -> Self {
        let endpoint = Endpoint::new(format!("http://{}", servers.rls)).expect("a URL");
        Self(Grpc::new(endpoint.connect().await.expect("a connection")))
    }

    /// The overall code, the statuses, and the headers for the client.
    async fn ask(&mut self, descriptors: &[Vec<u8>]) -> (u64, Vec<Told>, Vec<(String, String)>) {
        self.0.ready().await.expect("ready");
        let call = self.0.unary(Request::new(asking(descriptors)), PATH.parse().expect("a path"), Raw);
        let answer =
            timeout(Duration::from_secs(20), call).await.expect("in time").expect("decided").into_inner();
        let answer = fields(&answer);
        let statuses = messages(&answer, 2).into_iter().map(Told::of).collect();
        let header = |header: &[u8]| {
            let header = fields(header);
            let text = |number| String::from_utf8(messages(&header, number)[0].to_vec()).expect("text");
            (text(1), text(2))
        };
        let headers = messages(&answer, 3).into_iter().map(header).collect();
        (number(&answer, 1), statuses, headers)
    }
}

const OK: u64 = 1;
const OVER_LIMIT: u64 = 2;
const MINUTE: u64 = 2;

/// What Envoy 1.40 made of such answers was seen with Envoy itself, which `judges` of the program's tests run where it is installed:
/// 200, 200, 200, 429 with `x-ratelimit-*` and `retry-after`. This is the same exchange without it.
#[tokio::test(flavor = "multi_thread")]
async fn f1_an_independent_client_is_told_statuses_looks_and_waits_as_envoy_reads_them() {
    let servers = TestServers::open().await;
    let mut proxy = Proxy::to(&servers).await;
    let client = |others: &[u8]| descriptor("client_ip", "192.0.2.1", others);
    let limit = || Some(("per-client".to_owned(), 3, MINUTE));

    // A look takes nothing, however often.
    for _ in 0..3 {
        let (code, statuses, _) = proxy.ask(&[client(LOOK)]).await;
        assert_eq!((code, statuses[0].remaining), (OK, 3));
    }
    // A status for each descriptor, in their order: without them Envoy writes neither x-ratelimit-* nor retry-after.
    let (code, statuses, _) = proxy.ask(&[descriptor("unknown", "x", b""), client(b"")]).await;
    assert_eq!((code, statuses.len()), (OK, 2));
    assert_eq!(statuses[0], Told { code: OK, limit: None, remaining: 0, seconds: None });
    assert_eq!((statuses[1].code, &statuses[1].limit, statuses[1].remaining), (OK, &limit(), 2));

    // Two at once; what is given back without a grant is ignored; the fourth is denied, and says for how long.
    assert_eq!(proxy.ask(&[client(TWO)]).await.1[0].remaining, 0);
    assert_eq!(proxy.ask(&[client(&[TWO, NEGATIVE].concat())]).await.0, OK);
    let (code, statuses, headers) = proxy.ask(&[client(b"")]).await;
    assert_eq!((code, statuses[0].code, &statuses[0].limit), (OVER_LIMIT, OVER_LIMIT, &limit()));
    let seconds = statuses[0].seconds.expect("a wait");
    assert!((18..=20).contains(&seconds), "one cell in 20 seconds, not {seconds}");
    let header =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(header("ratelimit-policy"), Some("\"per-client\";q=3;w=60"));
    let retry: u64 = header("retry-after").expect("a header").parse().expect("seconds");
    assert!((18..=20).contains(&retry));

    // The second call of a stream that is done pays whether the first was denied or not, and is answered.
    let stream_done = proxy.ask(&[descriptor("client_ip", "192.0.2.2", TWO)]).await;
    assert_eq!((stream_done.0, stream_done.1[0].remaining), (OK, 1));
    servers.stop().await;
}

/// A header may hold any bytes from 0x80 on, and a proxy may send them on as they are. That was an error, which lets pass.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_none_is_over_the_limit() {
    let servers = TestServers::open().await;
    let mut proxy = Proxy::to(&servers).await;
    let entry = [field(1, b"client_ip"), field(2, b"\xff")].concat();
    assert_eq!(proxy.ask(&[field(1, &entry)]).await.0, OVER_LIMIT);
    servers.stop().await;
}
