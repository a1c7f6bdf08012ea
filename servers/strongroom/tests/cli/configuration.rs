//! Where settings come from.

use crate::harness::{Home, Said, Server};

fn setting<'a>(document: &'a serde_json::Value, key: &str) -> (&'a serde_json::Value, &'a str) {
    let rows = document["settings"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    (&row["value"], row["source"].as_str().expect("a source"))
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let home = Home::new();
    let file =
        home.write("strongroom.toml", "[ledger]\nbatch_size = 10\ntimeout = \"11s\"\nconcurrent = 12\n");
    let mut command = home.command(&["config", "check", "--config", &file, "--batch-size", "30", "--json"]);
    command.env("STRONGROOM__LEDGER__BATCH_SIZE", "20").env("STRONGROOM__LEDGER__TIMEOUT", "21s");
    let said = Said::of(&mut command);
    assert_eq!(said.code, 0, "{said:?}");
    let document: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(setting(&document, "batch_size"), (&"30".into(), "flag --batch-size"));
    assert_eq!(setting(&document, "timeout"), (&"21s".into(), "environment STRONGROOM__LEDGER__TIMEOUT"));
    assert_eq!(setting(&document, "concurrent").0, "12");
    assert!(setting(&document, "concurrent").1.contains("strongroom.toml"));
    assert_eq!(setting(&document, "listen"), (&"127.0.0.1:50051".into(), "default"));
    assert_eq!(setting(&document, "data"), (&serde_json::Value::Null, "unset"));
}

#[test]
fn unknown_keys_are_errors_that_name_key_and_source() {
    let home = Home::new();
    let file = home.write("bad.toml", "[ledger]\nlisten_on = \"x\"\n");
    let refusal = home.refusal(2, &["config", "check", "--config", &file]);
    let message = refusal["message"].as_str().expect("a message");
    assert!(message.contains("listen_on") && message.contains("bad.toml"), "{message}");
    let mut command = home.command(&["config", "check", "--json"]);
    let said = Said::of(command.env("STRONGROOM__LEDGER__BATCHSIZE", "3"));
    assert_eq!(said.code, 2);
    assert!(
        said.refusal()["message"].as_str().is_some_and(|text| text.contains("STRONGROOM__LEDGER__BATCHSIZE"))
    );
    home.refusal(2, &["config", "check", "--config", "missing.toml"]);
}

#[test]
fn the_written_file_is_accepted_and_says_the_defaults() {
    let home = Home::new();
    let file = home.path("strongroom.toml").display().to_string();
    home.json(&["config", "init", "-o", &file]);
    assert_eq!(
        home.refusal(1, &["config", "init", "-o", &file])["code"],
        "FILE",
        "an existing file is not overwritten"
    );
    assert_eq!(
        home.json(&["config", "check", "--config", &file])["settings"],
        home.json(&["config", "check"])["settings"]
    );
    // Every line that is commented out is a setting that is accepted.
    let text = std::fs::read_to_string(&file).expect("readable");
    for row in ledger_server::settings::table() {
        assert!(text.contains(&format!("# {} = ", row.key)), "{} is missing", row.key);
    }
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(assignment) if assignment.contains(" = \"") && !assignment.ends_with("\"\"") => assignment,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let active = home.write("active.toml", uncommented);
    let document = home.json(&["config", "check", "--config", &active]);
    assert!(setting(&document, "batch_size").1.contains("active.toml"));
}

#[test]
fn the_production_file_asks_for_tls_and_a_data_directory() {
    let home = Home::new();
    let text = home.run(&["config", "init", "--production"]).stdout;
    let file = home.write("production.toml", &text);
    // Its certificates do not exist here, but everything else must be in order.
    let document = home.json(&["config", "check", "--config", &file]);
    assert_eq!(setting(&document, "listen").0, "0.0.0.0:50051");
    assert!(setting(&document, "tls_cert").0.is_string() && setting(&document, "data").0.is_string());
    let said = home.run(&["ledger", "serve", "--config", &file, "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("/etc/strongroom/tls/server.pem"), "{said:?}");
}

#[test]
fn a_rate_limit_server_has_a_table_of_its_own_in_the_same_file() {
    let home = Home::new();
    let (ledger, limits) = (["config", "init"], ["config", "init", "ratelimit"]);
    let both = [home.run(&ledger).stdout, home.run(&limits).stdout].concat();
    let file = home.write("strongroom.toml", &both);
    let check = ["config", "check", "ratelimit"];
    let defaults = home.json(&check);
    assert_eq!(defaults["server"], "ratelimit");
    assert_eq!(setting(&defaults, "http_listen"), (&"127.0.0.1:8080".into(), "default"));
    assert_eq!(home.json(&[check.as_slice(), &["--config", &file]].concat()), defaults);
    for row in ratelimit_server::settings::table() {
        let name = if row.is_secret() { format!("{}_file", row.key) } else { row.key.to_owned() };
        assert!(both.contains(&format!("# {name} = ")), "{name} is missing");
    }
    let changed = both.replace("# keys = \"100000\"", "keys = \"5000\"");
    let file = home.write("strongroom.toml", changed);
    let document = home.json(&[check.as_slice(), &["--config", &file, "--headers", "none"]].concat());
    assert_eq!(setting(&document, "keys").0, "5000");
    assert_eq!(setting(&document, "headers"), (&"none".into(), "flag --headers"));
    // The ledger's flags are not its own, and the other way round.
    assert_eq!(home.run(&["config", "check", "ratelimit", "--batch-size", "3"]).code, 2);
    assert_eq!(home.run(&["config", "check", "--http-listen", "127.0.0.1:0"]).code, 2);
    let wrong = home.refusal(2, &["config", "check", "ratelimit", "--keys", "none"]);
    assert!(wrong["message"].as_str().is_some_and(|text| text.contains("keys")), "{wrong}");
}

#[test]
fn the_production_file_of_rate_limits_serves_once_its_files_exist() {
    let home = Home::new();
    let text = home.run(&["config", "init", "ratelimit", "--production"]).stdout;
    let file = home.write("production.toml", &text);
    let check = ["config", "check", "ratelimit", "--config", &file];
    let missing = home.refusal(2, &check);
    assert!(
        missing["message"].as_str().is_some_and(|text| text.contains("/etc/strongroom/ratelimit.token")),
        "{missing}"
    );

    let files = crate::every_setting::certificates();
    let present = [
        ("/etc/strongroom/rules.yaml", home.write("rules.yaml", crate::rate_limits::RULES)),
        ("/etc/strongroom/tls/server.pem", home.write("server.pem", files.certificate)),
        ("/etc/strongroom/tls/server.key", home.write("server.key", files.key)),
        ("/etc/strongroom/ratelimit.token", home.write("ratelimit.token", "of-checks\n")),
        ("/etc/strongroom/ratelimit-admin.token", home.write("ratelimit-admin.token", "of-admins\n")),
    ];
    let text = present.iter().fold(text, |text, (there, here)| text.replace(there, here));
    home.write("production.toml", text);
    let document = home.json(&check);
    assert_eq!(setting(&document, "http_listen").0, "0.0.0.0:8080");
    assert!(!document.to_string().contains("of-checks"), "secrets are redacted");
    let mut serve = vec!["ratelimit", "serve", "--config", &file, "--metrics", "127.0.0.1:0"];
    serve.extend(["--rls-listen", "0.0.0.0:0", "--http-listen", "0.0.0.0:0", "--resp-listen", "0.0.0.0:0"]);
    // Others can reach it, so load balancers would get five seconds.
    serve.extend(["--drain-delay", "0s"]);
    let server = Server::start(&home, &serve);
    let ca = home.write("ca.pem", files.ca);
    let url = crate::rate_limits::url(&server);
    let ask =
        ["ratelimit", "check", "shop", "client_ip=192.0.2.1", "--url", url, "--tls-ca", &ca, "--token-file"];
    assert_eq!(home.json(&[ask.as_slice(), &[&present[3].1]].concat())["remaining"], 2);
    server.stop();
}

#[test]
fn a_server_reads_the_file_that_is_named() {
    let home = Home::new();
    let data = home.path("from-file").display().to_string();
    let file = home.write(
        "strongroom.toml",
        format!("[ledger]\ndata = \"{data}\"\nlisten = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n"),
    );
    let server = Server::start(&home, &["ledger", "serve", "--config", &file]);
    assert_eq!(server.ready["data_dir"], data.as_str());
    server.stop();
}

#[test]
fn clients_find_their_server_by_flags_then_variables_then_the_file_of_dev() {
    let (by_file, by_variable, by_flag) = (Home::new(), Home::new(), Home::new());
    let servers = [&by_file, &by_variable, &by_flag].map(Server::dev);
    let [file, variable, flag] = &servers;
    let token_file = |server: &Server| server.ready["token_file"].as_str().expect("a token file").to_owned();
    let vkey = |command: &mut std::process::Command| Said::of(command).stdout.trim_end().to_owned();
    assert_eq!(vkey(&mut by_file.command(&["ledger", "vkey"])), file.ready["vkey"]);
    let with_variables = |arguments: &[&str]| {
        let mut command = by_file.command(arguments);
        command
            .env("STRONGROOM_LEDGER_URL", variable.url())
            .env("STRONGROOM_TOKEN_FILE", token_file(variable));
        command
    };
    assert_eq!(vkey(&mut with_variables(&["ledger", "vkey"])), variable.ready["vkey"]);
    let token = token_file(flag);
    let flags = ["ledger", "vkey", "--url", flag.url(), "--token-file", &token];
    assert_eq!(vkey(&mut with_variables(&flags)), flag.ready["vkey"]);
}
