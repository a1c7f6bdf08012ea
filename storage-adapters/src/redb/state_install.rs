//! New content for a state store: two files beside the present ones, which take their places together.
//!
//! | step | on the disk |
//! |---|---|
//! | make | `blocks.db.install` and `state.db.install` are written and made durable |
//! | decide | the empty file `install.ready` is made durable: from here on the new content is the content |
//! | rename | both files get the names of those before them |
//! | end | `install.ready` goes |
//!
//! Opening the store finishes what comes after the decision and undoes what came before it.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use ::redb::WriteTransaction;
use ledger_core::ports::{
    AppliedState, BatchRefused, InstallOrder, RowChange, StateInstall, StateView, StoreError, Table,
};

use super::failure::{Failure, guarded};
use super::file::RedbFile;
use super::format::{FileKind, META};
use super::row;
use super::state_files::{StateFiles, failed};
use super::state_store::{APPLIED, Content, Shared, definition, encode_applied, put_meta, quick};

/// Its presence is the decision.
const READY: &str = "install.ready";
/// New files and the names that they get.
const NEW_FILES: [(&str, FileKind); 2] =
    [("blocks.db.install", FileKind::Blocks), ("state.db.install", FileKind::State)];
const BEGIN: &str = "begin to replace the state";
const PUT: &str = "write the state that is to be installed";
const PUBLISH: &str = "replace the state";

/// A store without a directory has no place for new content.
#[derive(Debug, thiserror::Error)]
#[error("the state is not in a directory: there is no place to make new content in")]
struct NoDirectory;

/// Finishes or undoes what a crash left of an install.
pub(super) fn settle(files: &dyn StateFiles) -> Result<(), StoreError> {
    let settle = || -> io::Result<()> {
        if files.exists(READY)? {
            return take_places(files);
        }
        for (new, _) in NEW_FILES {
            if files.exists(new)? {
                files.remove(new)?;
            }
        }
        Ok(())
    };
    settle().map_err(|source| failed("finish what a crash left of a replacement of the state", source))
}

/// All that follows the decision. May be begun anew as often as a crash breaks it off.
fn take_places(files: &dyn StateFiles) -> io::Result<()> {
    for (new, kind) in NEW_FILES {
        if files.exists(new)? {
            files.rename(new, kind.file_name())?;
        }
    }
    // The decision goes when nothing depends on it any more, and is gone before there is other new content.
    files.sync()?;
    files.remove(READY)?;
    files.sync()
}

/// New content on its way.
pub(super) struct RedbStateInstall {
    /// Both transactions, of `state.db` and `blocks.db`, until they are sealed or failed.
    writes: Option<Writes>,
    content: Option<Arc<Content>>,
    order: InstallOrder,
    files: Arc<dyn StateFiles>,
    store: Arc<Shared>,
    _turn: Arc<()>,
}

struct Writes {
    state: WriteTransaction,
    blocks: WriteTransaction,
}

impl RedbStateInstall {
    pub(super) fn begin(store: &Arc<Shared>) -> Result<Self, StoreError> {
        let turn = {
            // The lock keeps a second caller from counting before the first has its share.
            let _writer = store.writer();
            if Arc::strong_count(&store.installing) > 1 {
                return Err(refused(BEGIN, BatchRefused::InstallUnderWay));
            }
            Arc::clone(&store.installing)
        };
        let Some(files) = store.files.clone() else {
            return Err(StoreError::Engine { action: BEGIN, source: Box::new(NoDirectory) });
        };
        let make = |(name, kind): (&str, FileKind)| {
            let backend = files.create(name).map_err(|source| failed(BEGIN, source))?;
            RedbFile::with_backend(backend, kind, store.options)
        };
        let [blocks, state] = NEW_FILES.map(make);
        let content = Content { state: state?, blocks: blocks? };
        let writes =
            guarded(BEGIN, || Ok(Writes { state: quick(&content.state)?, blocks: quick(&content.blocks)? }))?;
        Ok(Self {
            writes: Some(writes),
            content: Some(Arc::new(content)),
            order: InstallOrder::default(),
            files,
            store: Arc::clone(store),
            _turn: turn,
        })
    }

    fn sealed(&self) -> Result<&Arc<Content>, StoreError> {
        self.order.check_sealed().map_err(|why| refused(PUBLISH, why))?;
        // What failed to be sealed is not there.
        let content = self.content.as_ref().filter(|_| self.writes.is_none());
        content.ok_or_else(|| refused(PUBLISH, BatchRefused::InstallOutOfTurn))
    }
}

impl StateInstall for RedbStateInstall {
    fn put(&mut self, rows: &[RowChange]) -> Result<(), StoreError> {
        self.order.put(rows).map_err(|why| refused(PUT, why))?;
        let Some(writes) = self.writes.take() else {
            return Err(refused(PUT, BatchRefused::InstallOutOfTurn));
        };
        // One transaction takes all: pages that the cache has no room for go to the file before it ends.
        guarded(PUT, || {
            for run in rows.chunk_by(|row, next| row.table == next.table) {
                let Some(table) = run.first().map(|row| row.table) else { continue };
                append(if table.is_append_only() { &writes.blocks } else { &writes.state }, table, run)?;
            }
            Ok(())
        })?;
        self.writes = Some(writes);
        Ok(())
    }

    fn seal(&mut self, applied: &AppliedState) -> Result<(), StoreError> {
        self.order.seal().map_err(|why| refused(PUT, why))?;
        let Some(writes) = self.writes.take() else {
            self.content = None;
            return Err(refused(PUT, BatchRefused::InstallOutOfTurn));
        };
        let sealed = guarded(PUT, || {
            writes.blocks.commit()?;
            let mut meta = writes.state.open_table(META)?;
            put_meta(&mut meta, APPLIED, &encode_applied(applied))?;
            drop(meta);
            writes.state.commit()?;
            Ok(())
        });
        if sealed.is_err() {
            self.content = None;
        }
        sealed
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.sealed()?.view()
    }

    fn publish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.sealed()?;
        let mut writer = self.store.writer();
        if writer.failed {
            return Err(StoreError::Poisoned);
        }
        let published = self
            .files
            // The new files have their names, durably, before there can be a decision.
            .sync()
            .and_then(|()| self.files.create(READY))
            .and_then(|_| self.files.sync())
            .and_then(|()| take_places(self.files.as_ref()));
        if let Err(source) = published {
            writer.failed = true;
            // They are the store's files now, or will be: nothing of them may go.
            self.content = None;
            return Err(failed(PUBLISH, source));
        }
        if let Some(content) = self.content.take() {
            self.store.replace_content(&mut writer, content);
        }
        Ok(())
    }
}

impl Drop for RedbStateInstall {
    /// Removes what was not published. What cannot be removed now is removed when the store is opened.
    fn drop(&mut self) {
        if self.content.take().is_none() {
            return;
        }
        self.writes = None;
        for (new, _) in NEW_FILES {
            let _ = self.files.remove(new);
        }
    }
}

/// Adds rows behind those that the table has.
fn append(write: &WriteTransaction, table: Table, rows: &[RowChange]) -> Result<(), Failure> {
    let mut framed = Vec::new();
    let mut stored = write.open_table(definition(table))?;
    let mut end = stored.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    for change in rows {
        let value = change.value.as_deref().unwrap_or_default();
        row::seal(&mut framed, table.into(), &change.key, value);
        end.insert_before(change.key.as_slice(), framed.as_slice())?;
    }
    end.close()?;
    Ok(())
}

fn refused(action: &'static str, why: BatchRefused) -> StoreError {
    StoreError::Engine { action, source: Box::new(why) }
}
