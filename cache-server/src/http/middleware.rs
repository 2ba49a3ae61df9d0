//! What happens around every request: its id, its turn, its time, its log line, and the document
//! of its error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiln_storage::remote::squeeze;
use tokio::time::timeout;

use super::audit::{self, Who};
use super::body::{Arrival, Room};
use super::page;
use crate::error::ApiError;
use crate::limits::{
    BLOB_REQUEST_TIMEOUT, JSON_REQUEST_TIMEOUT, LOGIN_TIMEOUT, REQUEST_TURN_TIMEOUT,
};
use crate::principal::{self, Kind, Peer, Principal};
use crate::routes::leases::LEASES;
use crate::scopes;
use crate::service::Service;
use crate::trust::attempts::Login;
use crate::trust::secret::SESSION_PREFIX;

/// The header that carries the id of a request in every answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The outermost layer: id, log, and errors as problem documents.
pub(crate) async fn outer(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Response {
    let number = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number:x}", std::process::id());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let is_browser = accepts.is_some_and(|text| text.contains("text/html"));
    let (peer, who) = (peer_of(request.extensions()), Who::default());
    request.extensions_mut().insert(who.clone());
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let status = response.status().as_u16();
    if let Some(error) = error {
        let what = format!("{id} {method} {path:.200} {status}");
        match &error {
            ApiError::InsufficientStorage | ApiError::ReadOnly(_) => {
                error.tell(&service.log, format_args!("{what}"));
            }
            ApiError::Unauthorized(_)
            | ApiError::Forbidden(_)
            | ApiError::TooManyLogins
            | ApiError::TooMuch(_) => {
                audit::refused(&service, (peer, &who), (&what, &error));
            }
            ApiError::NotFound if is_often_gone(&path) => {
                service.log.debug(format_args!("{what}: {error}"));
            }
            _ if status == 500 => service.log.error(format_args!("{what}: {error}")),
            _ => service.log.info(format_args!("{what}: {error}")),
        }
        response = problem(&error, &id, response);
        if let ApiError::Unauthorized(_) = error {
            let how = if is_browser { "Basic realm=\"kiln\"" } else { "Bearer" };
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(how));
        }
    }
    service.log.debug(format_args!(
        "{id} {method} {path:.200} {status} in {} us",
        begun.elapsed().as_micros()
    ));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn problem(error: &ApiError, id: &str, mut response: Response) -> Response {
    let document = error.problem(id);
    let body = serde_json::to_vec(&document).unwrap_or_default();
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = error.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whether a request waits for what others do: it takes no turn from those that work, and is bounded where it is
/// answered.
fn only_waits(request: &Request) -> bool {
    let path = request.uri().path();
    let asks = path == LEASES && request.method() == Method::POST;
    asks || path.starts_with(LEASES) && path.ends_with("/hold")
}

/// Whether it is no trouble that nothing is at a path: whoever holds a lease too long finds it gone, and what a job used in
/// its last run there is not in its first.
fn is_often_gone(path: &str) -> bool {
    path.starts_with(LEASES) || path.starts_with("/v1/notes/")
}

/// Whether a path is one of those for people, who may be many and want much.
fn is_about_runs(path: &str) -> bool {
    path == "/" || ["/runs/", "/v1/runs"].iter().any(|start| path.starts_with(start))
}

/// Lets a bounded number of requests through at once, each for a bounded time.
pub(crate) async fn bounded(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Response {
    // Taken until there is an answer.
    let room = Room::of(&service.bodies);
    request.extensions_mut().insert(room.clone());
    let (request, arrival) = Arrival::of(request);
    if only_waits(&request) {
        return within(JSON_REQUEST_TIMEOUT, &arrival, next.run(request)).await;
    }
    let path = request.uri().path();
    let transfer = path.starts_with("/v1/blobs/") && path != "/v1/blobs/missing";
    let (turns, limit) = if transfer {
        (&service.transfers, BLOB_REQUEST_TIMEOUT)
    } else if path == "/v1/session" {
        // Anybody can begin with that: it takes no turn from who is known.
        (&service.logins, LOGIN_TIMEOUT)
    } else if is_about_runs(path) {
        (&service.readers, JSON_REQUEST_TIMEOUT)
    } else {
        (&service.turns, JSON_REQUEST_TIMEOUT)
    };
    let turn = timeout(REQUEST_TURN_TIMEOUT, turns.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return ApiError::Busy("too many requests at once").into_response();
    };
    within(limit, &arrival, next.run(request)).await
}

/// An answer within a time, or whose fault it is that there is none.
async fn within(
    limit: Duration,
    arrival: &Arrival,
    answer: impl Future<Output = Response>,
) -> Response {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let error = match arrival.is_over() {
            true => ApiError::Busy("the server did not get it done in time"),
            false => ApiError::Timeout,
        };
        error.into_response()
    })
}

/// Who is at the other end.
pub(crate) fn peer_of(extensions: &Extensions) -> Peer {
    extensions.get::<Peer>().copied().unwrap_or(Peer::Tcp(None))
}

/// Counts a login that failed; what is answered.
pub(crate) fn login_failed(
    service: &Service,
    (peer, by): (Peer, Login),
    why: &'static str,
) -> ApiError {
    let Peer::Tcp(Some(address)) = peer else { return ApiError::Unauthorized(why) };
    let (attempts, now) = (service.policy.trust().attempts(), Instant::now());
    if attempts.are_too_many((address, by), now) {
        return ApiError::TooManyLogins;
    }
    attempts.failed((address, by), now);
    ApiError::Unauthorized(why)
}

/// The bytes that a request sends, as its head says; of what is compressed, what it is before and after, whichever is
/// more.
fn sent(headers: &HeaderMap) -> u64 {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    number(squeeze::LENGTH).max(number(CONTENT_LENGTH.as_str())).unwrap_or(0)
}

impl FromRequestParts<Service> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        let peer = peer_of(&parts.extensions);
        let token = principal::token_of(&parts.method, &parts.headers);
        // A session that is over is no failed login: a server that was started anew knows none of them.
        let guesses = token.as_ref().is_some_and(|token| !token.starts_with(SESSION_PREFIX));
        let principal = match service.policy.resolve(peer, token.as_deref()) {
            Err(ApiError::Unauthorized(why)) if guesses => {
                return Err(login_failed(service, (peer, Login::Token), why));
            }
            resolved => resolved?,
        };
        if principal.kind == Kind::Open {
            page::refused(parts, service.config.allow_anyone)?;
        }
        if let Some(who) = parts.extensions.get::<Who>() {
            who.is(&principal);
        }
        audit::came(service, peer, &principal);
        if let Some(name) = principal.spender(peer) {
            let asks = (principal.allowance, sent(&parts.headers));
            let spending = service.policy.trust().spending();
            spending.request(&name, asks, Instant::now()).map_err(ApiError::TooMuch)?;
        }
        if !principal.local() {
            scopes::note(service, &principal).await;
        }
        Ok(principal)
    }
}
