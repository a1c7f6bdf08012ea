#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
//! Passwords, bearer tokens, one-time codes, envelopes and signed tokens, as functions of their arguments.
//!
//! ```
//! use auth_credentials::password::{Argon2Cost, HashMemory, Password, PasswordHasher, Peppers, Verdict};
//!
//! let hasher = PasswordHasher::new(Argon2Cost::new(64, 1, 1)?, Peppers::none()); // far too cheap: an example
//! let mut memory = HashMemory::for_cost(hasher.cost());
//! let stored = hasher.hash(&Password::new("correct horse battery staple")?, [7; 16], &mut memory)?;
//! let typed = Password::new("correct horse battery staple")?;
//! assert_eq!(hasher.verify(&typed, &stored, &mut memory)?, Verdict::Match { needs_rehash: false });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concepts
//!
//! | module | what a person or a program presents | what is stored of it |
//! |---|---|---|
//! | [`password`] | a password, exactly as typed | a PHC string |
//! | [`opaque_token`] | 256 random bits with a prefix and a check | a keyed hash, typed by purpose |
//! | [`recovery_codes`] | 128 random bits, grouped for people | a keyed hash |
//! | [`totp`] | six digits | the secret in an envelope, and the last accepted step |
//! | [`jwt`] | a signed token | nothing; the signing keys in envelopes |
//!
//! [`envelope`] encrypts what has to be read again.
//!
//! # Guarantees
//!
//! - Time and random bytes are arguments. Nothing here reads a clock, draws a random number, touches a file or starts a thread.
//! - No input panics, and none decides how much memory is taken or how long is computed beyond the limits that its decoder states.
//! - Secrets are compared in constant time and absent from every `Debug` and every error. What this crate holds of them is wiped
//!   when dropped, except the state of HMAC in [`jwt::deepersensor`]; buffers inside of libraries are theirs to wipe.
//! - What was hashed or sealed for one purpose or one row opens no other: the purpose and the row are part of the hash.
//!
//! # It is not
//!
//! A store, a session, a throttle or a pool of threads: `auth-core` and the servers are built on it. It implements no primitive:
//! those come from libraries (`argon2`, `bcrypt`, `scrypt`, `pbkdf2`, `blake3`, `chacha20poly1305`, `aws-lc-rs`, `totp-rs`, `xorf`).
//!
//! # Map
//!
//! [`password`]: the policy, the hashes and the filter of breached passwords. [`opaque_token`], [`recovery_codes`], [`totp`],
//! [`envelope`]: one file each. [`jwt`]: keys, their rotation, and two kinds of token. `docs/formats.md` has every byte.

mod crockford;
pub mod envelope;
pub mod jwt;
pub mod opaque_token;
pub mod password;
pub mod recovery_codes;
pub mod totp;
