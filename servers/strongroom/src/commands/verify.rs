//! `strongroom verify`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ledger_core::names::VaultId;
use ledger_verify::list::{self, DOCUMENT_BYTES_MAX, ListClaim, ListSubject};
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::{self, Claim, Subject};
use serde_json::json;

use crate::commands::ledger::get::extend;
use crate::commands::ledger::proven_list;
use crate::failure::Failure;
use crate::output::Output;
use crate::{clock, record, table};

/// Check a proof document offline and print what it shows. Exit code 5 when it is refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom verify door.proof.json --vkey 'strongroom/…+1a2b3c4d+AQ…'\n  \
    strongroom verify door.proof.json --vkey KEY --expect-key door:front --expect-value locked\n  \
    strongroom verify viewers.proof.json --vkey KEY --expect-list doc:plan viewer")]
pub struct Verify {
    /// The document that `strongroom ledger proof` wrote; `-` reads standard input.
    file: PathBuf,
    /// Key that must have signed the checkpoint; may repeat while a key is rotated.
    #[arg(long = "vkey", value_name = "KEY", required = true)]
    verifier_keys: Vec<VerifierKey>,
    /// Refuse a proof about another vault: its UUID, as `ledger vault show` prints it. Names are not in proofs.
    #[arg(long, value_name = "UUID", value_parser = vault_id)]
    expect_vault: Option<VaultId>,
    /// Refuse a proof about anything but this key.
    #[arg(long, value_name = "KEY", conflicts_with = "expect_relationship")]
    expect_key: Option<String>,
    /// Refuse a proof about anything but the list of this resource, or of this resource and relation.
    #[arg(
        long,
        num_args = 1..=2,
        value_names = ["RESOURCE", "RELATION"],
        conflicts_with_all = ["expect_key", "expect_relationship", "expect_value", "expect_present", "expect_absent"]
    )]
    expect_list: Option<Vec<String>>,
    /// Refuse a proof about anything but this relationship.
    #[arg(long, num_args = 3, value_names = ["RESOURCE", "RELATION", "SUBJECT"])]
    expect_relationship: Option<Vec<String>>,
    /// Refuse a proof of another value, and of one that has expired.
    #[arg(long, value_name = "TEXT")]
    expect_value: Option<String>,
    /// Refuse a proof of absence, and of an entity that has expired.
    #[arg(long, conflicts_with = "expect_absent")]
    expect_present: bool,
    /// Refuse a proof of presence.
    #[arg(long)]
    expect_absent: bool,
}

impl Verify {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let bytes = read(&self.file)?;
        let refused = |error: ledger_verify::ProofError| {
            Failure::verification(format!("the proof is refused: {error}"))
        };
        if list::is_list_document(&bytes) {
            let (subject, evidence) = list::from_json(&bytes).map_err(refused)?;
            let claim = list::verify(&subject, &evidence, &self.verifier_keys).map_err(refused)?;
            return self.list(&claim, output);
        }
        if self.expect_list.is_some() {
            return Err(Failure::verification("the document is not about a list"));
        }
        let (subject, evidence) = proof::from_json(&bytes).map_err(refused)?;
        let claim = proof::verify(&subject, &evidence, &self.verifier_keys).map_err(refused)?;
        let now_ms = clock::now_ms();
        self.require_expected(&claim, now_ms)?;
        let mut document = record::claim(&claim, now_ms);
        extend(&mut document, json!({ "verified": true, "trust": "vkey" }));
        output.result(&document, || render(&claim, now_ms))
    }

    fn list(&self, claim: &ListClaim, output: Output) -> Result<(), Failure> {
        let is_about_a_record = self.expect_key.is_some()
            || self.expect_relationship.is_some()
            || self.expect_value.is_some()
            || self.expect_present
            || self.expect_absent;
        let vault = VaultId(claim.vault_id);
        let differs = |found: String| {
            Err(Failure::verification(format!("the proof is sound, but it is about {found}")))
        };
        if self.expect_vault.is_some_and(|expected| expected != vault) {
            return differs(format!("the vault {vault}"));
        }
        let expected = self.expect_list.as_deref().map(|words| ListSubject {
            resource: words.first().cloned().unwrap_or_default(),
            relation: words.get(1).cloned(),
        });
        if is_about_a_record || expected.is_some_and(|expected| expected != claim.subject) {
            return differs(format!("the list {}", proven_list::shown(&claim.subject)));
        }
        let mut document = proven_list::fields(claim);
        extend(&mut document, json!({ "members": proven_list::members(claim) }));
        extend(&mut document, json!({ "verified": true, "trust": "vkey" }));
        output.result(&document, || proven_list::render(claim))
    }

    fn require_expected(&self, claim: &Claim, now_ms: u64) -> Result<(), Failure> {
        let differs = |what: &str, found: &str| {
            Err(Failure::verification(format!("the proof is sound, but it is about {what} {found}")))
        };
        let vault = VaultId(claim.vault_id);
        if self.expect_vault.is_some_and(|expected| expected != vault) {
            return differs("the vault", &vault.to_string());
        }
        let expected = match (&self.expect_key, self.expect_relationship.as_deref()) {
            (Some(key), _) => Some(Subject::Entity { key: key.clone() }),
            (None, Some([resource, relation, subject])) => Some(Subject::Relationship {
                resource: resource.clone(),
                relation: relation.clone(),
                subject: subject.clone(),
            }),
            _ => None,
        };
        if expected.is_some_and(|expected| expected != claim.subject) {
            return differs("the record", &shown(&claim.subject));
        }
        if self
            .expect_value
            .as_ref()
            .is_some_and(|expected| claim.value.as_deref() != Some(expected.as_bytes()))
        {
            return differs("another value of", &shown(&claim.subject));
        }
        if (self.expect_present || self.expect_value.is_some()) && claim.expired_at(now_ms) {
            let at = table::time(claim.expires_at_ms);
            return Err(Failure::verification(format!(
                "the proof is sound, but {} expired at {at}",
                shown(&claim.subject)
            )));
        }
        match claim.present {
            true if self.expect_absent => differs("the presence of", &shown(&claim.subject)),
            false if self.expect_present => differs("the absence of", &shown(&claim.subject)),
            _ => Ok(()),
        }
    }
}

fn vault_id(text: &str) -> Result<VaultId, String> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    let bytes = hex::decode(digits).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.map(VaultId).ok_or_else(|| {
        format!(
            "{text:?} is not a UUID: names are not in proofs, `strongroom ledger vault show` prints the id"
        )
    })
}

fn shown(subject: &Subject) -> String {
    match subject {
        Subject::Entity { key } => table::cell(key),
        Subject::Relationship { resource, relation, subject } => {
            table::cell(&format!("{resource} {relation} {subject}"))
        }
    }
}

fn render(claim: &Claim, now_ms: u64) -> String {
    let what = match &claim.subject {
        Subject::Entity { .. } => "key",
        Subject::Relationship { .. } => "relationship",
    };
    let mut facts = vec![
        ("verified", if claim.present { "present" } else { "absent" }.to_owned()),
        (what, shown(&claim.subject)),
    ];
    if let Some(value) = &claim.value {
        facts.push(("value", table::value_cell(value)));
    }
    if claim.present {
        facts.push(("version", claim.version.to_string()));
        facts.push(("written in block", claim.modified_height.to_string()));
    }
    if claim.expires_at_ms != 0 {
        let state = if claim.expired_at(now_ms) { "EXPIRED" } else { "valid until" };
        facts.push((state, table::time(claim.expires_at_ms)));
    }
    facts.extend([
        ("as of block", format!("{} at {}", claim.height, table::time(claim.time_ms))),
        ("vault", VaultId(claim.vault_id).to_string()),
        ("block hash", hex::encode(claim.block_hash)),
        ("state root", hex::encode(claim.state_root)),
        (
            "checkpoint",
            format!("size {}, root {}", claim.checkpoint_size, hex::encode(claim.checkpoint_root)),
        ),
        ("signed by", claim.key_name.clone()),
    ]);
    table::facts(&facts)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than allowed is read, so that the limit speaks.
    let limit = DOCUMENT_BYTES_MAX as u64 + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    Ok(bytes)
}
