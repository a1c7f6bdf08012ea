//! The real process on a real disk that fails or has no room.

use std::process::Command;

use crate::harness::{Home, Server, eventually};
use crate::load::{Check, Load};

const WRITERS: usize = 4;

/// The program under `strace`, which does `blow` to the `number`th call of each thread.
fn struck(home: &Home, call: &str, blow: &str, number: u32, arguments: &[&str]) -> Command {
    let program = home.command(arguments);
    let mut traced = Command::new("strace");
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{blow}:when={number}"));
    traced.args(["-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
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
    for (call, blow, step) in [("fdatasync", "error=EIO", 9), ("pwrite64", "error=ENOSPC", 41)] {
        for number in (1..=12).map(|place| place * step) {
            runs += 1;
            match Server::spawn(&mut struck(&home, call, blow, number, &serve)) {
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

/// Ends a server that runs under `strace`: not the tracer, which would let it go.
fn kill_traced(home: &Home, server: Server) {
    let pid =
        std::fs::read_to_string(home.path("data").join("ledger.pid")).expect("the server left its number");
    let sent = Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill runs");
    assert!(sent.success());
    server.wait();
}

/// How often a first start makes each call that puts something on the disk, at least.
const FIRST_CALLS: [(&str, u32); 5] =
    [("mkdir", 2), ("rename", 5), ("fsync", 6), ("fdatasync", 6), ("pwrite64", 12)];

/// The files of a directory come into being one after the other: whatever a first start left, the next one makes whole.
#[test]
#[ignore = "needs strace (scripts/setup installs it): scripts/soak runs it, or add -- --ignored"]
fn a_first_start_that_fails_or_is_killed_at_any_call_is_made_good_by_the_next() {
    let (mut refused, mut killed, mut outlived, mut runs) = (0, 0, 0, 0);
    for (call, count) in FIRST_CALLS {
        for (blow, number) in
            ["error=EIO", "signal=KILL"].into_iter().flat_map(|blow| (1..=count).map(move |n| (blow, n)))
        {
            let home = Home::new();
            let data = home.path("data").display().to_string();
            let serve = Home::serve(&data);
            let arguments = [serve.as_slice(), &["--json"]].concat();
            runs += 1;
            match Server::spawn(&mut struck(&home, call, blow, number, &arguments)) {
                Ok(server) => {
                    outlived += 1;
                    kill_traced(&home, server);
                }
                Err(said) => {
                    assert_ne!(said.code, 0, "{call} {blow} {number}: {said:?}");
                    let count = if blow == "signal=KILL" { &mut killed } else { &mut refused };
                    *count += 1;
                }
            }
            let server = Server::start(&home, &serve);
            let load = Load::new(&home, 1, 10);
            let client = load.client(&server);
            load.make_vault(&client);
            let writers = load.start(&client);
            load.wait_until_acknowledged(1);
            server.stop();
            load.join(writers);
        }
    }
    println!(
        "\nsoak: real process, first start broken off | {runs} | {refused} refused to start, {killed} killed, {outlived} \
         started, {runs} directories made good, 0 violations"
    );
    assert!(refused >= 20 && killed >= 20, "too little happened: {refused} refused, {killed} killed");
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
    let (mut ended, mut refused, mut refused_at_start, mut checked) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let mut server = Server::start(&home, &serve);
        let client = load.client(&server);
        let before = load.total();
        let writers = load.start(&client);
        load.wait_until_acknowledged(before + 50);
        fill(&ballast);
        // Every writer has met the end of the disk: a refusal, or the end of the process.
        load.join(writers);
        let outcome = eventually("it refuses or ends", || match server.child.try_wait().expect("a child") {
            Some(status) => Some(End::Ended(status)),
            None => refuses(&load, &client).then_some(End::Refuses),
        });
        match outcome {
            End::Refuses => {
                refused += 1;
                checked += load.check(&client, Check::Newest(20));
                server.signal("KILL");
            }
            End::Ended(status) => {
                ended += 1;
                assert!(!status.success(), "round {round}: {status}");
            }
        }
        drop(server);
        refused_at_start += u64::from(start_without_room(&home, &serve, &load));
        std::fs::remove_file(&ballast).expect("the ballast is there");
        let server = Server::start(&home, &serve);
        checked += load.check(&load.client(&server), Check::Everything);
        server.stop();
    }
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!(report["sound"], true, "{report}");
    println!(
        "\nsoak: real process, disk full | {ROUNDS} | {ended} processes ended by themselves, {refused} refused writes, \
         {refused_at_start} refused to start without room, \
         {} acknowledged writes, {checked} acknowledged writes read, 0 violations",
        load.total()
    );
    assert_eq!(ended + refused, ROUNDS);
}

/// Starts a server while there is no room: it refuses to start, or it refuses writes. Returns whether the former.
fn start_without_room(home: &Home, serve: &[&str], load: &Load) -> bool {
    match Server::spawn(&mut home.command(&[serve, &["--json"]].concat())) {
        Ok(server) => {
            assert!(refuses(load, &load.client(&server)), "a server without room takes writes");
            false
        }
        Err(said) => {
            assert_ne!(said.code, 0, "{said:?}");
            true
        }
    }
}

/// How a server meets a disk without room.
enum End {
    Refuses,
    Ended(std::process::ExitStatus),
}

/// Whether a write is refused because of the disk; a write that is taken is a failure.
fn refuses(load: &Load, client: &ledger_client::LedgerClient) -> bool {
    let write = async { client.write(&crate::harness::vault(), crate::harness::put("late", "x")).await };
    let error = load.runtime.block_on(write).expect_err("no room, and a write is taken");
    error.reason() == "DISK_FULL"
}

/// Takes all the room there is.
fn fill(ballast: &std::path::Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast).expect("made");
    let full = loop {
        if let Err(error) = file.write_all(&[0xAA; 1 << 18]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // The last pages too.
    while file.write(&[0xAA; 512]).is_ok_and(|written| written > 0) {}
}
