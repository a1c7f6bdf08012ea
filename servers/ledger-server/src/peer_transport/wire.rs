//! Requests and answers of peers as messages of `strongroom.peer.v1`, and back.

use bytes::Bytes;
use ledger_node::peers::{
    ClusterId, Incarnation, NodeName, PEER_BODY_BYTES_MAX, PeerIdentity, PeerMethod, PeerRefusal, PeerRequest,
};
use ledger_proto::peer::v1::call_response::Outcome;
use ledger_proto::peer::v1::{CallRequest, CallResponse, NodeIdentity, Refusal, RefusalCode};

/// Longest reason of a refusal, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// A request as a message.
pub(super) fn request_to_wire(request: PeerRequest) -> CallRequest {
    let PeerRequest { cluster, from, to, method, body } = request;
    CallRequest {
        cluster: cluster.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default(),
        from: Some(NodeIdentity {
            node_id: from.node_id,
            name: from.name.into(),
            incarnation: Bytes::copy_from_slice(&from.incarnation.0),
        }),
        to,
        method: u32::from(method as u8),
        body,
    }
}

/// A message as a request; every field is checked.
pub(super) fn request_from_wire(message: CallRequest) -> Result<PeerRequest, PeerRefusal> {
    let CallRequest { cluster, from, to, method, body } = message;
    let from = from.ok_or_else(|| malformed("`from` is missing".to_owned()))?;
    let name = NodeName::new(from.name).map_err(|error| malformed(format!("`from.name`: {error}")))?;
    let incarnation = Incarnation(sixteen_bytes("from.incarnation", &from.incarnation)?);
    let cluster =
        if cluster.is_empty() { None } else { Some(ClusterId(sixteen_bytes("cluster", &cluster)?)) };
    let method = PeerMethod::from_number(method)
        .ok_or_else(|| malformed(format!("method {method} is not known to this version")))?;
    check_body(&body)?;
    let from = PeerIdentity { node_id: from.node_id, name, incarnation };
    Ok(PeerRequest { cluster, from, to, method, body })
}

/// What a handler says, as a message.
pub(super) fn answer_to_wire(answer: Result<Bytes, PeerRefusal>) -> CallResponse {
    let answer = answer.and_then(|body| check_body(&body).map(|()| body));
    let outcome = match answer {
        Ok(body) => Outcome::Body(body),
        Err(refusal) => Outcome::Refusal(refusal_to_wire(&refusal)),
    };
    CallResponse { outcome: Some(outcome) }
}

/// A message as what the peer's handler said.
pub(super) fn answer_from_wire(message: CallResponse) -> Result<Bytes, PeerRefusal> {
    match message.outcome {
        Some(Outcome::Body(body)) => Ok(body),
        Some(Outcome::Refusal(refusal)) => Err(refusal_from_wire(refusal)),
        None => Err(malformed("its answer says neither yes nor no".to_owned())),
    }
}

/// Whether a body is small enough to be sent.
pub(super) fn check_body(body: &Bytes) -> Result<(), PeerRefusal> {
    if body.len() <= PEER_BODY_BYTES_MAX {
        return Ok(());
    }
    Err(malformed(format!("the body has {} bytes, more than {PEER_BODY_BYTES_MAX}", body.len())))
}

fn refusal_to_wire(refusal: &PeerRefusal) -> Refusal {
    let of = |code: RefusalCode| Refusal { code: code.into(), ..Refusal::default() };
    let because = |code, reason: &str| Refusal { reason: shortened(reason), ..of(code) };
    match refusal {
        PeerRefusal::OtherCluster { theirs, ours } => Refusal {
            theirs: Bytes::copy_from_slice(&theirs.0),
            ours: ours.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default(),
            ..of(RefusalCode::OtherCluster)
        },
        PeerRefusal::Identity { reason } => because(RefusalCode::Identity, reason),
        PeerRefusal::NotReady { reason } => because(RefusalCode::NotReady, reason),
        PeerRefusal::NotLeader { leader } => Refusal { leader: *leader, ..of(RefusalCode::NotLeader) },
        PeerRefusal::Malformed { reason } => because(RefusalCode::Malformed, reason),
        PeerRefusal::Busy => of(RefusalCode::Busy),
        PeerRefusal::Refused { reason } => because(RefusalCode::Refused, reason),
        // A refusal that is newer than this mapping keeps its words.
        other => because(RefusalCode::Refused, &other.to_string()),
    }
}

fn refusal_from_wire(refusal: Refusal) -> PeerRefusal {
    let code = refusal.code();
    let Refusal { reason, theirs, ours, leader, .. } = refusal;
    let reason = shortened(&reason);
    match code {
        RefusalCode::OtherCluster => match sixteen_bytes("theirs", &theirs) {
            Ok(theirs) => {
                let ours = sixteen_bytes("ours", &ours).ok().map(ClusterId);
                PeerRefusal::OtherCluster { theirs: ClusterId(theirs), ours }
            }
            Err(malformed) => malformed,
        },
        RefusalCode::Identity => PeerRefusal::Identity { reason },
        RefusalCode::NotReady => PeerRefusal::NotReady { reason },
        RefusalCode::NotLeader => PeerRefusal::NotLeader { leader },
        RefusalCode::Malformed => PeerRefusal::Malformed { reason },
        RefusalCode::Busy => PeerRefusal::Busy,
        RefusalCode::Refused | RefusalCode::Unspecified => PeerRefusal::Refused { reason },
    }
}

fn sixteen_bytes(field: &str, bytes: &Bytes) -> Result<[u8; 16], PeerRefusal> {
    let found = <[u8; 16]>::try_from(bytes.as_ref());
    found.map_err(|_| malformed(format!("`{field}` has {} bytes instead of 16", bytes.len())))
}

fn malformed(reason: String) -> PeerRefusal {
    PeerRefusal::Malformed { reason }
}

fn shortened(reason: &str) -> String {
    reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn request() -> PeerRequest {
        PeerRequest {
            cluster: Some(ClusterId([0xc1; 16])),
            from: PeerIdentity {
                node_id: 0x0102_0304_0506_0708,
                name: NodeName::new("node-a").unwrap(),
                incarnation: Incarnation([0x1a; 16]),
            },
            to: Some(7),
            method: PeerMethod::Append,
            body: Bytes::from_static(b"entries"),
        }
    }

    #[test]
    fn a_request_has_the_documented_bytes_and_comes_back_from_them() {
        let bytes = request_to_wire(request()).encode_to_vec();
        let expected = [
            "0a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
            "1223090807060504030201",
            "12066e6f64652d61",
            "1a101a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a",
            "190700000000000000",
            "2012",
            "2a07656e7472696573",
        ];
        assert_eq!(hex::encode(&bytes), expected.concat());
        let back = request_from_wire(CallRequest::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(back.cluster, request().cluster);
        assert_eq!(back.from, request().from);
        assert_eq!((back.to, back.method, back.body), (Some(7), PeerMethod::Append, request().body));

        let early = PeerRequest { cluster: None, to: None, ..request() };
        let back = request_from_wire(request_to_wire(early)).unwrap();
        assert_eq!((back.cluster, back.to), (None, None));
    }

    #[test]
    fn every_field_of_a_request_is_checked() {
        type Damage = fn(&mut CallRequest);
        let broken: [(&str, Damage); 6] = [
            ("`cluster` has 3 bytes", |message| message.cluster = Bytes::from_static(b"abc")),
            ("`from` is missing", |message| message.from = None),
            ("`from.name`", |message| message.from.as_mut().unwrap().name = "Node A".to_owned()),
            ("`from.incarnation` has 0 bytes", |message| {
                message.from.as_mut().unwrap().incarnation.clear();
            }),
            ("method 99 is not known", |message| message.method = 99),
            ("more than 16777216", |message| message.body = vec![0; PEER_BODY_BYTES_MAX + 1].into()),
        ];
        for (expected, breaking) in broken {
            let mut message = request_to_wire(request());
            breaking(&mut message);
            let Err(PeerRefusal::Malformed { reason }) = request_from_wire(message) else {
                panic!("accepted: {expected}");
            };
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn every_answer_comes_back_as_it_was() {
        let (theirs, ours) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let reason = || "because".to_owned();
        for answer in [
            Ok(Bytes::from_static(b"yes")),
            Ok(Bytes::new()),
            Err(PeerRefusal::OtherCluster { theirs, ours: Some(ours) }),
            Err(PeerRefusal::OtherCluster { theirs, ours: None }),
            Err(PeerRefusal::Identity { reason: reason() }),
            Err(PeerRefusal::NotReady { reason: reason() }),
            Err(PeerRefusal::NotLeader { leader: Some(3) }),
            Err(PeerRefusal::NotLeader { leader: None }),
            Err(PeerRefusal::Malformed { reason: reason() }),
            Err(PeerRefusal::Busy),
            Err(PeerRefusal::Refused { reason: reason() }),
        ] {
            let bytes = answer_to_wire(answer.clone()).encode_to_vec();
            assert_eq!(answer_from_wire(CallResponse::decode(bytes.as_slice()).unwrap()), answer);
        }
        let refused = answer_to_wire(Err(PeerRefusal::NotLeader { leader: Some(3) })).encode_to_vec();
        assert_eq!(hex::encode(refused), "120b0804290300000000000000");
    }

    #[test]
    fn answers_of_other_versions_and_sizes_are_refusals() {
        let nothing = answer_from_wire(CallResponse { outcome: None });
        assert!(matches!(nothing, Err(PeerRefusal::Malformed { .. })));
        let newer = Refusal { code: 4_711, reason: "x".repeat(5_000), ..Refusal::default() };
        let Err(PeerRefusal::Refused { reason }) =
            answer_from_wire(CallResponse { outcome: Some(Outcome::Refusal(newer)) })
        else {
            panic!("an unknown code is a plain refusal");
        };
        assert_eq!(reason.len(), REASON_BYTES_MAX);
        let large = answer_to_wire(Ok(vec![0; PEER_BODY_BYTES_MAX + 1].into()));
        assert!(matches!(answer_from_wire(large), Err(PeerRefusal::Malformed { .. })));
    }
}
