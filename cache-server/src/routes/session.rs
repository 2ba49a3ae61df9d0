//! `POST /v1/session`: a token of a CI service is exchanged for one of this server, which lasts as long as a job.

use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use kiln_storage::api::{Problem, SessionRequest, SessionResponse};
use tokio::time::timeout;

use crate::clock;
use crate::error::ApiError;
use crate::http::middleware::{login_failed, peer_of};
use crate::http::{audit, body};
use crate::limits::{LOGIN_BODY_TIMEOUT, MAX_ID_TOKEN_BYTES};
use crate::principal::{Peer, Scoped};
use crate::service::Service;
use crate::trust::Refused;
use crate::trust::attempts::Login;

/// Most of a request beside the token, bytes.
const AROUND_BYTES: usize = 1024;

/// Begins a session for a token of a CI service. A token is good for one.
#[utoipa::path(
    post,
    path = "/v1/session",
    request_body = SessionRequest,
    responses(
        (status = 200, description = "The session", body = SessionResponse),
        (status = 401, description = "The token is not believed", body = Problem,
         content_type = "application/problem+json"),
        (status = 403, description = "The token is good and gets nothing here", body = Problem,
         content_type = "application/problem+json"),
        (status = 404, description = "This server takes no such tokens", body = Problem,
         content_type = "application/problem+json"),
        (status = 429, description = "Too many logins from this address failed", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`busy`, or the keys of the service are not to be had",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn begin(
    State(service): State<Service>,
    request: Request,
) -> Result<Json<SessionResponse>, ApiError> {
    let peer = peer_of(request.extensions());
    let trust = service.policy.trust();
    match peer {
        Peer::Unix { .. } => drop(service.policy.resolve(peer, None)?),
        Peer::Tcp(Some(address)) => {
            if trust.attempts().are_too_many((address, Login::Session), Instant::now()) {
                return Err(ApiError::TooManyLogins);
            }
        }
        Peer::Tcp(None) => {}
    }
    if !trust.gives_sessions() {
        return Err(ApiError::NotFound);
    }
    let max = MAX_ID_TOKEN_BYTES + AROUND_BYTES;
    let body = timeout(LOGIN_BODY_TIMEOUT, body::json_within(request, max)).await;
    let SessionRequest { token } = body.map_err(|_| ApiError::Timeout)??;
    let begun = service.policy.trust().exchange(&token, clock::now_ms()).await;
    let begun = begun.map_err(|why| {
        audit::no_session(&service, peer, &why);
        match refusal(why) {
            ApiError::Unauthorized(why) => login_failed(&service, (peer, Login::Session), why),
            error => error,
        }
    })?;
    let principal = &begun.principal;
    let name = |scoped: &Scoped| scoped.scope.reference().to_owned();
    let writes = principal.writes.as_ref().map(name);
    service.log.info(format_args!(
        "audit: session for {}: writes {}",
        principal.name,
        writes.as_deref().unwrap_or("nothing")
    ));
    Ok(Json(SessionResponse {
        token: begun.secret.expose().to_owned(),
        lasts_s: begun.lasts_s,
        reads: principal.reads.iter().map(name).collect(),
        writes,
    }))
}

/// What is told of a refusal: enough to mend the configuration, and nothing of the server's.
fn refusal(why: Refused) -> ApiError {
    match why {
        Refused::None => ApiError::NotFound,
        Refused::Doubt(_) => {
            ApiError::Unauthorized("the token is not believed; the server's log says why")
        }
        Refused::Replayed => ApiError::Unauthorized("the token was used before"),
        Refused::NoKeys(_) => ApiError::Busy("the keys of the issuer are not to be had"),
        Refused::Refusal(_) => {
            ApiError::Forbidden("the rules of this server give the token nothing")
        }
        Refused::Full => ApiError::Busy("too many sessions"),
    }
}
