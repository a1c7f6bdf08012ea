use std::time::Duration;

use crate::ids::SessionId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{EndReason, FamilyState, Loaded, RefreshFamily, Session, User};
use crate::sessions::{SessionRows, end_family, row_end as session_row_end};
use crate::settings::AuthSettings;
use crate::tokens::{RefreshToken, TokenHash};
use auth_credentials::opaque_token::Refresh;

/// How long a row stays behind the end of its family, so that the log can say why somebody was not let in.
const KEPT_BEHIND_THE_END: Duration = Duration::from_secs(86_400);

/// Until when the row of a family is kept: also a dead one until its tokens have ended of themselves.
pub(crate) fn row_end(family: &RefreshFamily) -> Millis {
    family.ends_at.after(KEPT_BEHIND_THE_END)
}

/// Begins a family for a session that was judged. One that it had is dead.
pub(crate) fn begin(
    tenant: Tenant,
    rows: &SessionRows,
    session: &Session,
    user: &Loaded<User>,
    (token, hash): (&RefreshToken, TokenHash<Refresh>),
    settings: &AuthSettings,
    now: Millis,
) -> Plan {
    let mut plan = Plan::default();
    let absent = Loaded { key: RefreshFamily::key(tenant, token.family()), found: None };
    let family = family_of(rows.id, session, hash, now, settings);
    plan.hold(user);
    plan.replace(&absent, &family, Some(row_end(&family)));
    let next = Session { family: Some(token.family()), ..session.clone() };
    plan.replace(&rows.session, &next, Some(session_row_end(&next, &settings.sessions)));
    if let Some(old) = &rows.family {
        end_family(&mut plan, old, EndReason::Replaced, now);
    }
    plan
}

fn family_of(
    id: SessionId,
    session: &Session,
    current: TokenHash<Refresh>,
    now: Millis,
    settings: &AuthSettings,
) -> RefreshFamily {
    RefreshFamily {
        session: id,
        user: session.user,
        state: FamilyState::Live,
        epoch: session.epoch,
        created_at: now,
        ends_at: now.after(settings.refresh.absolute),
        generation: 1,
        current,
        previous: None,
    }
}
