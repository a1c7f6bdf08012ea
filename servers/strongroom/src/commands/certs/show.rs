//! `strongroom certs show`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::failure::Failure;
use crate::output::Output;
use crate::{clock, discovery, table};

/// Most certificates of one file that are shown.
const CERTIFICATES_MAX: usize = 16;

/// `certs show`
#[derive(Debug, Args)]
pub struct Show {
    /// PEM file with certificates.
    file: PathBuf,
}

/// What a certificate says.
struct Facts {
    subject: String,
    issuer: String,
    serial: String,
    dns_names: Vec<String>,
    addresses: Vec<String>,
    not_before_s: u64,
    not_after_s: u64,
    is_authority: bool,
    sha256: String,
}

impl Show {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let text = discovery::read_text(&self.file)?;
        let unusable = |what: &str| Failure::usage(format!("{} {what}", self.file.display()));
        let mut certificates = Vec::new();
        for pem in Pem::iter_from_buffer(text.as_bytes()) {
            let pem = pem.map_err(|error| unusable(&format!("is not well-formed PEM: {error}")))?;
            if pem.label == "CERTIFICATE" && certificates.len() < CERTIFICATES_MAX {
                certificates
                    .push(Facts::of(&pem).ok_or_else(|| unusable("is not a well-formed X.509 certificate"))?);
            }
        }
        if certificates.is_empty() {
            return Err(unusable("holds no certificate in PEM"));
        }
        let now_s = clock::now_ms() / 1_000;
        let values: Vec<Value> = certificates.iter().map(|facts| facts.value(now_s)).collect();
        output.result(&json!({ "certificates": values }), || {
            let texts: Vec<String> = certificates.iter().map(|facts| facts.text(now_s)).collect();
            texts.join("\n")
        })
    }
}

impl Facts {
    fn of(pem: &Pem) -> Option<Self> {
        let certificate = pem.parse_x509().ok()?;
        let (dns_names, addresses) = alternative_names(&certificate)?;
        let seconds = |time: &x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            dns_names,
            addresses,
            not_before_s: seconds(&certificate.validity().not_before),
            not_after_s: seconds(&certificate.validity().not_after),
            is_authority: certificate.is_ca(),
            sha256: hex::encode(Sha256::digest(&pem.contents)),
        })
    }

    fn validity(&self, now_s: u64) -> &'static str {
        if now_s < self.not_before_s {
            "not valid yet"
        } else if now_s >= self.not_after_s {
            "expired"
        } else {
            "valid"
        }
    }

    fn value(&self, now_s: u64) -> Value {
        json!({
            "subject": self.subject,
            "issuer": self.issuer,
            "serial": self.serial,
            "dns_names": self.dns_names,
            "addresses": self.addresses,
            "not_before_s": self.not_before_s,
            "not_after_s": self.not_after_s,
            "valid": self.validity(now_s) == "valid",
            "authority": self.is_authority,
            "sha256": self.sha256,
        })
    }

    fn text(&self, now_s: u64) -> String {
        let list = |values: &[String]| match values {
            [] => "-".to_owned(),
            values => table::cell(&values.join(", ")),
        };
        table::facts(&[
            ("subject", table::cell(&self.subject)),
            ("issuer", table::cell(&self.issuer)),
            ("dns names", list(&self.dns_names)),
            ("addresses", list(&self.addresses)),
            ("from", table::time(self.not_before_s * 1_000)),
            ("until", format!("{} ({})", table::time(self.not_after_s * 1_000), self.validity(now_s))),
            ("authority", if self.is_authority { "yes" } else { "no" }.to_owned()),
            ("sha256", self.sha256.clone()),
        ])
    }
}

/// DNS names and IP addresses; `None` when the extension is broken.
fn alternative_names(certificate: &X509Certificate<'_>) -> Option<(Vec<String>, Vec<String>)> {
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    let Some(extension) = certificate.subject_alternative_name().ok()? else {
        return Some((dns_names, addresses));
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => addresses.push(ip_address(octets)?),
            _ => {}
        }
    }
    Some((dns_names, addresses))
}

fn ip_address(octets: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(octets).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}
