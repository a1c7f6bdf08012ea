//! The example `ratelimit_tower`, asked by curl.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The running example. Stopped by its process id when dropped.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where cargo puts examples: beside the folder of this test. It builds them before it runs tests.
fn example() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a folder of the profile");
    let found = Some(profile.join("examples/ratelimit_tower")).filter(|program| program.is_file());
    if found.is_none() {
        println!("skipped: needs the example (cargo build -p strongroom-examples --examples)");
    }
    found
}

fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
    let output = command.output().expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").to_ascii_lowercase()
}

#[test]
fn twenty_requests_pass_at_once_then_curl_is_told_to_wait() {
    const PERIOD: Duration = Duration::from_secs(1);
    if !Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|curl| curl.success())
    {
        println!("skipped: needs curl (scripts/setup installs it)");
        return;
    }
    let Some(program) = example() else { return };
    let mut command = Command::new(program);
    let child = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut example = Example(child);
    let mut url = String::new();
    let mut stdout = BufReader::new(example.0.stdout.take().expect("piped"));
    stdout.read_line(&mut url).expect("a line");
    let url = url.trim();

    // One curl for all of them: what comes back meanwhile is one for each second.
    let started = Instant::now();
    let told = curl(&["-o", "/dev/null", "-w", "%{http_code}\n", &format!("{url}/?[1-40]")]);
    let came_back = started.elapsed().as_secs() / PERIOD.as_secs() + 1;
    let statuses: Vec<&str> = told.lines().collect();
    assert_eq!((statuses.len(), &statuses[..20]), (40, ["200"; 20].as_slice()));
    let passed = statuses.iter().filter(|status| **status == "200").count() as u64;
    assert!(passed <= 20 + came_back, "{passed} in {:?}", started.elapsed());
    assert!(statuses.iter().all(|status| ["200", "429"].contains(status)), "{statuses:?}");

    let deadline = Instant::now() + Duration::from_secs(20);
    let denied = loop {
        let answer = curl(&["-i", url]);
        if answer.starts_with("http/1.1 429") {
            break answer;
        }
        assert!(Instant::now() < deadline, "nothing is denied any more: {answer}");
    };
    for header in
        ["\nretry-after: 1\r", "\nratelimit: \"per-client\";r=0;t=1", "\nratelimit-policy: \"per-client\";q="]
    {
        assert!(denied.contains(header), "{header:?} in {denied}");
    }
}
