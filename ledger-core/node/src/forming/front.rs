//! The handler that a node's listener has from the start: it answers for whatever the node is at the time.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};

use super::errors::Waiting;
use super::events::{Answer, Question};
use super::standing_word::StandingWord;
use crate::peers::messages;
use crate::peers::{PeerFuture, PeerHandler, PeerIdentity, PeerMethod, PeerRefusal, PeerRequest};

/// Questions that wait for a node that forms its cluster; more are told that it is busy.
pub(super) const QUESTIONS_MAX: usize = 256;

/// Answers a node's peers: while it starts, while it forms its cluster, and as a member. Clones share it.
#[derive(Clone, Default)]
pub struct PeerFront(Arc<RwLock<Phase>>);

#[derive(Clone, Default)]
enum Phase {
    #[default]
    Starting,
    Forming {
        node_id: u64,
        questions: mpsc::Sender<Asked>,
        waiting: watch::Receiver<Option<Waiting>>,
    },
    Member {
        word: Arc<StandingWord>,
        /// The open ledger's.
        ledger: Option<Arc<dyn PeerHandler>>,
    },
}

/// A question with the way back.
pub(super) struct Asked {
    pub from: PeerIdentity,
    pub question: Question,
    pub answer: oneshot::Sender<Result<Answer, PeerRefusal>>,
}

impl fmt::Debug for PeerFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase() {
            Phase::Starting => "starting",
            Phase::Forming { .. } => "forming",
            Phase::Member { ledger: None, .. } => "member",
            Phase::Member { ledger: Some(_), .. } => "serving",
        };
        f.debug_tuple("PeerFront").field(&phase).finish()
    }
}

impl PeerFront {
    /// A front of a node that starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ledger is open: it answers from now on, apart from what concerns the forming of the cluster.
    pub fn serve(&self, handler: Arc<dyn PeerHandler>) {
        let mut phase = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Member { ledger, .. } = &mut *phase {
            *ledger = Some(handler);
        }
    }

    /// What the node waits for; `None` unless it is on its way into a cluster.
    pub fn waiting(&self) -> Option<Waiting> {
        match self.phase() {
            Phase::Forming { waiting, .. } => waiting.borrow().clone(),
            Phase::Starting | Phase::Member { .. } => None,
        }
    }

    pub(super) fn form(&self, node_id: u64) -> (mpsc::Receiver<Asked>, watch::Sender<Option<Waiting>>) {
        let (questions, receiver) = mpsc::channel(QUESTIONS_MAX);
        let (shown, waiting) = watch::channel(None);
        self.enter(Phase::Forming { node_id, questions, waiting });
        (receiver, shown)
    }

    pub(super) fn belong(&self, word: StandingWord) {
        self.enter(Phase::Member { word: Arc::new(word), ledger: None });
    }

    fn enter(&self, phase: Phase) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn phase(&self) -> Phase {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PeerHandler for PeerFront {
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(async move {
            match self.phase() {
                Phase::Starting => Err(not_ready("it starts")),
                Phase::Forming { node_id, questions, .. } => {
                    check_addressee(&request, node_id)?;
                    match question(&request)? {
                        Some(question) => ask(&questions, request.from, question).await,
                        None => Err(not_ready("it belongs to no cluster yet")),
                    }
                }
                Phase::Member { word, ledger } => {
                    check_addressee(&request, word.me.identity.node_id)?;
                    match question(&request)? {
                        Some(Question::Promise(_)) => encode(&word.promise()),
                        Some(Question::Settle(settle)) => encode(&word.settle(&request.from, &settle)?),
                        Some(Question::NodeInfo(_)) if ledger.is_none() => {
                            encode(&Answer::NodeInfo(word.info()))
                        }
                        Some(Question::NodeInfo(_)) | None => match ledger {
                            Some(ledger) => ledger.handle(request).await,
                            None => Err(not_ready("it opens its ledger")),
                        },
                    }
                }
            }
        })
    }
}

/// Another node may have been at this address before.
fn check_addressee(request: &PeerRequest, node_id: u64) -> Result<(), PeerRefusal> {
    match request.to {
        Some(to) if to != node_id => {
            Err(PeerRefusal::Refused { reason: format!("this is node {node_id}, not node {to}") })
        }
        _ => Ok(()),
    }
}

async fn ask(
    questions: &mpsc::Sender<Asked>,
    from: PeerIdentity,
    question: Question,
) -> Result<Bytes, PeerRefusal> {
    let (answer, answered) = oneshot::channel();
    let asked = Asked { from, question, answer };
    questions.try_send(asked).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => PeerRefusal::Busy,
        mpsc::error::TrySendError::Closed(_) => not_ready("it ends"),
    })?;
    encode(&answered.await.map_err(|_| not_ready("it ends"))??)
}

/// What a request asks of a node that forms its cluster.
fn question(request: &PeerRequest) -> Result<Option<Question>, PeerRefusal> {
    Ok(Some(match request.method {
        PeerMethod::NodeInfo => Question::NodeInfo(decode(&request.body)?),
        PeerMethod::Promise => Question::Promise(decode(&request.body)?),
        PeerMethod::Settle => Question::Settle(decode(&request.body)?),
        _ => return Ok(None),
    }))
}

fn encode(answer: &Answer) -> Result<Bytes, PeerRefusal> {
    match answer {
        Answer::NodeInfo(info) => messages::encode(info),
        Answer::Promise(answer) => messages::encode(answer),
        Answer::Settle(answer) => messages::encode(answer),
        Answer::Join(_) => return Err(not_ready("it takes nobody in")),
    }
    .map_err(|error| PeerRefusal::Refused { reason: error.to_string() })
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, PeerRefusal> {
    messages::decode(body).map_err(|error| PeerRefusal::Malformed { reason: error.to_string() })
}

fn not_ready(reason: &str) -> PeerRefusal {
    PeerRefusal::NotReady { reason: reason.to_owned() }
}
