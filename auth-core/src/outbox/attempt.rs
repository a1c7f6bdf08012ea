use std::time::Duration;

use crate::ids::MailId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{DeadMail, DeathReason, Loaded, OutboxMail};
use crate::settings::OutboxSettings;

/// How sending failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFailure {
    /// It may go better later: no connection, a reply 4xx.
    Temporary,
    /// It never will: a reply 5xx.
    Permanent,
}

/// What becomes of a mail whose sending failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFate {
    /// It is due again then.
    Retried {
        /// When.
        at: Millis,
    },
    /// It was given up.
    Dead(DeathReason),
    /// It was claimed by somebody else meanwhile, or sent. Nothing was written.
    Lost,
}

/// Takes a mail that is due for whoever sends it. Until the claim ends nobody else gets it; then it is due again, so a sender that
/// stops in between loses nothing. The mail as claimed and its new place; `Err`: it has to be buried.
pub(crate) fn claim(
    tenant: Tenant,
    (id, row): (MailId, &Loaded<OutboxMail>),
    mail: &OutboxMail,
    settings: &OutboxSettings,
    now: Millis,
) -> Result<(Plan, Loaded<OutboxMail>, OutboxMail), DeathReason> {
    if now >= mail.ends_at {
        return Err(DeathReason::Expired);
    }
    if mail.attempts >= settings.attempts_max {
        return Err(DeathReason::Attempts);
    }
    let claimed = OutboxMail { attempts: mail.attempts.saturating_add(1), ..mail.clone() };
    let (plan, place) = moved(tenant, (id, row), &claimed, now.after(settings.claim));
    Ok((plan, place, claimed))
}

/// Tries a claimed mail again later, or gives it up.
pub(crate) fn failed(
    tenant: Tenant,
    (id, row): (MailId, &Loaded<OutboxMail>),
    mail: &OutboxMail,
    failure: MailFailure,
    settings: &OutboxSettings,
    now: Millis,
) -> (Plan, MailFate) {
    let at = now.after(delay(mail.attempts, settings));
    let death = match failure {
        MailFailure::Permanent => Some(DeathReason::Permanent),
        MailFailure::Temporary if mail.attempts >= settings.attempts_max => Some(DeathReason::Attempts),
        MailFailure::Temporary if at >= mail.ends_at => Some(DeathReason::Expired),
        MailFailure::Temporary => None,
    };
    match death {
        Some(reason) => (bury(tenant, (id, row), mail, reason, settings, now), MailFate::Dead(reason)),
        None => (moved(tenant, (id, row), mail, at).0, MailFate::Retried { at }),
    }
}

/// Gives a mail up: address and token are gone from the same commit on.
pub(crate) fn bury(
    tenant: Tenant,
    (id, row): (MailId, &Loaded<OutboxMail>),
    mail: &OutboxMail,
    reason: DeathReason,
    settings: &OutboxSettings,
    now: Millis,
) -> Plan {
    let OutboxMail { user, kind, made_at, attempts, .. } = *mail;
    let dead = DeadMail { user, kind, made_at, attempts, died_at: now, reason };
    let mut plan = Plan::default();
    plan.remove(row);
    let place = Loaded { key: DeadMail::key(tenant, id), found: None };
    plan.replace(&place, &dead, Some(now.after(settings.dead_kept)));
    plan
}

fn moved(
    tenant: Tenant,
    (id, row): (MailId, &Loaded<OutboxMail>),
    mail: &OutboxMail,
    due_at: Millis,
) -> (Plan, Loaded<OutboxMail>) {
    let mut plan = Plan::default();
    let place = Loaded { key: OutboxMail::key(tenant, due_at, id), found: None };
    if place.key == row.key {
        // A retry that is due when the claim ends: the row stays where it is.
        plan.replace(row, mail, None);
    } else {
        plan.remove(row);
        plan.replace(&place, mail, None);
    }
    (plan, place)
}

/// Twice as long after each attempt.
fn delay(attempts: u8, settings: &OutboxSettings) -> Duration {
    let doublings = u32::from(attempts.saturating_sub(1)).min(31);
    settings.retry_first.saturating_mul(1 << doublings).min(settings.retry_max)
}
