//! `strongroom ratelimit …`

pub mod check;
mod client;
mod connection;
pub mod reset;
pub mod rules;
pub mod serve;
pub mod top;

use serde_json::{Value, json};

/// An entry as it stands on the command line: `KEY=VALUE`.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: String,
}

impl std::str::FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("write KEY=VALUE, such as client_ip=203.0.113.9".to_owned()),
        }
    }
}

/// One descriptor, as the server reads it.
fn descriptors(entries: &[Entry]) -> Value {
    let entries: Vec<Value> =
        entries.iter().map(|entry| json!({ "key": entry.key, "value": entry.value })).collect();
    json!([{ "entries": entries }])
}
