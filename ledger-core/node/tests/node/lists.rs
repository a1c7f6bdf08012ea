use ledger_core::ledger_state::LIST_BLOCKS_MAX;
use ledger_core::page_token::PageTokenError;
use ledger_core::relationship::{Relation, Resource};
use ledger_core::transaction::{Action, Operation};
use ledger_node::{Ledger, ListRequest, ReadFailure, VerifiedListPage, VerifiedListQuery};
use ledger_verify::list::{self, ListClaim, ListEvidence, ListSubject};

use super::setting::{Home, create_vault, put, transaction, tuple, vault, write};

const MEMBERS: usize = 2_500;

fn query(resource: &str, relation: Option<&str>) -> VerifiedListQuery {
    VerifiedListQuery {
        resource: Resource::new(resource).unwrap(),
        relation: relation.map(|relation| Relation::new(relation).unwrap()),
    }
}

fn related(range: std::ops::Range<usize>, relation: &str) -> Vec<Operation> {
    let operation = |number: usize| Operation {
        action: Action::CreateRelationship(tuple("pkg:libc6", relation, &format!("pkg:{number:05}"))),
        condition: None,
    };
    range.map(operation).collect()
}

async fn relate_all(ledger: &Ledger) {
    for start in (0..MEMBERS).step_by(500) {
        write(ledger, transaction(related(start..start + 500, "required_by"))).await;
    }
    write(ledger, transaction(related(0..10, "suggested_by"))).await;
}

async fn page(ledger: &Ledger, query: &VerifiedListQuery, size: u32, token: &str) -> VerifiedListPage {
    let request = ListRequest { page_size: size, page_token: token.to_owned() };
    ledger.verified_list(&vault(), query, &request, 0).await.unwrap()
}

fn claim(ledger: &Ledger, query: &VerifiedListQuery, answers: Vec<VerifiedListPage>) -> ListClaim {
    let subject = ListSubject {
        resource: query.resource.as_str().to_owned(),
        relation: query.relation.as_ref().map(|relation| relation.as_str().to_owned()),
    };
    let head = answers[0].head.clone().unwrap().evidence;
    let pages = answers.into_iter().filter_map(|answer| answer.page).collect();
    let claim = list::verify(&subject, &ListEvidence { head, pages }, &[ledger.verifier_key()]).unwrap();
    assert_eq!(claim.ledger_id, ledger.ledger_id().0);
    claim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_proved_complete_in_one_page_by_relation_and_when_it_is_empty() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    let empty = query("pkg:libc6", None);
    let nothing = page(&ledger, &empty, 0, "").await;
    assert_eq!((&nothing.page, nothing.next_page_token.as_str()), (&None, ""));
    assert_eq!(claim(&ledger, &empty, vec![nothing]).members, vec![]);

    relate_all(&ledger).await;
    for (relation, count) in [(None, MEMBERS + 10), (Some("required_by"), MEMBERS), (Some("none"), 0)] {
        let query = query("pkg:libc6", relation);
        let answer = page(&ledger, &query, 0, "").await;
        assert_eq!(answer.next_page_token, "", "2,510 short members fit one page");
        let claim = claim(&ledger, &query, vec![answer]);
        assert_eq!((claim.members.len(), claim.resource_count), (count, MEMBERS as u64 + 10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_at_the_height_of_the_first_while_the_vault_goes_on_and_after_a_restart() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    relate_all(&ledger).await;
    let query = query("pkg:libc6", None);
    let mut answers = vec![page(&ledger, &query, 300, "").await];
    let height = answers[0].height;
    // The list changes: the snapshot of the first page is kept.
    write(&ledger, transaction(related(9_000..9_100, "required_by"))).await;
    let token = answers[0].next_page_token.clone();
    answers.push(page(&ledger, &query, 300, &token).await);
    // A restart keeps none: the list is made again as it was.
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = home.open().await;
    let delete = Operation {
        action: Action::DeleteRelationship(tuple("pkg:libc6", "required_by", "pkg:00007")),
        condition: None,
    };
    write(&ledger, transaction(vec![delete])).await;
    while let token = answers.last().unwrap().next_page_token.clone()
        && !token.is_empty()
    {
        answers.push(page(&ledger, &query, 300, &token).await);
    }
    assert!(answers.iter().all(|answer| answer.height == height));
    assert_eq!((answers.len(), answers.iter().filter(|answer| answer.head.is_some()).count()), (9, 1));
    let claim_of_all = claim(&ledger, &query, answers);
    assert_eq!((claim_of_all.members.len(), claim_of_all.height), (MEMBERS + 10, height));
    let now = claim(&ledger, &query, vec![page(&ledger, &query, 0, "").await]);
    assert_eq!(now.members.len(), MEMBERS + 10 + 100 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_belongs_to_its_list_and_ends_when_the_vault_is_far_ahead() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    relate_all(&ledger).await;
    let asked = query("pkg:libc6", None);
    let first = page(&ledger, &asked, 10, "").await;
    let request = ListRequest { page_size: 10, page_token: first.next_page_token.clone() };
    for other in [query("pkg:libc6", Some("required_by")), query("pkg:other", None)] {
        let refused = ledger.verified_list(&vault(), &other, &request, 0).await;
        assert!(matches!(refused, Err(ReadFailure::PageToken(PageTokenError::WrongQuery))), "{refused:?}");
    }
    for number in 0..=LIST_BLOCKS_MAX {
        write(&ledger, put("counter", &number.to_string())).await;
    }
    ledger.verified_list(&vault(), &asked, &request, 0).await.unwrap();
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = home.open().await;
    let refused = ledger.verified_list(&vault(), &asked, &request, 0).await;
    assert!(matches!(refused, Err(ReadFailure::ListHeightGone { .. })), "{refused:?}");
    let refused = ledger.verified_list(&vault(), &asked, &ListRequest::default(), u64::MAX).await;
    assert!(matches!(refused, Err(ReadFailure::TrustedSizeAhead { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_list_that_changes_all_the_time_get_whole_lists() {
    let home = Home::new();
    let ledger = home.open().await;
    create_vault(&ledger).await;
    relate_all(&ledger).await;
    let writer = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for number in 10_000..10_200 {
                write(&ledger, transaction(related(number..number + 1, "required_by"))).await;
            }
        }
    });
    let query = query("pkg:libc6", None);
    let mut rounds = 0;
    while rounds < 3 || !writer.is_finished() {
        let mut answers = vec![page(&ledger, &query, 1_000, "").await];
        while let token = answers.last().unwrap().next_page_token.clone()
            && !token.is_empty()
        {
            answers.push(page(&ledger, &query, 1_000, &token).await);
        }
        let height = answers[0].height;
        let claim = claim(&ledger, &query, answers);
        let later = height.saturating_sub(6) as usize;
        assert_eq!(claim.members.len(), MEMBERS + 10 + later, "one relationship a block");
        rounds += 1;
    }
    writer.await.unwrap();
}
