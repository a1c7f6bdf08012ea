//! Members that come back: one whose entries the log no longer has, and a leader that lost what its followers have.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger_core::entity::EntityValue;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Bootstrap, Ledger};
use ledger_simulation::cluster::Cluster;
use ledger_simulation::network::Endpoint;
use ledger_simulation::trace::Telling;
use ledger_simulation::workload::entity_key;

const NODES: [Endpoint; 3] = [Endpoint(0), Endpoint(1), Endpoint(2)];
const LIMIT: Duration = Duration::from_secs(20);

/// Moves on until something holds; answers how long that took.
fn until(cluster: &mut Cluster, what: &str, mut holds: impl FnMut(&mut Cluster) -> bool) -> Duration {
    let began = cluster.world.now();
    while !holds(cluster) {
        cluster.step();
        assert!(cluster.world.now() - began < LIMIT, "{what}: not within {LIMIT:?}");
    }
    cluster.world.now() - began
}

fn ledger(cluster: &Cluster, node: Endpoint) -> Option<Ledger> {
    cluster.world.node(node)?.ledger().cloned()
}

/// Writes through whoever leads, until it is acknowledged.
fn write(cluster: &mut Cluster, number: u8) {
    let vault = cluster.vault().clone();
    let done = Arc::new(Mutex::new(None));
    let mut under_way = false;
    until(cluster, "a write", |cluster| {
        match done.lock().unwrap().take() {
            Some(true) => return true,
            Some(false) => under_way = false,
            None => {}
        }
        let Some(leader) = cluster.leader().filter(|_| !under_way) else { return false };
        let Some(ledger) = ledger(cluster, leader).filter(Ledger::ready) else { return false };
        under_way = true;
        let (vault, done) = (vault.clone(), Arc::clone(&done));
        cluster.world.spawn(leader, async move {
            let key = IdempotencyKey::from_parts(1_800_000_000_000, [number; 10]);
            let value = EntityValue::new(vec![number]).unwrap();
            let action = Action::SetEntity { key: entity_key(0), value, expires_at_ms: 0 };
            let transaction = Transaction::new(key, vec![Operation { action, condition: None }]).unwrap();
            let written = ledger.write(&vault, &Actor::new("client:one").unwrap(), transaction).await;
            *done.lock().unwrap() = Some(written.is_ok());
        });
        false
    });
}

fn three_nodes(log_keep_bytes: u64) -> Cluster {
    let mut cluster = Cluster::new(1, Telling::Quiet).unwrap();
    cluster.set_log_keep_bytes(log_keep_bytes);
    NODES.into_iter().for_each(|node| cluster.make(node).unwrap());
    let members = NODES.into_iter().filter_map(|node| cluster.member(node).cloned()).collect();
    cluster.boot(NODES[0], Bootstrap::Members(members)).unwrap();
    cluster.boot(NODES[1], Bootstrap::Joined).unwrap();
    cluster.boot(NODES[2], Bootstrap::Joined).unwrap();
    create_vault(&mut cluster);
    write(&mut cluster, 0);
    cluster
}

fn create_vault(cluster: &mut Cluster) {
    let vault = cluster.vault().clone();
    let mut asked = false;
    until(cluster, "a vault", |cluster| {
        let leader = cluster.leader().and_then(|leader| Some((leader, ledger(cluster, leader)?)));
        let Some((leader, ledger)) = leader.filter(|(_, ledger)| ledger.ready()) else { return false };
        if !asked {
            asked = true;
            let (ledger, vault) = (ledger.clone(), vault.clone());
            cluster.world.spawn(leader, async move {
                ledger.create_namespace(vault.namespace.clone()).await.unwrap();
                ledger.create_vault(vault).await.unwrap();
            });
        }
        ledger.vault(&vault).is_some()
    });
}

/// The seed that found it: after a power cut of all nodes a new leader had a quorum only with a member whose entries the
/// log no longer had. A leader signed nothing before it had committed something, a snapshot has to be signed, and
/// without the snapshot that member could not help to commit: they waited for each other until a third one came.
#[test]
fn a_new_leader_whose_only_follower_needs_a_snapshot_gets_it_back() {
    let mut cluster = three_nodes(0);

    // One follower is away until the log no longer reaches back to it.
    let leader = cluster.leader().unwrap();
    let [away, other] = *NODES.iter().copied().filter(|node| *node != leader).collect::<Vec<_>>() else {
        panic!("there are two followers")
    };
    cluster.crash(away).unwrap();
    (1..20).for_each(|number| write(&mut cluster, number));
    let written = ledger(&cluster, leader).unwrap().node_info().last_applied;
    until(&mut cluster, "the log is purged", |cluster| {
        [leader, other].iter().all(|node| {
            let info = ledger(cluster, *node).unwrap().node_info();
            info.purged.is_some_and(|purged| purged >= written)
        })
    });

    // The leader goes for good: the other two are a quorum.
    cluster.crash(leader).unwrap();
    cluster.boot(away, Bootstrap::Joined).unwrap();
    write(&mut cluster, 20);
    let installed = ledger(&cluster, away).unwrap().counters().snapshots_installed;
    assert!(installed > 0, "it came back without a snapshot, so this tested nothing");
}

/// The seed that found it: a leader sends entries while its own disk is still busy with them. It crashed when both
/// followers had an entry and it had not, came back before anyone missed it, led on in the same term, and gave the place
/// of that entry in the log to another one: one node had a block less for ever, and answered reads without it.
#[test]
fn a_leader_that_lost_what_its_followers_have_gives_its_place_to_nothing_else() {
    let mut cluster = three_nodes(1 << 30);
    let leader = cluster.leader().unwrap();
    cluster.stall(leader, Duration::from_secs(2));
    write(&mut cluster, 1);
    cluster.crash(leader).unwrap();
    cluster.stall(leader, Duration::ZERO);
    cluster.boot(leader, Bootstrap::Joined).unwrap();
    (2..8).for_each(|number| write(&mut cluster, number));
    let vault = cluster.vault().clone();
    until(&mut cluster, "one state", |cluster| {
        let tip = |node: &Endpoint| {
            let ledger = ledger(cluster, *node)?;
            Some((ledger.node_info().last_applied, ledger.vault(&vault)?.block_hash))
        };
        let tips: Vec<_> = NODES.iter().map(tip).collect();
        tips[0].is_some() && tips.iter().all(|tip| *tip == tips[0])
    });
    cluster.look_at_all();
    cluster.compare_logs();
    assert_eq!(cluster.evidence.violations(), []);
    assert!(cluster.evidence.height() >= 8, "{} blocks for eight writes", cluster.evidence.height());
}
