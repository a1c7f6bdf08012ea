//! What a node's directory remembers of its cluster: identity, promise, key.

use std::path::Path;

use ledger_node::peers::{ClusterId, LedgerKey, MemberRecord, NodeName};
use ledger_node::{DataDirectory, DirectoryError, Formation, NodeDirectory, Promise, Provenance};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const OTHER: ClusterId = ClusterId([8; 16]);

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn open(path: &Path) -> NodeDirectory {
    NodeDirectory::open(path, None).unwrap()
}

fn record(directory: &NodeDirectory) -> MemberRecord {
    let peer_address = "127.0.0.1:50052".to_owned();
    MemberRecord { identity: directory.identity(), peer_address, client_url: String::new() }
}

fn promise_of(one: &NodeDirectory, other: &NodeDirectory) -> Promise {
    let mut members = vec![record(one), record(other)];
    members.sort_by_key(|member| member.identity.node_id);
    Promise { cluster: CLUSTER, members }
}

/// The key of some ledger.
fn foreign_key() -> LedgerKey {
    DataDirectory::ephemeral().unwrap().key()
}

#[test]
fn a_new_node_belongs_to_nothing_and_keeps_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let identity = {
        let directory = NodeDirectory::open(folder.path(), Some(name("alpha"))).unwrap();
        assert_eq!((directory.cluster_id(), directory.formation()), (None, &Formation::Unformed));
        assert!(!folder.path().join("log.key").exists());
        directory.identity()
    };
    assert_eq!(open(folder.path()).identity(), identity);
    assert_eq!(identity.name, name("alpha"));
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(elsewhere.path()).identity();
    assert_ne!((other.node_id, other.incarnation), (identity.node_id, identity.incarnation));
    assert_eq!(other.name, name(&format!("node-{:04x}", other.node_id & 0xffff)));
}

#[test]
fn a_promise_is_kept_over_restarts_and_given_to_one_cluster_at_a_time() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut directory = open(folder.path());
    let promise = promise_of(&directory, &open(elsewhere.path()));
    directory.promise(promise.clone()).unwrap();
    drop(directory);

    let mut directory = open(folder.path());
    assert_eq!(directory.formation(), &Formation::Promised(promise.clone()));
    let other = Promise { cluster: OTHER, ..promise };
    assert!(matches!(
        directory.promise(other.clone()),
        Err(DirectoryError::Promised { cluster: CLUSTER, .. })
    ));
    for refused in [
        directory.adopt(OTHER, &foreign_key()),
        directory.found_single(OTHER),
        directory.found(OTHER),
        directory.settle(OTHER, &foreign_key()),
    ] {
        assert!(matches!(refused, Err(DirectoryError::Promised { cluster: CLUSTER, .. })), "{refused:?}");
    }
    drop(directory);
    let refused = DataDirectory::open(folder.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::Promised { .. }), "{refused}");

    let mut directory = open(folder.path());
    directory.release().unwrap();
    directory.promise(other).unwrap();
}

#[test]
fn founder_and_member_have_one_key_and_stay_in_their_cluster() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut one, mut other) = (open(folder.path()), open(elsewhere.path()));
    let promise = promise_of(&one, &other);
    one.promise(promise.clone()).unwrap();
    other.promise(promise.clone()).unwrap();
    one.found(CLUSTER).unwrap();
    other.settle(CLUSTER, &one.key().unwrap()).unwrap();
    let settled = Formation::Settled { members: promise.members };
    for mut directory in [one, other] {
        let refused = directory.adopt(OTHER, &foreign_key());
        assert!(matches!(refused, Err(DirectoryError::Formed { cluster: Some(CLUSTER), .. })), "{refused:?}");
        let path = directory.path().to_owned();
        drop(directory);
        let directory = DataDirectory::open(&path).unwrap();
        assert_eq!((directory.cluster_id(), directory.formation()), (Some(CLUSTER), &settled));
    }
    let key = |path: &Path| std::fs::read(path.join("log.key")).unwrap();
    assert_eq!(key(folder.path()), key(elsewhere.path()));
}

#[test]
fn a_node_that_is_taken_in_adopts_key_and_cluster_but_never_another_ledgers_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = foreign_key();
    let mut directory = open(folder.path());
    directory.adopt(CLUSTER, &key).unwrap();
    directory.adopt(CLUSTER, &key).unwrap();
    drop(directory);
    let directory = DataDirectory::open(folder.path()).unwrap();
    assert_eq!((directory.cluster_id(), directory.formation()), (Some(CLUSTER), &Formation::Joined));
    assert_eq!(directory.key(), key);
    drop(directory);
    let refused = open(folder.path()).adopt(CLUSTER, &foreign_key());
    assert!(matches!(refused, Err(DirectoryError::OtherLedger { .. })), "{refused:?}");
}

#[test]
fn a_directory_from_before_clusters_becomes_one_of_its_own_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let key = DataDirectory::open(folder.path()).unwrap().key();
    std::fs::remove_file(folder.path().join("cluster")).unwrap();
    let directory = DataDirectory::open(folder.path()).unwrap();
    assert_eq!((directory.formation(), directory.key()), (&Formation::Single, key));
    assert!(directory.cluster_id().is_some());
    drop(directory);
    // Nobody served it: whoever opens it next may still take it into another cluster.
    assert_eq!(open(folder.path()).formation(), &Formation::Unformed);
}

#[test]
fn a_name_that_a_cluster_relies_on_does_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let reopen = |text: &str| NodeDirectory::open(folder.path(), Some(name(text)));
    reopen("alpha").unwrap();
    let mut directory = reopen("beta").unwrap();
    assert_eq!(directory.identity().name, name("beta"));
    directory.adopt(CLUSTER, &foreign_key()).unwrap();
    drop(directory);
    assert!(matches!(reopen("alpha"), Err(DirectoryError::OtherName { .. })));
    assert_eq!(open(folder.path()).identity().name, name("beta"));
}

#[test]
fn a_node_that_renounces_its_identity_is_another_one_without_a_ledger_also_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    directory.adopt(CLUSTER, &foreign_key()).unwrap();
    let before = directory.identity();
    std::fs::create_dir(folder.path().join("raft.wal")).unwrap();
    std::fs::write(folder.path().join("state.db"), "state").unwrap();
    directory.renounce_identity().unwrap();
    let assert_is_new = |directory: &NodeDirectory| {
        let identity = directory.identity();
        assert_ne!((identity.node_id, identity.incarnation), (before.node_id, before.incarnation));
        assert_eq!((&identity.name, directory.cluster_id()), (&before.name, None));
        assert!(!directory.holds_ledger() && directory.key().is_none());
    };
    assert_is_new(&directory);
    drop(directory);
    assert_is_new(&open(folder.path()));

    let mut directory = open(folder.path());
    directory.adopt(CLUSTER, &foreign_key()).unwrap();
    drop(directory);
    std::fs::write(folder.path().join("state.db"), "state").unwrap();
    // The crash came right after the marker was written.
    std::fs::write(folder.path().join("renouncing"), "").unwrap();
    assert_is_new(&open(folder.path()));
    assert!(!folder.path().join("renouncing").exists());
}

/// What `cp -r` does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_copy_is_told_from_the_original_until_its_node_is_another_one_or_leaves_its_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut directory = open(&at("original"));
    directory.adopt(CLUSTER, &foreign_key()).unwrap();
    let identity = directory.identity();
    drop(directory);
    for name in ["renounced", "forced", "taken"] {
        copy(&at("original"), &at(name));
        for _ in 0..2 {
            let copied = open(&at(name));
            assert_eq!((copied.provenance(), copied.identity()), (Provenance::Copy, identity.clone()));
        }
        assert_eq!(DataDirectory::open(at(name)).unwrap().provenance(), Provenance::Copy);
    }
    open(&at("renounced")).renounce_identity().unwrap();
    open(&at("forced")).found_anew(OTHER).unwrap();
    open(&at("taken")).take_as_original().unwrap();
    for name in ["original", "renounced", "forced", "taken"] {
        assert_eq!(open(&at(name)).provenance(), Provenance::Original, "{name}");
    }
    assert_ne!(open(&at("renounced")).identity(), identity);
}

#[test]
fn a_directory_that_moves_is_the_original_and_so_is_one_without_a_marker() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    drop(open(&here));
    std::fs::rename(&here, &there).unwrap();
    assert_eq!(open(&there).provenance(), Provenance::Original);
    std::fs::remove_file(there.join("origin")).unwrap();
    assert_eq!(open(&there).provenance(), Provenance::Original);
    copy(&there, &here);
    assert_eq!(open(&here).provenance(), Provenance::Copy, "it has a marker again");
    std::fs::write(there.join("origin"), [0xff]).unwrap();
    assert_eq!(open(&there).provenance(), Provenance::Copy, "what cannot be read says nothing good");
}

#[test]
fn an_old_copy_that_is_put_back_in_place_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let (data, old) = (folder.path().join("data"), folder.path().join("old"));
    drop(open(&data));
    copy(&data, &old);
    // The node goes on after the copy was made.
    assert_eq!(open(&data).provenance(), Provenance::Original);
    // Every file stays the file that it is, with the content of before.
    copy(&old, &data);
    assert_eq!(open(&data).provenance(), Provenance::Copy);
}
