//! Answers what peers ask of this node, after it has checked who asks.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ledger_verify::note::{NoteError, VerifierKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    ClusterParts, LeaderCheckpoints, MembershipError, RepairSender, checkpoints, comparison, evidence,
    forwarding, membership,
};
use crate::applied_state::AppliedLedger;
use crate::batcher::WriteQueue;
use crate::checkpoint_signer::CheckpointSigner;
use crate::peers::messages::{
    self, CheckpointRequest, CompareRequest, JoinAnswer, JoinRequest, LedgerKeyAnswer, LedgerKeyRequest,
    MembershipRequest, ProposeRequest, ReadIndexAnswer, ReadIndexRequest, RepairRequest, SnapshotInstall,
    SnapshotOffer, TipsRequest, WriteStateAnswer, WriteStateRequest,
};
use crate::peers::{
    ClusterId, KnownAsker, LedgerKey, MemberRecord, MemberStanding, NodeInfo, NodeInfoRequest, PeerFuture,
    PeerHandler, PeerIdentity, PeerMethod, PeerRefusal, PeerRequest, Standing,
};
use crate::raft::{Consensus, ConsensusError, Members, check_leaders_vote};
use crate::snapshots::SnapshotReceiver;
use crate::write_state::DiskFull;

/// Answers in the name of an open ledger.
pub(crate) struct NodeHandler {
    pub cluster: Arc<ClusterParts>,
    pub cluster_id: ClusterId,
    pub member: MemberRecord,
    pub queue: WriteQueue,
    pub snapshots: SnapshotReceiver,
    pub ledger: Arc<AppliedLedger>,
    pub signer: CheckpointSigner,
    pub checkpoints: LeaderCheckpoints,
    pub repairs: Arc<RepairSender>,
    /// The ledger's signing key as text, for members that join. Never in a log.
    pub log_key: Arc<dyn Fn() -> String + Send + Sync>,
    /// Its public part.
    pub public_key: VerifierKey,
}

impl fmt::Debug for NodeHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandler")
            .field("cluster", &self.cluster_id)
            .field("identity", &self.member.identity)
            .finish_non_exhaustive()
    }
}

impl PeerHandler for NodeHandler {
    fn handle(&self, request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(self.answer(request))
    }
}

impl NodeHandler {
    async fn answer(&self, request: PeerRequest) -> Result<Bytes, PeerRefusal> {
        self.check_addressee(&request)?;
        match request.method {
            PeerMethod::NodeInfo => {
                let asked: NodeInfoRequest = decode(&request.body)?;
                encode(&self.node_info(&asked.asker.identity).await)
            }
            PeerMethod::Join => self.join(&request.from, decode(&request.body)?).await,
            PeerMethod::Vote | PeerMethod::PreVote => {
                self.check_cluster(&request)?;
                self.check_candidate(&request)?;
                self.cluster.consensus.answer(request.method, request.from.node_id, &request.body).await
            }
            PeerMethod::Append | PeerMethod::TransferLeader => {
                self.check_cluster(&request)?;
                self.check_leader(&request)?;
                self.cluster.consensus.answer(request.method, request.from.node_id, &request.body).await
            }
            PeerMethod::SnapshotOffer | PeerMethod::SnapshotChunk | PeerMethod::SnapshotInstall => {
                self.check_cluster(&request)?;
                self.check_leader(&request)?;
                check_snapshot_vote(&request)?;
                self.snapshots.handle(request.method, request.body).await
            }
            PeerMethod::ReadIndex
            | PeerMethod::Propose
            | PeerMethod::Membership
            | PeerMethod::Checkpoint
            | PeerMethod::Tips
            | PeerMethod::WriteState
            | PeerMethod::LedgerKey
            | PeerMethod::Compare
            | PeerMethod::Repair => {
                self.check_cluster(&request)?;
                self.check_member(&request.from)?;
                self.serve(request).await
            }
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} is not answered here") }),
        }
    }

    async fn serve(&self, request: PeerRequest) -> Result<Bytes, PeerRefusal> {
        match request.method {
            PeerMethod::ReadIndex => {
                let _: ReadIndexRequest = decode(&request.body)?;
                let index = self.cluster.consensus.read_index().await.map_err(refusal)?;
                encode(&ReadIndexAnswer { index })
            }
            PeerMethod::Propose => {
                let asked: ProposeRequest = decode(&request.body)?;
                encode(&forwarding::answer(&self.cluster.consensus, &self.queue, asked).await?)
            }
            PeerMethod::Checkpoint => {
                let asked: CheckpointRequest = decode(&request.body)?;
                encode(&checkpoints::answer(&self.checkpoints, &self.signer, asked).await?)
            }
            PeerMethod::Tips => {
                let asked: TipsRequest = decode(&request.body)?;
                encode(&comparison::answer(&self.cluster.consensus, &self.ledger, &asked)?)
            }
            PeerMethod::WriteState => {
                let WriteStateRequest {} = decode(&request.body)?;
                encode(&match self.queue.switch().admit() {
                    Ok(()) => WriteStateAnswer::Open,
                    Err(DiskFull) => WriteStateAnswer::DiskFull,
                })
            }
            PeerMethod::LedgerKey => {
                let asked: LedgerKeyRequest = decode(&request.body)?;
                encode(&self.ledger_key(&asked)?)
            }
            PeerMethod::Compare => {
                let asked: CompareRequest = decode(&request.body)?;
                encode(&evidence::answer(&self.ledger, &asked)?)
            }
            PeerMethod::Repair => {
                let asked: RepairRequest = decode(&request.body)?;
                encode(&self.repairs.answer(request.from.node_id, asked)?)
            }
            PeerMethod::Membership => {
                let asked: MembershipRequest = decode(&request.body)?;
                encode(&membership::answer(&self.cluster, asked).await?)
            }
            other => Err(PeerRefusal::Malformed { reason: format!("{other:?} is not answered here") }),
        }
    }

    /// The private key leaves this node only in place of another one.
    fn ledger_key(&self, asked: &LedgerKeyRequest) -> Result<LedgerKeyAnswer, PeerRefusal> {
        let status = self.cluster.consensus.status();
        if !status.is_leader {
            return Err(PeerRefusal::NotLeader { leader: status.leader });
        }
        let is_other = match asked {
            LedgerKeyRequest::Public => false,
            LedgerKeyRequest::Private { held } => {
                let held: Result<VerifierKey, NoteError> = held.parse();
                held.map_err(|error| PeerRefusal::Malformed { reason: error.to_string() })? != self.public_key
            }
        };
        Ok(if is_other {
            LedgerKeyAnswer::Private { key: LedgerKey::new((self.log_key)()) }
        } else {
            LedgerKeyAnswer::Public { key: self.public_key.to_string() }
        })
    }

    fn check_addressee(&self, request: &PeerRequest) -> Result<(), PeerRefusal> {
        let this = self.member.identity.node_id;
        match request.to {
            Some(to) if to != this => {
                Err(PeerRefusal::Identity { reason: format!("this is node {this}, not node {to}") })
            }
            _ => Ok(()),
        }
    }

    fn check_cluster(&self, request: &PeerRequest) -> Result<(), PeerRefusal> {
        if request.cluster == Some(self.cluster_id) {
            Ok(())
        } else {
            Err(PeerRefusal::OtherCluster { theirs: self.cluster_id, ours: request.cluster })
        }
    }

    /// A member must be the one that the membership knows under its number. Answers whether it knows it at all.
    fn check_known(&self, members: &Members, from: &PeerIdentity) -> Result<Known, PeerRefusal> {
        let known = match members.records.get(&from.node_id) {
            None => return Ok(Known::No),
            // A ledger that ran alone before has no records yet; the transport has proved the name.
            Some(None) => return Ok(Known::Yes),
            Some(Some(record)) => &record.identity,
        };
        if known.name != from.name {
            let reason = format!("node {} is {}, not {}", from.node_id, known.name, from.name);
            return Err(PeerRefusal::Identity { reason });
        }
        if known.incarnation != from.incarnation {
            let reason = format!(
                "node {} ({}) has another incarnation in the membership: its directory was wiped or replaced, let it \
                 start under a new number",
                from.node_id, from.name
            );
            return Err(PeerRefusal::Identity { reason });
        }
        Ok(Known::Yes)
    }

    /// Mostly the leader answers these, and it knows every member; another one refuses whom it does not know yet.
    fn check_member(&self, from: &PeerIdentity) -> Result<(), PeerRefusal> {
        match self.check_known(&self.cluster.consensus.members(), from)? {
            Known::Yes => Ok(()),
            Known::No => Err(removed(from)),
        }
    }

    /// A leader may have been taken in by entries that this node does not have yet, and whether it leads is settled by
    /// its term. That its votes are its own is checked where they are decoded.
    fn check_leader(&self, request: &PeerRequest) -> Result<(), PeerRefusal> {
        self.check_known(&self.cluster.consensus.members(), &request.from).map(drop)
    }

    /// A candidate that the membership does not know was taken out, unless it has entries that this node does not.
    fn check_candidate(&self, request: &PeerRequest) -> Result<(), PeerRefusal> {
        let members = self.cluster.consensus.members();
        if self.check_known(&members, &request.from)? == Known::Yes {
            return Ok(());
        }
        let (vote, last_log) = Consensus::vote_in(request.method, &request.body)?;
        if vote.node != request.from.node_id {
            return Err(PeerRefusal::Identity {
                reason: format!("it asks for votes for node {}", vote.node),
            });
        }
        if last_log > members.log_index { Ok(()) } else { Err(removed(&request.from)) }
    }

    /// A member that asks decides by the answer whether it takes part as the node that it was: a quorum confirms to the
    /// leader that it leads before it says so.
    async fn node_info(&self, asker: &PeerIdentity) -> NodeInfo {
        let consensus = &self.cluster.consensus;
        let status = consensus.status();
        let confirmed = if status.is_leader { Some(consensus.read_index().await) } else { None };
        let known = consensus.members();
        let (leader, asker) = match (confirmed, known.records.get(&asker.node_id).cloned().flatten()) {
            (Some(Ok(committed_index)), Some(record)) => {
                let progress = consensus.progress();
                let matched_index = progress.get(&asker.node_id).and_then(|known| known.matched);
                let identity = record.identity;
                (status.leader, Some(KnownAsker { identity, matched_index, committed_index }))
            }
            // That a node is no member any more is told once it is settled.
            (Some(Ok(_)), None) if !known.is_committed => (None, None),
            (Some(Ok(_)) | None, _) => (status.leader, None),
            (Some(Err(ConsensusError::NotLeader { leader })), _) => (leader, None),
            (Some(Err(_)), _) => (None, None),
        };
        let members = self.records();
        let standing = MemberStanding { cluster: self.cluster_id, leader, members, asker };
        NodeInfo { node: self.member.clone(), standing: Standing::Member(standing) }
    }

    fn records(&self) -> Vec<MemberRecord> {
        self.cluster.consensus.members().records.into_values().flatten().collect()
    }

    /// The new member is a learner when this returns; it votes once it has caught up.
    async fn join(&self, from: &PeerIdentity, asked: JoinRequest) -> Result<Bytes, PeerRefusal> {
        if asked.member.identity != *from {
            return Err(PeerRefusal::Identity { reason: "it asks for another node".to_owned() });
        }
        membership::check_record(&asked.member)
            .map_err(|error| PeerRefusal::Refused { reason: error.to_string() })?;
        let status = self.cluster.consensus.status();
        if !status.is_leader {
            return Err(PeerRefusal::NotLeader { leader: status.leader });
        }
        self.cluster.steward.take_in(asked.member).await.map_err(|error| not_taken_in(&error))?;
        let members = self.records();
        encode(&JoinAnswer { cluster_id: self.cluster_id, log_key: (self.log_key)(), members })
    }
}

/// A snapshot is offered, and its installation asked for, by whoever leads.
fn check_snapshot_vote(request: &PeerRequest) -> Result<(), PeerRefusal> {
    let vote = match request.method {
        PeerMethod::SnapshotOffer => decode::<SnapshotOffer>(&request.body)?.vote,
        PeerMethod::SnapshotInstall => decode::<SnapshotInstall>(&request.body)?.vote,
        // A chunk is of what was offered.
        _ => return Ok(()),
    };
    check_leaders_vote(&vote, request.from.node_id)
}

/// A node that can never be taken in as it is should not ask again.
fn not_taken_in(error: &MembershipError) -> PeerRefusal {
    let reason = error.to_string();
    match error {
        MembershipError::OtherIncarnation { .. } | MembershipError::Record { .. } => {
            PeerRefusal::Identity { reason }
        }
        MembershipError::NoLeader { leader } => PeerRefusal::NotLeader { leader: *leader },
        _ => PeerRefusal::Refused { reason },
    }
}

/// Answers for a ledger that runs alone.
#[derive(Debug)]
pub(crate) struct AloneHandler;

impl PeerHandler for AloneHandler {
    fn handle(&self, _request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        let reason = "its ledger runs alone and is in no cluster".to_owned();
        Box::pin(std::future::ready(Err(PeerRefusal::NotReady { reason })))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

fn removed(from: &PeerIdentity) -> PeerRefusal {
    let reason = format!(
        "node {} ({}) is no member of this cluster: it was removed, or never added",
        from.node_id, from.name
    );
    PeerRefusal::Identity { reason }
}

fn refusal(error: ConsensusError) -> PeerRefusal {
    match error {
        ConsensusError::NotLeader { leader } => PeerRefusal::NotLeader { leader },
        ConsensusError::Stopped => PeerRefusal::NotReady { reason: "it stops".to_owned() },
        other => PeerRefusal::Refused { reason: other.to_string() },
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, PeerRefusal> {
    messages::decode(body).map_err(|error| PeerRefusal::Malformed { reason: error.to_string() })
}

fn encode<T: Serialize>(answer: &T) -> Result<Bytes, PeerRefusal> {
    messages::encode(answer).map_err(|error| PeerRefusal::Refused { reason: error.to_string() })
}
