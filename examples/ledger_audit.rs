//! An application's audit trail in the ledger: record events, then export them with proofs.
//!
//! ```sh
//! ledger_audit record DIR "ada opened the vault" "bob read plan 7"
//! ledger_audit export DIR audit-export          # check it anywhere with the example ledger_audit_verify
//! ```
//!
//! Event number n is the entity `audit/<n, 8 digits>`, created under the condition that it does not exist: nobody writes
//! over an event, and numbers have no gaps. The export proves every event, and that there is none after the last.

use std::path::Path;

use anyhow::{Context as _, bail};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, Actor, Condition, IdempotencyKey, Operation, Transaction};
use ledger_node::{Consistency, Ledger, Options, VerifiedSubject};
use ledger_verify::proof::{Subject, to_json, verify};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, directory, rest) = match arguments.as_slice() {
        [command, directory, rest @ ..] => (command.as_str(), directory, rest),
        _ => bail!("usage: ledger_audit record DIR EVENT… | ledger_audit export DIR OUTPUT"),
    };
    let ledger = storage_adapters::embedded::open_ledger(directory, Options::default()).await?;
    let vault: VaultRef = "acme/audit".parse()?;
    if ledger.vault(&vault).is_none() {
        ledger.create_namespace(vault.namespace.clone()).await?;
        ledger.create_vault(vault.clone()).await?;
    }
    match (command, rest) {
        ("record", events) if !events.is_empty() => record(&ledger, &vault, events).await?,
        ("export", [output]) => export(&ledger, &vault, Path::new(output)).await?,
        _ => bail!("usage: ledger_audit record DIR EVENT… | ledger_audit export DIR OUTPUT"),
    }
    Ok(ledger.shutdown().await?)
}

async fn record(ledger: &Ledger, vault: &VaultRef, events: &[String]) -> anyhow::Result<()> {
    let mut number = recorded(ledger, vault).await?;
    for event in events {
        number += 1;
        let value = EntityValue::new(event.as_bytes().to_vec())?;
        let action = Action::SetEntity { key: key_of(number)?, value, expires_at_ms: 0 };
        let operation = Operation { action, condition: Some(Condition::MustNotExist) };
        let attempt = IdempotencyKey::new(uuid::Uuid::now_v7().into_bytes())?;
        let transaction = Transaction::new(attempt, vec![operation])?;
        let receipt = ledger.write(vault, &Actor::new("client:app")?, transaction).await?;
        println!("event {number} is in block {}", receipt.height);
    }
    Ok(())
}

/// Writes `event-<n>.proof.json` for every event, `end.proof.json` for the number after the last, and `vkey`.
async fn export(ledger: &Ledger, vault: &VaultRef, output: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    let count = recorded(ledger, vault).await?;
    for number in 1..=count + 1 {
        let key = key_of(number)?;
        let read = ledger.verified_read(vault, VerifiedSubject::Entity(key.clone()), 0).await?;
        let subject = Subject::Entity { key: key.as_str().to_owned() };
        // What goes out was checked here too.
        verify(&subject, &read.evidence, &[ledger.verifier_key()])?;
        let name = if number > count { "end".to_owned() } else { format!("event-{number:08}") };
        std::fs::write(output.join(format!("{name}.proof.json")), to_json(&subject, &read.evidence))?;
    }
    std::fs::write(output.join("vkey"), format!("{}\n", ledger.verifier_key()))?;
    println!("{count} events exported to {}", output.display());
    Ok(())
}

/// How many events there are: the number after the last is found by asking for ever larger ones, then between.
async fn recorded(ledger: &Ledger, vault: &VaultRef) -> anyhow::Result<u64> {
    let mut after = 1;
    while exists(ledger, vault, after).await? {
        after *= 2;
    }
    let mut last = after / 2;
    while last + 1 < after {
        let middle = last + (after - last) / 2;
        if exists(ledger, vault, middle).await? { last = middle } else { after = middle }
    }
    Ok(last)
}

async fn exists(ledger: &Ledger, vault: &VaultRef, number: u64) -> anyhow::Result<bool> {
    let read = ledger.get(vault, &key_of(number)?, Consistency::Linearizable).await?;
    Ok(read.value.is_some())
}

fn key_of(number: u64) -> anyhow::Result<EntityKey> {
    Ok(EntityKey::new(&format!("audit/{number:08}"))?)
}
