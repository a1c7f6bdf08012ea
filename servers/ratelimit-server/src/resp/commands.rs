//! What clients ask besides the one command: who is there, and what it can do.

use super::reply::Replies;

/// A command as `COMMAND` describes it: name, arguments with the name (negative: at least), flags, first and last key.
#[derive(Debug, Clone, Copy)]
pub struct CommandFacts {
    /// Its name, in lower case.
    pub name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    first_key: i64,
}

const fn facts(name: &'static str, arity: i64, flags: &'static [&'static str]) -> CommandFacts {
    CommandFacts { name, arity, flags, first_key: 0 }
}

/// All that there are.
pub static COMMANDS: &[CommandFacts] = &[
    CommandFacts { name: "cl.throttle", arity: -5, flags: &["write", "fast"], first_key: 1 },
    facts("ping", -1, &["fast"]),
    facts("hello", -1, &["noscript", "loading", "stale", "fast", "no_auth"]),
    facts("auth", -2, &["noscript", "loading", "stale", "fast", "no_auth"]),
    facts("select", 2, &["loading", "stale", "fast"]),
    facts("client", -2, &["noscript", "loading", "stale"]),
    facts("command", -1, &["loading", "stale"]),
    facts("info", -1, &["loading", "stale"]),
    facts("quit", -1, &["noscript", "loading", "stale", "fast", "no_auth"]),
];

/// Answers `COMMAND`, with what stands behind it.
pub fn command(arguments: &[&[u8]], replies: &mut Replies<'_>) {
    let Some((sub, names)) = arguments.split_first() else {
        replies.array(COMMANDS.len());
        return COMMANDS.iter().for_each(|command| describe(command, replies));
    };
    let is = |name: &str| sub.eq_ignore_ascii_case(name.as_bytes());
    if is("COUNT") {
        replies.integer(COMMANDS.len() as i64);
    } else if is("INFO") {
        replies.array(names.len());
        for name in names {
            match COMMANDS.iter().find(|command| name.eq_ignore_ascii_case(command.name.as_bytes())) {
                Some(command) => describe(command, replies),
                None => replies.null(),
            }
        }
    } else if is("LIST") {
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|command| replies.bulk(command.name.as_bytes()));
    } else if is("DOCS") {
        replies.map(0);
    } else {
        replies.error("ERR unknown subcommand of COMMAND: use COUNT, DOCS, INFO or LIST");
    }
}

fn describe(command: &CommandFacts, replies: &mut Replies<'_>) {
    replies.array(6);
    replies.bulk(command.name.as_bytes());
    replies.integer(command.arity);
    replies.array(command.flags.len());
    command.flags.iter().for_each(|flag| replies.simple(flag));
    replies.integer(command.first_key);
    replies.integer(command.first_key);
    replies.integer(command.first_key);
}

/// What `INFO` tells.
#[derive(Debug, Clone, Copy)]
pub struct Information {
    /// Seconds since the server started.
    pub uptime_s: u64,
    /// Charges that found no slot.
    pub overflowed: u64,
}

impl Information {
    /// The text, in sections. `loading:0` is what clients wait for before they send more.
    pub fn text(&self) -> String {
        let build = service_kit::BUILD;
        format!(
            "# Server\r\nserver_name:strongroom\r\nstrongroom_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{}\r\n\
             \r\n# Persistence\r\nloading:0\r\n\r\n# Replication\r\nrole:master\r\n\
             \r\n# Keys\r\nkeys_overflowed:{}\r\n",
            build.version,
            std::process::id(),
            self.uptime_s,
            self.overflowed,
        )
    }
}
