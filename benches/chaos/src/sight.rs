//! What the nodes say of themselves, asked again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger_client::{ClusterInfo, LedgerClient};
use ledger_simulation::evidence::Evidence;

use crate::fleet::endpoint;
use crate::settings::NODES;

/// How long a node may take to say what it knows.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// What was heard. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sight(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    /// The newest word of each node: when it was asked, and what it said.
    newest: [Option<(Instant, ClusterInfo)>; NODES],
    cluster_ids: BTreeSet<[u8; 16]>,
    evidence: Evidence,
    /// When a node first said that it leads, by term.
    led_from: BTreeMap<u64, Instant>,
}

impl Sight {
    /// Asks a node at this interval, until the run ends.
    pub fn watch(&self, index: usize, client: LedgerClient, every: Duration) {
        let sight = self.clone();
        tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                if let Ok(Ok(info)) = tokio::time::timeout(ANSWER_TIMEOUT, client.cluster_info()).await {
                    sight.heard(index, asked, info);
                }
                tokio::time::sleep(every).await;
            }
        });
    }

    /// The node that leads by what was asked since then; the newest term counts.
    pub fn leader_since(&self, since: Instant) -> Option<usize> {
        let heard = self.lock();
        let leads =
            |(asked, info): &(Instant, ClusterInfo)| *asked >= since && info.leader_id == Some(info.node_id);
        let words = heard.newest.iter().enumerate().filter_map(|(index, word)| Some((index, word.as_ref()?)));
        words.filter(|(_, word)| leads(word)).max_by_key(|(_, (_, info))| info.term).map(|(index, _)| index)
    }

    /// Whether every node said since then that it has caught up, all with the same leader.
    pub fn all_serve_since(&self, since: Instant) -> bool {
        let heard = self.lock();
        let words: Vec<&ClusterInfo> = heard
            .newest
            .iter()
            .flatten()
            .filter(|(asked, _)| *asked >= since)
            .map(|(_, info)| info)
            .collect();
        let leaders: BTreeSet<_> = words.iter().map(|info| (info.term, info.leader_id)).collect();
        words.len() == NODES
            && leaders.len() == 1
            && words.iter().all(|info| info.is_ready && info.leader_id.is_some())
    }

    /// When somebody first said that it leads in a term above this one.
    pub fn successor_of(&self, term: u64) -> Option<Instant> {
        self.lock().led_from.range(term + 1..).next().map(|(_, at)| *at)
    }

    /// The highest term of which a leader was heard.
    pub fn term(&self) -> u64 {
        self.lock().led_from.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// Ids of clusters that were heard of.
    pub fn cluster_ids(&self) -> BTreeSet<[u8; 16]> {
        self.lock().cluster_ids.clone()
    }

    /// Takes out what was collected for the judgement: who led when.
    pub fn take_evidence(&self) -> Evidence {
        std::mem::take(&mut self.lock().evidence)
    }

    fn heard(&self, index: usize, asked: Instant, info: ClusterInfo) {
        let mut heard = self.lock();
        heard.cluster_ids.extend(info.cluster_id);
        if info.leader_id == Some(info.node_id) {
            heard.evidence.saw_leader(endpoint(index), info.term);
            heard.led_from.entry(info.term).or_insert_with(Instant::now);
        }
        heard.newest[index] = Some((asked, info));
    }

    /// Nothing panics while it holds this lock, so a poisoned one guards no broken record.
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.lock().newest.iter().enumerate() {
            match word {
                None => write!(f, "[{} was never heard] ", endpoint(index))?,
                Some((asked, info)) => write!(
                    f,
                    "[{} said {} ms ago: term {}, leader {:?}, ready {}] ",
                    endpoint(index),
                    asked.elapsed().as_millis(),
                    info.term,
                    info.leader_id,
                    info.is_ready
                )?,
            }
        }
        Ok(())
    }
}
