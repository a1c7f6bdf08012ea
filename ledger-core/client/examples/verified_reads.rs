//! What a verified read of a running ledger weighs on the wire, and how long it takes to verify.
//!
//! `cargo run --release -p ledger-client --example verified_reads -- URL TOKEN_FILE NAMESPACE/VAULT KEY_FORMAT KEYS`, where
//! `KEY_FORMAT` is the text before the number of a key. Keys are read in no order.

use std::error::Error;
use std::time::{Duration, Instant};

use ledger_core::names::VaultRef;
use ledger_proto::v1;
use ledger_proto::v1::admin_service_client::AdminServiceClient;
use ledger_proto::v1::read_service_client::ReadServiceClient;
use ledger_verify::Hash;
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::{Evidence, Subject, verify};
use ledger_verify::state::StateProof;
use prost::Message;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

const READS: u64 = 2_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token_file, vault, prefix, keys] = arguments.as_slice() else {
        return Err("give URL TOKEN_FILE NAMESPACE/VAULT KEY_PREFIX KEYS".into());
    };
    let (vault, keys): (VaultRef, u64) = (vault.parse()?, keys.parse()?);
    let token = std::fs::read_to_string(token_file)?;
    let authorization: MetadataValue<Ascii> = format!("Bearer {}", token.trim_end()).parse()?;
    let channel = Endpoint::from_shared(url.clone())?.connect().await?;
    let with_token = move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", authorization.clone());
        Ok(request)
    };
    let mut admin = AdminServiceClient::with_interceptor(channel.clone(), with_token.clone());
    let node = admin.get_node_info(v1::GetNodeInfoRequest {}).await?.into_inner();
    let verifier_keys = [VerifierKey::parse(&node.verifier_key)?];
    let mut reader = ReadServiceClient::with_interceptor(channel, with_token);
    let (mut bytes, mut spent) = (Vec::new(), Vec::new());
    for turn in 0..READS {
        let number = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        let key = format!("{prefix}{number:08}");
        let request = v1::VerifiedReadRequest {
            vault: Some(v1::VaultRef {
                namespace: vault.namespace.to_string(),
                vault: vault.vault.to_string(),
            }),
            subject: Some(v1::verified_read_request::Subject::Key(key.clone())),
            trusted_size: 0,
        };
        let answer = reader.verified_read(request).await?.into_inner();
        bytes.push(answer.encoded_len());
        let evidence = evidence(answer)?;
        let begun = Instant::now();
        verify(&Subject::Entity { key }, &evidence, &verifier_keys)?;
        spent.push(begun.elapsed());
    }
    bytes.sort_unstable();
    spent.sort_unstable();
    let median = READS as usize / 2;
    println!(
        "{READS} verified reads of {keys} keys: {} bytes of protobuf in the median, {} at most; verified in {:.1} us in the \
         median, {:.1} us at the 99th percentile",
        bytes[median],
        bytes[bytes.len() - 1],
        micros(spent[median]),
        micros(spent[spent.len() * 99 / 100]),
    );
    Ok(())
}

fn evidence(answer: v1::VerifiedReadResponse) -> Outcome<Evidence> {
    let hash = |bytes: &bytes::Bytes| Ok::<_, Box<dyn Error>>(Hash::try_from(bytes.as_ref())?);
    let other_leaf = match &answer.other_leaf {
        Some(leaf) => Some((hash(&leaf.key_hash)?, hash(&leaf.value_hash)?)),
        None => None,
    };
    let siblings = answer.siblings.iter().map(hash).collect::<Outcome<_>>()?;
    Ok(Evidence {
        leaf: answer.leaf.map(|leaf| leaf.to_vec()),
        state_proof: StateProof { siblings, other_leaf },
        header: answer.header.to_vec(),
        inclusion_path: answer.inclusion.iter().map(hash).collect::<Outcome<_>>()?,
        checkpoint: answer.checkpoint,
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
