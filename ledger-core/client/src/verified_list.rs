//! Lists that are proved complete.

use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Resource};
use ledger_proto::v1;
use ledger_verify::header::BlockHeader;
use ledger_verify::list::{self, ListClaim, ListEvidence, ListPage, ListSubject, NODES_BYTES_MAX, PAGES_MAX};
use ledger_verify::note::{SignedCheckpoint, VerifierKey};

use crate::client::LedgerClient;
use crate::error::{ClientError, ErrorCode};
use crate::pins::{PinId, PinOutcome};
use crate::read::reader;
use crate::retry::Repeatable;
use crate::verified::{Footing, ROUNDS_MAX, Trust, evidence_from, may_be_behind};
use crate::wire;

/// A list that was proved: these members and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedList {
    /// What was proved.
    pub claim: ListClaim,
    /// On what the belief rests.
    pub trust: Trust,
    /// The key that signed the checkpoint.
    pub verifier_key: VerifierKey,
    /// As in [`Verified::formerly`](crate::Verified::formerly).
    pub formerly: Option<PinId>,
    /// The proof itself: [`ledger_verify::list::to_json`] makes a document of it.
    pub evidence: ListEvidence,
}

/// What a round of asking led to.
enum Round {
    Proved(Box<VerifiedList>),
    /// The vault was replaced, its pin was moved by others, or the list changed too much: ask anew.
    Again,
}

impl LedgerClient {
    /// All relationships of a resource, or of a resource and a relation, proved to be all: one that was left out,
    /// added or changed by the server refuses the list. Collected over as many pages as it takes, all of one height.
    pub async fn verified_list(
        &self,
        vault: &VaultRef,
        resource: &Resource,
        relation: Option<&Relation>,
    ) -> Result<VerifiedList, ClientError> {
        let subject = ListSubject {
            resource: resource.as_str().to_owned(),
            relation: relation.map(|relation| relation.as_str().to_owned()),
        };
        for round in 1..=ROUNDS_MAX {
            let _turn = self.take_turn(round).await;
            let footing = self.footing(vault).await?;
            match self.prove_list(vault, &subject, &footing).await {
                Ok(Round::Proved(list)) => return Ok(*list),
                Ok(Round::Again) => {}
                Err(error) if height_is_gone(&error) && round < ROUNDS_MAX => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::PinContention { tries: ROUNDS_MAX })
    }

    async fn prove_list(
        &self,
        vault: &VaultRef,
        subject: &ListSubject,
        footing: &Footing,
    ) -> Result<Round, ClientError> {
        let mut answer = self.first_page(vault, subject, footing.trusted_size()).await?;
        self.inner.clock.learn(answer.log_time_ms);
        let head = answer.head.take().ok_or(ClientError::Answer { what: "a list without its proof" })?;
        let (head, consistency) = evidence_from(head)?;
        let header = BlockHeader::decode(&head.header).map_err(ledger_verify::ProofError::from)?;
        if (header.ledger_id, header.vault_id) != (footing.id.ledger.0, footing.id.vault.0) {
            self.forget_vault(vault);
            return Ok(Round::Again);
        }
        let pages = self.all_pages(vault, subject, answer).await?;
        let evidence = ListEvidence { head, pages };
        let claim = list::verify(subject, &evidence, &footing.keys)?;
        let note = &evidence.head.checkpoint;
        let key = SignedCheckpoint::parse(note)?.verify(&footing.keys)?.clone();
        if self.settle(footing, &key, note, &consistency).await? != PinOutcome::Stored {
            return Ok(Round::Again);
        }
        let formerly = self.name_vault(vault, footing).await?;
        let list = VerifiedList { claim, trust: footing.trust, verifier_key: key, formerly, evidence };
        Ok(Round::Proved(Box::new(list)))
    }

    /// The pages that begin with the first answer; no more of them than a list may have.
    async fn all_pages(
        &self,
        vault: &VaultRef,
        subject: &ListSubject,
        first: v1::VerifiedListResponse,
    ) -> Result<Vec<ListPage>, ClientError> {
        let mut pages: Vec<ListPage> = Vec::new();
        let mut bytes = 0;
        let mut answer = first;
        loop {
            if let Some(page) = answer.page {
                let last_key = wire::hash_from(&page.last_key, "the last key of a page")?;
                bytes += page.nodes.len();
                pages.push(ListPage { last_key, nodes: page.nodes.to_vec() });
            }
            if answer.next_page_token.is_empty() {
                return Ok(pages);
            }
            if bytes > NODES_BYTES_MAX || pages.len() >= PAGES_MAX {
                return Err(ClientError::Answer {
                    what: "the list goes on beyond the limit of what is proved",
                });
            }
            answer = self.ask_page(list_request(vault, subject, answer.next_page_token, 0)).await?;
        }
    }

    async fn first_page(
        &self,
        vault: &VaultRef,
        subject: &ListSubject,
        trusted_size: u64,
    ) -> Result<v1::VerifiedListResponse, ClientError> {
        let ask = |trusted_size| self.ask_page(list_request(vault, subject, String::new(), trusted_size));
        match ask(trusted_size).await {
            Err(error) if may_be_behind(&error, trusted_size) => ask(0).await,
            answer => answer,
        }
    }

    async fn ask_page(
        &self,
        request: v1::VerifiedListRequest,
    ) -> Result<v1::VerifiedListResponse, ClientError> {
        self.call(Repeatable::Always, request, |channel, request| async move {
            reader(channel).verified_list(request).await
        })
        .await
    }
}

fn list_request(
    vault: &VaultRef,
    subject: &ListSubject,
    page_token: String,
    trusted_size: u64,
) -> v1::VerifiedListRequest {
    v1::VerifiedListRequest {
        vault: wire::vault_ref(vault),
        resource: subject.resource.clone(),
        relation: subject.relation.clone().unwrap_or_default(),
        page_size: 0,
        page_token,
        trusted_size,
    }
}

/// The vault went on too far while the pages were read.
fn height_is_gone(error: &ClientError) -> bool {
    error.code() == ErrorCode::NotFound && error.reason() == "HEIGHT_UNAVAILABLE"
}
