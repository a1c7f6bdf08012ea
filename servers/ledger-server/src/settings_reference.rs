//! The table of settings as a page of documentation.

use std::fmt::Write as _;

use service_kit::configuration::Setting;

use crate::settings::{SERVER_NAME, table};

/// What InferaDB Ledger's reference says of a setting that we share.
struct Foreign {
    key: &'static str,
    default: &'static str,
    /// Why our default is another; empty when it is the same.
    why: &'static str,
}

const fn foreign(key: &'static str, default: &'static str, why: &'static str) -> Foreign {
    Foreign { key, default, why }
}

static FOREIGN: &[Foreign] = &[
    foreign("listen", "127.0.0.1:50051", ""),
    foreign("data", "(ephemeral)", ""),
    foreign("bootstrap", "3", "A cluster states its size; a lone server must not wait for others."),
    foreign(
        "metrics",
        "(disabled)",
        "Probes share the port, so it is always there; on loopback it exposes nothing.",
    ),
    foreign(
        "batch_size",
        "100",
        "One fsync is paid per batch: a larger batch only shares it among more writes.",
    ),
    foreign(
        "batch_delay",
        "10",
        "Waiting adds latency; batches fill by themselves while the one before is being synced.",
    ),
    foreign(
        "concurrent",
        "100",
        "Waiting requests are cheap, and 256 clients with a write each are ordinary.",
    ),
    foreign("timeout", "30", ""),
    foreign("bootstrap_timeout", "60", ""),
    foreign("poll", "2", ""),
    foreign("join", "(disabled)", ""),
    foreign("join_ttl", "3600", ""),
    foreign("discovery", "(disabled)", ""),
];

/// The reference of a ledger server's settings: a Markdown table of all settings.
pub fn reference() -> String {
    let mut page = String::from(
        "| Flag | Variables | Key | Default | InferaDB Ledger | Meaning | Why the default differs |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for setting in table() {
        push_row(&mut page, setting);
    }
    page
}

fn push_row(page: &mut String, setting: &Setting) {
    let mut variables = format!("`{}`", setting.variable(SERVER_NAME));
    for alias in setting.aliases {
        let _ = write!(variables, ", `{}`", alias.variable);
    }
    let default = setting.default.map_or_else(|| "unset".to_owned(), |default| format!("`{default}`"));
    let (foreign_default, why) = match FOREIGN.iter().find(|foreign| foreign.key == setting.key) {
        Some(foreign) => (format!("`{}`", foreign.default), foreign.why),
        None => ("—".to_owned(), ""),
    };
    let _ = writeln!(
        page,
        "| `--{}` | {variables} | `{}` | {default} | {foreign_default} | {} Expects {}. | {why} |",
        setting.flag(),
        setting.key,
        setting.help,
        setting.kind.expected(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_with_a_foreign_name_states_the_foreign_default() {
        for setting in table() {
            let named = FOREIGN.iter().any(|foreign| foreign.key == setting.key);
            assert_eq!(named, !setting.aliases.is_empty(), "{}", setting.key);
        }
    }

    #[test]
    fn no_text_of_the_table_breaks_it() {
        for setting in table() {
            assert!(!setting.help.contains('|') && !setting.help.contains('\n'), "{}", setting.key);
        }
    }
}
