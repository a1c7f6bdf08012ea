//! `strongroom demo tamper`

mod copies;
mod disk_access;

use std::path::{Path, PathBuf};

use clap::Args;
use ledger_core::doctor::{Problem, Report};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Consistency, DataDirectory, Ledger, ListRequest, Options, Stores, VerifiedSubject};
use ledger_verify::note::VerifierKey;
use ledger_verify::proof::{self, Evidence, Subject};
use serde_json::json;
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::{RedbOptions, RedbStateStore};

use self::copies::{Copies, digest_of};
use crate::clock;
use crate::commands::ledger::doctor;
use crate::failure::{Exit, Failure, with_causes};
use crate::output::Output;

const VAULTS_PAGE: usize = 100;
const ENTITIES_PAGE: u32 = 100;

/// Change one byte of one stored value in a copy of a ledger, as someone with access to the disk could, and watch
/// it being caught: by the doctor, by the server, and by whoever checks the proof. Needs no server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom demo tamper\n  \
    strongroom demo tamper --data /var/lib/strongroom --json   works on a copy; stop the server first")]
pub struct DemoTamper {
    /// Use a copy of this data directory instead of a new ledger with three records.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Change this record of --data. Default: the first entity with a value.
    #[arg(long, num_args = 2, value_names = ["NAMESPACE/VAULT", "KEY"], requires = "data")]
    key: Option<Vec<String>>,
}

/// The record that is changed.
struct Victim {
    vault: VaultRef,
    key: EntityKey,
}

/// What was seen.
struct Findings {
    record: String,
    /// The proof of the untouched record.
    before: Result<(), String>,
    /// The same proof with the bytes that are stored now.
    after: Result<(), String>,
    /// Whether the doctor names vault and key.
    doctor_names_it: bool,
    doctor: Vec<String>,
    /// What opening the changed copy gave.
    server: Result<(), String>,
    original_intact: bool,
}

impl DemoTamper {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let copies = Copies::new()?;
        let original = match &self.data {
            Some(data) => data.clone(),
            None => {
                make_ledger(&copies.original()).await?;
                copies.original()
            }
        };
        let digest = digest_of(&original)?;
        copies.fill_from(&original)?;
        let named = self.key.as_deref().map(named_victim).transpose()?;
        let findings = tamper(&copies, named).await?;
        let findings = Findings { original_intact: digest_of(&original)? == digest, ..findings };
        output.result(&document(&findings), || render(&findings))?;
        let caught = findings.before.is_ok() && findings.after.is_err() && findings.doctor_names_it;
        if caught && findings.original_intact {
            return Ok(());
        }
        Err(Failure::new(
            Exit::VerificationFailed,
            "NOT_CAUGHT",
            "the demonstration did not show what it should",
        ))
    }
}

/// A ledger with three records.
async fn make_ledger(path: &Path) -> Result<(), Failure> {
    let ledger = open(path).await?;
    let vault: VaultRef = "demo/doors".parse().map_err(|error| failed(&error))?;
    ledger.create_namespace(vault.namespace.clone()).await.map_err(|error| failed(&error))?;
    ledger.create_vault(vault.clone()).await.map_err(|error| failed(&error))?;
    let actor = Actor::new("client:demo").map_err(|error| failed(&error))?;
    for (number, (key, value)) in
        [("door:back", "locked"), ("door:front", "locked"), ("door:vault", "sealed")].into_iter().enumerate()
    {
        let action = Action::SetEntity {
            key: EntityKey::new(key).map_err(|error| failed(&error))?,
            value: EntityValue::new(value).map_err(|error| failed(&error))?,
            expires_at_ms: 0,
        };
        let idempotency_key = IdempotencyKey::from_parts(clock::now_ms(), [number as u8; 10]);
        let transaction = Transaction::new(idempotency_key, vec![Operation { action, condition: None }]);
        let transaction = transaction.map_err(|error| failed(&error))?;
        ledger.write(&vault, &actor, transaction).await.map_err(|error| failed(&error))?;
    }
    ledger.shutdown().await.map_err(|error| failed(&error))
}

async fn tamper(copies: &Copies, named: Option<Victim>) -> Result<Findings, Failure> {
    // The proof is made from one copy, which stays as it is; the other one is changed.
    let (victim, evidence, key) = prove(&copies.untouched(), named).await?;
    let row = evidence.leaf.clone().ok_or_else(|| Failure::not_found("there is no such record to change"))?;
    let subject = Subject::Entity { key: victim.key.as_str().to_owned() };
    let before = check(&subject, &evidence, &key);
    let stored = disk_access::change_one_byte(&copies.changed(), victim.key.as_str(), &row)?;
    let served = Evidence { leaf: Some(stored), ..evidence };
    let after = check(&subject, &served, &key);
    let report = examine(&copies.changed())?;
    let server = match open(&copies.changed()).await {
        Ok(ledger) => {
            let fence = ledger.vault(&victim.vault).and_then(|info| info.fence);
            ledger.shutdown().await.map_err(|error| failed(&error))?;
            fence.map_or(Ok(()), |fence| Err(format!("the vault is fenced: {}", fence.what)))
        }
        Err(refusal) => Err(refusal.message),
    };
    Ok(Findings {
        record: format!("{} {}", victim.vault, victim.key.as_str()),
        before,
        after,
        doctor_names_it: names(&report, &victim),
        doctor: problems(&report),
        server,
        original_intact: false,
    })
}

fn named_victim(words: &[String]) -> Result<Victim, Failure> {
    let [vault, key] = words else { return Err(Failure::usage("--key takes NAMESPACE/VAULT KEY")) };
    let vault =
        vault.parse().map_err(|error: ledger_core::names::NameError| Failure::usage(error.to_string()))?;
    Ok(Victim { vault, key: EntityKey::new(key).map_err(|error| Failure::usage(error.to_string()))? })
}

async fn prove(path: &Path, named: Option<Victim>) -> Result<(Victim, Evidence, VerifierKey), Failure> {
    let ledger = open(path).await?;
    let victim = match named {
        Some(victim) => victim,
        None => first_entity(&ledger).await?,
    };
    let subject = VerifiedSubject::Entity(victim.key.clone());
    let read = ledger.verified_read(&victim.vault, subject, 0).await.map_err(|error| failed(&error))?;
    let key = ledger.verifier_key();
    ledger.shutdown().await.map_err(|error| failed(&error))?;
    Ok((victim, read.evidence, key))
}

/// The first entity with a value, in the first vault that has one.
async fn first_entity(ledger: &Ledger) -> Result<Victim, Failure> {
    let mut after = None;
    loop {
        let page = ledger.vaults(None, after.as_ref(), VAULTS_PAGE);
        for info in &page {
            let vault = VaultRef { namespace: info.namespace.clone(), vault: info.name.clone() };
            let request = ListRequest { page_size: ENTITIES_PAGE, page_token: String::new() };
            let listed = ledger.list_entities(&vault, "", request, Consistency::Eventual).await;
            let listed = listed.map_err(|error| failed(&error))?.value.items;
            if let Some((key, _)) = listed.into_iter().find(|(_, entity)| !entity.value.is_empty()) {
                return Ok(Victim { vault, key });
            }
            after = Some(vault);
        }
        if page.is_empty() {
            return Err(Failure::not_found("the ledger has no entity with a value to change"));
        }
    }
}

fn check(subject: &Subject, evidence: &Evidence, key: &VerifierKey) -> Result<(), String> {
    proof::verify(subject, evidence, std::slice::from_ref(key)).map(|_| ()).map_err(|error| error.to_string())
}

fn examine(path: &Path) -> Result<Report, Failure> {
    let state = RedbStateStore::open(path, RedbOptions::default()).map_err(|error| failed(&error))?;
    doctor::inspect(std::sync::Arc::new(state))
}

fn names(report: &Report, victim: &Victim) -> bool {
    let vault = report.vaults.iter().find(|vault| vault.vault == victim.vault.to_string());
    let named = |problem: &Problem| doctor::key_of(problem) == Some(victim.key.as_str());
    vault.is_some_and(|vault| vault.problems.iter().any(named))
}

fn problems(report: &Report) -> Vec<String> {
    let of_vault = |vault: &ledger_core::doctor::VaultReport| {
        vault.problems.iter().map(|problem| format!("{}: {problem}", vault.vault)).collect::<Vec<_>>()
    };
    report.vaults.iter().flat_map(of_vault).collect()
}

async fn open(path: &Path) -> Result<Ledger, Failure> {
    let directory = DataDirectory::open(path).map_err(|error| failed(&error))?;
    let stores = EmbeddedStores::open(path, RedbOptions::default()).map_err(|error| failed(&error))?;
    let stores = Stores { log: stores.log, state: stores.state };
    Ledger::open(directory, stores, Options::default()).await.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::error(with_causes(error))
}

fn word(checked: &Result<(), String>) -> &'static str {
    if checked.is_ok() { "verified" } else { "rejected" }
}

fn document(findings: &Findings) -> serde_json::Value {
    json!({
        "before": word(&findings.before),
        "after": word(&findings.after),
        "record": findings.record,
        "original_intact": findings.original_intact,
        "reason": findings.after.as_ref().err(),
        "doctor": findings.doctor,
        "server_refuses": findings.server.as_ref().err(),
    })
}

fn render(findings: &Findings) -> String {
    let mut text = format!(
        "record              {}\nproof before        {}\none byte of its stored value is changed, in a copy, with a valid row checksum\n",
        findings.record,
        word(&findings.before),
    );
    let reason = findings.after.as_ref().err().map(|reason| format!(": {reason}")).unwrap_or_default();
    text.push_str(&format!("proof after         {}{reason}\n", word(&findings.after)));
    for problem in &findings.doctor {
        text.push_str(&format!("doctor              {problem}\n"));
    }
    match &findings.server {
        Err(reason) => text.push_str(&format!("server              does not serve it: {reason}\n")),
        Ok(()) => text.push_str("server              serves the copy\n"),
    }
    text.push_str(&format!("original intact     {}\n", if findings.original_intact { "yes" } else { "NO" }));
    text
}
