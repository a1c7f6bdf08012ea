//! The service behind a proxy, and the client in front of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::DEADLINE;

/// A service that answers `served`, and counts.
pub struct Backend {
    pub address: SocketAddr,
    served: Arc<AtomicU32>,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&served);
        // It ends with the process, which is the test's.
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                serve(connection, &count);
            }
        });
        Self { address, served }
    }

    /// Requests that reached it.
    pub fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }
}

fn serve(mut connection: TcpStream, served: &AtomicU32) {
    let reader = BufReader::new(connection.try_clone().expect("a socket"));
    let head: Vec<String> =
        reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    if head.is_empty() {
        return;
    }
    served.fetch_add(1, Ordering::Relaxed);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nserved";
    let _ = connection.write_all(answer.as_bytes());
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `Retry-After`, which a limit of some a week makes at most so many seconds.
    pub fn has_a_wait(&self) -> bool {
        const WEEK_S: u64 = 7 * 24 * 3_600;
        let seconds = self.header("retry-after").and_then(|text| text.parse().ok());
        seconds.is_some_and(|seconds: u64| (1..=WEEK_S).contains(&seconds))
    }
}

/// A GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Answer {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        headers: headers.collect(),
        body: body.to_owned(),
    }
}
