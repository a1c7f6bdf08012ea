//! The life of sessions and refresh tokens against a simple model: random sequences of requests, alone and two at once in
//! every order of their steps, with a clock, restarts, new keys and lost replies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use auth_core::Millis;
use auth_core::auth::{By, Ended, Touch};
use auth_core::ids::{SessionId, UserId};
use auth_core::records::SessionKind;
use auth_core::refusal::{Answer, RefusalReason};
use auth_core::sessions::SignIn;
use auth_core::settings::{AuthSettings, RefreshSettings};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::world::{Bug, DAY, HOUR, MINUTE, PASSKEY, SECOND, START, TestStore, engine, run, run_both};

const USERS: usize = 2;
const CAP: usize = 3;

/// What somebody does, before it is known to which token.
#[derive(Debug, Clone)]
enum Op {
    One(Act),
    /// Two at once, in this order of their steps.
    Both(Act, Act, u64),
    Clock(Duration),
    /// Another process with other keys, which knows the old ones.
    Restart,
}

/// Numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Act {
    SignIn(u8, SessionKind),
    Validate(u8, u8),
    Touch(u8),
    Reauthenticate(u8),
    Issue(u8),
    /// The family, and how many tokens back.
    Refresh(u8, u8),
    RevokeOne(u8),
    RevokeOthers(u8),
    RevokeAll(u8),
    SignOut(u8),
    RevokeRefresh(u8, u8),
}

#[derive(Debug, Clone)]
enum Call {
    SignIn(UserId, SessionKind),
    Validate(String),
    Touch(String),
    Reauthenticate(String),
    Issue(String),
    Refresh(String),
    RevokeOne(UserId, SessionId),
    RevokeOthers(String),
    RevokeAll(UserId),
    SignOut(String),
    RevokeRefresh(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    Session(SessionId, String),
    Token(String),
    Live,
    Refused,
    Reused,
    Touched(Touch),
    Ended(Ended),
    Count(usize),
    Done,
}

#[derive(Debug, Clone)]
struct Session {
    id: SessionId,
    user: usize,
    kind: SessionKind,
    /// The last one is valid.
    tokens: Vec<String>,
    opened: Millis,
    seen: Millis,
    ends: Millis,
    epoch: u64,
    ended: bool,
}

#[derive(Debug, Clone)]
struct Family {
    session: SessionId,
    tokens: Vec<String>,
    exchanged: Millis,
    ends: Millis,
    dead: bool,
}

/// What is so, as far as anybody who only sees replies can know.
#[derive(Debug, Clone)]
struct Model {
    users: Vec<(UserId, u64)>,
    sessions: Vec<Session>,
    families: Vec<Family>,
    settings: AuthSettings,
}

impl Model {
    fn lives(&self, session: &Session, now: Millis) -> bool {
        let idle = self.settings.sessions.timeouts(session.kind).idle;
        !session.ended
            && self.users[session.user].1 == session.epoch
            && now < session.ends
            && now < session.seen.after(idle)
    }

    fn by_token(&self, token: &str, now: Millis) -> Option<usize> {
        let is_it = |session: &Session| session.tokens.last().is_some_and(|last| last == token);
        self.sessions.iter().position(is_it).filter(|place| self.lives(&self.sessions[*place], now))
    }

    fn is_new(&self, token: &str) -> bool {
        let mut tokens =
            self.sessions.iter().map(|of| &of.tokens).chain(self.families.iter().map(|of| &of.tokens));
        !tokens.any(|tokens| tokens.iter().any(|known| known == token))
    }

    fn end(&mut self, place: usize) {
        self.sessions[place].ended = true;
        self.end_families(self.sessions[place].id);
    }

    fn end_families(&mut self, session: SessionId) {
        self.families
            .iter_mut()
            .filter(|family| family.session == session)
            .for_each(|family| family.dead = true);
    }

    fn use_session(&mut self, place: usize, now: Millis) -> bool {
        let idle = self.settings.sessions.timeouts(self.sessions[place].kind).idle;
        let is_due = now >= self.sessions[place].seen.after(idle / 10);
        if is_due {
            self.sessions[place].seen = now;
        }
        is_due
    }

    /// Whether the reply may come when the call takes effect now; and what is so afterwards.
    fn step(&mut self, call: &Call, reply: &Reply, now: Millis, is_race: bool) -> bool {
        match (call, reply) {
            (Call::SignIn(user, kind), Reply::Session(id, token)) => {
                self.sign_in(*user, *kind, *id, token, now)
            }
            (Call::Validate(token), Reply::Live) => self.by_token(token, now).is_some(),
            (
                Call::Validate(token)
                | Call::Touch(token)
                | Call::Reauthenticate(token)
                | Call::Issue(token)
                | Call::RevokeOthers(token),
                Reply::Refused,
            ) => self.by_token(token, now).is_none(),
            // It was valid when it was checked, and something came between.
            (Call::Touch(_), Reply::Touched(Touch::Lost)) => is_race,
            (Call::Touch(token), Reply::Touched(touch)) => self
                .by_token(token, now)
                .is_some_and(|place| self.use_session(place, now) == (*touch == Touch::Written)),
            (Call::Reauthenticate(old), Reply::Session(id, token)) => {
                let Some(place) = self.by_token(old, now).filter(|_| self.is_new(token)) else {
                    return false;
                };
                let absolute = self.settings.sessions.timeouts(self.sessions[place].kind).absolute;
                let session = &mut self.sessions[place];
                session.tokens.push(token.clone());
                (session.seen, session.ends) = (now, now.after(absolute));
                let is_same = session.id == *id;
                self.end_families(*id);
                is_same
            }
            (Call::Issue(of), Reply::Token(token)) => {
                let Some(place) = self.by_token(of, now).filter(|_| self.is_new(token)) else { return false };
                let session = self.sessions[place].id;
                self.end_families(session);
                let ends = now.after(self.settings.refresh.absolute);
                let tokens = vec![token.clone()];
                self.families.push(Family { session, tokens, exchanged: now, ends, dead: false });
                true
            }
            (Call::Refresh(token), reply) => self.refresh(token, reply, now),
            (Call::RevokeOne(_, id), Reply::Ended(ended)) => {
                let place = self.sessions.iter().position(|session| session.id == *id);
                self.ended(place, *ended, now)
            }
            (Call::SignOut(token), Reply::Ended(ended)) => {
                let place = self.sessions.iter().position(|session| session.tokens.last() == Some(token));
                self.ended(place, *ended, now)
            }
            (Call::RevokeRefresh(token), Reply::Ended(ended)) => {
                let family = self.families.iter().find(|family| family.tokens.contains(token));
                let family = family.filter(|family| !family.dead && now < family.ends);
                let session = family.map(|family| family.session);
                let place = self.sessions.iter().position(|of| Some(of.id) == session);
                self.ended(place, *ended, now)
            }
            (Call::RevokeOthers(token), Reply::Count(count)) => {
                let Some(kept) = self.by_token(token, now) else { return false };
                let user = self.sessions[kept].user;
                let others: Vec<usize> = (0..self.sessions.len())
                    .filter(|place| {
                        let session = &self.sessions[*place];
                        *place != kept && session.user == user && self.lives(session, now)
                    })
                    .collect();
                others.iter().for_each(|place| self.end(*place));
                others.len() == *count
            }
            (Call::RevokeAll(user), Reply::Done) => {
                let user = self.users.iter_mut().find(|(id, _)| id == user).expect("a user");
                user.1 += 1;
                true
            }
            _ => false,
        }
    }

    fn sign_in(&mut self, user: UserId, kind: SessionKind, id: SessionId, token: &str, now: Millis) -> bool {
        let user = self.users.iter().position(|(known, _)| *known == user).expect("a user");
        loop {
            let mine = (0..self.sessions.len()).filter(|place| {
                self.sessions[*place].user == user && self.lives(&self.sessions[*place], now)
            });
            let mine: Vec<usize> = mine.collect();
            if mine.len() < CAP {
                break;
            }
            let age = |place: &usize| {
                let session = &self.sessions[*place];
                (session.seen, session.opened, session.id)
            };
            self.end(mine.into_iter().min_by_key(age).expect("some"));
        }
        let ends = now.after(self.settings.sessions.timeouts(kind).absolute);
        let epoch = self.users[user].1;
        let is_new = self.is_new(token);
        let tokens = vec![token.to_owned()];
        self.sessions.push(Session {
            id,
            user,
            kind,
            tokens,
            opened: now,
            seen: now,
            ends,
            epoch,
            ended: false,
        });
        is_new
    }

    fn refresh(&mut self, token: &str, reply: &Reply, now: Millis) -> bool {
        let family = self.families.iter().position(|family| family.tokens.iter().any(|known| known == token));
        let family = family.filter(|place| !self.families[*place].dead && now < self.families[*place].ends);
        let live = family.and_then(|family| {
            let id = self.families[family].session;
            let place = self.sessions.iter().position(|session| session.id == id)?;
            self.lives(&self.sessions[place], now).then_some((family, place))
        });
        let Some((family, session)) = live else { return *reply == Reply::Refused };
        let tokens = &self.families[family].tokens;
        let back = tokens.iter().rev().position(|known| known == token).expect("of the family");
        let is_in_grace = now < self.families[family].exchanged.after(self.settings.refresh.grace);
        match (back, reply) {
            (0, Reply::Token(successor)) => {
                let is_new = self.is_new(successor);
                self.families[family].tokens.push(successor.clone());
                self.families[family].exchanged = now;
                self.use_session(session, now);
                is_new
            }
            (1, Reply::Token(successor)) if is_in_grace => tokens.last() == Some(successor),
            (0, _) => false,
            (1, _) if is_in_grace => false,
            (_, reply) => {
                self.end(session);
                *reply == Reply::Reused
            }
        }
    }

    /// Of a session that lives the end has to be told; of another one it does not matter.
    fn ended(&mut self, place: Option<usize>, ended: Ended, now: Millis) -> bool {
        let lives = place.is_some_and(|place| self.lives(&self.sessions[place], now));
        if lives && let Some(place) = place {
            self.end(place);
        }
        !lives || ended == Ended::Now
    }

    fn session(&self, choice: u8) -> Option<&Session> {
        // Often one of the last.
        let count = self.sessions.len();
        self.sessions.get(count.checked_sub(1 + usize::from(choice) % count.max(1))?)
    }

    fn call(&self, act: Act) -> Option<Call> {
        let user = |choice: u8| self.users[usize::from(choice) % USERS].0;
        let token = |choice| self.session(choice)?.tokens.last().cloned();
        let of_family = |choice: u8, back: u8| {
            let count = self.families.len();
            let family = self.families.get(count.checked_sub(1 + usize::from(choice) % count.max(1))?)?;
            let back = usize::from(back).min(family.tokens.len() - 1);
            family.tokens.get(family.tokens.len() - 1 - back).cloned()
        };
        Some(match act {
            Act::SignIn(choice, kind) => Call::SignIn(user(choice), kind),
            Act::Validate(choice, back) => {
                let tokens = &self.session(choice)?.tokens;
                let back = usize::from(back).min(tokens.len() - 1);
                Call::Validate(tokens[tokens.len() - 1 - back].clone())
            }
            Act::Touch(choice) => Call::Touch(token(choice)?),
            Act::Reauthenticate(choice) => Call::Reauthenticate(token(choice)?),
            Act::Issue(choice) => Call::Issue(token(choice)?),
            Act::Refresh(choice, back) => Call::Refresh(of_family(choice, back)?),
            Act::RevokeOne(choice) => {
                let session = self.session(choice)?;
                Call::RevokeOne(self.users[session.user].0, session.id)
            }
            Act::RevokeOthers(choice) => Call::RevokeOthers(token(choice)?),
            Act::RevokeAll(choice) => Call::RevokeAll(user(choice)),
            Act::SignOut(choice) => Call::SignOut(token(choice)?),
            Act::RevokeRefresh(choice, back) => Call::RevokeRefresh(of_family(choice, back)?),
        })
    }
}

type Engine = auth_core::Auth<TestStore>;

async fn send(auth: &Engine, call: &Call, now: Millis) -> Reply {
    match call {
        Call::SignIn(user, kind) => {
            let sign_in = SignIn { user: *user, kind: *kind, authentication: PASSKEY };
            answered(auth.open_session(&sign_in, now).await.expect("the store works"), |opened| {
                Reply::Session(opened.session, opened.token.expose().to_owned())
            })
        }
        Call::Validate(token) => {
            answered(auth.validate_session(token, now).await.expect("the store works"), |_| Reply::Live)
        }
        Call::Touch(token) => match auth.validate_session(token, now).await.expect("the store works") {
            Answer::Refused(_) => Reply::Refused,
            Answer::Granted(live) => Reply::Touched(auth.touch_session(&live, now).await.expect("works")),
        },
        Call::Reauthenticate(token) => {
            answered(auth.reauthenticate(token, &PASSKEY, now).await.expect("the store works"), |opened| {
                Reply::Session(opened.session, opened.token.expose().to_owned())
            })
        }
        Call::Issue(token) => {
            answered(auth.issue_refresh(token, now).await.expect("the store works"), |issued| {
                Reply::Token(issued.token.expose().to_owned())
            })
        }
        Call::Refresh(token) => {
            answered(auth.refresh(token, now).await.expect("the store works"), |refreshed| {
                Reply::Token(refreshed.token.expose().to_owned())
            })
        }
        Call::RevokeOne(user, session) => {
            Reply::Ended(auth.revoke_session(By::Operator(*user), *session, now).await.expect("works"))
        }
        Call::RevokeOthers(token) => {
            match auth.validate_session(token, now).await.expect("the store works") {
                Answer::Refused(_) => Reply::Refused,
                Answer::Granted(live) => {
                    answered(auth.revoke_other_sessions(&live, now).await.expect("works"), Reply::Count)
                }
            }
        }
        Call::RevokeAll(user) => {
            let all = auth.revoke_all_sessions(By::Operator(*user), now).await;
            answered(all.expect("the store works"), |_| Reply::Done)
        }
        Call::SignOut(token) => Reply::Ended(auth.sign_out(token, now).await.expect("the store works")),
        Call::RevokeRefresh(token) => {
            Reply::Ended(auth.revoke_refresh(token, now).await.expect("the store works"))
        }
    }
}

fn answered<T>(answer: Answer<T>, reply: impl FnOnce(T) -> Reply) -> Reply {
    match answer {
        Answer::Granted(granted) => reply(granted),
        Answer::Refused(refusal) if refusal.reason() == RefusalReason::Reused => Reply::Reused,
        Answer::Refused(_) => Reply::Refused,
    }
}

/// How often what a run is about has happened.
#[derive(Debug, Default)]
struct Seen {
    exchanged: usize,
    reused: usize,
    races: usize,
    refused: usize,
    restarts: usize,
}

/// Runs the sequence; `Err` says where the engine does what no order of the calls explains.
fn check(ops: &[Op], grace: Duration, bug: Bug, seen: &mut Seen) -> Result<(), String> {
    let mut settings =
        AuthSettings { refresh: RefreshSettings { grace, ..Default::default() }, ..Default::default() };
    settings.sessions.per_user_max = CAP;
    let store = std::sync::Arc::new(TestStore::new(bug).pausing().losing_replies(5));
    let mut auth = engine(&store, 1, 1, settings.clone());
    let mut now = START;
    let users = (0..USERS).map(|_| (run(auth.create_user(now)).expect("the store works"), 1)).collect();
    // Everything that may be so: after a race both orders may explain the replies.
    let mut models =
        vec![Model { users, sessions: Vec::new(), families: Vec::new(), settings: settings.clone() }];
    let mut restarts = 1;
    for op in ops {
        match op {
            Op::Clock(step) => now = now.after(*step),
            Op::Restart => {
                restarts += 1;
                seen.restarts += 1;
                auth = engine(&store, restarts, u32::try_from(restarts).expect("few"), settings.clone());
            }
            Op::One(act) => {
                let Some(call) = models[0].call(*act) else { continue };
                let reply = run(send(&auth, &call, now));
                count(&reply, &call, seen);
                models.retain_mut(|model| model.step(&call, &reply, now, false));
                if models.is_empty() {
                    return Err(format!("{call:?} at {now:?}: {reply:?}"));
                }
            }
            Op::Both(a, b, schedule) => {
                let (Some(a), Some(b)) = (models[0].call(*a), models[0].call(*b)) else { continue };
                let (for_a, for_b) = run_both(send(&auth, &a, now), send(&auth, &b, now), *schedule);
                seen.races += 1;
                count(&for_a, &a, seen);
                count(&for_b, &b, seen);
                let explain = |first: (&Call, &Reply), second: (&Call, &Reply)| {
                    let mut after = models.clone();
                    after.retain_mut(|model| {
                        model.step(first.0, first.1, now, true) && model.step(second.0, second.1, now, true)
                    });
                    after
                };
                let mut after = explain((&a, &for_a), (&b, &for_b));
                after.extend(explain((&b, &for_b), (&a, &for_a)));
                after.truncate(32);
                models = after;
                if models.is_empty() {
                    return Err(format!("at once {a:?}: {for_a:?} and {b:?}: {for_b:?}"));
                }
            }
        }
    }
    assert!(store.reads.load(Ordering::Relaxed) > 0);
    Ok(())
}

fn count(reply: &Reply, call: &Call, seen: &mut Seen) {
    match reply {
        Reply::Reused => seen.reused += 1,
        Reply::Refused => seen.refused += 1,
        Reply::Token(_) if matches!(call, Call::Refresh(_)) => seen.exchanged += 1,
        _ => {}
    }
}

fn any_kind() -> impl Strategy<Value = SessionKind> {
    proptest::sample::select(SessionKind::ALL)
}

fn any_act() -> impl Strategy<Value = Act> {
    let few = 0u8..4;
    prop_oneof![
        3 => (0u8..2, any_kind()).prop_map(|(user, kind)| Act::SignIn(user, kind)),
        3 => (few.clone(), prop_oneof![3 => Just(0u8), 1 => Just(1)]).prop_map(|(a, b)| Act::Validate(a, b)),
        2 => few.clone().prop_map(Act::Touch),
        1 => few.clone().prop_map(Act::Reauthenticate),
        3 => few.clone().prop_map(Act::Issue),
        8 => (0u8..3, prop_oneof![6 => Just(0u8), 3 => Just(1), 1 => Just(2)])
            .prop_map(|(a, b)| Act::Refresh(a, b)),
        1 => few.clone().prop_map(Act::RevokeOne),
        1 => few.clone().prop_map(Act::RevokeOthers),
        1 => (0u8..2).prop_map(Act::RevokeAll),
        1 => few.clone().prop_map(Act::SignOut),
        1 => (few, 0u8..3).prop_map(|(a, b)| Act::RevokeRefresh(a, b)),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let step = prop_oneof![
        6 => Just(Duration::from_millis(1)),
        6 => Just(SECOND * 4),
        6 => Just(SECOND * 10),
        6 => Just(MINUTE * 3),
        3 => Just(MINUTE * 29),
        1 => Just(HOUR * 6),
        1 => Just(DAY * 8),
    ];
    prop_oneof![
        12 => any_act().prop_map(Op::One),
        6 => (any_act(), any_act(), any::<u64>()).prop_map(|(a, b, schedule)| Op::Both(a, b, schedule)),
        4 => step.prop_map(Op::Clock),
        1 => Just(Op::Restart),
    ]
}

fn any_grace() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(SECOND * 10), Just(MINUTE * 5)]
}

fn runner(cases: u32, max_shrink_iters: u32) -> TestRunner {
    // The same cases in every run: what fails here fails again.
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn sessions_and_refresh_tokens_live_as_the_model_says_alone_and_at_once_over_restarts() {
    let seen = std::cell::RefCell::new(Seen::default());
    runner(320, 20_000)
        .run(&(vec(any_op(), 1..60), any_grace()), |(ops, grace)| {
            check(&ops, grace, Bug::None, &mut seen.borrow_mut()).map_err(TestCaseError::fail)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    // The rare ones have happened, and often.
    assert!(seen.exchanged > 200 && seen.reused > 15 && seen.races > 800, "{seen:?}");
    assert!(seen.refused > 500 && seen.restarts > 100, "{seen:?}");
}

#[test]
fn the_model_finds_a_store_that_checks_then_sets() {
    is_found(Bug::ChecksThenSets);
}

#[test]
fn the_model_finds_reuse_that_is_not_acted_on() {
    is_found(Bug::ForgetsReuse);
}

#[test]
fn the_model_finds_reuse_that_leaves_the_session_alive() {
    is_found(Bug::SplitsReuse);
}

#[test]
fn the_model_finds_an_end_of_all_that_is_not_written() {
    is_found(Bug::ForgetsEpochs);
}

fn is_found(bug: Bug) {
    let mut runner = runner(400, 0);
    let strategy = (vec(any_op(), 1..60), any_grace());
    let found = runner.run(&strategy, |(ops, grace)| {
        check(&ops, grace, bug, &mut Seen::default()).map_err(TestCaseError::fail)
    });
    assert!(found.is_err(), "no sequence shows {bug:?}");
}
