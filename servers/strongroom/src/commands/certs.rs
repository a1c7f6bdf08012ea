//! `strongroom certs …`

mod authority;
mod new_file;
mod node;
mod show;

use std::time::Duration;

use clap::Subcommand;
use rcgen::CertificateParams;

use crate::clock;
use crate::failure::Failure;
use crate::output::Output;

/// A certificate is valid from a little before it is made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// Longest life of a certificate, in days.
const DAYS_MAX: u32 = 36_500;

/// The commands. What they make is for development and tests: keys lie in plain files, and nothing can be revoked.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make a certificate authority: ca.pem for every node, ca.key to sign with. Whoever has the key can join.
    #[command(after_help = "Example:\n  strongroom certs ca --out certs")]
    Ca(authority::Ca),
    /// Make a node's certificate and key. Its peers know the node by its name, which stands in the certificate; clients
    /// may reach it at the addresses. To renew, make new files and move them over the old ones: servers read them again.
    #[command(after_help = "Examples:\n  \
        strongroom certs node node-a --ca certs --out certs\n  \
        strongroom certs node node-b --ca certs --out certs --address 192.0.2.7 --address ledger.example.com --days 90")]
    Node(node::Node),
    /// Print what a certificate says: subject, names, validity.
    #[command(after_help = "Example:\n  strongroom certs show certs/node-a.pem")]
    Show(show::Show),
}

impl Certs {
    /// Runs the command.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Ca(ca) => ca.run(output),
            Self::Node(node) => node.run(output),
            Self::Show(show) => show.run(output),
        }
    }
}

/// Dates the certificate, and returns its end in seconds since 1970.
fn date(params: &mut CertificateParams, days: u32) -> u64 {
    let now = Duration::from_millis(clock::now_ms());
    let ends = now.saturating_add(Duration::from_secs(u64::from(days) * 86_400));
    let start_of_1970 = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = start_of_1970 + now.saturating_sub(BACKDATED);
    params.not_after = start_of_1970 + ends;
    ends.as_secs()
}

/// The library could not do what it was asked.
fn cannot_make(error: &rcgen::Error) -> Failure {
    Failure::error(format!("cannot make the certificate: {error}"))
}
