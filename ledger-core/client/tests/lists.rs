//! A client believes a list only when nothing is left out of it.

mod scripted;

use std::collections::{BTreeSet, HashMap};

use ledger_client::{ClientError, ErrorCode, Trust};
use ledger_core::list_snapshot::{ListPageLimits, ListSnapshot};
use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Resource, Subject};
use ledger_proto::v1;
use ledger_verify::hash::state_leaf;
use ledger_verify::header::{BlockHeader, HEADER_VERSION};
use ledger_verify::list::{KeyRange, ListLeaf, state_key_hash, successor};
use ledger_verify::log::inclusion_path;
use scripted::{Chain, Script, client, lock};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const RESOURCE: &str = "doc:plan";
const MEMBERS: usize = 10;

fn vault() -> VaultRef {
    "acme/prod".parse().expect("a valid name")
}

fn resource() -> Resource {
    Resource::new(RESOURCE).expect("a resource")
}

fn list_of(count: usize) -> ListSnapshot {
    let viewer = Relation::new("viewer").expect("a relation");
    let pairs: Vec<_> = (0..count)
        .map(|number| (viewer.clone(), Subject::new(&format!("user:{number}")).expect("a subject")))
        .collect();
    ListSnapshot::new(pairs.iter().map(|(relation, subject)| (relation, subject)))
}

/// The answers of a server with such a list in its newest block, at most so many members a page.
fn answers(script: &Script, list: &ListSnapshot, members_max: usize) -> Vec<v1::VerifiedListResponse> {
    let head = head(&lock(&script.chain), &list.leaf().expect("members"));
    let (mut range, mut answers) = (KeyRange::ALL, Vec::new());
    loop {
        let page = list.page(&range, ListPageLimits { members_max, bytes_max: 1 << 20 });
        let next = successor(&page.last_key);
        answers.push(v1::VerifiedListResponse {
            head: Some(head.clone()).filter(|_| answers.is_empty()),
            page: Some(v1::ListPage { last_key: page.last_key.to_vec().into(), nodes: page.nodes.into() }),
            next_page_token: next.map(|_| format!("page-{}", answers.len() + 1)).unwrap_or_default(),
            height: 1,
            log_time_ms: 1_800_000_000_000,
        });
        match next {
            Some(first) => range.first = first,
            None => return answers,
        }
    }
}

fn says(script: &Script, answers: impl IntoIterator<Item = Result<v1::VerifiedListResponse, Status>>) {
    let mut queue = lock(&script.list_answers);
    queue.clear();
    queue.extend(answers);
    lock(&script.lists_seen).clear();
}

fn with_list(script: &Script) -> ListSnapshot {
    let list = list_of(MEMBERS);
    // A block whose state is the one list.
    let leaf = list.leaf().expect("members");
    let mut chain = lock(&script.chain);
    chain.grow(b"");
    let header = chain.headers.last_mut().expect("a block");
    header.version = HEADER_VERSION;
    header.state_root = state_leaf(&state_key_hash(RESOURCE), &leaf.hash());
    drop(chain);
    list
}

/// The newest block with this leaf in its state.
fn head(chain: &Chain, leaf: &ListLeaf) -> v1::VerifiedReadResponse {
    let leaves: Vec<_> = chain.headers.iter().map(BlockHeader::leaf_hash).collect();
    let path = inclusion_path(&leaves, leaves.len() - 1).expect("the height exists");
    v1::VerifiedReadResponse {
        leaf: Some(leaf.encode().to_vec().into()),
        header: chain.headers[leaves.len() - 1].encode().to_vec().into(),
        inclusion: path.iter().map(|hash| hash.to_vec().into()).collect(),
        checkpoint: chain.checkpoint(),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_pages_of_a_list_are_collected_and_proved_as_one() {
    let script = Script::new();
    let client = client(&script).await;
    let list = with_list(&script);
    for members_max in [3, 100] {
        says(&script, answers(&script, &list, members_max).into_iter().map(Ok));
        let proved = client.verified_list(&vault(), &resource(), None).await.expect("a good list");
        let subjects: BTreeSet<_> = proved.claim.members.iter().map(|member| &member.subject).collect();
        assert_eq!((subjects.len(), proved.claim.resource_count), (MEMBERS, MEMBERS as u64));
        let document = ledger_verify::list::to_json(&proved.claim.subject, &proved.evidence);
        assert!(ledger_verify::list::from_json(document.as_bytes()).is_ok());
    }
    let tokens: Vec<_> = lock(&script.lists_seen).iter().map(|request| request.page_token.clone()).collect();
    assert_eq!(tokens, [""], "one page, one call");
    says(&script, answers(&script, &list, 100).into_iter().map(Ok));
    let again = client.verified_list(&vault(), &resource(), None).await.expect("a good list");
    assert_eq!(again.trust, Trust::Pinned);
}

#[tokio::test]
async fn a_list_that_ends_early_or_lacks_a_member_is_refused() {
    let script = Script::new();
    let client = client(&script).await;
    let list = with_list(&script);
    let good = answers(&script, &list, 3);
    let mut cut = good[..2].to_vec();
    cut[1].next_page_token.clear();
    let mut skipped = good.clone();
    skipped.remove(1);
    let mut fewer = answers(&script, &list_of(MEMBERS - 1), 100);
    fewer[0].head = good[0].head.clone();
    let mut without_page = answers(&script, &list, 100);
    without_page[0].page = None;
    for bad in [cut, skipped, fewer, without_page] {
        says(&script, bad.into_iter().map(Ok));
        let error =
            client.verified_list(&vault(), &resource(), None).await.expect_err("something is missing");
        assert_eq!(error.code(), ErrorCode::VerificationFailed, "{error}");
    }
    let mut without_proof = answers(&script, &list, 100);
    without_proof[0].head = None;
    says(&script, without_proof.into_iter().map(Ok));
    let error = client.verified_list(&vault(), &resource(), None).await.expect_err("no proof");
    assert!(matches!(error, ClientError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn a_list_that_changed_too_much_while_it_was_read_is_read_anew() {
    let script = Script::new();
    let client = client(&script).await;
    let list = with_list(&script);
    let gone = || {
        let mut details = ErrorDetails::new();
        details.set_error_info("HEIGHT_UNAVAILABLE", ledger_proto::ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(Code::OutOfRange, "the list is gone", details)
    };
    let good = answers(&script, &list, 5);
    let first = good[0].clone();
    says(&script, [Ok(first.clone()), Err(gone())].into_iter().chain(good.into_iter().map(Ok)));
    let proved = client.verified_list(&vault(), &resource(), None).await.expect("a good list");
    assert_eq!(proved.claim.members.len(), MEMBERS);
    // Not for ever.
    says(&script, (0..8).flat_map(|_| [Ok(first.clone()), Err(gone())]));
    let error = client.verified_list(&vault(), &resource(), None).await.expect_err("it changes all the time");
    assert_eq!(error.reason(), "HEIGHT_UNAVAILABLE");
}
