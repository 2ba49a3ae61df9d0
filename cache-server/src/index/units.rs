//! Rows of units: what their keys were made of, for explaining why a unit has no record.
//!
//! Apart from the records, so that a lookup never reads them. A row outlives the records of its
//! unit: that a result was there once is an explanation, too.

use kiln_storage::api::{NearestRequest, NearestUnit};
use kiln_storage::digest::DIGEST_LEN;
use kiln_storage::limits::MAX_NEAREST_UNITS;
use kiln_storage::record::{Member, UnitName, UnitPart};
use kiln_storage::{Digest, Record, UnitKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::records::digest;
use super::{int, json};
use crate::limits::{MAX_DESCRIBED_UNITS, MAX_NEAREST_ROWS};

/// A description of a unit as the index keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitRow {
    /// What people call the unit.
    pub name: UnitName,
    /// What its key was made of.
    pub parts: Vec<UnitPart>,
}

impl UnitRow {
    /// The description in a record.
    pub(crate) fn of(record: &Record) -> Self {
        Self { name: record.unit.clone(), parts: record.parts.clone() }
    }
}

/// Notes a unit, over what was noted of it before; the oldest beyond the bound go.
pub(crate) fn insert(
    connection: &Connection,
    scope: &str,
    key: &UnitKey,
    unit: &UnitRow,
    created_ms: u64,
) -> rusqlite::Result<()> {
    let UnitName { crate_name, version, kind, target } = &unit.name;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO units
                 (scope, unit_key, crate, version, kind, target, created_ms, parts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, max(?7, coalesce(
                 (SELECT created_ms FROM units WHERE scope = ?1 AND unit_key = ?2), 0)), ?8)",
        )?
        .execute(params![
            scope,
            key.digest().as_bytes(),
            crate_name,
            version,
            kind,
            target,
            int(created_ms),
            json(&unit.parts)?
        ])?;
    connection
        .prepare_cached("DELETE FROM units WHERE id <= (SELECT max(id) FROM units) - ?1")?
        .execute(params![int(MAX_DESCRIBED_UNITS)])?;
    Ok(())
}

/// The units most like one that has no record: of its kind and target, else any of its crate.
pub(crate) fn nearest(
    connection: &Connection,
    scope: &str,
    asked: &NearestRequest,
) -> rusqlite::Result<Vec<NearestUnit>> {
    let UnitName { crate_name, version, kind, target } = &asked.unit;
    let limits = [MAX_NEAREST_ROWS, MAX_NEAREST_UNITS as u64].map(int);
    let same: Vec<NearestUnit> = connection
        .prepare_cached(
            // Descriptions are read of the few rows that are wanted only.
            "SELECT unit_key, crate, version, kind, target, parts FROM
                 (SELECT id AS chosen, row_number() OVER
                      (ORDER BY unit_key = ?7 DESC, version = ?5 DESC, created_ms DESC, id DESC) AS n
                  FROM (SELECT id, unit_key, version, created_ms FROM units
                        WHERE scope = ?1 AND crate = ?2 AND kind = ?3 AND target = ?4
                        ORDER BY created_ms DESC, id DESC LIMIT ?6)
                  ORDER BY n LIMIT ?8)
             JOIN units ON id = chosen ORDER BY n",
        )?
        .query_map(
            params![
                scope,
                crate_name,
                kind,
                target,
                version,
                limits[0],
                asked.unit_key.digest().as_bytes(),
                limits[1]
            ],
            unit,
        )?
        .collect::<rusqlite::Result<_>>()?;
    if !same.is_empty() {
        return Ok(same);
    }
    connection
        .prepare_cached(
            "SELECT unit_key, crate, version, kind, target, parts FROM
                 (SELECT id AS chosen, row_number() OVER
                      (ORDER BY version = ?3 DESC, created_ms DESC, id DESC) AS n
                  FROM (SELECT id, version, created_ms FROM units
                        WHERE scope = ?1 AND crate = ?2 LIMIT ?4)
                  ORDER BY n LIMIT ?5)
             JOIN units ON id = chosen ORDER BY n",
        )?
        .query_map(params![scope, crate_name, version, limits[0], limits[1]], unit)?
        .collect()
}

/// What the key was made of that begins so (hexadecimal), if it is known.
pub(crate) fn parts_of(
    connection: &Connection,
    scope: &str,
    key: &str,
) -> rusqlite::Result<Option<Vec<UnitPart>>> {
    let Some((first, last)) = span(key) else { return Ok(None) };
    let parts: Option<String> = connection
        .prepare_cached(
            "SELECT parts FROM units WHERE scope = ?1 AND unit_key BETWEEN ?2 AND ?3 LIMIT 1",
        )?
        .query_row(params![scope, first, last], |row| row.get(0))
        .optional()?;
    Ok(parts.and_then(|parts| serde_json::from_str(&parts).ok()))
}

/// What a key was made of, whatever the scope: a key is the digest of its parts.
pub(crate) fn known_parts(
    connection: &Connection,
    key: &UnitKey,
) -> rusqlite::Result<Option<Vec<UnitPart>>> {
    let parts: Option<String> = connection
        .prepare_cached("SELECT parts FROM units WHERE unit_key = ?1 LIMIT 1")?
        .query_row([key.digest().as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(parts.and_then(|parts| serde_json::from_str(&parts).ok()))
}

/// The least and the greatest digest that begin so; none: it is no beginning of one.
fn span(hex: &str) -> Option<([u8; DIGEST_LEN], [u8; DIGEST_LEN])> {
    let whole = |fill: &str| -> Option<[u8; DIGEST_LEN]> {
        let rest = (2 * DIGEST_LEN).checked_sub(hex.len())?;
        let digest: Digest = format!("{hex}{}", fill.repeat(rest)).parse().ok()?;
        Some(*digest.as_bytes())
    };
    Some((whole("0")?, whole("f")?))
}

fn unit(row: &Row<'_>) -> rusqlite::Result<NearestUnit> {
    let parts: String = row.get(5)?;
    Ok(NearestUnit {
        unit_key: UnitKey::new(digest(row, 0)?),
        unit: UnitName {
            crate_name: row.get(1)?,
            version: row.get(2)?,
            kind: row.get(3)?,
            target: row.get(4)?,
        },
        // A row of another version of the program tells nothing.
        parts: serde_json::from_str(&parts).unwrap_or_default(),
    })
}

/// Members and values of a result, by the beginnings (hexadecimal) of its unit's key and its own.
pub(crate) fn inputs_of(
    connection: &Connection,
    scope: &str,
    (unit, result): (&str, &str),
) -> rusqlite::Result<Option<Vec<(Member, Digest)>>> {
    let (Some((first, last)), Some((least, most))) = (span(unit), span(result)) else {
        return Ok(None);
    };
    let body: Option<Vec<u8>> = connection
        .prepare_cached(
            "SELECT body FROM records r JOIN bodies ON record = r.id WHERE scope = ?1
                 AND unit_key BETWEEN ?2 AND ?3 AND result_key BETWEEN ?4 AND ?5 LIMIT 1",
        )?
        .query_row(params![scope, first, last, least, most], |row| row.get(0))
        .optional()?;
    let record = body.and_then(|body| serde_json::from_slice::<Record>(&body).ok());
    Ok(record.map(|record| record.members.into_iter().zip(record.values).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;

    fn name(crate_name: &str, version: &str, kind: &str) -> UnitName {
        let text = str::to_owned;
        UnitName {
            crate_name: text(crate_name),
            version: text(version),
            kind: text(kind),
            target: text("host"),
        }
    }

    fn key(n: u64) -> UnitKey {
        UnitKey::new(Digest::of(&n.to_le_bytes()))
    }

    fn add(connection: &Connection, scope: &str, n: u64, name: &UnitName) {
        let part = UnitPart { group: "n".into(), name: n.to_string(), value: None };
        let unit = UnitRow { name: name.clone(), parts: vec![part] };
        insert(connection, scope, &key(n), &unit, n).unwrap();
    }

    fn ask(connection: &Connection, n: u64, unit: &UnitName) -> Vec<String> {
        let asked = NearestRequest { unit_key: key(n), unit: unit.clone(), result: None };
        let found = nearest(connection, "s", &asked).unwrap();
        found.into_iter().map(|unit| unit.parts[0].name.clone()).collect()
    }

    #[test]
    fn the_same_unit_then_the_same_version_then_the_newest_come_first() {
        let connection = in_memory();
        let (old, new) = (name("a", "1", "lib"), name("a", "2", "lib"));
        for (n, unit) in [(1, &old), (2, &new), (3, &new), (4, &old)] {
            add(&connection, "s", n, unit);
        }
        add(&connection, "other", 9, &new);
        add(&connection, "s", 5, &name("b", "2", "lib"));
        add(&connection, "s", 6, &name("a", "2", "bin"));
        assert_eq!(ask(&connection, 7, &new), ["3", "2", "4", "1"]);
        assert_eq!(ask(&connection, 1, &new), ["1", "3", "2", "4"]);
        assert_eq!(ask(&connection, 7, &name("a", "2", "test")), ["6", "3", "2", "4", "1"]);
        assert_eq!(ask(&connection, 7, &name("c", "2", "lib")), [""; 0]);
    }

    #[test]
    fn a_unit_is_found_by_the_beginning_of_its_key() {
        let connection = in_memory();
        for n in 1..20 {
            add(&connection, "s", n, &name("a", "1", "lib"));
        }
        let hex = key(7).to_string();
        let parts = |scope: &str, key: &str| parts_of(&connection, scope, key).unwrap();
        assert_eq!(parts("s", &hex[..32]).unwrap()[0].name, "7");
        assert_eq!(parts("s", &hex).unwrap()[0].name, "7");
        assert_eq!((parts("t", &hex[..32]), parts("s", "xyz")), (None, None));
        assert_eq!(parts("s", &format!("{hex}0")), None);
    }

    #[test]
    fn a_unit_is_noted_once_and_never_older() {
        let connection = in_memory();
        let unit = name("a", "1", "lib");
        add(&connection, "s", 1, &unit);
        add(&connection, "s", 2, &unit);
        let row = UnitRow { name: unit.clone(), parts: vec![UnitPart::default()] };
        insert(&connection, "s", &key(2), &row, 0).unwrap();
        assert_eq!(ask(&connection, 7, &unit), ["", "1"]);
    }

    #[test]
    fn answers_and_rows_are_bounded() {
        let connection = in_memory();
        let unit = name("a", "1", "lib");
        for n in 0..20 {
            add(&connection, "s", n, &unit);
        }
        assert_eq!(ask(&connection, 99, &unit).len(), MAX_NEAREST_UNITS);
        let far = int(MAX_DESCRIBED_UNITS) + 15;
        connection.execute("UPDATE units SET id = ?1 WHERE id = 20", [far]).unwrap();
        add(&connection, "s", 21, &unit);
        let rows: i64 =
            connection.query_row("SELECT count(*) FROM units", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 5, "those with ids 17 to 19, and two");
    }
}
