//! The stream of a watch: pulled block by block as its reader takes them, so that nothing piles up here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use ledger_node::{BlockWatch, Ledger, ReadFailure, WatchedBlock};
use ledger_proto::v1;
use ledger_proto::v1::watch_blocks_response::Event;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::errors;
use crate::read_service::LedgerReadService;
use crate::wire::history;

/// A message comes at least this often, so that a reader can tell silence from a dead connection.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(10);

/// The messages of a watch.
pub(crate) type BlockStream = Pin<Box<dyn Stream<Item = Result<v1::WatchBlocksResponse, Status>> + Send>>;

/// Tells streams that the server drains.
#[derive(Debug, Clone)]
pub(crate) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Closing when `sender` says so.
    pub fn by(sender: &watch::Sender<bool>) -> Self {
        Self(sender.subscribe())
    }

    pub async fn requested(&mut self) {
        if self.0.wait_for(|closing| *closing).await.is_err() {
            // Nobody is left who could ask for it.
            std::future::pending().await
        }
    }
}

impl Default for Closing {
    /// Never closing.
    fn default() -> Self {
        Self(watch::Sender::new(false).subscribe())
    }
}

impl LedgerReadService {
    pub(crate) fn begin_watch(
        &self,
        request: Request<v1::WatchBlocksRequest>,
    ) -> Result<Response<BlockStream>, Status> {
        let caller = Caller::of(&request)?;
        let mut request = request.into_inner();
        let vault = caller.vault(request.vault.take())?;
        let wanted = history::watch_request(request)?;
        let watch = self.ledger.watch(&vault, wanted).map_err(errors::read_failed)?;
        let source = Source {
            watch,
            ledger: self.ledger.clone(),
            closing: self.closing.clone(),
            // The first message tells the reader that the watch stands.
            waiting: VecDeque::new(),
            has_begun: false,
        };
        let stream = futures::stream::unfold(Some(source), |source| async {
            let mut source = source?;
            match source.message().await {
                Ok(event) => Some((Ok(v1::WatchBlocksResponse { event: Some(event) }), Some(source))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

struct Source {
    watch: BlockWatch,
    ledger: Ledger,
    closing: Closing,
    /// The rest of the last block.
    waiting: VecDeque<v1::WatchedBlock>,
    has_begun: bool,
}

/// What came first.
enum Arrival {
    Block(Result<Box<WatchedBlock>, ReadFailure>),
    Closing,
    Silence,
}

impl Source {
    async fn message(&mut self) -> Result<Event, Status> {
        if !self.has_begun {
            self.has_begun = true;
            return self.progress();
        }
        if let Some(rest) = self.waiting.pop_front() {
            return Ok(Event::Block(rest));
        }
        let arrival = tokio::select! {
            biased;
            () = self.closing.requested() => Arrival::Closing,
            next = self.watch.next() => Arrival::Block(next.map(Box::new)),
            () = tokio::time::sleep(SIGN_OF_LIFE_INTERVAL) => Arrival::Silence,
        };
        match arrival {
            Arrival::Closing => Err(errors::draining()),
            Arrival::Silence => self.progress(),
            Arrival::Block(next) => {
                self.waiting = history::watched_answers(*next.map_err(errors::read_failed)?).into();
                match self.waiting.pop_front() {
                    Some(first) => Ok(Event::Block(first)),
                    // A block has at least one message.
                    None => self.progress(),
                }
            }
        }
    }

    fn progress(&self) -> Result<Event, Status> {
        Ok(Event::Progress(v1::WatchProgress {
            next_height: self.watch.position(),
            tip_height: self.watch.tip().map_err(errors::read_failed)?,
            log_time_ms: self.ledger.log_time_ms(),
        }))
    }
}
