//! Publishing a result: what is checked at once ([`publish`]), and how a record whose blobs are
//! all stored becomes visible ([`commit`]).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use kiln_storage::api::{Offer, PublishRequest};
use kiln_storage::backend::{Put, StoreError};
use kiln_storage::{Digest, ObjectName, Record, ResultKey, Scope, limits as shared_limits};

use crate::asker::Asker;
use crate::clock;
use crate::error::ApiError;
use crate::index::outbox::{self, Dropped};
use crate::index::owners;
use crate::index::records::{self, RecordRow, Stored, Times};
use crate::ingest::{self, Job, OpenOffer};
use crate::limits::{INGEST_QUEUE_FILES, MAX_GENERATIONS_TRIED, MAX_NAMED_DIGESTS};
use crate::maker::{self, By, Made, again};
use crate::principal::{Principal, Scoped};
use crate::quarantine;
use crate::remote::outbox::tell_dropped;
use crate::scopes;
use crate::service::Service;

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// A record is there already and stays.
    Kept,
    /// It is stored.
    Created,
    /// The offered files are open; it is stored as soon as their bytes are taken over.
    Accepted,
}

/// A checked record on its way into the store.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Where it will be seen.
    pub scope: Scope,
    /// The record; [`Record::check`] passed.
    pub record: Record,
    /// Who has it stored.
    pub made: Made,
    /// By what they were known.
    pub asker: Asker,
    /// Both, encoded.
    pub body: Bytes,
    /// Whether it takes the place of an intact one.
    pub replace: bool,
}

/// Checks a publication and stores it, or queues it when bytes have to be taken over.
///
/// # Errors
/// What is wrong with the request or with the store.
pub(crate) async fn publish(
    service: &Service,
    (principal, asker): (&Principal, Asker),
    key: &ResultKey,
    request: PublishRequest,
) -> Result<Published, ApiError> {
    let PublishRequest { record, offers, replace } = request;
    record.check().map_err(|error| ApiError::Unprocessable(error.to_string()))?;
    if record.result_key != *key {
        return Err(ApiError::Unprocessable("the record has another key than the path".into()));
    }
    if !offers.is_empty() && !principal.local() {
        return Err(ApiError::Unprocessable("files can be offered on a unix socket only".into()));
    }
    let made = Made { by: principal.by.clone(), at_ms: clock::now_ms() };
    let body =
        maker::sealed(&record, &made).map_err(|error| ApiError::Internal(error.to_string()))?;
    if body.len() > shared_limits::MAX_RECORD_BYTES {
        return Err(ApiError::TooLarge("the record"));
    }
    let Scoped { scope, id: scope_id } = principal.writes()?;
    let (scope_of, body) = (scope.clone(), body.into());
    let candidate = Candidate { scope: scope_of, record, made, asker, body, replace };
    if quarantine::contains(service, principal.read_ids(), scope_id, key).await? {
        return Err(ApiError::Quarantined);
    }
    if !replace && intact(service, scope_id, key).await? {
        again::note(service, scope_id, key, &candidate.made.by).await;
        return Ok(Published::Kept);
    }
    service.store.check_writable()?;
    let mut needed = absent_blobs(service, &candidate.record).await?;
    if !principal.local() {
        needed.extend(not_owned(service, scope, &candidate.record, &needed).await?);
    }
    if needed.is_empty() {
        return commit(service, &candidate).await;
    }
    let files = open_offers(needed, offers).await?;
    let keys = [*candidate.record.unit_key.digest(), *candidate.record.result_key.digest()];
    let guard = service.pending.begin(scope_id, &keys);
    service.queue.push(Job { candidate, files, guard })?;
    Ok(Published::Accepted)
}

/// Whether a record is there with every blob in its right size.
async fn intact(service: &Service, scope: &str, key: &ResultKey) -> Result<bool, ApiError> {
    let (scope, key) = (scope.to_owned(), *key);
    let row = service.index.read(move |index| records::stored(index, &scope, &key)).await?;
    let Some(row) = row else { return Ok(false) };
    let (mut whole, mut gone) = (true, Vec::new());
    for (digest, size) in row.blobs {
        let found = service.store.blob_size(&digest).await?;
        if found.is_none() && size.is_some() {
            gone.push(digest);
        }
        whole &= found.is_some() && found == size;
    }
    forget_blobs(service, gone).await?;
    Ok(whole)
}

/// The blobs of a record that the store does not have, with their sizes. A stored blob of another
/// size is either damaged, and then removed, or the record is wrong.
async fn absent_blobs(service: &Service, record: &Record) -> Result<Vec<(Digest, u64)>, ApiError> {
    let mut absent = Vec::new();
    for (digest, size) in record.blobs() {
        match service.store.blob_size(&digest).await? {
            Some(found) if found == size => {}
            Some(_) if service.store.verify_blob(&digest).await? => {
                return Err(ApiError::Unprocessable(format!(
                    "blob {digest} has another size than the record says"
                )));
            }
            Some(_) | None => absent.push((digest, size)),
        }
    }
    forget_blobs(service, absent.iter().map(|(digest, _)| *digest).collect()).await?;
    Ok(absent)
}

/// The blobs of a record that are here, and that the repository has not shown to have: nobody gets at the blobs of
/// others by naming them.
async fn not_owned(
    service: &Service,
    scope: &Scope,
    record: &Record,
    absent: &[(Digest, u64)],
) -> Result<Vec<(Digest, u64)>, ApiError> {
    let mut here = record.blobs();
    here.retain(|blob| !absent.contains(blob));
    let asked: Vec<Digest> = here.iter().map(|(digest, _)| *digest).collect();
    let repository = [scope.repository().to_owned()];
    let read = move |index: &_| owners::missing(index, &asked, &repository);
    let missing: HashSet<Digest> = service.index.read(read).await?.into_iter().collect();
    here.retain(|(digest, _)| missing.contains(digest));
    Ok(here)
}

/// Forgets blobs that the store does not have and the index may think it has.
async fn forget_blobs(service: &Service, gone: Vec<Digest>) -> Result<(), ApiError> {
    if gone.is_empty() {
        return Ok(());
    }
    let asked = gone.clone();
    let unknown = service.index.read(move |index| records::missing(index, &asked)).await?;
    if unknown.len() == gone.len() {
        return Ok(());
    }
    service
        .log
        .warn(format_args!("{} blobs gone or damaged, forgotten", gone.len() - unknown.len()));
    service
        .index
        .write(move |index| gone.iter().try_for_each(|digest| records::forget_blob(index, digest)))
        .await?;
    Ok(())
}

/// Notes blobs that were stored, with their sizes.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn note_blobs(
    service: &Service,
    stored: Vec<(Digest, u64)>,
) -> Result<(), ApiError> {
    if stored.is_empty() {
        return Ok(());
    }
    let grown = service
        .index
        .write(move |index| {
            let mut grown = 0;
            for (digest, size) in &stored {
                if records::insert_blob(index, digest, *size, clock::now_ms())? {
                    grown += size;
                }
            }
            Ok(grown)
        })
        .await?;
    service.grow(grown);
    Ok(())
}

async fn open_offers(
    needed: Vec<(Digest, u64)>,
    offers: Vec<Offer>,
) -> Result<Vec<OpenOffer>, ApiError> {
    let mut paths: HashMap<Digest, String> =
        offers.into_iter().map(|offer| (offer.digest, offer.path)).collect();
    let missing: Vec<_> = needed.iter().filter(|(digest, _)| !paths.contains_key(digest)).collect();
    if !missing.is_empty() {
        let named: Vec<_> =
            missing.iter().take(MAX_NAMED_DIGESTS).map(|(digest, _)| digest.to_string()).collect();
        return Err(ApiError::MissingBlobs(format!(
            "{} missing: {}",
            missing.len(),
            named.join(" ")
        )));
    }
    if needed.len() > INGEST_QUEUE_FILES {
        return Err(ApiError::TooLarge("the number of offered files"));
    }
    tokio::task::spawn_blocking(move || {
        needed
            .into_iter()
            .map(|(digest, size)| {
                let path = paths.remove(&digest).unwrap_or_default();
                ingest::open_offer(digest, &path, size)
            })
            .collect()
    })
    .await
    .map_err(|error| ApiError::Internal(error.to_string()))?
}

/// Makes a record visible whose blobs are all stored: as an object first, in the index then.
///
/// # Errors
/// [`ApiError::MissingBlobs`] when a blob is gone again; [`ApiError::Quarantined`]; those of [`Asker::still_writes`]; what store and index fail with.
pub(crate) async fn commit(
    service: &Service,
    candidate: &Candidate,
) -> Result<Published, ApiError> {
    let record = &candidate.record;
    let scope_id = candidate.scope.id();
    let _guard = service.commit.lock().await;
    // A revoke of what they made does not see it any more.
    candidate.asker.still_writes(&service.policy, &candidate.scope)?;
    // It may have been quarantined while its bytes were taken over.
    if quarantine::contains(service, Vec::new(), &scope_id, &record.result_key).await? {
        return Err(ApiError::Quarantined);
    }
    if !candidate.replace && intact(service, &scope_id, &record.result_key).await? {
        again::note(service, &scope_id, &record.result_key, &candidate.made.by).await;
        return Ok(Published::Kept);
    }
    let absent = absent_blobs(service, record).await?;
    if let Some((digest, _)) = absent.first() {
        return Err(ApiError::MissingBlobs(format!("{digest} is gone again")));
    }
    scopes::keep(service, &candidate.scope).await?;
    let (scope, key) = (scope_id.clone(), record.result_key);
    let older = service.index.read(move |index| records::stored(index, &scope, &key)).await?;
    // One that came from afar may not be an object here.
    let after = |row: &Stored| row.generation + u32::from(row.afar.is_none());
    let first = older.as_ref().map_or(0, after);
    let (published, generation, stored, made) = put_generation(service, candidate, first).await?;
    let now_ms = clock::now_ms();
    let times = Times { created_ms: now_ms, used_ms: now_ms };
    let mut row = RecordRow::new(scope_id, stored, generation, times)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    row.origin.made = made;
    let afar = older.as_ref().and_then(|older| older.afar.clone());
    // What is there already, and was just not here in time, is not sent there.
    let sends =
        service.edge.as_ref().is_some_and(|edge| edge.sends_of(&service.policy, &row.scope))
            && (candidate.replace || afar.is_none());
    let written = service.index.write(move |index| {
        let (id, grown) = records::insert(index, &row)?;
        if let Some(name) = afar.filter(|_| sends) {
            outbox::replace(index, &row.scope, &row.result_key, name.generation)?;
        }
        let dropped = if sends { outbox::queue(index, id, &row)? } else { Dropped::default() };
        Ok((grown, dropped))
    });
    let (grown, dropped) = written.await?;
    service.grow(grown);
    tell_dropped(service, dropped);
    if let Some(older) = older.filter(|older| older.generation != generation) {
        let name = object_name(candidate, older.generation);
        // One that stays is an older generation, which a rebuild passes over.
        let _ = service.store.delete(&name).await;
        if older.again {
            again::forget(service, &candidate.scope.id(), &candidate.record.result_key).await;
        }
    }
    Ok(published)
}

/// Stores the record under the first free generation. An intact one that the index did not know
/// (another server's, on the same store) is adopted.
async fn put_generation(
    service: &Service,
    candidate: &Candidate,
    first: u32,
) -> Result<(Published, u32, Record, Made), ApiError> {
    for generation in first..first.saturating_add(MAX_GENERATIONS_TRIED) {
        let name = object_name(candidate, generation);
        if service.store.put_framed(&name, &candidate.body).await? == Put::Created {
            let (record, made) = (candidate.record.clone(), candidate.made.clone());
            return Ok((Published::Created, generation, record, made));
        }
        match service.store.record(&name).await {
            Ok(Some((found, made)))
                if !candidate.replace && found.blobs() == candidate.record.blobs() =>
            {
                let unknown = || Made { by: By::Unknown, at_ms: clock::now_ms() };
                let made = made.unwrap_or_else(unknown);
                return Ok((Published::Kept, generation, found, made));
            }
            Err(StoreError::Damaged { name, why }) => {
                service.log.warn(format_args!("record {name}: {why}, removed"));
                let _ = service.store.delete(&name).await;
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Internal(format!("no free generation of {}", candidate.record.result_key)))
}

fn object_name(candidate: &Candidate, generation: u32) -> ObjectName {
    let record = &candidate.record;
    ObjectName::record(&candidate.scope, &record.unit_key, &record.result_key, generation)
}
