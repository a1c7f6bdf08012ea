//! How fast a follower that is far behind catches up: a leader and a follower in one process, each with its own stores on
//! the disk, and the peers' transport between them on loopback. The follower is stopped, entries are written, and the clock
//! runs from its start until it has applied all of them.
//!
//! `cargo run --release -p ledger-server --example catch_up -- [log|snapshot] [ENTRIES] [VALUE_BYTES] [DIRECTORY]`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::peers::{ClusterId, Incarnation, MemberRecord, NodeName, PeerIdentity, PeerTransport};
use ledger_node::{Bootstrap, ClusterOptions, DataDirectory, Ledger, Options, Stores};
use ledger_server::peer_transport::{
    HandlerSlot, PeerLimits, PeerSecurity, PeerTransportSettings, open as open_transport,
};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

const ENTRIES: u64 = 500_000;
const VALUE_BYTES: usize = 256;
/// Distinct keys that are written.
const KEYS: u64 = 100_000;
/// Writes that wait at a time while the entries are made.
const WRITERS: u64 = 512;
const CLUSTER: ClusterId = ClusterId([7; 16]);
/// How often it is looked how far the follower is.
const LOOK: Duration = Duration::from_millis(2);
/// More than is written: nothing of it is flushed, so nothing leaves the log.
const MUCH_BYTES: usize = 1 << 40;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the follower gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The entries themselves: the leader still has all of them.
    Log,
    /// A snapshot, which the leader makes when the follower is there, and the entries after it.
    Snapshot,
}

/// One of the two nodes: what it is known by, and what survives a stop.
struct Place {
    directory: PathBuf,
    member: MemberRecord,
    transport: Arc<dyn PeerTransport>,
    slot: HandlerSlot,
}

impl Place {
    async fn make(folder: &Path, name: &str) -> Outcome<Self> {
        let listen = "127.0.0.1:0".parse()?;
        let limits = PeerLimits::default();
        let settings = PeerTransportSettings { listen, security: PeerSecurity::InsecureLoopback, limits };
        let (transport, server) = open_transport(settings).await?;
        let (peer_address, slot) = (server.local_address().to_string(), server.handler_slot());
        tokio::spawn(server.serve(std::future::pending()));
        let directory = folder.join(name);
        let node_id = DataDirectory::open(&directory)?.node_id();
        let incarnation = Incarnation(u128::from(node_id).to_be_bytes());
        let identity = PeerIdentity { node_id, name: NodeName::new(name)?, incarnation };
        let member = MemberRecord { identity, peer_address, client_url: String::new() };
        Ok(Self { directory, member, transport, slot })
    }

    async fn open(&self, bootstrap: Bootstrap, way: Way) -> Outcome<Ledger> {
        let transport = Arc::clone(&self.transport);
        let mut cluster = ClusterOptions::new(transport, CLUSTER, self.member.clone());
        // The other one follows and does not vote: the leader needs nobody.
        cluster.voters_max = 1;
        // One transaction is one entry.
        let mut options = Options { bootstrap, batch_size: 1, cluster: Some(cluster), ..Options::default() };
        if way == Way::Log {
            options.flush_interval = Duration::from_secs(3_600);
            options.flush_bytes = MUCH_BYTES;
            options.overlay_bytes_max = MUCH_BYTES;
        }
        let stores = EmbeddedStores::open(&self.directory, RedbOptions::default())?;
        let stores = Stores { log: stores.log, state: stores.state };
        let ledger = Ledger::open(DataDirectory::open(&self.directory)?, stores, options).await?;
        self.slot.set(ledger.peer_handler());
        Ok(ledger)
    }

    /// Stops the node: nobody answers for it, and its files are free.
    async fn stop(&self, ledger: Ledger) -> Outcome<()> {
        ledger.shutdown().await?;
        self.slot.set(HandlerSlot::new().get());
        Ok(())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let way = match arguments.next().as_deref() {
        None | Some("log") => Way::Log,
        Some("snapshot") => Way::Snapshot,
        Some(other) => return Err(format!("{other}: say log or snapshot").into()),
    };
    let entries: u64 = arguments.next().map_or(Ok(ENTRIES), |text| text.parse())?;
    let value_bytes: usize = arguments.next().map_or(Ok(VALUE_BYTES), |text| text.parse())?;
    let given = arguments.next().map(PathBuf::from);
    let parent = given.unwrap_or_else(std::env::temp_dir);
    let folder = parent.join(format!("strongroom-catch-up-{}", std::process::id()));
    let outcome = measure(&folder, way, entries, value_bytes).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn measure(folder: &Path, way: Way, entries: u64, value_bytes: usize) -> Outcome<()> {
    let first = Place::make(folder, "leader").await?;
    let second = Place::make(folder, "follower").await?;
    // They are nodes of one ledger.
    std::fs::copy(first.directory.join("log.key"), second.directory.join("log.key"))?;
    let leader = first.open(Bootstrap::Single, way).await?;
    let follower = second.open(Bootstrap::Joined, way).await?;
    leader.cluster().add(second.member.clone()).await?;
    let vault: VaultRef = "bench/bench".parse()?;
    leader.create_namespace(NamespaceName::new("bench")?).await?;
    leader.create_vault(vault.clone()).await?;
    await_applied(&follower, leader.node_info().last_log_index).await;
    second.stop(follower).await?;

    let (before, began) = (leader.counters(), Instant::now());
    fill(&leader, &vault, entries, value_bytes).await?;
    let log_bytes = leader.counters().log_bytes - before.log_bytes;
    let last = leader.node_info().last_log_index;
    println!(
        "{entries} entries, {} of log, were written in {:.1} s",
        mb(log_bytes),
        began.elapsed().as_secs_f64()
    );
    if way == Way::Snapshot {
        let purged = || leader.node_info().purged.unwrap_or(0);
        let at_least = last.saturating_sub(entries);
        while purged() <= at_least {
            tokio::time::sleep(LOOK).await;
        }
    }

    let began = Instant::now();
    let follower = second.open(Bootstrap::Joined, way).await?;
    let opened = began.elapsed();
    await_applied(&follower, last).await;
    let seconds = (began.elapsed() - opened).as_secs_f64();
    let installed = follower.counters().snapshots_installed;
    println!(
        "caught up in {seconds:.2} s through {}: {:.0} entries/s, {:.1} MB/s of log",
        if installed > 0 {
            format!("{installed} snapshot, and the log after it")
        } else {
            "the log".to_owned()
        },
        entries as f64 / seconds,
        log_bytes as f64 / seconds / 1e6,
    );
    let tips = [&leader, &follower].map(|ledger| ledger.vault(&vault).map(|info| info.block_hash));
    second.stop(follower).await?;
    first.stop(leader).await?;
    if tips[0].is_none() || tips[0] != tips[1] {
        return Err("the two have different blocks".into());
    }
    if (installed > 0) != (way == Way::Snapshot) {
        return Err(
            format!("it was to catch up by {way:?} and did not: write more entries for a snapshot").into()
        );
    }
    Ok(())
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

async fn await_applied(ledger: &Ledger, index: u64) {
    while ledger.node_info().last_applied < index {
        tokio::time::sleep(LOOK).await;
    }
}

/// Writes so many entries, several at a time.
async fn fill(ledger: &Ledger, vault: &VaultRef, entries: u64, value_bytes: usize) -> Outcome<()> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (ledger, vault) = (ledger.clone(), vault.clone());
        writers.spawn(async move {
            for number in (writer..entries).step_by(WRITERS as usize) {
                let value = vec![number as u8; value_bytes];
                let set = Action::SetEntity {
                    key: EntityKey::new(&format!("key-{:08}", number % KEYS))?,
                    value: EntityValue::new(value)?,
                    expires_at_ms: 0,
                };
                let mut random = [0; 10];
                random[2..].copy_from_slice(&number.to_be_bytes());
                let key = IdempotencyKey::from_parts(ledger.log_time_ms(), random);
                let transaction = Transaction::new(key, vec![Operation { action: set, condition: None }])?;
                ledger.write(&vault, &Actor::new("client:bench")?, transaction).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}
