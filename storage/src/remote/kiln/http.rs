//! [`Http`]: requests to another Kiln server, counted, bounded and repeated where that makes sense. Knows
//! what an answer means for who asked, and nothing of records and blobs. Called by [`super`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;

use super::login::{JobIdentity, Login};
use crate::api::Problem;
use crate::backend::{StoreError, StoreResult};
use crate::key::ObjectName;
use crate::limits;
use crate::remote::{RemoteCounters, squeeze, tls, via};

/// Where the server is and who asks.
#[derive(Clone)]
pub struct KilnOptions {
    /// `http(s)://host:port`.
    pub url: String,
    /// The bearer token.
    pub token: Option<String>,
    /// Where the job gets a token of a CI service, where there is no other one.
    pub job: Option<JobIdentity>,
}

impl fmt::Debug for KilnOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KilnOptions")
            .field("url", &self.url)
            .field("token", &self.token.is_some())
            .field("job", &self.job)
            .finish()
    }
}

/// What was sent and received.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub requests: AtomicU64,
    pub retries: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub damaged: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// An answer that was no success.
#[derive(Debug)]
pub(super) struct Refused {
    pub status: StatusCode,
    /// Last segment of the kind of the problem, where the answer is one.
    pub kind: String,
}

impl Refused {
    fn text(&self) -> String {
        let next = match self.status.as_u16() {
            401 | 403 => "; look at KILN_TOKEN",
            404 | 405 => "; is the address that of a Kiln server?",
            400 | 422 => "; it is perhaps of another version",
            _ => "",
        };
        match self.kind.as_str() {
            "" => format!("it answers {}{next}", self.status.as_u16()),
            kind => format!("it answers {} ({kind}){next}", self.status.as_u16()),
        }
    }

    /// What it means for something that was asked.
    pub(super) fn of_read(&self) -> StoreError {
        StoreError::Unavailable(self.text())
    }

    /// What it means for something that was to be stored.
    pub(super) fn of_write(&self, name: &ObjectName, size: u64) -> StoreError {
        match (self.status.as_u16(), self.kind.as_str()) {
            (401 | 403 | 405 | 507, _) | (503, "read-only") => StoreError::ReadOnly(self.text()),
            (413, _) => StoreError::TooLarge { name: name.clone(), size },
            (422 | 423, _) | (400, "bad-request") => StoreError::Refused(self.text()),
            _ => StoreError::Unavailable(self.text()),
        }
    }
}

/// What a request ended with.
#[derive(Debug)]
pub(super) enum Answer {
    /// A success.
    Good(Response),
    /// Any other.
    Refused(Refused),
}

/// The way to a server.
pub(super) struct Http {
    client: Client,
    /// The server, for people and for requests.
    pub url: String,
    login: Login,
    /// What was sent and received.
    pub counters: Arc<Counters>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Http {
    /// A client of a server; reaches nobody yet.
    ///
    /// # Errors
    /// The token cannot be sent; TLS is not to be had.
    pub(super) fn new(options: KilnOptions) -> StoreResult<Self> {
        tls::install();
        let fail = |why: &str| StoreError::Unavailable(why.to_owned());
        let login = Login::of(options.token.as_deref(), options.job)?;
        let client = Client::builder()
            .connect_timeout(limits::REMOTE_CONNECT_TIMEOUT)
            .read_timeout(limits::REMOTE_STALL_TIMEOUT)
            // A connection of HTTP/2 carries all requests, and outlives those that are given up: one that is dead has to
            // be found out while nothing is asked, too, or the next ones wait on it as well.
            .http2_keep_alive_interval(limits::REMOTE_PING_INTERVAL)
            .http2_keep_alive_timeout(limits::REMOTE_PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|_| fail("no client for it can be made"))?;
        let url = options.url.trim_end_matches('/').to_owned();
        Ok(Self { client, url, login, counters: Arc::default() })
    }

    /// A request to a path.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match via::current() {
            Some(through) => request.header(via::HEADER, through),
            None => request,
        }
    }

    /// Sends one request; an answer that is no success is read.
    pub(super) async fn send(&self, request: RequestBuilder) -> StoreResult<Answer> {
        Ok(self.send_counting_pause(request).await?.0)
    }

    /// Sends a request with a body that can be sent again: a few times where the server says that it is
    /// busy, or a connection was gone.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Bytes) -> StoreResult<Answer> {
        for attempt in 1.. {
            let request = self
                .request(method.clone(), path)
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT_ENCODING, squeeze::ENCODING)
                .body(body.clone());
            add(&self.counters.bytes_out, body.len() as u64);
            let last = attempt >= limits::REMOTE_ATTEMPTS;
            let pause = match self.send_counting_pause(request).await {
                Ok((Answer::Refused(_), Some(pause))) if !last => pause,
                // Most likely the server closed a connection that was idle.
                Err(StoreError::Unavailable(_)) if attempt == 1 => Duration::ZERO,
                other => return other.map(|(answer, _)| answer),
            };
            add(&self.counters.retries, 1);
            tokio::time::sleep(pause).await;
        }
        Err(StoreError::Unavailable("no attempt was made".into()))
    }

    /// The answer, and how long to wait before the same is asked again, where that makes sense.
    async fn send_counting_pause(
        &self,
        request: RequestBuilder,
    ) -> StoreResult<(Answer, Option<Duration>)> {
        let (request, session) = self.login.sign(request, (&self.client, &self.url)).await?;
        add(&self.counters.requests, 1);
        let response = request.send().await.map_err(|error| unavailable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok((Answer::Good(response), None));
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let bytes = self.read(response, limits::MAX_JSON_BODY_BYTES).await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
        let kind = problem.kind.rsplit('/').next().unwrap_or_default();
        let kind: String =
            kind.chars().filter(|c| c.is_ascii_lowercase() || *c == '-').take(40).collect();
        let busy = matches!(status.as_u16(), 429 | 502..=504) && kind != "read-only";
        if status == StatusCode::UNAUTHORIZED && self.login.is_refused(session.as_ref()).await {
            return Ok((Answer::Refused(Refused { status, kind }), Some(Duration::ZERO)));
        }
        let pause = after.filter(|_| busy).filter(|p| *p <= limits::REMOTE_MAX_RETRY_AFTER);
        Ok((Answer::Refused(Refused { status, kind }), pause))
    }

    /// Reads an answer up to a size.
    pub(super) async fn read(&self, response: Response, max: usize) -> StoreResult<Bytes> {
        let mut stream = response.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| unavailable(&error))?;
            add(&self.counters.bytes_in, chunk.len() as u64);
            if bytes.len() + chunk.len() > max {
                return Err(StoreError::Unavailable("its answer is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// A body whose bytes are counted as they go.
    pub(super) fn counted(&self, stream: BoxStream<'static, StoreResult<Bytes>>) -> reqwest::Body {
        let counters = self.counters.clone();
        reqwest::Body::wrap_stream(stream.map(move |chunk| {
            if let Ok(bytes) = &chunk {
                add(&counters.bytes_out, bytes.len() as u64);
            }
            chunk
        }))
    }

    /// What was sent and received so far.
    pub(super) fn counters(&self) -> RemoteCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, retries, bytes_in, bytes_out, damaged } = &*self.counters;
        RemoteCounters {
            requests: read(requests),
            retries: read(retries),
            bytes_in: read(bytes_in),
            bytes_out: read(bytes_out),
            damaged: read(damaged),
            asked_to_wait_ms: 0,
        }
    }
}

/// A question as JSON.
pub(super) fn json(value: &impl Serialize) -> StoreResult<Bytes> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from).map_err(|_| StoreError::Unavailable("the question has no form".into()))
}

/// What a client says of a failure, without the address, which may hold anything.
pub(in crate::remote) fn unavailable(error: &reqwest::Error) -> StoreError {
    let why = if let Some(why) = tls::refusal(error) {
        why
    } else if error.is_timeout() {
        "it does not answer in time"
    } else if error.is_connect() {
        "it cannot be reached: no connection; look at the address and the network"
    } else if error.is_body() || error.is_decode() {
        "its answer broke off"
    } else {
        "the connection broke before an answer came"
    };
    StoreError::Unavailable(why.to_owned())
}
