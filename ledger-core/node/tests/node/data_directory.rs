use std::os::unix::fs::PermissionsExt;

use ledger_node::{DataDirectory, DirectoryError, Options, OptionsError};

#[test]
fn a_new_directory_is_private_and_keeps_its_identity() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let (node_id, key) = {
        let directory = DataDirectory::open(&path).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.clone()), 0o700);
        assert_eq!(mode(path.join("log.key")), 0o600);
        assert_eq!(
            std::fs::read_to_string(path.join("ledger.pid")).unwrap().trim(),
            std::process::id().to_string()
        );
        (directory.node_id(), directory.signing_key().verifier_key())
    };
    assert!(!path.join("ledger.pid").exists());
    let again = DataDirectory::open(&path).unwrap();
    assert_eq!((again.node_id(), again.signing_key().verifier_key()), (node_id, key));
    assert_eq!(again.signing_key().name(), format!("strongroom/{}", again.ledger_id()));
    let other = DataDirectory::open(parent.path().join("other")).unwrap();
    assert_ne!(other.node_id(), node_id);
    assert_ne!(other.ledger_id(), again.ledger_id());
}

#[test]
fn a_directory_that_is_in_use_names_the_process() {
    let parent = tempfile::tempdir().unwrap();
    let _held = DataDirectory::open(parent.path()).unwrap();
    let refused = DataDirectory::open(parent.path()).unwrap_err();
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = DataDirectory::open(&path).unwrap_err();
        assert!(matches!(refused, DirectoryError::NotADirectory { .. }), "{refused}");
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    drop(DataDirectory::open(parent.path()).unwrap());
    let key = parent.path().join("log.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = DataDirectory::open(parent.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::KeyPermissions { mode: 0o640, .. }), "{refused}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    DataDirectory::open(parent.path()).unwrap();
}

#[test]
fn a_newer_layout_a_missing_file_and_a_damaged_one_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    drop(DataDirectory::open(parent.path()).unwrap());
    let (format, node_id, key) =
        (parent.path().join("format"), parent.path().join("node_id"), parent.path().join("log.key"));
    let good = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, good.replace('2', "3")).unwrap();
    let refused = DataDirectory::open(parent.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::FormatNewer { found: 3, .. }), "{refused}");
    std::fs::write(&format, &good).unwrap();

    let id = std::fs::read_to_string(&node_id).unwrap();
    std::fs::write(&node_id, "zero").unwrap();
    assert!(matches!(DataDirectory::open(parent.path()), Err(DirectoryError::Damaged { .. })));
    std::fs::remove_file(&node_id).unwrap();
    assert!(matches!(DataDirectory::open(parent.path()), Err(DirectoryError::Missing { .. })));
    std::fs::write(&node_id, id).unwrap();

    let secret = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, &secret[..secret.len() - 8]).unwrap();
    let refused = DataDirectory::open(parent.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::Key { .. }), "{refused}");
    assert!(!format!("{refused:?}{refused}").contains(&secret[40..60]), "the secret stays out of errors");
    std::fs::write(&key, secret).unwrap();

    std::fs::write(parent.path().join("raft.db"), "").unwrap();
    std::fs::remove_file(&format).unwrap();
    assert!(matches!(DataDirectory::open(parent.path()), Err(DirectoryError::Missing { .. })));
}

#[test]
fn an_ephemeral_directory_is_gone_with_its_handle() {
    let directory = DataDirectory::ephemeral().unwrap();
    let path = directory.path().to_owned();
    assert!(path.join("log.key").exists());
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn options_that_cannot_work_are_refused_by_name() {
    Options::default().validate().unwrap();
    let too_low = Options { batch_size: 0, ..Options::default() };
    assert!(matches!(too_low.validate(), Err(OptionsError::TooLow { name: "batch_size", .. })));
    let too_low = Options { queue_bytes_max: 1_024, ..Options::default() };
    assert!(matches!(too_low.validate(), Err(OptionsError::TooLow { name: "queue_bytes_max", .. })));
    let overlay = Options { overlay_bytes_max: 1, ..Options::default() };
    assert!(matches!(overlay.validate(), Err(OptionsError::TooLow { name: "overlay_bytes_max", .. })));
    let gc = Options { gc_interval: std::time::Duration::from_secs(61), ..Options::default() };
    assert!(matches!(gc.validate(), Err(OptionsError::Interval { name: "gc_interval", .. })));
}
