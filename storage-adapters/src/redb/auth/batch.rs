//! One transaction: many commits, each judged by all that are before it.

use ::redb::{ReadableTable, ReadableTableMetadata, Table as RedbTable};
use auth_core::Millis;
use auth_core::ports::{
    AuthStoreError, CHANGES_KEPT_MAX, COMMIT_ID_HORIZON, COMMIT_IDS_KEPT_MAX, Change, Commit, CommitDigest,
    FEED_HORIZON, Position, Version, Write,
};

use super::failure::RedbAuthError;
use super::file::{AuthFile, Progress, known, put_progress};
use super::layout::{self, CHANGE_ROWS, CHANGES, COMMIT_ROWS, COMMITS, END_ROWS, ENDS, RECORD_ROWS, RECORDS};
use super::options::FORGOTTEN_PER_COMMIT;
use super::view::open_record;
use crate::redb::one_file::Failure;
use crate::redb::row;

type Bytes = &'static [u8];

/// What somebody asks to be applied.
#[derive(Debug)]
pub(super) struct Asked {
    pub commit: Commit,
    pub digest: CommitDigest,
    pub now: Millis,
}

/// What is told when the transaction is durable.
pub(super) type Answer = Result<Position, AuthStoreError>;

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing can have been applied.
    Judging,
    /// All of it may be on the disk, or nothing.
    Committing,
}

struct Tables<'w> {
    records: RedbTable<'w, Bytes, Bytes>,
    ends: RedbTable<'w, Bytes, Bytes>,
    commits: RedbTable<'w, Bytes, Bytes>,
    changes: RedbTable<'w, Bytes, Bytes>,
    /// Of the row that is being written.
    framed: Vec<u8>,
}

/// What a commit would do.
enum Verdict {
    /// It is answered as it stands.
    Answered(Answer),
    /// It is applied. The ends of the records that it writes over, in the order of its writes.
    Applies(Vec<Option<Millis>>),
}

/// Judges and applies commits in one durable transaction. `progress` is as the file has it when this returns without a failure.
pub(super) fn write<'a>(
    file: &AuthFile,
    batch: impl Iterator<Item = &'a Asked>,
    progress: &mut Progress,
    stage: &mut Stage,
) -> Result<Vec<Answer>, Failure> {
    let transaction = file.begin_write()?;
    let mut after = *progress;
    let (mut answers, mut applied, mut latest) = (Vec::new(), 0_usize, Millis(0));
    {
        let mut tables = Tables {
            records: transaction.open_table(RECORDS)?,
            ends: transaction.open_table(ENDS)?,
            commits: transaction.open_table(COMMITS)?,
            changes: transaction.open_table(CHANGES)?,
            framed: Vec::new(),
        };
        for asked in batch {
            let verdict = match tables.judge(asked, after) {
                // Only this commit has met the damaged row.
                Err(Failure::Row(reason)) => {
                    let damaged = RedbAuthError::Damaged { name: file.name().to_owned(), reason };
                    Verdict::Answered(Err(damaged.unavailable()))
                }
                verdict => verdict?,
            };
            answers.push(match verdict {
                Verdict::Answered(answer) => answer,
                Verdict::Applies(old_ends) => {
                    after.last = Position(after.last.0.saturating_add(1));
                    tables.apply(asked, after.last, &old_ends)?;
                    applied = applied.saturating_add(1);
                    latest = latest.max(asked.now);
                    Ok(after.last)
                }
            });
        }
        if applied > 0 {
            tables.forget(applied.saturating_mul(FORGOTTEN_PER_COMMIT), latest, &mut after)?;
        }
    }
    if applied == 0 {
        transaction.abort()?;
        return Ok(answers);
    }
    put_progress(&transaction, after)?;
    *stage = Stage::Committing;
    transaction.commit()?;
    *progress = after;
    Ok(answers)
}

impl Tables<'_> {
    /// Only reads: a failure leaves nothing half done.
    fn judge(&self, asked: &Asked, progress: Progress) -> Result<Verdict, Failure> {
        let Asked { commit, digest, now } = asked;
        let id = commit.id;
        if let Some((known, position)) = known(&self.commits, id)? {
            let same = known == *digest;
            let answer = if same { Ok(position) } else { Err(AuthStoreError::CommitIdReused { id }) };
            return Ok(Verdict::Answered(answer));
        }
        if progress.forgotten.is_some_and(|forgotten| id <= forgotten) {
            return Ok(Verdict::Answered(Err(AuthStoreError::CommitIdExpired { id })));
        }
        for check in &commit.checks {
            let found = match self.records.get(check.key.as_bytes())? {
                None => None,
                Some(framed) => {
                    let stored = open_record(check.key.as_bytes(), framed.value())?;
                    (!stored.is_expired(*now)).then_some(stored.version)
                }
            };
            if !check.expect.holds(found) {
                let key = check.key.clone();
                return Ok(Verdict::Answered(Err(AuthStoreError::Conflict { key, found })));
            }
        }
        let old_end = |write: &Write| match self.records.get(write.key().as_bytes())? {
            None => Ok(None),
            Some(framed) => Ok(open_record(write.key().as_bytes(), framed.value())?.expires_at),
        };
        commit.writes.iter().map(old_end).collect::<Result<_, Failure>>().map(Verdict::Applies)
    }

    fn apply(
        &mut self,
        asked: &Asked,
        position: Position,
        old_ends: &[Option<Millis>],
    ) -> Result<(), Failure> {
        for (write, old_end) in asked.commit.writes.iter().zip(old_ends) {
            self.apply_write(write, Version(position.0), *old_end)?;
        }
        let id = asked.commit.id.to_bytes();
        row::seal(&mut self.framed, COMMIT_ROWS, &id, &layout::encode_commit(asked.digest, position));
        self.commits.insert(&id[..], self.framed.as_slice())?;
        let place = position.0.to_be_bytes();
        let change = layout::encode_change(&Change::of(&asked.commit, position, asked.now));
        row::seal(&mut self.framed, CHANGE_ROWS, &place, &change);
        self.changes.insert(&place[..], self.framed.as_slice())?;
        Ok(())
    }

    fn apply_write(
        &mut self,
        write: &Write,
        version: Version,
        old_end: Option<Millis>,
    ) -> Result<(), Failure> {
        let key = write.key();
        let new_end = match write {
            Write::Put { value, expires_at, .. } => {
                let record = layout::encode_record(version, *expires_at, value);
                row::seal(&mut self.framed, RECORD_ROWS, key.as_bytes(), &record);
                self.records.insert(key.as_bytes(), self.framed.as_slice())?;
                *expires_at
            }
            Write::Delete { .. } => {
                self.records.remove(key.as_bytes())?;
                None
            }
        };
        if old_end == new_end {
            return Ok(());
        }
        if let Some(end) = old_end {
            self.ends.remove(layout::end_key(end, key).as_slice())?;
        }
        if let Some(end) = new_end {
            let end_key = layout::end_key(end, key);
            row::seal(&mut self.framed, END_ROWS, &end_key, &[]);
            self.ends.insert(end_key.as_slice(), self.framed.as_slice())?;
        }
        Ok(())
    }

    /// Ids and changes go when they are beyond their horizon, or too many; some at a time. Those that are damaged go as well:
    /// nobody can use them, and whoever follows the feed is told of the loss.
    fn forget(&mut self, count_max: usize, now: Millis, progress: &mut Progress) -> Result<(), Failure> {
        let (ids_from, feed_from) = (now.before(COMMIT_ID_HORIZON), now.before(FEED_HORIZON));
        for _ in 0..count_max {
            let Some((key, _)) = self.commits.first()? else { break };
            let id = layout::decode_id(key.value());
            drop(key);
            if id.is_some_and(|id| id.made_at() > ids_from) && self.commits.len()? <= COMMIT_IDS_KEPT_MAX {
                break;
            }
            progress.forgotten = progress.forgotten.max(id);
            self.commits.pop_first()?;
        }
        for _ in 0..count_max {
            let Some((key, framed)) = self.changes.first()? else { break };
            let change = row::open(CHANGE_ROWS, key.value(), framed.value()).ok();
            let committed_at = change.and_then(layout::decode_committed_at);
            drop((key, framed));
            if committed_at.is_some_and(|at| at > feed_from) && self.changes.len()? <= CHANGES_KEPT_MAX {
                break;
            }
            self.changes.pop_first()?;
        }
        Ok(())
    }
}
