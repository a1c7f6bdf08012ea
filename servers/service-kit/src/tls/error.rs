//! What is wrong with the files of TLS.

use std::io;
use std::path::PathBuf;

use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem;

/// What is wrong with the TLS files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// One file without another that it needs.
    #[error("--{given} needs --{missing} too")]
    Incomplete {
        /// The flag that was given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path} (--{flag}): {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds nothing of the kind.
    #[error("{path} (--{flag}) holds no {expected}: expected PEM with such a section")]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A file is not well-formed PEM.
    #[error("{path} (--{flag}) is not well-formed PEM: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The certificate belongs to another key.
    #[error(
        "the key in {key} (--{key_flag}) does not belong to the first certificate in {certificate} (--{flag})"
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// The key's file.
        key: PathBuf,
        /// Its flag.
        key_flag: &'static str,
    },
    /// The certificate's dates cannot be read.
    #[error("the first certificate in {certificate} (--{flag}) is not a well-formed X.509 certificate")]
    NotX509 {
        /// The certificate's file.
        certificate: PathBuf,
        /// Its flag.
        flag: &'static str,
    },
    /// The key or certificate is of a kind that TLS cannot use.
    #[error("the certificate in {certificate} (--{flag}) and its key are not usable: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificate is not that of this node.
    #[error(
        "the first certificate in {certificate} (--{flag}) is not for {name:?}: a node's certificate carries the \
         node's name as a DNS name"
    )]
    OtherName {
        /// The certificate's file.
        certificate: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// The name that it must carry.
        name: String,
    },
    /// A certificate that came while the server ran has ended already.
    #[error("the new certificate ended {not_after_s} seconds after the start of 1970")]
    Expired {
        /// End of its validity, in seconds since 1970.
        not_after_s: u64,
    },
    /// The authorities are not usable.
    #[error("the authorities in {path} (--{flag}) are not usable: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Its flag.
        flag: &'static str,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
}
