//! Bringing the blobs of results that are known here and lie afar: each blob is fetched once, whoever
//! waits for it, and goes on when nobody does any more. One that is to come in a pack is waited for half of the time.
//!
//! The store verifies every blob on its way in. A result of which a blob is damaged or gone there is
//! refused: forgotten here, and told to the remote.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_storage::backend::{Body, StoreError};
use kiln_storage::limits::MAX_PACKED_BLOB_BYTES;
use kiln_storage::remote::{ResultName, via};
use kiln_storage::{Digest, Record, ResultKey, Scope};
use tokio::time::timeout;

use super::breaker::FaultKind;
use super::flights::{By, Claim, Other};
use super::{Edge, Side, count, kind_of, lock};
use crate::error::ApiError;
use crate::index::{self, makers, quarantine, records};
use crate::limits::{REMOTE_BRING, REMOTE_FETCH, REMOTE_FETCHES};
use crate::maker;
use crate::publish;
use crate::service::Service;

/// Rounds of waiting for what others fetch, and fetching what they did not get.
const ROUNDS: usize = 3;

/// Why a result was not brought.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BringError {
    /// There is no such record here, or none that lies afar.
    #[error("no such result")]
    Unknown,
    /// A blob is not there, or is another.
    #[error("a blob is damaged or gone")]
    Damaged,
    /// It was not done in time.
    #[error("not in time")]
    Slow,
    /// The remote failed, or is left alone.
    #[error("the remote failed: {0}")]
    Unavailable(String),
    /// Something failed here.
    #[error("{0}")]
    Here(#[from] ApiError),
}

impl From<BringError> for ApiError {
    fn from(error: BringError) -> Self {
        match error {
            BringError::Unknown => Self::NotFound,
            BringError::Damaged => {
                Self::MissingBlobs("a blob is damaged or gone behind the server".into())
            }
            BringError::Slow => Self::Timeout,
            BringError::Unavailable(why) => Self::Unavailable(why),
            BringError::Here(error) => error,
        }
    }
}

/// A result whose blobs lie afar, or are here by now.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its name there.
    pub name: ResultName,
    /// The scope that it is in here.
    pub scope: Scope,
    /// The blobs that are not here, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
}

/// Has all blobs of a result here.
///
/// # Errors
/// Why they are not.
pub(crate) async fn bring(
    service: &Service,
    scope: &Scope,
    key: &ResultKey,
    within: Duration,
) -> Result<(), BringError> {
    let Some(edge) = &service.edge else { return Err(BringError::Unknown) };
    let within = within.min(REMOTE_BRING);
    match timeout(within, bring_whole(service, edge, (scope, key), within)).await {
        Ok(brought) => brought,
        Err(_) => {
            edge.late(&service.log, "a result was not here in time");
            Err(BringError::Slow)
        }
    }
}

/// The same for the first of some scopes that has the result from afar, as a lookup answers from the first.
///
/// # Errors
/// Why they are not.
pub(crate) async fn bring_from(
    service: &Service,
    scopes: &[&Scope],
    key: &ResultKey,
    within: Duration,
) -> Result<(), BringError> {
    for scope in scopes {
        match bring(service, scope, key, within).await {
            Err(BringError::Unknown) => {}
            brought => return brought,
        }
    }
    Err(BringError::Unknown)
}

async fn bring_whole(
    service: &Service,
    edge: &Edge,
    (scope, key): (&Scope, &ResultKey),
    within: Duration,
) -> Result<(), BringError> {
    // What a pack does not bring by then is fetched alone, as long as there is time for that.
    let packs_until = Instant::now() + within / 2;
    for _ in 0..ROUNDS {
        let wanted = wanted(service, scope, key).await?.ok_or(BringError::Unknown)?;
        if wanted.blobs.is_empty() {
            tokio::spawn(keep(service.clone(), wanted));
            return Ok(());
        }
        let digests: Vec<Digest> = wanted.blobs.iter().map(|(digest, _)| *digest).collect();
        let (claim, others) = Claim::take(service, edge, &digests);
        fetch_claimed(service, edge, &wanted, claim).await?;
        let (in_packs, others): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|other| other.by == By::Pack);
        let late = late_of(in_packs, packs_until).await;
        let (claim, more) = Claim::take_over(service, edge, &late);
        fetch_claimed(service, edge, &wanted, claim).await?;
        let left_alone = edge.side(Side::Reads).is_tried();
        let others: Vec<Other> = others.into_iter().chain(more).collect();
        if left_alone && !others.is_empty() {
            // What is on its way may come; nobody waits for it.
            return Err(BringError::Unavailable("it is left alone for a while".into()));
        }
        for mut other in others {
            other.ends().await;
        }
    }
    Err(BringError::Damaged)
}

/// Waits for what is to come in packs; what has not come by then.
async fn late_of(mut in_packs: Vec<Other>, until: Instant) -> Vec<Digest> {
    let mut late = Vec::new();
    for other in &mut in_packs {
        if timeout(until.saturating_duration_since(Instant::now()), other.ends()).await.is_err() {
            late.push(other.digest);
        }
    }
    late
}

/// Fetches what was claimed of a result, and is not here by now.
async fn fetch_claimed(
    service: &Service,
    edge: &Edge,
    wanted: &Wanted,
    claim: Option<Claim>,
) -> Result<(), BringError> {
    let Some(claim) = claim else { return Ok(()) };
    let blobs = claimed(service, &wanted.blobs, &claim).await?;
    if blobs.is_empty() {
        return Ok(());
    }
    if !edge.may(Side::Reads) {
        return Err(BringError::Unavailable("it is left alone for a while".into()));
    }
    let is_tried = edge.side(Side::Reads).is_tried();
    let wanted = Wanted { blobs, ..wanted.clone() };
    let fetched = tokio::spawn(via::carry(fetch(service.clone(), wanted, claim)));
    if is_tried {
        // A blob may take long, and none may come: it is for the next one.
        return Err(BringError::Unavailable("it was left alone and is tried".into()));
    }
    let fetched = fetched.await;
    fetched.map_err(|error| ApiError::Internal(error.to_string()))?
}

/// Those of some blobs that are claimed and not here. They were looked for before they were claimed, and what
/// others fetched may have come in between.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn claimed(
    service: &Service,
    blobs: &[(Digest, u64)],
    claim: &Claim,
) -> Result<Vec<(Digest, u64)>, ApiError> {
    let mine: Vec<_> = blobs.iter().copied().filter(|(digest, _)| claim.holds(digest)).collect();
    let asked: Vec<Digest> = mine.iter().map(|(digest, _)| *digest).collect();
    let missing = service.index.read_few(move |index| records::missing(index, &asked)).await?;
    let missing: HashSet<Digest> = missing.into_iter().collect();
    Ok(mine.into_iter().filter(|(digest, _)| missing.contains(digest)).collect())
}

/// What is missing of a result that came from afar.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn wanted(
    service: &Service,
    scope: &Scope,
    key: &ResultKey,
) -> Result<Option<Wanted>, ApiError> {
    let (scope_id, key) = (scope.id(), *key);
    let found = service
        .index
        .read_few(move |index| {
            let Some(row) = records::stored(index, &scope_id, &key)? else { return Ok(None) };
            let missing: HashSet<Digest> =
                row.blobs.iter().filter(|(_, size)| size.is_none()).map(|(d, _)| *d).collect();
            let body = match missing.is_empty() {
                true => None,
                false => records::body(index, row.id)?,
            };
            Ok(row.afar.map(|name| (name, missing, body)))
        })
        .await?;
    let Some((name, missing, body)) = found else { return Ok(None) };
    let record = body.and_then(|body| serde_json::from_slice::<Record>(&body).ok());
    let blobs = record.map(|record| record.blobs()).unwrap_or_default();
    let blobs = blobs.into_iter().filter(|(digest, _)| missing.contains(digest)).collect();
    Ok(Some(Wanted { name, scope: scope.clone(), blobs }))
}

/// Fetches those blobs of a result that are claimed.
///
/// # Errors
/// Why not all are here; those that came are.
pub(crate) async fn fetch(
    service: Service,
    wanted: Wanted,
    claim: Claim,
) -> Result<(), BringError> {
    let Some(edge) = &service.edge else { return Err(BringError::Unknown) };
    let blobs: Vec<_> = wanted.blobs.iter().copied().filter(|(d, _)| claim.holds(d)).collect();
    let mut stored = Vec::with_capacity(blobs.len());
    let fetched = timeout(REMOTE_FETCH, transfer(&service, edge, &blobs, &mut stored)).await;
    let fetched = fetched.unwrap_or(Err(BringError::Slow));
    edge.tell_damaged(&service.log);
    publish::note_blobs(&service, stored).await?;
    match &fetched {
        Ok(()) => edge.came(),
        Err(BringError::Damaged) => refuse(&service, edge, &wanted).await,
        Err(BringError::Slow) => {
            let why = "a blob did not come within minutes";
            edge.fault(&service.log, Side::Reads, FaultKind::Slow, why);
        }
        Err(BringError::Unavailable(why)) => {
            edge.fault(&service.log, Side::Reads, FaultKind::Unreachable, why);
        }
        // The store here is full, say: nothing of the remote's doing.
        Err(BringError::Unknown | BringError::Here(_)) => {}
    }
    // Only now: whoever waits finds the blobs, or finds the result forgotten.
    drop(claim);
    fetched
}

/// Fetches blobs of many results, as far as they are claimed; those that came. What is damaged is left
/// to whoever needs it. Whoever waits for them looks again when the claim is dropped.
pub(crate) async fn fetch_ahead(
    service: &Service,
    edge: &Edge,
    wanted: &[(Digest, u64)],
    claim: &Claim,
) -> Vec<(Digest, u64)> {
    let blobs: Vec<_> = wanted.iter().copied().filter(|(d, _)| claim.holds(d)).collect();
    let mut stored = Vec::with_capacity(blobs.len());
    let fetched = timeout(REMOTE_FETCH, transfer(service, edge, &blobs, &mut stored)).await;
    edge.tell_damaged(&service.log);
    match fetched {
        Ok(Ok(())) => edge.came(),
        Ok(Err(BringError::Unavailable(why))) => {
            edge.fault(&service.log, Side::Reads, FaultKind::Unreachable, &why);
        }
        Ok(Err(error)) => service.log.debug(format_args!("fetched ahead: {error}")),
        Err(_) => edge.fault(&service.log, Side::Reads, FaultKind::Slow, "blobs fetched ahead"),
    }
    if let Err(error) = publish::note_blobs(service, stored.clone()).await {
        error.tell(&service.log, format_args!("blobs from afar"));
    }
    stored
}

async fn transfer(
    service: &Service,
    edge: &Edge,
    blobs: &[(Digest, u64)],
    stored: &mut Vec<(Digest, u64)>,
) -> Result<(), BringError> {
    let small: Vec<_> =
        blobs.iter().copied().filter(|(_, size)| *size <= MAX_PACKED_BLOB_BYTES).collect();
    if small.len() > 1 {
        let came = {
            let _lane = edge.lanes.acquire().await;
            edge.remote.blobs(&small).await.map_err(failed)?
        };
        for (digest, bytes) in came {
            stored.push(put(service, digest, Body::Bytes(bytes)).await?);
        }
    }
    let there: HashSet<Digest> = stored.iter().map(|(digest, _)| *digest).collect();
    let rest = blobs.iter().copied().filter(|(digest, _)| !there.contains(digest));
    let mut rest = futures_util::stream::iter(rest)
        .map(|(digest, size)| one(service, edge, digest, size))
        .buffer_unordered(REMOTE_FETCHES);
    let mut ended = Ok(());
    while let Some(blob) = rest.next().await {
        match blob {
            Ok(blob) => stored.push(blob),
            // The others are on their way already.
            Err(error) => ended = Err(error),
        }
    }
    ended
}

async fn one(
    service: &Service,
    edge: &Edge,
    digest: Digest,
    size: u64,
) -> Result<(Digest, u64), BringError> {
    let _lane = edge.lanes.acquire().await;
    let body = edge.remote.blob(&digest, size).await.map_err(failed)?;
    let body = body.filter(|body| body.len() == size).ok_or(BringError::Damaged)?;
    put(service, digest, body).await
}

async fn put(service: &Service, digest: Digest, body: Body) -> Result<(Digest, u64), BringError> {
    let size = body.len();
    match service.store.put_blob(&digest, body).await {
        Ok(_) => Ok((digest, size)),
        Err(error @ (StoreError::ReadOnly(_) | StoreError::TooLarge { .. })) => {
            Err(BringError::Here(error.into()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: StoreError) -> BringError {
    match error {
        StoreError::Damaged { .. } => BringError::Damaged,
        error => BringError::Unavailable(kind_of(&error).1),
    }
}

/// Forgets a result that cannot be had, here and, as far as it may be, there.
async fn refuse(service: &Service, edge: &Edge, wanted: &Wanted) {
    count(&edge.counts.damaged, 1);
    let why = format!("result {}: a blob is damaged or gone", wanted.name.result);
    edge.fault(&service.log, Side::Reads, FaultKind::Damaged, &why);
    let (scope, name) = (wanted.scope.id(), wanted.name.clone());
    lock(&edge.asked).forget(&scope, &name.unit);
    let forgotten = service.index.write(move |index| {
        index::outbox::replace(index, &scope, &name.result, name.generation)?;
        if let Some(row) = records::stored(index, &scope, &name.result)?
            && row.blobs.iter().any(|(_, size)| size.is_none())
        {
            records::forget(index, row.id)?;
        }
        Ok(())
    });
    if let Err(error) = forgotten.await {
        ApiError::from(error).tell(&service.log, format_args!("result {}", wanted.name.result));
    }
    reject(service, wanted.name.clone());
}

/// Tells the remote, behind the back of whoever asked, that a result is damaged.
pub(crate) fn reject(service: &Service, name: ResultName) {
    let service = service.clone();
    tokio::spawn(async move {
        let Some(edge) = service.edge.as_ref().filter(|edge| edge.sends) else { return };
        if let Err(error) = edge.remote.reject(&name).await {
            service.log.debug(format_args!("result {} stays there: {error}", name.result));
        }
    });
}

/// Stores blobs that came along with a record.
pub(crate) async fn keep_blobs(
    service: Service,
    wanted: Wanted,
    blobs: Vec<(Digest, Bytes)>,
    claim: Claim,
) {
    let Some(edge) = &service.edge else { return };
    let mut stored = Vec::with_capacity(blobs.len());
    for (digest, bytes) in blobs.into_iter().filter(|(digest, _)| claim.holds(digest)) {
        match put(&service, digest, Body::Bytes(bytes)).await {
            Ok(blob) => stored.push(blob),
            Err(BringError::Damaged) => {
                refuse(&service, edge, &wanted).await;
                break;
            }
            Err(error) => {
                service.log.debug(format_args!("blob {digest}: {error}"));
                break;
            }
        }
    }
    if let Err(error) = publish::note_blobs(&service, stored).await {
        error.tell(&service.log, format_args!("blobs from afar"));
    }
    drop(claim);
}

/// Stores the record of a result that is whole here, so that a rebuilt index knows it, too.
async fn keep(service: Service, wanted: Wanted) {
    let (scope, key) = (wanted.scope.id(), wanted.name.result);
    let _guard = service.commit.lock().await;
    let row = service.index.read(move |index| {
        if quarantine::contains(index, &scope, &key)? {
            return Ok(None);
        }
        let Some(row) = records::stored(index, &scope, &key)? else { return Ok(None) };
        let whole = row.blobs.iter().all(|(_, size)| size.is_some());
        let body = if whole { records::body(index, row.id)? } else { None };
        let known = makers::of_result(index, &scope, &key)?;
        let sealed = body.zip(known).and_then(|(body, known)| {
            let record = serde_json::from_slice(&body).ok()?;
            maker::sealed(&record, &known.origin.made).ok()
        });
        Ok(sealed.map(|body| (body, row.unit_key, row.generation)))
    });
    match row.await {
        Ok(Some((body, unit, generation))) => {
            let name = kiln_storage::ObjectName::record(&wanted.scope, &unit, &key, generation);
            if let Err(error) = service.store.put_framed(&name, &body).await {
                service.log.debug(format_args!("{name}: {error}"));
            }
        }
        Ok(None) => {}
        Err(error) => ApiError::from(error).tell(&service.log, format_args!("result {key}")),
    }
}
