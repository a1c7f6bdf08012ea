//! `strongroom ledger backup …`

mod create;
mod restore;
mod show;

use clap::Subcommand;
use ledger_core::backup::BackupError;
use ledger_node::backup::BackupFailure;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Back up a ledger into a folder: the first time everything, then what is new. The server may run; any member of a
    /// cluster can be asked.
    #[command(after_help = "Examples:\n  \
        strongroom ledger backup create --to /backup/ledger\n  \
        strongroom ledger backup create --to /backup/ledger --data /var/lib/strongroom/ledger")]
    Create(create::Create),
    /// List the files of a backup and the points that can be restored.
    #[command(after_help = "Example:\n  strongroom ledger backup list /backup/ledger")]
    List(show::List),
    /// Check a backup offline: every file, block and root, and that it extends the checkpoints that you kept. Exit code 5
    /// when it is refused.
    #[command(after_help = "Examples:\n  \
        strongroom ledger backup verify /backup/ledger --vkey 'strongroom/…+1a2b3c4d+AQ…'\n  \
        strongroom ledger backup verify /backup/ledger --checkpoint acme-prod.checkpoint")]
    Verify(show::Verify),
    /// Make a data directory of a backup, at its end or at an earlier point. The old server must not run any more: two
    /// servers with one key contradict each other.
    #[command(after_help = "Examples:\n  \
        strongroom ledger backup restore /backup/ledger --data /var/lib/strongroom-new --key ledger.key\n  \
        strongroom ledger backup restore /backup/ledger --data new --key ledger.key --at 2026-11-21T10:57:47Z\n  \
        strongroom ledger backup restore /backup/ledger --data new --key ledger.key --height acme/prod=1234")]
    Restore(restore::Restore),
}

impl Backup {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(output),
            Self::List(list) => list.run(output),
            Self::Verify(verify) => verify.run(output),
            Self::Restore(restore) => restore.run(output),
        }
    }
}

/// What a backup that was not made, verified or restored ends a command with.
fn failed(failure: &BackupFailure) -> Failure {
    let message = failure.to_string();
    match failure.part() {
        Some(BackupError::Fork { .. }) => {
            let hint = "this backup and that history cannot both be the ledger's: find out which one clients have seen";
            return Failure::new(Exit::VerificationFailed, "FORK", message).with_hint(hint);
        }
        Some(BackupError::Short { .. }) => {
            return Failure::new(Exit::VerificationFailed, "BACKUP_TOO_OLD", message);
        }
        Some(BackupError::Behind { .. }) => return Failure::new(Exit::Error, "BACKUP_AHEAD", message),
        Some(BackupError::Fenced { .. }) => {
            return Failure::new(Exit::Unavailable, "VAULT_DIVERGED", message);
        }
        Some(BackupError::Lost { .. }) => return Failure::new(Exit::NotFound, "POINT_LOST", message),
        Some(BackupError::Io(_) | BackupError::State(_) | BackupError::NeedsBase { .. }) => {
            return Failure::error(message);
        }
        Some(_) => return Failure::verification(message),
        None => {}
    }
    match failure {
        BackupFailure::NoBackup { .. } | BackupFailure::UnknownVault { .. } => Failure::not_found(message),
        BackupFailure::NotCovered { .. } => Failure::new(Exit::NotFound, "POINT_NOT_COVERED", message),
        BackupFailure::NotEmpty { .. } | BackupFailure::OtherLedger { .. } => Failure::usage(message),
        BackupFailure::Manifest { .. }
        | BackupFailure::OtherFile { .. }
        | BackupFailure::NotWhole
        | BackupFailure::Restore { .. } => Failure::verification(message),
        _ => Failure::error(message),
    }
}
