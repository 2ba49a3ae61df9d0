//! Asking the remote for what is not here: units of which the index has no record, and results that a
//! wrapper expects after it has refused those that are here.
//!
//! What comes is written into the index as records whose blobs may be elsewhere; the lookup then answers
//! from the index as always. Bounded by a deadline; whatever goes wrong, there is just nothing new.

use std::time::Instant;

use kiln_storage::remote::{Answered, Arrived, Asking, via};
use kiln_storage::{Digest, ResultKey, StoreResult, UnitKey};
use tokio::time::timeout;

use super::breaker::FaultKind;
use super::fetch::{self, Wanted};
use super::flights::Claim;
use super::{Edge, Side, count, kind_of, lock};
use crate::clock;
use crate::error::ApiError;
use crate::index::records::{self, RecordRow, Times};
use crate::index::{outbox, quarantine};
use crate::limits::REMOTE_ANSWER;
use crate::maker::{By, Made};
use crate::principal::Scoped;
use crate::remote::ways::Way;
use crate::service::Service;

/// A question for units, as it came here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    /// The units.
    pub units: Vec<UnitKey>,
    /// Results of them that do not hold where it is asked; none when it is the first question.
    pub known: Vec<ResultKey>,
    /// Results of the first unit that would hold.
    pub results: Vec<ResultKey>,
}

/// Those of some units for which the remote was not asked of late and could be. `deep`: also those where the
/// answer was that there is a place behind it that it did not ask.
pub(crate) fn open_questions(
    edge: &Edge,
    scope: &str,
    units: &[UnitKey],
    deep: bool,
) -> Vec<UnitKey> {
    let now = Instant::now();
    if edge.side(Side::Reads).left_alone(now).is_some() {
        return Vec::new();
    }
    let asked = lock(&edge.asked);
    units.iter().filter(|unit| !asked.contains(scope, unit, deep, now)).copied().collect()
}

/// Asks for units, and for results of the first of them that the asker expects, in all ways at once. What comes is in
/// the index then. A question that takes too long goes on: what it brings is here for the next one.
pub(crate) async fn look(service: &Service, ways: &[Way], question: &Question, deadline: Instant) {
    let Some(edge) = &service.edge else { return };
    let deep = !question.known.is_empty();
    let mut asking = Vec::new();
    for way in ways {
        let units = open_questions(edge, &way.here.id, &question.units, deep);
        if !units.is_empty() {
            asking.push(ask(service.clone(), way.clone(), Question { units, ..question.clone() }));
        }
    }
    if asking.is_empty() || !edge.may(Side::Reads) {
        return;
    }
    let wait = edge.side(Side::Reads).wait();
    let asking = futures_util::future::join_all(asking);
    let within = deadline.saturating_duration_since(Instant::now()).min(wait);
    if timeout(within, tokio::spawn(via::carry(asking))).await.is_err() {
        let why = format!("no answer within {} ms", within.as_millis());
        edge.fault(&service.log, Side::Reads, FaultKind::Slow, &why);
    }
}

async fn ask(service: Service, way: Way, question: Question) {
    let Some(edge) = &service.edge else { return };
    let Question { units, known, results } = question;
    let asking = Asking { known: &known, results: &results };
    let Way { here, there } = way;
    let asked = edge.remote.ask(&there, &units, asking);
    let Some(Answered { arrived, farther }) = answered(&service, edge, asked).await else { return };
    match arrive(&service, edge, &here, arrived).await {
        // Only now: whoever is told that it was asked finds what came.
        Ok(()) => {
            lock(&edge.asked).note(&here.id, &units, farther, Instant::now());
        }
        Err(error) => error.tell(&service.log, format_args!("results from afar")),
    }
}

/// The answer to a question that nobody waits for beyond its bound; a failure is counted and told.
pub(crate) async fn answered<T>(
    service: &Service,
    edge: &Edge,
    question: impl Future<Output = StoreResult<T>>,
) -> Option<T> {
    let answer = timeout(REMOTE_ANSWER, question).await;
    edge.tell_damaged(&service.log);
    match answer {
        Ok(Ok(answer)) => {
            edge.good(Side::Reads);
            Some(answer)
        }
        Ok(Err(error)) => {
            let (kind, why) = kind_of(&error);
            edge.fault(&service.log, Side::Reads, kind, &why);
            None
        }
        Err(_) => {
            let why = format!("no answer within {} s", REMOTE_ANSWER.as_secs());
            edge.fault(&service.log, Side::Reads, FaultKind::Slow, &why);
            None
        }
    }
}

/// Writes what came into the index, and the blobs that came along into the store.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn arrive(
    service: &Service,
    edge: &Edge,
    own: &Scoped,
    arrived: Vec<Arrived>,
) -> Result<(), ApiError> {
    if arrived.is_empty() {
        return Ok(());
    }
    let now_ms = clock::now_ms();
    let (mut rows, mut along) = (Vec::new(), Vec::new());
    for Arrived { name, record, blobs, stored_ms } in arrived {
        let wanted = Wanted { name: name.clone(), scope: own.scope.clone(), blobs: record.blobs() };
        // Before the record can be seen: what came along is fetched by nobody.
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let (claim, _) = Claim::take(service, edge, &digests);
        along.push((wanted, blobs, claim));
        let created_ms = if stored_ms == 0 { now_ms } else { stored_ms.min(now_ms) };
        let times = Times { created_ms, used_ms: now_ms };
        let mut row = RecordRow::new(own.id.clone(), record, 0, times)
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        row.origin.made = Made { by: By::Behind { place: edge.remote.display() }, at_ms: now_ms };
        rows.push(RecordRow { afar: Some(name), ..row });
    }
    let counts = edge.remote.counts_generations();
    let new = service
        .index
        .write(move |index| {
            let mut new = Vec::new();
            // It was on its way when it was taken back, or proved damaged.
            let over = |row: &RecordRow| -> rusqlite::Result<bool> {
                let next = outbox::replaced(index, &row.scope, &row.result_key)?;
                Ok(counts && row.afar.as_ref().is_some_and(|name| name.generation < next))
            };
            // The newest comes first, and is to be the newest here.
            for row in rows.iter().rev() {
                if quarantine::contains(index, &row.scope, &row.result_key)? || over(row)? {
                    continue;
                }
                let there = records::stored(index, &row.scope, &row.result_key)?;
                let whole =
                    |row: &records::Stored| row.blobs.iter().all(|(_, size)| size.is_some());
                if !there.is_some_and(|there| whole(&there) || there.afar == row.afar) {
                    records::insert_found(index, row)?;
                    new.push(row.result_key);
                }
            }
            Ok(new)
        })
        .await?;
    count(&edge.counts.arrived, new.len() as u64);
    for (wanted, blobs, claim) in along {
        if let Some(claim) = claim.filter(|_| new.contains(&wanted.name.result)) {
            tokio::spawn(fetch::keep_blobs(service.clone(), wanted, blobs, claim));
        }
    }
    Ok(())
}
