//! Claims about a node that has something else than its cluster: it fences it, says what, and takes the leader's content
//! over; and a leader that stands alone changes nobody.
//!
//! The difference is real: an entry arrives at some nodes with another value than at the others, as a fault of a memory
//! would have it, and is appended and applied there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ledger_state::IntegrityDepth;
use ledger_core::memory::MemoryStateStore;
use ledger_core::ports::{AppliedState, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_node::peers::PeerMethod;
use ledger_node::{
    Bootstrap, Consistency, Divergence, DivergenceKind, DivergenceState, Ledger, MaintenanceError, Options,
    ReadFailure, read_divergences,
};

use super::cluster_setting::{Node, TestCluster, in_one_thread, steady, until};
use super::peer_network::Fate;
use super::setting::{chain, key, put, vault};

/// What a client writes, and what it becomes on its way to some nodes.
const WRITTEN: &[u8] = b"planted";
const ARRIVED: &[u8] = b"p1anted";

fn altered(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let mut start = 0;
    while let Some(found) = bytes[start..].windows(WRITTEN.len()).position(|window| window == WRITTEN) {
        bytes[start + found..start + found + WRITTEN.len()].copy_from_slice(ARRIVED);
        start += found + WRITTEN.len();
    }
    bytes.into()
}

/// From now on entries reach these nodes altered.
fn plant(cluster: &TestCluster, at: &[usize]) {
    let ids: Vec<u64> = at.iter().map(|index| cluster.nodes[*index].id()).collect();
    cluster.network.intercept(move |request| {
        if request.method == PeerMethod::Append && request.to.is_some_and(|to| ids.contains(&to)) {
            request.body = altered(&request.body);
        }
        Fate::Delivered
    });
}

/// Writes a value that some nodes get altered, and waits until all have applied it.
async fn diverge(cluster: &TestCluster, leader: usize, at: &[usize], name: &str) {
    plant(cluster, at);
    cluster.write(leader, put(name, "planted")).await;
    applied_alike(cluster).await;
    cluster.network.heal();
}

/// Waits until all running nodes have applied the same entries, whatever they made of them.
async fn applied_alike(cluster: &TestCluster) {
    until("all have applied the same entries", || {
        let mut infos = cluster.running().map(|(_, ledger)| ledger.node_info());
        let first = infos.next().unwrap();
        first.last_applied == first.last_log_index
            && infos.all(|info| info.last_applied == first.last_applied)
    })
    .await;
}

async fn of_voters(count: usize, tune: fn(&mut Options)) -> (TestCluster, usize) {
    let cluster = TestCluster::of_voters_tuned(count, tune).await;
    let leader = cluster.leader().await;
    cluster.create_vault(leader).await;
    for number in 0..10 {
        cluster.write(leader, put(&format!("key:{number}"), "before")).await;
    }
    cluster.converge().await;
    (cluster, leader)
}

async fn value(ledger: &Ledger, name: &str) -> Result<Vec<u8>, ReadFailure> {
    let read = ledger.get(&vault(), &key(name), Consistency::Linearizable).await?;
    Ok(read.value.unwrap().value.to_vec())
}

fn only(ledger: &Ledger) -> Divergence {
    let found = ledger.cluster().divergences();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

async fn recovered(ledger: &Ledger, times: u64) {
    until("the node recovers from its leader", || ledger.counters().peer_recoveries >= times).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_history_differs_fences_reports_and_takes_the_leaders_over() {
    let (mut cluster, leader) = of_voters(3, |_| {}).await;
    let wrong = (leader + 1) % 3;
    diverge(&cluster, leader, &[wrong], "colour").await;
    let follower = cluster.nodes[wrong].ledger();
    until("the vault is fenced", || follower.counters().vaults_diverged == 1).await;
    recovered(follower, 1).await;

    let found = only(follower);
    assert_eq!(
        (found.kind, found.state, found.attempts),
        (DivergenceKind::Block, DivergenceState::Recovered, 1)
    );
    assert_eq!((found.position, found.vault_name.as_str()), (11, "acme/orders"));
    let header = cluster.nodes[leader].ledger().block(&vault(), 11).unwrap().unwrap().header;
    assert_eq!(found.leader.state_root, Some(header.state_root));
    assert_ne!(found.own.state_root, found.leader.state_root);
    assert_eq!((found.with_leader.len(), found.with_this_node.len()), (2, 1));

    cluster.write(leader, put("colour", "green")).await;
    cluster.converge().await;
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()), "the history is the leader's");
    assert_eq!(value(follower, "colour").await.unwrap(), b"green");
    assert_eq!(follower.node_info().fenced_vault_count, 0);
    let report = follower.check_integrity(&vault(), IntegrityDepth::Full).await.unwrap();
    assert_eq!(report.issue_count, 0, "{report:?}");
    assert_eq!(cluster.nodes[leader].ledger().counters().repairs_sent, 1);
    // What was altered in its log is not there any more: nobody can get it from this node.
    let last = follower.node_info();
    assert!(last.purged >= Some(found.position), "{last:?}");

    // All of it outlives the process, also what was found.
    cluster.stop(wrong).await;
    assert_eq!(read_divergences(cluster.nodes[wrong].home.folder.path()).unwrap(), [found]);
    cluster.start(wrong, Bootstrap::Joined).await;
    cluster.leader().await;
    cluster.converge().await;
    let follower = cluster.nodes[wrong].ledger();
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()));
    // And it leads as well as another.
    let id = cluster.nodes[wrong].id();
    cluster.nodes[leader].ledger().cluster().transfer(Some(id)).await.unwrap();
    cluster.leader().await;
    cluster.write(wrong, put("colour", "blue")).await;
    cluster.converge().await;
}

/// Everything that is durable leaves the log at once; the lead stays where it is, however busy the machine.
fn purge_all(options: &mut Options) {
    steady(options);
    options.flush_interval = Duration::from_millis(20);
    options.cluster.as_mut().unwrap().log_keep_bytes = 0;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_recovers_while_everybody_writes_and_every_log_is_purged_at_once() {
    let (cluster, leader) = of_voters(3, purge_all).await;
    let wrong = (leader + 1) % 3;
    diverge(&cluster, leader, &[wrong], "colour").await;
    let follower = cluster.nodes[wrong].ledger();
    let done = Arc::new(AtomicBool::new(false));
    let progress = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counted = progress.clone();
    let (ends, writer) = (done.clone(), cluster.nodes[leader].ledger().clone());
    let writes = tokio::spawn(async move {
        let mut written = 0_u64;
        while !ends.load(Ordering::SeqCst) {
            let transaction = put(&format!("during:{}", written % 50), &written.to_string());
            writer.write(&vault(), &super::setting::actor(), transaction).await.unwrap();
            written += 1;
            counted[0].store(written, Ordering::SeqCst);
        }
        written
    });
    // No reader ever sees an entry undone.
    let counted = progress.clone();
    let (ends, reader) = (done.clone(), follower.clone());
    let reads = tokio::spawn(async move {
        let (mut newest, mut served) = (0, 0_u64);
        while !ends.load(Ordering::SeqCst) {
            if let Ok(read) = reader.get(&vault(), &key("during:7"), Consistency::Eventual).await
                && let Some(entity) = read.value
            {
                let number: u64 = std::str::from_utf8(&entity.value).unwrap().parse().unwrap();
                assert!(number >= newest, "{number} after {newest}");
                (newest, served) = (number, served + 1);
                counted[1].store(served, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
        }
        served
    });
    recovered(follower, 1).await;
    let seen = || progress.each_ref().map(|count| count.load(Ordering::SeqCst));
    let before = seen();
    until("writes and reads go on beside what was taken over", || {
        seen().iter().zip(&before).all(|(now, before)| *now > before + 20)
    })
    .await;
    done.store(true, Ordering::SeqCst);
    assert!(writes.await.unwrap() > 0 && reads.await.unwrap() > 0);
    cluster.converge().await;
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()));
    assert_eq!(only(follower).state, DivergenceState::Recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stands_alone_changes_nobody_and_recovers_once_another_one_leads() {
    let (cluster, leader) = of_voters(3, |_| {}).await;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    diverge(&cluster, leader, &followers, "colour").await;
    for index in followers {
        let ledger = cluster.nodes[index].ledger();
        until("it is found that the leader stands alone", || ledger.counters().leader_stands_alone > 0).await;
        let found = only(ledger);
        assert_eq!((found.state, found.with_this_node.len()), (DivergenceState::LeaderAlone, 2), "{found:?}");
        assert_eq!(value(ledger, "colour").await.unwrap(), ARRIVED);
    }
    cluster.write(leader, put("shape", "round")).await;
    applied_alike(&cluster).await;
    let counted =
        |ledger: &Ledger| (ledger.counters().peer_recoveries_begun, ledger.node_info().fenced_vault_count);
    assert!(cluster.running().all(|(_, ledger)| counted(ledger) == (0, 0)), "nobody is changed");
    assert_eq!(value(cluster.nodes[leader].ledger(), "colour").await.unwrap(), WRITTEN);

    let id = cluster.nodes[followers[0]].id();
    cluster.nodes[leader].ledger().cluster().transfer(Some(id)).await.unwrap();
    let before = cluster.nodes[leader].ledger();
    recovered(before, 1).await;
    cluster.converge().await;
    assert_eq!(chain(before), chain(cluster.nodes[followers[1]].ledger()));
    assert_eq!(value(before, "colour").await.unwrap(), ARRIVED);
}

/// Many rounds of comparing and of recovering, in time that stands still while anybody is at work.
const MANY_ROUNDS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn of_two_voters_nobody_is_right_by_itself_and_an_operator_decides() {
    let (cluster, leader) = of_voters(2, in_one_thread).await;
    let wrong = (leader + 1) % 2;
    diverge(&cluster, leader, &[wrong], "colour").await;
    let follower = cluster.nodes[wrong].ledger();
    until("the vault is fenced", || follower.node_info().fenced_vault_count == 1).await;
    cluster.write(leader, put("shape", "round")).await;
    tokio::time::sleep(MANY_ROUNDS).await;
    assert_eq!(follower.counters().peer_recoveries_begun, 0);
    assert_eq!(only(follower).state, DivergenceState::Open);
    let recovered = follower.recover_vault(&vault()).await.unwrap();
    assert_eq!(recovered.from_node, Some(cluster.nodes[leader].id()));
    cluster.converge().await;
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()));
    assert_eq!(only(follower).state, DivergenceState::Recovered);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_node_that_differs_again_right_after_a_recovery_stays_fenced_until_an_operator_says_otherwise() {
    let (cluster, leader) = of_voters(3, in_one_thread).await;
    let wrong = (leader + 1) % 3;
    let follower = cluster.nodes[wrong].ledger();
    diverge(&cluster, leader, &[wrong], "colour").await;
    recovered(follower, 1).await;
    diverge(&cluster, leader, &[wrong], "shape").await;
    until("it is fenced again", || follower.counters().vaults_diverged == 2).await;
    until("it says why", || follower.node_info().fenced_vault_count == 1).await;
    let found = follower.cluster().divergences();
    let states: Vec<DivergenceState> = found.iter().map(|found| found.state).collect();
    assert_eq!(states, [DivergenceState::Recovered, DivergenceState::StaysFenced]);
    assert!(found[1].reason.contains("differs again"), "{}", found[1].reason);
    tokio::time::sleep(MANY_ROUNDS).await;
    assert_eq!(follower.counters().peer_recoveries_begun, 1);
    follower.recover_vault(&vault()).await.unwrap();
    cluster.converge().await;
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()));
}

/// The stopped node goes on from a copy of its files as they were at one moment.
async fn crash(cluster: &mut TestCluster, index: usize, take: impl FnOnce(&Node) -> super::setting::Home) {
    let copy = take(&cluster.nodes[index]);
    cluster.network.silence(cluster.nodes[index].address());
    let ledger = cluster.nodes[index].ledger.take().unwrap();
    // What it does after the copy was taken is lost; it has to end, so that its number is there once.
    let _ = ledger.shutdown().await;
    cluster.nodes[index].home = copy;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_and_after_the_exchange_leaves_the_old_content_or_the_leaders() {
    let (mut cluster, leader) = of_voters(3, |_| {}).await;
    let wrong = (leader + 1) % 3;
    plant(&cluster, &[wrong]);
    cluster.write(leader, put("colour", "planted")).await;
    applied_alike(&cluster).await;
    // All of the snapshot arrives, and is not installed.
    let id = cluster.nodes[wrong].id();
    cluster.network.intercept(move |request| match request.method {
        PeerMethod::SnapshotInstall if request.to == Some(id) => Fate::Lost,
        _ => Fate::Delivered,
    });
    let follower = cluster.nodes[wrong].ledger();
    until("the snapshot arrives", || follower.counters().snapshot_chunks_received > 0).await;
    assert_eq!(only(follower).state, DivergenceState::Recovering);
    crash(&mut cluster, wrong, |node| node.home.copy()).await;
    cluster.network.heal();
    cluster.start(wrong, Bootstrap::Joined).await;
    let follower = cluster.nodes[wrong].ledger();
    recovered(follower, 1).await;
    // Nothing of it was flushed since.
    crash(&mut cluster, wrong, |node| node.home.copy()).await;
    cluster.start(wrong, Bootstrap::Joined).await;
    cluster.leader().await;
    cluster.write(leader, put("colour", "green")).await;
    cluster.converge().await;
    let follower = cluster.nodes[wrong].ledger();
    assert_eq!(chain(follower), chain(cluster.nodes[leader].ledger()));
    assert_eq!(value(follower, "colour").await.unwrap(), b"green");
    assert_eq!(follower.counters().vaults_diverged, 0, "the crash did not bring it back");
}

/// Changes the files of a stopped node.
fn tamper(node: &Node, change: impl FnOnce(&MemoryStateStore, AppliedState) -> StateBatch) {
    let store = MemoryStateStore::open(&node.home.state);
    let applied = store.applied().unwrap().unwrap();
    let batch = change(&store, applied);
    store.commit(&batch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_idempotency_record_is_found_and_comes_back_from_the_leader() {
    let (mut cluster, leader) = of_voters(3, |_| {}).await;
    let repeated = put("colour", "green");
    let first = cluster.write(leader, repeated.clone()).await;
    cluster.converge().await;
    let wrong = (leader + 1) % 3;
    cluster.stop(wrong).await;
    tamper(&cluster.nodes[wrong], |store, applied| {
        let mut newest = None;
        let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
        store
            .scan(Table::Idempotency, &everything, &mut |key, _| {
                newest = Some(key.to_vec());
                true
            })
            .unwrap();
        let rows = vec![RowChange { table: Table::Idempotency, key: newest.unwrap(), value: None }];
        StateBatch { dropped_vaults: Vec::new(), rows, applied }
    });
    cluster.start(wrong, Bootstrap::Joined).await;
    let follower = cluster.nodes[wrong].ledger();
    until("the difference is found", || follower.counters().digests_diverged == 1).await;
    recovered(follower, 1).await;
    let found = only(follower);
    assert_eq!((found.kind, found.vault_name.as_str()), (DivergenceKind::IdempotencyKeys, "acme/orders"));
    assert_eq!(found.state, DivergenceState::Recovered);
    cluster.converge().await;
    // As the leader it knows the write that it had forgotten.
    let id = cluster.nodes[wrong].id();
    cluster.nodes[leader].ledger().cluster().transfer(Some(id)).await.unwrap();
    cluster.leader().await;
    let again = cluster.write(wrong, repeated).await;
    assert_eq!((again.height, again.replayed), (first.height, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_differ_are_found_and_come_back_from_the_leader_and_no_vault_is_fenced() {
    let (mut cluster, leader) = of_voters(3, |_| {}).await;
    let wrong = (leader + 1) % 3;
    cluster.stop(wrong).await;
    tamper(&cluster.nodes[wrong], |_, applied| {
        let mut membership = applied.membership.to_vec();
        let url = b"http://node-";
        let at = membership.windows(url.len()).position(|window| window == url).unwrap();
        membership[at + url.len()] = b'9';
        let applied = AppliedState { membership: membership.into(), ..applied };
        StateBatch { dropped_vaults: Vec::new(), rows: Vec::new(), applied }
    });
    cluster.start(wrong, Bootstrap::Joined).await;
    let follower = cluster.nodes[wrong].ledger();
    until("the difference is found", || follower.counters().digests_diverged == 1).await;
    recovered(follower, 1).await;
    let found = only(follower);
    assert_eq!((found.kind, found.state), (DivergenceKind::Membership, DivergenceState::Recovered));
    assert_eq!(follower.counters().vaults_diverged, 0);
    let counted = follower.counters().digests_compared;
    cluster.write(leader, put("colour", "green")).await;
    until("it is compared again", || follower.counters().digests_compared > counted).await;
    assert_eq!(follower.counters().digests_diverged, 1);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_signed_another_history_keeps_it_as_evidence() {
    let (cluster, leader) = of_voters(3, |_| {}).await;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    diverge(&cluster, leader, &followers, "colour").await;
    cluster.nodes[leader].ledger().checkpoint(&vault(), 0).await.unwrap();
    let id = cluster.nodes[followers[0]].id();
    cluster.nodes[leader].ledger().cluster().transfer(Some(id)).await.unwrap();
    let signer = cluster.nodes[leader].ledger();
    let stays = || {
        let found = signer.cluster().divergences();
        found
            .iter()
            .any(|found| found.state == DivergenceState::StaysFenced && found.reason.contains("signed"))
    };
    until("it refuses to lose what it signed", stays).await;
    assert_eq!(signer.node_info().fenced_vault_count, 1);
    let refused = signer.recover_vault(&vault()).await.unwrap_err();
    assert!(matches!(refused, MaintenanceError::NotFromPeer { .. }), "{refused}");
    assert!(refused.to_string().contains("evidence"), "{refused}");
}
