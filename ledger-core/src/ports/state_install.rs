use super::state_store::{AppliedState, RowChange, Table};
use super::state_view::StateView;
use super::{BatchRefused, StoreError};

/// New content of a [`StateStore`](super::StateStore), made beside the present one and put in its place at once
/// (its G9). Rows come in with [`put`](Self::put), then [`seal`](Self::seal), then [`publish`](Self::publish).
///
/// Dropped before it is published, it leaves nothing. An error leaves the store as it is and this useless; only an
/// error of `publish` also ends the store's commits, as one of a commit does: what is on the disk is unknown then.
pub trait StateInstall: Send {
    /// Adds rows. Over all calls they ascend by table and key, and each has a value. Memory does not grow with them.
    fn put(&mut self, rows: &[RowChange]) -> Result<(), StoreError>;

    /// Makes all rows durable, beside the present content.
    fn seal(&mut self, applied: &AppliedState) -> Result<(), StoreError>;

    /// What was sealed, as a view of the store will show it.
    fn view(&self) -> Result<Box<dyn StateView>, StoreError>;

    /// Puts what was sealed in the place of the store's content.
    fn publish(self: Box<Self>) -> Result<(), StoreError>;
}

/// Whether the rows of new content come in order: for implementations of [`StateInstall`].
#[derive(Debug, Default)]
pub struct InstallOrder {
    last: Option<(Table, Vec<u8>)>,
    sealed: bool,
}

impl InstallOrder {
    /// Takes the next rows, or says why not.
    pub fn put(&mut self, rows: &[RowChange]) -> Result<(), BatchRefused> {
        if self.sealed {
            return Err(BatchRefused::InstallOutOfTurn);
        }
        for (position, row) in rows.iter().enumerate() {
            let before = match position.checked_sub(1).and_then(|before| rows.get(before)) {
                Some(row) => Some((row.table, row.key.as_slice())),
                None => self.last.as_ref().map(|(table, key)| (*table, key.as_slice())),
            };
            if before >= Some((row.table, row.key.as_slice())) {
                return Err(BatchRefused::Unordered { position, table: row.table.name() });
            }
            if row.value.is_none() {
                return Err(BatchRefused::Deletion { position, table: row.table.name() });
            }
        }
        if let Some(row) = rows.last() {
            self.last = Some((row.table, row.key.clone()));
        }
        Ok(())
    }

    /// Allows no more rows.
    pub fn seal(&mut self) -> Result<(), BatchRefused> {
        if std::mem::replace(&mut self.sealed, true) { Err(BatchRefused::InstallOutOfTurn) } else { Ok(()) }
    }

    /// Refuses what comes before the seal.
    pub fn check_sealed(&self) -> Result<(), BatchRefused> {
        if self.sealed { Ok(()) } else { Err(BatchRefused::InstallOutOfTurn) }
    }
}
