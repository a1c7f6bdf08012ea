//! Checks an export of the example `ledger_audit` offline: `ledger_audit_verify OUTPUT VKEY`.
//!
//! It needs the crate `ledger-verify` and nothing else of the ledger. `VKEY` is the verifier key as the auditor got it
//! before, not the one that lies beside the proofs: whoever forges proofs forges that file too.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::{Claim, Subject, from_json, verify};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [output, key] = arguments.as_slice() else { bail!("usage: ledger_audit_verify OUTPUT VKEY") };
    let key = VerifierKey::parse(key.trim()).context("VKEY is no verifier key")?;
    let output = Path::new(output);
    let end = claim(&output.join("end.proof.json"), &key)?;
    let count = match &end.subject {
        Subject::Entity { key } if !end.present => {
            number_of(key)?.checked_sub(1).context("events are numbered from 1")?
        }
        _ => bail!("end.proof.json does not show that there is no further event"),
    };
    for number in 1..=count {
        let claim = claim(&output.join(format!("event-{number:08}.proof.json")), &key)?;
        let Subject::Entity { key } = &claim.subject else { bail!("event {number} is no entity") };
        ensure!(number_of(key)? == number && claim.present, "event {number} is missing");
        ensure!(
            (claim.vault_id, claim.height) == (end.vault_id, end.height),
            "event {number} is of another vault or block than the end"
        );
        let text = String::from_utf8(claim.value.unwrap_or_default()).context("an event is not text")?;
        println!("{number:>8}  block {}  {text}", claim.modified_height);
    }
    println!("{count} events, none missing, as of block {}", end.height);
    Ok(())
}

fn claim(path: &Path, key: &VerifierKey) -> anyhow::Result<Claim> {
    let name = path.display();
    let document = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let (subject, evidence) = from_json(&document).with_context(|| format!("{name} is no proof"))?;
    verify(&subject, &evidence, std::slice::from_ref(key)).with_context(|| format!("{name} is not valid"))
}

fn number_of(key: &str) -> anyhow::Result<u64> {
    let digits = key.strip_prefix("audit/").context("the key is not of the audit trail")?;
    digits.parse().context("the key has no number")
}
