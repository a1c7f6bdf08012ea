//! Snapshots: taken from a running server, verified offline, restored elsewhere.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Home, Server, make_vault};

const KEY_ID: &str = "0190a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";

/// A server that can be found by the commands of its home.
fn start(home: &Home, data: &str) -> Server {
    Server::start(home, &["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data", data])
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn a_snapshot_is_verified_offline_and_its_copy_restored_elsewhere_serves_the_same() {
    let home = Home::new();
    let (data, elsewhere) = (home.path("data").display().to_string(), home.path("new").display().to_string());
    let server = start(&home, &data);
    let vkey = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    let mut first = Value::Null;
    for number in 0..5 {
        let key = format!("door:{number}");
        first = home.json(&["ledger", "put", "acme/prod", &key, "locked"]);
    }
    home.json(&["ledger", "relate", "acme/prod", "doc:plan", "viewer", "user:ann"]);
    let made = home.json(&["ledger", "snapshot", "create"]);
    assert_eq!((made["vault_count"].as_u64(), made["key_count"].as_u64()), (Some(1), Some(6)));
    let listed = home.json(&["ledger", "snapshot", "list"]);
    assert_eq!(listed["snapshots"], serde_json::json!([made]));
    assert!(home.run(&["ledger", "snapshot", "list"]).stdout.contains(text(&made, "file_name")));
    assert_eq!(home.json(&["ledger", "snapshot", "create"]), made, "nothing changed");

    // Copied while the server runs.
    let copy = home.path("copy.snap").display().to_string();
    std::fs::copy(text(&made, "path"), &copy).expect("copied");
    let exported = home.path("ledger.key").display().to_string();
    server.stop();
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &exported]);

    let verified = home.json(&["ledger", "snapshot", "verify", &copy, "--vkey", &vkey]);
    assert_eq!((text(&verified, "trust"), text(&verified, "sha256")), ("vkey", text(&made, "sha256")));
    assert_eq!(text(&verified["vaults"][0], "signed_by"), vkey);
    assert_eq!(verified["vaults"][0]["height"], 6);
    let unchecked = home.run(&["ledger", "snapshot", "verify", &copy]);
    assert!(unchecked.stdout.contains("not checked"), "{unchecked:?}");

    let restore = ["ledger", "snapshot", "restore", &copy, "--data", &elsewhere];
    let restored = home.json(&[restore.as_slice(), &["--key", &exported, "--vkey", &vkey]].concat());
    assert_eq!(restored["vaults"], verified["vaults"]);
    assert_eq!(home.run(&["ledger", "doctor", "--data", &elsewhere]).code, 0);
    let server = start(&home, &elsewhere);
    assert_eq!(text(&server.ready, "vkey"), vkey);
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "door:4"])["version"], first["version"]);
    let proof = home.path("door.json").display().to_string();
    home.json(&["ledger", "proof", "acme/prod", "door:4", "-o", &proof]);
    let claim = home.json(&["verify", &proof, "--vkey", &vkey, "--expect-value", "locked"]);
    assert_eq!(claim["verified"], true);
    assert_eq!(home.json(&["ledger", "put", "acme/prod", "door:9", "open"])["height"], 7);
}

#[test]
fn a_retry_after_a_restore_is_answered_with_its_first_receipt() {
    let home = Home::new();
    let (data, elsewhere) = (home.path("data").display().to_string(), home.path("new").display().to_string());
    let server = start(&home, &data);
    make_vault(&home);
    let key = fresh_uuid_v7();
    let put = ["ledger", "put", "acme/prod", "door", "locked", "--idempotency-key", &key];
    let receipt = home.json(&put);
    home.json(&["ledger", "put", "acme/prod", "door", "open"]);
    let made = home.json(&["ledger", "snapshot", "create"]);
    let token = server.token();
    server.stop();
    let key_file = Path::new(&data).join("log.key").display().to_string();
    home.json(&[
        "ledger",
        "snapshot",
        "restore",
        text(&made, "path"),
        "--data",
        &elsewhere,
        "--key",
        &key_file,
    ]);
    let server = start(&home, &elsewhere);
    assert_ne!(server.token(), token, "credentials are not in a snapshot");
    let retried = home.json(&put);
    assert_eq!(retried["replayed"], true);
    assert_eq!((&retried["height"], &retried["version"]), (&receipt["height"], &receipt["version"]));
}

/// A UUIDv7 of now.
fn fresh_uuid_v7() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let milliseconds = format!("{:012x}", since.as_millis());
    format!("{}-{}{}", &milliseconds[..8], &milliseconds[8..], &KEY_ID[13..])
}

#[test]
fn what_is_no_sound_snapshot_is_refused_and_leaves_no_directory_that_serves() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let server = start(&home, &data);
    make_vault(&home);
    home.json(&["ledger", "put", "acme/prod", "door", "locked"]);
    let made = home.json(&["ledger", "snapshot", "create"]);
    server.stop();
    let snapshot = text(&made, "path");
    let other = home.write("other.snap", "something else");
    assert_eq!(home.refusal(5, &["ledger", "snapshot", "verify", &other])["code"], "VERIFICATION_FAILED");
    assert_eq!(home.refusal(1, &["ledger", "snapshot", "verify", "missing.snap"])["code"], "FILE");
    let stranger = home.path("stranger").display().to_string();
    start(&home, &stranger).stop();
    let stranger_vkey = home.json(&["ledger", "key", "show", "--data", &stranger]);
    home.refusal(5, &["ledger", "snapshot", "verify", snapshot, "--vkey", text(&stranger_vkey, "vkey")]);

    let mut bytes = std::fs::read(snapshot).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = home.write("damaged.snap", &bytes);
    home.refusal(5, &["ledger", "snapshot", "verify", &damaged]);
    let new = home.path("new").display().to_string();
    home.refusal(5, &["ledger", "snapshot", "restore", &damaged, "--data", &new]);
    let serve = ["ledger", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data", &new];
    let said = home.run(&serve);
    assert!(said.code == 1 && said.stderr.contains("did not finish"), "{said:?}");

    assert_eq!(
        home.refusal(2, &["ledger", "snapshot", "restore", snapshot, "--data", &data])["code"],
        "USAGE"
    );
    let wrong = Path::new(&stranger).join("log.key").display().to_string();
    let third = home.path("third").display().to_string();
    let restore = ["ledger", "snapshot", "restore", snapshot, "--data", &third];
    assert_eq!(home.refusal(2, &[restore.as_slice(), &["--key", &wrong]].concat())["code"], "USAGE");
    let said = home.run(&Home::serve(&third));
    assert!(said.code == 1 && said.stderr.contains("did not finish"), "no new ledger comes of it: {said:?}");
    assert_eq!(home.run(&["ledger", "doctor", "--data", &third]).code, 1);

    // Cut off in the middle, and a snapshot that is not there.
    let cut = home.write("cut.snap", &bytes[..bytes.len() / 2]);
    for (code, file) in [(5, cut.as_str()), (1, "missing.snap")] {
        let other = home.path("cut").display().to_string();
        let refused = home.refusal(code, &["ledger", "snapshot", "restore", file, "--data", &other]);
        assert!(text(&refused, "hint").contains("remove it"), "{refused}");
        let said = home.run(&Home::serve(&other));
        assert!(said.code == 1 && said.stderr.contains("did not finish"), "{said:?}");
    }

    // Begun anew in the same directory, without the key.
    let said = home.run(&["ledger", "snapshot", "restore", snapshot, "--data", &new]);
    assert!(said.code == 0 && said.stdout.contains("ledger key import"), "{said:?}");
    let said = home.run(&serve);
    assert!(said.code == 1 && said.stderr.contains("ledger key import"), "{said:?}");
    assert_eq!(home.refusal(2, &["ledger", "key", "import", &wrong, "--data", &new])["code"], "USAGE");
    let right = Path::new(&data).join("log.key").display().to_string();
    home.json(&["ledger", "key", "import", &right, "--data", &new]);
    let _server = start(&home, &new);
    assert_eq!(home.json(&["ledger", "get", "acme/prod", "door"])["value"], "locked");
}

/// Most memory that the process has had, in KiB, as far as it is known while it runs.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[test]
fn a_snapshot_that_expands_to_gigabytes_is_refused_in_bounded_memory() {
    const FRAME: usize = 1 << 20;
    const ROWS: u32 = 16;
    const ROW_BYTES: usize = 128 << 20;
    let home = Home::new();
    let server = start(&home, &home.path("data").display().to_string());
    let made = home.json(&["ledger", "snapshot", "create"]);
    server.stop();
    let sound = std::fs::read(text(&made, "path")).expect("readable");
    let header_bytes = u32::from_be_bytes(sound[16..20].try_into().expect("four bytes")) as usize;
    let mut bomb = sound[..20 + header_bytes].to_vec();
    let mut frame = |plain: &[u8]| {
        let compressed = zstd::bulk::compress(plain, 1).expect("compressed");
        bomb.push(1);
        bomb.extend((plain.len() as u32).to_be_bytes());
        bomb.extend((compressed.len() as u32).to_be_bytes());
        bomb.extend(&compressed);
        bomb.extend(vec![0; plain.len().div_ceil(256).saturating_sub(compressed.len())]);
    };
    let zeros = vec![0; FRAME];
    for number in 0..ROWS {
        // Rows of the table `ledger`, whose values no header commits to.
        frame(
            &[&[0], 4_u32.to_be_bytes().as_slice(), &(ROW_BYTES as u32).to_be_bytes(), &number.to_be_bytes()]
                .concat(),
        );
        (0..ROW_BYTES / FRAME).for_each(|_| frame(&zeros));
    }
    bomb.push(0);
    let file = home.write("bomb.snap", &bomb);
    assert!(bomb.len() < 10_000_000, "it is small: {}", bomb.len());
    let mut child = home.command(&["ledger", "snapshot", "verify", &file]).spawn().expect("it starts");
    let (mut peak, deadline) = (0, std::time::Instant::now() + crate::harness::DEADLINE);
    let status = loop {
        peak = peak.max(peak_kib(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(5), "it ends before its trailer");
    let expanded_kib = u64::from(ROWS) * ROW_BYTES as u64 / 1024;
    assert!(peak > 10_000 && peak < expanded_kib / 3, "{peak} KiB of memory for {expanded_kib} KiB of rows");
}
