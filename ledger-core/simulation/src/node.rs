//! A real node of the ledger on a simulated host.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ledger_core::command::WriteRefusal;
use ledger_core::names::VaultRef;
use ledger_node::peers::PeerHandler;
use ledger_node::{Consistency, DataDirectory, Ledger, Options, ReadFailure, Stores, WriteError};

use crate::client_calls::{ClientAnswer, ClientRequest};
use crate::network::Endpoint;
use crate::world::{Booted, Boxed, Node};

/// A node that is open.
pub struct LedgerNode {
    ledger: Ledger,
    vault: VaultRef,
}

/// Nodes that stopped by themselves, and why. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stopped(Arc<Mutex<Vec<(Endpoint, String)>>>);

impl Stopped {
    /// Those that stopped since the last call.
    pub fn take(&self) -> Vec<(Endpoint, String)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a node is opened with.
pub struct NodeParts {
    /// Which one it is.
    pub endpoint: Endpoint,
    /// Its directory.
    pub path: PathBuf,
    /// Its disks.
    pub stores: Stores,
    /// How it works.
    pub options: Options,
    /// The vault that clients use.
    pub vault: VaultRef,
    /// Told when the node stops by itself.
    pub stopped: Stopped,
}

/// Opens a node: the body of a host's boot.
pub async fn open(parts: NodeParts) -> Booted {
    let NodeParts { endpoint, path, stores, options, vault, stopped } = parts;
    let directory = DataDirectory::open(path).map_err(|error| error.to_string())?;
    let ledger = Ledger::open(directory, stores, options).await.map_err(|error| error.to_string())?;
    let watched = ledger.clone();
    tokio::spawn(async move {
        let failure = watched.failure().await;
        stopped.0.lock().unwrap_or_else(PoisonError::into_inner).push((endpoint, failure.to_string()));
    });
    Ok(Arc::new(LedgerNode { ledger, vault }))
}

impl Node for LedgerNode {
    fn peers(&self) -> Arc<dyn PeerHandler> {
        self.ledger.peer_handler()
    }

    fn serve(&self, request: ClientRequest) -> Boxed<ClientAnswer> {
        let (ledger, vault) = (self.ledger.clone(), self.vault.clone());
        Box::pin(async move { serve(&ledger, &vault, request).await })
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(&self.ledger)
    }
}

async fn serve(ledger: &Ledger, vault: &VaultRef, request: ClientRequest) -> ClientAnswer {
    match request {
        ClientRequest::Write { actor, transaction } => match ledger.write(vault, &actor, transaction).await {
            Ok(receipt) => ClientAnswer::Written(receipt),
            Err(WriteError::Refused(WriteRefusal::VaultNotFound)) => {
                ClientAnswer::Busy("this node does not know the vault yet".to_owned())
            }
            Err(WriteError::Refused(refusal)) => ClientAnswer::WriteRefused(refusal),
            Err(error @ (WriteError::Overloaded { .. } | WriteError::ReservedActor { .. })) => {
                ClientAnswer::Busy(error.to_string())
            }
            Err(error) => ClientAnswer::Unavailable(error.to_string()),
        },
        ClientRequest::Get { key } => match ledger.get(vault, &key, Consistency::Linearizable).await {
            Ok(read) => {
                let found = read.value.map(|entity| (entity.value.to_vec(), entity.version));
                ClientAnswer::Got(found)
            }
            Err(error) => unread(&error),
        },
        ClientRequest::Checkpoint { trusted_size } => match ledger.checkpoint(vault, trusted_size).await {
            Ok(answer) => ClientAnswer::Checkpoint { note: answer.note, consistency: answer.consistency },
            Err(error) => unread(&error),
        },
    }
}

fn unread(error: &ReadFailure) -> ClientAnswer {
    ClientAnswer::Unavailable(error.to_string())
}
