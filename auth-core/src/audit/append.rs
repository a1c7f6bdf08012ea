use super::AuditEvent;
use crate::ids::UserId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::records::{Actor, AuditEntry, AuditHead, EndReason, Resource};

/// Chains of a tenant. With one, all sign-ins would wait for each other.
pub const AUDIT_SHARDS: u16 = 16;

/// In which chain everything about a user is.
pub fn shard_of(user: UserId) -> u16 {
    let [first, ..] = user.to_bytes();
    u16::from(first) % AUDIT_SHARDS
}

/// What a decision wants written down.
#[derive(Debug, Clone)]
pub(crate) struct AuditDraft {
    pub event: AuditEvent,
    pub actor: Actor,
    pub user: UserId,
    pub resource: Resource,
    pub reason: Option<EndReason>,
}

/// The drafts as the next entries of their chain, and the head behind them. All of them are about users of one shard.
pub(crate) fn append(
    tenant: Tenant,
    shard: u16,
    head: AuditHead,
    drafts: &[AuditDraft],
    now: Millis,
) -> (Vec<AuditEntry>, AuditHead) {
    let mut head = head;
    let mut entries = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let entry = AuditEntry {
            previous: head.hash,
            tenant,
            shard,
            sequence: head.count.saturating_add(1),
            at: now,
            event: draft.event,
            actor: draft.actor,
            user: draft.user,
            resource: draft.resource,
            reason: draft.reason,
        };
        head = AuditHead { count: entry.sequence, hash: entry.hash() };
        entries.push(entry);
    }
    (entries, head)
}
