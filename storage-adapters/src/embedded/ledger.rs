//! A whole ledger on embedded storage: what an embedder opens.

use std::path::Path;

use ledger_core::ports::StoreError;
use ledger_node::{DataDirectory, DirectoryError, Ledger, Options, Stores};

use super::EmbeddedStores;
use crate::redb::{OlderFormat, RedbOptions};

/// A ledger was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenLedgerError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The stores cannot be opened.
    #[error(transparent)]
    Stores(#[from] StoreError),
    /// The node refused what the stores hold.
    #[error(transparent)]
    Node(#[from] ledger_node::OpenError),
}

/// Opens the ledger in a directory, or makes a new one there. One process at a time: the directory is
/// locked until [`Ledger::shutdown`], or until the last clone is dropped. A directory of an older format is
/// copied to `PATH.format-N` and then brought to the present one.
///
/// # Errors
///
/// When the directory is in use or unusable, or when its content is damaged or of a newer format.
pub async fn open_ledger(path: impl AsRef<Path>, options: Options) -> Result<Ledger, OpenLedgerError> {
    let directory = DataDirectory::open(path.as_ref())?.copied_for_upgrade()?;
    let redb_options = RedbOptions { older_format: OlderFormat::Migrate, ..RedbOptions::default() };
    let stores = EmbeddedStores::open(directory.path(), redb_options)?;
    let stores = Stores { log: stores.log, state: stores.state };
    Ok(Ledger::open(directory, stores, options).await?)
}
