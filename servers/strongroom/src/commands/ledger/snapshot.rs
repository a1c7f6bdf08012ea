//! `strongroom ledger snapshot …`

use std::fs::File;
use std::io::{BufReader, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ledger_client::{LedgerClient, SnapshotInfo, Snapshots};
use ledger_core::snapshot::{self, Progress, SnapshotError, Verified, VerifiedVault};
use ledger_node::{RestoreError, RestoreTarget, Stores, restore_snapshot};
use ledger_verify::note::{SigningKey, VerifierKey};
use serde_json::{Value, json};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::RedbOptions;
use zeroize::Zeroizing;

use crate::commands::block_on;
use crate::discovery::{self, ServerArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

use super::restore_directory::{restore_into, warn_of_another_key};

/// How often a server is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// The file is read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Have a running server write a snapshot of all that it has applied, and wait for it.
    #[command(after_help = "Example:\n  strongroom ledger snapshot create")]
    Create(Server),
    /// List the snapshots of a running server, oldest first.
    #[command(after_help = "Example:\n  strongroom ledger snapshot list")]
    List(Server),
    /// Check a snapshot offline: rebuild every tree of every vault from its rows and compare. Exit code 5 when it is
    /// refused. With --vkey also that the key signed every vault's newest block.
    #[command(after_help = "Example:\n  \
        strongroom ledger snapshot verify 00000000000000001234.snap --vkey 'strongroom/…+1a2b3c4d+AQ…'")]
    Verify(Verify),
    /// Make a data directory of a snapshot, verified on the way. The old server must not run any more: two servers
    /// with one key contradict each other.
    #[command(after_help = "Examples:\n  \
        strongroom ledger snapshot restore 00000000000000001234.snap --data /var/lib/strongroom-new --key ledger.key\n  \
        strongroom ledger serve --data /var/lib/strongroom-new")]
    Restore(Restore),
}

/// `snapshot create`, `snapshot list`
#[derive(Debug, Args)]
pub struct Server {
    #[command(flatten)]
    server: ServerArgs,
}

/// `snapshot verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The snapshot.
    file: PathBuf,
    /// Key that must have signed the newest block of every vault; may repeat while a key is rotated.
    #[arg(long = "vkey", value_name = "KEY")]
    verifier_keys: Vec<VerifierKey>,
}

/// `snapshot restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The snapshot.
    file: PathBuf,
    /// A directory that is empty or missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The ledger's private key, as `ledger key export` wrote it. Without it the directory is served only after
    /// `ledger key import`.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Key that must have signed the newest block of every vault; may repeat while a key is rotated.
    #[arg(long = "vkey", value_name = "KEY")]
    verifier_keys: Vec<VerifierKey>,
}

impl Snapshot {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => block_on(async move {
                let client = create.server.client()?;
                let before = client.snapshots().await?;
                let made = create_and_wait(&client, output).await?;
                output.result(&record(&made), || {
                    // Nothing has happened since: the one that is there has it all.
                    let verb = if before.snapshots.contains(&made) { "kept " } else { "wrote" };
                    format!("{verb}  {}  {}", made.path, shown_bytes(made.file_bytes))
                })
            }),
            Self::List(list) => block_on(async move {
                let listed = list.server.client()?.snapshots().await?;
                let document = json!({
                    "snapshots": listed.snapshots.iter().map(record).collect::<Vec<_>>(),
                    "writing_file_bytes": listed.writing_file_bytes,
                    "last_failure": listed.last_failure,
                });
                output.result(&document, || render_list(&listed))
            }),
            Self::Verify(verify) => verify.run(output),
            Self::Restore(restore) => restore.run(output),
        }
    }
}

pub(super) async fn create_and_wait(client: &LedgerClient, output: Output) -> Result<SnapshotInfo, Failure> {
    let before = client.snapshots().await?;
    if let Some(made) = client.create_snapshot().await? {
        return Ok(made);
    }
    let mut bar = Bar::new(output, "written", None);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = client.snapshots().await?;
        if let Some(bytes) = now.writing_file_bytes {
            bar.at(bytes);
            continue;
        }
        bar.finish();
        let newest = now.snapshots.into_iter().next_back();
        return match (newest, now.last_failure) {
            (_, Some(failure)) => Err(Failure::error(format!("the snapshot was not written: {failure}"))),
            (Some(newest), None) if before.snapshots.last() != Some(&newest) => Ok(newest),
            _ => Err(Failure::error("the snapshot was not written: the server restarted meanwhile")),
        };
    }
}

impl Verify {
    fn run(&self, output: Output) -> Result<(), Failure> {
        let (file, bytes) = open(&self.file)?;
        let mut bar = Bar::new(output, "verified", Some(bytes));
        let verified = snapshot::verify(file, &self.verifier_keys, &mut |progress| bar.follow(progress));
        bar.finish();
        let verified = verified.map_err(|error| refused(&self.file, &error))?;
        let document = document(&verified);
        output.result(&document, || render_verified(&self.file, &verified))
    }
}

impl Restore {
    fn run(self, output: Output) -> Result<(), Failure> {
        let data = self.data.clone();
        restore_into(&data, |target| self.restore(target, output))
    }

    fn restore(self, target: RestoreTarget, output: Output) -> Result<(), Failure> {
        let key = self.key.as_deref().map(read_key).transpose()?;
        let (mut file, bytes) = open(&self.file)?;
        let summary = snapshot::summarise(file.get_mut()).map_err(|error| refused(&self.file, &error))?;
        let (mut file, _) = open(&self.file)?;
        if let Some(key) = &key {
            let name = format!("strongroom/{}", summary.header.ledger_id);
            if key.name() != name {
                let text =
                    format!("the key is that of {}, the snapshot is of {name}: give its own key", key.name());
                return Err(Failure::usage(text));
            }
        }
        let mut bar = Bar::new(output, "restored", Some(bytes));
        let restored = {
            let stores = EmbeddedStores::open(target.path(), RedbOptions::default())
                .map_err(|error| Failure::error(error.to_string()))?;
            let stores = Stores { log: stores.log, state: stores.state };
            restore_snapshot(&target, &stores, &mut file, &self.verifier_keys, &mut |progress| {
                bar.follow(progress)
            })
        };
        bar.finish();
        let verified = restored.map_err(|error| match error {
            RestoreError::Snapshot(error) => refused(&self.file, &error),
            RestoreError::State(error) => Failure::verification(error.to_string()),
            other => Failure::error(other.to_string()),
        })?;
        let newest_note = verified.header.vaults.iter().find_map(|entry| entry.checkpoint.as_deref());
        warn_of_another_key(output, key.as_ref(), newest_note);
        let node_id = target.node_id();
        target
            .finish(verified.header.ledger_id, key.as_ref())
            .map_err(|error| Failure::error(error.to_string()))?;
        let mut document = document(&verified);
        let data = self.data.display().to_string();
        super::get::extend(
            &mut document,
            json!({ "data_dir": data, "node_id": node_id, "has_key": key.is_some() }),
        );
        output.result(&document, || {
            let next = match &key {
                Some(_) => format!("strongroom ledger serve --data {data}"),
                None => format!("strongroom ledger key import FILE --data {data}"),
            };
            format!("{}restored to {data}. Next:\n  {next}\n", render_verified(&self.file, &verified))
        })
    }
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| Failure::file("open", path, &error))?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{} is not a file", path.display())));
    }
    Ok((BufReader::with_capacity(READ_BYTES, file), metadata.len()))
}

pub(super) fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = Zeroizing::new(discovery::read_text(path)?);
    SigningKey::parse(text.trim_end_matches('\n'))
        .map_err(|error| Failure::usage(format!("{} is no log key: {error}", path.display())))
}

fn refused(path: &Path, error: &SnapshotError) -> Failure {
    match error {
        SnapshotError::Io(error) => Failure::file("read", path, error),
        SnapshotError::Sink(error) => Failure::error(error.to_string()),
        other => Failure::verification(format!("{}: {other}", path.display())),
    }
}

fn record(made: &SnapshotInfo) -> Value {
    json!({
        "file_name": made.file_name,
        "path": made.path,
        "applied_index": made.applied_index,
        "created_at_ms": made.created_at_ms,
        "file_bytes": made.file_bytes,
        "sha256": made.sha256.map(hex::encode),
        "vault_count": made.vault_count,
        "key_count": made.key_count,
        "problem": made.problem,
    })
}

fn document(verified: &Verified) -> Value {
    let vault = |vault: &VerifiedVault| {
        json!({
            "vault": vault.vault,
            "vault_id": vault.id.to_string(),
            "height": vault.height,
            "block_hash": hex::encode(vault.block_hash),
            "state_root": hex::encode(vault.state_root),
            "log_root": hex::encode(vault.log_root),
            "key_count": vault.keys,
            "first_height_with_transactions": vault.first_body,
            "fenced": vault.fenced,
            "signed_by": vault.signed_by.as_ref().map(ToString::to_string),
        })
    };
    json!({
        "verified": true,
        "trust": if verified.vaults.iter().any(|vault| vault.signed_by.is_some()) { "vkey" } else { "none" },
        "ledger_id": verified.header.ledger_id.to_string(),
        "applied_index": verified.header.applied.index,
        "created_at_ms": verified.header.created_at_ms,
        "file_bytes": verified.file_bytes,
        "sha256": hex::encode(verified.sha256),
        "key_count": verified.trailer.key_count(),
        "row_count": verified.trailer.row_count(),
        "idempotency_digest": hex::encode(verified.trailer.idempotency_digest),
        "vaults": verified.vaults.iter().map(vault).collect::<Vec<_>>(),
    })
}

fn render_list(listed: &Snapshots) -> String {
    let row = |made: &SnapshotInfo| {
        let state = made.problem.as_deref().map_or_else(|| "ok".to_owned(), table::cell);
        vec![
            made.file_name.clone(),
            table::time(made.created_at_ms),
            shown_bytes(made.file_bytes),
            made.vault_count.to_string(),
            made.key_count.to_string(),
            state,
        ]
    };
    let rows: Vec<_> = listed.snapshots.iter().map(row).collect();
    let mut text = table::render(&["file", "created", "size", "vaults", "keys", "state"], &rows);
    if let Some(bytes) = listed.writing_file_bytes {
        text.push_str(&format!("one is being written: {} so far\n", shown_bytes(bytes)));
    }
    if let Some(failure) = &listed.last_failure {
        text.push_str(&format!("the last one was not written: {failure}\n"));
    }
    text
}

fn render_verified(path: &Path, verified: &Verified) -> String {
    let facts = [
        ("snapshot", path.display().to_string()),
        ("ledger", verified.header.ledger_id.to_string()),
        ("created", table::time(verified.header.created_at_ms)),
        ("entry", verified.header.applied.index.to_string()),
        ("size", shown_bytes(verified.file_bytes)),
        ("sha256", hex::encode(verified.sha256)),
    ];
    let mut text = table::facts(&facts);
    let row = |vault: &VerifiedVault| {
        let signed = match (&vault.signed_by, vault.fenced) {
            (_, true) => "FENCED: not verified",
            (Some(_), false) => "signed",
            (None, false) => "not checked",
        };
        let state_root = hex::encode(vault.state_root.get(..8).unwrap_or_default());
        let texts =
            [vault.height.to_string(), vault.keys.to_string(), format!("{state_root}…"), signed.to_owned()];
        [vec![vault.vault.clone()], texts.to_vec()].concat()
    };
    let rows: Vec<_> = verified.vaults.iter().map(row).collect();
    text.push_str(&table::render(&["vault", "height", "keys", "state root", "signature"], &rows));
    if verified.vaults.iter().any(|vault| vault.fenced) {
        text.push_str("Vaults that were fenced are in it as they were; recover them. All else fits.\n");
    } else {
        text.push_str("Every row, block and root fits.\n");
    }
    text
}

pub(super) fn shown_bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// How far long work is, on standard error: one line on a terminal, lines otherwise, nothing for programs.
pub(super) struct Bar {
    what: &'static str,
    total: Option<u64>,
    interval: Option<Duration>,
    one_line: bool,
    shown_at: Instant,
    has_shown: bool,
}

impl Bar {
    pub(super) fn new(output: Output, what: &'static str, total: Option<u64>) -> Self {
        let one_line = std::io::stderr().is_terminal();
        let interval = if one_line { BAR_INTERVAL } else { LINE_INTERVAL };
        let interval = (!output.is_json()).then_some(interval);
        Self { what, total, interval, one_line, shown_at: Instant::now(), has_shown: false }
    }

    fn follow(&mut self, progress: &Progress) -> ControlFlow<()> {
        self.at(progress.file_bytes);
        ControlFlow::Continue(())
    }

    pub(super) fn at(&mut self, bytes: u64) {
        if self.interval.is_none_or(|interval| self.shown_at.elapsed() < interval) {
            return;
        }
        self.shown_at = Instant::now();
        self.has_shown = true;
        let of = self.total.map_or_else(String::new, |total| format!(" of {}", shown_bytes(total)));
        let (start, end) = if self.one_line { ("\r", " ") } else { ("", "\n") };
        let mut stderr = std::io::stderr().lock();
        // Nobody may be looking any more.
        let _ = write!(stderr, "{start}{} {}{of}{end}", self.what, shown_bytes(bytes))
            .and_then(|()| stderr.flush());
    }

    pub(super) fn finish(&self) {
        if self.has_shown && self.one_line {
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}
