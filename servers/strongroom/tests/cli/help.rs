//! Help, version, completions.

use crate::harness::Home;

/// The commands in a help text: lines of its "Commands:" section.
fn subcommands(help: &str) -> Vec<String> {
    let section = help.split_once("Commands:\n").map(|(_, rest)| rest).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_help_and_every_leaf_an_example() {
    let home = Home::new();
    let mut pending: Vec<Vec<String>> = vec![Vec::new()];
    let mut leaves = 0;
    while let Some(path) = pending.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let said = home.run(&arguments);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{path:?}");
        let children = subcommands(&said.stdout);
        if children.is_empty() {
            leaves += 1;
            assert!(said.stdout.contains("Example"), "{path:?} shows no example:\n{}", said.stdout);
            assert!(said.stdout.contains("strongroom"), "{path:?}");
        }
        pending.extend(children.into_iter().map(|child| [path.clone(), vec![child]].concat()));
    }
    assert!(leaves >= 30, "{leaves} commands");
}

#[test]
fn the_version_names_the_commit() {
    let home = Home::new();
    let said = home.run(&["--version"]);
    assert_eq!(said.code, 0);
    let version = said.stdout.trim_end().strip_prefix("strongroom ").expect("the program's name");
    assert_eq!(version, service_kit::VERSION_WITH_COMMIT);
    assert!(version.contains('(') && version.ends_with(')'), "{version}");
}

#[test]
fn completions_exist_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = home.run(&["completions", shell]);
        assert_eq!(said.code, 0);
        assert!(said.stdout.contains("strongroom") && said.stdout.len() > 1_000, "{shell}");
    }
}

#[test]
fn exit_codes_are_documented() {
    let said = Home::new().run(&["--help"]);
    for words in
        ["0 ok", "2 usage", "3 not found", "4 condition failed", "5", "6 not authorized", "7 unavailable"]
    {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
}
