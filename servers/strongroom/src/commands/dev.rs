//! `strongroom dev`

mod cluster;
mod dev_file;
mod node_process;
mod plan;

use std::io::Write as _;

use clap::{Args, ValueEnum};
use ledger_server::settings::LedgerSettings;
use ratelimit_server::rule_files::{BuiltIn, PRESETS, RuleFiles};
use service_kit::ReadyLine;
use service_kit::configuration::{Resolved, Source};
use service_kit::logs::{LogFormat, LogTarget};

use self::cluster::{Restart, Wanted};
use self::dev_file::DevFileGuard;
use self::node_process::NodeCommand;
use crate::commands::ledger::serve::{facts, warn_of_loss};
use crate::compose::{self, BusyPort, EndsWith};
use crate::failure::Failure;
use crate::output::Output;
use crate::rate_limit_flags::RateLimitFlags;
use crate::rate_limits::RateLimitsBeside;
use crate::server_flags::{ConfigFile, ServerFlags};
use crate::start::{self, WhenReady};
use crate::{state_home, table, ttl};

/// How often nodes that form a cluster look around, when nobody says otherwise: they are all here.
const FORMING_POLL: &str = "200ms";
/// Settings that `dev --nodes` makes itself: each node has its own, or they say who the others are.
const DECIDED: [&str; 11] = [
    "bootstrap",
    "join",
    "discovery",
    "discovery_resolver",
    "peer_listen",
    "advertise",
    "name",
    "peer_tls_cert",
    "peer_tls_key",
    "peer_ca",
    "force_new_cluster",
];
/// Settings that nodes are given as this command reads them, in place of what the caller wrote.
const OWN_FLAGS: [&str; 7] =
    ["data", "listen", "metrics", "peer-insecure", "log-level", "log-format", "log-to"];

/// To be tried with anything that speaks HTTP.
const DEMO_RULES: BuiltIn = BuiltIn {
    name: "the rules of dev",
    text: "domain: demo\ndescriptors:\n  - key: client_ip\n    name: demo\n    limit: 3/minute\n",
};

/// Start everything on this machine, for development: a ledger on a temporary directory, a token with every right,
/// rate limits with a domain `demo` (3 per minute for each
/// `client_ip`) and, unless rule files are configured, the domains of `ratelimit rules preset`, and free ports where the usual ones are taken. Other commands find it by themselves.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom dev\n  \
    strongroom dev --data ./ledger       keep the data\n  \
    strongroom dev --json --listen 127.0.0.1:0\n  \
    strongroom dev --nodes 3             a cluster, a process per node: kill one")]
pub struct Dev {
    #[command(flatten)]
    config: ConfigFile,
    /// How many nodes; with --data each has a directory DIR/node-N and keeps its ports.
    #[arg(long, value_name = "N", default_value = "1")]
    nodes: Nodes,
    /// When a node of several that was killed is started again; `never` leaves it.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = restart)]
    restart_after: Restart,
    /// Address of the rate limits for Envoy; by default its usual one, or a free one. Not with several nodes.
    #[arg(long, value_name = "ADDRESS")]
    rls_listen: Option<String>,
    /// The same over HTTP.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// The same for clients of Redis.
    #[arg(long, value_name = "ADDRESS")]
    resp_listen: Option<String>,
    #[command(flatten)]
    flags: ServerFlags,
}

/// How many nodes: any two majorities have a node in common, and an even number would survive no more than one less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Nodes {
    /// One, in this process.
    #[value(name = "1")]
    One,
    /// Three: one may be lost.
    #[value(name = "3")]
    Three,
    /// Five: two may be lost.
    #[value(name = "5")]
    Five,
}

impl Nodes {
    fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "never" => Ok(Restart::Never),
        text => ttl::parse(text).map(Restart::After),
    }
}

impl Dev {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let settings = self.flags.resolve(&self.config).and_then(|(resolved, settings)| {
            let settings = for_development(&resolved, settings)?;
            Ok((resolved, settings))
        });
        if self.nodes != Nodes::One {
            let wanted = settings.and_then(|(resolved, settings)| {
                self.refuse_rate_limits()?;
                self.warn_of_rate_limits();
                self.wanted(&resolved, settings)
            });
            return cluster::run(output, wanted, |ready, ephemeral| greet_cluster(output, ready, ephemeral));
        }
        let settings = settings.and_then(|(_, settings)| {
            settings.data.as_deref().map_or(Ok(()), |folder| plan::refuse_other_count(folder, 1))?;
            Ok((settings, Some(self.rate_limits()?)))
        });
        start::run(output, settings, BusyPort::TakeFree, EndsWith::Signal, Announce(output))
    }

    /// Each node is a process of its own, and counters of several processes are not one limit.
    fn refuse_rate_limits(&self) -> Result<(), Failure> {
        let flags = [("rls", &self.rls_listen), ("http", &self.http_listen), ("resp", &self.resp_listen)];
        match flags.iter().find(|(_, address)| address.is_some()) {
            None => Ok(()),
            Some((flag, _)) => Err(Failure::usage(format!(
                "dev with several nodes serves no rate limits: leave out --{flag}-listen"
            ))
            .with_hint("`strongroom ratelimit serve` beside it serves them")),
        }
    }

    /// What is set for rate limits, in a file or the environment that one node would follow, is named: nobody follows it here.
    fn warn_of_rate_limits(&self) {
        let ignored = match RateLimitFlags::default().resolve(&self.config) {
            Ok((resolved, _)) => given(&resolved),
            // What is wrong with them does not matter here, but that they are there does.
            Err(failure) => failure.message,
        };
        if !ignored.is_empty() {
            let text = format!("dev with several nodes serves no rate limits: ignored: {ignored}");
            // For people and programs: nothing else tells them.
            let _ = writeln!(
                std::io::stderr().lock(),
                "warning: {text}; `strongroom ratelimit serve` follows them"
            );
        }
    }

    /// The rate limits beside one node: those of the settings, else the presets, and a domain to try.
    fn rate_limits(&self) -> Result<RateLimitsBeside, Failure> {
        let addresses = [
            ("rls-listen", &self.rls_listen),
            ("http-listen", &self.http_listen),
            ("resp-listen", &self.resp_listen),
        ];
        let given = addresses.into_iter().filter_map(|(flag, address)| Some((flag, address.clone()?)));
        let flags = RateLimitFlags(given.map(|(flag, address)| (flag.to_owned(), address)).collect());
        let (_, settings) = flags.resolve(&self.config)?;
        for (flag, address) in settings.addresses.named() {
            refuse_others(flag, address)?;
        }
        let files = RuleFiles::new(settings.rules.clone()).with(DEMO_RULES);
        // Files may have domains of the same names.
        let files = if settings.rules.is_empty() { files.with(PRESETS) } else { files };
        Ok(RateLimitsBeside { settings, files })
    }

    /// What the nodes of a cluster are started with.
    fn wanted(self, resolved: &Resolved, settings: LedgerSettings) -> Result<Wanted, Failure> {
        let is_given = |key: &&str| !matches!(resolved.source(key), None | Some(Source::Default));
        if let Some(key) = DECIDED.iter().find(|key| is_given(key)) {
            let flag = key.replace('_', "-");
            return Err(Failure::usage(format!("dev --nodes decides --{flag} itself"))
                .with_hint("`strongroom ledger serve` starts nodes one by one, with settings of their own"));
        }
        if settings.logs.target == LogTarget::Stdout {
            return Err(Failure::usage("the logs of several nodes go to standard error: leave out --log-to"));
        }
        let program = std::env::current_exe()
            .map_err(|error| Failure::error(format!("this program does not find itself: {error}")))?;
        let own = |flag: &str| OWN_FLAGS.contains(&flag);
        let mut flags: Vec<_> = self.flags.0.into_iter().filter(|(flag, _)| !own(flag)).collect();
        let format = match settings.logs.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut give = |flag: &str, value: &str| flags.push((flag.to_owned(), value.to_owned()));
        give("peer-insecure", "true");
        give("log-level", &settings.logs.filter);
        give("log-format", format);
        if !is_given(&"poll") {
            give("poll", FORMING_POLL);
        }
        let command =
            NodeCommand { program, config: self.config.config, flags, log_format: settings.logs.format };
        Ok(Wanted { settings, command, count: self.nodes.count(), restart: self.restart_after })
    }
}

/// The settings that somebody made, each with where.
fn given(resolved: &Resolved) -> String {
    let is_given = |key: &str| !matches!(resolved.source(key), None | Some(Source::Default));
    let rows = resolved.rows().into_iter().filter(|row| is_given(row.key));
    rows.map(|row| format!("{} ({})", row.key, row.source)).collect::<Vec<_>>().join(", ")
}

/// Development stays on this machine, and its log is for eyes: short, unless somebody asked for more.
fn for_development(resolved: &Resolved, mut settings: LedgerSettings) -> Result<LedgerSettings, Failure> {
    for (flag, address) in [("listen", settings.listen), ("metrics", settings.metrics)] {
        refuse_others(flag, address)?;
    }
    let is_default = |key: &str| matches!(resolved.source(key), Some(Source::Default));
    if is_default("log_level") {
        "warn".clone_into(&mut settings.logs.filter);
    }
    if is_default("log_format") {
        settings.logs.format = LogFormat::Text;
    }
    Ok(settings)
}

fn refuse_others(flag: &str, address: std::net::SocketAddr) -> Result<(), Failure> {
    if compose::is_loopback(address) {
        return Ok(());
    }
    let message = format!("dev serves this machine only: --{flag} {address} is not a loopback address");
    Err(Failure::usage(message)
        .with_hint("`strongroom ledger serve` and `strongroom ratelimit serve` serve others"))
}

struct Announce(Output);

impl WhenReady for Announce {
    type Kept = DevFileGuard;

    fn ready(self, ready: &ReadyLine, ephemeral: bool) -> Result<DevFileGuard, Failure> {
        let guard = DevFileGuard::write(&state_home::dev_file(), ready)?;
        if self.0.is_json() {
            warn_of_loss(ephemeral);
        } else {
            self.0.text(&banner(ready, ephemeral))?;
        }
        Ok(guard)
    }
}

fn greet_cluster(output: Output, ready: &ReadyLine, ephemeral: bool) -> Result<(), Failure> {
    if output.is_json() {
        return Ok(());
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let row = |node: &service_kit::ready_line::ReadyNode| {
        vec![text(&node.name), text(&node.role), node.pid.to_string(), node.url.clone()]
    };
    let rows: Vec<_> = ready.nodes.iter().map(row).collect();
    let nodes = indented(&table::render(&["node", "role", "pid", "url"], &rows));
    let leader = ready.nodes.iter().find(|node| node.role.as_deref() == Some("leader"));
    let kill = leader.map_or_else(String::new, |leader| {
        let program = program();
        format!(
            "Then kill the leader in front of you, and go on:\n\n  \
             kill -9 {}\n  \
             {program} ledger put acme/prod door:front open\n  \
             {program} ledger cluster status\n\n",
            leader.pid
        )
    });
    output.text(&format!("{}\n{nodes}\n{kill}Stop with Ctrl-C.\n", greeting(ready, ephemeral)))
}

fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "strongroom".to_owned())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn banner(ready: &ReadyLine, ephemeral: bool) -> String {
    format!("{}\nStop with Ctrl-C.\n", greeting(ready, ephemeral))
}

fn greeting(ready: &ReadyLine, ephemeral: bool) -> String {
    let program = program();
    let (facts, limits) = (indented(&facts(ready, ephemeral)), try_limits(ready));
    format!(
        "Strongroom {} is ready.\n\n{facts}\nPaste into another terminal:\n\n  \
         {program} ledger namespace create acme\n  \
         {program} ledger vault create acme/prod\n  \
         {program} ledger put acme/prod door:front locked\n  \
         {program} ledger get acme/prod door:front --verify\n  \
         {program} ledger proof acme/prod door:front -o door.proof.json\n{limits}",
        ready.version,
    )
}

/// The fourth is denied.
fn try_limits(ready: &ReadyLine) -> String {
    let (Some(url), Some(resp)) = (&ready.ratelimit_url, ready.resp_addr) else { return String::new() };
    format!(
        "\n  for i in 1 2 3 4; do curl -s -o /dev/null -w '%{{http_code}}\\n' '{url}/v1/check?domain=demo'; done\n  \
         redis-cli -p {} CL.THROTTLE user:1 2 3 60 1\n",
        resp.port()
    )
}
