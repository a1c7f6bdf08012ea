//! `strongroom ledger backup create`

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use ledger_client::{BackupPart, LedgerClient};
use ledger_node::backup::{BackupFailure, BackupFile, BackupWriter, Manifest, OfflineSource, Staged};
use ledger_node::{DataDirectory, Stores};
use serde_json::json;
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::super::snapshot::{Bar, create_and_wait, shown_bytes};
use super::{failed, show};
use crate::clock;
use crate::commands::block_on;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// The server has no room or no past for an increment.
const NEEDS_BASE: &str = "BACKUP_NEEDS_BASE";

/// `backup create`
#[derive(Debug, Args)]
pub struct Create {
    /// The folder of the backup: missing, empty, or with an earlier backup of the same ledger.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Back up this data directory, whose server is stopped, instead of asking a server.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write everything anew, beside what is there, so that a restore has less to replay.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What was added, and why all of it if more was wanted.
struct Added {
    file: Option<BackupFile>,
    why_base: Option<String>,
}

/// What is to be written.
enum Next {
    /// Everything.
    Base {
        /// When an increment was wanted.
        why: Option<String>,
    },
    /// What is new since this log entry.
    Increment { after: u64 },
}

impl Next {
    /// Goes on with the newest chain, unless what is behind it could not be restored.
    fn of(writer: &BackupWriter) -> Self {
        let chains = writer.manifest().map(Manifest::chains).unwrap_or_default();
        let Some(chain) = chains.last() else { return Self::Base { why: None } };
        match writer.folder().reachable(chain) {
            (_, Some((file, fault))) => Self::Base { why: Some(format!("{} is {fault}", file.file)) },
            (files, None) => {
                files.last().map_or(Self::Base { why: None }, |last| Self::Increment { after: last.through })
            }
        }
    }

    fn why_base(&self) -> Option<String> {
        match self {
            Self::Base { why } => why.clone(),
            Self::Increment { .. } => None,
        }
    }
}

impl Create {
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let mut writer = BackupWriter::open(&self.to).map_err(|error| failed(&error))?;
        let next = if self.full { Next::Base { why: None } } else { Next::of(&writer) };
        let added = match &self.data {
            Some(data) => from_directory(data, &mut writer, &next, output)?,
            None => {
                let mut added = Added { file: None, why_base: None };
                block_on(async {
                    // A client is made inside of the runtime that it lives in.
                    let client = self.server.client()?;
                    added = from_server(&client, &mut writer, next, output).await?;
                    Ok(())
                })?;
                added
            }
        };
        let files = writer.manifest().map_or(0, |manifest| manifest.files.len());
        let document = json!({
            "folder": self.to.display().to_string(),
            "added": added.file.as_ref().map(show::record),
            "why_base": added.why_base,
            "files": files,
        });
        output.result(&document, || match &added.file {
            None => "nothing has happened since the last backup\n".to_owned(),
            Some(file) => {
                let why = added.why_base.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("added  {}  {}{why}\n", file.file, shown_bytes(file.bytes))
            }
        })
    }
}

async fn from_server(
    client: &LedgerClient,
    writer: &mut BackupWriter,
    next: Next,
    output: Output,
) -> Result<Added, Failure> {
    let ledger = client.node_info().await?.ledger_id;
    if let Some(manifest) = writer.manifest().filter(|manifest| manifest.ledger_id != ledger) {
        return Err(failed(&BackupFailure::OtherLedger { folder: manifest.ledger_id, ledger }));
    }
    let mut why_base = next.why_base();
    if let Next::Increment { after } = next {
        match receive(client, writer, BackupPart::Increment { after }, output).await {
            Ok(staged) => {
                let file = writer.accept_increment(&staged, &mut |_| ControlFlow::Continue(()));
                return Ok(Added { file: file.map_err(|error| failed(&error))?, why_base: None });
            }
            Err(failure) if failure.code == NEEDS_BASE => why_base = Some(failure.message),
            Err(failure) => return Err(failure),
        }
    }
    let made = create_and_wait(client, output).await?;
    let part = BackupPart::Snapshot { index: made.applied_index };
    let staged = receive(client, writer, part, output).await?;
    let file = writer.accept_base(&staged, &mut |_| ControlFlow::Continue(()));
    Ok(Added { file: Some(file.map_err(|error| failed(&error))?), why_base })
}

/// Writes what a server sends.
async fn receive(
    client: &LedgerClient,
    writer: &BackupWriter,
    part: BackupPart,
    output: Output,
) -> Result<Staged, Failure> {
    let mut pieces = client.stream_backup(part).await?;
    let mut staged = writer.stage().map_err(|error| failed(&error))?;
    let mut bar = Bar::new(output, "received", None);
    while let Some(piece) = pieces.next().await? {
        staged.write_all(&piece).map_err(|error| Failure::file("write", writer.folder().path(), &error))?;
        bar.at(staged.bytes());
    }
    bar.finish();
    staged.finish().map_err(|error| failed(&error))
}

fn from_directory(
    data: &Path,
    writer: &mut BackupWriter,
    next: &Next,
    output: Output,
) -> Result<Added, Failure> {
    if !data.join("state.db").exists() {
        return Err(Failure::not_found(format!("{} holds no ledger: it has no state.db", data.display())));
    }
    let directory = DataDirectory::open(data).map_err(|error| Failure::error(error.to_string()))?;
    let stores = EmbeddedStores::open(directory.path(), RedbOptions::default())
        .map_err(|error| Failure::error(error.to_string()))?;
    let stores = Stores { log: stores.log, state: stores.state };
    let source = OfflineSource::open(&directory, &stores, clock::now_ms()).map_err(|error| failed(&error))?;
    if source.log_last_index() > source.applied_index() {
        output.note(&format!(
            "note: the log goes up to entry {}, the state up to {}: start and stop the server once to have the rest in the \
             next backup",
            source.log_last_index(),
            source.applied_index()
        ));
    }
    let added = write_part(&source, writer, next, output);
    added.map_err(|error| failed(&error))
}

fn write_part(
    source: &OfflineSource,
    writer: &mut BackupWriter,
    next: &Next,
    output: Output,
) -> Result<Added, BackupFailure> {
    let mut bar = Bar::new(output, "written", None);
    let mut watch = |bytes| {
        bar.at(bytes);
        ControlFlow::Continue(())
    };
    // First of all: indexes of another ledger mean nothing here.
    let ledger = source.ledger_id();
    if let Some(manifest) = writer.manifest().filter(|manifest| manifest.ledger_id != ledger) {
        return Err(BackupFailure::OtherLedger { folder: manifest.ledger_id, ledger });
    }
    let mut why_base = next.why_base();
    if let Next::Increment { after } = *next {
        let mut staged = writer.stage()?;
        match source.write_increment(after, &mut staged, &mut watch) {
            Ok(_) => {
                let staged = staged.finish()?;
                let file = writer.accept_increment(&staged, &mut |_| ControlFlow::Continue(()))?;
                return Ok(Added { file, why_base: None });
            }
            Err(BackupFailure::Backup(error @ ledger_core::backup::BackupError::NeedsBase { .. })) => {
                why_base = Some(error.to_string());
            }
            Err(other) => return Err(other),
        }
    }
    let mut staged = writer.stage()?;
    source.write_base(&mut staged, &mut watch)?;
    let staged = staged.finish()?;
    let file = writer.accept_base(&staged, &mut |_| ControlFlow::Continue(()))?;
    bar.finish();
    Ok(Added { file: Some(file), why_base })
}
