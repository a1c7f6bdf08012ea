//! Compiles the minimal etcd protocol, and Envoy's as our server has it, without protoc.

use prost::Message as _;

const ENVOY: &str = "../../servers/ratelimit-server/proto";

fn main() -> anyhow::Result<()> {
    // An encode and decode round trip keeps us independent of the prost version that protox uses.
    let etcd = protox::compile(["proto/etcd_kv.proto"], ["proto"])?;
    let etcd = tonic_prost_build::FileDescriptorSet::decode(etcd.encode_to_vec().as_slice())?;
    tonic_prost_build::configure().build_server(false).compile_fds(etcd)?;
    let envoy = protox::compile(["envoy/service/ratelimit/v3/rls.proto"], [ENVOY])?;
    let envoy = tonic_prost_build::FileDescriptorSet::decode(envoy.encode_to_vec().as_slice())?;
    tonic_prost_build::configure().compile_fds(envoy)?;
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed={ENVOY}");
    Ok(())
}
