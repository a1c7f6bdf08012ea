use futures::future::join_all;
use ledger_core::ledger_state::RelationshipFilter;
use ledger_core::relationship::{Relation, Resource, Subject};
use ledger_core::transaction::{Action, Operation};
use ledger_node::{BATCH_KEYS_MAX, Consistency, ListRequest, ReadFailure};

use super::setting::{Home, create_vault, key, put, set, transaction, tuple, vault, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_readers_share_rounds() {
    const READERS: u64 = 500;
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    write(&ledger, put("key", "value")).await;
    let before = ledger.counters();
    let name = key("key");
    let at = vault();
    let reads = (0..READERS).map(|_| ledger.get(&at, &name, Consistency::Linearizable));
    for read in join_all(reads).await {
        assert!(read.unwrap().value.is_some());
    }
    let after = ledger.counters();
    assert_eq!(after.barrier_reads - before.barrier_reads, READERS);
    assert!(after.barrier_rounds - before.barrier_rounds < READERS / 2, "{after:?}");
    ledger.get(&vault(), &key("key"), Consistency::Eventual).await.unwrap();
    assert_eq!(ledger.counters().barrier_reads, after.barrier_reads, "an eventual read asks nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_sees_what_another_task_was_acknowledged() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let tasks = (0..8).map(|task| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for number in 0..50 {
                let name = format!("task-{task}");
                write(&ledger, put(&name, &number.to_string())).await;
                let read = ledger.get(&vault(), &key(&name), Consistency::Linearizable).await.unwrap();
                assert_eq!(read.value.unwrap().value, number.to_string().as_bytes());
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_read_is_bounded_in_keys_and_in_bytes() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let large = "x".repeat(1_000_000);
    for number in 0..6 {
        write(&ledger, put(&format!("k{number}"), &large)).await;
    }
    let keys: Vec<_> = ["k0", "missing", "k1", "k2", "k3", "k4", "k5"].into_iter().map(key).collect();
    let read = ledger.batch_get(&vault(), &keys, Consistency::Linearizable).await.unwrap().value;
    assert_eq!(read.entities.len(), 5, "the fifth value passes 4 MiB");
    assert_eq!(read.unread, [key("k5")]);
    let too_many = vec![key("k0"); BATCH_KEYS_MAX + 1];
    let refused = ledger.batch_get(&vault(), &too_many, Consistency::Eventual).await.unwrap_err();
    assert!(matches!(refused, ReadFailure::TooManyKeys { count: 1_001, max: 1_000 }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_are_paged_and_capped() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    for chunk in 0..3 {
        let operations = (0..500).map(|n| set(&format!("k{:05}", chunk * 500 + n), "v", None)).collect();
        write(&ledger, transaction(operations)).await;
    }
    let page = |page_size, token: &str| ListRequest { page_size, page_token: token.to_owned() };
    let listing =
        ledger.list_entities(&vault(), "k", page(1_000_000, ""), Consistency::Eventual).await.unwrap();
    assert_eq!(listing.value.items.len(), 1_000, "never more than 1,000 rows");
    let rest = page(0, &listing.value.next_page_token);
    let rest = ledger.list_entities(&vault(), "k", rest, Consistency::Eventual).await.unwrap().value;
    assert_eq!(rest.items.len(), 100, "0 asks for the default");
    assert_eq!(rest.items[0].0, key("k01000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relationships_are_listed_by_resource_and_by_subject() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let tuples = [
        tuple("doc:a", "viewer", "user:1"),
        tuple("doc:a", "viewer", "user:2"),
        tuple("doc:a", "editor", "user:1"),
        tuple("doc:b", "viewer", "user:1"),
    ];
    let create = |t: &ledger_core::relationship::Relationship| Operation {
        action: Action::CreateRelationship(t.clone()),
        condition: None,
    };
    write(&ledger, transaction(tuples.iter().map(create).collect())).await;
    let list = async |filter| {
        let request = ListRequest::default();
        ledger
            .list_relationships(&vault(), filter, request, Consistency::Linearizable)
            .await
            .unwrap()
            .value
            .items
    };
    let viewer = Some(Relation::new("viewer").unwrap());
    let resource = Resource::new("doc:a").unwrap();
    let by_resource =
        list(RelationshipFilter::ByResource { resource: resource.clone(), relation: None }).await;
    assert_eq!(by_resource.len(), 3);
    let by_relation = list(RelationshipFilter::ByResource { resource, relation: viewer.clone() }).await;
    assert_eq!(by_relation, tuples[..2]);
    let subject = Subject::new("user:1").unwrap();
    let by_subject = list(RelationshipFilter::BySubject { subject, relation: viewer }).await;
    assert_eq!(by_subject, [tuples[0].clone(), tuples[3].clone()]);
    let version = ledger.check(&vault(), &tuples[2], Consistency::Linearizable).await.unwrap().value;
    assert_eq!(version, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_vault_that_is_not_there_say_so() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let deleted = ledger.delete_vault(vault()).await.unwrap();
    for consistency in [Consistency::Linearizable, Consistency::Eventual] {
        let refused = ledger.get(&vault(), &key("k"), consistency).await.unwrap_err();
        assert!(matches!(refused, ReadFailure::VaultNotFound { .. }), "{refused}");
    }
    assert!(matches!(ledger.checkpoint(&vault(), 0).await, Err(ReadFailure::VaultNotFound { .. })));
    let again = ledger.create_vault(vault()).await.unwrap();
    assert_ne!(again.id, deleted.id, "an id is never used again");
}
