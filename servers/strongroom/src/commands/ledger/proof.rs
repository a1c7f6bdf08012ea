//! `strongroom ledger proof`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Relationship, Resource};
use ledger_verify::note::VerifierKey;
use ledger_verify::proof;
use serde_json::json;

use super::get::{extend, note_trust, trust_fields};
use super::proven_list;
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Write a proof document (strongroom.proof.v1) about a key, a relationship (present or absent), or a whole list.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger proof acme/prod door:front -o door.proof.json\n  \
    strongroom ledger proof acme/prod --check doc:plan viewer user:ada -o ada.proof.json\n  \
    strongroom ledger proof acme/prod --list doc:plan viewer -o viewers.proof.json\n  \
    strongroom verify door.proof.json --vkey \"$(strongroom ledger vkey)\"")]
pub struct Proof {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(
        value_parser = super::entity_key,
        required_unless_present_any = ["check", "list"],
        conflicts_with_all = ["check", "list"]
    )]
    key: Option<EntityKey>,
    /// A relationship instead of a key.
    #[arg(long, num_args = 3, value_names = ["RESOURCE", "RELATION", "SUBJECT"])]
    check: Option<Vec<String>>,
    /// All relationships of a resource, or of a resource and a relation: the proof shows that none is left out.
    #[arg(long, num_args = 1..=2, value_names = ["RESOURCE", "RELATION"], conflicts_with = "check")]
    list: Option<Vec<String>>,
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
        if let Some(words) = &self.list {
            return self.list(words, output).await;
        }
        let tuple = self.check.as_deref().map(tuple).transpose()?;
        let client = self.server.trusting_client(&self.trust)?;
        let verified = match (&self.key, &tuple) {
            (Some(key), _) => client.verified_get(&self.vault, key).await?,
            (None, Some(tuple)) => client.verified_check(&self.vault, tuple).await?,
            (None, None) => {
                return Err(Failure::usage(
                    "give a key, --check RESOURCE RELATION SUBJECT, or --list RESOURCE [RELATION]",
                ));
            }
        };
        let document = proof::to_json(&verified.claim.subject, &verified.evidence);
        let Some(path) = &self.output else { return output.text(&document) };
        write(path, document.as_bytes())?;
        note_trust(output, &self.vault, &verified);
        let mut summary = json!({ "present": verified.claim.present, "height": verified.claim.height });
        extend(&mut summary, trust_fields(&self.vault, &verified));
        written(output, path, document.len(), &verified.verifier_key, summary)
    }

    async fn list(&self, words: &[String], output: Output) -> Result<(), Failure> {
        let (resource, relation) = list(words)?;
        let client = self.server.trusting_client(&self.trust)?;
        let list = client.verified_list(&self.vault, &resource, relation.as_ref()).await?;
        let document = ledger_verify::list::to_json(&list.claim.subject, &list.evidence);
        let Some(path) = &self.output else { return output.text(&document) };
        write(path, document.as_bytes())?;
        proven_list::note_trust(output, &self.vault, &list);
        let mut summary = json!({
            "count": list.claim.members.len(),
            "resource_count": list.claim.resource_count,
            "pages": list.evidence.pages.len(),
            "height": list.claim.height,
        });
        extend(&mut summary, proven_list::trust_fields(&self.vault, &list));
        written(output, path, document.len(), &list.verifier_key, summary)
    }
}

/// Says where a document is and how to check it.
fn written(
    output: Output,
    path: &std::path::Path,
    bytes: usize,
    key: &VerifierKey,
    more: serde_json::Value,
) -> Result<(), Failure> {
    let shown = path.display();
    let mut summary = json!({ "file": shown.to_string(), "bytes": bytes, "vkey": key.to_string() });
    extend(&mut summary, more);
    output.result(&summary, || {
        format!("wrote {shown}\ncheck it anywhere, offline:\n  strongroom verify {shown} --vkey '{key}'")
    })
}

/// RESOURCE and perhaps RELATION on the command line.
fn list(words: &[String]) -> Result<(Resource, Option<Relation>), Failure> {
    let (resource, relation) = match words {
        [resource] => (resource, None),
        [resource, relation] => (resource, Some(super::relation(relation).map_err(Failure::usage)?)),
        _ => return Err(Failure::usage("--list takes RESOURCE, or RESOURCE RELATION")),
    };
    Ok((super::resource(resource).map_err(Failure::usage)?, relation))
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
