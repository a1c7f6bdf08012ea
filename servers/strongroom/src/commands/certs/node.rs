//! `strongroom certs node`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ledger_node::peers::NodeName;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::DnsName;
use serde_json::json;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::new_file::NewFiles;
use super::{DAYS_MAX, cannot_make, date};
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// Stands in many certificates for the convenience of clients, so it can be no node's name.
const LOCALHOST: &str = "localhost";
/// Most addresses in one certificate.
const ADDRESSES_MAX: usize = 64;

/// `certs node`
#[derive(Debug, Args)]
pub struct Node {
    /// Name of the node, as it is given to `ledger serve --name`.
    name: String,
    /// Directory with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Directory to write NAME.pem and NAME.key to, made when missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// IP address or DNS name at which clients reach the node; may be repeated. Peers need none.
    #[arg(long = "address", value_name = "ADDR")]
    addresses: Vec<String>,
    /// Days until it ends.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

impl Node {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let name = node_name(&self.name)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.subject_alt_names = self.alternative_names(&name)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node answers its peers and calls them.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after_s = date(&mut params, self.days);
        let authority = Authority::open(&self.ca)?;
        if not_after_s > authority.not_after_s {
            output.note("note: the authority ends before this certificate does, and takes it along");
        }
        let key = KeyPair::generate().map_err(|error| cannot_make(&error))?;
        let certificate = params.signed_by(&key, &authority.issuer).map_err(|error| cannot_make(&error))?;
        let files = NewFiles { directory: &self.out, name: name.as_str() };
        let written = files.write(&certificate.pem(), &Zeroizing::new(key.serialize_pem()))?;
        let (certificate, key) = (written.certificate.display(), written.key.display());
        let authorities = self.ca.join("ca.pem").display().to_string();
        let value = json!({
            "name": name.as_str(),
            "certificate": certificate.to_string(),
            "key": key.to_string(),
            "ca": authorities,
            "not_after_s": not_after_s,
        });
        output.result(&value, || {
            let facts = [
                ("certificate", certificate.to_string()),
                ("key", format!("{key} (a secret)")),
                ("ends", table::time(not_after_s * 1_000)),
                (
                    "for peers",
                    format!("--peer-tls-cert {certificate} --peer-tls-key {key} --peer-ca {authorities}"),
                ),
                ("for clients", format!("--tls-cert {certificate} --tls-key {key}")),
            ];
            table::facts(&facts)
        })
    }

    /// The node's name, by which peers know it, and the addresses, by which clients do.
    fn alternative_names(&self, name: &NodeName) -> Result<Vec<SanType>, Failure> {
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(Failure::usage(format!("a certificate has at most {ADDRESSES_MAX} addresses")));
        }
        let mut names = vec![dns_name(name.as_str())?];
        for address in &self.addresses {
            let alternative = match address.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => self.client_dns_name(address)?,
            };
            if !names.contains(&alternative) {
                names.push(alternative);
            }
        }
        Ok(names)
    }

    /// A DNS name for clients. A bare label would let the node pass for the node of that name.
    fn client_dns_name(&self, address: &str) -> Result<SanType, Failure> {
        let is_label = !address.contains('.') && address != LOCALHOST && address != self.name;
        if is_label || DnsName::try_from(address).is_err() {
            return Err(Failure::usage(format!(
                "--address {address:?} is no IP address and no DNS name with a dot: a bare label is the name of a node"
            )));
        }
        dns_name(address)
    }
}

fn node_name(name: &str) -> Result<NodeName, Failure> {
    let name = NodeName::new(name).map_err(|error| Failure::usage(error.to_string()))?;
    if name.as_str() == LOCALHOST || DnsName::try_from(name.as_str()).is_err() {
        let message = format!("{name} cannot be the name of a node with a certificate");
        return Err(Failure::usage(message).with_hint("choose a name with a letter, and not localhost"));
    }
    Ok(name)
}

fn dns_name(name: &str) -> Result<SanType, Failure> {
    let name = name.try_into().map_err(|error| cannot_make(&error))?;
    Ok(SanType::DnsName(name))
}
