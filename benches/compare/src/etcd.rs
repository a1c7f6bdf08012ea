//! etcd's key-value service over shared HTTP/2 connections.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tonic::transport::{Channel, Endpoint};

use crate::connector::Connector;
use crate::workload::{SplitMix, Workload};
use protocol::kv_client::KvClient;
use protocol::request_op::Request as Op;
use protocol::{PutRequest, RangeRequest, RequestOp, TxnRequest};

/// The generated protocol.
mod protocol {
    #![expect(clippy::allow_attributes_without_reason, reason = "generated from proto/etcd_kv.proto")]
    tonic::include_proto!("etcdserverpb");
}

/// Operations that etcd takes in one transaction by default.
const TXN_OPERATIONS_MAX: u64 = 128;
/// A request without an answer after this time counts as an error.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that does not accept within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control windows: large enough that none of our loads waits for them.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// As above, for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Open connections to one etcd server.
pub(crate) struct Etcd {
    channels: Vec<Channel>,
}

impl Etcd {
    /// Opens `connections` connections before any time is measured.
    pub(crate) async fn connect(url: &str, connections: usize) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("--url {url} is not a URL"))?
            .timeout(REQUEST_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            let connector = Connector { timeout: CONNECT_TIMEOUT };
            let channel = endpoint.connect_with_connector(connector).await;
            channels.push(channel.with_context(|| format!("connect to {url}"))?);
        }
        Ok(Self { channels })
    }

    /// The connection that this client uses; clients take turns over all connections.
    pub(crate) fn connection(&self, client: usize) -> Connection {
        let channel = client % self.channels.len();
        Connection(KvClient::new(self.channels[channel].clone()))
    }

    /// Writes every key of the workload, unless as many are there already.
    pub(crate) async fn preload(&self, workload: &Workload) -> anyhow::Result<()> {
        let mut connection = self.connection(0);
        if connection.count_keys(workload.keys).await? >= workload.keys {
            return Ok(());
        }
        let mut random = SplitMix(u64::MAX);
        let mut first = 0;
        while first < workload.keys {
            let end = (first + TXN_OPERATIONS_MAX).min(workload.keys);
            let mut success = Vec::with_capacity((end - first) as usize);
            for number in first..end {
                let mut value = vec![0; workload.value_bytes];
                random.fill(&mut value);
                let put = PutRequest { key: Workload::key(number), value };
                success.push(RequestOp { request: Some(Op::RequestPut(put)) });
            }
            let answer = connection.0.txn(TxnRequest { success }).await?.into_inner();
            ensure!(answer.succeeded, "etcd refused a transaction of the preload");
            first = end;
        }
        Ok(())
    }
}

/// One client's view of a shared connection.
pub(crate) struct Connection(KvClient<Channel>);

impl Connection {
    /// Writes one key and waits until etcd has made it durable.
    pub(crate) async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> anyhow::Result<()> {
        self.0.put(PutRequest { key, value }).await?;
        Ok(())
    }

    /// Writes several keys in one transaction and waits until etcd has made it durable.
    pub(crate) async fn put_all(&mut self, puts: Vec<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<()> {
        let op = |(key, value)| RequestOp { request: Some(Op::RequestPut(PutRequest { key, value })) };
        let success = puts.into_iter().map(op).collect();
        let answer = self.0.txn(TxnRequest { success }).await?.into_inner();
        ensure!(answer.succeeded, "etcd refused a transaction of puts");
        Ok(())
    }

    /// Reads one key after etcd has confirmed that it still leads.
    pub(crate) async fn read_linearizable(&mut self, key: Vec<u8>) -> anyhow::Result<()> {
        self.read(RangeRequest { key, ..Default::default() }).await
    }

    /// Reads one key from the server's own state.
    pub(crate) async fn read_serializable(&mut self, key: Vec<u8>) -> anyhow::Result<()> {
        self.read(RangeRequest { key, serializable: true, ..Default::default() }).await
    }

    async fn read(&mut self, request: RangeRequest) -> anyhow::Result<()> {
        let answer = self.0.range(request).await?.into_inner();
        ensure!(answer.kvs.len() == 1, "a preloaded key is missing");
        Ok(())
    }

    async fn count_keys(&mut self, keys: u64) -> anyhow::Result<u64> {
        let (key, range_end) = (Workload::key(0), Workload::key(keys));
        let request = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        let answer = self.0.range(request).await?.into_inner();
        u64::try_from(answer.count).context("etcd counted fewer than zero keys")
    }
}
