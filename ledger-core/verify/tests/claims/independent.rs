//! The verifier that was written from `docs/formats.md` alone, in another language, comes to the same verdicts.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::{env, fs, process};

use ledger_verify::note::SigningKey;

use crate::fixture::log_key;
use crate::golden::{documents, folder, refused_documents};
use crate::golden_lists::{list_documents, refused_list_documents};

fn script() -> String {
    format!("{}/tests/independent_verifier.py", env!("CARGO_MANIFEST_DIR"))
}

fn python_is_missing() -> bool {
    let missing = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err();
    if missing {
        println!("skipped: needs python3");
    }
    missing
}

fn run(vkey: &str, documents: &[&Path]) -> Output {
    Command::new("python3").arg(script()).args(["--vkey", vkey]).args(documents).output().unwrap()
}

#[test]
fn it_accepts_every_golden_document_and_reads_the_same_claim() {
    if python_is_missing() {
        return;
    }
    let vkey = log_key().verifier_key().to_string();
    let mut wanted = Vec::new();
    for claims in ["proofs.json", "lists.json"] {
        let claims = fs::read(folder().join(claims)).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        wanted.extend(claims["documents"].as_array().unwrap().clone());
    }
    let files = documents().into_iter().map(|(file, ..)| file);
    let files = files.chain(list_documents().into_iter().map(|(file, ..)| file));
    let paths: Vec<_> = files.map(|file| folder().join(file)).collect();
    let output = run(&vkey, &paths.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let claims: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(claims.len(), wanted.len());
    for (claim, wanted) in claims.iter().zip(&wanted) {
        assert_eq!(claim, &wanted["claim"]);
    }
}

#[test]
fn it_refuses_every_tampered_document_and_a_wrong_key() {
    if python_is_missing() {
        return;
    }
    let vkey = log_key().verifier_key().to_string();
    let scratch = env::temp_dir().join(format!("strongroom-independent-{}", process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let mut paths = Vec::new();
    let refused = refused_documents().into_iter().chain(refused_list_documents());
    for (index, (_, document)) in refused.enumerate() {
        paths.push(scratch.join(format!("{index}.proof.json")));
        fs::write(&paths[index], document).unwrap();
    }
    let output = run(&vkey, &paths.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let golden = folder().join("entity.proof.json");
    let stranger = SigningKey::from_seed(log_key().name(), &[9; 32]).unwrap().verifier_key().to_string();
    let wrong_key = run(&stranger, &[golden.as_ref()]);
    fs::remove_dir_all(&scratch).unwrap();

    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("refused: ").count(), paths.len(), "{errors}");
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert_eq!(wrong_key.status.code(), Some(5));
}
