use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::redb::{
    ReadOnlyTable, ReadableTable, StorageBackend, Table as RedbTable, TableDefinition, WriteTransaction,
};
use bytes::Bytes;
use ledger_core::ports::{
    AppliedState, RowChange, ScanRange, StateBatch, StateInstall, StateStore, StateView, StoreError, Table,
};

use super::blocks_removal::BlocksRemoval;
use super::failure::{Failure, OpenError, guarded};
use super::file::{RedbFile, refuse_gaps};
use super::format::{FileKind, META, RowDefinition};
use super::log_row::{Fields, encode_log_id};
use super::options::RedbOptions;
use super::row::{self, RowTable};
use super::state_files::{StateDirectory, StateFiles, failed};
use super::state_install::{self, RedbStateInstall};
use super::state_view::{self, RedbStateView};

/// Rows of table `meta` of `state.db`.
pub(super) const APPLIED: &[u8] = b"applied";
const DROPPING: &[u8] = b"dropping";

pub(super) type RowTableReader = ReadOnlyTable<&'static [u8], &'static [u8]>;
pub(super) type RowTableWriter<'txn> = RedbTable<'txn, &'static [u8], &'static [u8]>;

/// A [`StateStore`] in two files: append-only tables in `blocks.db`, the others in `state.db`, which
/// also says how far both go. `blocks.db` is made durable first, so it never lacks a block that
/// `state.db` covers. New content is made in two other files that take their places.
///
/// Both commit in two phases and save their free lists: opening after a crash takes no walk over the
/// file, and a damaged newest commit is an error, never a silent step back.
#[derive(Debug)]
pub struct RedbStateStore {
    shared: Arc<Shared>,
}

/// What the store has in common with an install of new content.
#[derive(Debug)]
pub(super) struct Shared {
    content: RwLock<Arc<Content>>,
    writer: Mutex<Writer>,
    /// `None` = new content has no place to be made in.
    pub(super) files: Option<Arc<dyn StateFiles>>,
    pub(super) options: RedbOptions,
    /// Held by the install that is under way.
    pub(super) installing: Arc<()>,
}

/// Both files.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) state: RedbFile,
    pub(super) blocks: RedbFile,
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Whether the meta row [`DROPPING`] stands in `state.db`.
    drop_noted: bool,
    pub(super) failed: bool,
}

impl RedbStateStore {
    /// Opens `state.db` and `blocks.db` in `dir`; makes them, readable by their owner only, when they
    /// are missing. New content that a crash left whole takes its place; other remains of it go.
    ///
    /// # Errors
    ///
    /// As [`RedbLogStore::open`](super::RedbLogStore::open).
    pub fn open(dir: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let files = StateDirectory::new(dir);
        state_install::settle(&files)?;
        refuse_gaps(dir, &[FileKind::Blocks, FileKind::State])?;
        let state_is_missing = !dir.join(FileKind::State.file_name()).exists();
        let blocks = RedbFile::open(dir, FileKind::Blocks, options)?;
        if state_is_missing && !guarded("read blocks.db", || blocks_are_empty(&blocks))? {
            return Err(OpenError::missing(dir, FileKind::State, FileKind::Blocks).into_store_error());
        }
        let state = RedbFile::open(dir, FileKind::State, options)?;
        Self::attach(Content { state, blocks }, Some(Arc::new(files)), options)
    }

    /// Opens `state.db` and `blocks.db` in `dir`, which must be there, to be read: no byte of them changes. Blocks whose
    /// removal a crash interrupted are still there.
    ///
    /// # Errors
    ///
    /// When a file is missing, damaged or of an older format; every commit fails with [`StoreError::Poisoned`].
    pub fn open_read_only(dir: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let blocks = RedbFile::open_read_only(dir, FileKind::Blocks, options)?;
        let state = RedbFile::open_read_only(dir, FileKind::State, options)?;
        let content = Content { state, blocks };
        content.applied()?;
        Ok(Self::over(content, Writer { drop_noted: false, failed: true }, None, options))
    }

    /// Opens the state that two storage backends of redb hold; makes it when they are empty. For fault
    /// injection. Its content cannot be replaced.
    pub fn with_backends(
        state: impl StorageBackend,
        blocks: impl StorageBackend,
        options: RedbOptions,
    ) -> Result<Self, StoreError> {
        let blocks = RedbFile::with_backend(Box::new(blocks), FileKind::Blocks, options)?;
        let state = RedbFile::with_backend(Box::new(state), FileKind::State, options)?;
        Self::attach(Content { state, blocks }, None, options)
    }

    /// Opens the state in a directory of any kind, which must have both files, if empty ones. For fault injection.
    pub fn with_files(files: Arc<dyn StateFiles>, options: RedbOptions) -> Result<Self, StoreError> {
        state_install::settle(files.as_ref())?;
        let open = |kind: FileKind| {
            let opened = files.open(kind.file_name());
            let backend = opened.map_err(|source| failed("open a file of the state", source))?;
            RedbFile::with_backend(backend, kind, options)
        };
        let blocks = open(FileKind::Blocks)?;
        let state = open(FileKind::State)?;
        let content = Content { state, blocks };
        Self::attach(content, Some(files), options)
    }

    fn attach(
        content: Content,
        files: Option<Arc<dyn StateFiles>>,
        options: RedbOptions,
    ) -> Result<Self, StoreError> {
        content.applied()?;
        let unfinished =
            guarded("read the state's meta rows", || content.meta_row(DROPPING, BlocksRemoval::decode))?;
        if let Some(unfinished) = &unfinished {
            guarded("finish the removal of blocks", || content.drop_blocks(unfinished))?;
        }
        let writer = Writer { drop_noted: unfinished.is_some(), failed: false };
        Ok(Self::over(content, writer, files, options))
    }

    fn over(
        content: Content,
        writer: Writer,
        files: Option<Arc<dyn StateFiles>>,
        options: RedbOptions,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                content: RwLock::new(Arc::new(content)),
                writer: Mutex::new(writer),
                files,
                options,
                installing: Arc::default(),
            }),
        }
    }

    /// fsyncs of both files since they were opened, opening included.
    pub fn syncs(&self) -> u64 {
        let content = self.content();
        content.state.syncs().saturating_add(content.blocks.syncs())
    }

    /// Bytes written to both files since they were opened.
    pub fn bytes_written(&self) -> u64 {
        let content = self.content();
        content.state.bytes_written().saturating_add(content.blocks.bytes_written())
    }

    fn content(&self) -> Arc<Content> {
        Arc::clone(&self.shared.content.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// A panic under this lock was caught, so the state behind it is whole.
    pub(super) fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all that is read and committed from now on be of other files. The caller has the writer's lock.
    pub(super) fn replace_content(&self, writer: &mut Writer, content: Arc<Content>) {
        writer.drop_noted = false;
        let before =
            std::mem::replace(&mut *self.content.write().unwrap_or_else(PoisonError::into_inner), content);
        // Closing takes a while when nobody else reads: not under the readers' lock.
        drop(before);
    }
}

impl Content {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        guarded("read how far the state goes", || self.meta_row(APPLIED, decode_applied))
    }

    fn file_of(&self, table: Table) -> &RedbFile {
        if table.is_append_only() { &self.blocks } else { &self.state }
    }

    fn reader(&self, table: Table) -> Result<RowTableReader, Failure> {
        Ok(self.file_of(table).begin_read()?.open_table(definition(table))?)
    }

    pub(super) fn view(self: &Arc<Self>) -> Result<Box<dyn StateView>, StoreError> {
        let applied = self.applied()?;
        guarded("take a view of the state", || {
            let (state, blocks) = (self.state.begin_read()?, self.blocks.begin_read()?);
            let view = RedbStateView { state, blocks, applied, _content: Arc::clone(self) };
            Ok(Box::new(view) as Box<dyn StateView>)
        })
    }

    fn meta_row<T>(&self, key: &[u8], decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, Failure> {
        let meta = self.state.begin_read()?.open_table(META)?;
        let Some(framed) = meta.get(key)? else { return Ok(None) };
        let value = row::open(RowTable::STATE_META, key, framed.value())?;
        Ok(Some(decode(value).ok_or_else(|| RowTable::STATE_META.corrupt(key))?))
    }

    fn write(&self, writer: &Writer, batch: &StateBatch) -> Result<Writer, Failure> {
        batch.check_order()?;
        let removal = BlocksRemoval::of(batch);
        if batch.rows.iter().any(|row| row.table.is_append_only() && row.value.is_some()) {
            let write = quick(&self.blocks)?;
            put_rows(&write, FileKind::Blocks, &batch.rows)?;
            write.commit()?;
        }
        self.write_state(writer, batch, removal.as_ref())?;
        if let Some(removal) = &removal {
            self.drop_blocks(removal)?;
        }
        Ok(Writer { drop_noted: removal.is_some(), failed: false })
    }

    fn write_state(
        &self,
        writer: &Writer,
        batch: &StateBatch,
        removal: Option<&BlocksRemoval>,
    ) -> Result<(), Failure> {
        let write = quick(&self.state)?;
        if !batch.dropped_vaults.is_empty() {
            for table in FileKind::State.state_tables().filter(|table| table.is_per_vault()) {
                let mut rows = write.open_table(definition(table))?;
                for vault in &batch.dropped_vaults {
                    drop_vault(&mut rows, *vault, |_| false)?;
                }
            }
        }
        put_rows(&write, FileKind::State, &batch.rows)?;
        let mut meta = write.open_table(META)?;
        put_meta(&mut meta, APPLIED, &encode_applied(&batch.applied))?;
        match removal {
            Some(removal) => put_meta(&mut meta, DROPPING, &removal.encode())?,
            None if writer.drop_noted => {
                meta.remove(DROPPING)?;
            }
            None => {}
        }
        drop(meta);
        write.commit()?;
        Ok(())
    }

    fn drop_blocks(&self, removal: &BlocksRemoval) -> Result<(), Failure> {
        let write = quick(&self.blocks)?;
        for table in FileKind::Blocks.state_tables() {
            let mut rows = write.open_table(definition(table))?;
            for vault in &removal.vaults {
                drop_vault(&mut rows, *vault, |key| removal.keeps(table, key))?;
            }
            for key in removal.deleted_from(table) {
                rows.remove(key)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl StateStore for RedbStateStore {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        self.content().applied()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded("read a row", || {
            let content = self.content();
            // A value does not keep its read transaction alive, the table does: it has to go last.
            let rows = content.reader(table)?;
            let Some(framed) = rows.get(key)? else { return Ok(None) };
            Ok(Some(Bytes::copy_from_slice(row::open(table.into(), key, framed.value())?)))
        })
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let content = self.content();
        state_view::scan(|| content.reader(table), table, range, visit)
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        let mut writer = self.shared.writer();
        if writer.failed {
            return Err(StoreError::Poisoned);
        }
        let content = self.content();
        match guarded("commit the state", || content.write(&writer, batch)) {
            Ok(after) => *writer = after,
            Err(error) => {
                writer.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        // Under the writer's lock: no commit stands between the two files.
        let _writer = self.shared.writer();
        self.content().view()
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        Ok(Box::new(RedbStateInstall::begin(&self.shared)?))
    }
}

fn blocks_are_empty(blocks: &RedbFile) -> Result<bool, Failure> {
    let read = blocks.begin_read()?;
    for table in FileKind::Blocks.state_tables() {
        if read.open_table(definition(table))?.first()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn definition(table: Table) -> RowDefinition {
    TableDefinition::new(table.name())
}

/// A write transaction that is durable, cannot be rolled back by damage, and reopens without a walk.
pub(super) fn quick(file: &RedbFile) -> Result<WriteTransaction, Failure> {
    let mut write = file.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Writes those of `rows` whose tables live in the file of `kind`. They come ordered by table. Rows that go from
/// append-only tables go later.
fn put_rows(write: &WriteTransaction, kind: FileKind, rows: &[RowChange]) -> Result<(), Failure> {
    let mut framed = Vec::new();
    for run in rows.chunk_by(|row, next| row.table == next.table) {
        let Some(table) = run.first().map(|row| row.table) else { continue };
        if table.is_append_only() != (kind == FileKind::Blocks) {
            continue;
        }
        let mut stored = write.open_table(definition(table))?;
        for change in run {
            let key = change.key.as_slice();
            match &change.value {
                Some(value) => {
                    row::seal(&mut framed, table.into(), key, value);
                    stored.insert(key, framed.as_slice())?;
                }
                None if kind == FileKind::Blocks => {}
                None => {
                    stored.remove(key)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes every row whose key begins with the vault's number, save those that `keep` names.
fn drop_vault(
    rows: &mut RowTableWriter<'_>,
    vault: u64,
    keep: impl Fn(&[u8]) -> bool,
) -> Result<(), Failure> {
    let from = vault.to_be_bytes();
    match vault.checked_add(1).map(u64::to_be_bytes) {
        Some(to) => rows.retain_in(from.as_slice()..to.as_slice(), |key, _| keep(key))?,
        None => rows.retain_in(from.as_slice().., |key, _| keep(key))?,
    }
    Ok(())
}

pub(super) fn put_meta(
    meta: &mut RowTableWriter<'_>,
    key: &'static [u8],
    value: &[u8],
) -> Result<(), Failure> {
    let mut framed = Vec::new();
    row::seal(&mut framed, RowTable::STATE_META, key, value);
    meta.insert(key, framed.as_slice())?;
    Ok(())
}

pub(super) fn encode_applied(applied: &AppliedState) -> Vec<u8> {
    [encode_log_id(&applied.last_applied).as_slice(), &applied.membership].concat()
}

fn decode_applied(value: &[u8]) -> Option<AppliedState> {
    let mut fields = Fields(value);
    let last_applied = fields.log_id()?;
    Some(AppliedState { last_applied, membership: Bytes::copy_from_slice(fields.0) })
}
