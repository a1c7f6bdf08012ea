//! What one write and one proof cost, stage by stage, without disk or network.
//!
//! `cargo bench -p strongroom-benches`; `LEDGER_BENCH_KEYS=1000000` sets the keys in the tree (100,000).

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ledger_core::codec::{decode_proposal, encode_proposal};
use ledger_core::command::{Command, Outcome, Proposal, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::LedgerState;
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, StateStore};
use ledger_core::state_tree::StateTree;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_verify::Hash;
use ledger_verify::hash::sha256;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey};
use ledger_verify::proof::{Evidence, Subject, log_key_name, log_origin, verify};
use ledger_verify::state::StateKey;

const VAULT: VaultId = VaultId([7; 16]);
const LEDGER: LedgerId = LedgerId([1; 16]);
const TIME_MS: u64 = 1_800_000_000_000;
const BATCH: u64 = 256;
const VALUE_BYTES: usize = 256;

fn keys() -> u64 {
    std::env::var("LEDGER_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(100_000)
}

fn leaf(number: u64, generation: u64) -> (Hash, Hash) {
    (sha256(&[&number.to_be_bytes()]), sha256(&[&number.to_be_bytes(), &generation.to_be_bytes()]))
}

/// A sequence that visits keys in no order, the same in every run.
struct Scattered(u64);

impl Scattered {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

struct Bed {
    state: LedgerState,
    store: Arc<MemoryStateStore>,
    index: u64,
    keys_used: u64,
    scattered: Scattered,
}

impl Bed {
    fn new(keys: u64) -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).expect("an empty store loads");
        let mut bed = Self { state, store, index: 0, keys_used: 0, scattered: Scattered(1) };
        bed.apply(Command::Initialise { ledger_id: LEDGER, page_key: [2; 32] });
        bed.apply(Command::CreateNamespace { name: "bench".to_owned().try_into().expect("a name") });
        bed.apply(Command::CreateVault { vault: "bench/main".parse().expect("a vault"), id: VAULT });
        for first in (0..keys).step_by(1_000) {
            let numbers: Vec<u64> = (first..(first + 1_000).min(keys)).collect();
            let submissions = numbers.into_iter().map(|number| bed.submission(number)).collect();
            bed.apply(Command::Write { submissions });
            bed.flush();
        }
        bed
    }

    fn submission(&mut self, number: u64) -> Submission {
        self.keys_used += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.keys_used.to_be_bytes());
        let action = Action::SetEntity {
            key: EntityKey::new(&format!("key/{number:012}")).expect("a key"),
            value: EntityValue::new(vec![number as u8; VALUE_BYTES]).expect("a value"),
            expires_at_ms: 0,
        };
        let operations = vec![Operation { action, condition: None }];
        let key = IdempotencyKey::from_parts(TIME_MS, random);
        Submission {
            vault: VAULT,
            actor: Actor::new("client:bench").expect("an actor"),
            transaction: Transaction::new(key, operations).expect("a transaction"),
        }
    }

    fn batch(&mut self, keys: u64) -> Proposal {
        let submissions = (0..BATCH)
            .map(|_| {
                let number = self.scattered.next(keys);
                self.submission(number)
            })
            .collect();
        Proposal { time_ms: TIME_MS, command: Command::Write { submissions } }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.apply_proposal(&Proposal { time_ms: TIME_MS, command })
    }

    fn apply_proposal(&mut self, proposal: &Proposal) -> Outcome {
        let at = LogId { term: 1, node: 1, index: self.index };
        self.index += 1;
        self.state.apply(at, proposal).expect("the memory store does not fail")
    }

    fn flush(&mut self) {
        if let Some(job) = self.state.start_flush() {
            self.store.commit(&job.batch()).expect("the memory store does not fail");
            self.state.finish_flush();
        }
    }
}

fn state_tree(c: &mut Criterion) {
    let keys = keys();
    let mut tree = StateTree::from_leaves((0..keys).map(|number| leaf(number, 0)).collect());
    let mut scattered = Scattered(7);
    let mut group = c.benchmark_group(format!("state tree of {keys} keys"));
    for batch in [1_u64, 64, 500] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("overwrite {batch} keys"), |b| {
            let mut generation = 0;
            b.iter_batched(
                || {
                    generation += 1;
                    let changes = (0..batch).map(|_| leaf(scattered.next(keys), generation));
                    changes.map(|(key, value)| (key, Some(value))).collect::<Vec<_>>()
                },
                |changes| tree.update(changes),
                BatchSize::SmallInput,
            );
        });
    }
    let present = leaf(keys / 2, 0).0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("prove one key", |b| b.iter(|| tree.prove(black_box(&present))));
    group.finish();
}

fn apply(c: &mut Criterion) {
    let keys = keys();
    let mut bed = Bed::new(keys);
    let mut group = c.benchmark_group(format!("{BATCH} puts of {VALUE_BYTES} bytes into {keys} keys"));
    group.throughput(Throughput::Elements(BATCH));
    let proposal = bed.batch(keys);
    group.bench_function("encode", |b| b.iter(|| encode_proposal(black_box(&proposal)).expect("it encodes")));
    let encoded = encode_proposal(&proposal).expect("it encodes");
    group.bench_function("decode", |b| b.iter(|| decode_proposal(black_box(&encoded)).expect("it decodes")));
    let mut since_flush = 0;
    group.bench_function("apply", |b| {
        b.iter_custom(|rounds| {
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..rounds {
                let proposal = bed.batch(keys);
                let start = std::time::Instant::now();
                black_box(bed.apply_proposal(&proposal));
                spent += start.elapsed();
                since_flush += 1;
                if since_flush == 64 {
                    since_flush = 0;
                    bed.flush();
                }
            }
            spent
        });
    });
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let keys = keys();
    let bed = Bed::new(keys);
    let signing = SigningKey::from_seed(&log_key_name(&LEDGER.0), &[3; 32]).expect("a key");
    let verifier = [signing.verifier_key()];
    let text = format!("key/{:012}", keys / 2);
    let subject = Subject::Entity { key: text.clone() };
    let evidence = || {
        let state = bed.state.state_evidence(VAULT, &StateKey::Entity { key: &text }).expect("evidence");
        let tip = bed.state.tip(VAULT).expect("a tip");
        let inclusion_path = bed.state.inclusion_path(VAULT, tip.header.height, tip.size).expect("a path");
        (state, tip, inclusion_path)
    };
    let mut group = c.benchmark_group(format!("one of {keys} keys"));
    group.bench_function("gather evidence", |b| b.iter(evidence));
    let (state, tip, inclusion_path) = evidence();
    let checkpoint =
        Checkpoint { origin: log_origin(&LEDGER.0, &VAULT.0), size: tip.size, root: tip.log_root };
    group.bench_function("sign a checkpoint", |b| b.iter(|| SignedCheckpoint::sign(&checkpoint, &signing)));
    let evidence = Evidence {
        leaf: state.leaf,
        state_proof: state.proof,
        header: state.header.encode().to_vec(),
        inclusion_path,
        checkpoint: SignedCheckpoint::sign(&checkpoint, &signing),
    };
    group.bench_function("verify", |b| {
        b.iter(|| verify(&subject, &evidence, &verifier).expect("it verifies"))
    });
    group.finish();
}

criterion_group!(benches, state_tree, apply, proofs);
criterion_main!(benches);
