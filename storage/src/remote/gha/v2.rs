//! The service of github.com: three Twirp calls in JSON, and blobs behind signed addresses.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{
    CacheError, CacheService, Deadline, Found, NO_WRITES, Reserved, Slot, Span, VERSION,
};
use super::limits;
use super::settings::Secret;
use super::transport::{Answer, Take, Transport};

const CALLS: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// A client of the service.
#[derive(Debug)]
pub(super) struct V2 {
    transport: Transport,
    origin: Url,
    token: Secret,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reply {
    ok: bool,
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(alias = "matchedKey")]
    matched_key: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    msg: String,
}

/// What a call came to beside an answer.
pub(super) enum Refusal {
    Taken,
    NotFound,
    Other(CacheError),
}

impl From<CacheError> for Refusal {
    fn from(error: CacheError) -> Self {
        Self::Other(error)
    }
}

impl V2 {
    /// A client of the service at an origin.
    pub(super) fn new(
        transport: Transport,
        results_url: &str,
        token: Secret,
    ) -> Result<Self, CacheError> {
        let origin = Url::parse(results_url)
            .map_err(|_| CacheError::Unavailable("the results address is malformed".into()))?;
        Ok(Self { transport, origin, token })
    }

    async fn call(&self, method: &str, body: Value, until: Deadline) -> Result<Reply, Refusal> {
        let malformed = |_| CacheError::Unavailable("the results address is malformed".into());
        let url = self.origin.join(&format!("{CALLS}{method}")).map_err(malformed)?;
        let body = body.to_string();
        let sent = body.len() as u64;
        let request = |client: &reqwest::Client| {
            client
                .post(url.clone())
                .bearer_auth(self.token.expose())
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json")
                .body(body.clone())
        };
        let take = Take::All(limits::MAX_ANSWER_BYTES);
        let answer = self.transport.send(request, sent, take, until).await?;
        read_reply(&answer)
    }
}

pub(super) fn read_reply(answer: &Answer) -> Result<Reply, Refusal> {
    if answer.status.is_success() {
        let reply: Reply = serde_json::from_slice(&answer.body)
            .map_err(|_| CacheError::Unavailable("the answer is not one of the service".into()))?;
        if !reply.ok && reply.message.starts_with("cache write denied:") {
            return Err(CacheError::ReadOnly(NO_WRITES.into()).into());
        }
        return Ok(reply);
    }
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    Err(match (answer.status, problem.code.as_str()) {
        _ if problem.msg.contains("insufficient usage") => {
            CacheError::ReadOnly("the cache of the repository is over its quota".into()).into()
        }
        _ if problem.msg.contains("cache read denied:") => {
            CacheError::Unavailable("the token may not read here".into()).into()
        }
        (StatusCode::CONFLICT, _) | (_, "already_exists") => Refusal::Taken,
        (StatusCode::UNAUTHORIZED, _) => {
            CacheError::Unavailable("the runtime token is not accepted (any more)".into()).into()
        }
        (StatusCode::NOT_FOUND, "not_found") => Refusal::NotFound,
        (status, _) => {
            CacheError::Unavailable(format!("the service answered {}", status.as_u16())).into()
        }
    })
}

/// What a lookup found, by its answer.
pub(super) fn found(answer: Result<Reply, Refusal>) -> Result<Option<Found>, CacheError> {
    match answer {
        Ok(reply) if reply.ok && !reply.signed_download_url.is_empty() => Ok(Some(Found {
            key: reply.matched_key,
            address: Secret::new(reply.signed_download_url),
        })),
        Ok(_) | Err(Refusal::NotFound) => Ok(None),
        Err(Refusal::Taken) => Err(CacheError::Unavailable("the service answered 409".into())),
        Err(Refusal::Other(error)) => Err(error),
    }
}

#[async_trait]
impl CacheService for V2 {
    async fn reserve(&self, key: &str, _: u64, until: Deadline) -> Result<Reserved, CacheError> {
        let body = json!({"key": key, "version": VERSION});
        match self.call("CreateCacheEntry", body, until).await {
            Ok(reply) if reply.ok && !reply.signed_upload_url.is_empty() => {
                Ok(Reserved::Ours(Slot::Address(Secret::new(reply.signed_upload_url))))
            }
            Err(Refusal::Taken) => Ok(Reserved::Taken),
            // Some servers answer so instead of a conflict.
            Ok(reply) if reply.message.is_empty() || reply.message.contains("already exists") => {
                Ok(Reserved::Taken)
            }
            Ok(_) => Err(CacheError::Unavailable("the service refused a new entry".into())),
            Err(Refusal::NotFound) => {
                Err(CacheError::Unavailable("there is no such service".into()))
            }
            Err(Refusal::Other(error)) => Err(error),
        }
    }

    async fn upload(&self, slot: &Slot, bytes: Bytes, until: Deadline) -> Result<(), CacheError> {
        let Slot::Address(address) = slot else { return Err(CacheError::Expired) };
        let sent = bytes.len() as u64;
        let request = |client: &reqwest::Client| {
            client
                .put(address.expose())
                .header("x-ms-blob-type", "BlockBlob")
                .header("x-ms-version", "2021-08-06")
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(bytes.clone())
        };
        let take = Take::All(limits::MAX_ANSWER_BYTES);
        let answer = self.transport.send(request, sent, take, until).await?;
        match answer.status {
            StatusCode::CREATED => Ok(()),
            // Somebody in between.
            StatusCode::OK => Err(CacheError::Unavailable("an upload was not taken".into())),
            other => blob_status(other),
        }
    }

    async fn commit(
        &self,
        key: &str,
        _: &Slot,
        size: u64,
        until: Deadline,
    ) -> Result<(), CacheError> {
        let mut attempt = 1;
        loop {
            let body = json!({"key": key, "version": VERSION, "size_bytes": size.to_string()});
            let why = match self.call("FinalizeCacheEntryUpload", body, until).await {
                Ok(reply) if reply.ok => return Ok(()),
                // Perhaps an earlier attempt whose answer was lost. Only what is seen is believed.
                Err(Refusal::Taken) => {
                    let found = self.find(key, until).await?;
                    if found.is_some_and(|found| found.key == key) {
                        return Ok(());
                    }
                    "the service does not finalize an entry, nor is it there"
                }
                Ok(_) => "the service did not finalize an entry",
                Err(Refusal::NotFound) => "the service does not know an entry that was uploaded",
                Err(Refusal::Other(error)) => return Err(error),
            };
            let clock = self.transport.clock();
            let waits = until.left(clock) > limits::FINALIZE_WAIT;
            if attempt == limits::FINALIZE_ATTEMPTS || !waits {
                return Err(CacheError::Unavailable(why.into()));
            }
            clock.sleep(limits::FINALIZE_WAIT * attempt).await;
            attempt += 1;
        }
    }

    async fn find(&self, key: &str, until: Deadline) -> Result<Option<Found>, CacheError> {
        // The key is repeated: it is not known for certain which of the two fields counts.
        let body = json!({"key": key, "restore_keys": [key], "version": VERSION});
        found(self.call("GetCacheEntryDownloadURL", body, until).await)
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

/// Reads an entry, or a range of it, from a signed address. Both services do that alike.
pub(super) async fn read_blob(
    transport: &Transport,
    address: &Secret,
    span: Option<Span>,
    until: Deadline,
) -> Result<Bytes, CacheError> {
    let request = |client: &reqwest::Client| {
        let request = client.get(address.expose());
        match span {
            None => request,
            Some(span) => {
                request.header(RANGE, format!("bytes={}-{}", span.offset, span.end() - 1))
            }
        }
    };
    let take = span.map_or(Take::All(limits::MAX_MANIFEST_BYTES as u64 * 2), Take::Range);
    let answer = transport.send(request, 0, take, until).await?;
    blob_status(answer.status)?;
    Ok(answer.body)
}

/// What the blob half says. An entry that is gone and a signature that is over look alike to a reader: the
/// address has to be asked for again.
pub(super) fn blob_status(status: StatusCode) -> Result<(), CacheError> {
    match status.as_u16() {
        200..300 => Ok(()),
        401 | 403 | 404 | 410 | 416 => Err(CacheError::Expired),
        other => Err(CacheError::Unavailable(format!("the blob service answered {other}"))),
    }
}
