//! Snapshots through their façade: whole or refused.

use std::io::{self, Cursor, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use ledger_core::command::{Command, Outcome, Proposal, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::LedgerState;
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::snapshot::{
    self, EXPANSION_MAX, FRAME_BYTES, Header, ROW_VALUE_BYTES_MAX, SnapshotError, Verified, WriteError,
};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey, VerifierKey};
use sha2::{Digest, Sha256};

const T0: u64 = 1_800_000_000_000;
const MAIN: VaultId = VaultId([7; 16]);
const SECOND: VaultId = VaultId([8; 16]);

/// A ledger on the memory store.
struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    next: u64,
}

impl Fixture {
    /// One vault with a few keys of every kind.
    fn small() -> Self {
        Self::of_ledger(LedgerId([1; 16]))
    }

    fn of_ledger(ledger_id: LedgerId) -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self { store, state, next: 0 };
        fixture.apply(Command::Initialise { ledger_id, page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: MAIN });
        fixture
            .write(MAIN, vec![set("a", "1", 0), set("b", "2", T0 + 1_000), relate("doc:plan", "user:ann")]);
        fixture.write(MAIN, vec![set("a", "3", 0), relate("doc:plan", "user:bob")]);
        fixture.flush();
        fixture
    }

    /// Two vaults and a deleted one; enough blocks for tiles of the log, enough bytes for several frames.
    fn large() -> Self {
        let mut fixture = Self::small();
        fixture.apply(Command::CreateVault { vault: "acme/second".parse().unwrap(), id: SECOND });
        fixture.apply(Command::CreateVault { vault: "acme/gone".parse().unwrap(), id: VaultId([9; 16]) });
        fixture.write(VaultId([9; 16]), vec![set("x", "y", 0)]);
        fixture.apply(Command::DeleteVault { vault: "acme/gone".parse().unwrap() });
        for number in 0..600 {
            let value = format!("{number}").repeat(1_000);
            let operations = vec![
                set(&format!("key-{}", number % 300), &value, if number % 5 == 0 { T0 + number } else { 0 }),
                relate(&format!("doc:{}", number % 20), &format!("user:{number}")),
            ];
            fixture.write(if number % 3 == 0 { SECOND } else { MAIN }, operations);
        }
        fixture.flush();
        fixture
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 0, index: self.next };
        self.next += 1;
        self.state.apply(at, &Proposal { time_ms: T0, command }).unwrap()
    }

    fn write(&mut self, vault: VaultId, operations: Vec<Operation>) {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.next.to_be_bytes());
        let transaction = Transaction::new(IdempotencyKey::from_parts(T0, random), operations).unwrap();
        let submission = Submission { vault, actor: Actor::new("client:test").unwrap(), transaction };
        match self.apply(Command::Write { submissions: vec![submission] }) {
            Outcome::Writes(answers) => assert!(answers.iter().all(Result::is_ok)),
            other => panic!("{other:?}"),
        }
    }

    fn flush(&mut self) {
        let job = self.state.start_flush().unwrap();
        self.store.commit(&job.batch()).unwrap();
        self.state.finish_flush();
    }

    fn header(&self) -> Header {
        snapshot::outline(self.store.view().unwrap().as_ref(), T0).unwrap()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.snapshot_with(&self.header())
    }

    fn snapshot_with(&self, header: &Header) -> Vec<u8> {
        let mut file = Vec::new();
        let view = self.store.view().unwrap();
        let written =
            snapshot::write(view.as_ref(), header, &mut file, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(written.file_bytes, file.len() as u64);
        file
    }

    /// The header with a checkpoint of every vault.
    fn signed_header(&self, key: &SigningKey) -> Header {
        let mut header = self.header();
        for entry in &mut header.vaults {
            let tip = self.state.tip(entry.id).unwrap();
            assert_eq!(tip.log_root, entry.log_root);
            let origin = format!("{}/{}", key.name(), entry.id);
            let checkpoint = Checkpoint { origin, size: tip.size, root: tip.log_root };
            entry.checkpoint = Some(SignedCheckpoint::sign(&checkpoint, key));
        }
        header
    }
}

fn set(key: &str, value: &str, expires_at_ms: u64) -> Operation {
    let value = EntityValue::new(value.as_bytes().to_vec()).unwrap();
    let action = Action::SetEntity { key: EntityKey::new(key).unwrap(), value, expires_at_ms };
    Operation { action, condition: None }
}

fn relate(resource: &str, subject: &str) -> Operation {
    let tuple = Relationship {
        resource: Resource::new(resource).unwrap(),
        relation: Relation::new("viewer").unwrap(),
        subject: Subject::new(subject).unwrap(),
    };
    Operation { action: Action::CreateRelationship(tuple), condition: None }
}

fn verify(file: &[u8]) -> Result<Verified, SnapshotError> {
    verify_with(file, &[])
}

fn verify_with(file: &[u8], keys: &[VerifierKey]) -> Result<Verified, SnapshotError> {
    snapshot::verify(file, keys, &mut |_| ControlFlow::Continue(()))
}

fn signing_key(ledger: u8, seed: u8) -> SigningKey {
    SigningKey::from_seed(&format!("strongroom/{}", LedgerId([ledger; 16])), &[seed; 32]).unwrap()
}

fn restore(file: &[u8]) -> (Verified, Arc<MemoryStateStore>) {
    let mut rows: Vec<RowChange> = Vec::new();
    let mut keep = |_: &Header, row| {
        rows.push(row);
        Ok(())
    };
    let verified = snapshot::restore(file, &[], &mut keep, &mut |_| ControlFlow::Continue(())).unwrap();
    let applied = ledger_core::ports::AppliedState {
        last_applied: verified.header.applied,
        membership: verified.header.membership.clone().into(),
    };
    let store = Arc::new(MemoryStateStore::default());
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    (verified, store)
}

fn rows(store: &MemoryStateStore, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    let mut collect = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    };
    store.scan(table, &everything, &mut collect).unwrap();
    rows
}

#[test]
fn a_restored_snapshot_has_every_row_root_and_block_and_gives_the_same_snapshot_again() {
    let fixture = Fixture::large();
    let file = fixture.snapshot();

    let (verified, store) = restore(&file);
    assert!(verified.trailer.plain_bytes > FRAME_BYTES as u64, "several frames");
    for table in Table::ALL {
        assert_eq!(rows(&store, table), rows(&fixture.store, table), "{}", table.name());
    }
    assert!(!rows(&store, Table::Tiles).is_empty());
    let state = LedgerState::load(store.clone()).unwrap();
    assert_eq!(verified.vaults.len(), 2);
    for vault in &verified.vaults {
        let tip = fixture.state.tip(vault.id).unwrap();
        assert_eq!(state.tip(vault.id).unwrap(), tip);
        assert_eq!((vault.height, vault.block_hash), (tip.header.height, tip.block_hash));
        assert_eq!((vault.state_root, vault.log_root), (tip.header.state_root, tip.log_root));
        assert_eq!(vault.first_body, Some(1));
    }
    let keys: u64 = verified.vaults.iter().map(|vault| vault.keys).sum();
    assert_eq!(keys, verified.trailer.key_count());
    assert_eq!(keys, (rows(&store, Table::Entities).len() + rows(&store, Table::Relationships).len()) as u64);
    let again = Fixture { store, state, next: 0 };
    assert_eq!(again.snapshot(), file);
}

#[test]
fn the_ends_of_a_snapshot_tell_what_reading_all_of_it_tells() {
    let file = Fixture::large().snapshot();
    let summary = snapshot::summarise(Cursor::new(&file)).unwrap();
    let verified = verify(&file).unwrap();
    assert_eq!((summary.header, summary.trailer), (verified.header, verified.trailer));
    assert_eq!((summary.file_bytes, summary.sha256), (file.len() as u64, verified.sha256));
    assert!(snapshot::summarise(Cursor::new(&file[..60])).is_err());
    assert!(snapshot::summarise(Cursor::new(b"another file")).is_err());
}

#[test]
fn every_flipped_byte_is_refused() {
    let file = Fixture::small().snapshot();
    verify(&file).unwrap();
    for at in 0..file.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut flipped = file.clone();
            flipped[at] ^= flip;
            assert!(verify(&flipped).is_err(), "byte {at} xor {flip:#x}");
        }
    }
}

#[test]
fn every_truncation_and_every_appended_byte_is_refused() {
    let file = Fixture::small().snapshot();
    for length in 0..file.len() {
        let refused = verify(&file[..length]).unwrap_err();
        assert!(
            matches!(refused, SnapshotError::Truncated { at_byte } if at_byte == length as u64),
            "{refused}"
        );
    }
    let longer = [file.as_slice(), &[0]].concat();
    assert!(matches!(verify(&longer), Err(SnapshotError::Damaged { .. })));
}

/// Takes so many bytes and then fails.
struct FullDisk(usize);

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_that_fails_at_any_byte_is_an_error() {
    let fixture = Fixture::small();
    let (header, view) = (fixture.header(), fixture.store.view().unwrap());
    let whole = fixture.snapshot().len();
    for room in 0..=whole {
        let written =
            snapshot::write(view.as_ref(), &header, FullDisk(room), &mut |_| ControlFlow::Continue(()));
        match written {
            Ok(_) => assert_eq!(room, whole),
            Err(error) => assert!(matches!(error, WriteError::Io(_)) && room < whole, "{room}: {error}"),
        }
    }
}

#[test]
fn writing_and_reading_stop_when_told() {
    let fixture = Fixture::large();
    let (header, view, file) = (fixture.header(), fixture.store.view().unwrap(), fixture.snapshot());
    let mut calls = 0;
    let mut second = |_: &snapshot::Progress| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = snapshot::write(view.as_ref(), &header, io::sink(), &mut second);
    assert!(matches!(stopped, Err(WriteError::Cancelled)));
    let stopped = snapshot::verify(file.as_slice(), &[], &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(SnapshotError::Cancelled)));
}

#[test]
fn other_files_and_newer_formats_are_refused_by_name() {
    let file = Fixture::small().snapshot();
    assert!(matches!(verify(b"PK\x03\x04 some archive"), Err(SnapshotError::Foreign)));
    let newer = |at: usize| {
        let mut newer = file.clone();
        newer[at + 3] += 1;
        verify(&reseal(newer)).unwrap_err()
    };
    let format = newer(8);
    assert!(format.to_string().contains("format 2; this program reads 1"), "{format}");
    let rows = newer(12);
    assert!(rows.to_string().contains("rows of format 3; this program reads 2"), "{rows}");
}

/// The file with the SHA-256 that its content has now.
fn reseal(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() - 32);
    let hash = Sha256::digest(&file);
    file.extend_from_slice(&hash);
    file
}

/// A snapshot in its parts.
struct Parts {
    /// Magic, formats, length, header.
    head: Vec<u8>,
    plain: Vec<u8>,
    /// Both lengths and the trailer between them.
    tail: Vec<u8>,
}

impl Parts {
    fn of(file: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let mut at = 20 + u32_at(16);
        let head = file[..at].to_vec();
        let mut plain = Vec::new();
        while file[at] == 1 {
            let (length, compressed) = (u32_at(at + 1), u32_at(at + 5));
            at += 9;
            plain.extend(zstd::bulk::decompress(&file[at..at + compressed], length).unwrap());
            at += compressed.max(length.div_ceil(EXPANSION_MAX));
        }
        Self { head, plain, tail: file[at + 1..file.len() - 32].to_vec() }
    }

    fn seal(&self) -> Vec<u8> {
        let frames: Vec<u8> = self.plain.chunks(FRAME_BYTES).flat_map(frame).collect();
        self.seal_with(&frames)
    }

    fn seal_with(&self, frames: &[u8]) -> Vec<u8> {
        reseal([self.head.as_slice(), frames, &[0], &self.tail, &[0; 32]].concat())
    }

    /// Where each row begins, its table, where its key and its value begin, where it ends.
    fn rows(&self) -> Vec<(usize, u8, usize, usize, usize)> {
        let (mut rows, mut at) = (Vec::new(), 0);
        while at < self.plain.len() {
            let u32_at = |at: usize| u32::from_be_bytes(self.plain[at..at + 4].try_into().unwrap()) as usize;
            let (key, value) = (at + 9, at + 9 + u32_at(at + 1));
            let end = value + u32_at(at + 5);
            rows.push((at, self.plain[at], key, value, end));
            at = end;
        }
        rows
    }
}

fn frame(plain: &[u8]) -> Vec<u8> {
    let compressed = zstd::bulk::compress(plain, 1).unwrap();
    let padding = plain.len().div_ceil(EXPANSION_MAX).saturating_sub(compressed.len());
    raw_frame(plain.len(), &[compressed.as_slice(), &vec![0; padding]].concat(), compressed.len())
}

fn raw_frame(plain: usize, stored: &[u8], compressed: usize) -> Vec<u8> {
    let lengths = [(plain as u32).to_be_bytes(), (compressed as u32).to_be_bytes()].concat();
    [&[1], lengths.as_slice(), stored].concat()
}

#[test]
fn the_parts_of_a_snapshot_put_together_again_are_the_snapshot() {
    let file = Fixture::large().snapshot();
    assert!(Parts::of(&file).seal() == file);
}

#[test]
fn rows_that_headers_commit_to_cannot_be_changed_even_with_the_hash_made_right() {
    let file = Fixture::small().snapshot();
    let parts = Parts::of(&file);
    verify(&parts.seal()).unwrap();
    let committed: Vec<u8> = [
        Table::Entities,
        Table::Relationships,
        Table::RelationshipsBySubject,
        Table::Expiries,
        Table::Idempotency,
        Table::Blocks,
    ]
    .map(|table| table as u8)
    .to_vec();
    let mut seen = std::collections::BTreeSet::new();
    for (start, table, key, value, end) in parts.rows() {
        if !committed.contains(&table) {
            continue;
        }
        seen.insert(table);
        // An index row has no content beside its key.
        let last = if table == Table::RelationshipsBySubject as u8 { value } else { end };
        for at in (start..start + 1).chain(key..last) {
            let mut changed =
                Parts { head: parts.head.clone(), plain: parts.plain.clone(), tail: parts.tail.clone() };
            changed.plain[at] ^= 1;
            assert!(verify(&changed.seal()).is_err(), "byte {at} of a row of table {table}");
        }
    }
    assert_eq!(seen.len(), committed.len(), "the snapshot has rows of each");
}

#[test]
fn a_changed_tile_and_a_removed_row_are_named() {
    let parts = Parts::of(&Fixture::large().snapshot());
    let tile = parts.rows().into_iter().find(|(_, table, ..)| *table == Table::Tiles as u8).unwrap();
    let mut changed =
        Parts { head: parts.head.clone(), plain: parts.plain.clone(), tail: parts.tail.clone() };
    changed.plain[tile.3 + 100] ^= 1;
    let refused = verify(&changed.seal()).unwrap_err().to_string();
    assert!(refused.contains("acme/main") && refused.contains("tiles of level 0"), "{refused}");
    for (table, says) in [
        (Table::Entities, "state root"),
        (Table::Relationships, "state root"),
        (Table::Blocks, "block"),
        (Table::Vaults, "trailer"),
    ] {
        let row = parts.rows().into_iter().find(|(_, found, ..)| *found == table as u8).unwrap();
        let mut changed =
            Parts { head: parts.head.clone(), plain: parts.plain.clone(), tail: parts.tail.clone() };
        changed.plain.drain(row.0..row.4);
        let refused = verify(&changed.seal()).unwrap_err().to_string();
        assert!(refused.contains(says), "{}: {refused}", table.name());
    }
}

#[test]
fn the_rows_of_another_ledger_under_this_header_are_refused() {
    let (ours, theirs) = (Fixture::small(), Fixture::of_ledger(LedgerId([3; 16])));
    let (ours, theirs) = (Parts::of(&ours.snapshot()), Parts::of(&theirs.snapshot()));
    let mixed = Parts { head: ours.head, plain: theirs.plain, tail: theirs.tail };
    let refused = verify(&mixed.seal()).unwrap_err();
    assert!(matches!(refused, SnapshotError::Inconsistent { .. }), "{refused}");
    assert!(refused.to_string().contains("another ledger"), "{refused}");
}

#[test]
fn with_a_key_every_vault_must_have_its_signed_checkpoint() {
    let fixture = Fixture::large();
    let key = signing_key(1, 42);
    let trusted = [key.verifier_key()];
    let file = fixture.snapshot_with(&fixture.signed_header(&key));
    assert!(verify(&file).unwrap().vaults.iter().all(|vault| vault.signed_by.is_none()), "no key, no claim");
    let verified = verify_with(&file, &trusted).unwrap();
    assert!(verified.vaults.iter().all(|vault| vault.signed_by.as_ref() == Some(&trusted[0])));

    let stranger = [signing_key(1, 43).verifier_key()];
    assert!(matches!(verify_with(&file, &stranger), Err(SnapshotError::Checkpoint { .. })));
    assert!(matches!(verify_with(&fixture.snapshot(), &trusted), Err(SnapshotError::Unsigned { .. })));

    let mut older = fixture.signed_header(&key);
    older.vaults[1].checkpoint = older.vaults[0].checkpoint.clone();
    let refused = verify(&fixture.snapshot_with(&older)).unwrap_err();
    assert!(matches!(refused, SnapshotError::Vault { .. }), "another vault's checkpoint: {refused}");
}

#[test]
fn lengths_that_lie_are_refused_before_memory_is_taken() {
    let parts = Parts::of(&Fixture::small().snapshot());
    let huge = u32::MAX.to_be_bytes();
    let too_large = |file: &[u8]| {
        let refused = verify(file).unwrap_err();
        assert!(matches!(refused, SnapshotError::TooLarge { .. }), "{refused}");
    };
    let mut header = parts.seal();
    header[16..20].copy_from_slice(&huge);
    too_large(&reseal(header));
    let nothing = zstd::bulk::compress(b"x", 1).unwrap();
    too_large(&parts.seal_with(&raw_frame(FRAME_BYTES + 1, &nothing, nothing.len())));
    too_large(&parts.seal_with(&raw_frame(1, &nothing, u32::MAX as usize)));
    // A row of 128 MiB of which one byte is there, and one that is longer than any.
    let row = |value: u32| [&[3], 9_u32.to_be_bytes().as_slice(), &value.to_be_bytes(), &[0; 10]].concat();
    let mut lying = Parts { plain: row(ROW_VALUE_BYTES_MAX as u32), ..parts };
    assert!(matches!(verify(&lying.seal()), Err(SnapshotError::Damaged { .. })));
    lying.plain = row(ROW_VALUE_BYTES_MAX as u32 + 1);
    too_large(&lying.seal());
    let mut tail = lying.seal();
    let at = tail.len() - 32 - lying.tail.len();
    lying.plain.clear();
    tail[at..at + 4].copy_from_slice(&huge);
    assert!(verify(&reseal(tail)).is_err());
}

#[test]
fn a_frame_that_expands_beyond_its_length_or_beyond_the_ratio_is_refused() {
    let parts = Parts::of(&Fixture::small().snapshot());
    let zeros = vec![0; FRAME_BYTES];
    let bomb = zstd::bulk::compress(&vec![0; 64 * FRAME_BYTES], 1).unwrap();
    let refused = verify(&parts.seal_with(&raw_frame(FRAME_BYTES, &bomb, bomb.len()))).unwrap_err();
    assert!(matches!(refused, SnapshotError::Damaged { .. }), "{refused}");
    let small = zstd::bulk::compress(&zeros, 1).unwrap();
    assert!(small.len() * EXPANSION_MAX < FRAME_BYTES, "it expands beyond the ratio");
    let refused = verify(&parts.seal_with(&raw_frame(FRAME_BYTES, &small, small.len()))).unwrap_err();
    assert!(matches!(refused, SnapshotError::Damaged { .. } | SnapshotError::Truncated { .. }), "{refused}");
    // Honest zeros are padded by the writer, and read.
    let mut fixture = Fixture::small();
    fixture.write(MAIN, vec![set("zeros", &"\0".repeat(900_000), 0)]);
    fixture.flush();
    let file = fixture.snapshot();
    assert!(file.len() > 900_000 / EXPANSION_MAX);
    verify(&file).unwrap();
}

#[test]
fn a_fenced_vault_is_carried_as_it_is_but_nobody_vouches_for_it() {
    let fixture = Fixture::large();
    let key = signing_key(1, 42);
    let mut header = fixture.signed_header(&key);
    let entry = header.vaults.iter_mut().find(|entry| entry.id == SECOND).unwrap();
    entry.fenced = true;
    entry.checkpoint = None;
    let mut parts = Parts::of(&fixture.snapshot_with(&header));
    let number = header.vaults[1].number.to_be_bytes();
    let row = parts
        .rows()
        .into_iter()
        .find(|(_, table, key, ..)| *table == Table::Entities as u8 && parts.plain[*key..*key + 8] == number);
    let changed = row.unwrap().4 - 1;
    parts.plain[changed] ^= 1;
    let file = parts.seal();
    let verified = verify(&file).unwrap();
    assert_eq!(verified.vaults.iter().map(|vault| vault.fenced).collect::<Vec<_>>(), [false, true]);
    assert!(matches!(verify_with(&file, &[key.verifier_key()]), Err(SnapshotError::Unsigned { .. })));
}
