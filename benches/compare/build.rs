//! Compiles the minimal etcd protocol without protoc.

use prost::Message as _;

fn main() -> anyhow::Result<()> {
    let descriptors = protox::compile(["proto/etcd_kv.proto"], ["proto"])?;
    // An encode and decode round trip keeps us independent of the prost version that protox uses.
    let descriptors = tonic_prost_build::FileDescriptorSet::decode(descriptors.encode_to_vec().as_slice())?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto/etcd_kv.proto");
    Ok(())
}
