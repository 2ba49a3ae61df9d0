//! Filling an empty index from the store: records and blobs are objects, the index is not needed
//! to find them. Runs beside the requests; lookups wait for it for a moment.

use futures_util::StreamExt as _;
use kiln_storage::backend::{Listed, StoreError, StoreResult};
use kiln_storage::{Digest, ObjectName};
use rusqlite::Connection;

use crate::error::ApiError;
use crate::index::open::mark_complete;
use crate::index::quarantine as quarantined;
use crate::index::records::{self, RecordRow, Times};
use crate::limits::{REBUILD_BATCH, REBUILD_READS};
use crate::maker::{By, Made, again};
use crate::quarantine;
use crate::scopes;
use crate::service::Service;

/// Counts of a rebuild.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    /// Blobs found.
    pub blobs: u64,
    /// Records found.
    pub records: u64,
    /// Records that were damaged and removed.
    pub damaged: u64,
    /// Quarantined results found.
    pub quarantined: u64,
}

/// Fills the index with all that the store holds.
///
/// # Errors
/// What store and index fail with; a later start tries again.
pub(crate) async fn run(service: &Service) -> Result<Rebuilt, ApiError> {
    // Before any record: none that is quarantined comes back.
    let quarantined = quarantine::fill(service).await?;
    scopes::fill(service).await?;
    let blobs = find_blobs(service).await?;
    let mut rebuilt = Rebuilt { blobs, quarantined, ..Rebuilt::default() };
    let found = service.store.list("records/").map(|listed| {
        let service = service.clone();
        async move { read(&service, listed?).await }
    });
    let mut found = found.buffer_unordered(REBUILD_READS).chunks(REBUILD_BATCH);
    while let Some(batch) = found.next().await {
        let batch: Vec<Found> = batch.into_iter().collect::<Result<_, ApiError>>()?;
        index_records(service, batch, &mut rebuilt).await?;
    }
    again::fill(service).await?;
    service.index.write(mark_complete).await?;
    Ok(rebuilt)
}

/// Notes all blobs of the store; how many there are. What a server that was killed had stored and
/// not noted is no more than this, and is evicted when nothing names it.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn find_blobs(service: &Service) -> Result<u64, ApiError> {
    let mut count = 0;
    let mut blobs = service.store.list("blobs/").chunks(REBUILD_BATCH);
    while let Some(batch) = blobs.next().await {
        count += index_blobs(service, batch).await?;
    }
    Ok(count)
}

async fn index_blobs(service: &Service, batch: Vec<StoreResult<Listed>>) -> Result<u64, ApiError> {
    let batch: Vec<Listed> = batch.into_iter().collect::<StoreResult<_>>()?;
    let count = batch.len() as u64;
    service
        .index
        .write(move |index| {
            for blob in batch {
                if let Some(digest) = blob.name.blob_digest() {
                    records::insert_blob(index, &digest, blob.size, blob.used_ms)?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(count)
}

async fn index_records(
    service: &Service,
    batch: Vec<Found>,
    rebuilt: &mut Rebuilt,
) -> Result<(), ApiError> {
    let mut rows = Vec::with_capacity(batch.len());
    for found in batch {
        match found {
            Found::Record(row) => rows.push(*row),
            Found::Damaged => rebuilt.damaged += 1,
            Found::Nothing => {}
        }
    }
    rebuilt.records += rows.len() as u64;
    let superseded = service
        .index
        .write(move |index| {
            let superseded = rows.iter().map(|row| insert_unless_newer(index, row));
            superseded.collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    for name in superseded.into_iter().flatten() {
        rebuilt.records = rebuilt.records.saturating_sub(1);
        let _ = service.store.delete(&name).await;
    }
    Ok(())
}

/// Keeps the newest generation; the object of the other one, if there are two. A record that was
/// published meanwhile is newer than what was listed. One that is quarantined is kept out.
fn insert_unless_newer(
    index: &Connection,
    row: &RecordRow,
) -> rusqlite::Result<Option<ObjectName>> {
    let name =
        |generation| records::object_name(&row.scope, &row.unit_key, &row.result_key, generation);
    if quarantined::contains(index, &row.scope, &row.result_key)? {
        return Ok(name(row.generation));
    }
    let there = records::stored(index, &row.scope, &row.result_key)?.map(|there| there.generation);
    let superseded = match there {
        Some(there) if there == row.generation => return Ok(None),
        Some(there) if there > row.generation => Some(row.generation),
        older => {
            records::insert_found(index, row)?;
            older
        }
    };
    Ok(superseded.and_then(name))
}

/// What an object below `records/` turned out to be.
#[derive(Debug)]
enum Found {
    Record(Box<RecordRow>),
    /// It was damaged and is removed.
    Damaged,
    /// It is gone, or none of Kiln's.
    Nothing,
}

async fn read(service: &Service, object: Listed) -> Result<Found, ApiError> {
    let name = object.name;
    let Some((scope, generation)) = parse_name(&name) else {
        return Ok(Found::Nothing);
    };
    match service.store.record(&name).await {
        Ok(Some((record, made))) => {
            let times = Times {
                created_ms: record.producer.created_at_ms.min(object.used_ms),
                used_ms: object.used_ms,
            };
            let mut row = RecordRow::new(scope, record, generation, times)
                .map_err(|error| ApiError::Internal(error.to_string()))?;
            // What a record says of its time is what a client says: where nobody knows, it may be late.
            let unknown = || Made { by: By::Unknown, at_ms: object.used_ms };
            row.origin.made = made.unwrap_or_else(unknown);
            Ok(Found::Record(Box::new(row)))
        }
        Ok(None) => Ok(Found::Nothing),
        Err(StoreError::Damaged { why, .. }) => {
            service.log.warn(format_args!("record {name}: {why}, removed"));
            let _ = service.store.delete(&name).await;
            Ok(Found::Damaged)
        }
        Err(error) => Err(error.into()),
    }
}

/// Scope and generation of `records/<scope>/<xx>/<unit>/<result>.<generation>`.
fn parse_name(name: &ObjectName) -> Option<(String, u32)> {
    let mut parts = name.as_str().strip_prefix("records/")?.splitn(4, '/');
    let (scope, _, _, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (result, generation) = last.split_once('.')?;
    result.parse::<Digest>().ok()?;
    Some((scope.to_owned(), generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::{ResultKey, Scope, UnitKey};

    #[test]
    fn names_of_records_are_read_back() {
        let scope = Scope::local_user(3);
        let key = Digest::of(b"r");
        let unit = UnitKey::new(Digest::of(b"u"));
        let name = ObjectName::record(&scope, &unit, &ResultKey::new(key), 7);
        assert_eq!(parse_name(&name), Some((scope.id(), 7)));
        for other in ["records/a/b/c/d.0", "records/a", "blobs/a/b"] {
            assert_eq!(parse_name(&other.parse().unwrap()), None);
        }
    }
}
