//! `strongroom ledger cluster …`

mod status;

use clap::{Args, Subcommand};
use ledger_client::{ClusterInfo, ClusterNode, LedgerClient, MembershipChange, MembershipKind};
use serde_json::json;

use crate::discovery::ServerArgs;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The commands. All but `status` change the cluster; all need a token with the role admin on *.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show members, leader and how far each member has come.
    #[command(
        after_help = "Works while some nodes are down: whoever answers is asked, the leader if it can be reached.\n\n\
        Examples:\n  \
        strongroom ledger cluster status\n  \
        strongroom ledger cluster status --url http://10.0.0.1:50051,http://10.0.0.2:50051 --json"
    )]
    Status(Status),
    /// Take a node into the cluster, by the address where its peers reach it.
    #[command(
        after_help = "A node that is started with --bootstrap 0 asks the cluster by itself; this does the same by \
        hand. The node receives\neverything first, and votes once it has caught up and there is a vote to give.\n\n\
        Examples:\n  \
        strongroom ledger cluster join 10.0.0.4:50052\n  \
        strongroom ledger cluster join 10.0.0.4:50052 --id 1234567890 --name node-4 --incarnation 00112233445566778899aabbccddeeff"
    )]
    Join(Join),
    /// Take the node at --url out of its cluster. A leader hands over first. It stays out until `join`, or a start with --rejoin.
    #[command(after_help = "Example:\n  strongroom ledger cluster leave --url http://10.0.0.3:50051")]
    Leave(Leave),
    /// Hand the lead to another voter.
    #[command(after_help = "Examples:\n  \
        strongroom ledger cluster transfer\n  \
        strongroom ledger cluster transfer node-2")]
    Transfer(Transfer),
    /// Take a node out of the cluster. It stays out until `join`, or a start with --rejoin.
    #[command(after_help = "Example:\n  strongroom ledger cluster remove node-3")]
    Remove(Remove),
}

/// `cluster status`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    server: ServerArgs,
}

/// `cluster join`
#[derive(Debug, Args)]
pub struct Join {
    /// Where the node's peers reach it, HOST:PORT.
    #[arg(value_name = "PEER_ADDRESS")]
    peer_address: String,
    /// The node's number. Without it, and the next two, the cluster asks at the address who the node is.
    #[arg(long, requires = "name", requires = "incarnation")]
    id: Option<u64>,
    /// The node's name, which its certificate carries.
    #[arg(long, requires = "id")]
    name: Option<String>,
    /// The node's incarnation: 32 hexadecimal digits, the third line of the file `cluster` in its data directory.
    #[arg(long, requires = "id", value_parser = incarnation, value_name = "HEX")]
    incarnation: Option<[u8; 16]>,
    /// Where the node's clients reach it.
    #[arg(long, requires = "id", value_name = "URL", default_value = "", hide_default_value = true)]
    client_url: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// `cluster leave`
#[derive(Debug, Args)]
pub struct Leave {
    #[command(flatten)]
    server: ServerArgs,
}

/// `cluster transfer`
#[derive(Debug, Args)]
pub struct Transfer {
    /// The next leader, by name or number. Default: the voter that has most of the log.
    node: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// `cluster remove`
#[derive(Debug, Args)]
pub struct Remove {
    /// The node, by name or number.
    node: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl Cluster {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status::run(&status.server, output).await,
            Self::Join(join) => {
                let node = ClusterNode {
                    node_id: join.id.unwrap_or(0),
                    name: join.name.unwrap_or_default(),
                    incarnation: join.incarnation,
                    peer_address: join.peer_address,
                    client_url: join.client_url,
                };
                let client = join.server.client()?;
                let change = client.join_cluster(&node).await?;
                let name = client.cluster_info().await.ok().and_then(|info| name_of(&info, change.node_id));
                print(output, change, name)
            }
            Self::Leave(leave) => {
                let client = leave.server.client_of_one_node()?;
                // Afterwards nobody knows it any more.
                let info = client.cluster_info().await?;
                let change = client.leave_cluster().await?;
                print(output, change, name_of(&info, change.node_id))
            }
            Self::Transfer(transfer) => {
                let client = transfer.server.client()?;
                let to = match &transfer.node {
                    None => None,
                    Some(node) => Some(member_id(&client, node).await?),
                };
                let leader_id = client.transfer_leadership(to).await?;
                let name = client.cluster_info().await.ok().and_then(|info| name_of(&info, leader_id));
                let document = json!({ "leader_id": leader_id, "name": name });
                output.result(&document, || format!("leads now  {}", named(leader_id, name.as_deref())))
            }
            Self::Remove(remove) => {
                let client = remove.server.client()?;
                // Afterwards nobody knows it any more.
                let info = client.cluster_info().await?;
                let node_id = find(&info, &remove.node)?;
                print(output, client.remove_node(node_id).await?, name_of(&info, node_id))
            }
        }
    }
}

fn incarnation(text: &str) -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "an incarnation is 32 hexadecimal digits".to_owned())?;
    Ok(bytes)
}

/// The member that a name or a number stands for.
async fn member_id(client: &LedgerClient, text: &str) -> Result<u64, Failure> {
    find(&client.cluster_info().await?, text)
}

fn find(info: &ClusterInfo, text: &str) -> Result<u64, Failure> {
    let number = text.parse().ok();
    let mut namesakes = info.members.iter().map(|member| &member.node).filter(|node| node.name == text);
    let named = namesakes.next();
    if let (Some(one), Some(other)) = (named, namesakes.next()) {
        let message = format!("{text} is the name of node {} and of node {}", one.node_id, other.node_id);
        return Err(
            Failure::usage(message).with_hint("name it by its number: the one that answers is the newer one")
        );
    }
    let numbered = info.members.iter().map(|member| &member.node).find(|node| Some(node.node_id) == number);
    named.or(numbered).map(|node| node.node_id).ok_or_else(|| {
        let message = format!("{text} is neither the name nor the number of a member");
        Failure::new(Exit::NotFound, "UNKNOWN_NODE", message)
            .with_hint("look at strongroom ledger cluster status")
    })
}

fn name_of(info: &ClusterInfo, node_id: u64) -> Option<String> {
    let member = info.members.iter().find(|member| member.node.node_id == node_id)?;
    Some(member.node.name.clone()).filter(|name| !name.is_empty())
}

/// A node for people: its name, and the number that is its own for ever.
fn named(node_id: u64, name: Option<&str>) -> String {
    name.map_or_else(|| node_id.to_string(), |name| format!("{name} ({node_id})"))
}

fn print(output: Output, change: MembershipChange, name: Option<String>) -> Result<(), Failure> {
    let document = json!({
        "node_id": change.node_id,
        "name": name,
        "change": change.kind.as_str(),
        "log_index": change.log_index,
    });
    output.result(&document, || {
        let what = match change.kind {
            MembershipKind::Learner => "receives everything; votes once it has caught up",
            MembershipKind::Voter => "votes",
            _ => "removed",
        };
        format!("{}  {what}", named(change.node_id, name.as_deref()))
    })
}

#[cfg(test)]
mod tests {
    use ledger_client::{ClusterMember, MemberRole};

    use super::*;

    #[test]
    fn a_member_is_found_by_its_name_before_its_number() {
        let member = |node_id, name: &str| ClusterMember {
            node: ClusterNode { node_id, name: name.to_owned(), ..ClusterNode::default() },
            role: MemberRole::Voter,
            matched_index: None,
            last_heard_ms: None,
            clock_ahead_ms: None,
        };
        let info = ClusterInfo {
            node_id: 1,
            cluster_id: None,
            term: 1,
            leader_id: None,
            members: vec![member(1, "2"), member(2, "node-b")],
            is_changing: false,
            is_ready: true,
            divergences: Vec::new(),
        };
        assert_eq!(find(&info, "node-b").ok(), Some(2));
        // A machine with a new directory, until the old node is taken out.
        let twice = ClusterInfo { members: vec![member(3, "node-b"), member(4, "node-b")], ..info.clone() };
        assert_eq!(find(&twice, "node-b").map_err(|failure| failure.exit), Err(Exit::Usage));
        assert_eq!(find(&twice, "4").ok(), Some(4));
        assert_eq!(find(&info, "2").ok(), Some(1));
        assert_eq!(find(&info, "1").ok(), Some(1));
        assert_eq!(find(&info, "3").map_err(|failure| failure.exit), Err(Exit::NotFound));
    }
}
