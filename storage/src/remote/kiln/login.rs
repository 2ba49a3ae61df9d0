//! [`Login`]: what a client is known by at another Kiln server: a token that it was given, or a session for what a CI
//! service signs for the job.
//!
//! The service is asked once, when something is sent first, and again when the session ends or the server knows of it
//! no more. Called by [`super::http`].

use std::fmt;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::http::unavailable;
use crate::api::{SessionRequest, SessionResponse};
use crate::backend::{StoreError, StoreResult};
use crate::limits;
use crate::remote::get;

/// A session is renewed when it lasts no longer than this.
const RENEWED: Duration = Duration::from_secs(60);

/// How long a session is not asked for again that was refused.
const REFUSED: Duration = Duration::from_secs(30);

/// Longest answer of the service, and of the server, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where a job gets a token that a CI service signs for it.
#[derive(Clone, PartialEq, Eq)]
pub struct JobIdentity {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub request_url: String,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    pub request_token: String,
    /// Whom the token is made for: the server, by its address.
    pub audience: String,
}

impl fmt::Debug for JobIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobIdentity").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// What a client is known by.
pub(super) enum Login {
    /// Nothing.
    Nobody,
    /// A token that it was given.
    Token(HeaderValue),
    /// What a CI service says of the job.
    Job(JobIdentity, Mutex<Held>),
}

/// The session of a job.
#[derive(Debug, Default)]
pub(super) struct Held {
    header: Option<HeaderValue>,
    ends: Option<Instant>,
    /// When it was refused, and why.
    refused: Option<(Instant, String)>,
    /// Since when it is known that the server takes none: nobody has to be known there, or by a token only.
    none: Option<Instant>,
}

/// A token as a header.
fn header(token: &str) -> StoreResult<HeaderValue> {
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let fail = |_| StoreError::Unavailable("the token has characters of no token".into());
    let mut value = value.map_err(fail)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Login {
    /// By a token, where there is one, else by the identity of the job.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub(super) fn of(token: Option<&str>, job: Option<JobIdentity>) -> StoreResult<Self> {
        Ok(match (token, job) {
            (Some(token), _) => Self::Token(header(token)?),
            (None, Some(job)) => Self::Job(job, Mutex::default()),
            (None, None) => Self::Nobody,
        })
    }

    /// A request with what the client is known by, and that, where it is a session.
    ///
    /// # Errors
    /// There is no session to be had.
    pub(super) async fn sign(
        &self,
        request: RequestBuilder,
        (client, url): (&Client, &str),
    ) -> StoreResult<(RequestBuilder, Option<HeaderValue>)> {
        match self {
            Self::Nobody => Ok((request, None)),
            Self::Token(value) => Ok((request.header(AUTHORIZATION, value.clone()), None)),
            Self::Job(job, held) => Ok(match session(job, held, (client, url)).await? {
                Some(value) => (request.header(AUTHORIZATION, value.clone()), Some(value)),
                None => (request, None),
            }),
        }
    }

    /// The server does not know who asked with this session, or with none; whether another one may help. It was started
    /// anew, say, or takes sessions by now.
    pub(super) async fn is_refused(&self, used: Option<&HeaderValue>) -> bool {
        let Self::Job(_, held) = self else { return false };
        let mut held = held.lock().await;
        if used.is_some() {
            if held.header.as_ref() == used {
                held.header = None;
            }
            return true;
        }
        let is_old = held.none.is_some_and(|since| since.elapsed() >= REFUSED);
        if is_old {
            held.none = None;
        }
        is_old
    }
}

async fn session(
    job: &JobIdentity,
    held: &Mutex<Held>,
    server: (&Client, &str),
) -> StoreResult<Option<HeaderValue>> {
    // Who comes meanwhile waits for this one.
    let mut held = held.lock().await;
    let now = Instant::now();
    let lasts = held.ends.is_some_and(|ends| ends.saturating_duration_since(now) > RENEWED);
    if held.none.is_some() || (held.header.is_some() && lasts) {
        return Ok(held.header.clone());
    }
    if let Some((at, why)) = &held.refused
        && at.elapsed() < REFUSED
    {
        return Err(StoreError::Unavailable(why.clone()));
    }
    match begin(job, server).await {
        Ok(Some((value, lasts))) => {
            held.ends = now.checked_add(lasts);
            held.header = Some(value.clone());
            held.refused = None;
            Ok(Some(value))
        }
        Ok(None) => {
            (held.header, held.none) = (None, Some(now));
            Ok(None)
        }
        Err(error) => {
            held.refused = Some((now, error.to_string()));
            Err(error)
        }
    }
}

/// A session and how long it lasts; none: the server gives none to anybody.
async fn begin(
    job: &JobIdentity,
    (client, url): (&Client, &str),
) -> StoreResult<Option<(HeaderValue, Duration)>> {
    #[derive(Deserialize)]
    struct Signed {
        value: String,
    }
    let fail = |why: String| StoreError::Unavailable(why);
    let separator = if job.request_url.contains('?') { '&' } else { '?' };
    let asked = format!("{}{separator}audience={}", job.request_url, escaped(&job.audience));
    let signed = get::get(&asked, Some(&job.request_token), MAX_ANSWER_BYTES).await;
    let signed =
        signed.map_err(|error| fail(format!("the job gets no token of GitHub: {error}")))?;
    let foreign = |_| fail("the job gets no token of GitHub: its answer is none".into());
    let Signed { value: token } = serde_json::from_slice(&signed).map_err(foreign)?;
    let body = serde_json::to_vec(&SessionRequest { token });
    let request = client
        .post(format!("{url}/v1/session"))
        .timeout(limits::REMOTE_STALL_TIMEOUT)
        .header(CONTENT_TYPE, "application/json")
        .body(body.map_err(|_| fail("the question has no form".into()))?);
    let response = request.send().await.map_err(|error| unavailable(&error))?;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
        status if !status.is_success() => {
            let status = status.as_u16();
            return Err(fail(format!(
                "it gives this job no session: it answers {status}; look at its rules and its log"
            )));
        }
        _ => {}
    }
    if response.content_length().is_none_or(|len| len > MAX_ANSWER_BYTES as u64) {
        return Err(fail("its answer is none of a Kiln server".into()));
    }
    let answer = response.bytes().await.map_err(|error| unavailable(&error))?;
    let foreign = |_| fail("its answer is none of a Kiln server".into());
    let answer: SessionResponse = serde_json::from_slice(&answer).map_err(foreign)?;
    Ok(Some((header(&answer.token)?, Duration::from_secs(answer.lasts_s))))
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_part_of_a_query() {
        assert_eq!(escaped("https://a.b:1/ü&x"), "https%3A%2F%2Fa.b%3A1%2F%C3%BC%26x");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let job = JobIdentity {
            request_url: "https://x/?secret".into(),
            request_token: "secret".into(),
            audience: "https://kiln".into(),
        };
        assert!(!format!("{job:?}").contains("secret"));
        assert!(format!("{:?}", header("secret").unwrap()).contains("Sensitive"));
    }
}
