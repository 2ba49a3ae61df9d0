//! Events on their way between this server and what is behind it, so that one report covers jobs whatever they
//! share: what is new here is sent on behind everybody's back, and before a report is made, what others left is
//! brought.
//!
//! What waits is in the history, so a server that is killed sends it when it runs again, and one that leaves sends
//! it first ([`super::outbox::drain`]). Another server makes reports itself: it is asked for them. Whatever fails, the
//! report is made of what is here.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use kiln_storage::StoreError;
use kiln_storage::api::{Event, NearestUnit, Outcome};
use kiln_storage::remote::events::{EventBatch, KeepsEvents, Page};
use kiln_storage::remote::via;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::breaker::FaultKind;
use super::{Edge, Side, earlier, kind_of};
use crate::clock;
use crate::error::ApiError;
use crate::history::outgoing::{self, Waiting};
use crate::history::{read, unshared};
use crate::index::units::{self, UnitRow};
use crate::limits::{
    EVENTS_BROUGHT, EVENTS_BROUGHT_AGAIN, EVENTS_SENT_AT_ONCE, EVENTS_SENT_BYTES,
    EVENTS_SENT_WITHIN, EVENTS_TO_BUCKET_DELAY, EVENTS_TO_SERVER_DELAY, MAX_BROUGHT_RUNS,
    OUTBOX_SEND, REMOTE_LEFT_ALONE,
};
use crate::routes::events::is_large;
use crate::service::Service;

/// What the task that sends and those who wait for it share.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    wake: Notify,
    /// Held while events are sent.
    turn: Mutex<()>,
    /// Something was queued since all was sent.
    waits: AtomicBool,
    /// When events of a run of a scope were looked for last.
    brought: std::sync::Mutex<HashMap<(String, String), Instant>>,
    /// Runs that were named as such there.
    named: std::sync::Mutex<BTreeSet<String>>,
}

impl Outgoing {
    /// Something was queued.
    pub(crate) fn wake(&self) {
        self.waits.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether the events of a run are to be looked for, after a pause since the last time; if so that is noted.
    pub(super) fn is_due(&self, scope: &str, run: &str, pause: Duration) -> bool {
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (scope.to_owned(), run.to_owned());
        if brought.get(&key).is_some_and(|last| last.elapsed() < pause) {
            return false;
        }
        if brought.len() >= MAX_BROUGHT_RUNS {
            brought.clear();
        }
        brought.insert(key, Instant::now());
        true
    }

    /// Whether a run was not named there so far; it is from now on.
    pub(super) fn is_first(&self, run: &str) -> bool {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= MAX_BROUGHT_RUNS {
            named.clear();
        }
        named.insert(run.to_owned())
    }
}

impl Edge {
    /// Whether events are sent on. What only counts is told to another server even where results are not sent.
    pub(crate) fn takes_events(&self) -> bool {
        match self.remote.keeps_events() {
            KeepsEvents::No => false,
            KeepsEvents::AsObjects | KeepsEvents::AsEntries => self.sends,
            KeepsEvents::AsServer => true,
        }
    }

    /// Why a place that keeps events takes none of this server's, where that is known.
    pub(crate) fn refuses_events(&self) -> Option<String> {
        let keeps =
            matches!(self.remote.keeps_events(), KeepsEvents::AsObjects | KeepsEvents::AsEntries);
        match (keeps, self.sends) {
            (false, _) => None,
            (true, false) => Some("nothing is sent with KILN_MODE=read".to_owned()),
            (true, true) => self.remote.refuses_events().or_else(|| self.takes_no_writes()),
        }
    }

    /// What it said when it refused what was sent last.
    fn takes_no_writes(&self) -> Option<String> {
        let writes = self.side(Side::Writes);
        (writes.last() == Some(Err(FaultKind::ReadOnly))).then(|| writes.words()).flatten()
    }
}

/// Sends events when some have waited for others, until the task is dropped.
pub(crate) async fn run(service: Service) {
    let Some(edge) = service.edge.as_ref().filter(|edge| edge.takes_events()) else { return };
    // What an earlier server left.
    edge.events.wake();
    let pause = match edge.remote.keeps_events() {
        KeepsEvents::AsServer => EVENTS_TO_SERVER_DELAY,
        KeepsEvents::AsObjects | KeepsEvents::No => EVENTS_TO_BUCKET_DELAY,
        // When the server ends.
        KeepsEvents::AsEntries => return,
    };
    loop {
        edge.events.wake.notified().await;
        tokio::time::sleep(pause).await;
        if !send_all(&service, edge).await {
            tokio::time::sleep(REMOTE_LEFT_ALONE).await;
            edge.events.wake();
        }
    }
}

/// Sends what waits, as far as the place takes it; whether that is all.
pub(crate) async fn send_all(service: &Service, edge: &Edge) -> bool {
    if !edge.takes_events() {
        return true;
    }
    let _turn = edge.events.turn.lock().await;
    if let Err(error) = service.reports.flush(service).await {
        service.log.warn(format_args!("events: {error}"));
    }
    if !edge.events.waits.swap(false, Ordering::Relaxed) {
        return true;
    }
    loop {
        let sent = match service.history.read(outgoing::next).await {
            Ok(None) => return true,
            Ok(Some(waiting)) => send(service, edge, waiting).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = sent {
            edge.events.waits.store(true, Ordering::Relaxed);
            service.log.debug(format_args!("events are not sent: {why}"));
            return false;
        }
    }
}

/// Sends some events of a job, and takes them out.
async fn send(service: &Service, edge: &Edge, waiting: Waiting) -> Result<(), String> {
    if !edge.may(Side::Writes) {
        return Err("the place is left alone".into());
    }
    let Waiting { run, job, events, rows } = waiting;
    let units = match edge.remote.keeps_events() {
        KeepsEvents::AsObjects | KeepsEvents::AsEntries => described(service, &events).await,
        // It has the records themselves.
        KeepsEvents::AsServer | KeepsEvents::No => Vec::new(),
    };
    let batch = EventBatch { run, job, events, units };
    let scope = edge.own_scope();
    let putting = edge.remote.put_events(&scope, &batch);
    match timeout(OUTBOX_SEND, putting).await {
        Ok(Ok(())) => {
            edge.good(Side::Writes);
            earlier::note(service, edge, &batch).await;
        }
        // It never takes them.
        Ok(Err(StoreError::TooLarge { .. } | StoreError::Refused(_))) => {
            let why = format!("{} events are refused", batch.events.len());
            edge.tell(&service.log, FaultKind::Refused, &why);
        }
        // Who may not write results is told so when there are some.
        Ok(Err(StoreError::ReadOnly(why))) => {
            let (job, said) = ((batch.run, batch.job), why.clone());
            let scopes = service.policy.going_on();
            let note = move |rows: &_| unshared::note(rows, &scopes, (&job.0, &job.1), &said);
            let noted = service.history.write(note).await;
            return Err(noted.map_or_else(|error| error.to_string(), |()| why));
        }
        Ok(Err(error)) => {
            let (kind, why) = kind_of(&error);
            edge.fault(&service.log, Side::Writes, kind, &why);
            return Err(why);
        }
        Err(_) => return Err("no answer in minutes".into()),
    }
    let scopes = service.policy.going_on();
    let remove = move |index: &_| {
        unshared::forget(index, &scopes, (&batch.run, &batch.job))?;
        outgoing::remove(index, &rows)
    };
    service.history.write(remove).await.map_err(|error| error.to_string())
}

/// What the keys of units were made of that were compiled.
async fn described(service: &Service, events: &[Event]) -> Vec<NearestUnit> {
    let compiled = events.iter().filter(|event| event.outcome == Outcome::Miss);
    let wanted: Vec<_> =
        compiled.filter_map(|event| Some((event.unit_key?, event.unit.clone()))).collect();
    let read = service.index.read(move |index| {
        let (mut units, mut bytes) = (Vec::new(), 0);
        for (unit_key, unit) in wanted {
            let Some(parts) = units::known_parts(index, &unit_key)? else { continue };
            bytes +=
                parts.iter().map(|part| part.name.len() + part.group.len() + 40).sum::<usize>();
            if bytes > EVENTS_SENT_BYTES {
                break;
            }
            units.push(NearestUnit { unit_key, unit, parts });
        }
        Ok(units)
    });
    // They only explain.
    read.await.unwrap_or_default()
}

/// What is behind a server, where it keeps events and makes no reports.
fn keeper(service: &Service) -> Option<&Edge> {
    let keeps = |edge: &&Edge| {
        matches!(edge.remote.keeps_events(), KeepsEvents::AsObjects | KeepsEvents::AsEntries)
    };
    service.edge.as_ref().filter(keeps)
}

/// Sends what waits for a bucket, from time to time: whether it takes events shows only then, and a report says so.
async fn try_sending(service: &Service, edge: &Edge) {
    let is_due = || edge.events.is_due("", "", EVENTS_TO_BUCKET_DELAY);
    if edge.remote.keeps_events() == KeepsEvents::AsObjects
        && is_due()
        && timeout(EVENTS_SENT_WITHIN, send_all(service, edge)).await.is_err()
    {
        service.log.debug(format_args!("events: they are not taken in time"));
    }
}

/// Brings what others left of a run in a bucket or a cache.
pub(crate) async fn bring(service: &Service, scope: &str, run: &str) {
    let Some(edge) = keeper(service) else { return };
    try_sending(service, edge).await;
    edge.events.is_due(scope, run, Duration::ZERO);
    bring_from(service, edge, (scope, run)).await;
}

/// The same for a run that is watched: from time to time, and while nobody waits.
pub(crate) fn bring_again(service: &Service, scope: &str, run: &str) {
    let is_due = |edge: &Edge| edge.events.is_due(scope, run, EVENTS_BROUGHT_AGAIN);
    if keeper(service).is_some_and(is_due) {
        let (service, scope, run) = (service.clone(), scope.to_owned(), run.to_owned());
        tokio::spawn(async move {
            if let Some(edge) = keeper(&service) {
                bring_from(&service, edge, (&scope, &run)).await;
            }
        });
    }
}

pub(super) async fn bring_from(service: &Service, edge: &Edge, (scope, run): (&str, &str)) {
    if !edge.may(Side::Reads) {
        return;
    }
    match timeout(EVENTS_BROUGHT, bring_all(service, edge, (scope, run))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => service.log.warn(format_args!("events of a run: {error}")),
        Err(_) => service.log.warn(format_args!("events of a run: they do not come in time")),
    }
}

async fn bring_all(
    service: &Service,
    edge: &Edge,
    (scope, run): (&str, &str),
) -> Result<(), ApiError> {
    let (of, name) = (scope.to_owned(), run.to_owned());
    let known = service.history.read(move |rows| read::arrived(rows, &of, &name)).await?;
    let there = match edge.remote.events(&edge.scopes, run, &known).await {
        Ok(there) => there,
        Err(error) => {
            let (kind, why) = kind_of(&error);
            edge.fault(&service.log, Side::Reads, kind, &why);
            return Ok(());
        }
    };
    for (name, batch) in there.batches {
        let EventBatch { mut events, units, .. } = batch;
        events.truncate(EVENTS_SENT_AT_ONCE);
        events.retain(|event| event.run == run && !is_large(event));
        let (of, run) = (scope.to_owned(), run.to_owned());
        service
            .history
            .add((scope.to_owned(), true), Arc::new(events), move |rows, _| {
                read::note_arrived(rows, (&of, &run), &name)
            })
            .await?;
        let of = scope.to_owned();
        service.index.write(move |index| describe(index, &of, &units)).await?;
    }
    Ok(())
}

/// Notes what keys were made of, where nothing is known of them.
fn describe(
    index: &rusqlite::Connection,
    scope: &str,
    units: &[NearestUnit],
) -> rusqlite::Result<()> {
    let mut seen = BTreeSet::new();
    for unit in units.iter().take(EVENTS_SENT_AT_ONCE) {
        let key = unit.unit_key.to_string();
        if seen.insert(key.clone()) && units::parts_of(index, scope, &key)?.is_none() {
            let row = UnitRow { name: unit.unit.clone(), parts: unit.parts.clone() };
            units::insert(index, scope, &unit.unit_key, &row, clock::now_ms())?;
        }
    }
    Ok(())
}

/// What another server answers for a path below `/v1/runs`, when one is behind this one and knows.
pub(crate) async fn told(service: &Service, headers: &HeaderMap, path: &str) -> Option<Page> {
    let edge = service.edge.as_ref()?;
    if edge.remote.keeps_events() != KeepsEvents::AsServer || !edge.may(Side::Reads) {
        return None;
    }
    let through = edge.via(&service.log, headers)?;
    let asked = async {
        send_all(service, edge).await;
        edge.remote.told_of_runs(path).await
    };
    match timeout(EVENTS_BROUGHT, via::within(through, asked)).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => {
            let (kind, why) = kind_of(&error);
            edge.fault(&service.log, Side::Reads, kind, &why);
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_watched_run_are_looked_for_from_time_to_time() {
        let outgoing = Outgoing::default();
        let (again, at_once) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(outgoing.is_due("s", "r", again) && !outgoing.is_due("s", "r", again));
        assert!(outgoing.is_due("t", "r", again) && outgoing.is_due("s", "q", again));
        assert!(outgoing.is_due("s", "r", at_once) && !outgoing.is_due("s", "r", again));
        for n in 0..3 * MAX_BROUGHT_RUNS {
            outgoing.is_due("s", &n.to_string(), again);
        }
        assert!(outgoing.brought.lock().unwrap().len() <= MAX_BROUGHT_RUNS);
    }
}
