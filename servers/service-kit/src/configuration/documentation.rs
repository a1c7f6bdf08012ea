//! The table of settings as documentation.

use std::fmt::Write as _;

use super::setting::Setting;

/// The reference of a server's settings as a Markdown table.
pub fn reference(server: &str, settings: impl IntoIterator<Item = &'static Setting>) -> String {
    let mut table = String::from("| Flag | Variable | Key | Default | Meaning |\n|---|---|---|---|---|\n");
    for setting in settings {
        let default = setting.default.map_or_else(|| "unset".to_owned(), |text| format!("`{text}`"));
        let mut variables = format!("`{}`", setting.variable(server));
        for alias in setting.aliases {
            let _ = write!(variables, ", `{}`", alias.variable);
        }
        let secret = if setting.is_secret() { " Also as `…_FILE`." } else { "" };
        let _ = writeln!(
            table,
            "| `--{}` | {variables} | `{}` | {default} | {}{secret} Expects {}. |",
            setting.flag(),
            setting.key,
            setting.help.replace('|', "\\|"),
            setting.kind.expected().replace('|', "\\|"),
        );
    }
    table
}

/// A sample of the server's table in the file, every key commented out with its default.
pub fn template(server: &str, settings: impl IntoIterator<Item = &'static Setting>) -> String {
    let mut text = format!("[{server}]\n");
    for setting in settings {
        let key = if setting.is_secret() { format!("{}_file", setting.key) } else { setting.key.to_owned() };
        let value = setting.default.unwrap_or_default();
        let _ = write!(
            text,
            "\n# {}\n# Expects {}.\n# {key} = \"{value}\"\n",
            setting.help,
            setting.kind.expected()
        );
    }
    text
}
