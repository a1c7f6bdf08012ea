//! `strongroom ledger backup …`

mod create;
mod restore;
mod show;

use clap::Subcommand;
use ledger_core::backup::BackupError;
use ledger_node::backup::{BackupFailure, CoveredRange, RestorePoint};

use crate::failure::{Exit, Failure};
use crate::moment;
use crate::output::Output;

const SHOWS_POINTS: &str = "`strongroom ledger backup list` shows all points";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Back up a ledger into a folder: the first time everything, then what is new. The server may run; any member of a
    /// cluster can be asked.
    #[command(after_help = "Examples:\n  \
        strongroom ledger backup create --to /backup/ledger\n  \
        strongroom ledger backup create --to /backup/ledger --data /var/lib/strongroom")]
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
            return Failure::new(Exit::Error, "VAULT_DIVERGED", message);
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
        BackupFailure::NotCovered { asked, covered } => {
            let message =
                format!("the backup does not cover {}: it covers {}", point(asked), ranges(covered));
            Failure::new(Exit::NotFound, "POINT_NOT_COVERED", message).with_hint(SHOWS_POINTS)
        }
        BackupFailure::Broken { file, fault, asked, covered } => {
            let message = format!(
                "{file} is {fault}, and {} needs it: what can be restored is {}",
                point(asked),
                ranges(covered)
            );
            let end = covered.last().map(|range| range.through_index);
            let earlier =
                end.map(|end| format!(", or restore what is there with --index {end}")).unwrap_or_default();
            let hint =
                format!("take another copy of the folder, which has the file{earlier}; {SHOWS_POINTS}");
            Failure::new(Exit::VerificationFailed, "BACKUP_BROKEN", message).with_hint(hint)
        }
        BackupFailure::NotEmpty { .. }
        | BackupFailure::OtherLedger { .. }
        | BackupFailure::InDataDirectory { .. } => Failure::usage(message),
        BackupFailure::Manifest { .. }
        | BackupFailure::OtherFile { .. }
        | BackupFailure::NotWhole
        | BackupFailure::Restore { .. } => Failure::verification(message),
        _ => Failure::error(message),
    }
}

/// A point as people type it.
fn point(point: &RestorePoint) -> String {
    match point {
        RestorePoint::TimeMs(time_ms) => moment::shown(*time_ms),
        other => other.to_string(),
    }
}

/// The points between which all can be restored.
fn ranges(covered: &[CoveredRange]) -> String {
    if covered.is_empty() {
        return "nothing".to_owned();
    }
    covered.iter().map(range).collect::<Vec<_>>().join(", ")
}

fn range(range: &CoveredRange) -> String {
    format!(
        "entries {} to {} ({} to {})",
        range.from_index,
        range.through_index,
        moment::shown(range.from_ms),
        moment::shown(range.through_ms)
    )
}
