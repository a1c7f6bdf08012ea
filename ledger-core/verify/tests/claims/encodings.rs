//! Headers, transactions, keys and leaf values: one byte form each, and no panic on any other.

use ledger_verify::DecodeError;
use ledger_verify::header::{BlockHeader, HEADER_BYTES};
use ledger_verify::state::{LEAF_PREFIX_BYTES, LeafKind, LeafValue, StateKey};
use ledger_verify::transaction::{
    ActionRef, ConditionRef, OperationRef, RelationshipRef, TransactionHeader, decode, encode_header,
    encode_operation,
};
use proptest::prelude::*;

use crate::fixture::{VIEWER, Vault};

fn sample_header() -> BlockHeader {
    BlockHeader {
        version: 1,
        ledger_id: [1; 16],
        vault_id: [2; 16],
        height: 3,
        previous: [4; 32],
        tx_root: [5; 32],
        tx_count: 6,
        state_root: [7; 32],
        time_ms: 8,
        term: 9,
        index: 10,
        first_sequence: 11,
        last_sequence: 12,
    }
}

#[test]
fn every_field_of_a_header_stands_at_its_documented_offset() {
    let bytes = sample_header().encode();
    assert_eq!(bytes.len(), 188);
    let fields: [(usize, &[u8]); 15] = [
        (0, b"SRBH"),
        (4, &[0, 1]),
        (6, &[0, 1]),
        (8, &[1; 16]),
        (24, &[2; 16]),
        (40, &3u64.to_be_bytes()),
        (48, &[4; 32]),
        (80, &[5; 32]),
        (112, &6u32.to_be_bytes()),
        (116, &[7; 32]),
        (148, &8u64.to_be_bytes()),
        (156, &9u64.to_be_bytes()),
        (164, &10u64.to_be_bytes()),
        (172, &11u64.to_be_bytes()),
        (180, &12u64.to_be_bytes()),
    ];
    for (offset, field) in fields {
        assert_eq!(&bytes[offset..offset + field.len()], field, "offset {offset}");
    }
    assert_eq!(BlockHeader::decode(&bytes), Ok(sample_header()));
}

#[test]
fn a_header_of_another_length_magic_version_or_suite_is_refused() {
    let bytes = sample_header().encode();
    for length in 0..HEADER_BYTES {
        let given = BlockHeader::decode(&bytes[..length]);
        let what = "a block header";
        assert_eq!(given, Err(DecodeError::Length { what, expected: HEADER_BYTES, given: length }));
    }
    assert!(BlockHeader::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    for offset in 0..8 {
        let mut bytes = bytes;
        bytes[offset] ^= 0x02;
        assert!(BlockHeader::decode(&bytes).is_err(), "offset {offset}");
    }
}

#[test]
fn every_transaction_of_the_sample_vault_round_trips_and_is_refused_when_cut_or_extended() {
    let transactions: Vec<Vec<u8>> = Vault::five_blocks().transactions.concat();
    assert_eq!(transactions.len(), 6);
    for bytes in transactions {
        let view = decode(&bytes).unwrap();
        assert_eq!(encode(&view.header, &view.operations), bytes);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(DecodeError::Trailing { what: "a transaction", trailing: 1 }));
    }
}

#[test]
fn unknown_kinds_conditions_results_and_broken_text_are_refused_by_name() {
    let header = TransactionHeader {
        vault_id: [1; 16],
        sequence: 1,
        time_ms: 2,
        idempotency_key: [3; 16],
        actor: "user:a",
        operation_count: 1,
    };
    let operation = OperationRef { action: ActionRef::DeleteEntity { key: "k" }, condition: None, result: 4 };
    let bytes = encode(&header, &[operation]);
    // Kind, key length, key, condition, result are the last six bytes.
    let kind_at = bytes.len() - 6;
    for (offset, bad, expected) in [
        (kind_at, 0, DecodeError::Unknown { field: "the operation kind", given: 0 }),
        (kind_at, 8, DecodeError::Unknown { field: "the operation kind", given: 8 }),
        (kind_at + 3, 0xff, DecodeError::NotUtf8 { field: "the key" }),
        (kind_at + 4, 5, DecodeError::Unknown { field: "the condition", given: 5 }),
        (kind_at + 5, 0, DecodeError::Unknown { field: "the result", given: 0 }),
        (kind_at + 5, 7, DecodeError::Unknown { field: "the result", given: 7 }),
    ] {
        let mut bytes = bytes.clone();
        bytes[offset] = bad;
        assert_eq!(decode(&bytes), Err(expected));
    }
}

#[test]
fn a_header_a_transaction_and_a_leaf_are_never_read_as_each_other() {
    let vault = Vault::five_blocks();
    let header = vault.headers[1].encode();
    let transaction = &vault.transactions[1][0];
    let leaf = vault.leaves.values().next().unwrap();
    assert!(decode(&header).is_err() && LeafValue::decode(&header).is_err());
    assert!(BlockHeader::decode(transaction).is_err() && LeafValue::decode(transaction).is_err());
    assert!(BlockHeader::decode(leaf).is_err() && decode(leaf).is_err());
}

#[test]
fn a_leaf_value_has_a_prefix_of_26_bytes_and_a_relationship_has_no_value() {
    let leaf =
        LeafValue { kind: LeafKind::Entity, modified_height: 1, version: 2, expires_at_ms: 3, value: b"xyz" };
    let bytes = leaf.encode();
    assert_eq!(bytes.len(), LEAF_PREFIX_BYTES + 3);
    assert_eq!(&bytes[..2], &[1, 1]);
    assert_eq!(&bytes[2..26], [1u64.to_be_bytes(), 2u64.to_be_bytes(), 3u64.to_be_bytes()].as_flattened());
    assert_eq!(LeafValue::decode(&bytes), Ok(leaf));
    assert_eq!(leaf.hash(), ledger_verify::hash::sha256(&[&bytes]));
    for length in 0..LEAF_PREFIX_BYTES {
        assert!(LeafValue::decode(&bytes[..length]).is_err());
    }
    let relationship = LeafValue { kind: LeafKind::Relationship, ..leaf };
    assert_eq!(LeafValue::decode(&relationship.encode()), Err(DecodeError::RelationshipValue { given: 3 }));
    for (offset, bad) in [(0, 0), (0, 2), (1, 0), (1, 3)] {
        let mut bytes = bytes.clone();
        bytes[offset] = bad;
        assert!(matches!(LeafValue::decode(&bytes), Err(DecodeError::Unknown { .. })));
    }
}

#[test]
fn state_keys_of_different_records_never_share_bytes() {
    assert_eq!(StateKey::Entity { key: "k" }.encode(), b"\x01k");
    assert_eq!(
        StateKey::Relationship(VIEWER).encode(),
        b"\x02\x00\x0bdocument:42\x00\x06viewer\x00\x08user:ada"
    );
    let moved = RelationshipRef { resource: "a:bc", relation: "d", subject: "e:f" };
    let shifted = RelationshipRef { resource: "a:b", relation: "cd", subject: "e:f" };
    assert_ne!(StateKey::Relationship(moved).hash(), StateKey::Relationship(shifted).hash());
}

fn encode(header: &TransactionHeader<'_>, operations: &[OperationRef<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_header(&mut bytes, header);
    for operation in operations {
        encode_operation(&mut bytes, operation);
    }
    bytes
}

type OwnedOperation = (u8, [String; 3], Vec<u8>, u64, u8, u8);

/// Builds one of the seven actions and five conditions from owned parts.
fn operation((kind, texts, value, number, condition, result): &OwnedOperation) -> OperationRef<'_> {
    let [key, relation, subject] = texts;
    let tuple = RelationshipRef { resource: key, relation, subject };
    let action = match kind {
        1 => ActionRef::SetEntity { key, value, expires_at_ms: *number },
        2 => ActionRef::DeleteEntity { key },
        3 => ActionRef::ExpireEntity { key },
        4 => ActionRef::CreateRelationship(tuple),
        5 => ActionRef::DeleteRelationship(tuple),
        6 => ActionRef::AssertEntity { key },
        _ => ActionRef::AssertRelationship(tuple),
    };
    let condition = match condition {
        0 => None,
        1 => Some(ConditionRef::MustNotExist),
        2 => Some(ConditionRef::MustExist),
        3 => Some(ConditionRef::VersionEquals(*number)),
        _ => Some(ConditionRef::ValueEquals(value)),
    };
    OperationRef { action, condition, result: *result }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_header_round_trips(
        ids in any::<([u8; 16], [u8; 16])>(),
        hashes in any::<([u8; 32], [u8; 32], [u8; 32])>(),
        numbers in any::<[u64; 6]>(),
        tx_count in any::<u32>(),
        version in 1..=2u16,
    ) {
        let [height, time_ms, term, index, first_sequence, last_sequence] = numbers;
        let header = BlockHeader {
            version,
            ledger_id: ids.0, vault_id: ids.1, height, previous: hashes.0, tx_root: hashes.1, tx_count,
            state_root: hashes.2, time_ms, term, index, first_sequence, last_sequence,
        };
        prop_assert_eq!(BlockHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_transaction_round_trips(
        numbers in any::<(u64, u64)>(),
        ids in any::<([u8; 16], [u8; 16])>(),
        actor in ".{0,40}",
        operations in prop::collection::vec(
            (1..=7u8, [".{0,30}", ".{0,10}", ".{0,30}"], prop::collection::vec(any::<u8>(), 0..50), any::<u64>(), 0..=4u8, 1..=6u8),
            0..8,
        ),
    ) {
        let operations: Vec<OperationRef<'_>> = operations.iter().map(operation).collect();
        let header = TransactionHeader {
            vault_id: ids.0, sequence: numbers.0, time_ms: numbers.1, idempotency_key: ids.1, actor: &actor,
            operation_count: operations.len() as u16,
        };
        let bytes = encode(&header, &operations);
        let view = decode(&bytes).unwrap();
        prop_assert_eq!(view.header, header);
        prop_assert_eq!(view.operations, operations);
    }
}
