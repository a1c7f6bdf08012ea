//! Runs the program in a home of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Directories that belong to one test alone.
pub struct Home {
    directory: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["run", "state", "home", "tmp"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `dev` on free ports and a data directory.
    pub fn dev(data: &str) -> Vec<&str> {
        [&["dev"], Self::on_free_ports(data).as_slice()].concat()
    }

    /// `ledger serve` on free ports and a data directory.
    pub fn serve(data: &str) -> Vec<&str> {
        [&["ledger", "serve"], Self::on_free_ports(data).as_slice()].concat()
    }

    fn on_free_ports(data: &str) -> [&str; 6] {
        ["--data", data, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("XDG_STATE_HOME", self.path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, and reads its one JSON object.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let said = self.run(&with_json);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said:?}"))
    }

    /// Runs a command until it succeeds, as an operator does while nobody leads. What an attempt without an answer did
    /// is refused to the next one by the name `done`: then there is no answer.
    pub fn persists(&self, arguments: &[&str], done: &str) -> Option<Value> {
        let with_json = [arguments, &["--json"]].concat();
        eventually(&format!("{arguments:?} succeeds"), || {
            let said = self.run(&with_json);
            match said.code {
                0 => Some(Some(serde_json::from_str(&said.stdout).expect("one JSON object"))),
                _ => (said.refusal()["code"] == done).then_some(None),
            }
        })
    }

    /// Runs a command that must fail with `code`; returns its error object.
    pub fn refusal(&self, code: i32, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let said = self.run(&with_json);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        said.refusal()
    }
}

impl Said {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code().expect("an exit code, no signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The error object, which must have a code, a message and a hint or none.
    pub fn refusal(&self) -> Value {
        let document: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let error = &document["error"];
        assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{document}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        assert!(error["hint"].is_string() || error["hint"].is_null(), "{document}");
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(1));
        error.clone()
    }
}

/// A server that runs.
pub struct Server {
    pub child: Child,
    pub ready: Value,
    pub log: std::thread::JoinHandle<String>,
}

impl Server {
    /// Starts `dev` on free ports.
    pub fn dev(home: &Home) -> Self {
        Self::start(home, &["dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
    }

    /// Starts a server; it must become ready.
    pub fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        Self::spawn(&mut home.command(&with_json)).unwrap_or_else(|said| panic!("{arguments:?}: {said:?}"))
    }

    /// Starts a server, or says what it said instead.
    pub fn spawn(command: &mut Command) -> Result<Self, Said> {
        let mut child = command.spawn().expect("the program starts");
        let mut stderr = child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        if ready["ready"] != true {
            let code = child.wait().expect("it ended").code().unwrap_or(-1);
            return Err(Said { code, stdout: line, stderr: log.join().unwrap_or_default() });
        }
        // The rest of standard output must stay empty; whoever prints more blocks nobody.
        child.stdout = Some(stdout.into_inner());
        Ok(Self { child, ready, log })
    }

    pub fn url(&self) -> &str {
        self.ready["ledger_url"].as_str().expect("a URL")
    }

    /// A number of the metrics page, by its name with labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let address = self.metrics_url().strip_prefix("http://").expect("plain");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("text");
        let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        page.lines().find_map(of_name)
    }

    pub fn metrics_url(&self) -> &str {
        self.ready["metrics_url"].as_str().expect("a URL")
    }

    pub fn token(&self) -> String {
        let file = self.ready["token_file"].as_str().expect("a token file");
        std::fs::read_to_string(file).expect("readable").trim_end().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for the end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(started.elapsed() < DEADLINE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut rest = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            let _ = stdout.read_to_string(&mut rest);
        }
        assert_eq!(rest, "", "standard output has more than its one line");
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
        (status, log.join().unwrap_or_default())
    }

    /// Asks for the end and waits for it; returns the log.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `dev` with a vault `acme/prod`.
pub fn dev_with_vault() -> (Home, Server) {
    let home = Home::new();
    let server = Server::dev(&home);
    make_vault(&home);
    (home, server)
}

pub fn make_vault(home: &Home) {
    home.persists(&["ledger", "namespace", "create", "acme"], "NAMESPACE_EXISTS");
    home.persists(&["ledger", "vault", "create", "acme/prod"], "VAULT_EXISTS");
}

/// A client of the library, for load.
pub fn client(
    runtime: &tokio::runtime::Runtime,
    server: &Server,
    pins: &Path,
) -> ledger_client::LedgerClient {
    let _entered = runtime.enter();
    let (url, token) = (server.url(), server.token());
    let mut options = ledger_client::ClientOptions::new(url).with_token(token);
    // The limits of requests are what some tests are about.
    options.calls = ledger_client::CallPath::Requests;
    options.retry.tries_max = 1;
    options.request_timeout = Duration::from_secs(20);
    let pins = std::sync::Arc::new(ledger_client::DirectoryPins::new(pins));
    ledger_client::LedgerClient::connect(options, pins).expect("valid options")
}

/// One put.
pub fn put(key: &str, value: impl Into<Vec<u8>>) -> Vec<ledger_core::transaction::Operation> {
    use ledger_core::entity::{EntityKey, EntityValue};
    use ledger_core::transaction::{Action, Operation};
    let key = EntityKey::new(key).expect("a valid key");
    let value = EntityValue::new(value.into()).expect("a small value");
    vec![Operation { action: Action::SetEntity { key, value, expires_at_ms: 0 }, condition: None }]
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub fn vault() -> ledger_core::names::VaultRef {
    "acme/prod".parse().expect("a valid name")
}

/// Polls until the answer is there.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Below the ports that systems give to whoever does not name one (from 32,768 on Linux): who listens on one of these,
/// stops and comes back finds it free.
const PORTS: std::ops::Range<u32> = 12_000..32_000;
/// Tests run in processes of their own, with numbers close to each other.
const PORTS_OF_A_PROCESS: u32 = 16;

/// Ports of this machine that are free, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = || {
        let of_this_process = std::process::id().wrapping_mul(PORTS_OF_A_PROCESS);
        let place = of_this_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(PORTS.start + place % (PORTS.end - PORTS.start)).expect("a port")
    };
    let is_free = |port: &u16| {
        let hosts = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
        hosts.into_iter().all(|host| TcpListener::bind((host, *port)).is_ok())
    };
    std::array::from_fn(|_| std::iter::repeat_with(next).take(1_000).find(is_free).expect("a free port"))
}

/// The same, one, on loopback.
pub fn free_port() -> SocketAddr {
    let [port] = free_ports();
    SocketAddr::from(([127, 0, 0, 1], port))
}
