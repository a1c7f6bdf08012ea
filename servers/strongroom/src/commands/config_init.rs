//! `strongroom config init`

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use service_kit::configuration::template;

use crate::failure::Failure;
use crate::output::Output;

/// Print a configuration file: every setting, commented out, with its default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom config init --production -o strongroom.toml\n  \
    strongroom config check --config strongroom.toml\n  \
    strongroom ledger serve --config strongroom.toml\n  \
    strongroom config init ratelimit >> strongroom.toml      both servers read one file")]
pub struct ConfigInit {
    /// Whose table.
    #[arg(value_enum, default_value_t = TableOf::Ledger)]
    server: TableOf,
    /// Begin with what a server that others can reach needs: data directory, address, TLS.
    #[arg(long)]
    production: bool,
    /// File to write. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Servers that read the file, each a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableOf {
    /// `strongroom ledger serve`.
    Ledger,
    /// `strongroom ratelimit serve`.
    Ratelimit,
}

/// What a ledger in production must state; the rest keeps its defaults.
const LEDGER_PRODUCTION: &str = r#"
# Where the ledger lives. Back it up; keep it on a disk of its own.
data = "/var/lib/strongroom"

# Everyone can reach this address, so it needs TLS. Clients need a token: the first one is in
# /var/lib/strongroom/admin.token after the first start.
listen = "0.0.0.0:50051"
tls_cert = "/etc/strongroom/tls/server.pem"
tls_key = "/etc/strongroom/tls/server.key"

# Probes and metrics stay on this machine.
metrics = "127.0.0.1:9090"
"#;

/// The same of a rate limit server.
const RATELIMIT_PRODUCTION: &str = r#"
# What is limited. `strongroom ratelimit rules preset -o /etc/strongroom/rules.yaml` writes limits to begin with,
# `strongroom ratelimit rules validate` reads such a file as the server does.
rules = "/etc/strongroom/rules.yaml"

# Everyone can reach these addresses, so they need TLS, and checks need a token.
rls_listen = "0.0.0.0:8081"
http_listen = "0.0.0.0:8080"
resp_listen = "0.0.0.0:6380"
tls_cert = "/etc/strongroom/tls/server.pem"
tls_key = "/etc/strongroom/tls/server.key"
token_file = "/etc/strongroom/ratelimit.token"

# Refunds, resets and lists have a token of their own; without it nobody may.
admin_token_file = "/etc/strongroom/ratelimit-admin.token"

# Probes and metrics stay on this machine.
metrics = "127.0.0.1:9091"
"#;

impl TableOf {
    fn name(self) -> &'static str {
        match self {
            Self::Ledger => ledger_server::settings::SERVER_NAME,
            Self::Ratelimit => ratelimit_server::settings::SERVER_NAME,
        }
    }

    fn template(self) -> String {
        match self {
            Self::Ledger => template(self.name(), ledger_server::settings::table()),
            Self::Ratelimit => template(self.name(), ratelimit_server::settings::table()),
        }
    }

    fn production(self) -> &'static str {
        match self {
            Self::Ledger => LEDGER_PRODUCTION,
            Self::Ratelimit => RATELIMIT_PRODUCTION,
        }
    }

    /// How its file is checked.
    fn check(self) -> &'static str {
        match self {
            Self::Ledger => "strongroom config check --config FILE",
            Self::Ratelimit => "strongroom config check ratelimit --config FILE",
        }
    }
}

impl ConfigInit {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let text = document(self.server, self.production);
        let Some(path) = &self.output else { return output.text(&text) };
        let write = || {
            let mut file = std::fs::File::create_new(path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|error: std::io::Error| Failure::file("write", path, &error))?;
        let file = path.display().to_string();
        output.result(&json!({ "file": file }), || format!("wrote {file}"))
    }
}

fn document(server: TableOf, production: bool) -> String {
    let head = format!(
        "# Configuration of `strongroom {} serve`. Flags and variables win over this file.\n\
         # Check it with `{}`.\n\n",
        server.name(),
        server.check()
    );
    let table = server.template();
    if !production {
        return format!("{head}{table}");
    }
    let name = format!("[{}]\n", server.name());
    format!("{head}{}", table.replacen(&name, &format!("{name}{}", server.production()), 1))
}
