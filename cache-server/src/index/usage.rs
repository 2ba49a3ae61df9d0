//! What the eviction needs: all rows as [`eviction::State`], and the removal of what it chose.

use std::collections::HashMap;

use kiln_storage::eviction::{BlobUse, Plan, ResultUse, State};
use kiln_storage::{Digest, ResultKey, UnitKey};
use rusqlite::{Connection, OptionalExtension, params};

use super::records::{self, digest};
use super::{evicted, makers, uint};
use crate::shares::Whose;

/// Where a record is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Id of the scope.
    pub scope: String,
    /// The unit.
    pub unit_key: UnitKey,
    /// The result.
    pub result_key: ResultKey,
    /// The generation.
    pub generation: u32,
    /// Somebody else made it, too, which an object says.
    pub again: bool,
}

/// All that the index knows of; results are called by their rows.
pub(crate) fn state(connection: &Connection) -> rusqlite::Result<State<i64>> {
    let mut blobs_of: HashMap<i64, Vec<Digest>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT record, digest FROM record_blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        blobs_of.entry(row.get(0)?).or_default().push(digest(row, 1)?);
    }
    let results = connection
        .prepare_cached(
            // What waits to be sent stays.
            "SELECT id, bytes, cost_ms, last_used_ms, EXISTS (
                 SELECT 1 FROM outbox WHERE record = records.id) FROM records",
        )?
        .query_map([], |row| {
            let id = row.get(0)?;
            Ok(ResultUse {
                id,
                bytes: uint(row.get(1)?),
                blobs: blobs_of.remove(&id).unwrap_or_default(),
                cost_ms: uint(row.get(2)?),
                used_ms: uint(row.get(3)?),
                pinned: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let blobs = connection
        .prepare_cached("SELECT digest, size, created_ms FROM blobs")?
        .query_map([], |row| {
            Ok(BlobUse {
                digest: digest(row, 0)?,
                bytes: uint(row.get(1)?),
                used_ms: uint(row.get(2)?),
                pinned: false,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(State { results, blobs })
}

/// Whose results and blobs are.
pub(crate) fn whose(connection: &Connection) -> rusqlite::Result<Whose> {
    let mut whose = Whose::default();
    let mut statement = connection.prepare_cached(
        "SELECT r.id, s.repository FROM records r JOIN scopes s ON s.id = r.scope",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        whose.results.insert(row.get(0)?, row.get(1)?);
    }
    let mut statement = connection.prepare_cached(
        "SELECT digest, repository FROM owners o
         WHERE NOT EXISTS (SELECT 1 FROM record_blobs l WHERE l.digest = o.digest)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        whose.unnamed.entry(digest(row, 0)?).or_default().push(row.get(1)?);
    }
    Ok(whose)
}

/// When the result that was used least recently was used.
pub(crate) fn least_recent_ms(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(last_used_ms) FROM records")?
        .query_row([], |row| row.get(0))?;
    Ok(oldest.map(uint))
}

/// Forgets what a plan removes; where the records were.
pub(crate) fn forget(connection: &Connection, plan: &Plan<i64>) -> rusqlite::Result<Vec<Place>> {
    let mut places = Vec::with_capacity(plan.results.len());
    for id in &plan.results {
        let place = connection
            .prepare_cached(
                "SELECT scope, unit_key, result_key, generation, again IS NOT NULL
                 FROM records WHERE id = ?1",
            )?
            .query_row(params![id], |row| {
                Ok(Place {
                    scope: row.get(0)?,
                    unit_key: UnitKey::new(digest(row, 1)?),
                    result_key: ResultKey::new(digest(row, 2)?),
                    generation: row.get(3)?,
                    again: row.get(4)?,
                })
            })
            .optional()?;
        places.extend(place);
        records::forget(connection, *id)?;
    }
    for blob in &plan.blobs {
        records::forget_blob(connection, blob)?;
    }
    evicted::bound(connection)?;
    makers::sweep(connection)?;
    Ok(places)
}
