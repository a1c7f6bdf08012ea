//! `cluster`: who this node is among others, and what it said about the cluster it belongs to, as lines of text.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{DirectoryError, durable_file, read_text_of};
use crate::peers::{
    ClusterId, IdentityError, Incarnation, MEMBER_TEXT_BYTES_MAX, MemberRecord, NodeName, PeerIdentity,
};

/// The first words of the file, before its version.
const FILE_WORDS: &str = "strongroom cluster ";
const VERSION: u32 = 1;
/// Most nodes that form a cluster together: each of them is a voter.
pub const FIRST_MEMBERS_MAX: usize = 7;
/// More than a file with the most and longest members has.
const FILE_BYTES_MAX: u64 = 32 * 1_024;
/// Stands where there is nothing to name.
const NOTHING: &str = "-";

/// What a node is part of, as its directory remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formation {
    /// Of no cluster.
    Unformed,
    /// Of no cluster: it gave up the identity that it had in one, and is to join that as a new node.
    Renounced {
        /// The cluster in which the directory's former node was.
        former: ClusterId,
    },
    /// It promised itself to a cluster that may exist, and to no other.
    Promised(Promise),
    /// It formed a cluster alone.
    Single,
    /// It formed a cluster together with others.
    Settled {
        /// The first members, this node among them, ascending by node id.
        members: Vec<MemberRecord>,
    },
    /// It was taken into a cluster that existed.
    Joined,
}

/// A node's word: it will be a member of this cluster and of no other, until the coordinator releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, ascending by node id: the first one coordinates.
    pub members: Vec<MemberRecord>,
}

impl Promise {
    /// The member that coordinates.
    pub fn coordinator(&self) -> Option<&MemberRecord> {
        self.members.first()
    }
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterFile {
    pub cluster: Option<ClusterId>,
    pub name: NodeName,
    pub incarnation: Incarnation,
    pub formation: Formation,
}

impl ClusterFile {
    /// Reads the file; `None` when it is missing.
    pub fn read(path: &Path) -> Result<Option<Self>, DirectoryError> {
        let text = match read_text_of(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DirectoryError::Io { action: "read", path: path.to_owned(), source }),
        };
        let damaged = |reason| DirectoryError::Damaged { path: path.to_owned(), reason };
        Self::parse(&text).map(Some).map_err(damaged)
    }

    pub fn write(&self, path: &Path) -> Result<(), DirectoryError> {
        durable_file::write(path, self.to_text().as_bytes(), 0o600)
    }

    fn to_text(&self) -> String {
        let hex =
            |cluster: Option<ClusterId>| cluster.map_or_else(|| NOTHING.to_owned(), |id| id.to_string());
        let (formed, members): (String, &[MemberRecord]) = match &self.formation {
            Formation::Unformed => (NOTHING.to_owned(), &[]),
            Formation::Renounced { former } => (format!("renounced {former}"), &[]),
            Formation::Promised(promise) => (format!("promised {}", promise.cluster), &promise.members),
            Formation::Single => ("single".to_owned(), &[]),
            Formation::Settled { members } => ("settled".to_owned(), members),
            Formation::Joined => ("joined".to_owned(), &[]),
        };
        let mut text = format!(
            "{FILE_WORDS}{VERSION}\ncluster {}\nname {}\nincarnation {}\nformed {formed}\n",
            hex(self.cluster),
            self.name,
            self.incarnation,
        );
        for MemberRecord { identity, peer_address, client_url } in members {
            let url = if client_url.is_empty() { NOTHING } else { client_url };
            let PeerIdentity { node_id, name, incarnation } = identity;
            // Writing to a string does not fail.
            let _ = writeln!(text, "member {node_id} {name} {incarnation} {peer_address} {url}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            value.ok_or_else(|| format!("a line {name:?} is missing"))
        };
        match field(FILE_WORDS.trim_end())?.parse() {
            Ok(VERSION) => {}
            _ => return Err(format!("this program reads version {VERSION} of it")),
        }
        let cluster = match field("cluster")? {
            NOTHING => None,
            hex => Some(hex.parse().map_err(|error: IdentityError| error.to_string())?),
        };
        let name = NodeName::new(field("name")?).map_err(|error: IdentityError| error.to_string())?;
        let incarnation = field("incarnation")?.parse().map_err(|error: IdentityError| error.to_string())?;
        let formed = field("formed")?;
        let members = lines.map(member).collect::<Result<Vec<_>, _>>()?;
        let formation = formation(formed, members)?;
        let has_cluster = match formation {
            Formation::Unformed | Formation::Renounced { .. } | Formation::Promised(_) => false,
            Formation::Single | Formation::Settled { .. } | Formation::Joined => true,
        };
        if has_cluster != cluster.is_some() {
            return Err(format!("formed {formed:?} does not fit its cluster"));
        }
        Ok(Self { cluster, name, incarnation, formation })
    }
}

/// Whether a text comes back as it was after it is read and written; `None` = it is no such file.
pub(crate) fn cluster_file_kept(text: &str) -> Option<bool> {
    let file = ClusterFile::parse(text).ok()?;
    Some(ClusterFile::parse(&file.to_text()).is_ok_and(|again| again == file))
}

fn formation(formed: &str, members: Vec<MemberRecord>) -> Result<Formation, String> {
    let id = |hex: &str| hex.parse().map_err(|error: IdentityError| error.to_string());
    let promised = formed.strip_prefix("promised ");
    let renounced = formed.strip_prefix("renounced ");
    let is_for_members = promised.is_some() || formed == "settled";
    if is_for_members {
        check_members(&members)?;
    } else if !members.is_empty() {
        return Err("it has members where none belong".to_owned());
    }
    match (formed, promised, renounced) {
        (_, Some(cluster), _) => Ok(Formation::Promised(Promise { cluster: id(cluster)?, members })),
        (_, _, Some(former)) => Ok(Formation::Renounced { former: id(former)? }),
        (NOTHING, ..) => Ok(Formation::Unformed),
        ("single", ..) => Ok(Formation::Single),
        ("settled", ..) => Ok(Formation::Settled { members }),
        ("joined", ..) => Ok(Formation::Joined),
        _ => Err(format!("formed {formed:?} says nothing")),
    }
}

/// First members of a cluster: as many as may be, ascending by id, each writable as a line.
pub(crate) fn check_members(members: &[MemberRecord]) -> Result<(), String> {
    if members.len() < 2 || members.len() > FIRST_MEMBERS_MAX {
        return Err(format!("{} members are not from 2 to {FIRST_MEMBERS_MAX}", members.len()));
    }
    let ascends = |pair: &[MemberRecord]| match pair {
        [one, next] => one.identity.node_id < next.identity.node_id,
        _ => true,
    };
    if !members.windows(2).all(ascends) {
        return Err("the members are not ascending by id".to_owned());
    }
    members.iter().try_for_each(check_record)
}

/// An address and a URL that are one word each, as short as they must be.
pub(crate) fn check_record(record: &MemberRecord) -> Result<(), String> {
    let is_word =
        |text: &str| text.len() <= MEMBER_TEXT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    let address = &record.peer_address;
    if address.is_empty() || !is_word(address) || !is_word(&record.client_url) || record.client_url == NOTHING
    {
        return Err(format!("the address or URL of node {} is none", record.identity.node_id));
    }
    Ok(())
}

fn member(line: &str) -> Result<MemberRecord, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["member", node_id, name, incarnation, peer_address, client_url] = words.as_slice() else {
        return Err("a line is no member's".to_owned());
    };
    let node_id = node_id.parse().map_err(|_| "a member's id is no number".to_owned())?;
    let identity = PeerIdentity {
        node_id,
        name: NodeName::new(*name).map_err(|error: IdentityError| error.to_string())?,
        incarnation: incarnation.parse().map_err(|error: IdentityError| error.to_string())?,
    };
    let client_url = if *client_url == NOTHING { String::new() } else { (*client_url).to_owned() };
    Ok(MemberRecord { identity, peer_address: (*peer_address).to_owned(), client_url })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node_id: u64) -> MemberRecord {
        let name = NodeName::new(format!("node-{node_id}")).expect("a name");
        MemberRecord {
            identity: PeerIdentity { node_id, name, incarnation: Incarnation([node_id as u8; 16]) },
            peer_address: format!("10.0.0.{node_id}:50052"),
            client_url: if node_id == 1 { String::new() } else { format!("https://n{node_id}:50051") },
        }
    }

    fn file(cluster: Option<ClusterId>, formation: Formation) -> ClusterFile {
        let name = NodeName::new("node-1").expect("a name");
        ClusterFile { cluster, name, incarnation: Incarnation([9; 16]), formation }
    }

    #[test]
    fn every_formation_is_read_back_as_it_was_written() {
        let members = vec![record(1), record(2), record(3)];
        let cluster = Some(ClusterId([7; 16]));
        let promise = Promise { cluster: ClusterId([8; 16]), members: members.clone() };
        for file in [
            file(None, Formation::Unformed),
            file(None, Formation::Promised(promise)),
            file(None, Formation::Renounced { former: ClusterId([9; 16]) }),
            file(cluster, Formation::Single),
            file(cluster, Formation::Settled { members }),
            file(cluster, Formation::Joined),
        ] {
            assert_eq!(ClusterFile::parse(&file.to_text()), Ok(file.clone()));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let settled =
            file(Some(ClusterId([0xab; 16])), Formation::Settled { members: vec![record(1), record(2)] });
        assert_eq!(
            settled.to_text(),
            "strongroom cluster 1\n\
             cluster abababababababababababababababab\n\
             name node-1\n\
             incarnation 09090909090909090909090909090909\n\
             formed settled\n\
             member 1 node-1 01010101010101010101010101010101 10.0.0.1:50052 -\n\
             member 2 node-2 02020202020202020202020202020202 10.0.0.2:50052 https://n2:50051\n"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = file(Some(ClusterId([1; 16])), Formation::Settled { members: vec![record(1), record(2)] })
            .to_text();
        assert!(ClusterFile::parse(&good).is_ok());
        for (from, to) in [
            ("cluster 1\n", "cluster 2\n"),
            ("cluster 01010101010101010101010101010101", "cluster -"),
            ("formed settled", "formed -"),
            ("formed settled", "formed single"),
            ("formed settled", "formed renounced"),
            ("formed settled", "formed renounced 01010101010101010101010101010101"),
            ("formed settled", "formed unknown"),
            ("name node-1\n", ""),
            ("member 2", "member 1"),
            ("member 2", "member x"),
            ("10.0.0.2:50052 https", "10.0.0.2:50052 and https"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(ClusterFile::parse(&good.replacen(from, to, 1)).is_err(), "{from} as {to}");
        }
    }
}
