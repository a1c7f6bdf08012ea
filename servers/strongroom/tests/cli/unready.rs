//! A server that does not become ready: what its probe says meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{eventually, free_port};

/// A process that runs and may never be ready. It ends with this value.
pub struct Unready {
    child: Child,
    probes: SocketAddr,
}

impl Unready {
    /// Starts what answers probes at the address that it is given.
    pub fn start(command: impl FnOnce(&str) -> Command) -> Self {
        let probes = free_port();
        let mut command = command(&probes.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("the program starts"), probes }
    }

    /// Status and body of the readiness probe; `None` while nobody listens.
    pub fn readiness(&self) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.probes).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until the probe says that the server is not ready, with these words.
    pub fn awaits(&self, what: &str, words: &str) -> String {
        eventually(what, || {
            let (status, body) = self.readiness()?;
            assert_eq!(status, 503, "{body}");
            body.contains(words).then_some(body)
        })
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
