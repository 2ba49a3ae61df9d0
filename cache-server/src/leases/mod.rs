//! [`Leases`]: who compiles a unit while others wait for it; [`state`] decides, here is who waits and when.
//!
//! Questions wait in the futures that answer them. One that is dropped (the client hung up) says so by a guard: who
//! waited waits no longer, who held has lost its lease. [`Leases::run`] ends what is over. Nothing is kept: a server
//! that starts knows of no lease, and whoever compiles goes on.

mod id;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_storage::api::{Lease, LeaseRequest, LeaseResponse, ReleaseRequest, bounded_name};
use kiln_storage::limits::{LEASE_HOLD, MAX_JOB_BYTES, MAX_LEASE_WAIT, MAX_RUN_BYTES};
use kiln_storage::record::UnitName;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{MAX_ASKER_BYTES, MAX_KEPT_TEXT_BYTES};
use id::Ids;
pub(crate) use id::LeaseId;
pub(crate) use state::Totals;
use state::{Asked, Asker, Place, Question, State, Ticket};

/// Longest that nothing is looked at while nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// The leases of a server.
#[derive(Debug)]
pub(crate) struct Leases {
    begun: Instant,
    table: Mutex<Table>,
    /// Something is due earlier than [`Leases::run`] knows.
    sooner: Notify,
    closed: watch::Sender<bool>,
}

/// The state, and where the answers go.
#[derive(Debug)]
struct Table {
    state: State,
    open: HashMap<Ticket, oneshot::Sender<LeaseResponse>>,
    /// When [`Leases::run`] looks next.
    looks: Option<Duration>,
}

/// What there is at this moment, and was so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub held: usize,
    pub waiting: usize,
    pub totals: Totals,
}

impl Default for Leases {
    fn default() -> Self {
        Self::of(Ids::secret(&std::process::id().to_le_bytes()))
    }
}

impl Leases {
    fn of(ids: Ids) -> Self {
        let table = Table { state: State::new(ids), open: HashMap::new(), looks: None };
        Self {
            begun: Instant::now(),
            table: Mutex::new(table),
            sooner: Notify::new(),
            closed: watch::Sender::new(false),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state now, and tells whoever is to be told.
    fn with<T>(&self, what: impl FnOnce(&mut Table, Duration) -> T) -> T {
        let now = self.begun.elapsed();
        let mut table = self.table();
        let done = what(&mut table, now);
        for (ticket, answer) in table.state.take_told() {
            if let Some(sender) = table.open.remove(&ticket) {
                // Who has gone meanwhile says so by its guard.
                let _ = sender.send(answer);
            }
        }
        let due = table.state.next_due();
        if due.is_some_and(|due| table.looks.is_none_or(|looks| due < looks)) {
            table.looks = due;
            self.sooner.notify_one();
        }
        done
    }

    /// Ends what is over, until the task is dropped.
    pub(crate) async fn run(&self) {
        loop {
            let pause = self.with(|table, now| {
                table.state.tick(now);
                table.looks = table.state.next_due();
                table.looks.map_or(NOTHING_DUE, |due| due.saturating_sub(now))
            });
            let _ = timeout(pause, self.sooner.notified()).await;
        }
    }

    /// The answer to a question in a scope, in the time that it gives.
    pub(crate) async fn ask(&self, scope: &str, request: LeaseRequest) -> LeaseResponse {
        let wait = wait_of(&request);
        let question = question(scope, request);
        let place = question.place.clone();
        self.answer((place, wait), |state, now| state.ask(question, now)).await
    }

    /// The answer to somebody who stores nothing in some scopes, and may wait for who compiles in one of them.
    pub(crate) async fn watch(&self, scopes: &[String], request: LeaseRequest) -> LeaseResponse {
        let wait = wait_of(&request);
        let mut places =
            scopes.iter().map(|scope| Place { scope: scope.as_str().into(), key: request.key });
        let tells = |table: &mut Table, now| {
            places.find(|place| table.state.is_known(place, &request.known, now))
        };
        let Some(place) = self.with(tells) else { return LeaseResponse::Free };
        let asked = (request.known, !wait.is_zero());
        self.answer((place.clone(), wait), |state, now| state.watch(&place, asked, now)).await
    }

    async fn answer(
        &self,
        (place, wait): (Place, Duration),
        ask: impl FnOnce(&mut State, Duration) -> Asked,
    ) -> LeaseResponse {
        let asked = self.with(|table, now| {
            if *self.closed.borrow() {
                return Err(LeaseResponse::Free);
            }
            match ask(&mut table.state, now) {
                Asked::Now(answer) => Err(answer),
                Asked::Later(ticket) => {
                    let (sender, answer) = oneshot::channel();
                    table.open.insert(ticket, sender);
                    Ok((ticket, answer))
                }
            }
        });
        let (ticket, mut answer) = match asked {
            Ok(waits) => waits,
            Err(answer) => return answer,
        };
        let mut guard = Asking { leases: self, waits: Some((place, ticket)) };
        let told = match timeout(wait, &mut answer).await {
            Ok(told) => told.ok(),
            Err(_) => guard.waited().or_else(|| answer.try_recv().ok()),
        };
        guard.waits = None;
        told.unwrap_or(LeaseResponse::Free)
    }

    /// Keeps a lease for a while; whether it was, and is still, there.
    pub(crate) async fn hold(&self, scope: &str, id: LeaseId, cpu_ms: u64) -> bool {
        let begins = |table: &mut Table, now| table.state.hold_begins((scope, id), cpu_ms, now);
        if !self.with(begins) {
            return false;
        }
        let mut guard = Holding { leases: self, lease: Some((scope, id)) };
        let mut closed = self.closed.subscribe();
        tokio::select! {
            () = sleep(LEASE_HOLD) => {}
            // The sender lives as long as the leases.
            _ = closed.wait_for(|closed| *closed) => {}
        }
        guard.lease = None;
        self.with(|table, now| table.state.hold_ends((scope, id), now))
    }

    /// Ends a lease; whether it was there.
    pub(crate) fn release(&self, scope: &str, id: LeaseId, outcome: ReleaseRequest) -> bool {
        self.with(|table, now| table.state.release((scope, id), outcome, now))
    }

    /// Who compiles what in a scope, oldest first.
    pub(crate) fn list(&self, scope: &str, run: Option<&str>) -> Vec<Lease> {
        self.with(|table, now| {
            table.state.tick(now);
            table.state.list(scope, run, now)
        })
    }

    /// Whether nobody has a lease or waits for one.
    pub(crate) fn is_idle(&self) -> bool {
        let Figures { held, waiting, .. } = self.figures();
        held == 0 && waiting == 0
    }

    /// How many there are.
    pub(crate) fn figures(&self) -> Figures {
        self.with(|table, now| {
            table.state.tick(now);
            let state = &table.state;
            Figures { held: state.held(), waiting: state.waiting(), totals: state.totals() }
        })
    }

    /// The server leaves: every open question is answered at once, and every later one.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        self.with(|table, now| table.state.close(now));
    }
}

/// How long an answer may take.
fn wait_of(request: &LeaseRequest) -> Duration {
    Duration::from_millis(request.wait_ms).min(MAX_LEASE_WAIT)
}

fn question(scope: &str, request: LeaseRequest) -> Question {
    let LeaseRequest { key, asker, unit, run, job, wait_ms, known, over_ms } = request;
    let name = |text: &str| bounded_name(text, MAX_KEPT_TEXT_BYTES);
    Question {
        place: Place { scope: Arc::from(scope), key },
        asker: Asker {
            name: bounded_name(&asker, MAX_ASKER_BYTES),
            run: bounded_name(&run, MAX_RUN_BYTES),
            job: bounded_name(&job, MAX_JOB_BYTES),
        },
        unit: UnitName {
            crate_name: name(&unit.crate_name),
            version: name(&unit.version),
            kind: name(&unit.kind),
            target: name(&unit.target),
        },
        known,
        waits: wait_ms > 0,
        over: over_ms.map(Duration::from_millis),
    }
}

/// Says that a question was dropped before its answer was taken.
struct Asking<'a> {
    leases: &'a Leases,
    waits: Option<(Place, Ticket)>,
}

impl Asking<'_> {
    /// The answer when there was none in time; none: there is one now.
    fn waited(&self) -> Option<LeaseResponse> {
        let (place, ticket) = self.waits.as_ref()?;
        self.leases.with(|table, now| {
            let answer = table.state.waited(place, *ticket, now)?;
            table.open.remove(ticket);
            Some(answer)
        })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some((place, ticket)) = self.waits.take() {
            self.leases.with(|table, now| {
                table.open.remove(&ticket);
                table.state.gave_up(&place, ticket, now);
            });
        }
    }
}

/// Says that a question of a holder was dropped before it was answered.
struct Holding<'a> {
    leases: &'a Leases,
    lease: Option<(&'a str, LeaseId)>,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.leases.with(|table, now| table.state.hold_breaks(lease, now));
        }
    }
}

#[cfg(test)]
mod tests;
