//! Rows of units: what their keys were made of, for explaining why a unit has no record.
//!
//! Apart from the records, so that a lookup never reads them. A row outlives the records of its
//! unit: that a result was there once is an explanation, too.

use kiln_storage::api::{NearestRequest, NearestUnit};
use kiln_storage::limits::MAX_NEAREST_UNITS;
use kiln_storage::record::{UnitName, UnitPart};
use kiln_storage::{Record, UnitKey};
use rusqlite::{Connection, Row, params};

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

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;
    use kiln_storage::Digest;

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
