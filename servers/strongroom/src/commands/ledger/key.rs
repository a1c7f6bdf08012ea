//! `strongroom ledger key …`

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ledger_core::ports::StateStore as _;
use ledger_node::{DataDirectory, RotationError, Stores, rotate_key};
use ledger_verify::note::SigningKey;
use serde_json::json;
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::{RedbOptions, RedbStateStore};
use zeroize::Zeroizing;

use crate::discovery;
use crate::failure::Failure;
use crate::output::Output;

const LOG_KEY_FILE: &str = "log.key";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print the public key of a data directory. The server must be stopped; a running one tells `ledger vkey`.
    #[command(after_help = "Example:\n  strongroom ledger key show --data /var/lib/strongroom")]
    Show(Show),
    /// Write the private key to a file, to keep it apart from the data. Whoever has it can sign for the ledger.
    #[command(
        after_help = "Example:\n  strongroom ledger key export --data /var/lib/strongroom -o ledger.key"
    )]
    Export(Export),
    /// Put a kept key into a directory that a snapshot was restored into without it, or begin an empty one with it: the
    /// new ledger then has the identity and the key of the old one, and clients that pinned a vault of the old ledger
    /// see a vault with another identity.
    #[command(
        after_help = "Example:\n  strongroom ledger key import ledger.key --data /var/lib/strongroom-new"
    )]
    Import(Import),
    /// Replace the key by a new one, and forget the old private key. The server must be stopped, and the ledger must have
    /// one node. Clients refuse what the new key signs until they are told of it: publish it before you start the
    /// server again; each client then names it once with --vkey, and pins it.
    #[command(after_help = "Examples:\n  \
        strongroom ledger key rotate --data /var/lib/strongroom\n  \
        strongroom ledger get acme/prod door --verify --vkey OLD --vkey NEW")]
    Rotate(Rotate),
}

/// `key rotate`
#[derive(Debug, Args)]
pub struct Rotate {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// `key show`
#[derive(Debug, Args)]
pub struct Show {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// `key export`
#[derive(Debug, Args)]
pub struct Export {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// File to write, readable by its owner only. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// `key import`
#[derive(Debug, Args)]
pub struct Import {
    /// The file that `key export` wrote.
    file: PathBuf,
    /// A directory that is empty or missing, or was restored from a snapshot without its key.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Key {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Show(show) => {
                let directory = open_existing(&show.data)?;
                let key = directory.signing_key().verifier_key().to_string();
                let retired = directory.retired_keys().map_err(|error| Failure::error(error.to_string()))?;
                let document = json!({
                    "vkey": key,
                    "ledger_id": directory.ledger_id().to_string(),
                    "retired_vkeys": retired.iter().map(ToString::to_string).collect::<Vec<_>>(),
                });
                output.result(&document, || key.clone())
            }
            Self::Export(export) => {
                let directory = open_existing(&export.data)?;
                let mut text = directory.signing_key().to_secret_text();
                text.push('\n');
                write_secret(&export.output, text.as_bytes())?;
                let key = directory.signing_key().verifier_key().to_string();
                let file = export.output.display().to_string();
                output.result(&json!({ "file": file, "vkey": key }), || {
                    format!("wrote {file}: a secret. It signs as\n{key}")
                })
            }
            Self::Import(import) => import.run(output),
            Self::Rotate(rotate) => rotate.run(output),
        }
    }
}

impl Rotate {
    fn run(self, output: Output) -> Result<(), Failure> {
        let mut directory = open_existing(&self.data)?;
        let unreadable = |error: String| Failure::error(format!("{}: {error}", self.data.display()));
        let stores = EmbeddedStores::open(&self.data, RedbOptions::default())
            .map_err(|error| unreadable(error.to_string()))?;
        let stores = Stores { log: stores.log, state: stores.state };
        let rotated = rotate_key(&mut directory, &stores).map_err(|error| match error {
            RotationError::Members { .. } | RotationError::TakenOut => Failure::usage(error.to_string()),
            other => unreadable(other.to_string()),
        })?;
        let (new, old) = (rotated.new.to_string(), rotated.old.to_string());
        let document = json!({ "vkey": new, "retired_vkey": old });
        output.note("publish the new key before you start the server: clients that pinned the old one refuse it until they");
        output.note("are told (--vkey). Keep it apart from the data: strongroom ledger key export");
        output.result(&document, || format!("old  {old}\nnew  {new}"))
    }
}

impl Import {
    fn run(self, output: Output) -> Result<(), Failure> {
        let text = Zeroizing::new(discovery::read_text(&self.file)?);
        let key = SigningKey::parse(text.trim_end_matches('\n'))
            .map_err(|error| Failure::usage(format!("{} is no log key: {error}", self.file.display())))?;
        if is_restored_without_key(&self.data) {
            return self.complete(&key, output);
        }
        require_empty(&self.data)?;
        let mut secret = key.to_secret_text();
        secret.push('\n');
        let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data);
        created.map_err(|error| Failure::file("create", &self.data, &error))?;
        write_secret(&self.data.join(LOG_KEY_FILE), secret.as_bytes())?;
        // Opening finishes the directory: it takes the identity of the ledger from the key.
        let directory = DataDirectory::open(&self.data).map_err(|error| {
            // A key that no ledger can have must leave nothing behind.
            let _ = std::fs::remove_file(self.data.join(LOG_KEY_FILE));
            Failure::error(error.to_string())
        })?;
        let key = directory.signing_key().verifier_key().to_string();
        let data = self.data.display().to_string();
        output.result(&json!({ "data_dir": data, "vkey": key }), || format!("{data} signs as\n{key}"))
    }
}

impl Import {
    /// Gives a restored directory its key, which must be that of its ledger.
    fn complete(&self, key: &SigningKey, output: Output) -> Result<(), Failure> {
        let unreadable = |error: String| Failure::error(format!("{}: {error}", self.data.display()));
        let ledger_id = {
            let state = RedbStateStore::open(&self.data, RedbOptions::default())
                .map_err(|error| unreadable(error.to_string()))?;
            let view = state.view().map_err(|error| unreadable(error.to_string()))?;
            ledger_core::snapshot::ledger_id(view.as_ref()).map_err(|error| unreadable(error.to_string()))?
        };
        ledger_node::import_key(&self.data, ledger_id, key)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let key = key.verifier_key().to_string();
        let data = self.data.display().to_string();
        output.result(&json!({ "data_dir": data, "vkey": key }), || format!("{data} signs as\n{key}"))
    }
}

/// Whether only the key is missing.
fn is_restored_without_key(path: &Path) -> bool {
    path.join("format").exists() && path.join("state.db").exists() && !path.join(LOG_KEY_FILE).exists()
}

fn require_empty(path: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::usage(format!(
            "{} is not empty: a key is imported into a new directory",
            path.display()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

/// Opens a directory that holds a ledger: a command that reads must not make one.
fn open_existing(path: &Path) -> Result<DataDirectory, Failure> {
    if !path.join(LOG_KEY_FILE).exists() {
        return Err(Failure::not_found(format!("{} holds no ledger: it has no log.key", path.display())));
    }
    DataDirectory::open(path).map_err(|error| Failure::error(error.to_string()))
}

fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure::file("write", path, &error))
}
