//! Rows of records and blobs.

use kiln_storage::limits::{MAX_LOOKUP_UNIT_BYTES, MAX_RECORDS_PER_UNIT};
use kiln_storage::remote::ResultName;
use kiln_storage::{Digest, ObjectName, Record, ResultKey, UnitKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::units::{self, UnitRow};
use super::variables::{self, Variables};
use super::{int, json, uint};
use super::{makers, owners};
use crate::maker::Origin;

/// A record as the index keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordRow {
    /// Id of the scope.
    pub scope: String,
    /// The unit.
    pub unit_key: UnitKey,
    /// The result.
    pub result_key: ResultKey,
    /// The generation of the stored object.
    pub generation: u32,
    /// When the server got it, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used, milliseconds since 1970.
    pub used_ms: u64,
    /// What it cost to compile.
    pub cost_ms: u64,
    /// The encoded record, without what explanations alone read.
    pub body: Vec<u8>,
    /// Its blobs with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// The description of its unit, which lookups do not read.
    pub unit: UnitRow,
    /// The variables that counted, which lookups do not read either.
    pub variables: Variables,
    /// What it is called in the place behind the server, when it came from there.
    pub afar: Option<ResultName>,
    /// Who had it stored.
    pub origin: Origin,
}

/// When a record came and was used last, milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When the server got it.
    pub created_ms: u64,
    /// When it was last used.
    pub used_ms: u64,
}

impl RecordRow {
    /// The row of a record under the id of its scope.
    ///
    /// # Errors
    /// The record cannot be encoded.
    pub(crate) fn new(
        scope: String,
        mut record: Record,
        generation: u32,
        times: Times,
    ) -> Result<Self, serde_json::Error> {
        let (unit, origin) = (UnitRow::of(&record), Origin::unknown(&record, times.created_ms));
        record.parts.clear();
        let variables = std::mem::take(&mut record.variables);
        Ok(Self {
            scope,
            unit_key: record.unit_key,
            result_key: record.result_key,
            generation,
            created_ms: times.created_ms,
            used_ms: times.used_ms,
            cost_ms: record.cost.wall_ms,
            body: serde_json::to_vec(&record)?,
            blobs: record.blobs(),
            unit,
            variables,
            afar: None,
            origin,
        })
    }
}

/// What the rest of the server has to know of a stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Row.
    pub id: i64,
    /// The unit.
    pub unit_key: UnitKey,
    /// The generation of the stored object.
    pub generation: u32,
    /// Its blobs, with their sizes where the index has them.
    pub blobs: Vec<(Digest, Option<u64>)>,
    /// What it is called in the place behind the server, when it came from there.
    pub afar: Option<ResultName>,
    /// Somebody else made it, too, which an object says.
    pub again: bool,
}

/// A record that answers a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Row.
    pub id: i64,
    /// The result.
    pub result_key: ResultKey,
    /// The encoded record.
    pub body: Vec<u8>,
    /// Some of its blobs are not here; they are to be had from behind the server.
    pub absent: bool,
    /// It came from behind the server and was not used since.
    pub arrived: bool,
}

/// The columns of a [`Found`].
const FOUND: &str = "SELECT id, result_key, body, EXISTS (
             SELECT 1 FROM record_blobs l LEFT JOIN blobs b ON b.digest = l.digest
             WHERE l.record = r.id AND b.digest IS NULL), afar IS NOT NULL, uses = 0
         FROM records r JOIN bodies ON bodies.record = id";

/// A record, unless blobs are not here that cannot be had from anywhere.
fn found(row: &Row<'_>, is_edge: bool) -> rusqlite::Result<Option<Found>> {
    let (absent, afar, unused): (bool, bool, bool) = (row.get(3)?, row.get(4)?, row.get(5)?);
    if absent && !(afar && is_edge) {
        return Ok(None);
    }
    Ok(Some(Found {
        id: row.get(0)?,
        result_key: ResultKey::new(digest(row, 1)?),
        body: row.get(2)?,
        absent,
        arrived: afar && unused,
    }))
}

/// The records of a unit, newest first, without those known already; bounded as the API says. Only
/// records whose blobs are all here, or, on an edge, are to be had from behind the server.
pub(crate) fn of_unit(
    connection: &Connection,
    scope: &str,
    unit: &UnitKey,
    (known, is_edge): (&[ResultKey], bool),
) -> rusqlite::Result<Vec<Found>> {
    let sql =
        format!("{FOUND} WHERE scope = ?1 AND unit_key = ?2 ORDER BY created_ms DESC, id DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![scope, unit.digest().as_bytes()])?;
    let (mut all, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let Some(one) = found(row, is_edge)?.filter(|one| !known.contains(&one.result_key)) else {
            continue;
        };
        bytes += one.body.len();
        if bytes > MAX_LOOKUP_UNIT_BYTES && !all.is_empty() {
            break;
        }
        all.push(one);
        if all.len() == MAX_RECORDS_PER_UNIT {
            break;
        }
    }
    Ok(all)
}

/// The record of a result, as [`of_unit`].
pub(crate) fn of_result(
    connection: &Connection,
    scope: &str,
    result: &ResultKey,
    is_edge: bool,
) -> rusqlite::Result<Option<Found>> {
    let sql = format!("{FOUND} WHERE scope = ?1 AND result_key = ?2");
    connection
        .prepare_cached(&sql)?
        .query_row(params![scope, result.digest().as_bytes()], |row| found(row, is_edge))
        .optional()
        .map(Option::flatten)
}

/// A record with the blobs it names, whether they are there or not.
pub(crate) fn stored(
    connection: &Connection,
    scope: &str,
    result: &ResultKey,
) -> rusqlite::Result<Option<Stored>> {
    let head = connection
        .prepare_cached(
            "SELECT id, unit_key, generation, afar, again IS NOT NULL FROM records
             WHERE scope = ?1 AND result_key = ?2",
        )?
        .query_row(params![scope, result.digest().as_bytes()], |row| {
            let afar: Option<String> = row.get(3)?;
            Ok((row.get(0)?, digest(row, 1)?, row.get(2)?, afar, row.get(4)?))
        })
        .optional()?;
    let Some((id, unit, generation, afar, again)) = head else {
        return Ok(None);
    };
    let blobs = connection
        .prepare_cached(
            "SELECT l.digest, b.size FROM record_blobs l LEFT JOIN blobs b ON b.digest = l.digest
             WHERE l.record = ?1",
        )?
        .query_map(params![id], |row| {
            Ok((digest(row, 0)?, row.get::<_, Option<i64>>(1)?.map(uint)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    // A name of another version of the program is none.
    let afar = afar.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Some(Stored { id, unit_key: UnitKey::new(unit), generation, blobs, afar, again }))
}

/// The encoded record of a row, whole: with the description of its unit and its variables.
pub(crate) fn body(connection: &Connection, id: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    type Row = (Vec<u8>, Option<String>, Option<String>);
    let found: Option<Row> = connection
        .prepare_cached(
            "SELECT body, u.parts, v.list FROM bodies b JOIN records r ON r.id = b.record
             LEFT JOIN units u ON u.scope = r.scope AND u.unit_key = r.unit_key
             LEFT JOIN variables v ON v.record = r.id
             WHERE b.record = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(found.map(|(body, parts, list)| {
        let parts = parts.and_then(|parts| serde_json::from_str(&parts).ok()).unwrap_or_default();
        let variables = list.as_deref().map(variables::read).unwrap_or_default();
        match serde_json::from_slice::<Record>(&body) {
            Ok(record) => {
                serde_json::to_vec(&Record { parts, variables, ..record }).unwrap_or(body)
            }
            Err(_) => body,
        }
    }))
}

/// Writes a record and its blobs, over an older generation if there is one. Its row, and the bytes that
/// the store grew by.
pub(crate) fn insert(connection: &Connection, row: &RecordRow) -> rusqlite::Result<(i64, u64)> {
    let mut grown = row.body.len() as u64;
    for (digest, size) in &row.blobs {
        if insert_blob(connection, digest, *size, row.created_ms)? {
            grown += size;
        }
    }
    Ok((insert_found(connection, row)?, grown))
}

/// Writes a record whose blobs may be there or not; its row.
pub(crate) fn insert_found(connection: &Connection, row: &RecordRow) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("DELETE FROM records WHERE scope = ?1 AND result_key = ?2")?
        .execute(params![row.scope, row.result_key.digest().as_bytes()])?;
    let bytes = row.body.len() as u64;
    let maker = makers::id_of(connection, &row.origin.made.by, &row.origin.said)?;
    connection
        .prepare_cached(
            "INSERT INTO records (scope, unit_key, result_key, generation, created_ms,
                 last_used_ms, uses, cost_ms, bytes, afar, maker, made_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            row.scope,
            row.unit_key.digest().as_bytes(),
            row.result_key.digest().as_bytes(),
            row.generation,
            int(row.created_ms),
            int(row.used_ms),
            int(row.cost_ms),
            int(bytes),
            row.afar.as_ref().map(json).transpose()?,
            maker,
            int(row.origin.made.at_ms)
        ])?;
    let id = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO bodies VALUES (?1, ?2)")?
        .execute(params![id, row.body])?;
    for (digest, _) in &row.blobs {
        connection
            .prepare_cached("INSERT OR IGNORE INTO record_blobs VALUES (?1, ?2)")?
            .execute(params![id, digest.as_bytes()])?;
    }
    owners::of_record(connection, id)?;
    variables::insert(connection, id, &row.variables)?;
    units::insert(connection, &row.scope, &row.unit_key, &row.unit, row.created_ms)?;
    Ok(id)
}

/// Notes that a blob is stored; whether that is new.
pub(crate) fn insert_blob(
    connection: &Connection,
    digest: &Digest,
    size: u64,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let rows = connection
        .prepare_cached("INSERT OR IGNORE INTO blobs VALUES (?1, ?2, ?3)")?
        .execute(params![digest.as_bytes(), int(size), int(now_ms)])?;
    if rows > 0 {
        owners::of_blob(connection, digest)?;
    }
    Ok(rows > 0)
}

/// Forgets a blob; the records that name it are no longer found.
pub(crate) fn forget_blob(connection: &Connection, digest: &Digest) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
        .execute(params![digest.as_bytes()])?;
    Ok(())
}

/// Forgets a record.
pub(crate) fn forget(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM records WHERE id = ?1")?.execute(params![id])?;
    Ok(())
}

/// Which of these blobs the index does not have, in the order asked.
pub(crate) fn missing(connection: &Connection, asked: &[Digest]) -> rusqlite::Result<Vec<Digest>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?;
    let mut missing = Vec::new();
    for digest in asked {
        if !statement.exists(params![digest.as_bytes()])? {
            missing.push(*digest);
        }
    }
    Ok(missing)
}

/// Notes that results were used.
pub(crate) fn touch(
    connection: &Connection,
    scope: &str,
    results: &[ResultKey],
    now_ms: u64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE records SET last_used_ms = max(last_used_ms, ?3), uses = uses + 1
         WHERE scope = ?1 AND result_key = ?2",
    )?;
    for result in results {
        statement.execute(params![scope, result.digest().as_bytes(), int(now_ms)])?;
    }
    Ok(())
}

/// Number of records, number of blobs, and the bytes of both.
pub(crate) fn sizes(connection: &Connection) -> rusqlite::Result<(u64, u64, u64)> {
    let pair = |sql: &str| {
        connection.query_row(sql, [], |row| Ok((uint(row.get(0)?), uint(row.get::<_, i64>(1)?))))
    };
    let (records, record_bytes) = pair("SELECT count(*), coalesce(sum(bytes), 0) FROM records")?;
    let (blobs, blob_bytes) = pair("SELECT count(*), coalesce(sum(size), 0) FROM blobs")?;
    Ok((records, blobs, record_bytes + blob_bytes))
}

/// The object that holds a record, by the id of its scope: [`ObjectName::record`] for a scope
/// whose names are not known.
pub(crate) fn object_name(
    scope: &str,
    unit: &UnitKey,
    result: &ResultKey,
    generation: u32,
) -> Option<ObjectName> {
    let unit = unit.to_string();
    format!("records/{scope}/{}/{unit}/{result}.{generation}", &unit[..2]).parse().ok()
}

/// Reads a digest from a column.
pub(crate) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;
    use kiln_storage::record::UnitName;

    fn row(unit: u8, result: u8, created_ms: u64, blob: &Digest) -> RecordRow {
        RecordRow {
            scope: "s".into(),
            unit_key: UnitKey::new(Digest::of(&[unit])),
            result_key: ResultKey::new(Digest::of(&[result, 1])),
            generation: 0,
            created_ms,
            used_ms: created_ms,
            cost_ms: 5,
            body: vec![b'0' + result],
            blobs: vec![(*blob, 10)],
            unit: UnitRow { name: UnitName::default(), parts: Vec::new() },
            variables: Variables::new(),
            afar: None,
            origin: Origin::default(),
        }
    }

    #[test]
    fn records_are_found_newest_first_and_only_with_all_blobs() {
        let connection = in_memory();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        for (result, created, blob) in [(1, 30, &one), (2, 10, &one), (3, 20, &two)] {
            insert(&connection, &row(0, result, created, blob)).unwrap();
        }
        let unit = UnitKey::new(Digest::of(&[0]));
        let found = |scope: &str| -> Vec<u8> {
            let rows = of_unit(&connection, scope, &unit, (&[], true)).unwrap();
            rows.into_iter().flat_map(|found| found.body).collect()
        };
        assert_eq!(found("s"), b"132");
        assert_eq!(found("other"), b"");
        forget_blob(&connection, &one).unwrap();
        assert_eq!(found("s"), b"3");
        assert_eq!(missing(&connection, &[one, two]).unwrap(), [one]);
        let result = ResultKey::new(Digest::of(&[1, 1]));
        assert_eq!(of_result(&connection, "s", &result, true).unwrap(), None);
        let stored = stored(&connection, "s", &result).unwrap().unwrap();
        assert_eq!(stored.blobs, [(one, None)]);
    }

    #[test]
    fn what_came_from_afar_is_answered_without_its_blobs() {
        let connection = in_memory();
        let (here, far) = (Digest::of(b"1"), Digest::of(b"2"));
        insert(&connection, &row(0, 1, 10, &here)).unwrap();
        let mut arrived = row(0, 2, 20, &far);
        arrived.afar = Some(ResultName {
            scope: kiln_storage::Scope::new("r", "main"),
            unit: arrived.unit_key,
            result: arrived.result_key,
            generation: 3,
        });
        insert_found(&connection, &arrived).unwrap();
        let unit = UnitKey::new(Digest::of(&[0]));
        let of_unit = |known: &[ResultKey], is_edge| {
            let found = of_unit(&connection, "s", &unit, (known, is_edge)).unwrap();
            found.iter().map(|f| (f.body.clone(), f.absent, f.arrived)).collect::<Vec<_>>()
        };
        let [one, two] = [b"1", b"2"].map(|body| body.to_vec());
        assert_eq!(of_unit(&[], false), [(one.clone(), false, false)]);
        let both = [(two.clone(), true, true), (one.clone(), false, false)];
        assert_eq!(of_unit(&[], true), both);
        assert_eq!(of_unit(&[arrived.result_key], true), [(one, false, false)]);
        insert_blob(&connection, &far, 10, 1).unwrap();
        touch(&connection, "s", &[arrived.result_key], 30).unwrap();
        let whole = of_result(&connection, "s", &arrived.result_key, false).unwrap().unwrap();
        assert!(!whole.absent && !whole.arrived);
        let stored = stored(&connection, "s", &arrived.result_key).unwrap().unwrap();
        assert_eq!(stored.afar, arrived.afar);
    }

    #[test]
    fn objects_have_the_names_that_storage_gives_them() {
        let scope = kiln_storage::Scope::local_user(7);
        let unit = UnitKey::new(Digest::of(b"u"));
        let result = ResultKey::new(Digest::of(b"r"));
        assert_eq!(
            object_name(&scope.id(), &unit, &result, 3),
            Some(ObjectName::record(&scope, &unit, &result, 3))
        );
    }

    #[test]
    fn lookups_are_bounded() {
        let connection = in_memory();
        let blob = Digest::of(b"1");
        for result in 0..8 {
            insert(&connection, &row(0, result, u64::from(result), &blob)).unwrap();
        }
        let unit = UnitKey::new(Digest::of(&[0]));
        let count = || of_unit(&connection, "s", &unit, (&[], false)).unwrap().len();
        assert_eq!(count(), MAX_RECORDS_PER_UNIT);
        let mut large = row(0, 9, 99, &blob);
        large.body = vec![b' '; MAX_LOOKUP_UNIT_BYTES + 1];
        insert(&connection, &large).unwrap();
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_new_generation_replaces_and_sizes_add_up() {
        let connection = in_memory();
        let blob = Digest::of(b"1");
        let mut first = row(0, 1, 1, &blob);
        insert(&connection, &first).unwrap();
        first.generation = 1;
        first.body = b"xy".to_vec();
        insert(&connection, &first).unwrap();
        assert_eq!(sizes(&connection).unwrap(), (1, 1, 12));
        let found = stored(&connection, "s", &first.result_key).unwrap().unwrap();
        assert_eq!(found.generation, 1);
        forget(&connection, found.id).unwrap();
        assert_eq!(sizes(&connection).unwrap(), (0, 1, 10));
    }
}
