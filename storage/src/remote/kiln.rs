//! [`KilnRemote`]: another Kiln server as a [`Remote`], by HTTP or HTTPS.
//!
//! The scope is what that server takes the caller for; the scopes of the calls are only given back. Checks
//! every record and every packed blob; bodies of single blobs are for the caller to verify. One call is one
//! request, repeated a few times where the server was just busy. Knows no settings: whoever makes one hands
//! the place and the token in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
    RETRY_AFTER,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;

use super::pack::Unpack;
use super::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored, squeeze, tls};
use crate::api::{
    BringRequest, LookupRequest, LookupResponse, MissingRequest, Problem, PublishRequest,
    RejectRequest,
};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::limits;
use crate::record::Record;

/// Longest that the server is given to bring what is behind it in turn.
const BRING: Duration = Duration::from_secs(20);

/// Most blobs whose results are remembered because the server has to bring them first.
const MAX_BEHIND: usize = 50_000;

/// Where the server is and who asks.
#[derive(Clone)]
pub struct KilnOptions {
    /// `http(s)://host:port`.
    pub url: String,
    /// The bearer token.
    pub token: Option<String>,
}

impl fmt::Debug for KilnOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KilnOptions")
            .field("url", &self.url)
            .field("token", &self.token.is_some())
            .finish()
    }
}

/// Another Kiln server.
pub struct KilnRemote {
    client: Client,
    url: String,
    authorization: Option<HeaderValue>,
    counters: Arc<Counters>,
    /// Results by blob that the server has not got itself.
    behind: Mutex<HashMap<Digest, ResultKey>>,
}

impl fmt::Debug for KilnRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KilnRemote").field("url", &self.url).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    damaged: AtomicU64,
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// An answer that was no success.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    /// Last segment of the kind of the problem, where the answer is one.
    kind: String,
}

impl Refused {
    fn text(&self) -> String {
        match self.kind.as_str() {
            "" => format!("it answers {}", self.status.as_u16()),
            kind => format!("it answers {} ({kind})", self.status.as_u16()),
        }
    }

    /// What it means for something that was asked.
    fn of_read(&self) -> StoreError {
        StoreError::Unavailable(self.text())
    }

    /// What it means for something that was to be stored.
    fn of_write(&self, name: &ObjectName, size: u64) -> StoreError {
        match (self.status.as_u16(), self.kind.as_str()) {
            (401 | 403 | 405 | 507, _) | (503, "read-only") => StoreError::ReadOnly(self.text()),
            (413 | 422 | 423, _) => StoreError::TooLarge { name: name.clone(), size },
            _ => StoreError::Unavailable(self.text()),
        }
    }
}

/// What a request ended with.
enum Answer {
    Good(Response),
    Refused(Refused),
}

impl KilnRemote {
    /// A client of a server; reaches nobody yet.
    ///
    /// # Errors
    /// The token cannot be sent; TLS is not to be had.
    pub fn new(options: KilnOptions) -> StoreResult<Self> {
        tls::install();
        let fail = |why: &str| StoreError::Unavailable(why.to_owned());
        let authorization = match options.token {
            None => None,
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| fail("the token has characters of no token"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = Client::builder()
            .connect_timeout(limits::REMOTE_CONNECT_TIMEOUT)
            .read_timeout(limits::REMOTE_STALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|_| fail("no client for it can be made"))?;
        let url = options.url.trim_end_matches('/').to_owned();
        let (counters, behind) = (Arc::default(), Mutex::default());
        Ok(Self { client, url, authorization, counters, behind })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// Sends one request; an answer that is no success is read.
    async fn send(&self, request: RequestBuilder) -> StoreResult<Answer> {
        Ok(self.send_counting_pause(request).await?.0)
    }

    /// Sends a request with a body that can be sent again: a few times where the server says that it is
    /// busy, or a connection was gone.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> StoreResult<Answer> {
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
        let pause = after.filter(|_| busy).filter(|p| *p <= limits::REMOTE_MAX_RETRY_AFTER);
        Ok((Answer::Refused(Refused { status, kind }), pause))
    }

    async fn read(&self, response: Response, max: usize) -> StoreResult<Bytes> {
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

    async fn look(
        &self,
        scopes: &[Scope],
        units: Vec<UnitKey>,
        results: Vec<ResultKey>,
    ) -> StoreResult<Vec<Arrived>> {
        let (of_units, of_results): (HashSet<_>, HashSet<_>) =
            (units.iter().copied().collect(), results.iter().copied().collect());
        let request = LookupRequest { units, results, ..LookupRequest::default() };
        let response = match self.ask(Method::POST, "/v1/lookup", json(&request)?).await? {
            Answer::Good(response) => response,
            Answer::Refused(refused) => return Err(refused.of_read()),
        };
        let body = self.read(response, limits::MAX_JSON_RESPONSE_BYTES).await?;
        let answer: LookupResponse = serde_json::from_slice(&body).map_err(|_| {
            add(&self.counters.damaged, 1);
            StoreError::Unavailable("its answer is none of a Kiln server".into())
        })?;
        self.note_behind(&answer);
        let scope = scopes.first().cloned().unwrap_or_else(|| Scope::new("", ""));
        let mut found = Vec::with_capacity(answer.records.len());
        for record in answer.records {
            let asked =
                of_units.contains(&record.unit_key) || of_results.contains(&record.result_key);
            if !asked || record.check().is_err() {
                add(&self.counters.damaged, 1);
                continue;
            }
            let name = ResultName {
                scope: scope.clone(),
                unit: record.unit_key,
                result: record.result_key,
                generation: 0,
            };
            let stored_ms = record.producer.created_at_ms;
            found.push(Arrived { name, record, blobs: Vec::new(), stored_ms });
        }
        Ok(found)
    }

    fn note_behind(&self, answer: &LookupResponse) {
        if answer.absent.is_empty() {
            return;
        }
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.len() > MAX_BEHIND {
            behind.clear();
        }
        for record in answer.records.iter().filter(|r| answer.absent.contains(&r.result_key)) {
            behind.extend(record.blobs().iter().map(|(digest, _)| (*digest, record.result_key)));
        }
    }

    /// Has the server bring what it has not got itself, for these blobs.
    async fn bring(&self, digests: impl Iterator<Item = &Digest>) -> StoreResult<()> {
        let results: HashSet<ResultKey> = {
            let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
            digests.filter_map(|digest| behind.get(digest).copied()).collect()
        };
        for result in results {
            let within_ms = u64::try_from(BRING.as_millis()).unwrap_or(u64::MAX);
            let request = self
                .request(Method::POST, &format!("/v1/results/{result}/bring"))
                .timeout(BRING + Duration::from_secs(2))
                .header(CONTENT_TYPE, "application/json")
                .body(json(&BringRequest { within_ms })?);
            // Whether it worked shows when the blobs are asked for.
            if let Answer::Good(_) = self.send(request).await? {
                let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
                behind.retain(|_, of| *of != result);
            }
        }
        Ok(())
    }

    /// A body whose bytes are counted as they go.
    fn counted(&self, stream: BoxStream<'static, StoreResult<Bytes>>) -> reqwest::Body {
        let counters = self.counters.clone();
        reqwest::Body::wrap_stream(stream.map(move |chunk| {
            if let Ok(bytes) = &chunk {
                add(&counters.bytes_out, bytes.len() as u64);
            }
            chunk
        }))
    }

    /// Sends a blob that the store here has.
    async fn upload(
        &self,
        name: &ObjectName,
        digest: Digest,
        local: &dyn Backend,
    ) -> StoreResult<()> {
        let absent = || StoreError::Damaged {
            name: name.clone(),
            why: format!("blob {digest} is not here"),
        };
        let body = local.get(&ObjectName::blob(&digest)).await?.ok_or_else(absent)?;
        let len = body.len();
        let stream = match body {
            Body::Bytes(bytes) => futures_util::stream::once(async { Ok(bytes) }).boxed(),
            Body::File { file, .. } => file_chunks(tokio::fs::File::from_std(file), len).boxed(),
            Body::Stream { stream, .. } => stream,
        };
        let request = self.request(Method::PUT, &format!("/v1/blobs/{digest}"));
        let request = match len {
            squeeze::MIN_BYTES.. => {
                let stream = squeeze::compress(stream)?;
                let request = request.header(CONTENT_ENCODING, squeeze::ENCODING);
                request.header(squeeze::LENGTH, len).body(self.counted(stream))
            }
            _ => request.header(CONTENT_LENGTH, len).body(self.counted(stream)),
        };
        match self.send(request).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(refused) => Err(refused.of_write(name, len)),
        }
    }
}

/// The bytes of a file, piece by piece.
fn file_chunks(
    file: tokio::fs::File,
    len: u64,
) -> impl futures_util::Stream<Item = StoreResult<Bytes>> + Send + 'static {
    use tokio::io::AsyncReadExt as _;
    futures_util::stream::try_unfold((file, len), async |(mut file, left)| {
        if left == 0 {
            return Ok(None);
        }
        let most = left.min(limits::COPY_BUFFER_BYTES as u64) as usize;
        let mut bytes = BytesMut::zeroed(most);
        let read = file.read(&mut bytes).await;
        let read = read.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        if read == 0 {
            return Err(StoreError::Unavailable("the file became shorter".into()));
        }
        bytes.truncate(read);
        Ok(Some((bytes.freeze(), (file, left - read as u64))))
    })
}

fn json(value: &impl Serialize) -> StoreResult<Bytes> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from).map_err(|_| StoreError::Unavailable("the question has no form".into()))
}

/// What a client says of a failure, without the address, which may hold anything.
fn unavailable(error: &reqwest::Error) -> StoreError {
    let why = if error.is_connect() {
        "it cannot be reached"
    } else if error.is_timeout() {
        "it does not answer in time"
    } else if error.is_body() || error.is_decode() {
        "its answer broke off"
    } else {
        "the connection failed"
    };
    StoreError::Unavailable(why.to_owned())
}

#[async_trait]
impl Remote for KilnRemote {
    fn display(&self) -> String {
        self.url.clone()
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        let mut found = Vec::new();
        for units in units.chunks(limits::MAX_LOOKUP_KEYS) {
            found.extend(self.look(scopes, units.to_vec(), Vec::new()).await?);
        }
        let mut of_unit: BTreeMap<UnitKey, usize> = BTreeMap::new();
        found.retain(|arrived| {
            let count = of_unit.entry(arrived.name.unit).or_default();
            *count += 1;
            *count <= limits::MAX_RECORDS_PER_UNIT
        });
        Ok(found)
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        let mut found = Vec::new();
        for names in names.chunks(limits::MAX_LOOKUP_KEYS) {
            let results = names.iter().map(|name| name.result).collect();
            let scopes: Vec<Scope> =
                names.first().map(|name| name.scope.clone()).into_iter().collect();
            found.extend(self.look(&scopes, Vec::new(), results).await?);
        }
        Ok(found)
    }

    async fn blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>> {
        self.bring([digest].into_iter()).await?;
        let path = format!("/v1/blobs/{digest}");
        let response = match self.ask(Method::GET, &path, Bytes::new()).await? {
            Answer::Good(response) => response,
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            Answer::Refused(refused) => return Err(refused.of_read()),
        };
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let compressed = header("content-encoding").is_some();
        let len = match compressed {
            true => header(squeeze::LENGTH).and_then(|text| text.parse().ok()),
            false => response.content_length(),
        };
        if len != Some(size) {
            add(&self.counters.damaged, 1);
            return Ok(None);
        }
        let counters = self.counters.clone();
        let stream = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(|error| unavailable(&error))?;
            add(&counters.bytes_in, chunk.len() as u64);
            Ok(chunk)
        });
        let stream = match compressed {
            true => squeeze::expand(stream, size)?,
            false => stream.boxed(),
        };
        Ok(Some(Body::Stream { stream, len: size }))
    }

    async fn blobs(&self, wanted: &[(Digest, u64)]) -> StoreResult<Vec<(Digest, Bytes)>> {
        let mut left: HashSet<Digest> = wanted
            .iter()
            .filter(|(_, size)| *size <= limits::MAX_PACKED_BLOB_BYTES)
            .map(|(digest, _)| *digest)
            .collect();
        self.bring(left.iter()).await?;
        let mut found = Vec::new();
        // Each answer is bounded by the server, and brings at least one.
        while !left.is_empty() {
            let blobs: Vec<Digest> = wanted
                .iter()
                .map(|(digest, _)| *digest)
                .filter(|digest| left.contains(digest))
                .take(limits::MAX_PACK_BLOBS)
                .collect();
            let before = found.len();
            self.pack(blobs, &mut left, &mut found).await?;
            if found.len() == before {
                break;
            }
        }
        Ok(found)
    }

    async fn store(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored> {
        let object = ObjectName::record(&name.scope, &name.unit, &name.result, name.generation);
        let blobs: Vec<Digest> = record.blobs().into_iter().map(|(digest, _)| digest).collect();
        if !blobs.is_empty() {
            let asked = json(&MissingRequest { blobs })?;
            let missing = match self.ask(Method::POST, "/v1/blobs/missing", asked).await? {
                Answer::Good(response) => response,
                Answer::Refused(refused) => return Err(refused.of_write(&object, 0)),
            };
            let body = self.read(missing, limits::MAX_JSON_RESPONSE_BYTES).await?;
            let missing: MissingRequest = serde_json::from_slice(&body).map_err(|_| {
                StoreError::Unavailable("its answer is none of a Kiln server".into())
            })?;
            let named: HashSet<Digest> = record.blobs().into_iter().map(|(d, _)| d).collect();
            let missing = missing.blobs.into_iter().filter(|digest| named.contains(digest));
            let uploads: Vec<Digest> = missing.collect();
            let mut uploads = futures_util::stream::iter(uploads)
                .map(|digest| self.upload(&object, digest, local))
                .buffer_unordered(limits::REMOTE_UPLOADS);
            while let Some(uploaded) = uploads.next().await {
                uploaded?;
            }
        }
        let request = PublishRequest {
            record: record.clone(),
            offers: Vec::new(),
            replace: name.generation > 0,
        };
        let body = json(&request)?;
        let size = body.len() as u64;
        let path = format!("/v1/results/{}", name.result);
        match self.ask(Method::PUT, &path, body).await? {
            Answer::Good(response) if response.status() == StatusCode::OK => {
                Ok(Stored::AlreadyThere)
            }
            Answer::Good(_) => Ok(Stored::Durable),
            Answer::Refused(refused) => Err(refused.of_write(&object, size)),
        }
    }

    async fn flush(&self, _within: Duration) -> StoreResult<Flushed> {
        // The server is asked for nothing that it has not done when it answers.
        Ok(Flushed::default())
    }

    async fn reject(&self, name: &ResultName) -> StoreResult<()> {
        let path = format!("/v1/results/{}/reject", name.result);
        let body = json(&RejectRequest { reason: "what came of it was damaged".into() })?;
        match self.ask(Method::POST, &path, body).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn note(&self, _scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>> {
        let path = format!("/v1/notes/{name}");
        match self.ask(Method::GET, &path, Bytes::new()).await? {
            Answer::Good(response) => Ok(Some(self.read(response, limits::MAX_NOTE_BYTES).await?)),
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn put_note(&self, _scope: &Scope, name: &str, text: Bytes) -> StoreResult<()> {
        let size = text.len() as u64;
        match self.ask(Method::PUT, &format!("/v1/notes/{name}"), text).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(refused) => {
                // For the error only.
                Err(refused.of_write(&ObjectName::blob(&Digest::of(name.as_bytes())), size))
            }
        }
    }

    fn counters(&self) -> RemoteCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, retries, bytes_in, bytes_out, damaged } = &*self.counters;
        RemoteCounters {
            requests: read(requests),
            retries: read(retries),
            bytes_in: read(bytes_in),
            bytes_out: read(bytes_out),
            damaged: read(damaged),
        }
    }
}

impl KilnRemote {
    /// One answer of many blobs. What came before it broke off is kept.
    async fn pack(
        &self,
        blobs: Vec<Digest>,
        left: &mut HashSet<Digest>,
        found: &mut Vec<(Digest, Bytes)>,
    ) -> StoreResult<()> {
        let asked = json(&MissingRequest { blobs })?;
        let response = match self.ask(Method::POST, "/v1/blobs/pack", asked).await? {
            Answer::Good(response) => response,
            Answer::Refused(refused) => return Err(refused.of_read()),
        };
        let mut stream = response.bytes_stream();
        let mut unpack = Unpack::default();
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if found.is_empty() => return Err(unavailable(&error)),
                Err(_) => return Ok(()),
            };
            add(&self.counters.bytes_in, chunk.len() as u64);
            unpack.push(&chunk);
            loop {
                match unpack.blob() {
                    Ok(None) => break,
                    Ok(Some((digest, bytes))) => {
                        if left.remove(&digest) {
                            found.push((digest, bytes));
                        }
                    }
                    Err(_) => {
                        add(&self.counters.damaged, 1);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
