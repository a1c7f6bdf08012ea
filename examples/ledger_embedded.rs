//! The engine inside your own program: write, read, prove, verify.
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Options, VerifiedSubject};
use ledger_verify::proof::{Subject, verify};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "ledger-data".into());
    let ledger = storage_adapters::embedded::open_ledger(path, Options::default()).await?;
    let (vault, key) = ("acme/main".parse()?, EntityKey::new("greeting")?);
    if ledger.vault(&vault).is_none() {
        ledger.create_namespace(vault.namespace.clone()).await?;
        ledger.create_vault(vault.clone()).await?;
    }
    let value = EntityValue::new("hello")?;
    let action = Action::SetEntity { key: key.clone(), value, expires_at_ms: 0 };
    let attempt = IdempotencyKey::new(uuid::Uuid::now_v7().into_bytes())?;
    let transaction = Transaction::new(attempt, vec![Operation { action, condition: None }])?;
    let receipt = ledger.write(&vault, &Actor::new("user:ada")?, transaction).await?;
    let read = ledger.verified_read(&vault, VerifiedSubject::Entity(key.clone()), 0).await?;
    let claim = verify(&Subject::Entity { key: key.into() }, &read.evidence, &[ledger.verifier_key()])?;
    println!("block {}: {:?} is proved", receipt.height, claim.value.map(String::from_utf8).transpose()?);
    Ok(ledger.shutdown().await?)
}
