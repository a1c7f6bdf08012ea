//! Backups: taken from a running server and from a stopped directory, verified offline, restored to a point; and copies
//! of a directory.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Home, Server, eventually, make_vault};

/// A server that can be found by the commands of its home.
fn start(home: &Home, data: &str) -> Server {
    Server::start(home, &["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data", data])
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn path(home: &Home, name: &str) -> String {
    home.path(name).display().to_string()
}

fn put(home: &Home, key: &str, value: &str) -> Value {
    home.json(&["ledger", "put", "acme/prod", key, value])
}

fn value(home: &Home, key: &str) -> String {
    let found = home.json(&["ledger", "get", "acme/prod", key]);
    found["value"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned()
}

fn create(home: &Home, folder: &str) -> Value {
    home.json(&["ledger", "backup", "create", "--to", folder])
}

/// What a restore was refused into founds no new ledger.
fn serves_nothing(home: &Home, data: &str) {
    let said = home.run(&Home::serve(data));
    assert!(said.code == 1 && said.stderr.contains("did not finish"), "{said:?}");
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn a_destroyed_ledger_comes_back_at_its_end_at_a_time_and_at_a_height() {
    let home = Home::new();
    let (data, folder, key) = (path(&home, "data"), path(&home, "backup"), path(&home, "ledger.key"));
    let server = start(&home, &data);
    let vkey = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    put(&home, "door", "one");
    let first = create(&home, &folder);
    assert_eq!(first["added"]["kind"], "base");
    let two = put(&home, "door", "two");
    home.json(&["ledger", "namespace", "create", "later"]);
    let second = create(&home, &folder);
    let added = &second["added"];
    assert_eq!(
        (&added["kind"], &added["blocks"], &added["commands"]),
        (&"increment".into(), &1.into(), &1.into())
    );
    let three = put(&home, "door", "three");
    let note = home.run(&["ledger", "checkpoint", "acme/prod"]).stdout;
    let kept = home.write("kept.checkpoint", &note);
    assert!(three["time_ms"].as_u64() > two["time_ms"].as_u64());
    // While it runs, and once more from the stopped directory.
    server.stop();
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &key]);
    let third = home.json(&["ledger", "backup", "create", "--to", &folder, "--data", &data]);
    assert_eq!((&third["added"]["kind"], &third["files"]), (&"increment".into(), &3.into()));
    let nothing = home.json(&["ledger", "backup", "create", "--to", &folder, "--data", &data]);
    assert_eq!((&nothing["added"], &nothing["files"]), (&Value::Null, &3.into()));

    let listed = home.json(&["ledger", "backup", "list", &folder]);
    assert_eq!(listed["files"].as_array().map(Vec::len), Some(3));
    assert_eq!(listed["chains"].as_array().map(Vec::len), Some(1));
    let shown = home.run(&["ledger", "backup", "list", &folder]).stdout;
    assert!(shown.contains("increment") && shown.contains("any point from entry"), "{shown}");
    let verify = ["ledger", "backup", "verify", &folder, "--vkey", &vkey, "--checkpoint", &kept];
    let verified = home.json(&verify);
    assert_eq!((&verified["trust"], &verified["checkpoints_extended"]), (&"vkey".into(), &1.into()));
    assert_eq!(verified["vaults"][0]["height"], 3);
    assert!(home.run(&verify).stdout.contains("Every file, block and root fits."));

    std::fs::remove_dir_all(&data).expect("destroyed");
    let restore = |name: &str, more: &[&str]| {
        let to = path(&home, name);
        let command = ["ledger", "backup", "restore", &folder, "--data", &to, "--key", &key];
        (home.json(&[command.as_slice(), more].concat()), to)
    };
    let time = two["time_ms"].as_u64().expect("a time").to_string();
    let points: [(&str, &[&str], &str, u64); 4] = [
        ("end", &["--vkey", &vkey, "--checkpoint", &kept], "three", 0),
        ("time", &["--at", &time], "two", 1),
        ("height", &["--height", "acme/prod=1"], "one", 2),
        ("height2", &["--height", "acme/prod=2"], "two", 1),
    ];
    for (name, more, expected, left_out) in points {
        let (restored, to) = restore(name, more);
        assert_eq!(restored["vaults"][0]["blocks_left_out"], left_out, "{restored}");
        assert_eq!(home.run(&["ledger", "doctor", "--data", &to]).code, 0);
        let _ = std::fs::remove_dir_all(home.path("state").join("strongroom"));
        let server = start(&home, &to);
        assert_eq!(text(&server.ready, "vkey"), vkey);
        assert_eq!(value(&home, "door"), expected);
        let has_later = home.run(&["ledger", "namespace", "show", "later"]).code == 0;
        assert_eq!(has_later, expected == "three" || name == "height2", "{name}");
        put(&home, "door", "four");
        server.stop();
    }
}

#[test]
fn a_backup_that_does_not_extend_a_kept_checkpoint_exits_with_5_and_says_why() {
    let home = Home::new();
    let (data, old, folder) = (path(&home, "data"), path(&home, "old"), path(&home, "backup"));
    let server = start(&home, &data);
    let vkey = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    put(&home, "door", "one");
    server.stop();
    copy_tree(Path::new(&data), Path::new(&old));
    let server = start(&home, &data);
    put(&home, "door", "seen by clients");
    create(&home, &folder);
    put(&home, "door", "seen too");
    let note = home.run(&["ledger", "checkpoint", "acme/prod"]).stdout;
    let kept = home.write("kept.checkpoint", &note);
    server.stop();
    let short = home.refusal(5, &["ledger", "backup", "verify", &folder, "--checkpoint", &kept]);
    assert_eq!(text(&short, "code"), "BACKUP_TOO_OLD");

    // The old copy goes on in another way, and is backed up.
    let others = path(&home, "others");
    let server = start(&home, &old);
    for number in 0..3 {
        put(&home, "door", &format!("another history {number}"));
    }
    create(&home, &others);
    let refused = home.refusal(5, &["ledger", "backup", "create", "--to", &folder]);
    assert_eq!(text(&refused, "code"), "FORK");
    server.stop();
    home.json(&["ledger", "backup", "verify", &others, "--vkey", &vkey]);
    let verify = ["ledger", "backup", "verify", &others, "--vkey", &vkey, "--checkpoint", &kept];
    let forked = home.refusal(5, &verify);
    assert_eq!(text(&forked, "code"), "FORK");
    assert!(text(&forked, "message").contains("acme/prod"), "{forked}");
    assert!(text(&forked, "message").contains("kept.checkpoint"), "{forked}");
    let restore =
        ["ledger", "backup", "restore", &others, "--data", &path(&home, "new"), "--checkpoint", &kept];
    home.refusal(5, &restore);
    serves_nothing(&home, &path(&home, "new"));
}

#[test]
fn points_folders_and_keys_that_cannot_work_are_refused_by_name() {
    let home = Home::new();
    let (data, folder, new) = (path(&home, "data"), path(&home, "backup"), path(&home, "new"));
    let server = start(&home, &data);
    make_vault(&home);
    put(&home, "door", "one");
    home.refusal(3, &["ledger", "backup", "list", &folder]);
    create(&home, &folder);
    server.stop();
    let restore = |more: &[&str]| {
        let command = ["ledger", "backup", "restore", folder.as_str(), "--data", new.as_str()];
        [command.as_slice(), more].concat().iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()
    };
    let refusal = |code, more: &[&str]| {
        let command = restore(more);
        home.refusal(code, &command.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(text(&refusal(3, &["--index", "999999"]), "code"), "POINT_NOT_COVERED");
    let late = refusal(3, &["--at", "2099-01-02T03:04:05Z"]);
    assert!(text(&late, "message").contains("cover 2099-01-02T03:04:05.000Z: it covers entries "), "{late}");
    assert!(text(&late, "hint").contains("backup list"), "{late}");
    refusal(3, &["--height", "acme/prod=9"]);
    refusal(3, &["--height", "acme/none=0"]);
    refusal(2, &["--height", "acme/prod"]);
    refusal(2, &["--at", "yesterday"]);
    refusal(2, &["--at", "2026-11-21T10:57:47Z", "--index", "3"]);
    let other = path(&home, "other");
    start(&home, &other).stop();
    let strange = path(&home, "strange.key");
    home.json(&["ledger", "key", "export", "--data", &other, "-o", &strange]);
    refusal(2, &["--key", &strange]);
    serves_nothing(&home, &new);
    home.json(&["ledger", "backup", "restore", &folder, "--data", &new]);
    home.refusal(2, &["ledger", "backup", "create", "--to", &folder, "--data", &other]);
    for inside in ["data", "data/backup", "other/../data/snapshots/deep"] {
        let inside = path(&home, inside);
        let refused = home.refusal(2, &["ledger", "backup", "create", "--to", &inside, "--data", &data]);
        assert!(text(&refused, "message").contains("is in the data directory"), "{refused}");
    }
    assert!(!home.path("data/backup").exists());
    let mine = home.path("mine");
    std::fs::create_dir(&mine).expect("a directory");
    std::fs::write(mine.join("letter.txt"), "mine").expect("written");
    let to = mine.display().to_string();
    home.refusal(2, &["ledger", "backup", "create", "--to", &to, "--data", &other]);
}

#[test]
fn a_cold_copy_is_the_same_ledger_with_its_key_tokens_and_pins() {
    let home = Home::new();
    let (data, copy) = (path(&home, "data"), path(&home, "copy"));
    let server = start(&home, &data);
    let (vkey, token) = (text(&server.ready, "vkey").to_owned(), server.token());
    make_vault(&home);
    let first = put(&home, "door", "locked");
    home.json(&["ledger", "get", "acme/prod", "door", "--verify"]);
    server.stop();
    copy_tree(Path::new(&data), Path::new(&copy));
    std::fs::remove_dir_all(&data).expect("destroyed");
    let server = start(&home, &copy);
    assert_eq!((text(&server.ready, "vkey"), server.token()), (vkey.as_str(), token));
    // The pin of before holds.
    let verified = home.json(&["ledger", "get", "acme/prod", "door", "--verify"]);
    assert_eq!((&verified["verified"], &verified["trust"]), (&true.into(), &"pinned".into()));
    let next = put(&home, "door", "open");
    assert_eq!(next["height"].as_u64(), first["height"].as_u64().map(|height| height + 1));
    server.stop();
}

#[test]
fn an_old_copy_of_a_directory_is_found_out_by_those_who_saw_more() {
    let home = Home::new();
    let (data, old) = (path(&home, "data"), path(&home, "old"));
    let server = start(&home, &data);
    make_vault(&home);
    put(&home, "door", "one");
    server.stop();
    copy_tree(Path::new(&data), Path::new(&old));
    let server = start(&home, &data);
    put(&home, "door", "two");
    home.json(&["ledger", "get", "acme/prod", "door", "--verify"]);
    server.stop();
    let server = start(&home, &old);
    let behind = home.refusal(5, &["ledger", "get", "acme/prod", "door", "--verify"]);
    assert_eq!(text(&behind, "code"), "FORK");
    assert!(text(&behind, "message").contains("1 blocks are gone"), "{behind}");
    put(&home, "door", "another two");
    put(&home, "door", "another three");
    let forked = home.refusal(5, &["ledger", "get", "acme/prod", "door", "--verify"]);
    assert_eq!(text(&forked, "code"), "FORK");
    server.stop();
}

#[test]
fn the_newest_snapshot_copied_under_load_is_whole_and_starts_a_ledger_alone() {
    let home = Home::new();
    let (data, new) = (path(&home, "data"), path(&home, "new"));
    let server = start(&home, &data);
    let vkey = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    let lines: String =
        (0..2_000).map(|n| format!("{{\"op\":\"put\",\"key\":\"k{n}\",\"value\":\"{n}\"}}\n")).collect();
    let file = home.write("lines.jsonl", lines);
    let mut load = home.command(&["ledger", "import", "acme/prod", &file]).spawn().expect("it starts");
    let made = home.json(&["ledger", "snapshot", "create"]);
    let newest = eventually("a snapshot", || {
        let folder = std::fs::read_dir(home.path("data").join("snapshots")).ok()?;
        let names = folder.flatten().map(|entry| entry.path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "snap")).max()
    });
    let copy = path(&home, "copy.snap");
    std::fs::copy(&newest, &copy).expect("copied");
    assert!(load.wait().expect("it ends").success());
    server.stop();
    let key = path(&home, "ledger.key");
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &key]);
    let node_id = std::fs::read_to_string(home.path("data").join("node_id")).expect("readable");
    let verified = home.json(&["ledger", "snapshot", "verify", &copy, "--vkey", &vkey]);
    assert_eq!(verified["applied_index"], made["applied_index"]);
    home.json(&["ledger", "snapshot", "restore", &copy, "--data", &new, "--key", &key, "--vkey", &vkey]);
    let restored = std::fs::read_to_string(home.path("new").join("node_id")).expect("readable");
    assert_ne!(restored, node_id, "a node of its own");
    assert_eq!(home.run(&["ledger", "doctor", "--data", &new]).code, 0);
    let _ = std::fs::remove_dir_all(home.path("state").join("strongroom"));
    let server = start(&home, &new);
    put(&home, "door", "locked");
    server.stop();
}

#[test]
fn backups_under_load_hold_every_write_that_was_acknowledged_before() {
    let home = Home::new();
    let (data, folder) = (path(&home, "data"), path(&home, "backup"));
    let server = start(&home, &data);
    let vkey = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    let lines: String =
        (0..3_000).map(|n| format!("{{\"op\":\"put\",\"key\":\"k{n}\",\"value\":\"{n}\"}}\n")).collect();
    let file = home.write("lines.jsonl", lines);
    let mut load = home.command(&["ledger", "import", "acme/prod", &file]).spawn().expect("it starts");
    let mut notes = Vec::new();
    for number in 0..4 {
        put(&home, "marker", &format!("{number}"));
        let note = home.run(&["ledger", "checkpoint", "acme/prod"]).stdout;
        notes.push(home.write(&format!("{number}.checkpoint"), &note));
        create(&home, &folder);
    }
    assert!(load.wait().expect("it ends").success());
    create(&home, &folder);
    server.stop();
    let mut verify = vec!["ledger", "backup", "verify", folder.as_str(), "--vkey", vkey.as_str()];
    verify.extend(notes.iter().flat_map(|note| ["--checkpoint", note.as_str()]));
    let verified = home.json(&verify);
    assert_eq!(verified["checkpoints_extended"], 4);
    // Each marker after the first backup, which is the base, has a block of its own, however much of the load was in it.
    assert!(verified["blocks_replayed"].as_u64() >= Some(3), "{verified}");
    assert_eq!(verified["vaults"][0]["key_count"], 3_001);
}

#[test]
fn a_full_backup_after_a_rotation_begins_a_chain_of_the_new_key_and_the_old_key_is_warned_of() {
    let home = Home::new();
    let (data, folder) = (path(&home, "data"), path(&home, "backup"));
    let (old_key, new_key) = (path(&home, "old.key"), path(&home, "new.key"));
    let server = start(&home, &data);
    let old = text(&server.ready, "vkey").to_owned();
    make_vault(&home);
    put(&home, "door", "locked");
    create(&home, &folder);
    server.stop();
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &old_key]);
    home.json(&["ledger", "key", "rotate", "--data", &data]);
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &new_key]);
    let server = start(&home, &data);
    let new = text(&server.ready, "vkey").to_owned();
    let nothing = home.json(&["ledger", "backup", "create", "--to", &folder]);
    assert_eq!(nothing["added"], Value::Null, "nothing was written since");
    let full = ["ledger", "backup", "create", "--full", "--to", folder.as_str()];
    for files in [2, 3] {
        let added = home.json(&full);
        assert_eq!((&added["added"]["kind"], &added["files"]), (&"base".into(), &files.into()), "{added}");
    }
    let snapshot = home.json(&["ledger", "snapshot", "create"]);
    put(&home, "door", "open");
    assert_eq!(create(&home, &folder)["added"]["kind"], "increment");
    server.stop();
    let stopped = home.json(&[full.as_slice(), &["--data", &data]].concat());
    assert_eq!((&stopped["added"]["kind"], &stopped["files"]), (&"base".into(), &5.into()), "{stopped}");

    let verify = ["ledger", "backup", "verify", &folder, "--vkey", &new];
    assert_eq!(home.run(&verify).code, 5, "the first chain is of the old key");
    let verified = home.json(&[verify.as_slice(), &["--vkey", &old]].concat());
    assert_eq!(verified["files"], 5);
    // The new chain is of the new key alone, and the old private key is warned of.
    for (key, warns) in [(&new_key, false), (&old_key, true)] {
        let to = path(&home, &format!("backup-{warns}"));
        let restore = ["ledger", "backup", "restore", &folder, "--vkey", &new, "--data", &to, "--key", key];
        let said = home.run(&restore);
        assert_eq!((said.code, said.stderr.contains("WARNING: --key is not")), (0, warns), "{said:?}");
        let to = path(&home, &format!("snapshot-{warns}"));
        let file = text(&snapshot, "path");
        let restore = ["ledger", "snapshot", "restore", file, "--vkey", &new, "--data", &to, "--key", key];
        let said = home.run(&restore);
        assert_eq!((said.code, said.stderr.contains("WARNING: --key is not")), (0, warns), "{said:?}");
    }
}

#[test]
fn a_point_before_a_rotation_is_restored_with_the_key_that_clients_know_now() {
    let home = Home::new();
    let (data, folder) = (path(&home, "data"), path(&home, "backup"));
    let (old_key, new_key) = (path(&home, "old.key"), path(&home, "new.key"));
    let server = start(&home, &data);
    make_vault(&home);
    create(&home, &folder);
    put(&home, "door", "locked");
    assert_eq!(create(&home, &folder)["added"]["kind"], "increment");
    server.stop();
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &old_key]);
    home.json(&["ledger", "key", "rotate", "--data", &data]);
    home.json(&["ledger", "key", "export", "--data", &data, "-o", &new_key]);
    let server = start(&home, &data);
    put(&home, "door", "open");
    assert_eq!(create(&home, &folder)["added"]["kind"], "increment");
    server.stop();
    for point in [&["--height", "acme/prod=1"][..], &[]] {
        for (key, warns) in [(&new_key, false), (&old_key, true)] {
            let to = path(&home, &format!("point-{}-{warns}", point.len()));
            let restore = ["ledger", "backup", "restore", &folder, "--data", &to, "--key", key];
            let said = home.run(&[restore.as_slice(), point].concat());
            assert_eq!(
                (said.code, said.stderr.contains("WARNING: --key is not")),
                (0, warns),
                "{point:?}: {said:?}"
            );
        }
    }
}

#[test]
fn a_backup_without_one_of_its_files_says_what_can_still_be_restored() {
    let home = Home::new();
    let (data, folder) = (path(&home, "data"), path(&home, "backup"));
    let server = start(&home, &data);
    make_vault(&home);
    let mut added = Vec::new();
    for value in ["one", "two", "three", "four"] {
        put(&home, "door", value);
        added.push(create(&home, &folder)["added"].clone());
    }
    let list = ["ledger", "backup", "list", &folder];
    assert_eq!(home.run(&list).code, 0);
    let (reached, missing) = (&added[1], &added[2]);
    std::fs::remove_file(home.path("backup").join(text(missing, "file"))).expect("removed");

    let said = home.run(&[list.as_slice(), &["--json"]].concat());
    let listed: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(said.code, 5, "{said:?}");
    assert_eq!(listed["chains"][0]["through_index"], reached["through_index"], "{listed}");
    assert_eq!(listed["chains"][0]["broken_by"], missing["file"]);
    let shown = home.run(&list);
    assert!(shown.code == 5 && shown.stdout.contains("BROKEN: "), "{shown:?}");

    let new = path(&home, "new");
    let restore = ["ledger", "backup", "restore", &folder, "--data", &new];
    let number = |value: &Value| value["through_index"].as_u64().expect("an index").to_string();
    let last = number(&added[3]);
    let ends: [&[&str]; 3] = [&[], &["--index", &last], &["--height", "acme/prod=4"]];
    for point in ends {
        let refused = home.refusal(5, &[restore.as_slice(), point].concat());
        assert_eq!(text(&refused, "code"), "BACKUP_BROKEN");
        assert!(text(&refused, "message").contains(text(missing, "file")), "{refused}");
        assert!(text(&refused, "hint").contains(&format!("--index {}", number(reached))), "{refused}");
    }
    assert_eq!(home.refusal(5, &["ledger", "backup", "verify", &folder])["code"], "VERIFICATION_FAILED");
    let restored = home.json(&[restore.as_slice(), &["--index", &number(reached)]].concat());
    assert_eq!(
        (&restored["vaults"][0]["height"], &restored["vaults"][0]["blocks_left_out"]),
        (&2.into(), &2.into())
    );

    // What cannot be restored is not added to.
    put(&home, "door", "five");
    let next = create(&home, &folder);
    assert_eq!(next["added"]["kind"], "base", "{next}");
    assert!(text(&next, "why_base").contains(text(missing, "file")), "{next}");
    let newest = path(&home, "newest");
    home.json(&["ledger", "backup", "restore", &folder, "--data", &newest]);
    server.stop();
}
