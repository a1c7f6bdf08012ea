//! The room on the disk of the data directory, and what a server does about it.

use std::time::Duration;

use ledger_node::{Ledger, WriteState};
use ledger_server::write_gate::WriteGate;
use service_kit::disk::{DiskGuard, DiskState};
use service_kit::{Phase, Readiness};

/// How often the file system of the data directory is measured.
const DISK_INTERVAL: Duration = Duration::from_secs(10);

/// A disk without room makes the server read-only before it makes it fail. It stays ready, and says so.
pub struct DiskWatch {
    /// What measures it.
    pub guard: DiskGuard,
    /// What refuses writes.
    pub gate: WriteGate,
    /// Where it is said.
    pub readiness: Readiness,
    /// Whose snapshots are held back.
    pub ledger: Option<Ledger>,
}

impl DiskWatch {
    /// Measures until the server drains: its directory may be gone soon after.
    pub async fn run(mut self) {
        let draining = self.readiness.clone();
        let mut draining = std::pin::pin!(draining.reached(Phase::Draining));
        let mut interval = tokio::time::interval(DISK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = &mut draining => return,
                _ = interval.tick() => self.measure(),
            }
        }
    }

    /// Measures once.
    pub fn measure(&mut self) {
        const NOTICE: &str = "read-only";
        match self.guard.observe() {
            Ok(state) => {
                self.gate.follow_disk(state);
                if let Some(ledger) = &self.ledger {
                    // The gate refuses this server's clients; the engine also what other members send it.
                    match state {
                        DiskState::ReadOnly => {
                            ledger.set_write_state(WriteState::DiskFull);
                            ledger.hold_back_snapshots();
                        }
                        _ => {
                            ledger.set_write_state(WriteState::Open);
                            ledger.release_snapshots();
                        }
                    }
                }
                match state {
                    // Still ready: reads go on, and a load balancer cannot tell them from writes.
                    DiskState::ReadOnly => {
                        self.readiness.report_notice(NOTICE, "the disk is nearly full: writes are refused");
                    }
                    _ => self.readiness.clear_notice(NOTICE),
                }
            }
            Err(error) => tracing::warn!(%error, "cannot measure the disk"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_disk_is_watched_until_the_server_drains_and_no_longer() {
        let directory = std::env::temp_dir();
        let readiness = Readiness::starting();
        let watch = DiskWatch {
            guard: DiskGuard::new(directory),
            gate: WriteGate::default(),
            readiness: readiness.clone(),
            ledger: None,
        };
        let watching = tokio::spawn(watch.run());
        readiness.advance(Phase::Ready);
        tokio::task::yield_now().await;
        assert!(!watching.is_finished());
        readiness.advance(Phase::Draining);
        // Well below the next measurement.
        tokio::time::timeout(DISK_INTERVAL / 2, watching).await.expect("it ends").expect("without a panic");
    }
}
