//! A cluster of three that serves, with a vault, and somebody who watches it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ledger_client::{ClientOptions, LedgerClient, MemoryPins, UnlistedNodes};
use ledger_core::names::VaultRef;

use crate::fleet::Fleet;
use crate::settings::{NODES, Settings};
use crate::sight::Sight;

/// By then the cluster has formed.
const FORMING_LIMIT: Duration = Duration::from_secs(60);
/// By then it serves after everything was healed.
const SERVING_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks while something is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The cluster of a run.
pub struct Scene {
    /// The processes.
    pub fleet: Fleet,
    /// What they say of themselves.
    pub sight: Sight,
    /// Where clients write.
    pub vault: VaultRef,
    authority_pem: String,
    token: String,
}

impl Scene {
    /// Forms the cluster and watches it at this interval.
    pub async fn set_up(settings: &Settings, look_every: Duration) -> anyhow::Result<Self> {
        let mut fleet = Fleet::prepare(settings).await?;
        for index in 0..NODES {
            fleet.start(index)?;
        }
        let deadline = Instant::now() + FORMING_LIMIT;
        let token = loop {
            if let Some(token) = fleet.admin_token() {
                break token;
            }
            if let Some(ended) = fleet.ended_by_themselves().first() {
                bail!("the cluster does not form: {ended}");
            }
            if Instant::now() > deadline {
                bail!(
                    "the cluster has not formed within {FORMING_LIMIT:?}: see the logs in {}",
                    settings.work.display()
                );
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        };
        let authority_pem = fleet.authority_pem()?;
        let vault = "chaos/run".parse().context("the vault's name")?;
        let mut scene = Self { fleet, sight: Sight::default(), vault, authority_pem, token };
        for index in 0..NODES {
            let client = scene.client_of(index)?;
            scene.sight.watch(index, client, look_every);
        }
        scene.wait_until_all_serve().await?;
        let client = scene.client(scene.client_options())?;
        client.create_namespace(&scene.vault.namespace).await.context("the namespace cannot be created")?;
        client.create_vault(&scene.vault).await.context("the vault cannot be created")?;
        Ok(scene)
    }

    /// How clients reach the whole cluster, with everything else as it is by default.
    pub fn client_options(&self) -> ClientOptions {
        let urls: Vec<String> = (0..NODES).map(|index| self.fleet.url(index)).collect();
        self.options(&urls.join(","))
    }

    /// A client with pins of its own.
    pub fn client(&self, options: ClientOptions) -> anyhow::Result<LedgerClient> {
        Ok(LedgerClient::connect(options, Arc::new(MemoryPins::default()))?)
    }

    /// A client of one node alone.
    pub fn client_of(&self, index: usize) -> anyhow::Result<LedgerClient> {
        let mut options = self.options(&self.fleet.url(index));
        options.unlisted_nodes = UnlistedNodes::Ignore;
        self.client(options)
    }

    /// Waits until every node has said lately that it has caught up with one leader.
    pub async fn wait_until_all_serve(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.sight.all_serve_since(begun) {
            if let Some(ended) = self.fleet.ended_by_themselves().first() {
                bail!("{ended}");
            }
            if begun.elapsed() > SERVING_LIMIT {
                bail!("not all nodes serve within {SERVING_LIMIT:?}: {}", self.sight);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until a node leads, by what was said since this call.
    pub async fn wait_for_leader(&self) -> anyhow::Result<usize> {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.sight.leader_since(begun) {
                return Ok(leader);
            }
            if begun.elapsed() > SERVING_LIMIT {
                bail!("nobody leads within {SERVING_LIMIT:?}: {}", self.sight);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn options(&self, urls: &str) -> ClientOptions {
        let mut options = ClientOptions::new(urls).with_token(self.token.clone());
        options.tls.ca_pem = Some(self.authority_pem.clone());
        options
    }
}
