//! Certificates of tests, in files.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use service_kit::tls::PeerTlsFiles;
use tempfile::TempDir;

/// An authority, and the directory of its files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

/// When a certificate ends.
#[derive(Clone, Copy)]
pub enum Ends {
    Late,
    LongAgo,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), pem).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Files of a node with a certificate for its own name.
    pub fn node(&self, name: &str) -> PeerTlsFiles {
        self.issue(name, &[name], Ends::Late)
    }

    /// Files of a certificate with these names, under a file name of their own.
    pub fn issue(&self, file: &str, names: &[&str], ends: Ends) -> PeerTlsFiles {
        let file_of = |extension: &str| self.directory.path().join(format!("{file}.{extension}"));
        let files = PeerTlsFiles {
            certificate: file_of("pem"),
            key: file_of("key"),
            authorities: self.ca(),
            name: None,
        };
        self.issue_to(&files, names, ends);
        files
    }

    /// Writes a new certificate and key over files, the key first and each by a rename, as careful renewals do.
    pub fn issue_to(&self, files: &PeerTlsFiles, names: &[&str], ends: Ends) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2_020, 1, 1);
        params.not_after = match ends {
            Ends::Late => date_time_ymd(2_090, 1, 1),
            Ends::LongAgo => date_time_ymd(2_021, 1, 1),
        };
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        replace(&files.key, &key.serialize_pem());
        replace(&files.certificate, &certificate.pem());
    }
}

/// Writes a file beside the old one and moves it over.
pub fn replace(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}
