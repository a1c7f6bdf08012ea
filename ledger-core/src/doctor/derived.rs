//! What follows from other rows: relationships by subject, expiries, tiles of the log; and fences.

use ledger_verify::header::BlockHeader;
use ledger_verify::state::LeafValue;

use super::{Inspection, Problem};
use crate::codec;
use crate::command::Fence;
use crate::ledger_state::{StateError, from_hex};
use crate::names::VaultNumber;
use crate::overlay::Overlay;
use crate::ports::{ScanRange, StoreError, Table};
use crate::rows;

const MISSING: &str = "is missing";
const UNEXPLAINED: &str = "does not follow from any";
const CORRUPT: &str = "does not have its checksum";
const WRONG: &str = "is not what the headers make of it";

impl Inspection {
    /// Notes the row that follows from a stored one.
    pub(super) fn derive(&mut self, number: VaultNumber, table: Table, row_key: &[u8], row: &[u8]) {
        if table == Table::Relationships {
            if let Some(tuple) = rows::relationship_of(row_key) {
                self.derived.insert((Table::RelationshipsBySubject, rows::by_subject_key(number, &tuple)));
            }
            return;
        }
        let expires_at_ms = LeafValue::decode(row).map_or(0, |leaf| leaf.expires_at_ms);
        if let Some(entity) = rows::entity_of(row_key).filter(|_| expires_at_ms != 0) {
            self.derived.insert((Table::Expiries, rows::expiry_key(number, expires_at_ms, &entity)));
        }
    }

    /// Compares the tables of derived rows with what follows.
    pub(super) fn compare_derived(
        &mut self,
        overlay: &Overlay,
        number: VaultNumber,
    ) -> Result<(), StateError> {
        for table in [Table::RelationshipsBySubject, Table::Expiries] {
            let mut range = ScanRange { prefix: rows::vault_prefix(number), start: Vec::new() };
            loop {
                let scanned = overlay.scan(table, &range, &mut |row_key, _| {
                    if !self.derived.remove(&(table, row_key.to_vec())) {
                        self.problem(Problem::DerivedRow { what: name(table, row_key), fault: UNEXPLAINED });
                    }
                    true
                });
                let corrupt = match scanned {
                    Ok(()) => break,
                    Err(StoreError::Corrupt { table, key }) => {
                        from_hex(&key).ok_or(StoreError::Corrupt { table, key })?
                    }
                    Err(error) => return Err(error.into()),
                };
                // It ends a scan: note it, and go on behind it.
                self.derived.remove(&(table, corrupt.clone()));
                self.problem(Problem::DerivedRow { what: name(table, &corrupt), fault: CORRUPT });
                range.start = corrupt;
                range.start.push(0);
            }
        }
        for (table, row_key) in std::mem::take(&mut self.derived) {
            self.problem(Problem::DerivedRow { what: name(table, &row_key), fault: MISSING });
        }
        Ok(())
    }

    /// Adds a header to the log and compares the tiles that it completes with the stored ones.
    pub(super) fn extend_log(
        &mut self,
        overlay: &Overlay,
        number: VaultNumber,
        header: &BlockHeader,
    ) -> Result<(), StateError> {
        // Behind a header that cannot be read nothing is known of the log.
        if self.log.size() != header.height {
            return Ok(());
        }
        for tile in self.log.append(header.leaf_hash()) {
            let stored = overlay.get(Table::Tiles, &rows::tile_key(number, tile.level, tile.number));
            let fault = match stored {
                Ok(Some(row)) if rows::decode_tile(&row).as_ref() == Some(&tile.hashes) => continue,
                Ok(Some(_)) => WRONG,
                Ok(None) => MISSING,
                Err(StoreError::Corrupt { .. }) => CORRUPT,
                Err(error) => return Err(error.into()),
            };
            self.problem(Problem::TileWrong { level: tile.level, number: tile.number, fault });
        }
        Ok(())
    }

    /// Names the fence of a vault that a server did not serve.
    pub(super) fn name_fence(&mut self, overlay: &Overlay, number: VaultNumber) -> Result<(), StateError> {
        if let Some(row) = overlay.get(Table::Fenced, &rows::vault_prefix(number))? {
            let fence: Fence = codec::decode("a fence", &row)?;
            self.problem(Problem::Fenced { height: fence.height, what: fence.what });
        }
        Ok(())
    }
}

fn name(table: Table, row_key: &[u8]) -> String {
    let named = match table {
        Table::Expiries => rows::expiry_of(row_key).map(|(_, key)| format!("the expiry of {}", key.as_str())),
        _ => rows::relationship_by_subject_of(row_key).map(|tuple| {
            let (resource, relation) = (tuple.resource.as_str(), tuple.relation.as_str());
            format!("the row by subject of {resource} {relation} {}", tuple.subject.as_str())
        }),
    };
    named.unwrap_or_else(|| format!("a row of {}", table.name()))
}
