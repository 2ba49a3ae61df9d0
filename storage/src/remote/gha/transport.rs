//! [`Transport`]: requests over HTTP with their retries, bounds and counters.
//!
//! Every request ends: each attempt has a time, the attempts have a number, and all of them a deadline. It
//! knows nothing of what a request means; `v2` and `v1` call it. Errors name the kind of fault and never an
//! address: addresses carry signatures, and those of the older service tokens.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::client::{CacheError, Deadline, Span};
use super::clock::Clock;
use super::limits;
use super::settings::Settings;
use crate::remote::{RemoteCounters, tls};

/// Counters that many tasks add to.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    damaged: AtomicU64,
    asked_to_wait_ms: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> RemoteCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteCounters {
            requests: of(&self.requests),
            retries: of(&self.retries),
            bytes_in: of(&self.bytes_in),
            bytes_out: of(&self.bytes_out),
            damaged: of(&self.damaged),
            asked_to_wait_ms: of(&self.asked_to_wait_ms),
        }
    }

    pub(super) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits, because the service wants it so.
    pub(super) async fn wait_as_asked(&self, clock: &dyn Clock, mut time: Duration) {
        while !time.is_zero() {
            let step = time.min(limits::WAIT_STEP);
            clock.sleep(step).await;
            let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            self.asked_to_wait_ms.fetch_add(millis.max(1), Ordering::Relaxed);
            time = time.saturating_sub(step);
        }
    }
}

const TOO_LATE: &str = "it does not answer in time";

/// How much of an answer's body is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Take {
    /// All of it, if it is not longer than this.
    All(u64),
    /// This range of the entry, whether the answer is the range or the whole entry.
    Range(Span),
}

/// An answer that was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// One attempt that came to nothing.
enum Failed {
    /// Worth another attempt, after a time if the service said so.
    Again(String, Option<Duration>),
    /// Not worth another one: TLS refuses.
    Refused(&'static str),
    /// Too many requests.
    Limited(Option<Duration>),
}

/// Sends requests.
pub(super) struct Transport {
    client: Client,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    chance: RandomState,
    pub(super) counters: Arc<Counters>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport, with connections of its own unless it is handed others.
    pub(super) fn new(settings: &Settings, counters: Arc<Counters>) -> Result<Self, CacheError> {
        let client = match &settings.client {
            Some(client) => client.clone(),
            None => {
                tls::install();
                let builder = Client::builder().connect_timeout(settings.request_timeout);
                builder.build().map_err(|error| CacheError::Unavailable(text_of(&error)))?
            }
        };
        Ok(Self {
            client,
            clock: Arc::clone(&settings.clock),
            request_timeout: settings.request_timeout,
            chance: RandomState::new(),
            counters,
        })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Sends a request, again when that may help. The caller judges every other status.
    pub(super) async fn send(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
        sent_bytes: u64,
        take: Take,
        until: Deadline,
    ) -> Result<Answer, CacheError> {
        let mut attempt = 1;
        loop {
            let failed = match self.once(request(&self.client), sent_bytes, take, until).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let (error, wanted) = match failed {
                Failed::Again(why, wanted) => (CacheError::Unavailable(why), wanted),
                Failed::Refused(why) => return Err(CacheError::Unavailable(why.to_owned())),
                Failed::Limited(wanted) => {
                    let time = wanted.unwrap_or(limits::MAX_RETRY_AFTER);
                    (CacheError::RateLimited(time), wanted)
                }
            };
            let wait = wanted.unwrap_or_else(|| self.pause(attempt));
            let fits = wait <= limits::MAX_RETRY_AFTER && wait < until.left(&*self.clock);
            if attempt == limits::ATTEMPTS || !fits {
                return Err(error);
            }
            match wanted {
                Some(wait) => self.counters.wait_as_asked(&*self.clock, wait).await,
                None => self.clock.sleep(wait).await,
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// Half to whole of a time that doubles with each attempt.
    fn pause(&self, attempt: u32) -> Duration {
        let most = limits::RETRY_BASE.as_millis() as u64 * (1 << (attempt - 1));
        let chance = self.chance.hash_one((self.clock.now_ms(), attempt));
        Duration::from_millis(most / 2 + chance % (most / 2 + 1))
    }

    async fn once(
        &self,
        request: RequestBuilder,
        sent_bytes: u64,
        take: Take,
        until: Deadline,
    ) -> Result<Answer, Failed> {
        let left = until.left(&*self.clock);
        if left.is_zero() {
            return Err(Failed::Again("there was no time left".into(), None));
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_out.fetch_add(sent_bytes, Ordering::Relaxed);
        let sending = Duration::from_secs(sent_bytes / limits::SLOWEST_BYTES_PER_SECOND);
        let exchange = self.exchange(request, self.request_timeout + sending, take);
        match tokio::time::timeout(left, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failed::Again(TOO_LATE.into(), None)),
        }
    }

    /// The next bytes of a body. One that stands still ends.
    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, String> {
        match tokio::time::timeout(self.request_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => {
                let len = chunk.as_ref().map_or(0, Bytes::len) as u64;
                self.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
                Ok(chunk)
            }
            Ok(Err(error)) => Err(text_of(&error)),
            Err(_) => Err(TOO_LATE.into()),
        }
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        time: Duration,
        take: Take,
    ) -> Result<Answer, Failed> {
        let response = match tokio::time::timeout(time, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let again = || Failed::Again(text_of(&error), None);
                return Err(tls::refusal(&error).map_or_else(again, Failed::Refused));
            }
            Err(_) => return Err(Failed::Again(TOO_LATE.into(), None)),
        };
        let status = response.status();
        let wanted = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failed::Limited(wanted));
        }
        if matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504) {
            return Err(Failed::Again(
                format!("it answers {}; it is busy or broken, which passes", status.as_u16()),
                wanted,
            ));
        }
        let body = match take {
            Take::Range(span) if status.is_success() => {
                self.range(response, span).await.map_err(|why| Failed::Again(why, None))?
            }
            take => self.all(response, take).await.map_err(|why| Failed::Again(why, None))?,
        };
        Ok(Answer { status, body })
    }

    async fn all(&self, mut response: Response, take: Take) -> Result<Bytes, String> {
        let most = match take {
            Take::All(most) => most,
            Take::Range(_) => limits::MAX_ANSWER_BYTES,
        };
        let announced = response.content_length();
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (body.len() + chunk.len()) as u64 > most {
                return Err("its answer is too long".into());
            }
            body.extend_from_slice(&chunk);
        }
        if announced.is_some_and(|len| len != body.len() as u64) {
            return Err("its answer ended early".into());
        }
        Ok(body.freeze())
    }

    /// The range itself (206), or the part of the whole entry (200) that is the range.
    async fn range(&self, mut response: Response, span: Span) -> Result<Bytes, String> {
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, span) => 0,
            StatusCode::OK if span.offset <= limits::MAX_PACK_BYTES => span.offset,
            _ => return Err("its answer is another range".into()),
        };
        let mut body = BytesMut::new();
        while let Some(mut chunk) = self.chunk(&mut response).await? {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk = chunk.slice(skipped as usize..);
            let wanted = span.len - body.len() as u64;
            if chunk.len() as u64 > wanted {
                if response.status() == StatusCode::PARTIAL_CONTENT {
                    return Err("its answer is longer than the range that was asked for".into());
                }
                chunk.truncate(wanted as usize);
            }
            body.extend_from_slice(&chunk);
            let rest_is_unwanted = response.status() == StatusCode::OK;
            if body.len() as u64 == span.len && rest_is_unwanted {
                break;
            }
        }
        if body.len() as u64 == span.len {
            Ok(body.freeze())
        } else {
            Err("its answer ended early".into())
        }
    }
}

/// Whether a partial answer begins where it has to, as far as it says.
fn begins_at(response: &Response, span: Span) -> bool {
    let stated = response.headers().get(CONTENT_RANGE).and_then(|value| {
        let (from, _) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?;
        from.parse::<u64>().ok()
    });
    stated == Some(span.offset)
}

/// The kind of a failure, without the address.
fn text_of(error: &reqwest::Error) -> String {
    let kind = if let Some(why) = tls::refusal(error) {
        why
    } else if error.is_timeout() {
        TOO_LATE
    } else if error.is_connect() {
        "it cannot be reached: no connection"
    } else if error.is_body() || error.is_decode() {
        "its answer ended early"
    } else if error.is_builder() {
        "its address is malformed; look at ACTIONS_RESULTS_URL and ACTIONS_CACHE_URL"
    } else {
        "the connection broke before an answer came"
    };
    kind.to_owned()
}
