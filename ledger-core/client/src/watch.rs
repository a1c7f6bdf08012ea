//! Watching a vault's blocks, over broken connections, restarts of nodes and from one node to another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger_core::names::{LedgerId, VaultId, VaultRef};
use ledger_core::relationship::Resource;
use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_response::Event;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::log::verify_inclusion;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use ledger_verify::proof::log_origin;
use tonic::Streaming;

use crate::client::LedgerClient;
use crate::error::{ClientError, Fork, Refusal};
use crate::history::{BlockContent, check_transactions};
use crate::nodes::{Destination, Node};
use crate::pins::{ForkEvidence, PinId};
use crate::read::{header_from, reader};
use crate::retry::{Effort, Repeatable};
use crate::verified::extends;
use crate::wire;

/// A connection without a message for so long is dead: the server sends one every 10 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Largest block that is put together from its messages: entries of the log have at most 8 MiB of transactions.
const BLOCK_BYTES_MAX: usize = 32 * 1_048_576;

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchRequest {
    /// The first height wanted: 0 = from the beginning; the newest height + 1 = what comes.
    pub from: u64,
    /// Which blocks.
    pub filter: WatchFilter,
    /// How much of each.
    pub content: BlockContent,
    /// Whether to believe only blocks that prove that they stand in the signed log.
    pub proofs: WatchProofs,
}

/// Which blocks: those with a transaction that changed something of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WatchFilter {
    /// Every block. That none is missing is checked.
    #[default]
    All,
    /// Entities. That none is missing is the server's word.
    Entities {
        /// Those whose key starts with this; empty = all.
        prefix: String,
    },
    /// Relationships. That none is missing is the server's word.
    Relationships {
        /// Those of this resource; `None` = all.
        resource: Option<Resource>,
    },
}

/// Whether blocks must prove that they stand in the signed log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchProofs {
    /// No.
    #[default]
    Without,
    /// Yes, each under a checkpoint that extends the pinned one.
    Verified,
}

/// A block of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedBlock {
    /// Its header.
    pub header: BlockHeader,
    /// RFC 6962 leaf hash of the header.
    pub block_hash: Hash,
    /// Canonical transactions, those that the filter chose, with their index in the block.
    pub transactions: Vec<(u32, Bytes)>,
    /// Size of the checkpoint under which the block was proved, when that was asked for.
    pub proved_under: Option<u64>,
}

/// A watch that mends itself: after a broken connection it goes on from the next height.
pub struct BlockStream {
    client: LedgerClient,
    vault: VaultRef,
    request: WatchRequest,
    next: u64,
    /// The block before, by height and hash.
    previous: Option<(u64, Hash)>,
    /// Ledger and vault of the blocks so far.
    origin: Option<PinId>,
    trusted: Option<Trusted>,
    messages: Option<Streaming<v1::WatchBlocksResponse>>,
    partial: Option<Partial>,
    /// The node that sends them.
    node: Option<Arc<Node>>,
    /// The tries since the last message.
    effort: Option<Effort>,
    was_open: bool,
}

/// On what belief in the checkpoints rests.
struct Trusted {
    id: PinId,
    keys: Vec<VerifierKey>,
    note: String,
    checkpoint: Checkpoint,
}

/// A block whose messages are coming.
struct Partial {
    first: v1::WatchedBlock,
    transactions: Vec<(u32, Bytes)>,
    bytes: usize,
}

impl LedgerClient {
    /// Watches the blocks of a vault. With [`WatchProofs::Verified`] a checkpoint is fetched and pinned first.
    pub async fn watch(&self, vault: &VaultRef, request: WatchRequest) -> Result<BlockStream, ClientError> {
        let trusted = match request.proofs {
            WatchProofs::Without => None,
            WatchProofs::Verified => {
                let newest = self.verified_checkpoint(vault).await?;
                let keys = match self.inner.options.verifier_keys.as_slice() {
                    [] => vec![newest.verifier_key],
                    given => given.to_vec(),
                };
                let id = PinId { ledger: newest.ledger_id, vault: newest.vault_id };
                Some(Trusted { id, keys, note: newest.note, checkpoint: newest.checkpoint })
            }
        };
        Ok(BlockStream {
            client: self.clone(),
            vault: vault.clone(),
            next: request.from,
            request,
            previous: None,
            origin: trusted.as_ref().map(|trusted| trusted.id),
            trusted,
            messages: None,
            partial: None,
            node: None,
            effort: None,
            was_open: false,
        })
    }
}

impl BlockStream {
    /// The next height: a new watch from here misses nothing.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next block; waits for it, and mends the connection as often as it takes once it stood. May be dropped
    /// and called again at any time.
    ///
    /// # Errors
    /// The server refuses for good, the first connection fails, or what comes does not verify.
    pub async fn next(&mut self) -> Result<WatchedBlock, ClientError> {
        loop {
            let Some(messages) = &mut self.messages else {
                self.open().await?;
                continue;
            };
            let refusal = match tokio::time::timeout(SILENCE_MAX, messages.message()).await {
                Ok(Ok(Some(message))) => {
                    self.effort = None;
                    if let Some(block) = self.take(message)? {
                        return Ok(block);
                    }
                    continue;
                }
                Ok(Ok(None)) => Refusal::connection("the server ended the stream"),
                Ok(Err(status)) => Refusal::from_status(&status),
                Err(_) => Refusal::connection("the connection is silent"),
            };
            self.messages = None;
            self.partial = None;
            self.wait_after(refusal).await?;
        }
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        use v1::watch_blocks_request::Filter;
        let filter = match &self.request.filter {
            WatchFilter::All => None,
            WatchFilter::Entities { prefix } => {
                Some(Filter::Entities(v1::EntityChanges { prefix: prefix.clone() }))
            }
            WatchFilter::Relationships { resource } => {
                let resource = resource.as_ref().map(|resource| resource.as_str().to_owned());
                Some(Filter::Relationships(v1::RelationshipChanges {
                    resource: resource.unwrap_or_default(),
                }))
            }
        };
        let request = v1::WatchBlocksRequest {
            vault: wire::vault_ref(&self.vault),
            start_height: self.next,
            content: self.request.content.wire(),
            filter,
            inclusion_proofs: self.trusted.is_some(),
            trusted_size: self.trusted.as_ref().map_or(0, |trusted| trusted.checkpoint.size),
        };
        let inner = Arc::clone(&self.client.inner);
        let node = self.effort().choose(&inner.nodes)?;
        self.node = Some(Arc::clone(&node));
        let send = |channel, request| async move { reader(channel).watch_blocks(request).await };
        match self.client.open_stream(&node, request, send).await? {
            Ok(messages) => {
                self.messages = Some(messages);
                Ok(())
            }
            Err(refusal) => self.wait_after(refusal).await,
        }
    }

    /// Waits before the next try, or gives the refusal back when another try is not worth it.
    async fn wait_after(&mut self, mut refusal: Refusal) -> Result<(), ClientError> {
        let Some(node) = self.node.take() else { return Err(refusal.into()) };
        let inner = Arc::clone(&self.client.inner);
        let (policy, nodes) = (&inner.options.retry, &inner.nodes);
        match self.effort().wait_after(policy, &mut refusal, Repeatable::Always, nodes, &node) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(refusal.into()),
        }
    }

    /// The first time as long as a call, later as often as it takes.
    fn effort(&mut self) -> &mut Effort {
        let (was_open, call_timeout) = (self.was_open, self.client.inner.options.call_timeout);
        self.effort.get_or_insert_with(|| match was_open {
            true => Effort::endless(Destination::Any),
            false => Effort::within(call_timeout, Destination::Any),
        })
    }

    /// Takes a message in; answers the block that it completes.
    fn take(&mut self, message: v1::WatchBlocksResponse) -> Result<Option<WatchedBlock>, ClientError> {
        self.was_open = true;
        let block = match message.event {
            Some(Event::Block(block)) => block,
            Some(Event::Progress(progress)) => {
                self.client.inner.clock.learn(progress.log_time_ms);
                let skipped = self.request.filter == WatchFilter::All && progress.next_height != self.next;
                if skipped || progress.next_height < self.next {
                    return Err(ClientError::Answer { what: "the watch stands at another height" });
                }
                self.next = progress.next_height;
                return Ok(None);
            }
            None => return Err(ClientError::Answer { what: "a message of the watch without an event" }),
        };
        let more = block.more;
        self.add(block)?;
        if more {
            return Ok(None);
        }
        let Some(partial) = self.partial.take() else { return Ok(None) };
        let block = self.check(partial)?;
        self.previous = Some((block.header.height, block.block_hash));
        self.next = block.header.height + 1;
        Ok(Some(block))
    }

    /// Adds a message to the block that it belongs to.
    fn add(&mut self, mut block: v1::WatchedBlock) -> Result<(), ClientError> {
        let transactions = std::mem::take(&mut block.transactions);
        let partial = self.partial.get_or_insert_with(|| Partial {
            first: block.clone(),
            transactions: Vec::new(),
            bytes: 0,
        });
        if partial.first.header != block.header {
            return Err(ClientError::Answer { what: "the messages of a block do not fit together" });
        }
        for v1::IndexedTransaction { index, transaction } in transactions {
            partial.bytes = partial.bytes.saturating_add(transaction.len());
            if partial.transactions.last().is_some_and(|(last, _)| *last >= index) {
                return Err(ClientError::Answer { what: "the transactions of a block are out of order" });
            }
            partial.transactions.push((index, transaction));
        }
        if partial.bytes > BLOCK_BYTES_MAX {
            return Err(ClientError::Answer { what: "a block is larger than any that a ledger makes" });
        }
        Ok(())
    }

    /// Holds a block to the one before it, to its own hashes and, when asked for, to the signed log.
    fn check(&mut self, partial: Partial) -> Result<WatchedBlock, ClientError> {
        let Partial { first, transactions, .. } = partial;
        let (header, block_hash) = header_from(&first.header, &first.block_hash)?;
        let height = header.height;
        let is_whole = self.request.filter == WatchFilter::All;
        if height < self.next || (is_whole && height != self.next) {
            return Err(ClientError::Answer {
                what: "a block of the watch has another height than the next",
            });
        }
        let origin = PinId { ledger: LedgerId(header.ledger_id), vault: VaultId(header.vault_id) };
        if *self.origin.get_or_insert(origin) != origin {
            return Err(ClientError::Answer {
                what: "a block of another vault: it was deleted and created again",
            });
        }
        let follows = self.previous.filter(|(before, _)| before + 1 == height);
        if follows.is_some_and(|(_, hash)| hash != header.previous) {
            return Err(ClientError::BrokenChain { height });
        }
        if is_whole && self.request.content == BlockContent::Transactions {
            let bytes: Vec<Bytes> = transactions.iter().map(|(_, bytes)| bytes.clone()).collect();
            check_transactions(&header, &bytes)?;
        }
        let mut block = WatchedBlock { header, block_hash, transactions, proved_under: None };
        if let Some(trusted) = &mut self.trusted {
            trusted.check(&self.client, &block, &first)?;
            block.proved_under = Some(trusted.checkpoint.size);
        }
        Ok(block)
    }
}

impl Trusted {
    /// Checks signature, consistency with the last checkpoint, and inclusion.
    fn check(
        &mut self,
        client: &LedgerClient,
        block: &WatchedBlock,
        message: &v1::WatchedBlock,
    ) -> Result<(), ClientError> {
        let signed = SignedCheckpoint::parse(&message.checkpoint)?;
        signed.verify(&self.keys)?;
        let received = signed.checkpoint().clone();
        if received.origin != log_origin(&self.id.ledger.0, &self.id.vault.0) {
            return Err(ClientError::Answer { what: "a checkpoint of another vault" });
        }
        let consistency = wire::hashes_from(&message.consistency, "a hash of the consistency proof")?;
        if let Err(reason) = extends(&self.checkpoint, &received, &consistency) {
            let evidence = ForkEvidence {
                pinned: self.note.clone(),
                received: message.checkpoint.clone(),
                reason: reason.clone(),
            };
            let evidence = client.inner.pins.record_fork(self.id, &evidence)?;
            let (pinned_size, received_size) = (self.checkpoint.size, received.size);
            return Err(ClientError::Fork(Box::new(Fork { pinned_size, received_size, reason, evidence })));
        }
        let path = wire::hashes_from(&message.inclusion, "a hash of the inclusion proof")?;
        verify_inclusion(&block.block_hash, block.header.height, received.size, &path, &received.root)?;
        self.note.clone_from(&message.checkpoint);
        self.checkpoint = received;
        Ok(())
    }
}

impl std::fmt::Debug for BlockStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockStream")
            .field("vault", &self.vault)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
