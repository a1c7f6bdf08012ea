//! Kills of the real process under load.

use crate::harness::{Home, Server, eventually};
use crate::load::{Check, Load};

/// Kills in the normal tests; `scripts/soak` asks for more.
const KILLS: u64 = 20;
const WRITERS: usize = 8;
/// One server in so many is killed as it recovers, before it serves.
const KILLED_AT_START_EVERY: u64 = 4;
/// A check of everything costs more with every round, so most look at the newest writes alone.
const CHECKED_NEWEST: u64 = 200;
const CHECKED_WHOLE_EVERY: u64 = 20;

fn kills() -> u64 {
    let wanted = std::env::var("STRONGROOM_SOAK_KILLS").ok();
    wanted.map_or(KILLS, |text| text.parse().expect("STRONGROOM_SOAK_KILLS is a number"))
}

#[test]
fn kills_under_load_lose_no_acknowledged_write_and_no_checkpoint() {
    let home = Home::new();
    let data = home.path("data").display().to_string();
    // Short intervals: kills fall into flushes and into the time between them.
    let serve = [Home::serve(&data).as_slice(), &["--flush-interval", "40ms"]].concat();
    let load = Load::new(&home, WRITERS, 0);
    let kills = kills();
    let (mut kills_with_writes, mut kills_at_start, mut checked) = (0, 0, 0);
    for round in 0..kills {
        if round % KILLED_AT_START_EVERY == 1 {
            kill_at_start(&home, &serve);
            kills_at_start += 1;
        }
        let mut server = Server::start(&home, &serve);
        let client = load.client(&server);
        if round == 0 {
            load.make_vault(&client);
        } else {
            let whole = round % CHECKED_WHOLE_EVERY == 0;
            checked +=
                load.check(&client, if whole { Check::Everything } else { Check::Newest(CHECKED_NEWEST) });
            load.check_published(&client);
        }
        let before = load.total();
        let writers = load.start(&client);
        // A published checkpoint must survive as well: the next round looks for it.
        load.wait_until_acknowledged(before + 20 + (round % 20) * 7);
        load.publish(&client);
        server.child.kill().expect("killed");
        server.child.wait().expect("it ends");
        load.join(writers);
        kills_with_writes += u64::from(load.total() > before);
    }
    assert_eq!(kills_with_writes, kills, "every kill must fall into a round with writes");
    let server = Server::start(&home, &serve);
    let client = load.client(&server);
    checked += load.check(&client, Check::Everything);
    load.check_published(&client);
    server.stop();
    let report = home.json(&["ledger", "doctor", "--data", &data]);
    assert_eq!(report["sound"], true, "{report}");
    println!(
        "\nsoak: kills of the real process | {kills} | {kills} kills under load, {kills_at_start} kills at start, {} \
         acknowledged writes, {checked} acknowledged writes read, {} recoveries, 0 violations",
        load.total(),
        kills + 1
    );
}

/// Kills a server as soon as it has the directory: it opens its files, repairs them, and replays its log then.
fn kill_at_start(home: &Home, serve: &[&str]) {
    let pid_file = home.path("data").join("ledger.pid");
    // The killed one before left it.
    let _ = std::fs::remove_file(&pid_file);
    let mut child = home.command(serve).spawn().expect("it starts");
    eventually("the directory is taken", || pid_file.exists().then_some(()));
    child.kill().expect("killed");
    child.wait().expect("it ends");
}
