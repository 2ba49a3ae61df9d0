//! Rows of the variables that counted for a record, each with a short digest: for explaining what differs
//! from it.
//!
//! Apart from the records, so that a lookup never reads them. They go with their record.

use std::collections::BTreeMap;

use kiln_storage::ResultKey;
use rusqlite::{Connection, OptionalExtension, params};

use super::json;

/// Names of variables, each with the short digest of its value.
pub(crate) type Variables = BTreeMap<String, String>;

/// Notes the variables of a record.
pub(crate) fn insert(
    connection: &Connection,
    record: i64,
    variables: &Variables,
) -> rusqlite::Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO variables VALUES (?1, ?2)")?
        .execute(params![record, json(variables)?])?;
    Ok(())
}

/// The variables of a result; none where nothing is known of it.
pub(crate) fn of_result(
    connection: &Connection,
    scope: &str,
    result: &ResultKey,
) -> rusqlite::Result<Variables> {
    let list: Option<String> = connection
        .prepare_cached(
            "SELECT list FROM variables JOIN records ON id = record
             WHERE scope = ?1 AND result_key = ?2",
        )?
        .query_row(params![scope, result.digest().as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(list.as_deref().map(read).unwrap_or_default())
}

/// A list as it is kept. One of another version of the program tells nothing.
pub(super) fn read(list: &str) -> Variables {
    serde_json::from_str(list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::super::records::{self, RecordRow, Times};
    use super::*;
    use kiln_storage::record::{
        Cost, Member, Producer, RECORD_VERSION, Record, UnitName, result_key,
    };
    use kiln_storage::{Digest, UnitKey};

    fn record(variables: &[(&str, &str)]) -> Record {
        let unit_key = UnitKey::new(Digest::of(b"u"));
        let (members, values) = (vec![Member::Processor], vec![Digest::of(b"v")]);
        Record {
            version: RECORD_VERSION,
            unit_key,
            result_key: result_key(&unit_key, &members, &values),
            unit: UnitName::default(),
            parts: Vec::new(),
            members,
            values,
            variables: variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            outputs: Vec::new(),
            status: 0,
            stdout: String::new(),
            stderr: String::new(),
            cost: Cost::default(),
            producer: Producer::default(),
            conservative: Vec::new(),
        }
    }

    #[test]
    fn they_are_beside_the_record_and_go_with_it() {
        let connection = in_memory();
        let whole = record(&[("A", "01234567"), ("B\u{1b}", "89abcdef")]);
        let times = Times { created_ms: 1, used_ms: 1 };
        let row = RecordRow::new("s".into(), whole.clone(), 0, times).unwrap();
        assert!(!String::from_utf8_lossy(&row.body).contains("variables"));
        let (id, _) = records::insert(&connection, &row).unwrap();
        let known = |scope: &str| of_result(&connection, scope, &whole.result_key).unwrap();
        assert_eq!((known("s"), known("other")), (whole.variables.clone(), Variables::new()));
        let body = records::body(&connection, id).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&body).unwrap(), whole);
        // Another generation, then none.
        let other = record(&[("C", "01234567")]);
        let row = RecordRow::new("s".into(), other.clone(), 1, times).unwrap();
        let (id, _) = records::insert(&connection, &row).unwrap();
        assert_eq!(known("s"), other.variables);
        records::forget(&connection, id).unwrap();
        assert_eq!(known("s"), Variables::new());
        let rows = "SELECT count(*) FROM variables";
        assert_eq!(connection.query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
}
