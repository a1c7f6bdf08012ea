//! `strongroom config init`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use ledger_server::settings;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Print a configuration file: every setting, commented out, with its default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom config init --production -o strongroom.toml\n  \
    strongroom config check --config strongroom.toml\n  \
    strongroom ledger serve --config strongroom.toml")]
pub struct ConfigInit {
    /// Begin with what a server that others can reach needs: data directory, address, TLS.
    #[arg(long)]
    production: bool,
    /// File to write. It must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a production server must state; the rest keeps its defaults.
const PRODUCTION: &str = r#"
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

impl ConfigInit {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let text = document(self.production);
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

fn document(production: bool) -> String {
    let head = "# Configuration of `strongroom ledger serve`. Flags and variables win over this file.\n\
                # Check it with `strongroom config check --config FILE`.\n\n";
    let table = service_kit::configuration::template(settings::SERVER_NAME, settings::table());
    if !production {
        return format!("{head}{table}");
    }
    let name = format!("[{}]\n", settings::SERVER_NAME);
    format!("{head}{}", table.replacen(&name, &format!("{name}{PRODUCTION}"), 1))
}
