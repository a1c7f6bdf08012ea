//! The real process on a real disk that fails or has no room.

use std::process::Command;

use crate::harness::{Home, Server, eventually};
use crate::load::{Check, Load};

const WRITERS: usize = 4;

/// The program under `strace`, which makes the `number`th call of `call` in the process fail.
fn failing(home: &Home, call: &str, error: &str, number: u32, arguments: &[&str]) -> Command {
    let program = home.command(arguments);
    let mut traced = Command::new("strace");
    let inject = format!("inject={call}:error={error}:when={number}");
    traced.args([
        "--follow-forks",
        "--quiet=all",
        "--output=/dev/null",
        "--trace",
        call,
        "--inject",
        &inject,
    ]);
    traced.arg(program.get_program()).args(program.get_args());
    traced.current_dir(program.get_current_dir().expect("set")).env_clear();
    traced.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.stdin(std::process::Stdio::null());
    traced.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    traced
}

/// Calls that fail once, and how: a real disk says EIO to one `fdatasync` and succeeds at the next.
#[test]
#[ignore = "needs strace (scripts/setup installs it): scripts/soak runs it, or add -- --ignored"]
fn a_failed_call_of_the_disk_ends_the_process_and_loses_no_acknowledged_write() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    let serve = [Home::serve(&data).as_slice(), &["--flush-interval", "40ms", "--json"]].concat();
    let load = Load::new(&home, WRITERS, 200);
    let server = Server::start(&home, &Home::serve(&data));
    load.make_vault(&load.client(&server));
    server.stop();
    let (mut ended, mut refused_to_start, mut checked, mut runs) = (0, 0, 0, 0);
    for (call, error, step) in [("fdatasync", "EIO", 9), ("pwrite64", "ENOSPC", 41)] {
        for number in (1..=12).map(|place| place * step) {
            runs += 1;
            match Server::spawn(&mut failing(&home, call, error, number, &serve)) {
                Ok(server) => {
                    let client = load.client(&server);
                    let writers = load.start(&client);
                    load.join(writers);
                    let (status, log) = server.wait();
                    assert!(!status.success(), "{call} {number}: {status}: {log}");
                    ended += 1;
                }
                Err(said) => {
                    assert_ne!(said.code, 0, "{call} {number}: {said:?}");
                    refused_to_start += 1;
                }
            }
            let server = Server::start(&home, &Home::serve(&data));
            checked += load.check(&load.client(&server), Check::Everything);
            server.stop();
        }
    }
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!(report["sound"], true, "{report}");
    println!(
        "\nsoak: real process, a call of the disk fails | {runs} | {ended} processes ended by themselves, \
         {refused_to_start} refused to start, {} acknowledged writes, {checked} acknowledged writes read, 0 violations",
        load.total()
    );
    assert!(
        ended >= 10 && load.total() > 100,
        "too little happened: {ended} ended, {} written",
        load.total()
    );
}

#[test]
#[ignore = "needs a file system of some 64 MiB in STRONGROOM_SOAK_SMALL_DISK: scripts/soak mounts one"]
fn a_full_disk_is_refused_or_ends_the_process_and_loses_no_acknowledged_write() {
    const ROUNDS: u64 = 6;
    let disk =
        std::env::var("STRONGROOM_SOAK_SMALL_DISK").expect("STRONGROOM_SOAK_SMALL_DISK names a directory");
    let disk = std::path::PathBuf::from(disk);
    let (home, ballast) = (Home::new(), disk.join("ballast"));
    let data = disk.join("data").display().to_string();
    let serve = [Home::serve(&data).as_slice(), &["--flush-interval", "40ms"]].concat();
    let load = Load::new(&home, WRITERS, 2_000);
    let server = Server::start(&home, &serve);
    load.make_vault(&load.client(&server));
    server.stop();
    let (mut ended, mut refused, mut checked) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut server = Server::start(&home, &serve);
        let client = load.client(&server);
        let before = load.total();
        let writers = load.start(&client);
        load.wait_until_acknowledged(before + 50);
        fill(&ballast);
        // Every writer has met the end of the disk: a refusal, or the end of the process.
        load.join(writers);
        if server.is_running() {
            refused += 1;
            assert!(!server_takes_writes(&load, &client), "round {round}: no room, and a write is taken");
            checked += load.check(&client, Check::Newest(20));
            server.signal("KILL");
        } else {
            ended += 1;
        }
        drop(server);
        std::fs::remove_file(&ballast).expect("the ballast is there");
        let server = Server::start(&home, &serve);
        checked += load.check(&load.client(&server), Check::Everything);
        server.stop();
    }
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!(report["sound"], true, "{report}");
    println!(
        "\nsoak: real process, disk full | {ROUNDS} | {ended} processes ended by themselves, {refused} refused writes, \
         {} acknowledged writes, {checked} acknowledged writes read, 0 violations",
        load.total()
    );
    assert_eq!(ended + refused, ROUNDS);
}

fn server_takes_writes(load: &Load, client: &ledger_client::LedgerClient) -> bool {
    let write = async { client.write(&crate::harness::vault(), crate::harness::put("late", "x")).await };
    load.runtime.block_on(write).is_ok()
}

/// Takes all the room there is.
fn fill(ballast: &std::path::Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast).expect("made");
    eventually("the disk is full", || {
        let written = file.write_all(&[0xAA; 65_536]);
        written.err().map(|error| assert_eq!(error.kind(), std::io::ErrorKind::StorageFull))
    });
    // The last pages too.
    while file.write(&[0xAA; 512]).is_ok_and(|written| written > 0) {}
}
