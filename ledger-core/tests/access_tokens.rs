//! Access tokens as replicated state: who may administer is decided in log order, alike on every node.

use std::ops::ControlFlow;
use std::sync::Arc;

use ledger_core::access::Role;
use ledger_core::access_token::{AccessToken, TOKENS_MAX, TokenId};
use ledger_core::codec;
use ledger_core::command::{AdminRefusal, Command, Outcome, Proposal};
use ledger_core::ledger_state::LedgerState;
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{AppliedState, LogId, RowChange, StateBatch, StateStore, Table};
use ledger_core::snapshot::{self, Header, SnapshotError};
use ledger_core::transaction::Actor;

const T0: u64 = 1_800_000_000_000;
const VAULT: VaultId = VaultId([7; 16]);

struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    next: u64,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self { store, state, next: 0 };
        fixture.apply(Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: VAULT });
        fixture
    }

    /// Through the encoding of the log.
    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 9, index: self.next };
        self.next += 1;
        let encoded = codec::encode_proposal(&Proposal { time_ms: T0, command }).unwrap();
        self.state.apply(at, &codec::decode_proposal(&encoded).unwrap()).unwrap()
    }

    fn put(&mut self, token: AccessToken) -> Result<AccessToken, AdminRefusal> {
        match self.apply(Command::PutToken { token }) {
            Outcome::Token(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, id: TokenId) -> Result<AccessToken, AdminRefusal> {
        match self.apply(Command::RevokeToken { id }) {
            Outcome::Token(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn first(&mut self, tokens: Vec<AccessToken>) -> bool {
        match self.apply(Command::FirstTokens { tokens }) {
            Outcome::FirstTokens(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    fn flush(&mut self) {
        let job = self.state.start_flush().unwrap();
        self.store.commit(&job.batch()).unwrap();
        self.state.finish_flush();
    }

    fn snapshot(&self) -> Vec<u8> {
        let view = self.store.view().unwrap();
        let header = snapshot::outline(view.as_ref(), T0).unwrap();
        let mut file = Vec::new();
        snapshot::write(view.as_ref(), &header, &mut file, &mut |_| ControlFlow::Continue(())).unwrap();
        file
    }
}

fn token(number: u64, role: Role, scope: &str) -> AccessToken {
    AccessToken {
        id: TokenId(number.to_be_bytes()),
        sha256: [number as u8; 32],
        role,
        scope: scope.parse().unwrap(),
        actor: Actor::new("client:ci").unwrap(),
        created_at_ms: T0,
    }
}

fn restored(file: &[u8]) -> Result<Arc<MemoryStateStore>, SnapshotError> {
    let mut rows: Vec<RowChange> = Vec::new();
    let mut keep = |_: &Header, row| {
        rows.push(row);
        Ok(())
    };
    let verified = snapshot::restore(file, &[], &mut keep, &mut |_| ControlFlow::Continue(()))?;
    let membership = verified.header.membership.clone().into();
    let applied = AppliedState { last_applied: verified.header.applied, membership };
    let store = Arc::new(MemoryStateStore::default());
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    Ok(store)
}

#[test]
fn the_first_tokens_are_taken_once_whoever_proposes_them() {
    let mut fixture = Fixture::new();
    let (first, late) = (token(1, Role::Admin, "*"), token(2, Role::Admin, "*"));
    assert!(fixture.first(vec![first.clone()]));
    assert!(!fixture.first(vec![late.clone()]));
    assert_eq!(fixture.state.tokens().iter().collect::<Vec<_>>(), [&first]);
    assert_eq!(fixture.state.tokens().get(&late.id), None);
}

#[test]
fn a_repeated_token_is_answered_alike_and_another_one_under_its_id_is_refused() {
    let mut fixture = Fixture::new();
    let made = token(1, Role::Writer, "acme");
    assert_eq!(fixture.put(made.clone()), Ok(made.clone()));
    assert_eq!(fixture.put(made.clone()), Ok(made.clone()));
    let other = AccessToken { sha256: [9; 32], ..made.clone() };
    assert_eq!(fixture.put(other), Err(AdminRefusal::TokenIdUsed(made.id)));
    assert_eq!(fixture.state.tokens().get(&made.id), Some(&made));
    assert_eq!(fixture.revoke(made.id), Ok(made.clone()));
    assert_eq!(fixture.revoke(made.id), Err(AdminRefusal::TokenNotFound(made.id)));
}

#[test]
fn somebody_can_always_administer_everything_also_when_two_revocations_meet() {
    let mut fixture = Fixture::new();
    let (one, two) = (token(1, Role::Admin, "*"), token(2, Role::Admin, "*"));
    fixture.first(vec![one.clone(), two.clone(), token(3, Role::Admin, "acme"), token(4, Role::Writer, "*")]);
    // Both were proposed by nodes that saw both tokens.
    assert_eq!(fixture.revoke(one.id), Ok(one));
    assert_eq!(fixture.revoke(two.id), Err(AdminRefusal::LastAdminToken(two.id)));
    assert_eq!(fixture.state.tokens().len(), 3);
}

#[test]
fn there_are_at_most_ten_thousand_tokens() {
    let mut fixture = Fixture::new();
    fixture.first((0..TOKENS_MAX as u64 + 5).map(|number| token(number, Role::Reader, "*")).collect());
    assert_eq!(fixture.state.tokens().len(), TOKENS_MAX);
    let further = token(u64::MAX, Role::Reader, "*");
    assert_eq!(fixture.put(further.clone()), Err(AdminRefusal::TooManyTokens));
    fixture.revoke(TokenId(0_u64.to_be_bytes())).unwrap();
    assert_eq!(fixture.put(further.clone()), Ok(further));
}

#[test]
fn tokens_are_in_the_stores_and_in_snapshots_and_in_no_state_root() {
    let mut fixture = Fixture::new();
    let root = fixture.state.tip(VAULT).unwrap();
    let empty = fixture.state.tokens().digest().unwrap();
    fixture.first(vec![token(1, Role::Admin, "*")]);
    fixture.put(token(2, Role::Reader, "acme/main")).unwrap();
    fixture.put(token(3, Role::Reader, "acme")).unwrap();
    fixture.flush();
    fixture.revoke(TokenId(3_u64.to_be_bytes())).unwrap();
    fixture.flush();
    assert_eq!(fixture.state.tip(VAULT).unwrap(), root);
    let digest = fixture.state.tokens().digest().unwrap();
    assert_ne!(digest, empty);

    let reopened = LedgerState::load(fixture.store.clone()).unwrap();
    assert_eq!(reopened.tokens(), fixture.state.tokens());
    let elsewhere = LedgerState::load(restored(&fixture.snapshot()).unwrap()).unwrap();
    assert_eq!(elsewhere.tokens(), fixture.state.tokens());
    assert_eq!(elsewhere.tokens().digest().unwrap(), digest);
}

#[test]
fn a_row_that_is_no_token_is_refused_by_a_reader_of_snapshots_and_at_the_start() {
    for change in ["another key", "another value"] {
        let mut fixture = Fixture::new();
        fixture.first(vec![token(1, Role::Admin, "*")]);
        fixture.flush();
        let key = [b"token/".as_slice(), &1_u64.to_be_bytes()].concat();
        let value = fixture.store.get(Table::Ledger, &key).unwrap().unwrap();
        let row = match change {
            "another key" => {
                let key = [b"token/".as_slice(), &2_u64.to_be_bytes()].concat();
                RowChange { table: Table::Ledger, key, value: Some(value) }
            }
            _ => RowChange { table: Table::Ledger, key, value: Some(value.slice(..value.len() - 1)) },
        };
        let applied = fixture.store.applied().unwrap().unwrap();
        fixture.store.commit(&StateBatch { dropped_vaults: Vec::new(), rows: vec![row], applied }).unwrap();
        let refusal = restored(&fixture.snapshot()).map(drop).unwrap_err().to_string();
        assert!(refusal.contains("token"), "{change}: {refusal}");
        let refusal = LedgerState::load(fixture.store).map(drop).unwrap_err().to_string();
        assert!(refusal.contains("token"), "{change}: {refusal}");
    }
}

/// The layouts of `docs/formats.md`, written out by hand.
#[test]
fn rows_and_entries_of_tokens_have_the_documented_bytes() {
    let made = AccessToken { id: TokenId([1, 2, 3, 4, 5, 6, 7, 8]), ..token(0xaa, Role::Admin, "*") };
    let fields = [
        &[1, 2, 3, 4, 5, 6, 7, 8],
        [0xaa; 32].as_slice(),
        &[2],
        &[1, b'*'],
        &[9],
        b"client:ci",
        // 1,800,000,000,000 as a varint.
        &[0x80, 0xa0, 0xf1, 0xc2, 0xb1, 0x34],
    ]
    .concat();
    let mut fixture = Fixture::new();
    fixture.put(made.clone()).unwrap();
    fixture.flush();
    let row = fixture.store.get(Table::Ledger, b"token/\x01\x02\x03\x04\x05\x06\x07\x08").unwrap().unwrap();
    assert_eq!(row, [[0x01].as_slice(), &fields].concat());
    // Computed by another program over the bytes above.
    let digest = fixture.state.tokens().digest().unwrap();
    assert_eq!(digest, DIGEST_OF_THE_ROW, "{digest:02x?}");

    let entry = |command| codec::encode_proposal(&Proposal { time_ms: 5, command }).unwrap();
    let put = [[0x01, 5, PUT_TOKEN].as_slice(), &fields].concat();
    assert_eq!(entry(Command::PutToken { token: made.clone() }), put);
    let revoke = [0x01, 5, PUT_TOKEN + 1, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(entry(Command::RevokeToken { id: made.id }).as_ref(), revoke);
    let first = [[0x01, 5, PUT_TOKEN + 2, 1].as_slice(), &fields].concat();
    assert_eq!(entry(Command::FirstTokens { tokens: vec![made] }), first);
}

/// Variant of the command.
const PUT_TOKEN: u8 = 11;

const DIGEST_OF_THE_ROW: [u8; 32] = [
    0x58, 0x20, 0x79, 0xa4, 0xd5, 0x34, 0x77, 0x64, 0xec, 0x18, 0x48, 0x58, 0x08, 0x41, 0x8e, 0xba, 0x6d,
    0xd2, 0xc5, 0xd8, 0x18, 0x83, 0x02, 0x87, 0xb3, 0xf6, 0x43, 0xfa, 0x02, 0xc2, 0xdc, 0x61,
];
