//! Where the nodes of `dev --nodes` keep their data, and at which addresses they are.
//!
//! Members know each other by address, so a kept folder keeps the addresses too: `DIR/addresses` has a line per node,
//! `NAME CLIENTS PEERS METRICS`.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Between the ports of one node and the next: the ports for clients and for peers are neighbours.
const PORT_STEP: u16 = 10;
/// The file of addresses.
const ADDRESSES_FILE: &str = "addresses";
/// There once a node belongs to a ledger.
const LEDGER_KEY_FILE: &str = "log.key";
/// There in the directory of a node.
const FORMAT_FILE: &str = "format";
/// Most nodes that are looked for in a folder.
const NODES_LOOKED_FOR: usize = 7;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name, and that of its directory.
    pub name: String,
    /// Its directory.
    pub data: PathBuf,
    /// Its address for clients.
    pub listen: SocketAddr,
    /// Its address for peers.
    pub peer_listen: SocketAddr,
    /// Its address of probes and metrics.
    pub metrics: SocketAddr,
}

/// Where the first node would be alone; the others follow.
#[derive(Debug, Clone, Copy)]
pub struct FirstAddresses {
    /// Its address for clients.
    pub listen: SocketAddr,
    /// Its address of probes and metrics.
    pub metrics: SocketAddr,
}

/// All nodes, and the folder of their directories.
#[derive(Debug)]
pub struct Plan {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it goes with the process.
    pub is_ephemeral: bool,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// Whether these addresses were chosen just now.
    is_new: bool,
}

impl Plan {
    /// The nodes in a folder; `None` = a temporary one.
    pub fn make(folder: Option<&Path>, count: usize, first: FirstAddresses) -> Result<Self, Failure> {
        let (folder, is_ephemeral) = match folder {
            Some(folder) => (folder.to_owned(), false),
            None => (temporary_folder()?, true),
        };
        let folder = std::path::absolute(&folder).map_err(|error| Failure::file("find", &folder, &error))?;
        refuse_other_count(&folder, count)?;
        let make = || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        make().map_err(|error| Failure::file("make", &folder, &error))?;
        let mut plan = Self { folder, is_ephemeral, nodes: Vec::new(), is_new: false };
        match plan.read(count)? {
            Some(nodes) => plan.nodes = nodes,
            None => {
                plan.nodes = choose(&plan.folder, count, first)?;
                plan.is_new = true;
                plan.write()?;
            }
        }
        Ok(plan)
    }

    /// The nodes did not start. Addresses that nobody knows yet are chosen anew the next time.
    pub fn forget_unused_addresses(&self) {
        let is_formed = self.nodes.iter().any(|node| node.data.join(LEDGER_KEY_FILE).exists());
        if self.is_new && !is_formed {
            let _ = std::fs::remove_file(self.addresses_file());
        }
    }

    /// The file of addresses.
    pub fn addresses_file(&self) -> PathBuf {
        self.folder.join(ADDRESSES_FILE)
    }

    fn read(&self, count: usize) -> Result<Option<Vec<NodePlan>>, Failure> {
        let file = self.addresses_file();
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &file, &error)),
        };
        let nodes: Option<Vec<_>> = text.lines().map(|line| parse(&self.folder, line)).collect();
        match nodes {
            Some(nodes) if nodes.len() == count => Ok(Some(nodes)),
            _ => {
                let message = format!(
                    "{} is not what `dev --nodes {count}` wrote: a line per node, NAME CLIENTS PEERS METRICS",
                    file.display()
                );
                Err(Failure::error(message))
            }
        }
    }

    fn write(&self) -> Result<(), Failure> {
        let line = |node: &NodePlan| {
            format!("{} {} {} {}\n", node.name, node.listen, node.peer_listen, node.metrics)
        };
        let text: String = self.nodes.iter().map(line).collect();
        let file = self.addresses_file();
        std::fs::write(&file, text).map_err(|error| Failure::file("write", &file, &error))
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        if self.is_ephemeral {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Refuses a folder that another number of nodes keeps its data in.
pub fn refuse_other_count(folder: &Path, count: usize) -> Result<(), Failure> {
    let present = (1..=NODES_LOOKED_FOR).filter(|number| folder.join(name(*number)).is_dir()).count();
    let hint = match (count, present) {
        (1, 0) => return Ok(()),
        (1, nodes) => format!("start it with --nodes {nodes}"),
        _ if folder.join(FORMAT_FILE).exists() => "leave out --nodes: it belongs to one node".to_owned(),
        (_, 0) => return Ok(()),
        (count, nodes) if count == nodes => return Ok(()),
        (_, nodes) => format!("start it with --nodes {nodes}"),
    };
    let message = format!("{} does not hold the data of {count} nodes", folder.display());
    Err(Failure::usage(message).with_hint(hint))
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

fn parse(folder: &Path, line: &str) -> Option<NodePlan> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|name| name.starts_with("node-") && !name.contains('/'))?;
    let mut address = || words.next()?.parse().ok();
    let (listen, peer_listen, metrics) = (address()?, address()?, address()?);
    Some(NodePlan { name: name.to_owned(), data: folder.join(name), listen, peer_listen, metrics })
}

/// Each node's ports ten above those of the one before it, or free ones where those are taken.
fn choose(folder: &Path, count: usize, first: FirstAddresses) -> Result<Vec<NodePlan>, Failure> {
    // Held until all are chosen, so that no two are the same.
    let mut held = Vec::new();
    let mut hold = |wanted: SocketAddr| {
        let free = SocketAddr::new(wanted.ip(), 0);
        let listener = TcpListener::bind(wanted).or_else(|_| TcpListener::bind(free));
        let address = listener.and_then(|listener| {
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        });
        address.map_err(|error| Failure::error(format!("cannot take a port at {}: {error}", wanted.ip())))
    };
    let above = |address: SocketAddr, ports: u16| match address.port().checked_add(ports) {
        Some(port) if address.port() != 0 => SocketAddr::new(address.ip(), port),
        _ => SocketAddr::new(address.ip(), 0),
    };
    (1..=count)
        .map(|number| {
            let step = PORT_STEP.saturating_mul(u16::try_from(number - 1).unwrap_or(u16::MAX));
            Ok(NodePlan {
                name: name(number),
                data: folder.join(name(number)),
                listen: hold(above(first.listen, step))?,
                peer_listen: hold(above(first.listen, step.saturating_add(1)))?,
                metrics: hold(above(first.metrics, step))?,
            })
        })
        .collect()
}

fn temporary_folder() -> Result<PathBuf, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Failure::error(format!("no randomness: {error}")))?;
    Ok(std::env::temp_dir().join(format!("strongroom-{}", hex::encode(random))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: FirstAddresses = FirstAddresses {
        listen: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0),
        metrics: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0),
    };

    #[test]
    fn a_kept_folder_keeps_its_addresses_and_no_two_are_the_same() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let plan = Plan::make(Some(folder.path()), 3, FIRST).expect("a plan");
        let mut addresses: Vec<_> =
            plan.nodes.iter().flat_map(|node| [node.listen, node.peer_listen, node.metrics]).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 9);
        let again = Plan::make(Some(folder.path()), 3, FIRST).expect("a plan");
        assert_eq!(again.nodes, plan.nodes);
        // Nobody has learned these addresses: they may have been the reason for the failure.
        again.forget_unused_addresses();
        assert!(plan.addresses_file().exists(), "not those of an earlier start");
        plan.forget_unused_addresses();
        assert!(!plan.addresses_file().exists());
    }

    #[test]
    fn a_folder_of_another_number_of_nodes_is_refused_with_that_number() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let hint = |count| refuse_other_count(folder.path(), count).err().and_then(|failure| failure.hint);
        assert_eq!((hint(1), hint(3)), (None, None));
        for number in 1..=3 {
            std::fs::create_dir(folder.path().join(name(number))).expect("a directory");
        }
        assert_eq!(hint(3), None);
        for other in [1, 5] {
            assert!(hint(other).is_some_and(|hint| hint.contains("--nodes 3")));
        }
        let alone = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(alone.path().join(FORMAT_FILE), "2\n").expect("written");
        let refused = refuse_other_count(alone.path(), 3).expect_err("one node's");
        assert!(refused.hint.is_some_and(|hint| hint.contains("leave out --nodes")));
    }

    #[test]
    fn a_damaged_file_of_addresses_is_named() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for text in ["node-1 127.0.0.1:1 127.0.0.1:2 127.0.0.1:3\n", "../x 1 2 3\n", "\n\n\n", "node-1"] {
            std::fs::write(folder.path().join(ADDRESSES_FILE), text).expect("written");
            let refused = Plan::make(Some(folder.path()), 3, FIRST).expect_err("damaged");
            assert!(refused.message.contains("addresses"), "{refused:?}");
        }
    }
}
