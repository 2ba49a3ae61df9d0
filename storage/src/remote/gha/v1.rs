//! The older service, `_apis/artifactcache`: Forgejo, Gitea, act, GitHub Enterprise Server.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use super::client::{
    CacheError, CacheService, Deadline, Found, NO_WRITES, Reserved, Slot, Span, VERSION,
};
use super::limits;
use super::settings::Secret;
use super::transport::{Answer, Take, Transport};
use super::v2::read_blob;

const ACCEPTED: &str = "application/json;api-version=6.0-preview.1";

/// A client of the service.
#[derive(Debug)]
pub(super) struct V1 {
    transport: Transport,
    base: Secret,
    token: Secret,
}

#[derive(Debug, Deserialize)]
struct CacheEntry {
    #[serde(rename = "cacheKey")]
    key: String,
    #[serde(rename = "archiveLocation")]
    location: String,
}

#[derive(Debug, Deserialize)]
struct Reservation {
    #[serde(rename = "cacheId")]
    id: u64,
}

impl V1 {
    /// A client of the service below an address.
    pub(super) fn new(
        transport: Transport,
        cache_url: &Secret,
        token: Secret,
    ) -> Result<Self, CacheError> {
        let base = format!("{}/_apis/artifactcache/", cache_url.expose().trim_end_matches('/'));
        if Url::parse(&base).is_err() {
            return Err(CacheError::Unavailable("the cache address is malformed".into()));
        }
        Ok(Self { transport, base: Secret::new(base), token })
    }

    fn request(&self, client: &Client, method: Method, path: &str) -> RequestBuilder {
        client
            .request(method, format!("{}{path}", self.base.expose()))
            .bearer_auth(self.token.expose())
            .header(ACCEPT, ACCEPTED)
    }

    async fn post(&self, path: &str, body: String, until: Deadline) -> Result<Answer, CacheError> {
        let sent = body.len() as u64;
        let request = |client: &Client| {
            self.request(client, Method::POST, path)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone())
        };
        self.transport.send(request, sent, Take::All(limits::MAX_ANSWER_BYTES), until).await
    }
}

fn refused(status: StatusCode) -> CacheError {
    match status {
        StatusCode::UNAUTHORIZED => {
            CacheError::Unavailable("the runtime token is not accepted (any more)".into())
        }
        StatusCode::FORBIDDEN => CacheError::ReadOnly(NO_WRITES.into()),
        other => CacheError::Unavailable(format!("the service answered {}", other.as_u16())),
    }
}

/// That the service did it: a success with JSON or nothing, not a page of somebody in between.
fn done(answer: &Answer) -> Result<(), CacheError> {
    if !answer.status.is_success() {
        return Err(refused(answer.status));
    }
    if answer.body.is_empty() { Ok(()) } else { parsed::<serde_json::Value>(answer).map(drop) }
}

fn parsed<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, CacheError> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| CacheError::Unavailable("the answer is not one of the service".into()))
}

/// What a lookup found, by its answer.
pub(super) fn found(answer: &Answer) -> Result<Option<Found>, CacheError> {
    match answer.status {
        StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(None),
        StatusCode::FORBIDDEN => Err(CacheError::Unavailable("the token may not read here".into())),
        status if status.is_success() => {
            let entry: CacheEntry = parsed(answer)?;
            Ok(Some(Found { key: entry.key, address: Secret::new(entry.location) }))
        }
        status => Err(refused(status)),
    }
}

#[async_trait]
impl CacheService for V1 {
    async fn reserve(&self, key: &str, size: u64, until: Deadline) -> Result<Reserved, CacheError> {
        let mut body = json!({"key": key, "version": VERSION});
        // 0: it is not known yet.
        if size > 0 {
            body["cacheSize"] = size.into();
        }
        let body = body.to_string();
        let answer = self.post("caches", body, until).await?;
        match answer.status {
            status if status.is_success() => {
                let reservation: Reservation = parsed(&answer)?;
                Ok(Reserved::Ours(Slot::Number(reservation.id)))
            }
            StatusCode::CONFLICT => Ok(Reserved::Taken),
            status => Err(refused(status)),
        }
    }

    async fn upload(&self, slot: &Slot, bytes: Bytes, until: Deadline) -> Result<(), CacheError> {
        let Slot::Number(id) = slot else { return Err(CacheError::Expired) };
        let path = format!("caches/{id}");
        let mut offset = 0;
        while offset < bytes.len() {
            let part = bytes.slice(offset..bytes.len().min(offset + limits::V1_PART_BYTES));
            let place = format!("bytes {offset}-{}/*", offset + part.len() - 1);
            let request = |client: &Client| {
                self.request(client, Method::PATCH, &path)
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_RANGE, place.clone())
                    .body(part.clone())
            };
            let take = Take::All(limits::MAX_ANSWER_BYTES);
            let answer = self.transport.send(request, part.len() as u64, take, until).await?;
            done(&answer)?;
            offset += part.len();
        }
        Ok(())
    }

    async fn commit(
        &self,
        key: &str,
        slot: &Slot,
        size: u64,
        until: Deadline,
    ) -> Result<(), CacheError> {
        let Slot::Number(id) = slot else { return Err(CacheError::Expired) };
        let body = json!({"size": size}).to_string();
        let answer = self.post(&format!("caches/{id}"), body, until).await?;
        if answer.status != StatusCode::CONFLICT {
            return done(&answer);
        }
        // Perhaps an earlier attempt whose answer was lost. Only what is seen is believed.
        let found = self.find(key, until).await?;
        if found.is_some_and(|found| found.key == key) {
            Ok(())
        } else {
            Err(refused(answer.status))
        }
    }

    async fn find(&self, key: &str, until: Deadline) -> Result<Option<Found>, CacheError> {
        // Keys are of letters, digits, `-` and `.`: nothing to escape.
        let path = format!("cache?keys={key}&version={VERSION}");
        let request = |client: &Client| self.request(client, Method::GET, &path);
        let take = Take::All(limits::MAX_ANSWER_BYTES);
        let answer = self.transport.send(request, 0, take, until).await?;
        found(&answer)
    }

    async fn read(
        &self,
        address: &Secret,
        span: Option<Span>,
        until: Deadline,
    ) -> Result<Bytes, CacheError> {
        read_blob(&self.transport, address, span, until).await
    }
}
