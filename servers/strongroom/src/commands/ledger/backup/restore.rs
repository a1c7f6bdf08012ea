//! `strongroom ledger backup restore`

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use ledger_core::names::VaultRef;
use ledger_node::backup::{
    BackupFolder, RestorePlan, RestorePoint, RestoredBackup, RestoredVault, restore_backup, verify_chain,
};
use ledger_node::{RestoreTarget, Stores};
use serde_json::{Value, json};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;

use super::super::restore_directory::{restore_into, warn_of_another_key};
use super::super::snapshot::{Bar, read_key};
use super::failed;
use super::show::BackupTrust;
use crate::failure::Failure;
use crate::output::Output;
use crate::{moment, table};

/// `backup restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The folder of the backup.
    folder: PathBuf,
    /// A directory that is empty or missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The ledger's private key, as `ledger key export` wrote it. Without it the directory is served only after
    /// `ledger key import`.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    point: Point,
    #[command(flatten)]
    trust: BackupTrust,
}

/// What to restore; everything when nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Point {
    /// Everything up to this time: 2026-11-21T10:57:47Z or unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    at: Option<u64>,
    /// Everything up to the log entry of this index.
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// The last state of the whole ledger in which this vault had this height.
    #[arg(long, value_name = "NS/VAULT=HEIGHT", value_parser = height)]
    height: Option<(VaultRef, u64)>,
}

fn height(text: &str) -> Result<(VaultRef, u64), String> {
    let malformed = || format!("{text:?} is no height of a vault: write NAMESPACE/VAULT=HEIGHT");
    let (vault, height) = text.rsplit_once('=').ok_or_else(malformed)?;
    let vault = vault.parse().map_err(|_| malformed())?;
    Ok((vault, height.parse().map_err(|_| malformed())?))
}

impl Point {
    fn point(self) -> RestorePoint {
        match (self.at, self.index, self.height) {
            (Some(time_ms), ..) => RestorePoint::TimeMs(time_ms),
            (_, Some(index), _) => RestorePoint::Index(index),
            (.., Some((vault, height))) => RestorePoint::Height { vault, height },
            _ => RestorePoint::Newest,
        }
    }
}

impl Restore {
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let data = self.data.clone();
        restore_into(&data, |target| self.restore(target, output))
    }

    fn restore(self, target: RestoreTarget, output: Output) -> Result<(), Failure> {
        let refused = |error| failed(&error);
        let key = self.key.as_deref().map(read_key).transpose()?;
        let folder = BackupFolder::at(&self.folder);
        let manifest = folder.manifest().map_err(refused)?;
        if let Some(key) = &key {
            let name = format!("strongroom/{}", manifest.ledger_id);
            if key.name() != name {
                let text =
                    format!("the key is that of {}, the backup is of {name}: give its own key", key.name());
                return Err(Failure::usage(text));
            }
        }
        let plan = RestorePlan::find(&folder, &manifest, &self.point.point()).map_err(refused)?;
        let total = plan.chain.iter().map(|file| file.bytes).sum();
        let witnesses = self.trust.witnesses(manifest.ledger_id)?;
        if self.trust.is_given() {
            let mut bar = Bar::new(output, "verified", Some(total));
            let keys = &self.trust.verifier_keys;
            let checked = verify_chain(&folder, &plan.chain, keys, &witnesses, &mut |bytes| {
                bar.at(bytes);
                ControlFlow::Continue(())
            });
            bar.finish();
            checked.map_err(refused)?;
        }
        let mut bar = Bar::new(output, "restored", Some(total));
        let restored = {
            let stores = EmbeddedStores::open(target.path(), RedbOptions::default())
                .map_err(|error| Failure::error(error.to_string()))?;
            let stores = Stores { log: stores.log, state: stores.state };
            restore_backup(&target, &stores, &folder, &plan, &self.trust.verifier_keys, &mut |bytes| {
                bar.at(bytes);
                ControlFlow::Continue(())
            })
        };
        bar.finish();
        let restored = restored.map_err(refused)?;
        let node_id = target.node_id();
        warn_of_another_key(output, key.as_ref(), restored.newest_note.as_deref());
        target.finish(restored.ledger_id, key.as_ref()).map_err(|error| Failure::error(error.to_string()))?;
        let data = self.data.display().to_string();
        let document = json!({
            "ledger_id": restored.ledger_id.to_string(),
            "applied_index": restored.applied.index,
            "log_time_ms": restored.log_time_ms,
            "blocks_replayed": restored.blocks,
            "trust": self.trust.name(),
            "vaults": restored.vaults.iter().map(vault).collect::<Vec<_>>(),
            "data_dir": data,
            "node_id": node_id,
            "has_key": key.is_some(),
        });
        output.result(&document, || {
            let next = match &key {
                Some(_) => format!("strongroom ledger serve --data {data}"),
                None => format!("strongroom ledger key import FILE --data {data}"),
            };
            format!("{}restored to {data}. Next:\n  {next}\n", render(&restored))
        })
    }
}

/// Blocks that the backup has and the restored vault does not.
fn left_out(vault: &RestoredVault) -> u64 {
    vault.height_in_backup.unwrap_or(vault.height).saturating_sub(vault.height)
}

fn vault(vault: &RestoredVault) -> Value {
    json!({
        "vault": vault.label,
        "vault_id": vault.id.to_string(),
        "height": vault.height,
        "block_hash": hex::encode(vault.block_hash),
        "state_root": hex::encode(vault.state_root),
        "blocks_left_out": left_out(vault),
    })
}

fn render(restored: &RestoredBackup) -> String {
    let facts = [
        ("ledger", restored.ledger_id.to_string()),
        ("entry", restored.applied.index.to_string()),
        ("time", table::time(restored.log_time_ms)),
        ("replayed", format!("{} blocks", restored.blocks)),
    ];
    let mut text = table::facts(&facts);
    let row = |vault: &RestoredVault| {
        let state_root = hex::encode(vault.state_root.get(..8).unwrap_or_default());
        vec![
            vault.label.clone(),
            vault.height.to_string(),
            format!("{state_root}…"),
            left_out(vault).to_string(),
        ]
    };
    let rows: Vec<_> = restored.vaults.iter().map(row).collect();
    text.push_str(&table::render(&["vault", "height", "state root", "blocks left out"], &rows));
    if restored.vaults.iter().any(|vault| left_out(vault) > 0) {
        text.push_str(
            "Clients that saw a block that is left out will report a fork: tell them before you serve this.\n",
        );
    }
    text
}
