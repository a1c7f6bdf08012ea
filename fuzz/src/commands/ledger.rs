//! The program's readers of files.

#[path = "../../../servers/strongroom/src/commands/ledger/import/chunks.rs"]
#[expect(dead_code, reason = "the sources of the program are compiled here for their decoders")]
pub mod chunks;
#[path = "../../../servers/strongroom/src/commands/ledger/transaction_file.rs"]
pub mod transaction_file;

use ledger_core::relationship::{Relation, Resource, Subject};

fn resource(text: &str) -> Result<Resource, String> {
    Resource::new(text).map_err(|error| error.to_string())
}

fn relation(text: &str) -> Result<Relation, String> {
    Relation::new(text).map_err(|error| error.to_string())
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::new(text).map_err(|error| error.to_string())
}
