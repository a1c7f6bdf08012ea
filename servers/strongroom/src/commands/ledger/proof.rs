//! `strongroom ledger proof`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultRef;
use ledger_core::relationship::Relationship;
use ledger_verify::proof;
use serde_json::json;

use super::get::{extend, note_trust, trust_fields};
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Write a proof document (strongroom.proof.v1) about a key or a relationship, present or absent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger proof acme/prod door:front -o door.proof.json\n  \
    strongroom ledger proof acme/prod --check doc:plan viewer user:ada -o ada.proof.json\n  \
    strongroom verify door.proof.json --vkey \"$(strongroom ledger vkey)\"")]
pub struct Proof {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(value_parser = super::entity_key, required_unless_present = "check", conflicts_with = "check")]
    key: Option<EntityKey>,
    /// A relationship instead of a key.
    #[arg(long, num_args = 3, value_names = ["RESOURCE", "RELATION", "SUBJECT"])]
    check: Option<Vec<String>>,
    /// File to write. Without it the document goes to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Proof {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let tuple = self.check.as_deref().map(tuple).transpose()?;
        let client = self.server.trusting_client(&self.trust)?;
        let verified = match (&self.key, &tuple) {
            (Some(key), _) => client.verified_get(&self.vault, key).await?,
            (None, Some(tuple)) => client.verified_check(&self.vault, tuple).await?,
            (None, None) => return Err(Failure::usage("give a key, or --check RESOURCE RELATION SUBJECT")),
        };
        let document = proof::to_json(&verified.claim.subject, &verified.evidence);
        let Some(path) = &self.output else { return output.text(&document) };
        write(path, document.as_bytes())?;
        note_trust(output, &self.vault, &verified);
        let mut summary = json!({
            "file": path.display().to_string(),
            "bytes": document.len(),
            "present": verified.claim.present,
            "height": verified.claim.height,
            "vkey": verified.verifier_key.to_string(),
        });
        extend(&mut summary, trust_fields(&self.vault, &verified));
        output.result(&summary, || {
            let shown = path.display();
            format!(
                "wrote {shown}\ncheck it anywhere, offline:\n  strongroom verify {shown} --vkey '{}'",
                verified.verifier_key
            )
        })
    }
}

pub(super) fn tuple(words: &[String]) -> Result<Relationship, Failure> {
    let [resource, relation, subject] = words else {
        return Err(Failure::usage("--check takes RESOURCE RELATION SUBJECT"));
    };
    Ok(Relationship {
        resource: super::resource(resource).map_err(Failure::usage)?,
        relation: super::relation(relation).map_err(Failure::usage)?,
        subject: super::subject(subject).map_err(Failure::usage)?,
    })
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Failure::file("write", path, &error))
}
