//! `strongroom ledger export`

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ledger_client::{BlockContent, LedgerClient, VerifiedCheckpoint};
use ledger_core::log_tree::{LogTree, TILE_WIDTH, Tile, TileSource};
use ledger_core::names::VaultRef;
use ledger_core::tlog_tiles::{
    CHECKPOINT_PATH, PartialWidth, decode_tile, encode_tile, entries_path, partial_width, push_entry,
    tile_path,
};
use ledger_verify::Hash;
use ledger_verify::hash::log_leaf;
use ledger_verify::note::SignedCheckpoint;
use serde_json::json;

use super::snapshot::Bar;
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Blocks in one call of the protocol.
const RANGE_BLOCKS_MAX: u64 = 1_000;
/// Largest file of an export: a bundle of full entries.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an entry in a bundle: its length, and a block header.
const ENTRY_BYTES: u64 = 2 + 188;

/// Write the log of a vault as C2SP tlog-tiles, so that other tools verify it; again into the same folder, only what is
/// new. Entries are block headers. The checkpoint is written last, after everything was found to lead to it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strongroom ledger export acme/prod --to /srv/www/acme-prod")]
pub struct Export {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The folder: missing, empty, or with an earlier export of the same vault.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Export {
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.server.trusting_client(&self.trust)?;
        let newest = client.verified_checkpoint(&self.vault).await?;
        let folder = Folder { path: self.to.clone() };
        let before = folder.exported(&newest)?;
        let from = before.as_ref().map_or(0, LogTree::size);
        let size = newest.checkpoint.size;
        if from < size {
            let tree = before.unwrap_or_default();
            Growth { folder: &folder, tree, bundle: Vec::new() }
                .export(&client, &self.vault, &newest, output)
                .await?;
        }
        let document = json!({
            "folder": self.to.display().to_string(),
            "origin": newest.checkpoint.origin,
            "size": size,
            "root": hex::encode(newest.checkpoint.root),
            "added": size - from,
            "vkey": newest.verifier_key.to_string(),
            "verified": true,
            "trust": newest.trust.as_str(),
        });
        output.note(&format!("trust: {}", newest.trust));
        output.result(&document, || {
            format!("{} entries, {} of them new, in {}\n", size, size - from, self.to.display())
        })
    }
}

/// An export on its way.
struct Growth<'f> {
    folder: &'f Folder,
    tree: LogTree,
    /// The entries of the bundle that is not full.
    bundle: Vec<u8>,
}

impl Growth<'_> {
    async fn export(
        mut self,
        client: &LedgerClient,
        vault: &VaultRef,
        newest: &VerifiedCheckpoint,
        output: Output,
    ) -> Result<(), Failure> {
        let size = newest.checkpoint.size;
        if let Some(width) = partial_width(self.tree.size()) {
            let number = self.tree.size() / TILE_WIDTH as u64;
            self.bundle = self.folder.read(&entries_path(number, Some(width)))?;
            if self.bundle.len() as u64 != u64::from(width) * ENTRY_BYTES {
                return Err(self.folder.changed("a bundle of entries has another length"));
            }
        }
        let mut bar = Bar::new(output, "exported", Some(size * ENTRY_BYTES));
        while self.tree.size() < size {
            let room = (size - self.tree.size()).min(RANGE_BLOCKS_MAX);
            // At most 1,000.
            let room = u32::try_from(room).unwrap_or(1);
            let range = client.block_range(vault, self.tree.size(), room, BlockContent::Header).await?.value;
            if range.blocks.is_empty() {
                return Err(Failure::error(
                    "the server has fewer blocks than its checkpoint: ask another one",
                ));
            }
            for block in range.blocks {
                self.entry(&block.header.encode())?;
            }
            bar.at(self.tree.size() * ENTRY_BYTES);
        }
        bar.finish();
        if self.tree.root() != newest.checkpoint.root {
            let message = format!(
                "the blocks of {vault} do not lead to its checkpoint, or {} was changed: nothing was published",
                self.folder.path.display()
            );
            return Err(Failure::verification(message));
        }
        self.publish(newest)
    }

    fn entry(&mut self, entry: &[u8]) -> Result<(), Failure> {
        push_entry(&mut self.bundle, entry).ok_or_else(|| Failure::error("a header is too long"))?;
        let completed = self.tree.append(log_leaf(entry));
        for tile in completed {
            self.folder.write(&tile_path(tile.level, tile.number, None), &encode_tile(&tile.hashes))?;
        }
        if self.tree.size().is_multiple_of(TILE_WIDTH as u64) {
            let number = self.tree.size() / TILE_WIDTH as u64 - 1;
            self.folder.write(&entries_path(number, None), &self.bundle)?;
            self.bundle.clear();
        }
        Ok(())
    }

    /// Writes what is not full, then the checkpoint over all of it.
    fn publish(self, newest: &VerifiedCheckpoint) -> Result<(), Failure> {
        for Tile { level, number, hashes } in self.tree.partial_tiles() {
            let width = partial_width(hashes.len() as u64);
            self.folder.write(&tile_path(level, number, width), &encode_tile(&hashes))?;
        }
        if let Some(width) = partial_width(self.tree.size()) {
            let number = self.tree.size() / TILE_WIDTH as u64;
            self.folder.write(&entries_path(number, Some(width)), &self.bundle)?;
        }
        self.folder.write(CHECKPOINT_PATH, newest.note.as_bytes())
    }
}

struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The tree of what is there; `None` when nothing is.
    fn exported(&self, newest: &VerifiedCheckpoint) -> Result<Option<LogTree>, Failure> {
        match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &self.path, &error)),
            Ok(_) if !self.path.join(CHECKPOINT_PATH).exists() => {
                return self.refuse_content().map(|()| None);
            }
            Ok(_) => {}
        }
        let note = String::from_utf8(self.read(CHECKPOINT_PATH)?)
            .map_err(|_| self.changed("its checkpoint is no text"))?;
        let signed = SignedCheckpoint::parse(&note).map_err(|error| self.changed(&error.to_string()))?;
        let before = signed.checkpoint();
        let now = &newest.checkpoint;
        if before.origin != now.origin {
            let message = format!("{} is an export of {}", self.path.display(), before.origin);
            return Err(Failure::usage(message).with_hint("give every vault a folder of its own"));
        }
        if before.size > now.size || (before.size == now.size && before.root != now.root) {
            let message = format!(
                "FORK: {} holds a log of {} entries that the ledger's log of {} does not continue",
                self.path.display(),
                before.size,
                now.size
            );
            return Err(Failure::new(Exit::VerificationFailed, "FORK", message)
                .with_hint("keep the folder as evidence and export into another one"));
        }
        let tail = match partial_width(before.size) {
            Some(width) => {
                let number = before.size / TILE_WIDTH as u64;
                let tile = self.read(&tile_path(0, number, Some(width)))?;
                decode_tile(&tile).ok_or_else(|| self.changed("a tile is none"))?
            }
            None => Vec::new(),
        };
        let tree =
            LogTree::restore(before.size, self, &tail).map_err(|error| self.changed(&error.to_string()))?;
        if tree.root() != before.root {
            return Err(self.changed("its tiles do not lead to its checkpoint"));
        }
        Ok(Some(tree))
    }

    /// Without a checkpoint there may be tiles of an export that was broken off.
    fn refuse_content(&self) -> Result<(), Failure> {
        let entries =
            std::fs::read_dir(&self.path).map_err(|error| Failure::file("read", &self.path, &error))?;
        for entry in entries.flatten() {
            if entry.file_name() != "tile" {
                let message = format!("{} holds something else than an export", self.path.display());
                return Err(Failure::usage(message).with_hint("give a folder that is empty or missing"));
            }
        }
        Ok(())
    }

    fn changed(&self, what: &str) -> Failure {
        let message = format!("the export in {} is damaged: {what}", self.path.display());
        Failure::verification(message).with_hint("export into another folder")
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let path = self.path.join(path);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error: io::Error| Failure::file("read", &path, &error))
    }

    /// Writes a file that is there whole or not at all.
    fn write(&self, path: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(path);
        write_whole(&path, content).map_err(|error| Failure::file("write", &path, &error))
    }
}

impl TileSource for Folder {
    type Error = io::Error;

    fn tile(&self, level: u8, number: u64) -> Result<Vec<Hash>, io::Error> {
        let full: PartialWidth = None;
        let bytes = std::fs::read(self.path.join(tile_path(level, number, full)))?;
        decode_tile(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}
