use std::future::Future;

use super::changes::ChangePage;
use super::commit::{Commit, CommitId, Position, Version};
use super::read::{ExpiredRecord, ReadSet, Snapshot};
use crate::key::Key;
use crate::millis::Millis;

/// Records, in this process or elsewhere.
///
/// # Contract
///
/// - **A1 atomic**: a commit takes effect as a whole or not at all; nobody sees a part of it.
/// - **A2 serial**: commits take effect one after the other: the conditions of each are judged by all that were before it,
///   and none comes between them and its writes. Of any number of commits that want one key absent one is applied; of
///   those that want one version of a record one that writes it is; a condition of a key that is only read counts as much.
/// - **A3 snapshot**: a read shows one state. The state has every commit that had returned when the read began, and is as
///   it was after [`Snapshot::position`] at least.
/// - **A4 versions**: the version of a record is the position of the commit that wrote it. Positions only grow.
/// - **A5 idempotent**: a commit that was applied and comes again, with the same id and content, changes nothing and has the
///   first answer. With the same id and other content it is [`CommitIdReused`](AuthStoreError::CommitIdReused). A
///   commit that was refused leaves nothing behind, not even its id.
/// - **A6 horizon**: an applied commit is known for [`COMMIT_ID_HORIZON`](super::COMMIT_ID_HORIZON) by the time in its id,
///   unless [`COMMIT_IDS_KEPT_MAX`](super::COMMIT_IDS_KEPT_MAX) have later ids. An id that may have been forgotten is
///   [`CommitIdExpired`](AuthStoreError::CommitIdExpired), whatever clock it comes with: nothing is applied twice. One
///   that is more than [`COMMIT_ID_AHEAD_MAX`](super::COMMIT_ID_AHEAD_MAX) ahead of `now` is
///   [`CommitIdAhead`](AuthStoreError::CommitIdAhead).
/// - **A7 expiry**: from the instant `expires_at` on a record is absent, for reads and conditions, whether or not somebody has
///   removed it. Until then it is there. `scan_expired` tells those that take room, the longest expired first, until
///   they are deleted or replaced.
/// - **A8 ranges**: rows come in the order of their keys, or in the opposite one; each is in exactly one page of a range when
///   nothing changes between them. A page is short only when the range ends, or for a limit, and then says what is left.
/// - **A9 feed**: `changes` tells each commit once, whole, in the order of positions and without a gap, as soon as it has
///   returned. It does for [`FEED_HORIZON`](super::FEED_HORIZON) by the times of commits, unless
///   [`CHANGES_KEPT_MAX`](super::CHANGES_KEPT_MAX) came later; who is further behind, or ahead of the store, is told
///   [`PositionLost`](AuthStoreError::PositionLost).
/// - **A10 injective**: different keys have different records, whatever bytes are in their parts, and so have tenants.
/// - **A11 refusals**: what is beyond a limit, or contradicts itself, is an error that changes nothing.
/// - **A12 errors**: after [`UnknownOutcome`](AuthStoreError::UnknownOutcome) a commit may have been applied, or not: send it
///   again with its id. After every other error it has not been.
/// - **A13 durable**, of stores that say so: what had returned is there when the store is opened again, whatever ended the
///   process: records, ids and feed.
///
/// `now` is the caller's. Nobody is let in by a clock that goes back: an expired record may only come back until it is removed.
pub trait AuthStore: Send + Sync + 'static {
    /// Reads records and ranges as one state (A3, A7, A8, A11).
    fn read(
        &self,
        reads: &ReadSet,
        now: Millis,
    ) -> impl Future<Output = Result<Snapshot, AuthStoreError>> + Send;

    /// Judges the conditions and applies the writes (A1, A2, A4 to A7, A11, A12). The position is the commit's.
    fn commit(
        &self,
        commit: &Commit,
        now: Millis,
    ) -> impl Future<Output = Result<Position, AuthStoreError>> + Send;

    /// Some of the records that have expired, up to [`EXPIRED_PER_SCAN_MAX`](super::EXPIRED_PER_SCAN_MAX) (A7, A11).
    fn scan_expired(
        &self,
        now: Millis,
        rows_max: usize,
    ) -> impl Future<Output = Result<Vec<ExpiredRecord>, AuthStoreError>> + Send;

    /// The commits behind a position, up to [`COMMITS_PER_CHANGES_MAX`](super::COMMITS_PER_CHANGES_MAX) (A9, A11).
    fn changes(
        &self,
        after: Position,
        commits_max: usize,
    ) -> impl Future<Output = Result<ChangePage, AuthStoreError>> + Send;
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of a key.
    KeyBytes,
    /// Bytes of a value.
    ValueBytes,
    /// Conditions of a commit.
    Checks,
    /// Writes of a commit.
    Writes,
    /// Bytes of a commit.
    CommitBytes,
    /// Keys of a read.
    Keys,
    /// Ranges of a read.
    Ranges,
    /// Rows of a range or of a scan.
    Rows,
    /// Commits of a read of the feed.
    Changes,
}

impl Limit {
    /// Refuses what is beyond.
    ///
    /// # Errors
    ///
    /// [`AuthStoreError::TooLarge`].
    pub fn hold(self, asked: usize, max: usize) -> Result<(), AuthStoreError> {
        if asked > max {
            return Err(AuthStoreError::TooLarge { limit: self, asked, max });
        }
        Ok(())
    }
}

/// A store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthStoreError {
    /// A condition does not hold. Read again, decide again, commit under another id.
    #[error("the record {key:?} is not as expected: read it again")]
    Conflict {
        /// Of the first condition that does not hold.
        key: Key,
        /// The version of the record that is there instead.
        found: Option<Version>,
    },
    /// Another commit was applied under this id: ids have to be fresh.
    #[error("the commit id {id:?} belongs to another commit: draw a fresh one for each")]
    CommitIdReused {
        /// The id.
        id: CommitId,
    },
    /// The id is so old that it is unknown whether it was applied: read what it would have written.
    #[error(
        "the commit id {id:?} is too old to know whether it was applied: read what it would have written"
    )]
    CommitIdExpired {
        /// The id.
        id: CommitId,
    },
    /// The id was made by a clock that is ahead.
    #[error("the commit id {id:?} is ahead of {now:?}: set the clocks")]
    CommitIdAhead {
        /// The id.
        id: CommitId,
        /// The commit's time.
        now: Millis,
    },
    /// Two conditions of one key, or two writes to one.
    #[error("{key:?} is in the commit twice: say each once")]
    RepeatedKey {
        /// The key.
        key: Key,
    },
    /// More than a limit allows.
    #[error("{limit:?}: {asked} are asked for, {max} is the most: ask for less at a time")]
    TooLarge {
        /// Which limit.
        limit: Limit,
        /// What was asked for.
        asked: usize,
        /// The most.
        max: usize,
    },
    /// The feed does not reach back that far, or not yet that far: forget what was read, and follow from the newest on.
    #[error("the feed has the commits behind {}, up to {}: read everything anew and follow from there", oldest.0, newest.0)]
    PositionLost {
        /// The earliest position that can be asked for.
        oldest: Position,
        /// The last commit.
        newest: Position,
    },
    /// A commit may have been applied, or not: send it again with its id.
    #[error("it is unknown whether the commit was applied ({reason}): send it again")]
    UnknownOutcome {
        /// What the store said.
        reason: String,
    },
    /// There is no room. Nothing was applied.
    #[error("the store is full ({reason}): make room")]
    Full {
        /// What the store said.
        reason: String,
    },
    /// The store cannot be reached, or has failed. Nothing was applied.
    #[error("the store is unavailable: {source}")]
    Unavailable {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
