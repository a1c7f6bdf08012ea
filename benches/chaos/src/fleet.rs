//! The processes: started, killed, frozen and cut off from each other. Each is known by its process id.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use ledger_simulation::network::Endpoint;
use ledger_simulation::violation::Violation;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::hosts::Host;
use crate::settings::{NODES, Settings};

/// Where clients reach a node.
const CLIENT_PORT: u16 = 50_051;
/// Where peers do.
const PEER_PORT: u16 = 50_052;
/// Lines of a node's log that a report shows.
const LOG_LINES_SHOWN: usize = 12;

/// What can be done to the way between a node and the others. Clients reach it all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Neither side hears the other.
    BothWays,
    /// The node hears nobody; the others hear it.
    Deaf,
    /// Nobody hears the node; it hears the others.
    Mute,
}

/// The processes.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    work: PathBuf,
    hosts: Vec<Host>,
    processes: Vec<Option<Child>>,
}

impl Fleet {
    /// Makes the certificates; nothing runs yet.
    pub async fn prepare(settings: &Settings) -> anyhow::Result<Self> {
        ensure!(
            settings.hosts.len() == NODES && settings.addresses.len() == NODES,
            "{NODES} hosts are needed"
        );
        let hosts = settings.hosts.iter().zip(&settings.addresses);
        let hosts = hosts.map(|(netns, address)| Host { netns: netns.clone(), address: *address }).collect();
        let fleet = Self {
            program: settings.strongroom.clone(),
            work: settings.work.clone(),
            hosts,
            processes: (0..NODES).map(|_| None).collect(),
        };
        let certificates = fleet.work.join("certs").display().to_string();
        fleet.tool(&["certs", "ca", "--out", &certificates]).await?;
        for (index, host) in fleet.hosts.iter().enumerate() {
            let (name, address) = (name_of(index), host.address.to_string());
            let made = [
                "certs",
                "node",
                &name,
                "--ca",
                &certificates,
                "--out",
                &certificates,
                "--address",
                &address,
            ];
            fleet.tool(&made).await?;
        }
        Ok(fleet)
    }

    /// Where clients reach a node.
    pub fn url(&self, index: usize) -> String {
        format!("https://{}:{CLIENT_PORT}", self.hosts[index].address)
    }

    /// The certificate of the authority, PEM.
    pub fn authority_pem(&self) -> anyhow::Result<String> {
        let path = self.work.join("certs/ca.pem");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The administrator's token, once a node has minted it.
    pub fn admin_token(&self) -> Option<String> {
        let token = |index| std::fs::read_to_string(self.data(index).join("admin.token")).ok();
        (0..NODES).find_map(token).map(|token| token.trim_end().to_owned())
    }

    /// The identity file of a node; a line `cluster` names the cluster.
    pub fn identity_file(&self, index: usize) -> anyhow::Result<String> {
        let path = self.data(index).join("cluster");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The directory of a node's data.
    pub fn data(&self, index: usize) -> PathBuf {
        self.work.join(format!("disk-{index}")).join("data")
    }

    /// Starts a node, or starts it again on what it has.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let (host, name) = (&self.hosts[index], name_of(index));
        let certificate = |file: String| self.work.join("certs").join(file);
        let peers: Vec<String> =
            self.hosts.iter().map(|host| format!("{}:{PEER_PORT}", host.address)).collect();
        let mut command = host.command(&self.program);
        without_settings(&mut command);
        command
            .args([
                "ledger",
                "serve",
                "--bootstrap",
                "3",
                "--poll",
                "100ms",
                "--log-format",
                "text",
                "--metrics",
            ])
            .args(["127.0.0.1:9090", "--name", &name, "--join", &peers.join(",")])
            .args(["--listen", &format!("{}:{CLIENT_PORT}", host.address)])
            .args(["--peer-listen", &format!("{}:{PEER_PORT}", host.address)])
            .arg("--data")
            .arg(self.data(index));
        for (flag, file) in [
            ("--tls-cert", format!("{name}.pem")),
            ("--tls-key", format!("{name}.key")),
            ("--peer-tls-cert", format!("{name}.pem")),
            ("--peer-tls-key", format!("{name}.key")),
            ("--peer-ca", "ca.pem".to_owned()),
        ] {
            command.arg(flag).arg(certificate(file));
        }
        let log = appended(&self.log(index))?;
        let child = command.stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn();
        self.processes[index] = Some(child.context("a node does not start")?);
        Ok(())
    }

    /// Kills a process as a power cut would, and waits until it is gone.
    pub async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.processes[index].take() {
            child.kill().await.context("a node cannot be killed")?;
        }
        Ok(())
    }

    /// Stops a process in the middle of what it does.
    pub fn freeze(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::CONT)
    }

    /// Cuts a node off from the others.
    pub async fn cut(&self, index: usize, cut: Cut) -> anyhow::Result<()> {
        let others: Vec<&Host> =
            (0..NODES).filter(|other| *other != index).map(|other| &self.hosts[other]).collect();
        if cut != Cut::Mute {
            let addresses: Vec<Ipv4Addr> = others.iter().map(|host| host.address).collect();
            self.hosts[index].drop_from(&addresses).await?;
        }
        if cut != Cut::Deaf {
            for other in others {
                other.drop_from(&[self.hosts[index].address]).await?;
            }
        }
        Ok(())
    }

    /// Everybody hears everybody; answers how many packets were lost.
    pub async fn heal(&self) -> anyhow::Result<u64> {
        let mut lost = 0;
        for host in &self.hosts {
            lost += host.accept_all().await?;
        }
        Ok(lost)
    }

    /// Processes that ended by themselves: none should.
    pub fn ended_by_themselves(&mut self) -> Vec<Violation> {
        let mut ended = Vec::new();
        for index in 0..NODES {
            let status = self.processes[index].as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = status {
                self.processes[index] = None;
                let reason = format!("{status}; its log ends with\n{}", self.end_of_log(index));
                ended.push(Violation::Stopped { node: endpoint(index), reason });
            }
        }
        ended
    }

    fn end_of_log(&self, index: usize) -> String {
        let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let id = self.processes[index].as_ref().and_then(Child::id);
        let pid =
            id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("the node does not run")?;
        kill_process(pid, signal).context("a node cannot be signalled")
    }

    fn log(&self, index: usize) -> PathBuf {
        self.work.join(format!("{}.log", name_of(index)))
    }

    async fn tool(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        without_settings(&mut command);
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .context("the program does not run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "strongroom {}: {said}", arguments.join(" "));
        Ok(())
    }
}

/// A node as the evidence calls it.
pub fn endpoint(index: usize) -> Endpoint {
    Endpoint(u8::try_from(index + 1).unwrap_or(u8::MAX))
}

fn name_of(index: usize) -> String {
    format!("node-{}", index + 1)
}

/// What is set in this shell is no part of the run.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STRONGROOM_") {
            command.env_remove(name);
        }
    }
}

fn appended(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}
