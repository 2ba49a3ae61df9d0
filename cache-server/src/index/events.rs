//! Rows of events: counted once each, kept in a bounded history.

use std::collections::HashSet;

use kiln_storage::api::{Event, ExplainResponse, MissedUnit, NotedUnit, StatsResponse};
use rusqlite::{Connection, OptionalExtension, params};

use super::{int, json, records, uint};
use crate::limits::{MAX_EXPLAINED_EVENTS, MAX_LISTED_UNITS, TRIMMED_SHARE};
use crate::tally::{Tally, is_hit};

/// Stores events that are new, counts them, and notes the use of the results that were hit, in their scope and in
/// others that are read with it. The number of new ones.
pub(crate) fn add(
    connection: &Connection,
    (scope, others): (&str, &[String]),
    events: &[Event],
    now_ms: u64,
) -> rusqlite::Result<usize> {
    let (mut total, zero_seq) = totals(connection, scope)?;
    let (mut added, mut used, mut builds) = (0, Vec::new(), HashSet::new());
    for event in events {
        let body = json(event)?;
        let new = connection
            .prepare_cached(
                "INSERT OR IGNORE INTO events (scope, id, build, body) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![scope, event.id, event.build, body])?;
        if new == 0 {
            continue;
        }
        let seq = connection.last_insert_rowid();
        if builds.insert(&event.build) {
            connection
                .prepare_cached("INSERT OR IGNORE INTO builds VALUES (?1, ?2, ?3)")?
                .execute(params![scope, event.build, seq])?;
        }
        total.add(event);
        added += 1;
        if is_hit(event.outcome) {
            used.extend(event.result_key);
        }
    }
    if added > 0 {
        set_totals(connection, scope, &total, zero_seq)?;
        records::touch(connection, scope, &used, now_ms)?;
        for other in others {
            records::touch(connection, other, &used, now_ms)?;
        }
    }
    Ok(added)
}

/// Deletes the oldest events beyond a number of rows, some at a time: builds are looked through for that.
pub(crate) fn trim(connection: &Connection, keep: u64) -> rusqlite::Result<()> {
    let rows: i64 = connection
        .prepare_cached(
            "SELECT coalesce((SELECT max(seq) FROM events) - (SELECT min(seq) FROM events) + 1, 0)",
        )?
        .query_row([], |row| row.get(0))?;
    if uint(rows) <= keep + keep / TRIMMED_SHARE {
        return Ok(());
    }
    let deleted = connection
        .prepare_cached("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1")?
        .execute(params![int(keep)])?;
    if deleted > 0 {
        connection.execute(
            "DELETE FROM builds WHERE NOT EXISTS (SELECT 1 FROM events e
                 WHERE e.scope = builds.scope AND e.build = builds.build)",
            [],
        )?;
    }
    Ok(())
}

/// Begins to count anew; the history stays.
pub(crate) fn zero(connection: &Connection, scope: &str) -> rusqlite::Result<()> {
    let newest: Option<i64> =
        connection.query_row("SELECT max(seq) FROM events", [], |row| row.get(0))?;
    set_totals(connection, scope, &Tally::default(), newest.unwrap_or_default())
}

/// All but the size of the store.
pub(crate) fn stats(connection: &Connection, scope: &str) -> rusqlite::Result<StatsResponse> {
    let (total, zero_seq) = totals(connection, scope)?;
    let mut build = Tally::default();
    let (mut pinned, mut conservative, mut missed) = (Vec::new(), Vec::new(), Vec::new());
    let newest = newest(connection, scope, zero_seq)?;
    let events = newest.map(|newest| of_build(connection, scope, &newest, zero_seq)).transpose()?;
    for event in events.unwrap_or_default() {
        build.add(&event);
        for (list, by) in [(&mut pinned, &event.pinned), (&mut conservative, &event.conservative)] {
            if !by.is_empty() && list.len() < MAX_LISTED_UNITS {
                list.push(NotedUnit { unit: event.unit.clone(), by: by.clone() });
            }
        }
        if !is_hit(event.outcome) {
            missed.push(MissedUnit {
                unit: event.unit,
                outcome: event.outcome,
                reason: event.reason.unwrap_or_else(|| "unspecified".to_owned()),
                cost_ms: event.cost_ms,
            });
        }
    }
    missed.sort_by_key(|unit| std::cmp::Reverse(unit.cost_ms));
    missed.truncate(MAX_LISTED_UNITS);
    Ok(StatsResponse {
        total: total.counts(),
        build: build.counts(),
        pinned,
        conservative,
        missed,
        ..StatsResponse::default()
    })
}

/// The events of a build, else of the one that began last, whether it was counted since or not.
pub(crate) fn explain(
    connection: &Connection,
    scope: &str,
    build: Option<String>,
) -> rusqlite::Result<ExplainResponse> {
    let build = match build {
        Some(build) => Some(build),
        None => newest(connection, scope, 0)?,
    };
    let Some(build) = build else { return Ok(ExplainResponse::default()) };
    let mut events = of_build(connection, scope, &build, 0)?;
    let left_out = events.len().saturating_sub(MAX_EXPLAINED_EVENTS);
    if left_out > 0 {
        // What was restored is needed only to say so.
        let mut spare = left_out;
        events.retain(|event| {
            let goes = spare > 0 && is_hit(event.outcome);
            spare -= usize::from(goes);
            !goes
        });
        events.truncate(MAX_EXPLAINED_EVENTS);
    }
    Ok(ExplainResponse { build: Some(build), events, left_out: left_out as u64 })
}

/// The build that began last, of those with events after a row.
fn newest(
    connection: &Connection,
    scope: &str,
    after_seq: i64,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT b.build FROM builds b WHERE b.scope = ?1 AND EXISTS
                 (SELECT 1 FROM events e
                  WHERE e.scope = ?1 AND e.build = b.build AND e.seq > ?2)
             ORDER BY b.first_seq DESC LIMIT 1",
        )?
        .query_row(params![scope, after_seq], |row| row.get(0))
        .optional()
}

/// The events of a build after a row, in the order they came.
fn of_build(
    connection: &Connection,
    scope: &str,
    build: &str,
    after_seq: i64,
) -> rusqlite::Result<Vec<Event>> {
    let bodies: Vec<String> = connection
        .prepare_cached(
            "SELECT body FROM events WHERE scope = ?1 AND build = ?2 AND seq > ?3 ORDER BY seq",
        )?
        .query_map(params![scope, build, after_seq], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    // A row of another version of the program is left out.
    Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
}

fn totals(connection: &Connection, scope: &str) -> rusqlite::Result<(Tally, i64)> {
    let row: Option<(String, i64)> = connection
        .prepare_cached("SELECT body, zero_seq FROM totals WHERE scope = ?1")?
        .query_row(params![scope], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(row.map_or_else(Default::default, |(body, zero_seq)| {
        (serde_json::from_str(&body).unwrap_or_default(), zero_seq)
    }))
}

fn set_totals(
    connection: &Connection,
    scope: &str,
    total: &Tally,
    zero_seq: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3)")?
        .execute(params![scope, json(total)?, zero_seq])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;
    use crate::tally::tests::event;
    use kiln_storage::api::Outcome;

    #[test]
    fn an_event_counts_once_and_the_newest_build_is_told_apart() {
        let connection = in_memory();
        let one = [event("1", "a", Outcome::HitLocal), event("2", "a", Outcome::Miss)];
        assert_eq!(add(&connection, ("s", &[]), &one, 1).unwrap(), 2);
        assert_eq!(add(&connection, ("s", &[]), &one, 2).unwrap(), 0);
        let mut slow = event("4", "b", Outcome::Bypass);
        slow.cost_ms = 900;
        slow.pinned = vec!["<package>".into()];
        let two = [event("3", "b", Outcome::Miss), slow];
        assert_eq!(add(&connection, ("s", &[]), &two, 3).unwrap(), 2);
        // A late event of the older build does not make it the newest.
        add(&connection, ("s", &[]), &[event("5", "a", Outcome::Miss)], 4).unwrap();

        let stats = stats(&connection, "s").unwrap();
        assert_eq!((stats.total.units, stats.build.units), (5, 2));
        assert_eq!(stats.pinned.len(), 1);
        let names: Vec<_> = stats.missed.iter().map(|unit| unit.unit.crate_name.as_str()).collect();
        assert_eq!(names, ["4", "3"]);
        assert_eq!(super::stats(&connection, "t").unwrap().total.units, 0);
    }

    #[test]
    fn a_build_is_explained_as_a_whole_and_after_a_reset() {
        let connection = in_memory();
        assert_eq!(explain(&connection, "s", None).unwrap(), ExplainResponse::default());
        for (id, build) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "b")] {
            add(&connection, ("s", &[]), &[event(id, build, Outcome::Miss)], 1).unwrap();
        }
        zero(&connection, "s").unwrap();
        let ids = |scope: &str, build: Option<&str>| -> Vec<String> {
            let found = explain(&connection, scope, build.map(str::to_owned)).unwrap();
            found.events.into_iter().map(|event| event.id).collect()
        };
        assert_eq!(ids("s", None), ["2", "4"]);
        assert_eq!(ids("s", Some("a")), ["1", "3"]);
        assert_eq!(ids("s", Some("c")), [""; 0]);
        assert_eq!(ids("t", Some("a")), [""; 0]);
    }

    #[test]
    fn of_a_large_build_the_misses_are_explained() {
        let connection = in_memory();
        let outcome = |i| if i % 2 == 0 { Outcome::HitLocal } else { Outcome::Miss };
        let events: Vec<Event> = (0..MAX_EXPLAINED_EVENTS + 10)
            .map(|i| event(&i.to_string(), "a", outcome(i)))
            .collect();
        add(&connection, ("s", &[]), &events, 1).unwrap();
        let found = explain(&connection, "s", None).unwrap();
        assert_eq!((found.events.len(), found.left_out), (MAX_EXPLAINED_EVENTS, 10));
        let misses = found.events.iter().filter(|event| event.outcome == Outcome::Miss).count();
        assert_eq!(misses, events.len() / 2);
    }

    #[test]
    fn zero_begins_anew_for_one_scope() {
        let connection = in_memory();
        for scope in ["s", "t"] {
            add(&connection, (scope, &[]), &[event("1", "a", Outcome::Miss)], 1).unwrap();
        }
        zero(&connection, "s").unwrap();
        let after = stats(&connection, "s").unwrap();
        assert_eq!((after.total.units, after.build.units), (0, 0));
        assert_eq!(stats(&connection, "t").unwrap().total.units, 1);
        add(&connection, ("s", &[]), &[event("2", "a", Outcome::Miss)], 1).unwrap();
        let after = stats(&connection, "s").unwrap();
        assert_eq!((after.total.units, after.build.units), (1, 1));
    }

    #[test]
    fn history_is_bounded_and_totals_are_not() {
        let connection = in_memory();
        for i in 0..10 {
            let id = i.to_string();
            add(&connection, ("s", &[]), &[event(&id, &id, Outcome::Miss)], 1).unwrap();
        }
        trim(&connection, 3).unwrap();
        let rows = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((rows("events"), rows("builds")), (3, 3));
        assert_eq!(stats(&connection, "s").unwrap().total.units, 10);
    }
}
