//! Keys out of several extractors.

use super::extractor::{KeyError, KeyExtractor, RequestHead};
use super::request_key::{KeyWriter, PartKind};

/// See [`Extract::and`](super::Extract::and).
#[derive(Clone, Copy, Debug)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A, B> And<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for And<A, B> {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        self.first.extract(request, key)?;
        self.second.extract(request, key)
    }
}

/// See [`Extract::or`](super::Extract::or).
#[derive(Clone, Copy, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B> Or<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for Or<A, B> {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let before = key.mark();
        // The choice is part of the key: two extractors may write the same parts.
        key.part(PartKind::Choice, &[0])?;
        match self.first.extract(request, key) {
            // What is too long is somebody's: it does not become somebody else's.
            Err(first @ (KeyError::Absent { .. } | KeyError::NotWired { .. })) => {
                key.back_to(before);
                key.part(PartKind::Choice, &[1])?;
                self.second.extract(request, key).map_err(|second| match (first, second) {
                    // That the client sent no key is only known when both could look.
                    (first @ KeyError::NotWired { .. }, KeyError::Absent { .. }) => first,
                    (_, second) => second,
                })
            }
            found => found,
        }
    }
}
