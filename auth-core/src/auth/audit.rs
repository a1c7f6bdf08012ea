use super::{Auth, AuthError};
use crate::audit::ChainPoint;
use crate::key::KeyRange;
use crate::millis::Millis;
use crate::ports::{AuthStore, ROWS_PER_RANGE_MAX, ReadSet};
use crate::records::{AuditEntry, AuditHead, RecordError, Stored};

/// A part of a chain of the log, as bytes that [`verify_chain`](crate::audit::verify_chain) follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Entries in their order.
    pub entries: Vec<Vec<u8>>,
    /// The number of the last of them, to ask for those behind it; `None` when these are all there were.
    pub next: Option<u64>,
    /// The end of the chain when this was read.
    pub head: ChainPoint,
}

impl<S: AuthStore> Auth<S> {
    /// The entries of a chain behind the one of this number, up to so many.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn audit_page(
        &self,
        shard: u16,
        after: u64,
        entries_max: usize,
        now: Millis,
    ) -> Result<AuditPage, AuthError> {
        let chain = KeyRange::under(&AuditEntry::chain_key(self.tenant, shard));
        let range = chain.behind(&AuditEntry::key(self.tenant, shard, after));
        let rows_max = entries_max.clamp(1, ROWS_PER_RANGE_MAX);
        let reads = ReadSet::of([AuditHead::key(self.tenant, shard)]).range(range, rows_max);
        let snapshot = self.store.read(&reads, now).await?;
        let head = match snapshot.records.into_iter().next().flatten() {
            None => AuditHead::default(),
            Some(record) => AuditHead::decode(&record.value).map_err(damaged)?,
        };
        let Some(page) = snapshot.pages.into_iter().next() else {
            return Err(damaged(RecordError::Short));
        };
        let last = page.rows.last().and_then(|row| row.key.parts().nth(1).map(<[u8]>::to_vec));
        let last = last.and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        Ok(AuditPage {
            entries: page.rows.iter().map(|row| row.record.value.to_vec()).collect(),
            next: page.rest.and(last),
            head: ChainPoint { tenant: self.tenant, shard, head },
        })
    }
}

fn damaged(source: RecordError) -> AuthError {
    AuthError::Damaged { table: AuditHead::TABLE, source }
}
