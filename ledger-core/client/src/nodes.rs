//! The nodes of a ledger as a client knows them: which one leads, which ones fail, and which one is asked next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::codegen::Service as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Uri};

use crate::call_line::CallLine;
use crate::connector::Connector;
use crate::endpoint;
use crate::error::ClientError;
use crate::leader_hint::LeaderHint;
use crate::options::ClientOptions;

/// Most nodes of one client, those of its options and those that it was told of.
pub const NODES_MAX: usize = 32;
/// For how long a node is passed over after its first failure in a row; doubled with each further one.
const AVOIDED_MIN: Duration = Duration::from_millis(500);
/// For how long a node is passed over at most.
const AVOIDED_MAX: Duration = Duration::from_secs(10);
/// For how long a URL that a hint named, and that could not be reached, is not tried again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(30);
/// No node is known to lead.
const NOBODY: usize = usize::MAX;

/// Whom a call should reach first. Every node answers every call; this is about the shortest way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The leader: writes, and reads that ask it in any case.
    Leader,
    /// The nodes in turn.
    Any,
}

/// One node.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) url: String,
    lines: Vec<CallLine>,
    turn: AtomicUsize,
    failures: AtomicU64,
    failures_in_row: AtomicU32,
    /// Milliseconds since the pool was made; 0 = it is not avoided.
    avoided_until_ms: AtomicU64,
}

/// How a node has answered so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth {
    /// Where it is.
    pub url: String,
    /// Calls and streams that failed because of the node or the way to it.
    pub failures: u64,
    /// Whether other nodes are asked first, because it failed lately.
    pub avoided: bool,
    /// Whether it leads, by the last that was heard.
    pub leads: bool,
}

pub(crate) struct Nodes {
    /// Nodes are added and never removed.
    list: RwLock<Vec<Arc<Node>>>,
    turn: AtomicUsize,
    leader: AtomicUsize,
    leader_term: Mutex<u64>,
    /// URLs that hints named: when they were last tried.
    tried_hints: Mutex<HashMap<String, Instant>>,
    epoch: Instant,
    options: ClientOptions,
    authorization: Option<MetadataValue<Ascii>>,
    /// Where streams of calls are driven.
    runtime: Handle,
}

impl Nodes {
    pub(crate) fn new(
        options: &ClientOptions,
        authorization: Option<&MetadataValue<Ascii>>,
        runtime: &Handle,
    ) -> Result<Arc<Self>, ClientError> {
        let nodes = Self {
            list: RwLock::new(Vec::new()),
            turn: AtomicUsize::new(0),
            leader: AtomicUsize::new(NOBODY),
            leader_term: Mutex::new(0),
            tried_hints: Mutex::new(HashMap::new()),
            epoch: Instant::now(),
            options: options.clone(),
            authorization: authorization.cloned(),
            runtime: runtime.clone(),
        };
        for url in options.url_list() {
            nodes.add(url)?;
        }
        Ok(Arc::new(nodes))
    }

    /// How many are known.
    pub(crate) fn count(&self) -> usize {
        self.list.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The node to ask next: the leader where that helps, else the next in turn that is not avoided, and not
    /// `asked` already. When all are, any.
    pub(crate) fn choose(&self, destination: Destination, asked: &[usize]) -> Result<Arc<Node>, ClientError> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        if let [only] = list.as_slice() {
            return Ok(Arc::clone(only));
        }
        let now_ms = self.now_ms();
        let is_good = |node: &Node| !asked.contains(&node.index) && !node.is_avoided(now_ms);
        if destination == Destination::Leader
            && let Some(leader) = list.get(self.leader.load(Ordering::Relaxed))
            && is_good(leader)
        {
            return Ok(Arc::clone(leader));
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(list.len()).unwrap_or_default();
        let in_turn = || list.iter().cycle().skip(start).take(list.len());
        let chosen = in_turn()
            .find(|node| is_good(node))
            .or_else(|| in_turn().find(|node| !asked.contains(&node.index)))
            .or_else(|| in_turn().next());
        chosen.cloned().ok_or_else(|| ClientError::Options { what: "the client has no URL".to_owned() })
    }

    /// Whether a node is left that was not asked and is not avoided.
    pub(crate) fn has_another(&self, asked: &[usize]) -> bool {
        let now_ms = self.now_ms();
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().any(|node| !asked.contains(&node.index) && !node.is_avoided(now_ms))
    }

    /// Whether this node leads, by the last that was heard.
    pub(crate) fn leads(&self, node: &Node) -> bool {
        self.leader.load(Ordering::Relaxed) == node.index
    }

    /// The node or the way to it failed.
    pub(crate) fn failed(&self, node: &Node) {
        node.failures.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.now_ms();
        // Calls under way fail together: that is one failure.
        if !node.is_avoided(now_ms) {
            let in_row = node.failures_in_row.fetch_add(1, Ordering::Relaxed);
            let avoided = AVOIDED_MIN.saturating_mul(1_u32.checked_shl(in_row).unwrap_or(u32::MAX));
            let avoided_ms = u64::try_from(avoided.min(AVOIDED_MAX).as_millis()).unwrap_or(u64::MAX);
            node.avoided_until_ms.store(now_ms.saturating_add(avoided_ms).max(1), Ordering::Relaxed);
        }
        self.no_longer_leads(node);
    }

    /// The node answered, whatever it said.
    pub(crate) fn answered(&self, node: &Node) {
        if node.failures_in_row.load(Ordering::Relaxed) != 0 {
            node.failures_in_row.store(0, Ordering::Relaxed);
            node.avoided_until_ms.store(0, Ordering::Relaxed);
        }
    }

    /// The node said so, or failed.
    pub(crate) fn no_longer_leads(&self, node: &Node) {
        if self.leads(node) {
            let mut term = self.leader_term();
            self.leader.store(NOBODY, Ordering::Relaxed);
            // A cluster that was formed anew begins with low terms.
            *term = 0;
        }
    }

    /// Takes a hint in. A node that is not known yet joins the others once it was reached. Answers whether another
    /// known node leads now.
    pub(crate) fn learn(self: &Arc<Self>, hint: &LeaderHint) -> bool {
        let known = {
            let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
            list.iter().find(|node| node.url == hint.url).map(|node| node.index)
        };
        match known {
            Some(index) => self.set_leader(hint.term, index),
            None => {
                self.meet(hint.clone());
                false
            }
        }
    }

    pub(crate) fn health(&self) -> Vec<NodeHealth> {
        let now_ms = self.now_ms();
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let health = |node: &Arc<Node>| NodeHealth {
            url: node.url.clone(),
            failures: node.failures.load(Ordering::Relaxed),
            avoided: node.is_avoided(now_ms),
            leads: self.leads(node),
        };
        list.iter().map(health).collect()
    }

    fn set_leader(&self, term: u64, index: usize) -> bool {
        let mut known_term = self.leader_term();
        let known = self.leader.load(Ordering::Relaxed);
        if (known != NOBODY && term < *known_term) || known == index {
            return false;
        }
        *known_term = term;
        self.leader.store(index, Ordering::Relaxed);
        true
    }

    fn leader_term(&self) -> MutexGuard<'_, u64> {
        self.leader_term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries in the background to reach a node that a hint named: an address that is good inside of the cluster need
    /// not be good here, and a call should not find that out.
    fn meet(self: &Arc<Self>, hint: LeaderHint) {
        if self.options.unlisted_nodes == crate::options::UnlistedNodes::Ignore || !self.may_try(&hint.url) {
            return;
        }
        let nodes = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(uri) = hint.url.parse::<Uri>() else { return };
            let mut connector = Connector { timeout: nodes.options.connect_timeout };
            if connector.call(uri).await.is_ok()
                && let Ok(index) = nodes.add(&hint.url)
            {
                nodes.set_leader(hint.term, index);
            }
        });
    }

    /// Whether a URL may be tried now. Never by a weaker scheme than the options use: the credential goes along.
    fn may_try(&self, url: &str) -> bool {
        let scheme_of = |url: &str| url.split_once("://").map(|(scheme, _)| scheme.to_owned());
        let scheme = scheme_of(url);
        if scheme.is_none() || self.options.url_list().any(|listed| scheme_of(listed) != scheme) {
            return false;
        }
        let now = Instant::now();
        let mut tried = self.tried_hints.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|_, at| now.duration_since(*at) < UNREACHABLE_FOR);
        if tried.len() >= NODES_MAX || tried.contains_key(url) || self.count() >= NODES_MAX {
            return false;
        }
        tried.insert(url.to_owned(), now);
        true
    }

    fn add(&self, url: &str) -> Result<usize, ClientError> {
        let url = url.trim_end_matches('/');
        let line = |channel| CallLine::new(channel, self.authorization.clone(), self.runtime.clone());
        let lines = endpoint::channels(url, &self.options)?.into_iter().map(line).collect();
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = list.iter().find(|node| node.url == url) {
            return Ok(known.index);
        }
        let index = list.len();
        list.push(Arc::new(Node {
            index,
            url: url.to_owned(),
            lines,
            turn: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            failures_in_row: AtomicU32::new(0),
            avoided_until_ms: AtomicU64::new(0),
        }));
        Ok(index)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Node {
    /// The next of its channels in turn.
    pub(crate) fn channel(&self) -> Result<Channel, ClientError> {
        self.line().map(CallLine::channel)
    }

    /// The next of its channels in turn, with its stream of calls.
    pub(crate) fn line(&self) -> Result<&CallLine, ClientError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.lines.len()).unwrap_or_default();
        self.lines
            .get(index)
            .ok_or_else(|| ClientError::Options { what: "the client has no connection".to_owned() })
    }

    fn is_avoided(&self, now_ms: u64) -> bool {
        now_ms < self.avoided_until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(urls: &str) -> Arc<Nodes> {
        Nodes::new(&ClientOptions::new(urls), None, &Handle::current()).expect("valid options")
    }

    fn chosen(nodes: &Nodes, destination: Destination, asked: &[usize]) -> usize {
        nodes.choose(destination, asked).expect("a node").index
    }

    fn hint(term: u64, url: &str) -> LeaderHint {
        LeaderHint::new(term, url).expect("a hint")
    }

    #[tokio::test]
    async fn calls_for_the_leader_go_there_and_others_take_turns() {
        let nodes = nodes("http://a:1,http://b:1,http://c:1/");
        assert!(nodes.learn(&hint(3, "http://c:1")));
        for _ in 0..4 {
            assert_eq!(chosen(&nodes, Destination::Leader, &[]), 2);
        }
        let mut turns: Vec<usize> = (0..3).map(|_| chosen(&nodes, Destination::Any, &[])).collect();
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2]);
        assert_ne!(chosen(&nodes, Destination::Leader, &[2]), 2, "it was asked already");
    }

    #[tokio::test]
    async fn a_hint_of_an_earlier_term_does_not_count_until_the_leader_fails() {
        let nodes = nodes("http://a:1,http://b:1,http://c:1");
        assert!(nodes.learn(&hint(5, "http://b:1")));
        assert!(!nodes.learn(&hint(4, "http://a:1")));
        assert_eq!(chosen(&nodes, Destination::Leader, &[]), 1);
        let leader = nodes.choose(Destination::Leader, &[]).expect("a node");
        nodes.no_longer_leads(&leader);
        assert!(nodes.learn(&hint(1, "http://a:1")), "a cluster that was formed anew");
        assert_eq!(chosen(&nodes, Destination::Leader, &[]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_fails_is_passed_over_for_a_while_which_grows() {
        let nodes = nodes("http://a:1,http://b:1");
        let first = nodes.choose(Destination::Any, &[1]).expect("a node");
        nodes.failed(&first);
        nodes.failed(&first);
        for _ in 0..4 {
            assert_eq!(chosen(&nodes, Destination::Any, &[]), 1);
        }
        assert_eq!(chosen(&nodes, Destination::Any, &[1]), 0, "there is no other");
        tokio::time::advance(AVOIDED_MIN).await;
        assert!(!nodes.health()[0].avoided);
        nodes.failed(&first);
        tokio::time::advance(AVOIDED_MIN).await;
        assert!(nodes.health()[0].avoided, "the second time is longer");
        nodes.answered(&first);
        assert_eq!((nodes.health()[0].avoided, nodes.health()[0].failures), (false, 3));
        for _ in 0..40 {
            nodes.failed(&first);
            tokio::time::advance(AVOIDED_MAX).await;
        }
        assert!(!nodes.health()[0].avoided, "never longer than the limit");
    }

    #[tokio::test]
    async fn an_unlisted_leader_joins_once_it_was_reached_and_never_by_a_weaker_scheme() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let nodes = nodes("http://a:1");
        assert!(!nodes.learn(&hint(1, &url)), "not before it was reached");
        tokio::time::timeout(Duration::from_secs(10), async {
            while nodes.count() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it is reached");
        assert_eq!(
            nodes.health()[1],
            NodeHealth { url: url.clone(), failures: 0, avoided: false, leads: true }
        );

        let mut options = ClientOptions::new("https://a:1");
        options.tls.ca_pem = Some(String::new());
        let strict = Nodes {
            options,
            ..Arc::into_inner(
                Nodes::new(&ClientOptions::new("http://a:1"), None, &Handle::current()).expect("valid"),
            )
            .expect("one owner")
        };
        assert!(!strict.may_try(&url));
        assert!(strict.may_try("https://b:1"));
        assert!(!strict.may_try("https://b:1"), "once in a while");
    }
}
