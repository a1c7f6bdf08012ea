//! Who the client says it is, and who it is.

use std::fmt;
use std::marker::PhantomData;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::extractor::{KeyError, KeyExtractor, RequestHead};
use super::request_key::{KeyWriter, PartKind};

/// The value of a header, as the client sends it.
///
/// A client that writes another value has another limit: only for headers that something in front of us sets or checks, or in
/// [`and`](super::Extract::and) with what the client cannot choose. Lines of one name count as one list; their order matters.
#[derive(Clone, Debug)]
pub struct HeaderValueKey {
    name: HeaderName,
}

impl HeaderValueKey {
    /// Of this header.
    pub fn new(name: HeaderName) -> Self {
        Self { name }
    }
}

impl KeyExtractor for HeaderValueKey {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let values = request.headers.get_all(&self.name);
        if values.iter().next().is_none() {
            return Err(KeyError::Absent { what: format!("header {}", self.name) });
        }
        values.iter().try_for_each(|value| key.part(PartKind::Header, value.as_bytes()))
    }
}

/// Where a credential stands.
#[derive(Clone, Debug)]
enum Place {
    /// The whole value of a header.
    Header(HeaderName),
    /// Behind `Bearer` in `Authorization`.
    Bearer,
}

/// A credential that is known. One that is not, or none, or more than one, is absent: a client that makes credentials up stays
/// with the key that comes behind [`or`](super::Extract::or), its address for example, and gets no bucket per invention.
#[derive(Clone)]
pub struct ApiKey<F> {
    place: Place,
    known: F,
}

impl<F: Fn(&[u8]) -> bool> ApiKey<F> {
    /// The value of this header, when `known` says so.
    pub fn in_header(name: HeaderName, known: F) -> Self {
        Self { place: Place::Header(name), known }
    }

    /// The token of `Authorization: Bearer`, when `known` says so.
    pub fn bearer(known: F) -> Self {
        Self { place: Place::Bearer, known }
    }
}

impl<F> fmt::Debug for ApiKey<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiKey").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<F: Fn(&[u8]) -> bool + Send + Sync> KeyExtractor for ApiKey<F> {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let name = match &self.place {
            Place::Header(name) => name,
            Place::Bearer => &AUTHORIZATION,
        };
        let mut values = request.headers.get_all(name).iter();
        let only = values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes());
        let credential = only.and_then(|value| match &self.place {
            Place::Header(_) => Some(value),
            Place::Bearer => bearer(value),
        });
        match credential.filter(|credential| (self.known)(credential)) {
            Some(credential) => key.part(PartKind::Credential, credential),
            None => Err(KeyError::Absent { what: "known credential".to_owned() }),
        }
    }
}

/// RFC 6750, 2.1; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// Who an outer layer has found the client to be: `name` turns what it left in the extensions into bytes. Where that layer also
/// lets through clients whom it does not know, [`KnownUser`].
pub struct User<T, F> {
    name: F,
    found: PhantomData<fn() -> T>,
}

impl<T, F, N> User<T, F>
where
    F: Fn(&T) -> N,
    N: AsRef<[u8]>,
{
    /// Users with the same name share a key.
    pub fn named_by(name: F) -> Self {
        Self { name, found: PhantomData }
    }
}

impl<T, F> fmt::Debug for User<T, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "User<{}>", std::any::type_name::<T>())
    }
}

impl<T, F, N> KeyExtractor for User<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(&T) -> N + Send + Sync,
    N: AsRef<[u8]>,
{
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let user = request.extensions.get::<T>();
        let user = user.ok_or_else(|| KeyError::NotWired { what: std::any::type_name::<T>().to_owned() })?;
        key.part(PartKind::User, (self.name)(user).as_ref())
    }
}

/// Who an outer layer has found the client to be, where that layer lets others through as well. It leaves a `T` of every client;
/// `name` is `None` for those whom it does not know, and they have no such key.
pub struct KnownUser<T, F> {
    name: F,
    found: PhantomData<fn() -> T>,
}

impl<T, F, N> KnownUser<T, F>
where
    F: Fn(&T) -> Option<N>,
    N: AsRef<[u8]>,
{
    /// Users with the same name share a key.
    pub fn named_by(name: F) -> Self {
        Self { name, found: PhantomData }
    }
}

impl<T, F> fmt::Debug for KnownUser<T, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KnownUser<{}>", std::any::type_name::<T>())
    }
}

impl<T, F, N> KeyExtractor for KnownUser<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(&T) -> Option<N> + Send + Sync,
    N: AsRef<[u8]>,
{
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let found = request.extensions.get::<T>();
        let found =
            found.ok_or_else(|| KeyError::NotWired { what: std::any::type_name::<T>().to_owned() })?;
        let name = (self.name)(found).ok_or_else(|| KeyError::Absent { what: "known user".to_owned() })?;
        key.part(PartKind::User, name.as_ref())
    }
}
