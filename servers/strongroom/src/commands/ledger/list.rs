//! `strongroom ledger list`

use clap::{ArgGroup, Args};
use ledger_client::{Consistency, LedgerClient, Listing, PageRequest, Read, RelationshipFilter};
use ledger_core::entity::{Entity, EntityKey};
use ledger_core::names::VaultRef;
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_verify::list::Member;
use serde_json::json;

use super::get::extend;
use super::proven_list;
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// Rows on one page of the protocol.
const PAGE_ROWS_MAX: usize = 1_000;

/// List entities, or relationships by resource or by subject. Lists are not verified; with --verified the relationships
/// of a resource are, and that none is left out.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("by").multiple(false),
    group = ArgGroup::new("how_many").multiple(false),
    after_help = "Examples:\n  \
        strongroom ledger list acme/prod --prefix door:\n  \
        strongroom ledger list acme/prod --resource doc:plan --relation viewer\n  \
        strongroom ledger list acme/prod --resource doc:plan --verified\n  \
        strongroom ledger list acme/prod --subject user:ada --all --json"
)]
pub struct List {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// Entities whose keys start with this. Without any of the three: all entities.
    #[arg(long, group = "by", value_name = "TEXT")]
    prefix: Option<String>,
    /// Relationships of this resource.
    #[arg(long, group = "by", value_name = "RESOURCE", value_parser = super::resource)]
    resource: Option<Resource>,
    /// Relationships of this subject.
    #[arg(long, group = "by", value_name = "SUBJECT", value_parser = super::subject)]
    subject: Option<Subject>,
    /// Only this relation.
    #[arg(long, value_name = "RELATION", value_parser = super::relation, conflicts_with = "prefix")]
    relation: Option<Relation>,
    /// Most rows to list.
    #[arg(long, group = "how_many", default_value_t = 100, value_name = "N")]
    limit: usize,
    /// List every row.
    #[arg(long, group = "how_many")]
    all: bool,
    /// Read what the node has, without asking whether it is the newest.
    #[arg(long)]
    eventual: bool,
    /// Believe nothing that is not proved: all relationships of --resource, shown to be all.
    #[arg(
        long,
        requires = "resource",
        conflicts_with_all = ["prefix", "subject", "eventual", "limit"]
    )]
    verified: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl List {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        if !self.verified && !self.trust.verifier_keys.is_empty() {
            return Err(Failure::usage("--vkey is for --verified: other lists are not verified"));
        }
        if let (true, Some(resource)) = (self.verified, &self.resource) {
            return self.verified(resource, output).await;
        }
        let client = self.server.client()?;
        match self.filter()? {
            None => self.entities(&client, output).await,
            Some(filter) => self.relationships(&client, &filter, output).await,
        }
    }

    async fn verified(&self, resource: &Resource, output: Output) -> Result<(), Failure> {
        let client = self.server.trusting_client(&self.trust)?;
        let list = client.verified_list(&self.vault, resource, self.relation.as_ref()).await?;
        proven_list::note_trust(output, &self.vault, &list);
        let mut document = proven_list::fields(&list.claim);
        extend(&mut document, proven_list::trust_fields(&self.vault, &list));
        extend(&mut document, json!({ "relationships": proven_list::members(&list.claim), "more": false }));
        output.result(&document, || {
            let rows: Vec<_> = list.claim.members.iter().map(|member| member_row(resource, member)).collect();
            table::render(&["resource", "relation", "subject"], &rows)
        })
    }

    fn filter(&self) -> Result<Option<RelationshipFilter>, Failure> {
        let relation = self.relation.clone();
        match (&self.resource, &self.subject) {
            (Some(resource), _) => {
                Ok(Some(RelationshipFilter::ByResource { resource: resource.clone(), relation }))
            }
            (_, Some(subject)) => {
                Ok(Some(RelationshipFilter::BySubject { subject: subject.clone(), relation }))
            }
            _ if relation.is_some() => {
                Err(Failure::usage("--relation narrows --resource or --subject: give one of them"))
            }
            _ => Ok(None),
        }
    }

    fn consistency(&self) -> Consistency {
        if self.eventual { Consistency::Eventual } else { Consistency::Linearizable }
    }

    fn rows_max(&self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }

    async fn entities(&self, client: &LedgerClient, output: Output) -> Result<(), Failure> {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let listed = collect(self.rows_max(), async |page| {
            client.list_entities(&self.vault, prefix, &page, self.consistency()).await
        })
        .await?;
        let rows: Vec<_> = listed.rows.iter().map(|(key, entity)| record::entity(key, entity)).collect();
        let document =
            json!({ "entities": rows, "count": rows.len(), "more": listed.more, "height": listed.height });
        output.result(&document, || {
            table::render(&["key", "value", "version", "expires"], &entity_rows(&listed.rows))
        })?;
        note_more(output, listed.more, listed.rows.len());
        Ok(())
    }

    async fn relationships(
        &self,
        client: &LedgerClient,
        filter: &RelationshipFilter,
        output: Output,
    ) -> Result<(), Failure> {
        let listed = collect(self.rows_max(), async |page| {
            client.list_relationships(&self.vault, filter, &page, self.consistency()).await
        })
        .await?;
        let rows: Vec<_> = listed.rows.iter().map(record::relationship).collect();
        let document = json!({ "relationships": rows, "count": rows.len(), "more": listed.more, "height": listed.height });
        output.result(&document, || {
            table::render(&["resource", "relation", "subject"], &tuple_rows(&listed.rows))
        })?;
        note_more(output, listed.more, listed.rows.len());
        Ok(())
    }
}

struct Listed<T> {
    rows: Vec<T>,
    /// Whether there is at least one more.
    more: bool,
    height: u64,
}

async fn collect<T>(
    rows_max: usize,
    page_of: impl AsyncFn(PageRequest) -> Result<Read<Listing<T>>, ledger_client::ClientError>,
) -> Result<Listed<T>, Failure> {
    let mut listed = Listed { rows: Vec::new(), more: false, height: 0 };
    let mut page_token = String::new();
    loop {
        // One row more than wanted tells whether there are more.
        let wanted = rows_max.saturating_sub(listed.rows.len()).saturating_add(1).min(PAGE_ROWS_MAX);
        let page = PageRequest { page_size: u32::try_from(wanted).unwrap_or(u32::MAX), page_token };
        let answer = page_of(page).await?;
        listed.height = answer.height;
        listed.rows.extend(answer.value.items);
        page_token = answer.value.next_page_token;
        if listed.rows.len() > rows_max || page_token.is_empty() {
            listed.more = listed.rows.len() > rows_max;
            listed.rows.truncate(rows_max);
            return Ok(listed);
        }
    }
}

fn entity_rows(entities: &[(EntityKey, Entity)]) -> Vec<Vec<String>> {
    let row = |(key, entity): &(EntityKey, Entity)| {
        let value = table::value_cell(&entity.value);
        vec![table::cell(key.as_str()), value, entity.version.to_string(), table::time(entity.expires_at_ms)]
    };
    entities.iter().map(row).collect()
}

fn tuple_rows(tuples: &[Relationship]) -> Vec<Vec<String>> {
    let row = |tuple: &Relationship| {
        vec![tuple.resource.to_string(), tuple.relation.to_string(), tuple.subject.to_string()]
    };
    tuples.iter().map(row).collect()
}

fn member_row(resource: &Resource, member: &Member) -> Vec<String> {
    vec![resource.to_string(), table::cell(&member.relation), table::cell(&member.subject)]
}

fn note_more(output: Output, more: bool, count: usize) {
    if more {
        output.note(&format!("{count} shown, there are more: use --limit N or --all"));
    }
}
