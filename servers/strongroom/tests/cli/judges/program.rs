//! Finding, starting and stopping them.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::harness::{DEADLINE, Home};

/// Where servers are that a user's path may lack.
const SYSTEM: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin"];

/// The program that scripts/setup installed, else the system's. `None`, said aloud, when there is neither.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(installed_by_setup()).chain(std::env::split_paths(&path));
    let mut programs = places.chain(SYSTEM.map(PathBuf::from)).map(|place| place.join(name));
    let found = programs.find(|program| program.is_file());
    if found.is_none() {
        println!("skipped: needs {name} (scripts/setup installs it)");
    }
    found
}

/// A Python that has this library.
pub fn python_with(library: &str) -> Option<PathBuf> {
    let has_it = |python: &PathBuf| {
        let mut probe = Command::new(python);
        probe.args(["-c", &format!("import {library}")]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let pythons = [installed_by_setup().join("python3"), PathBuf::from("python3")];
    let found = pythons.into_iter().find(has_it);
    if found.is_none() {
        println!("skipped: needs python3 with {library} (scripts/setup installs it)");
    }
    found
}

/// Below the target directory, as scripts/setup has it.
fn installed_by_setup() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("."));
    target.join("judges/bin")
}

/// One that runs. Stopped by its process id when dropped.
pub struct Running {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Running {
    /// Starts it and waits until it listens. What it logs comes with the test's own output.
    pub fn start(home: &Home, program: &Path, arguments: &[&str], address: SocketAddr) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(home.path("home")).env_clear();
        command.env("PATH", SYSTEM.join(":")).env("HOME", home.path("home")).env("TMPDIR", home.path("tmp"));
        let log = std::fs::File::create(home.path("judge.log")).expect("a file");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a file")).stdout(log);
        let process = command.spawn().expect("it starts");
        let mut running = Self { process, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = running.process.try_wait().expect("a child");
            let is_late = started.elapsed() > DEADLINE;
            if ended.is_some() || is_late {
                let log = std::fs::read_to_string(home.path("judge.log")).unwrap_or_default();
                panic!("{} does not listen on {address} ({ended:?}):\n{log}", program.display());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
