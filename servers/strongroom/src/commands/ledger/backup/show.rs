//! `strongroom ledger backup list`, `strongroom ledger backup verify`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use ledger_core::backup::{ChainVault, Witness};
use ledger_core::names::{LedgerId, VaultId};
use ledger_node::backup::{
    BackupFile, BackupFolder, BackupReport, CoveredRange, FileFault, FileKind, Manifest, verify_backup,
};
use ledger_verify::note::{SignedCheckpoint, VerifierKey};
use serde_json::{Value, json};

use super::super::snapshot::{Bar, shown_bytes};
use super::failed;
use crate::failure::Failure;
use crate::output::Output;
use crate::{discovery, moment, table};

/// `backup list`
#[derive(Debug, Args)]
pub struct List {
    /// The folder of the backup.
    folder: PathBuf,
}

/// `backup verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The folder of the backup.
    folder: PathBuf,
    #[command(flatten)]
    pub trust: BackupTrust,
}

/// What a backup is held to.
#[derive(Debug, Args)]
pub struct BackupTrust {
    /// Key that must have signed the newest block of every vault, and the checkpoints; may repeat while a key is rotated.
    #[arg(long = "vkey", value_name = "KEY")]
    pub verifier_keys: Vec<VerifierKey>,
    /// Checkpoint that the backup must extend, as `ledger checkpoint` printed it; may repeat.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
}

impl List {
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let folder = BackupFolder::at(&self.folder);
        let manifest = folder.manifest().map_err(|error| failed(&error))?;
        let files: Vec<(&BackupFile, Option<FileFault>)> =
            manifest.files.iter().map(|file| (file, folder.fault(file))).collect();
        let chains: Vec<Chain<'_>> =
            manifest.chains().into_iter().map(|chain| Chain::of(&folder, chain)).collect();
        let document = json!({
            "folder": self.folder.display().to_string(),
            "ledger_id": manifest.ledger_id.to_string(),
            "files": files.iter().map(|(file, fault)| {
                let mut record = record(file);
                super::super::get::extend(&mut record, json!({ "problem": fault.map(|fault| fault.to_string()) }));
                record
            }).collect::<Vec<_>>(),
            "chains": chains.iter().map(Chain::record).collect::<Vec<_>>(),
        });
        output.result(&document, || render_list(&manifest, &files, &chains))?;
        match chains.iter().find_map(|chain| chain.broken_by) {
            None => Ok(()),
            Some((file, fault)) => {
                let text = format!("{} is {fault}", file.file);
                Err(Failure { silent: true, ..Failure::verification(text) })
            }
        }
    }
}

/// A base and its increments, as far as they can be restored.
struct Chain<'f> {
    covered: Option<CoveredRange>,
    broken_by: Option<(&'f BackupFile, FileFault)>,
    through: u64,
}

impl<'f> Chain<'f> {
    fn of(folder: &BackupFolder, files: &'f [BackupFile]) -> Self {
        let (usable, broken_by) = folder.reachable(files);
        let through = files.last().map_or(0, |file| file.through);
        Self { covered: CoveredRange::of(usable), broken_by, through }
    }

    fn record(&self) -> Value {
        json!({
            "from_index": self.covered.map(|range| range.from_index),
            "through_index": self.covered.map(|range| range.through_index),
            "from_ms": self.covered.map(|range| range.from_ms),
            "through_ms": self.covered.map(|range| range.through_ms),
            "broken_by": self.broken_by.map(|(file, _)| file.file.clone()),
        })
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if let Some(covered) = &self.covered {
            text.push_str(&format!(
                "any point from entry {} ({}) to entry {} ({})\n",
                covered.from_index,
                moment::shown(covered.from_ms),
                covered.through_index,
                moment::shown(covered.through_ms)
            ));
        }
        if let Some((file, fault)) = self.broken_by {
            let after = self.covered.map_or(0, |range| range.through_index);
            text.push_str(&format!(
                "BROKEN: {} is {fault}. Nothing after entry {after} can be restored up to entry {}: take another copy of the \
                 folder; the next `backup create` begins a new chain\n",
                file.file, self.through
            ));
        }
        text
    }
}

impl Verify {
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let folder = BackupFolder::at(&self.folder);
        let manifest = folder.manifest().map_err(|error| failed(&error))?;
        let witnesses = self.trust.witnesses(manifest.ledger_id)?;
        let total = manifest.files.iter().map(|file| file.bytes).sum();
        let mut bar = Bar::new(output, "verified", Some(total));
        let report = verify_backup(&folder, &manifest, &self.trust.verifier_keys, &witnesses, &mut |bytes| {
            bar.at(bytes);
            ControlFlow::Continue(())
        });
        bar.finish();
        let report = report.map_err(|error| failed(&error))?;
        let document = json!({
            "verified": true,
            "trust": self.trust.name(),
            "ledger_id": report.ledger_id.to_string(),
            "through_index": report.through,
            "files": report.files,
            "bytes": report.bytes,
            "blocks_replayed": report.blocks,
            "checkpoints_extended": witnesses.len(),
            "vaults": report.vaults.iter().map(vault).collect::<Vec<_>>(),
        });
        output.result(&document, || render_report(&report, &witnesses))
    }
}

impl BackupTrust {
    /// On what belief rests.
    pub fn name(&self) -> &'static str {
        match (self.verifier_keys.is_empty(), self.checkpoints.is_empty()) {
            (false, _) => "vkey",
            (true, false) => "checkpoint",
            (true, true) => "none",
        }
    }

    /// Whether there is anything to hold the backup to.
    pub fn is_given(&self) -> bool {
        self.name() != "none"
    }

    /// The checkpoints, which must be about this ledger and, when keys were given, be signed by one of them.
    pub fn witnesses(&self, ledger: LedgerId) -> Result<Vec<Witness>, Failure> {
        self.checkpoints.iter().map(|file| self.witness(file, ledger)).collect()
    }

    fn witness(&self, file: &Path, ledger: LedgerId) -> Result<Witness, Failure> {
        let name = file.display().to_string();
        let note = discovery::read_text(file)?;
        let refused = |why: String| Failure::verification(format!("{name}: {why}"));
        let signed = SignedCheckpoint::parse(&note).map_err(|error| refused(error.to_string()))?;
        if !self.verifier_keys.is_empty() {
            signed.verify(&self.verifier_keys).map_err(|error| refused(error.to_string()))?;
        }
        let checkpoint = signed.checkpoint();
        let vault =
            checkpoint.origin.strip_prefix(&format!("strongroom/{ledger}/")).and_then(vault_id).ok_or_else(
                || {
                    let origin = &checkpoint.origin;
                    refused(format!("it is about {origin}, the backup is of ledger {ledger}"))
                },
            )?;
        Ok(Witness { name, vault, size: checkpoint.size, root: checkpoint.root })
    }
}

/// A hyphenated UUID as it is printed.
fn vault_id(text: &str) -> Option<VaultId> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text.replace('-', ""), &mut bytes).ok()?;
    Some(VaultId(bytes)).filter(|id| id.to_string() == text)
}

/// A file for programs.
pub fn record(file: &BackupFile) -> Value {
    json!({
        "file": file.file,
        "kind": kind(file),
        "after_index": (file.kind == FileKind::Increment).then_some(file.after),
        "through_index": file.through,
        "created_at_ms": file.created_at_ms,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "vaults": file.vaults,
        "blocks": file.blocks,
        "transactions": file.transactions,
        "commands": file.commands,
    })
}

fn kind(file: &BackupFile) -> &'static str {
    match file.kind {
        FileKind::Base => "base",
        FileKind::Increment => "increment",
    }
}

fn vault(vault: &ChainVault) -> Value {
    json!({
        "vault": vault.label,
        "vault_id": vault.id.to_string(),
        "height": vault.height,
        "block_hash": hex::encode(vault.block_hash),
        "state_root": hex::encode(vault.state_root),
        "log_root": hex::encode(vault.log_root),
        "key_count": vault.keys,
        "signed_by": vault.signed_by.as_ref().map(ToString::to_string),
    })
}

fn render_list(
    manifest: &Manifest,
    files: &[(&BackupFile, Option<FileFault>)],
    chains: &[Chain<'_>],
) -> String {
    let row = |(file, fault): &(&BackupFile, Option<FileFault>)| {
        vec![
            file.file.clone(),
            kind(file).to_owned(),
            table::time(file.created_at_ms),
            shown_bytes(file.bytes),
            file.vaults.to_string(),
            file.blocks.to_string(),
            fault.map_or_else(|| "ok".to_owned(), |fault| fault.to_string()),
        ]
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    let mut text = table::facts(&[("ledger", manifest.ledger_id.to_string())]);
    text.push_str(&table::render(&["file", "kind", "created", "size", "vaults", "blocks", "state"], &rows));
    chains.iter().for_each(|chain| text.push_str(&chain.render()));
    text
}

fn render_report(report: &BackupReport, witnesses: &[Witness]) -> String {
    let facts = [
        ("ledger", report.ledger_id.to_string()),
        ("entry", report.through.to_string()),
        ("files", report.files.to_string()),
        ("size", shown_bytes(report.bytes)),
        ("replayed", format!("{} blocks", report.blocks)),
    ];
    let mut text = table::facts(&facts);
    let row = |vault: &ChainVault| {
        let signed = if vault.signed_by.is_some() { "signed" } else { "not checked" };
        let state_root = hex::encode(vault.state_root.get(..8).unwrap_or_default());
        vec![
            vault.label.clone(),
            vault.height.to_string(),
            vault.keys.to_string(),
            format!("{state_root}…"),
            signed.to_owned(),
        ]
    };
    let rows: Vec<_> = report.vaults.iter().map(row).collect();
    text.push_str(&table::render(&["vault", "height", "keys", "state root", "signature"], &rows));
    for witness in witnesses {
        text.push_str(&format!("extends {} ({} blocks)\n", witness.name, witness.size));
    }
    text.push_str("Every file, block and root fits.\n");
    text
}
