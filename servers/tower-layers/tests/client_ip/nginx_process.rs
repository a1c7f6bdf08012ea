//! nginx as a judge: it answers with the address that its real-ip module found.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A running nginx. Stopped by its process id when dropped.
pub struct Nginx {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// The program, or why there is none.
pub fn program() -> Option<&'static str> {
    let runs = |program: &&str| Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok();
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(runs);
    if found.is_none() {
        println!("skipped: needs nginx (scripts/setup installs it)");
    }
    found
}

impl Nginx {
    /// Starts one that trusts these networks.
    pub fn start(program: &str, trusted: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // nginx has no port 0: a port that was free a moment ago, again if somebody took it.
        for _ in 0..5 {
            let address =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
            std::fs::write(folder.path().join("nginx.conf"), configuration(address, trusted))
                .expect("written");
            let mut process = spawn(program, folder.path());
            if answers(&mut process, address) {
                return Self { process, address, _folder: folder };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("nginx does not start: see its messages above");
    }

    /// A connection on which many requests can be sent.
    pub fn connect(&self) -> Judge {
        let stream = TcpStream::connect(self.address).expect("nginx accepts");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
        stream.set_nodelay(true).expect("set");
        Judge { stream: BufReader::new(stream) }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(program: &str, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("nginx runs")
}

fn answers(process: &mut Child, address: SocketAddr) -> bool {
    let deadline = Instant::now() + START_MAX;
    while Instant::now() < deadline && process.try_wait().is_ok_and(|ended| ended.is_none()) {
        if TcpStream::connect(address).is_ok() {
            return process.try_wait().is_ok_and(|ended| ended.is_none());
        }
        std::thread::yield_now();
    }
    false
}

fn configuration(address: SocketAddr, trusted: &str) -> String {
    let networks: String =
        trusted.split(", ").map(|network| format!("set_real_ip_from {network};\n")).collect();
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = folders.map(|name| format!("{name}_temp_path {name};\n")).concat();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {{ }}
http {{
access_log off;
{folders}
server {{
listen {address};
keepalive_requests 1000000;
{networks}
real_ip_header X-Forwarded-For;
real_ip_recursive on;
location / {{ return 200 \"$remote_addr\"; }}
}}
}}
"
    )
}

/// A connection to nginx.
pub struct Judge {
    stream: BufReader<TcpStream>,
}

impl Judge {
    /// The client that nginx finds in these lines of `X-Forwarded-For`.
    pub fn client(&mut self, lines: &[String]) -> IpAddr {
        let headers: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: judge\r\n{headers}\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).expect("sent");
        let (mut length, mut status) = (0, String::new());
        self.stream.read_line(&mut status).expect("an answer");
        assert!(status.starts_with("HTTP/1.1 200"), "{status:?} to {request:?}");
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a header");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        let text = String::from_utf8(body).expect("text");
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no address"))
    }
}
