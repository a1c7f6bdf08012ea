//! What the engine asks of a store of records. The trait has a numbered contract; the suite in `conformance` (a feature) holds
//! every implementation to it.

mod auth_store;
mod changes;
mod commit;
mod read;

pub use auth_store::{AuthStore, AuthStoreError, Limit};
pub use changes::{
    CHANGE_BYTES_PER_READ_MAX, CHANGES_KEPT_MAX, COMMITS_PER_CHANGES_MAX, Change, ChangePage, Changed,
    FEED_HORIZON,
};
pub use commit::{
    CHECKS_PER_COMMIT_MAX, COMMIT_BYTES_MAX, COMMIT_ID_AHEAD_MAX, COMMIT_ID_HORIZON, COMMIT_IDS_KEPT_MAX,
    Check, Commit, CommitDigest, CommitId, Expect, Position, VALUE_BYTES_MAX, Version, WRITES_PER_COMMIT_MAX,
    Write,
};
pub use read::{
    Direction, EXPIRED_PER_SCAN_MAX, ExpiredRecord, KEYS_PER_READ_MAX, Page, RANGE_BYTES_PER_READ_MAX,
    RANGES_PER_READ_MAX, ROWS_PER_RANGE_MAX, RangeRead, ReadSet, Record, Row, Snapshot,
};
