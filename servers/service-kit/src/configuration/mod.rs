//! Layered configuration from one table per server.
//!
//! A server declares its settings once, as [`Setting`]s. That table feeds the command line ([`flags_of`]), the
//! environment, the TOML file, the documentation ([`reference()`]) and the sample file ([`template`]).
//!
//! Layers, the first that has the key wins: flags · `STRONGROOM__<SERVER>__<KEY>` · documented aliases of foreign
//! variables · the TOML file's table `[<server>]` · the default of the table. A key that no table declares is an
//! error that names the key and where it stood. Secrets have no flag that carries the value itself (it would show
//! in the process list); each can be named by a file: `--<key>-file`, `…__<KEY>_FILE`, `<key>_file`.
//!
//! ```
//! use service_kit::configuration::{Kind, Resolver, Setting, TimeUnit};
//!
//! static SETTINGS: &[Setting] = &[
//!     Setting::new("listen", Kind::Address, "Address to serve on.").or("127.0.0.1:50051"),
//!     Setting::new("timeout", Kind::Duration { bare: TimeUnit::Seconds }, "Time for one request.").or("30s"),
//! ];
//! let environment = [("STRONGROOM__LEDGER__TIMEOUT", "5s")];
//! let resolved = Resolver::new("ledger", SETTINGS).environment(environment).resolve()?;
//! assert_eq!(resolved.duration("timeout")?.as_secs(), 5);
//! assert_eq!(resolved.address("listen")?.port(), 50051);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod command_line;
mod documentation;
mod error;
mod file;
mod resolved;
mod resolver;
mod setting;

pub use command_line::{flags_of, given_flags};
pub use documentation::{reference, template};
pub use error::{ConfigurationError, ConfigurationErrors};
pub use resolved::{Resolved, SettingRow, Source};
pub use resolver::{ENVIRONMENT_PREFIX, Resolver, SERVERS};
pub use setting::{Alias, Kind, Setting, TimeUnit};
