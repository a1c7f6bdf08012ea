//! What a data directory holds, written down so that a later program can be asked for all of it again.
//!
//! The directory of each format that was ever released stands under `tests/fixtures/format-N`: made once by
//! the program of that time with the ignored test below, and never again.

use std::path::Path;
use std::time::Duration;

use ledger_core::command::Receipt;
use ledger_core::ledger_state::RelationshipFilter;
use ledger_core::names::{NamespaceName, VaultRef};
use ledger_core::relationship::{Resource, Subject};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_node::{Consistency, DataDirectory, Ledger, ListRequest, Options, Stores, VerifiedSubject};
use ledger_verify::note::SignedCheckpoint;
use serde_json::{Value, json};
use storage_adapters::embedded::EmbeddedStores;
use storage_adapters::redb::{OlderFormat, RedbOptions};

use super::setting::{Home, START_MS, eventually, fresh_key, key, set, set_until, tuple};

/// Enough for a full tile of the log tree and some blocks after it.
const BLOCKS: u64 = 270;
pub const PAGE: u32 = 5;

pub fn vaults() -> Vec<VaultRef> {
    ["acme/audit", "acme/orders", "other/empty"].map(|name| name.parse().unwrap()).into()
}

fn writer() -> Actor {
    Actor::new("client:fixture").unwrap()
}

/// Transaction `number` of the workload: the same content whenever it is asked for.
fn numbered(number: u64) -> Transaction {
    let mut random = [0x5a; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let relation = |action: fn(_) -> Action, subject: u64| Operation {
        action: action(tuple("doc:readme", "viewer", &format!("user:{subject}"))),
        condition: None,
    };
    let mut operations = vec![set(&format!("k/{:02}", number % 40), &format!("value {number}"), None)];
    if number.is_multiple_of(9) {
        operations.push(relation(Action::CreateRelationship, number));
    }
    if number % 27 == 1 {
        operations.push(relation(Action::DeleteRelationship, number - 1));
    }
    if number % 30 == 7 {
        operations.push(Operation {
            action: Action::DeleteEntity { key: key(&format!("k/{:02}", (number + 11) % 40)) },
            condition: None,
        });
    }
    if number == 20 {
        operations.push(set_until("soon", "expires", START_MS + 1_000, None));
        operations.push(set_until("late", "expires later", START_MS + 86_400_000, None));
    }
    Transaction::new(IdempotencyKey::from_parts(START_MS, random), operations).unwrap()
}

fn numbers(vault: &VaultRef) -> std::ops::Range<u64> {
    match vault.vault.as_str() {
        "orders" => 1..BLOCKS,
        "audit" => 1_000..1_012,
        _ => 0..0,
    }
}

async fn create(ledger: &Ledger) {
    for name in ["acme", "other"] {
        ledger.create_namespace(NamespaceName::new(name).unwrap()).await.unwrap();
    }
    for vault in vaults() {
        ledger.create_vault(vault).await.unwrap();
    }
    let deleted: VaultRef = "acme/deleted".parse().unwrap();
    ledger.create_vault(deleted.clone()).await.unwrap();
    ledger.write(&deleted, &writer(), numbered(1)).await.unwrap();
    ledger.delete_vault(deleted).await.unwrap();
}

/// Everything that clients can ask for, as JSON.
pub async fn describe(ledger: &Ledger) -> Value {
    let mut described = Vec::new();
    for vault in vaults() {
        described.push(describe_vault(ledger, &vault).await);
    }
    json!({ "ledger_id": ledger.ledger_id().to_string(), "vaults": described })
}

async fn describe_vault(ledger: &Ledger, vault: &VaultRef) -> Value {
    let tip = ledger.tip(vault, Consistency::Linearizable).await.unwrap().value;
    let info = ledger.vault(vault).unwrap();
    let (entities, entity_token) = entities(ledger, vault, "").await;
    let mut blocks = Vec::new();
    for height in 0..=tip.header.height {
        let block = ledger.block(vault, height).unwrap().unwrap();
        let transactions: Vec<_> = block.transactions.iter().map(hex).collect();
        blocks.push(digest(&(hex(block.header.encode()) + &transactions.concat())));
    }
    let by_subject =
        RelationshipFilter::BySubject { subject: Subject::new("user:9").unwrap(), relation: None };
    let by_resource =
        RelationshipFilter::ByResource { resource: Resource::new("doc:readme").unwrap(), relation: None };
    json!({
        "name": vault.to_string(),
        "id": info.id.to_string(),
        "created_at_ms": info.created_at_ms,
        "height": tip.header.height,
        "state_root": hex(tip.header.state_root),
        "log_root": hex(tip.log_root),
        "keys": info.key_count,
        "blocks": digest(&blocks.concat()),
        "entities": entities,
        "entity_token": entity_token,
        "by_subject": relationships(ledger, vault, by_subject).await,
        "by_resource": relationships(ledger, vault, by_resource).await,
    })
}

/// All entities, read in pages; also the token after the first page.
pub async fn entities(ledger: &Ledger, vault: &VaultRef, token: &str) -> (Vec<Value>, String) {
    let (mut found, mut token, mut second_page) = (Vec::new(), token.to_owned(), None);
    loop {
        let request = ListRequest { page_size: PAGE, page_token: token };
        let page = ledger.list_entities(vault, "", request, Consistency::Eventual).await.unwrap().value;
        found.extend(page.items.into_iter().map(|(key, entity)| {
            json!([
                key.as_str(),
                hex(entity.value),
                entity.version,
                entity.modified_height,
                entity.expires_at_ms
            ])
        }));
        token = page.next_page_token;
        second_page.get_or_insert_with(|| token.clone());
        if token.is_empty() {
            return (found, second_page.unwrap_or_default());
        }
    }
}

async fn relationships(ledger: &Ledger, vault: &VaultRef, filter: RelationshipFilter) -> Vec<Value> {
    let request = ListRequest { page_size: 1_000, page_token: String::new() };
    let page = ledger.list_relationships(vault, filter, request, Consistency::Eventual).await.unwrap().value;
    let item = |tuple: &ledger_core::relationship::Relationship| {
        json!([tuple.resource.as_str(), tuple.relation.as_str(), tuple.subject.as_str()])
    };
    page.items.iter().map(item).collect()
}

fn receipt(receipt: &Receipt) -> Value {
    json!([receipt.height, receipt.version, hex(receipt.block_hash), receipt.time_ms])
}

/// Sends every transaction of the workload (again) and describes the receipts.
pub async fn send(ledger: &Ledger) -> Value {
    let mut receipts = serde_json::Map::new();
    for vault in vaults() {
        let mut answers = Vec::new();
        for number in numbers(&vault) {
            answers.push(receipt(&ledger.write(&vault, &writer(), numbered(number)).await.unwrap()));
        }
        receipts.insert(vault.to_string(), answers.into());
    }
    receipts.into()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(text: &str) -> String {
    hex(ledger_verify::hash::sha256(&[text.as_bytes()]))
}

pub async fn open(home: &Home, path: &Path, options: Options) -> Ledger {
    let directory = DataDirectory::open(path).unwrap().copied_for_upgrade().unwrap();
    let redb_options = RedbOptions { older_format: OlderFormat::Migrate, ..RedbOptions::default() };
    let stores = EmbeddedStores::open(directory.path(), redb_options).unwrap();
    let stores = Stores { log: stores.log, state: stores.state };
    let options = Options { clock: home.clock.clone(), ..options };
    Ledger::open(directory, stores, options).await.unwrap()
}

/// Writes the directory as a crash would leave it: the newest entries are in the log only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of the present format into the folder that STRONGROOM_FIXTURE names"]
async fn write_the_fixture_of_the_present_format() {
    let target = std::env::var_os("STRONGROOM_FIXTURE").expect("the folder to write, which does not exist");
    let target = Path::new(&target);
    let home = Home::new();
    let source = home.folder.path().join("data");
    let options =
        Options { flush_bytes: 160 * 1_024, gc_interval: Duration::from_millis(5), ..home.options() };
    let ledger = open(&home, &source, options).await;
    create(&ledger).await;
    let receipts = send(&ledger).await;
    let orders = &vaults()[1];
    let height = || ledger.vault(orders).unwrap().height;
    let before = height();
    home.clock.set_ms(START_MS + 2_000);
    eventually("the expired entity is collected", || height() > before).await;
    let checkpoint = ledger.checkpoint(orders, 0).await.unwrap().note;
    let subject = VerifiedSubject::Entity(key("late"));
    ledger.verified_read(orders, subject, 0).await.unwrap();
    let mut expected = describe(&ledger).await;
    expected["receipts"] = receipts;
    expected["checkpoint"] = checkpoint.into();
    expected["verifier_key"] = ledger.verifier_key().to_string().into();
    assert!(ledger.counters().flushes > 0, "something is in the state store");
    assert!(ledger.node_info().durable_applied < ledger.node_info().last_applied, "something is not");
    std::fs::create_dir(target).unwrap();
    for name in ["raft.db", "blocks.db", "state.db"] {
        let content = std::fs::read(source.join(name)).unwrap();
        let packed = zstd::encode_all(content.as_slice(), 19).unwrap();
        std::fs::write(target.join(format!("{name}.zst")), packed).unwrap();
    }
    for name in ["format", "node_id", "log.key"] {
        std::fs::copy(source.join(name), target.join(name)).unwrap();
    }
    let expected = serde_json::to_vec(&expected).unwrap();
    std::fs::write(target.join("expected.json.zst"), zstd::encode_all(expected.as_slice(), 19).unwrap())
        .unwrap();
}

/// Unpacks the directory of a format into a new folder, as its program left it.
pub fn unpack(format: u32, home: &Home) -> (std::path::PathBuf, Value) {
    use std::os::unix::fs::PermissionsExt;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"));
    let target = home.folder.path().join("data");
    std::fs::create_dir(&target).unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o700)).unwrap();
    let mut expected = None;
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let (name, mut content) =
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        let name = match name.strip_suffix(".zst") {
            Some(name) => {
                content = zstd::decode_all(content.as_slice()).unwrap();
                name
            }
            None => &name,
        };
        if name == "expected.json" {
            expected = Some(serde_json::from_slice(&content).unwrap());
            continue;
        }
        std::fs::write(target.join(name), content).unwrap();
        std::fs::set_permissions(target.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    home.clock.set_ms(START_MS + 2_000);
    (target, expected.unwrap())
}

/// Asks an opened ledger for everything that the fixture's program wrote down.
pub async fn assert_complete(ledger: &Ledger, expected: &Value) {
    let described = describe(ledger).await;
    assert_eq!(described["ledger_id"], expected["ledger_id"]);
    assert_eq!(described["vaults"], expected["vaults"], "values, roots, blocks, page tokens");
    for (vault, of_vault) in vaults().iter().zip(expected["vaults"].as_array().unwrap()) {
        let token = of_vault["entity_token"].as_str().unwrap();
        if !token.is_empty() {
            let (rest, _) = entities(ledger, vault, token).await;
            assert_eq!(rest, of_vault["entities"].as_array().unwrap()[PAGE as usize..], "an old page token");
        }
    }
    assert_eq!(send(ledger).await, expected["receipts"], "every retry has its first receipt");
    assert_eq!(describe(ledger).await["vaults"], expected["vaults"], "retries changed nothing");
    let verifier_key = expected["verifier_key"].as_str().unwrap();
    assert_eq!(ledger.verifier_key().to_string(), verifier_key);
    let note = expected["checkpoint"].as_str().unwrap();
    let trusted = SignedCheckpoint::open(note, &[ledger.verifier_key()]).unwrap();
    let orders = &vaults()[1];
    let now = ledger.checkpoint(orders, trusted.size).await.unwrap();
    let checkpoint = SignedCheckpoint::open(&now.note, &[ledger.verifier_key()]).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (trusted.size, trusted.root));
    let fresh = Transaction::new(fresh_key(START_MS), vec![set("k/00", "after the upgrade", None)]).unwrap();
    ledger.write(orders, &writer(), fresh).await.unwrap();
    let grown = ledger.checkpoint(orders, trusted.size).await.unwrap();
    let newer = SignedCheckpoint::open(&grown.note, &[ledger.verifier_key()]).unwrap();
    let (old, new) = ((trusted.size, trusted.root), (newer.size, newer.root));
    ledger_verify::log::verify_consistency(old.0, new.0, &grown.consistency, &old.1, &new.1).unwrap();
}
