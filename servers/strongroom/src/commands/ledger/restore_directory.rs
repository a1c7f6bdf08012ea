//! The directory that a restore goes into: claimed before anything is looked at.

use std::path::Path;

use ledger_node::{DirectoryError, RestoreTarget};
use ledger_verify::note::{SignedCheckpoint, SigningKey};

use crate::failure::Failure;
use crate::output::Output;

/// Claims `data`, then restores into it. Whatever is refused from then on leaves the marker of a restore that did not
/// finish: the next line of a script that did not look at the exit code must not found a new ledger there.
pub(super) fn restore_into(
    data: &Path,
    restore: impl FnOnce(RestoreTarget) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let target = RestoreTarget::begin(data).map_err(|error| match error {
        DirectoryError::Io { .. } => Failure::error(error.to_string()),
        _ => Failure::usage(error.to_string()),
    })?;
    restore(target).map_err(|failure| {
        let data = data.display();
        let kept =
            format!("nothing but another restore opens {data} now: restore into it again, or remove it");
        let hint = failure.hint.as_ref().map_or_else(|| kept.clone(), |hint| format!("{hint}; {kept}"));
        failure.with_hint(hint)
    })
}

/// Says when the key is not the one that signed the newest checkpoint there is: an older one would sign what clients refuse.
pub(super) fn warn_of_another_key(output: Output, key: Option<&SigningKey>, newest_note: Option<&str>) {
    let (Some(key), Some(note)) = (key, newest_note) else { return };
    if SignedCheckpoint::open(note, &[key.verifier_key()]).is_err() {
        output.note(
            "WARNING: --key is not the key that signed the newest checkpoint there. Was it rotated? Clients that know \
             the newer key refuse what this one signs: restore with the newer private key",
        );
    }
}
