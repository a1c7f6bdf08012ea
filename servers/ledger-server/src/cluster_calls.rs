//! The calls of `AdminService` that show and change the cluster.

use std::fmt::{Debug, Display};

use futures::future::BoxFuture;
use ledger_node::Cluster;
use ledger_node::peers::MemberRecord;
use ledger_proto::v1;
use tonic::{Response, Status};

use crate::admin_service::LedgerAdminService;
use crate::errors;
use crate::wire::cluster::{self, Newcomer};

/// Finds out who a node is, at the address where its peers reach it: over the peers' own transport, which proves its
/// name.
pub trait NodeFinder: Debug + Send + Sync + 'static {
    /// The node that answers at an address; the error says why nobody does, for people.
    fn find<'a>(
        &'a self,
        peer_address: &'a str,
    ) -> BoxFuture<'a, Result<MemberRecord, Box<dyn Display + Send + Sync>>>;
}

impl NodeFinder for Cluster {
    fn find<'a>(
        &'a self,
        peer_address: &'a str,
    ) -> BoxFuture<'a, Result<MemberRecord, Box<dyn Display + Send + Sync>>> {
        let found = Self::find(self, peer_address);
        Box::pin(async move { found.await.map_err(|error| Box::new(error) as _) })
    }
}

impl LedgerAdminService {
    pub(crate) async fn join(
        &self,
        request: v1::JoinClusterRequest,
    ) -> Result<Response<v1::MembershipChange>, Status> {
        let member = match cluster::newcomer(request)? {
            Newcomer::Known(record) => record,
            Newcomer::At { peer_address } => self.find(&peer_address).await?,
        };
        let change =
            self.cluster().add(member).await.map_err(|failure| errors::membership_failed(&failure))?;
        Ok(Response::new(cluster::change_answer(change)))
    }

    async fn find(&self, peer_address: &str) -> Result<MemberRecord, Status> {
        let refused = |why: &dyn Display| errors::node_unreachable(peer_address, why);
        let finder = self.finder.as_ref().ok_or_else(|| {
            refused(&"this server asks no peers. Give its number, its name and its incarnation as well")
        })?;
        finder.find(peer_address).await.map_err(|why| refused(&why))
    }

    pub(crate) async fn remove(&self, node_id: u64) -> Result<Response<v1::MembershipChange>, Status> {
        let change = self.cluster().remove(node_id).await;
        let change = change.map_err(|failure| errors::membership_failed(&failure))?;
        Ok(Response::new(cluster::change_answer(change)))
    }

    pub(crate) async fn transfer(
        &self,
        request: &v1::TransferLeadershipRequest,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let to = Some(request.node_id).filter(|id| *id != 0);
        let leader_id = self.cluster().transfer(to).await;
        let leader_id = leader_id.map_err(|failure| errors::membership_failed(&failure))?;
        Ok(Response::new(v1::TransferLeadershipResponse { leader_id }))
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.ledger.cluster()
    }
}
