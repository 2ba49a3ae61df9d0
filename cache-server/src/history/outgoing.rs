//! Rows of events that wait to be sent to what is behind the server: queued in the transaction that makes them
//! known here, so that each is sent once it is known, and a server that is killed sends them when it runs again.

use kiln_storage::api::Event;
use rusqlite::{Connection, OptionalExtension, params};

use crate::index::{int, json};
use crate::limits::{EVENTS_SENT_AT_ONCE, EVENTS_SENT_BYTES, MAX_OUTGOING_EVENTS};

/// Some events of one job that wait.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Waiting {
    /// The run.
    pub(crate) run: String,
    /// The job.
    pub(crate) job: String,
    /// The events.
    pub(crate) events: Vec<Event>,
    /// Their rows.
    pub(crate) rows: Vec<i64>,
}

/// Queues events; the oldest beyond the bound go.
pub(crate) fn queue(connection: &Connection, events: &[&Event]) -> rusqlite::Result<()> {
    for event in events {
        connection
            .prepare_cached("INSERT INTO outgoing (run, job, body) VALUES (?1, ?2, ?3)")?
            .execute(params![event.run, event.job, json(event)?])?;
    }
    connection
        .prepare_cached("DELETE FROM outgoing WHERE id <= (SELECT max(id) FROM outgoing) - ?1")?
        .execute([int(MAX_OUTGOING_EVENTS)])?;
    Ok(())
}

/// The oldest that wait, with others of their job.
pub(crate) fn next(connection: &Connection) -> rusqlite::Result<Option<Waiting>> {
    let oldest: Option<(String, String)> = connection
        .prepare_cached("SELECT run, job FROM outgoing ORDER BY id LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((run, job)) = oldest else { return Ok(None) };
    let mut waiting = Waiting { run, job, ..Waiting::default() };
    let mut statement = connection.prepare_cached(
        "SELECT id, body FROM outgoing WHERE run = ?1 AND job = ?2 ORDER BY id LIMIT ?3",
    )?;
    let most = int(EVENTS_SENT_AT_ONCE as u64);
    let mut rows = statement.query(params![waiting.run, waiting.job, most])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        bytes += body.len();
        if bytes > EVENTS_SENT_BYTES && !waiting.rows.is_empty() {
            break;
        }
        waiting.rows.push(row.get(0)?);
        waiting.events.extend(serde_json::from_str::<Event>(&body));
    }
    Ok(Some(waiting))
}

/// Whether events of a job wait.
pub(crate) fn waits(connection: &Connection, (run, job): (&str, &str)) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM outgoing WHERE run = ?1 AND job = ?2)")?
        .query_row([run, job], |row| row.get(0))
}

/// Takes out what was sent.
pub(crate) fn remove(connection: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    for row in rows {
        connection.prepare_cached("DELETE FROM outgoing WHERE id = ?1")?.execute([row])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::open::in_memory;
    use crate::tally::tests::event;
    use kiln_storage::api::Outcome;

    #[test]
    fn what_waits_is_handed_out_job_by_job_and_bounded() {
        let connection = in_memory().unwrap();
        let of = |n: usize, job: &str, detail: usize| {
            let mut event = event(&n.to_string(), "b", Outcome::Miss);
            event.job = job.into();
            event.detail = Some("x".repeat(detail));
            event
        };
        let events = [of(1, "a", 1), of(2, "b", 1), of(3, "a", 1), of(4, "a", EVENTS_SENT_BYTES)];
        queue(&connection, &events.iter().collect::<Vec<_>>()).unwrap();
        assert!(waits(&connection, (&events[0].run, "a")).unwrap());
        assert!(!waits(&connection, (&events[0].run, "c")).unwrap());
        let mut told = Vec::new();
        while let Some(waiting) = next(&connection).unwrap() {
            let ids: Vec<String> = waiting.events.iter().map(|event| event.id.clone()).collect();
            told.push((waiting.job, ids.join(" ")));
            remove(&connection, &waiting.rows).unwrap();
        }
        let want =
            [("a", "1 3"), ("a", "4"), ("b", "2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        told.sort();
        assert_eq!(told, want);
    }
}
