//! Filling an empty index from the store: records and blobs are objects, the index is not needed
//! to find them. Runs beside the requests; lookups wait for it for a moment.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::stream;
use kiln_storage::backend::{Listed, StoreError, StoreResult};
use kiln_storage::{Digest, ObjectName};

use crate::error::ApiError;
use crate::index::open::mark_complete;
use crate::index::records::{self, RecordRow};
use crate::limits::{REBUILD_BATCH, REBUILD_READS};
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
}

/// Fills the index with all that the store holds.
///
/// # Errors
/// What store and index fail with; a later start tries again.
pub(crate) async fn run(service: &Service) -> Result<Rebuilt, ApiError> {
    let mut rebuilt = Rebuilt::default();
    let mut blobs = service.store.list("blobs/").chunks(REBUILD_BATCH);
    while let Some(batch) = blobs.next().await {
        rebuilt.blobs += index_blobs(service, batch).await?;
    }
    let mut newest: HashMap<(String, String), (u32, Listed)> = HashMap::new();
    let mut listed = service.store.list("records/");
    while let Some(object) = listed.next().await {
        let object = object?;
        if let Some((scope, result, generation)) = parse_name(&object.name) {
            let slot = newest.entry((scope, result));
            let slot = slot.or_insert_with(|| (generation, object.clone()));
            if slot.0 < generation {
                *slot = (generation, object);
            }
        }
    }
    let reads = stream::iter(
        newest
            .into_iter()
            .map(|((scope, _), (generation, object))| {
                let service = service.clone();
                async move { read(&service, scope, generation, object).await }
            }),
    );
    let mut reads = reads.buffer_unordered(REBUILD_READS).chunks(REBUILD_BATCH);
    while let Some(batch) = reads.next().await {
        let mut rows = Vec::with_capacity(batch.len());
        for row in batch {
            match row? {
                Some(row) => rows.push(row),
                None => rebuilt.damaged += 1,
            }
        }
        rebuilt.records += rows.len() as u64;
        service
            .index
            .write(move |index| {
                rows.iter()
                    .try_for_each(|row| insert_unless_newer(index, row))
            })
            .await?;
    }
    service.index.write(mark_complete).await?;
    Ok(rebuilt)
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

/// A record that was published meanwhile is newer than what was listed.
fn insert_unless_newer(index: &rusqlite::Connection, row: &RecordRow) -> rusqlite::Result<()> {
    let there = records::stored(index, &row.scope, &row.result_key)?;
    if there.is_some_and(|there| there.generation >= row.generation) {
        return Ok(());
    }
    records::insert_found(index, row)
}

/// The row of a stored record; none for one that is damaged, which is removed.
async fn read(
    service: &Service,
    scope: String,
    generation: u32,
    object: Listed,
) -> Result<Option<RecordRow>, ApiError> {
    let name = object.name;
    match service.store.record(&name).await {
        Ok(Some((record, body))) => Ok(Some(RecordRow {
            scope,
            unit_key: record.unit_key,
            result_key: record.result_key,
            generation,
            created_ms: record.producer.created_at_ms.min(object.used_ms),
            used_ms: object.used_ms,
            cost_ms: record.cost.wall_ms,
            blobs: record.blobs(),
            body: body.to_vec(),
        })),
        Ok(None) => Ok(None),
        Err(StoreError::Damaged { why, .. }) => {
            service
                .log
                .warn(format_args!("record {name}: {why}, removed"));
            let _ = service.store.delete(&name).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Scope, result and generation of `records/<scope>/<xx>/<unit>/<result>.<generation>`.
fn parse_name(name: &ObjectName) -> Option<(String, String, u32)> {
    let mut parts = name.as_str().strip_prefix("records/")?.splitn(4, '/');
    let (scope, _, _, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (result, generation) = last.split_once('.')?;
    result.parse::<Digest>().ok()?;
    Some((
        scope.to_owned(),
        result.to_owned(),
        generation.parse().ok()?,
    ))
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
        assert_eq!(parse_name(&name), Some((scope.id(), key.to_string(), 7)));
        for other in ["records/a/b/c/d.0", "records/a", "blobs/a/b"] {
            assert_eq!(parse_name(&other.parse().unwrap()), None);
        }
    }
}
