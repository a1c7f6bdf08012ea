//! The tower layer that authenticates calls and applies the policy.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use ledger_core::transaction::Actor;
use tonic::Status;
use tower::{Layer, Service};

use super::policy::{Need, is_stream, need_of, permit};
use super::revocable::{AdmittedCall, RevocableBody, Validity};
use super::{Caller, Role, Scope};
use crate::errors;
use crate::tokens::TokenRegistry;

const ANONYMOUS_ACTOR: &str = "client:anonymous";

/// How callers are authenticated.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// By the token in `authorization: Bearer …`.
    Tokens(Arc<TokenRegistry>),
    /// Not at all (`--insecure-no-auth`): everybody is an administrator called `client:anonymous`.
    Off,
}

/// Who may ask what the server's interfaces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    /// Anybody: for servers on a loopback address.
    Open,
    /// Callers with a valid credential.
    NeedsCredential,
}

/// Applies the [policy](super::POLICY) to every request.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    authentication: Authentication,
    reflection: Reflection,
}

impl AccessLayer {
    /// A layer for one server.
    pub fn new(authentication: Authentication, reflection: Reflection) -> Self {
        Self { authentication, reflection }
    }

    /// The caller, or `None` where nobody needs to be known.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<(Caller, Option<Validity>)>, Status> {
        let need = need_of(path);
        match (need, self.reflection) {
            (Some(Need::Nothing), _) | (Some(Need::CredentialUnlessLoopback), Reflection::Open) => {
                return Ok(None);
            }
            _ => {}
        }
        let (caller, validity) = self.authenticate(headers)?;
        permit(&caller, path)?;
        // A single answer that was made stays made, also when it tells that the caller revoked its own token.
        Ok(Some((caller, validity.filter(|_| is_stream(path)))))
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(Caller, Option<Validity>), Status> {
        let registry = match &self.authentication {
            Authentication::Tokens(registry) => registry,
            Authentication::Off => return Ok((anonymous()?, None)),
        };
        let mut credentials = headers.get_all(AUTHORIZATION).iter();
        let credential = credentials.next().ok_or_else(errors::credential_missing)?;
        if credentials.next().is_some() {
            return Err(errors::credential_refused());
        }
        credential
            .to_str()
            .ok()
            .and_then(bearer_token)
            .and_then(|token| registry.authenticate_by_id(token))
            .map(|(id, caller)| (caller, Some(Validity::new(Arc::clone(registry), id))))
            .ok_or_else(errors::credential_refused)
    }
}

/// The token of `Bearer TOKEN`; the scheme in any case (RFC 9110, section 11.1).
fn bearer_token(credential: &str) -> Option<&str> {
    let (scheme, token) = credential.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn anonymous() -> Result<Caller, Status> {
    let actor = Actor::new(ANONYMOUS_ACTOR).map_err(|error| errors::internal(&error))?;
    Ok(Caller { actor, role: Role::Admin, scope: Scope::Everything })
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;
    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService { inner, access: Arc::new(self.clone()) }
    }
}

/// A service behind an [`AccessLayer`].
#[derive(Debug, Clone)]
pub struct AccessService<S> {
    inner: S,
    access: Arc<AccessLayer>,
}

impl<S, B, R> Service<Request<B>> for AccessService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<RevocableBody<R>>;
    type Error = S::Error;
    type Future = futures::future::Either<
        AdmittedCall<S::Future>,
        std::future::Ready<Result<Response<RevocableBody<R>>, S::Error>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.access.admit(request.uri().path(), request.headers()) {
            Ok(admitted) => {
                // Services must not see a caller that another layer put there.
                request.extensions_mut().remove::<Caller>();
                let validity = admitted.and_then(|(caller, validity)| {
                    request.extensions_mut().insert(caller);
                    validity
                });
                let inner = self.inner.call(request);
                futures::future::Either::Left(AdmittedCall::new(inner, validity))
            }
            Err(status) => futures::future::Either::Right(std::future::ready(Ok(status.into_http()))),
        }
    }
}
