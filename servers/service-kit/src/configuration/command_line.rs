//! Settings as flags of a clap command.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::setting::{Kind, Setting};

/// One flag per setting, for [`clap::Command::args`]. Values are checked by the resolver, with the other layers.
pub fn flags_of(server: &str, settings: impl IntoIterator<Item = &'static Setting>) -> Vec<Arg> {
    settings.into_iter().map(|setting| flag_of(server, setting)).collect()
}

/// The flags that stood on the command line, for [`Resolver::flags`](super::Resolver::flags).
pub fn given_flags(
    matches: &ArgMatches,
    settings: impl IntoIterator<Item = &'static Setting>,
) -> Vec<(String, String)> {
    settings
        .into_iter()
        .filter_map(|setting| {
            let flag = setting.flag();
            let given = matches.value_source(&flag) == Some(ValueSource::CommandLine);
            let values = given.then(|| matches.get_many::<String>(&flag)).flatten()?;
            // Only a list has several.
            let value = values.map(String::as_str).collect::<Vec<_>>().join(",");
            Some((flag, value))
        })
        .collect()
}

fn flag_of(server: &str, setting: &'static Setting) -> Arg {
    let default = setting.default.map(|default| format!(", default {default}")).unwrap_or_default();
    let help = format!("{} [{}{default}]", setting.help, setting.variable(server));
    let arg = Arg::new(setting.flag()).long(setting.flag()).value_name(setting.kind.value_name()).help(help);
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Choice(words) => arg.help(format!(
            "{} ({}) [{}{default}]",
            setting.help,
            words.join(", "),
            setting.variable(server)
        )),
        Kind::List => arg.action(ArgAction::Append),
        _ => arg,
    }
}
