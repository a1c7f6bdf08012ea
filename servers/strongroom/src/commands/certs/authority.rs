//! `strongroom certs ca`

use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::new_file::NewFiles;
use super::{DAYS_MAX, cannot_make, date};
use crate::discovery;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// Name of the authority's files without their extension.
const FILE_NAME: &str = "ca";
/// Longest name of an authority, as X.509 has it for common names.
const NAME_CHARACTERS_MAX: usize = 64;
/// Hexadecimal digits that tell an authority from others of the same default name.
const NAME_DIGITS: usize = 8;

/// `certs ca`
#[derive(Debug, Args)]
pub struct Ca {
    /// Directory to write ca.pem and ca.key to, made when missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the authority, for people. Default: `Strongroom development` and eight digits of its own, so that a certificate of
    /// another authority is told from a damaged one.
    #[arg(long)]
    name: Option<String>,
    /// Days until it ends; with it end all certificates that it signed.
    #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

impl Ca {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let key = KeyPair::generate().map_err(|error| cannot_make(&error))?;
        let name = self.name.clone().unwrap_or_else(|| name_of(&key));
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX {
            let message = format!("--name has 1 to {NAME_CHARACTERS_MAX} characters");
            return Err(Failure::usage(message));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        // It signs nodes, and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after_s = date(&mut params, self.days);
        let certificate = params.self_signed(&key).map_err(|error| cannot_make(&error))?;
        let files = NewFiles { directory: &self.out, name: FILE_NAME };
        let written = files.write(&certificate.pem(), &Zeroizing::new(key.serialize_pem()))?;
        let (certificate, key) = (written.certificate.display(), written.key.display());
        let value = json!({ "certificate": certificate.to_string(), "key": key.to_string(), "not_after_s": not_after_s });
        output.result(&value, || {
            let facts = [
                ("certificate", certificate.to_string()),
                ("key", format!("{key} (a secret: whoever has it can join)")),
                ("ends", table::time(not_after_s * 1_000)),
            ];
            table::facts(&facts)
        })
    }
}

/// A name that no other key has.
fn name_of(key: &KeyPair) -> String {
    let digest = Sha256::digest(key.public_key_raw());
    let digits: String = hex::encode(digest).chars().take(NAME_DIGITS).collect();
    format!("Strongroom development {digits}")
}

/// An authority from its files, ready to sign.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    /// Its own end, in seconds since 1970.
    pub not_after_s: u64,
}

impl Authority {
    /// Reads `ca.pem` and `ca.key` from a directory.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let certificate_path = directory.join(format!("{FILE_NAME}.pem"));
        let key_path = directory.join(format!("{FILE_NAME}.key"));
        let unusable = |what: &str| {
            Failure::usage(format!("{} {what}", certificate_path.display()))
                .with_hint("`strongroom certs ca` makes an authority")
        };
        let pem = discovery::read_text(&certificate_path)?;
        let key_pem = Zeroizing::new(discovery::read_text(&key_path)?);
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|_| unusable("holds no certificate in PEM"))?;
        let certificate = pem.parse_x509().map_err(|_| unusable("is not a well-formed X.509 certificate"))?;
        if !certificate.is_ca() {
            return Err(unusable("is not the certificate of an authority"));
        }
        let key = KeyPair::from_pem(&key_pem).map_err(|error| {
            Failure::usage(format!("{} holds no usable key: {error}", key_path.display()))
        })?;
        if !is_key_of(&key, &certificate) {
            return Err(unusable(&format!("belongs to another key than {}", key_path.display())));
        }
        if !certificate.validity().is_valid() {
            return Err(unusable("has ended or is not valid yet"));
        }
        let not_after_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(pem.contents.as_slice()), key)
            .map_err(|error| cannot_make(&error))?;
        Ok(Self { issuer, not_after_s })
    }
}

fn is_key_of(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    use rcgen::PublicKeyData as _;
    key.subject_public_key_info() == certificate.public_key().raw
}
