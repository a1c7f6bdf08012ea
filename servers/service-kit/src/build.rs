//! What was built: version and commit.

use serde::Serialize;

/// Version and commit of the running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BuildInformation {
    /// Version of the workspace, such as `0.1.0`.
    pub version: &'static str,
    /// First 12 hexadecimal digits of the commit, or `unknown` when built outside a checkout.
    pub commit: &'static str,
}

/// The build of this program.
pub const BUILD: BuildInformation =
    BuildInformation { version: env!("CARGO_PKG_VERSION"), commit: env!("SERVICE_KIT_COMMIT") };

/// Version and commit as `--version` prints them: `0.1.0 (0123456789ab)`.
pub const VERSION_WITH_COMMIT: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("SERVICE_KIT_COMMIT"), ")");
