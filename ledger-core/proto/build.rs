//! Compiles the protocol without protoc: protox parses, tonic generates.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let definition = "proto/strongroom/ledger/v1/ledger.proto";
    println!("cargo:rerun-if-changed={definition}");
    let descriptors = protox::compile([definition], ["proto"])?;
    let output = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(output.join("ledger_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    // Apart from the first, whose descriptors are what reflection shows to clients.
    let between_peers = "proto/strongroom/peer/v1/peer.proto";
    println!("cargo:rerun-if-changed={between_peers}");
    let descriptors = protox::compile([between_peers], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
