//! The places that processes run in: network namespaces with an address each, whose input can be cut.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// A network namespace with an address.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name for `ip netns`.
    pub netns: String,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
}

impl Host {
    /// A command that runs here. The process that is started becomes the program itself: it has its process id.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program).stdin(Stdio::null());
        command
    }

    /// From now on nothing arrives that these addresses send, and nobody is told so.
    pub async fn drop_from(&self, senders: &[Ipv4Addr]) -> anyhow::Result<()> {
        for sender in senders {
            let sender = sender.to_string();
            let rule = ["add", "rule", "inet", "faults", "input", "ip", "saddr", &sender, "counter", "drop"];
            self.nft(&rule).await?;
        }
        Ok(())
    }

    /// Everything arrives again. Answers how many packets did not since the last time.
    pub async fn accept_all(&self) -> anyhow::Result<u64> {
        let listing = self.nft(&["list", "chain", "inet", "faults", "input"]).await?;
        self.nft(&["flush", "chain", "inet", "faults", "input"]).await?;
        Ok(dropped_packets(&listing))
    }

    async fn nft(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command("nft").args(arguments).output().await.context("nft does not run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft {} in {}: {said}", arguments.join(" "), self.netns);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The sum of `counter packets N` over a listing.
fn dropped_packets(listing: &str) -> u64 {
    let counts = listing.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_all_rules_are_added_up() {
        let listing = "chain input {\n ip saddr 10.77.0.11 counter packets 12 bytes 900 drop\n \
                       ip saddr 10.77.0.12 counter packets 30 bytes 9 drop\n}";
        assert_eq!(dropped_packets(listing), 42);
        assert_eq!(dropped_packets("chain input {\n}"), 0);
    }
}
