use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use auth_core::Millis;
use auth_core::ports::{
    AuthStore, AuthStoreError, COMMITS_PER_CHANGES_MAX, ChangePage, Commit, EXPIRED_PER_SCAN_MAX,
    ExpiredRecord, Limit, Position, ReadSet, Snapshot,
};

use super::batch::Asked;
use super::failure::RedbAuthError;
use super::file::AuthFile;
use super::options::AuthOptions;
use super::view::View;
use super::writer::Shared;
use crate::redb::failure::panic_message;
use crate::redb::one_file::{Failure, Place};
use crate::redb::state_files::StateFiles;

/// Records in one file. See the module's documentation.
#[derive(Debug)]
pub struct RedbAuthStore {
    shared: Arc<Shared>,
    /// Taken only by `drop`.
    writer: Option<JoinHandle<()>>,
}

impl RedbAuthStore {
    /// Opens the file; makes it, readable by its owner only, when it is missing. Its directory has to be there.
    ///
    /// # Errors
    ///
    /// [`RedbAuthError`].
    pub fn open(path: &Path, options: AuthOptions) -> Result<Self, RedbAuthError> {
        Self::open_at(Place::of(path, options.cache_bytes)?)
    }

    /// As [`open`](Self::open), on a disk of somebody else's: for fault injection.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_files(
        files: Arc<dyn StateFiles>,
        name: &str,
        options: AuthOptions,
    ) -> Result<Self, RedbAuthError> {
        Self::open_at(Place { files, name: name.to_owned(), cache_bytes: options.cache_bytes })
    }

    fn open_at(place: Place) -> Result<Self, RedbAuthError> {
        let name = place.name.clone();
        let (file, progress) = AuthFile::open_or_create(&place)?;
        let view = guarded(|| file.view(progress.last));
        let view = view.map_err(|reason| RedbAuthError::Damaged { name: name.clone(), reason: reason.0 })?;
        let shared = Arc::new(Shared::new(view, place, file.syncs()));
        let writing = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("auth-writer".to_owned());
        let writer = writer.spawn(move || writing.write_until_the_end(file, progress));
        let writer = writer.map_err(|source| RedbAuthError::Io {
            action: "start a thread for",
            name,
            source: Arc::new(source),
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Writes what waits, and closes the file. Whoever asks later is refused.
    pub async fn close(&self) {
        // It ends without an answer: there is none to give.
        let _ = self.shared.end().await;
    }

    /// Why nothing is answered any more, or for now.
    pub fn failure(&self) -> Option<RedbAuthError> {
        self.shared.lock().failed.clone()
    }

    /// Commits that were answered, refused ones included, and the transactions that they took.
    pub fn commits(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.commits, state.transactions)
    }

    /// fsyncs of the file since it was opened: one for each transaction, and one each time that it grew.
    pub fn syncs(&self) -> (u64, u64) {
        self.shared.lock().syncs
    }

    fn look<T>(
        &self,
        now: Option<Millis>,
        work: impl FnOnce(&View) -> Result<T, Failure>,
    ) -> Result<T, AuthStoreError> {
        let view = self.shared.view();
        let failed = match view.as_ref() {
            Some(view) => match guarded(|| work(view)) {
                Ok(found) => return Ok(found),
                Err(failed) => failed,
            },
            None => Failed("it is closed".to_owned(), true),
        };
        drop(view);
        let name = self.shared.place().name.clone();
        let Failed(reason, engine) = failed;
        if !engine {
            return Err(RedbAuthError::Damaged { name, reason }.unavailable());
        }
        let known = self.failure();
        // Who follows the feed has no time to tell; those who read and commit have.
        if let Some(now) = now {
            self.shared.suspect(now);
        }
        Err(known.unwrap_or(RedbAuthError::Failed { name, reason }).unavailable())
    }
}

impl AuthStore for RedbAuthStore {
    async fn read(&self, reads: &ReadSet, now: Millis) -> Result<Snapshot, AuthStoreError> {
        reads.check_limits()?;
        self.look(Some(now), |view| view.read(reads, now))
    }

    async fn commit(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        commit.check_limits()?;
        commit.id.check_time(now)?;
        let permit = self.shared.room(commit.size_bytes()).await.map_err(RedbAuthError::unavailable)?;
        let asked = Asked { commit: commit.clone(), digest: commit.digest(), now };
        let answer = self.shared.ask(asked, permit).map_err(RedbAuthError::unavailable)?;
        let gone =
            |_| AuthStoreError::UnknownOutcome { reason: "the thread that writes has ended".to_owned() };
        answer.await.map_err(gone)?
    }

    async fn scan_expired(&self, now: Millis, rows_max: usize) -> Result<Vec<ExpiredRecord>, AuthStoreError> {
        Limit::Rows.hold(rows_max, EXPIRED_PER_SCAN_MAX)?;
        self.look(Some(now), |view| view.expired(now, rows_max))
    }

    async fn changes(&self, after: Position, commits_max: usize) -> Result<ChangePage, AuthStoreError> {
        Limit::Changes.hold(commits_max, COMMITS_PER_CHANGES_MAX)?;
        self.look(None, |view| view.changes(after, commits_max))?
    }
}

/// Ends behind what waits.
impl Drop for RedbAuthStore {
    fn drop(&mut self) {
        drop(self.shared.end());
        if let Some(writer) = self.writer.take() {
            // A panic of it has ended all answers already.
            let _ = writer.join();
        }
    }
}

/// Why, and whether it is the engine's failure, not a row's.
struct Failed(String, bool);

fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failed> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => {
            result.map_err(|failure| Failed(failure.to_string(), !matches!(failure, Failure::Row(_))))
        }
        Err(payload) => Err(Failed(panic_message(payload.as_ref()), true)),
    }
}
