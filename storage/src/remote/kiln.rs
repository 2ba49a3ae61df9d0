//! [`KilnRemote`]: another Kiln server as a [`Remote`], by HTTP or HTTPS.
//!
//! The scope is what that server takes the caller for; the scopes of the calls are only given back. Checks
//! every record and every packed blob; bodies of single blobs are for the caller to verify. One call is one
//! request, repeated a few times where the server was just busy. Knows no settings: whoever makes one hands
//! the place and the token in.

mod events;
mod http;
mod leases;
mod login;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

pub(super) use self::http::unavailable;
use self::http::{Answer, Http, Refused, add, json};
use super::events::{EventBatch, KeepsEvents, Page};
use super::lease::KnowsLeases;
use super::pack::Unpack;
use super::{
    Answered, Arrived, Asking, Flushed, Remote, RemoteCounters, ResultName, Stored, squeeze,
};
use crate::api::{
    BringRequest, LookupRequest, LookupResponse, MissingRequest, PublishRequest, RejectRequest,
};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::limits;
use crate::record::Record;

pub use self::http::KilnOptions;
pub use self::login::JobIdentity;

/// Longest that the server is given to bring what is behind it in turn.
const BRING: Duration = Duration::from_secs(20);

/// Most blobs whose results are remembered because the server has to bring them first.
const MAX_BEHIND: usize = 50_000;

/// Another Kiln server.
#[derive(Debug)]
pub struct KilnRemote {
    http: Http,
    /// Results by blob that the server has not got itself.
    behind: Mutex<HashMap<Digest, ResultKey>>,
}

impl KilnRemote {
    /// A client of a server; reaches nobody yet.
    ///
    /// # Errors
    /// The token cannot be sent; TLS is not to be had.
    pub fn new(options: KilnOptions) -> StoreResult<Self> {
        Ok(Self { http: Http::new(options)?, behind: Mutex::default() })
    }

    async fn look(&self, scopes: &[Scope], request: LookupRequest) -> StoreResult<Answered> {
        let (of_units, of_results): (HashSet<_>, HashSet<_>) =
            (request.units.iter().copied().collect(), request.results.iter().copied().collect());
        let response = match self.http.ask(Method::POST, "/v1/lookup", json(&request)?).await? {
            Answer::Good(response) => response,
            Answer::Refused(refused) => return Err(refused.of_read()),
        };
        let body = self.http.read(response, limits::MAX_JSON_RESPONSE_BYTES).await?;
        let foreign = |_| StoreError::Unavailable("its answer is none of a Kiln server".into());
        let answer = LookupResponse::read(&body).map_err(foreign)?;
        self.note_behind(&answer);
        let scope = scopes.first().cloned().unwrap_or_else(|| Scope::new("", ""));
        let mut found = Vec::with_capacity(answer.records.len());
        for record in answer.records {
            let asked =
                of_units.contains(&record.unit_key) || of_results.contains(&record.result_key);
            if !asked || record.check().is_err() {
                add(&self.http.counters.damaged, 1);
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
        Ok(Answered { arrived: found, farther: answer.farther })
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
                .http
                .request(Method::POST, &format!("/v1/results/{result}/bring"))
                .timeout(BRING + Duration::from_secs(2))
                .header(CONTENT_TYPE, "application/json")
                .body(json(&BringRequest { within_ms })?);
            // Whether it worked shows when the blobs are asked for.
            if let Answer::Good(_) = self.http.send(request).await? {
                let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
                behind.retain(|_, of| *of != result);
            }
        }
        Ok(())
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
        let stream = body.into_stream();
        let request = self.http.request(Method::PUT, &format!("/v1/blobs/{digest}"));
        let request = match len {
            squeeze::MIN_BYTES.. => {
                let stream = squeeze::compress(stream)?;
                let request = request.header(CONTENT_ENCODING, squeeze::ENCODING);
                request.header(squeeze::LENGTH, len).body(self.http.counted(stream))
            }
            _ => request.header(CONTENT_LENGTH, len).body(self.http.counted(stream)),
        };
        match self.http.send(request).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(refused) => Err(refused.of_write(name, len)),
        }
    }
}

#[async_trait]
impl Remote for KilnRemote {
    fn display(&self) -> String {
        self.http.url.clone()
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        Ok(self.ask(scopes, units, Asking::default()).await?.arrived)
    }

    async fn ask(
        &self,
        scopes: &[Scope],
        units: &[UnitKey],
        asking: Asking<'_>,
    ) -> StoreResult<Answered> {
        let mut all = Answered::default();
        let room = limits::MAX_LOOKUP_KEYS.saturating_sub(asking.results.len()).max(1);
        for units in units.chunks(room) {
            let request = LookupRequest {
                units: units.to_vec(),
                results: asking.results.to_vec(),
                known: asking.known.to_vec(),
                job: None,
            };
            let Answered { arrived, farther } = self.look(scopes, request).await?;
            all.arrived.extend(arrived);
            all.farther |= farther;
        }
        let mut of_unit: BTreeMap<UnitKey, usize> = BTreeMap::new();
        all.arrived.retain(|arrived| {
            let count = of_unit.entry(arrived.name.unit).or_default();
            *count += 1;
            *count <= limits::MAX_RECORDS_PER_UNIT || asking.results.contains(&arrived.name.result)
        });
        Ok(all)
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        let mut found = Vec::new();
        for names in names.chunks(limits::MAX_LOOKUP_KEYS) {
            let results = names.iter().map(|name| name.result).collect();
            let scopes: Vec<Scope> =
                names.first().map(|name| name.scope.clone()).into_iter().collect();
            let request = LookupRequest { results, ..LookupRequest::default() };
            found.extend(self.look(&scopes, request).await?.arrived);
        }
        Ok(found)
    }

    async fn blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>> {
        self.bring([digest].into_iter()).await?;
        let path = format!("/v1/blobs/{digest}");
        let response = match self.http.ask(Method::GET, &path, Bytes::new()).await? {
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
            add(&self.http.counters.damaged, 1);
            return Ok(None);
        }
        let counters = self.http.counters.clone();
        let stream = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(|error| unavailable(&error))?;
            add(&counters.bytes_in, chunk.len() as u64);
            Ok(chunk)
        });
        let stream = match compressed {
            true => squeeze::expand(stream, (*digest, size))?,
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
            let missing = match self.http.ask(Method::POST, "/v1/blobs/missing", asked).await? {
                Answer::Good(response) => response,
                Answer::Refused(refused) => return Err(refused.of_write(&object, 0)),
            };
            let body = self.http.read(missing, limits::MAX_JSON_RESPONSE_BYTES).await?;
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
        match self.http.ask(Method::PUT, &path, body).await? {
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
        match self.http.ask(Method::POST, &path, body).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn take_back(&self, name: &ResultName) -> StoreResult<bool> {
        let path = format!("/v1/results/{}", name.result);
        match self.http.ask(Method::DELETE, &path, Bytes::new()).await? {
            Answer::Good(_) => Ok(true),
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(true),
            // It is older than that.
            Answer::Refused(Refused { status: StatusCode::METHOD_NOT_ALLOWED, .. }) => Ok(false),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn note(&self, _scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>> {
        let path = format!("/v1/notes/{name}");
        match self.http.ask(Method::GET, &path, Bytes::new()).await? {
            Answer::Good(response) => {
                Ok(Some(self.http.read(response, limits::MAX_NOTE_BYTES).await?))
            }
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn put_note(&self, _scope: &Scope, name: &str, text: Bytes) -> StoreResult<()> {
        let size = text.len() as u64;
        match self.http.ask(Method::PUT, &format!("/v1/notes/{name}"), text).await? {
            Answer::Good(_) => Ok(()),
            Answer::Refused(refused) => {
                // For the error only.
                Err(refused.of_write(&ObjectName::blob(&Digest::of(name.as_bytes())), size))
            }
        }
    }

    fn keeps_events(&self) -> KeepsEvents {
        KeepsEvents::AsServer
    }

    async fn put_events(&self, _scope: &Scope, batch: &EventBatch) -> StoreResult<()> {
        self.send_events(batch).await
    }

    async fn told_of_runs(&self, path: &str) -> StoreResult<Option<Page>> {
        self.page(path).await
    }

    fn leases(&self) -> Option<&dyn KnowsLeases> {
        Some(self)
    }

    fn counters(&self) -> RemoteCounters {
        self.http.counters()
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
        let response = match self.http.ask(Method::POST, "/v1/blobs/pack", asked).await? {
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
            add(&self.http.counters.bytes_in, chunk.len() as u64);
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
                        add(&self.http.counters.damaged, 1);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
