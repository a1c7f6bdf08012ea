//! What `proof --list`, `list --verified` and `verify` say about a list that was proved.

use ledger_client::{Trust, VerifiedList};
use ledger_core::names::{LedgerId, VaultId, VaultRef};
use ledger_verify::list::{ListClaim, ListSubject, Member};
use serde_json::{Value, json};

use super::get::{extend, note_renamed, warning_field};
use crate::output::Output;
use crate::table;

/// Members that are shown to people; programs get all.
const MEMBERS_SHOWN_MAX: usize = 100;

/// What programs read about the list.
pub fn fields(claim: &ListClaim) -> Value {
    json!({
        "ledger_id": LedgerId(claim.ledger_id).to_string(),
        "vault_id": VaultId(claim.vault_id).to_string(),
        "list": { "resource": claim.subject.resource, "relation": claim.subject.relation },
        "complete": true,
        "count": claim.members.len(),
        "resource_count": claim.resource_count,
        "height": claim.height,
        "time_ms": claim.time_ms,
        "checkpoint_size": claim.checkpoint_size,
        "block_hash": hex::encode(claim.block_hash),
        "state_root": hex::encode(claim.state_root),
        "checkpoint_root": hex::encode(claim.checkpoint_root),
        "origin": claim.origin,
        "key_name": claim.key_name,
    })
}

/// The members for programs, in order.
pub fn members(claim: &ListClaim) -> Value {
    let member = |member: &Member| {
        json!({
            "resource": claim.subject.resource,
            "relation": member.relation,
            "subject": member.subject,
        })
    };
    claim.members.iter().map(member).collect()
}

/// On what the belief in a list rests, for programs.
pub fn trust_fields(vault: &VaultRef, list: &VerifiedList) -> Value {
    let mut fields = json!({ "verified": true, "trust": list.trust.as_str() });
    extend(&mut fields, warning_field(vault, list.formerly));
    fields
}

/// The same for people.
pub fn note_trust(output: Output, vault: &VaultRef, list: &VerifiedList) {
    let claim = &list.claim;
    note_renamed(output, vault, list.formerly);
    output.note(&format!(
        "verified: {} of {}, none left out, as of block {} of {} (trust: {})",
        counted(claim),
        shown(&claim.subject),
        claim.height,
        claim.checkpoint_size - 1,
        list.trust
    ));
    if list.trust == Trust::FirstUse {
        output.note(&format!("first use: pinned the key {}", list.verifier_key));
    }
}

/// `resource`, or `resource relation`, for people.
pub fn shown(subject: &ListSubject) -> String {
    match &subject.relation {
        Some(relation) => table::cell(&format!("{} {relation}", subject.resource)),
        None => table::cell(&subject.resource),
    }
}

/// What a list shows, for people.
pub fn render(claim: &ListClaim) -> String {
    let mut facts = vec![
        ("verified", "complete list".to_owned()),
        ("list", shown(&claim.subject)),
        ("members", counted(claim)),
    ];
    facts.extend([
        ("as of block", format!("{} at {}", claim.height, table::time(claim.time_ms))),
        ("vault", VaultId(claim.vault_id).to_string()),
        ("block hash", hex::encode(claim.block_hash)),
        ("state root", hex::encode(claim.state_root)),
        (
            "checkpoint",
            format!("size {}, root {}", claim.checkpoint_size, hex::encode(claim.checkpoint_root)),
        ),
        ("signed by", claim.key_name.clone()),
    ]);
    let mut text = table::facts(&facts);
    if !claim.members.is_empty() {
        let row = |member: &Member| vec![table::cell(&member.relation), table::cell(&member.subject)];
        let rows: Vec<_> = claim.members.iter().take(MEMBERS_SHOWN_MAX).map(row).collect();
        text = format!("{}\n\n{}", text.trim_end(), table::render(&["relation", "subject"], &rows));
    }
    let hidden = claim.members.len().saturating_sub(MEMBERS_SHOWN_MAX);
    if hidden > 0 {
        text = format!("{}\nand {hidden} more: --json prints all", text.trim_end());
    }
    text
}

fn counted(claim: &ListClaim) -> String {
    match claim.members.len() {
        1 => "1 relationship".to_owned(),
        count => format!("{count} relationships"),
    }
}
