//! `strongroom ledger …`, a file each.

pub mod backup;
pub mod blocks;
pub mod check;
pub mod checkpoint;
pub mod cluster;
pub mod delete;
pub mod doctor;
pub mod export;
pub mod gc;
pub mod get;
pub mod history;
pub mod import;
pub mod integrity;
pub mod key;
pub mod list;
pub mod namespace;
pub mod proof;
pub mod put;
pub mod recover;
pub mod relate;
pub mod serve;
pub mod snapshot;
pub mod token;
pub mod txn;
pub mod vault;
pub mod vkey;
pub mod watch;

mod condition;
pub mod proven_list;
mod restore_directory;
mod submit;
mod transaction_file;

use ledger_core::entity::EntityKey;
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};

/// An entity key on the command line.
fn entity_key(text: &str) -> Result<EntityKey, String> {
    EntityKey::new(text).map_err(|error| error.to_string())
}

fn resource(text: &str) -> Result<Resource, String> {
    Resource::new(text).map_err(|error| error.to_string())
}

fn relation(text: &str) -> Result<Relation, String> {
    Relation::new(text).map_err(|error| error.to_string())
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::new(text).map_err(|error| error.to_string())
}

/// A relationship on the command line: three words.
#[derive(Debug, Clone, clap::Args)]
pub struct Tuple {
    /// The resource, `type:id`.
    #[arg(value_parser = resource)]
    pub resource: Resource,
    /// The relation.
    #[arg(value_parser = relation)]
    pub relation: Relation,
    /// The subject, `type:id` or `type:id#relation`.
    #[arg(value_parser = subject)]
    pub subject: Subject,
}

impl From<Tuple> for Relationship {
    fn from(tuple: Tuple) -> Self {
        Self { resource: tuple.resource, relation: tuple.relation, subject: tuple.subject }
    }
}

/// A relationship for people.
fn shown(tuple: &Relationship) -> String {
    format!("{} {} {}", tuple.resource, tuple.relation, tuple.subject)
}
