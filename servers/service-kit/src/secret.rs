//! A value that must not appear in logs, errors or output.

use std::fmt;

use zeroize::Zeroize;

/// A secret: no `Display`, no `Serialize`, a redacted `Debug`; its memory is overwritten when it is dropped.
///
/// ```
/// let password = service_kit::Secret::new(String::from("hunter2"));
/// assert_eq!(format!("{password:?}"), "Secret(redacted)");
/// assert_eq!(password.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a secret value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to review: it must not reach a log, an error or a reply.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
