//! A vault's log as C2SP tlog-tiles, checked by a program that was written from the specification alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{client, dev_with_vault, put, runtime, vault};

fn python_is_missing() -> bool {
    let missing = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err();
    if missing {
        println!("skipped: needs python3");
    }
    missing
}

fn check(folder: &Path, vkey: &str) -> Output {
    let script =
        format!("{}/../../ledger-core/verify/tests/tlog_tiles_verifier.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args(["--vkey", vkey]).arg(folder);
    command.output().expect("python runs")
}

fn accepted(folder: &Path, vkey: &str) -> Value {
    let output = check(folder, vkey);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn an_exported_log_is_verified_by_an_independent_program_and_grows_by_what_is_new() {
    if python_is_missing() {
        return;
    }
    let (home, server) = dev_with_vault();
    let vkey = server.ready["vkey"].as_str().expect("a key").to_owned();
    let (to, other) = (home.path("tiles"), home.path("other"));
    let export = |folder: &Path| {
        let folder = folder.display().to_string();
        home.json(&["ledger", "export", "acme/prod", "--to", &folder])
    };
    assert_eq!(export(&to)["size"], 1);
    assert_eq!(accepted(&to, &vkey)["size"], 1);

    let runtime = runtime();
    let writer = client(&runtime, &server, &home.path("pins"));
    let mut height = 0;
    // Around full tiles, and with a second level.
    for until in [3_u64, 255, 256, 257, 520] {
        while height + 1 < until {
            let written = runtime.block_on(writer.write(&vault(), put("key", height.to_string())));
            height = written.expect("written").height;
        }
        let exported = export(&to);
        let size = height + 1;
        assert_eq!((exported["size"].as_u64(), exported["verified"].as_bool()), (Some(size), Some(true)));
        let checked = accepted(&to, &vkey);
        assert_eq!((checked["size"].as_u64(), &checked["root"]), (Some(size), &exported["root"]));
        assert_eq!(checked["origin"], exported["origin"]);
    }
    assert_eq!(export(&to)["added"], 0);
    assert!(to.join("tile/0/001").exists() && to.join("tile/1/000.p/2").exists());

    // Whoever exports all at once gets the same files, partial ones of earlier checkpoints apart.
    export(&other);
    for file in files(&other) {
        let name = file.strip_prefix(&other).expect("inside");
        let same =
            std::fs::read(to.join(name)).expect("there too") == std::fs::read(&file).expect("readable");
        assert!(same || name == Path::new("checkpoint"), "{}", name.display());
    }

    // A changed byte of whatever the checkpoint covers is refused.
    for file in files(&other) {
        let content = std::fs::read(&file).expect("readable");
        let mut changed = content.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&file, &changed).expect("written");
        assert_eq!(check(&other, &vkey).status.code(), Some(5), "{}", file.display());
        std::fs::write(&file, &content).expect("written");
    }
    accepted(&other, &vkey);
}

#[test]
fn an_export_is_not_continued_over_another_log_or_over_damage() {
    let (home, server) = dev_with_vault();
    home.json(&["ledger", "put", "acme/prod", "a", "1"]);
    let to = home.path("tiles").display().to_string();
    home.json(&["ledger", "export", "acme/prod", "--to", &to]);
    home.json(&["ledger", "vault", "create", "acme/second"]);
    let other = home.refusal(2, &["ledger", "export", "acme/second", "--to", &to]);
    assert!(other["message"].as_str().is_some_and(|text| text.contains("is an export of")), "{other}");
    home.json(&["ledger", "put", "acme/prod", "a", "2"]);
    let tile = home.path("tiles").join("tile/0/000.p/2");
    let mut content = std::fs::read(&tile).expect("there");
    content[0] ^= 1;
    std::fs::write(&tile, &content).expect("written");
    let damaged = home.refusal(5, &["ledger", "export", "acme/prod", "--to", &to]);
    assert!(damaged["message"].as_str().is_some_and(|text| text.contains("damaged")), "{damaged}");
    let mine = home.path("mine");
    std::fs::create_dir(&mine).expect("a directory");
    std::fs::write(mine.join("letter.txt"), "mine").expect("written");
    home.refusal(2, &["ledger", "export", "acme/prod", "--to", &mine.display().to_string()]);
    server.stop();
}
