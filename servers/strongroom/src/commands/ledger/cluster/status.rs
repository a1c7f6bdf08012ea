//! `strongroom ledger cluster status`: what the leader knows, or whoever answers, and which members answer.

use std::time::{Duration, Instant};

use ledger_client::{ClusterInfo, ClusterMember, MemberRole, NodeInfo, ReplicaDivergence};
use serde_json::{Value, json};

use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// How long each member may take to answer; the others do not wait for it.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an election may take before it is said that nobody leads, and how often it is looked.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);
const LEADER_POLL: Duration = Duration::from_millis(100);
/// What stands for the name of a ledger that runs alone: it has one only among others.
const ALONE: &str = "this node";

/// A member, and what it said itself.
struct Seen {
    member: ClusterMember,
    /// Else why there is none.
    answer: Result<NodeInfo, String>,
    /// What it was found to have otherwise than its leader.
    divergences: Vec<ReplicaDivergence>,
}

pub(super) async fn run(server: &ServerArgs, output: Output) -> Result<(), Failure> {
    let info = settled(server).await?;
    let mut asking = tokio::task::JoinSet::new();
    for (position, member) in info.members.iter().enumerate() {
        let server = server.clone();
        let member = member.clone();
        let answered = member.node.node_id == info.node_id;
        asking.spawn(async move { (position, see(&server, member, answered).await) });
    }
    let mut seen: Vec<(usize, Seen)> = Vec::new();
    while let Some(asked) = asking.join_next().await {
        seen.push(asked.map_err(|error| Failure::error(error.to_string()))?);
    }
    seen.sort_by_key(|(position, _)| *position);
    let seen: Vec<Seen> = seen.into_iter().map(|(_, seen)| seen).collect();
    output.result(&document(&info, &seen), || render(&info, &seen))
}

/// What is known, once somebody leads as far as the answering node knows; after a while also when nobody does. An election, or
/// a hand-over, is over by then.
async fn settled(server: &ServerArgs) -> Result<ClusterInfo, Failure> {
    let client = server.client()?;
    let deadline = Instant::now() + LEADER_PATIENCE;
    loop {
        let info = of_the_leader(server, client.cluster_info().await?).await;
        if has_leader(&info) || Instant::now() >= deadline {
            return Ok(info);
        }
        tokio::time::sleep(LEADER_POLL).await;
    }
}

/// A node that is ready has heard a moment ago from its leader that a majority answers it; one that is not may know only who led
/// last.
fn has_leader(info: &ClusterInfo) -> bool {
    info.is_ready && info.leader_id.is_some()
}

/// The leader knows how far each member is: when another node answered, it is asked as well.
async fn of_the_leader(server: &ServerArgs, info: ClusterInfo) -> ClusterInfo {
    let url = match info.leader_url() {
        Some(url) if info.leader_id != Some(info.node_id) => url,
        _ => return info,
    };
    match server.client_at(url, MEMBER_TIMEOUT) {
        Ok(client) => {
            client.cluster_info().await.ok().filter(|known| known.term >= info.term).unwrap_or(info)
        }
        Err(_) => info,
    }
}

/// A ledger that runs alone has no record of itself: it is where it has just answered.
async fn see(server: &ServerArgs, mut member: ClusterMember, answered: bool) -> Seen {
    if answered && member.node.client_url.is_empty() {
        member.node.client_url = server.only_url().unwrap_or_default();
    }
    let url = &member.node.client_url;
    let client = match server.client_at(url, MEMBER_TIMEOUT) {
        Ok(client) if !url.is_empty() => Ok(client),
        _ if answered => server.client(),
        Ok(_) => Err(Failure::error("it has said no address for clients yet")),
        Err(failure) => Err(failure),
    };
    let client = match client {
        Ok(client) => client,
        Err(failure) => {
            return Seen { member, answer: Err(failure.message), divergences: Vec::new() };
        }
    };
    let (answer, own) = tokio::join!(client.node_info(), client.cluster_info());
    let answer = match answer {
        Ok(info) if info.node_id == member.node.node_id => Ok(info),
        // Another node at that address says nothing about this one.
        Ok(info) => Err(format!("node {} answers at that address", info.node_id)),
        Err(error) => Err(Failure::from(error).message),
    };
    let own = own.ok().filter(|info| info.node_id == member.node.node_id);
    Seen { member, answer, divergences: own.map(|info| info.divergences).unwrap_or_default() }
}

/// Who led last does not lead.
fn role_of(info: &ClusterInfo, member: &ClusterMember) -> MemberRole {
    match member.role {
        MemberRole::Leader if !has_leader(info) => MemberRole::Voter,
        role => role,
    }
}

fn document(info: &ClusterInfo, seen: &[Seen]) -> Value {
    let member = |seen: &Seen| {
        let ClusterMember { node, matched_index, last_heard_ms, clock_ahead_ms, .. } = &seen.member;
        json!({
            "id": node.node_id,
            "name": node.name,
            "url": node.client_url,
            "role": role_of(info, &seen.member).as_str(),
            "pid": seen.answer.as_ref().ok().map(|info| info.pid),
            "peer_address": node.peer_address,
            "incarnation": node.incarnation.map(hex::encode),
            "answers": seen.answer.is_ok(),
            "unanswered_reason": seen.answer.as_ref().err(),
            "version": seen.answer.as_ref().ok().map(|info| &info.version),
            "last_applied": seen.answer.as_ref().ok().map(|info| info.last_applied),
            "matched_index": matched_index,
            "last_heard_ms": last_heard_ms,
            "clock_ahead_ms": clock_ahead_ms,
            "divergences": seen.divergences.iter().map(divergence).collect::<Vec<_>>(),
        })
    };
    json!({
        "cluster_id": info.cluster_id.map(hex::encode),
        "term": info.term,
        "leader_id": info.leader_id.filter(|_| has_leader(info)),
        "last_leader_id": info.leader_id,
        "answered_by": info.node_id,
        "is_changing": info.is_changing,
        "is_ready": info.is_ready,
        "members": seen.iter().map(member).collect::<Vec<_>>(),
    })
}

fn divergence(found: &ReplicaDivergence) -> Value {
    json!({
        "kind": found.kind,
        "vault": found.vault,
        "position": found.position,
        "own_digest": hex::encode(&found.own_digest),
        "own_state_root": hex::encode(&found.own_state_root),
        "leader_id": found.leader_id,
        "leader_digest": hex::encode(&found.leader_digest),
        "leader_state_root": hex::encode(&found.leader_state_root),
        "with_leader": found.with_leader,
        "with_this_node": found.with_this_node,
        "found_at_ms": found.found_at_ms,
        "state": found.state,
        "attempts": found.attempts,
        "reason": found.reason,
    })
}

/// One line each, under the table.
fn render_problems(seen: &[Seen]) -> String {
    let problem = |seen: &Seen| {
        let name = match seen.member.node.name.as_str() {
            "" => "-",
            name => name,
        };
        let problem = seen.answer.as_ref().err()?;
        Some(format!("{} does not answer: {}\n", table::cell(name), table::cell(problem)))
    };
    seen.iter().filter_map(problem).collect()
}

/// One line each, under the table.
fn render_divergences(seen: &[Seen]) -> String {
    let mut text = String::new();
    for Seen { member, divergences, .. } in seen {
        for found in divergences {
            let name = if member.node.name.is_empty() { "-" } else { &member.node.name };
            let vault = if found.vault.is_empty() { "-" } else { &found.vault };
            text.push_str(&format!(
                "{} differed from its leader: {} {} at {}: {}{}{}\n",
                table::cell(name),
                found.kind,
                table::cell(vault),
                found.position,
                found.state,
                if found.reason.is_empty() { "" } else { "; " },
                table::cell(&found.reason),
            ));
        }
    }
    text
}

fn render(info: &ClusterInfo, seen: &[Seen]) -> String {
    let leader = info.members.iter().find(|member| Some(member.node.node_id) == info.leader_id);
    let leader = match (leader, info.leader_id) {
        (Some(member), _) if !member.node.name.is_empty() => Some(member.node.name.clone()),
        (_, Some(_)) if info.cluster_id.is_none() => Some(ALONE.to_owned()),
        (_, id) => id.map(|id| id.to_string()),
    };
    let leader = match leader {
        Some(leader) if has_leader(info) => leader,
        Some(last) => format!("nobody leads, as far as the node that answered knows; {last} did last"),
        None => "nobody leads".to_owned(),
    };
    let facts = [
        ("cluster", info.cluster_id.map_or_else(|| "this ledger runs alone".to_owned(), hex::encode)),
        ("leader", leader),
        ("term", info.term.to_string()),
    ];
    let mut text = table::facts(&facts);
    if info.is_changing {
        text.push_str("a change of the voters is under way\n");
    }
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let row = |seen: &Seen| {
        let ClusterMember { node, matched_index, last_heard_ms, .. } = &seen.member;
        let name = match node.name.as_str() {
            "" if info.cluster_id.is_none() => ALONE,
            "" => "-",
            name => name,
        };
        let role = role_of(info, &seen.member);
        let state = if seen.answer.is_ok() { "answers" } else { "does not answer" };
        let heard = last_heard_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms ago"));
        let texts = [name, role.as_str(), state, &node.client_url, &node.peer_address].map(table::cell);
        [texts.to_vec(), vec![number(*matched_index), heard, node.node_id.to_string()]].concat()
    };
    let head = ["name", "role", "state", "url", "peers", "matched", "heard", "id"];
    text.push_str(&table::render(&head, &seen.iter().map(row).collect::<Vec<_>>()));
    text.push_str(&render_problems(seen));
    text.push_str(&render_divergences(seen));
    text
}
