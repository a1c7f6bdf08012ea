//! One connection's conversation: arguments in, a reply out, no input and output of its own.

use ratelimit_core::{AdHoc, AdHocPolicy, Nanos};

use super::commands::{self, COMMANDS, Information};
use super::reply::{Replies, Version};
use super::throttle::{self, Bucket, Throttle, ThrottleError};
use crate::access::Access;

/// Wrong tokens after which a connection is closed.
pub const AUTH_FAILURES_MAX: u32 = 10;
/// Bytes of an unknown command that its error repeats.
const NAME_BYTES_SHOWN: usize = 64;

/// Whether the connection goes on after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Continue,
    /// It is closed when the reply is sent.
    Close,
}

/// How decisions of a batch went, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Admitted.
    pub allowed: u64,
    /// Not admitted.
    pub denied: u64,
    /// Not understood.
    pub refused: u64,
    /// Without the token, or with a wrong one.
    pub without_token: u64,
}

/// What a connection has said about itself.
#[derive(Debug)]
pub struct Session<'s> {
    keys: &'s AdHoc,
    access: &'s Access,
    number: u64,
    version: Version,
    is_authenticated: bool,
    auth_failures: u32,
    /// The policy of the request before: clients ask with the same numbers again and again.
    policy: Option<(Bucket, AdHocPolicy)>,
    tally: Tally,
}

impl<'s> Session<'s> {
    /// A conversation that begins; `number` tells it from others.
    pub fn new(keys: &'s AdHoc, access: &'s Access, number: u64) -> Self {
        let is_authenticated = access.is_open();
        let tally = Tally::default();
        let version = Version::default();
        Self { keys, access, number, version, is_authenticated, auth_failures: 0, policy: None, tally }
    }

    /// What was decided since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Answers one request at the end of `output`. A request without arguments has no answer.
    pub fn answer(&mut self, arguments: &[&[u8]], now: Nanos, output: &mut Vec<u8>) -> Next {
        let Some((name, arguments)) = arguments.split_first() else { return Next::Continue };
        if self.is_authenticated && name.eq_ignore_ascii_case(b"CL.THROTTLE") {
            self.throttle(arguments, now, output);
            return Next::Continue;
        }
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let mut replies = Replies::new(output, self.version);
        if is("QUIT") {
            replies.simple("OK");
            return Next::Close;
        }
        if is("AUTH") {
            return self.auth(arguments, output);
        }
        if is("HELLO") {
            return self.hello(arguments, output);
        }
        if !self.is_authenticated {
            self.tally.without_token += 1;
            replies.error("NOAUTH Authentication required.");
            return Next::Continue;
        }
        if is("PING") {
            match arguments {
                [] => replies.simple("PONG"),
                [text] => replies.bulk(text),
                _ => replies.error("ERR wrong number of arguments for 'ping' command"),
            }
        } else if is("SELECT") {
            select(arguments, &mut replies);
        } else if is("CLIENT") {
            client(arguments, self.number, &mut replies);
        } else if is("COMMAND") {
            commands::command(arguments, &mut replies);
        } else if is("INFO") {
            let information =
                Information { uptime_s: now.0 / 1_000_000_000, overflowed: self.keys.overflowed() };
            replies.bulk(information.text().as_bytes());
        } else {
            self.tally.refused += 1;
            replies.error(&unknown(name));
        }
        Next::Continue
    }

    fn throttle(&mut self, arguments: &[&[u8]], now: Nanos, output: &mut Vec<u8>) {
        let decision = Throttle::read(arguments).and_then(|throttle| {
            let policy = self.policy(throttle.bucket)?;
            Ok(throttle.decide(self.keys, &policy, now))
        });
        let mut replies = Replies::new(output, self.version);
        match decision {
            Ok(decision) => {
                if decision.is_allowed() {
                    self.tally.allowed += 1;
                } else {
                    self.tally.denied += 1;
                }
                replies.array(5);
                throttle::reply(&decision).into_iter().for_each(|number| replies.integer(number));
            }
            Err(error) => {
                self.tally.refused += 1;
                replies.error(&error.to_string());
            }
        }
    }

    fn policy(&mut self, bucket: Bucket) -> Result<AdHocPolicy, ThrottleError> {
        match &self.policy {
            Some((same, policy)) if *same == bucket => Ok(*policy),
            _ => {
                let policy = bucket.policy()?;
                self.policy = Some((bucket, policy));
                Ok(policy)
            }
        }
    }

    fn auth(&mut self, arguments: &[&[u8]], output: &mut Vec<u8>) -> Next {
        let version = self.version;
        let (user, token) = match arguments {
            [token] => (&b"default"[..], *token),
            [user, token] => (*user, *token),
            _ => {
                Replies::new(output, version).error("ERR wrong number of arguments for 'auth' command");
                return Next::Continue;
            }
        };
        if self.access.is_open() {
            Replies::new(output, version).error("ERR AUTH called without any token configured: leave it out");
            return Next::Continue;
        }
        if !self.authenticate(user, token) {
            return self.wrong_token(output);
        }
        Replies::new(output, version).simple("OK");
        Next::Continue
    }

    fn authenticate(&mut self, user: &[u8], token: &[u8]) -> bool {
        let is_right = user == b"default" && self.access.may_check(Some(token));
        self.is_authenticated |= is_right;
        is_right
    }

    fn wrong_token(&mut self, output: &mut Vec<u8>) -> Next {
        self.tally.without_token += 1;
        self.auth_failures += 1;
        let text = "WRONGPASS the token is not right, or the user is not 'default'.";
        Replies::new(output, self.version).error(text);
        if self.auth_failures < AUTH_FAILURES_MAX { Next::Continue } else { Next::Close }
    }

    /// `HELLO [2|3 [AUTH user token] [SETNAME name]]`: all of it, or nothing.
    fn hello(&mut self, arguments: &[&[u8]], output: &mut Vec<u8>) -> Next {
        let (version, mut options) = match arguments.split_first() {
            None => (self.version, arguments),
            Some((&b"2", options)) => (Version::Resp2, options),
            Some((&b"3", options)) => (Version::Resp3, options),
            Some(_) => {
                Replies::new(output, self.version).error("NOPROTO unsupported protocol version: use 2 or 3");
                return Next::Continue;
            }
        };
        let mut credentials = None;
        while let Some((option, rest)) = options.split_first() {
            options = match rest {
                [user, token, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                    credentials = Some((*user, *token));
                    rest
                }
                [_, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => rest,
                _ => {
                    Replies::new(output, self.version)
                        .error("ERR Syntax error in HELLO: use AUTH or SETNAME");
                    return Next::Continue;
                }
            };
        }
        if let Some((user, token)) = credentials
            && !self.access.is_open()
            && !self.authenticate(user, token)
        {
            return self.wrong_token(output);
        }
        if !self.is_authenticated {
            self.tally.without_token += 1;
            Replies::new(output, self.version)
                .error("NOAUTH HELLO must be called with AUTH, or after it: HELLO 3 AUTH default <token>");
            return Next::Continue;
        }
        self.version = version;
        self.introduce(&mut Replies::new(output, version));
        Next::Continue
    }

    fn introduce(&self, replies: &mut Replies<'_>) {
        replies.map(7);
        let texts = [("server", "strongroom"), ("version", service_kit::BUILD.version)];
        for (name, text) in texts {
            replies.bulk(name.as_bytes());
            replies.bulk(text.as_bytes());
        }
        let version = if self.version == Version::Resp3 { 3 } else { 2 };
        for (name, number) in [("proto", version), ("id", i64::try_from(self.number).unwrap_or(i64::MAX))] {
            replies.bulk(name.as_bytes());
            replies.integer(number);
        }
        for (name, text) in [("mode", "standalone"), ("role", "master")] {
            replies.bulk(name.as_bytes());
            replies.bulk(text.as_bytes());
        }
        replies.bulk(b"modules");
        replies.array(0);
    }
}

fn select(arguments: &[&[u8]], replies: &mut Replies<'_>) {
    match arguments {
        [b"0"] => replies.simple("OK"),
        [_] => replies.error("ERR DB index is out of range: there is only 0"),
        _ => replies.error("ERR wrong number of arguments for 'select' command"),
    }
}

fn client(arguments: &[&[u8]], number: u64, replies: &mut Replies<'_>) {
    let is = |word: &[u8], wanted: &str| word.eq_ignore_ascii_case(wanted.as_bytes());
    match arguments {
        [sub, _, _] if is(sub, "SETINFO") => replies.simple("OK"),
        [sub, _] if is(sub, "SETNAME") => replies.simple("OK"),
        [sub] if is(sub, "GETNAME") => replies.null(),
        [sub] if is(sub, "ID") => replies.integer(i64::try_from(number).unwrap_or(i64::MAX)),
        _ => replies.error(
            "ERR unknown subcommand or arguments of CLIENT: there are SETINFO, SETNAME, GETNAME and ID",
        ),
    }
}

fn unknown(name: &[u8]) -> String {
    let shown = String::from_utf8_lossy(name.get(..NAME_BYTES_SHOWN).unwrap_or(name)).into_owned();
    let all: Vec<_> = COMMANDS.iter().map(|command| command.name.to_uppercase()).collect();
    format!("ERR unknown command '{shown}': there are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use ratelimit_core::{HashSecret, TableSize};

    use super::*;
    use crate::access::AccessToken;

    /// A wrong token was counted as a request that is not understood, and one that was not shown not at all: nobody saw guessing.
    #[test]
    fn what_is_refused_for_its_token_is_counted_as_that() {
        let keys = AdHoc::new(TableSize::for_keys(100), HashSecret([7; 16])).expect("memory");
        let check = AccessToken::new(service_kit::Secret::new("right".to_owned()));
        let access = Access { check: Some(check), admin: None };
        let mut session = Session::new(&keys, &access, 1);
        let mut told = |arguments: &[&[u8]]| {
            session.answer(arguments, Nanos(1), &mut Vec::new());
            let tally = session.take_tally();
            (tally.without_token, tally.refused)
        };
        assert_eq!(told(&[b"AUTH", b"wrong"]), (1, 0));
        assert_eq!(told(&[b"CL.THROTTLE", b"k", b"1", b"1", b"60"]), (1, 0));
        assert_eq!(told(&[b"HELLO", b"3"]), (1, 0));
        assert_eq!(told(&[b"HELLO", b"3", b"AUTH", b"default", b"wrong"]), (1, 0));
        assert_eq!(told(&[b"AUTH", b"right"]), (0, 0));
        assert_eq!(told(&[b"EVAL"]), (0, 1));
    }
}
