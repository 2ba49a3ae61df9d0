//! Write-behind: what was made here is sent to the remote, behind the back of whoever made it.
//!
//! The queue is a table of the index, so it survives the server. One task hands its rows to a few senders,
//! the most worth first; what fails is tried again later, and what can never be stored is given up and
//! told. [`drain`] is for a server that is to leave.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_storage::remote::events::KeepsEvents;
use kiln_storage::remote::{RemoteCounters, ResultName, Stored};
use kiln_storage::{ResultKey, StoreError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::breaker::FaultKind;
use super::stall::Stall;
use super::unsent::{self, Noted};
use super::{Edge, Side, ahead, count, events, kind_of, lock, together};
use crate::clock;
use crate::error::ApiError;
use crate::index::outbox::{self as rows, Dropped, Queued};
use crate::index::{IndexError, records};
use crate::limits::{
    DRAIN_STALL, MAX_LOST_KNOWN, OUTBOX_FLUSH, OUTBOX_MAX_RETRY, OUTBOX_QUIET, OUTBOX_RETRY,
    OUTBOX_SEND, OUTBOX_WORKERS, REMOTE_LEFT_ALONE,
};
use crate::revoke::take::unsend;
use crate::service::Service;

/// Longest that the task sleeps when there is nothing to do.
const NOTHING_TO_DO: Duration = Duration::from_secs(3600);

/// How often it is looked whether something comes of sending.
const STALL_STEP: Duration = Duration::from_secs(1);

/// What the task and those who wait for it share.
#[derive(Debug)]
pub(crate) struct Outbox {
    wake: Notify,
    drains: AtomicUsize,
    /// When a server that leaves gives up.
    deadline: Mutex<Option<Instant>>,
    /// Until when requests to drain belong to one that came before and did not end.
    goes_on: Mutex<Option<Instant>>,
    progress: watch::Sender<u64>,
    /// How often something was taken there.
    taken: AtomicU64,
    /// Bytes of what is being sent.
    under_way: AtomicU64,
    /// What came of sending, while somebody waits for its end.
    stall: Mutex<Option<Stall>>,
    /// The last results that were given up.
    lost: Mutex<VecDeque<(String, ResultKey)>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            drains: AtomicUsize::new(0),
            deadline: Mutex::default(),
            goes_on: Mutex::default(),
            progress: watch::Sender::new(0),
            taken: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            stall: Mutex::default(),
            lost: Mutex::default(),
        }
    }
}

impl Outbox {
    /// Something was queued.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Changes when a result was sent, or given up, or is to be tried again.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Whether a result was given up of late.
    pub(super) fn was_lost(&self, scope: &str, result: &ResultKey) -> bool {
        lock(&self.lost).iter().any(|(of, lost)| of == scope && lost == result)
    }

    fn note_lost(&self, queued: &Queued) {
        let mut lost = lock(&self.lost);
        if lost.len() >= MAX_LOST_KNOWN {
            lost.pop_front();
        }
        lost.push_back((queued.scope.clone(), queued.result_key));
    }

    /// Whether this is the first of the requests with which somebody waits for the end of sending. The faults
    /// that the others met count on.
    fn begins(&self, until: Instant) -> bool {
        let before = lock(&self.goes_on).replace(until);
        before.is_none_or(|before| before < Instant::now())
    }

    /// Bytes are on their way until what this returns is dropped.
    fn on_the_way(&self, bytes: u64) -> OnTheWay<'_> {
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        OnTheWay(&self.under_way, bytes)
    }

    fn is_draining(&self) -> bool {
        self.drains.load(Ordering::Relaxed) > 0
    }
}

/// See [`Outbox::on_the_way`].
struct OnTheWay<'a>(&'a AtomicU64, u64);

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Says what was left out because the queue is full.
pub(crate) fn tell_dropped(service: &Service, dropped: Dropped) {
    let Some(edge) = &service.edge else { return };
    if dropped.count > 0 {
        count(&edge.counts.lost, dropped.count);
        *lock(&edge.counts.lost_why) = Some("too many results waited to be sent".into());
        let why = format!("too many wait to be sent, {} are left out", dropped.count);
        edge.tell(&service.log, FaultKind::Refused, &why);
    }
    edge.outbox.wake();
}

/// Sends what is queued, until the task is dropped.
pub(crate) async fn run(service: Service) {
    let Some(edge) = service.edge.as_ref().filter(|edge| edge.sends) else { return };
    if let Err(error) = service.index.write(rows::restart).await {
        ApiError::from(error).tell(&service.log, format_args!("outbox"));
    }
    let mut senders = Senders::default();
    loop {
        let until_noted = senders.noted.keep(&service).await;
        let pause = match senders.step(&service, edge).await {
            Ok(pause) => pause,
            Err(error) => {
                error.tell(&service.log, format_args!("outbox"));
                REMOTE_LEFT_ALONE
            }
        };
        tokio::select! {
            () = edge.outbox.wake.notified() => {}
            () = tokio::time::sleep(until_noted.map_or(pause, |until| until.min(pause))) => {}
            Some(ended) = senders.sending.join_next() => {
                senders.active = Instant::now();
                match ended {
                    Ok(id) => drop(senders.ids.remove(&id)),
                    // One that panicked: its row is free again.
                    Err(_) => senders.ids.clear(),
                }
                edge.outbox.progress.send_modify(|n| *n += 1);
            }
        }
    }
}

/// What is being sent.
#[derive(Debug)]
struct Senders {
    sending: JoinSet<i64>,
    ids: HashSet<i64>,
    active: Instant,
    noted: Noted,
}

impl Default for Senders {
    fn default() -> Self {
        let (sending, ids, noted) = Default::default();
        Self { sending, ids, active: Instant::now(), noted }
    }
}

impl Senders {
    /// Begins what can be begun; how long there is nothing more to do.
    async fn step(&mut self, service: &Service, edge: &Edge) -> Result<Duration, ApiError> {
        let now = Instant::now();
        if let Some(until) = edge.side(Side::Writes).left_alone(now) {
            return Ok(until.duration_since(now));
        }
        let limit = OUTBOX_WORKERS + self.ids.len();
        let next =
            service.index.read(move |index| rows::next(index, clock::now_ms(), limit)).await?;
        for queued in next {
            if self.ids.contains(&queued.id) {
                continue;
            }
            if self.sending.len() >= OUTBOX_WORKERS || !edge.may(Side::Writes) {
                break;
            }
            self.ids.insert(queued.id);
            let id = queued.id;
            let service = service.clone();
            self.sending.spawn(async move {
                send(&service, queued).await;
                id
            });
        }
        if !self.sending.is_empty() {
            return Ok(NOTHING_TO_DO);
        }
        let quiet = self.active.elapsed() >= OUTBOX_QUIET;
        let draining = edge.outbox.is_draining();
        if (quiet || draining) && flush(service, edge).await? {
            self.active = Instant::now();
            edge.outbox.progress.send_modify(|n| *n += 1);
        }
        let (next, collected) = service
            .index
            .read(|index| Ok((rows::next_ms(index)?, !rows::collected(index)?.is_empty())))
            .await?;
        let until_next = next.map(|at| Duration::from_millis(at.saturating_sub(clock::now_ms())));
        // One that may be sent now is only held back by what comes next.
        let until_next =
            until_next.map(|pause| pause.clamp(Duration::from_millis(10), OUTBOX_MAX_RETRY));
        let until_flush = collected.then_some(if draining { OUTBOX_RETRY } else { OUTBOX_QUIET });
        Ok(until_next.into_iter().chain(until_flush).min().unwrap_or(NOTHING_TO_DO))
    }
}

/// Sends one result and notes what became of it.
async fn send(service: &Service, queued: Queued) {
    let Some(edge) = &service.edge else { return };
    let written = match attempt(service, edge, &queued).await {
        Ok(stored) => {
            edge.good(Side::Writes);
            count(&edge.outbox.taken, 1);
            if stored != Stored::Collected {
                count(&edge.counts.sent, 1);
            }
            let (id, of) = (queued.id, queued.clone());
            let note = move |index: &_| {
                let meanwhile = rows::meanwhile(index, &of)?;
                match stored {
                    Stored::Collected => rows::collect(index, id)?,
                    Stored::Durable | Stored::AlreadyThere => rows::remove(index, id)?,
                }
                Ok(meanwhile)
            };
            let noted = service.index.write(note).await;
            if let (Ok(meanwhile), Some(name)) = (&noted, name_of(service, edge, &queued)) {
                unsend(service, edge, name, *meanwhile).await;
            }
            noted.map(drop)
        }
        Err(NotSent::Never(why)) => {
            lose(service, edge, &queued, &why);
            let id = queued.id;
            service.index.write(move |index| rows::remove(index, id)).await
        }
        Err(NotSent::Later(kind, why)) => {
            edge.fault(&service.log, Side::Writes, kind, &why);
            let at_ms = clock::now_ms().saturating_add(millis(pause(queued.attempts)));
            service.index.write(move |index| rows::retry(index, queued.id, at_ms)).await
        }
    };
    if let Err(error) = written {
        ApiError::from(error).tell(&service.log, format_args!("outbox"));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a result waits that failed so often before.
fn pause(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts).unwrap_or(u32::MAX);
    OUTBOX_RETRY.saturating_mul(factor).min(OUTBOX_MAX_RETRY)
}

enum NotSent {
    Later(FaultKind, String),
    Never(String),
}

/// What a result is called there; none: it must not be there.
fn name_of(service: &Service, edge: &Edge, queued: &Queued) -> Option<ResultName> {
    let Queued { unit_key: unit, result_key: result, generation, .. } = *queued;
    let scope = edge.written(&service.policy, &queued.scope, queued.named.as_ref())?;
    Some(ResultName { scope, unit, result, generation })
}

async fn attempt(service: &Service, edge: &Edge, queued: &Queued) -> Result<Stored, NotSent> {
    let Queued { scope, unit_key, result_key, stored, .. } = queued;
    let gone = || NotSent::Never("it is gone or damaged here".into());
    let object = records::object_name(scope, unit_key, result_key, *stored).ok_or_else(gone)?;
    let record = match service.store.record(&object).await {
        Ok(found) => found.ok_or_else(gone)?.0,
        Err(StoreError::Damaged { .. }) => return Err(gone()),
        Err(error) => return Err(NotSent::Later(FaultKind::Unreachable, error.to_string())),
    };
    let elsewhere = || NotSent::Never("nothing of its scope is kept there".into());
    let name = name_of(service, edge, queued).ok_or_else(elsewhere)?;
    let bytes = record.blobs().iter().map(|(_, size)| size).sum();
    let _on_the_way = edge.outbox.on_the_way(bytes);
    let storing = edge.remote.store(&name, &record, service.store.backend());
    match timeout(OUTBOX_SEND, storing).await {
        Ok(Ok(stored)) => Ok(stored),
        Ok(Err(StoreError::Damaged { .. })) => Err(gone()),
        Ok(Err(error @ (StoreError::TooLarge { .. } | StoreError::Refused(_)))) => {
            Err(NotSent::Never(format!("it is refused: {}", kind_of(&error).1)))
        }
        Ok(Err(error)) => {
            let (kind, why) = kind_of(&error);
            Err(NotSent::Later(kind, why))
        }
        Err(_) => Err(NotSent::Later(FaultKind::Slow, "a result was not sent in minutes".into())),
    }
}

fn lose(service: &Service, edge: &Edge, queued: &Queued, why: &str) {
    count(&edge.counts.lost, 1);
    edge.outbox.note_lost(queued);
    *lock(&edge.counts.lost_why) = Some(why.to_owned());
    let line = format!("result {}: {why}", queued.result_key);
    edge.tell(&service.log, FaultKind::Refused, &line);
}

/// Makes durable what the remote has collected; whether that was tried.
async fn flush(service: &Service, edge: &Edge) -> Result<bool, IndexError> {
    let collected = service.index.read(rows::collected).await?;
    if collected.is_empty() || !edge.may(Side::Writes) {
        return Ok(false);
    }
    let bytes = service.index.read(rows::waiting).await?.bytes;
    let _on_the_way = edge.outbox.on_the_way(bytes);
    let left = lock(&edge.outbox.deadline).map(|at| at.saturating_duration_since(Instant::now()));
    match edge.remote.flush(left.unwrap_or(OUTBOX_FLUSH).min(OUTBOX_FLUSH)).await {
        Ok(flushed) => {
            edge.good(Side::Writes);
            count(&edge.outbox.taken, 1);
            let lost = flushed.lost.len() as u64;
            count(&edge.counts.sent, (collected.len() as u64).saturating_sub(lost));
            count(&edge.counts.lost, lost);
            if let Some((name, why)) = flushed.lost.first() {
                *lock(&edge.counts.lost_why) = Some(why.clone());
                service.log.warn(format_args!(
                    "remote {}: {lost} results are not stored, {} the first: {why}",
                    edge.remote.display(),
                    name.result
                ));
            }
            let remove =
                move |index: &_| collected.into_iter().try_for_each(|id| rows::remove(index, id));
            service.index.write(remove).await?;
            Ok(true)
        }
        Err(error) => {
            let (kind, why) = kind_of(&error);
            edge.fault(&service.log, Side::Writes, kind, &why);
            Ok(true)
        }
    }
}

/// Waits, within a time, until nothing is left to be sent and what was collected is durable; whether that
/// is so. Ends early where the remote takes nothing now, or says nothing at all for a while. `in_all` is the time
/// that sending has, also after this.
pub(crate) async fn drain(service: &Service, within: Duration, in_all: Duration) -> bool {
    let Some(edge) = &service.edge else { return true };
    let guard = Draining::begin(edge);
    let until = Instant::now() + in_all.max(within);
    *lock(&edge.outbox.deadline) = Some(until);
    let begins = edge.outbox.begins(until);
    if begins {
        *lock(&edge.outbox.stall) = Some(Stall::new(seen(edge), Instant::now()));
    }
    let hurried = async {
        if begins && edge.remote.keeps_events() != KeepsEvents::AsEntries {
            // Small, and before what may take all the time there is; entries are for results first.
            events::send_all(service, edge).await;
        }
        ahead::write_notes(service, edge).await;
        if !edge.sends {
            return false;
        }
        if begins {
            edge.side(Side::Writes).try_now();
            if let Err(error) = service.index.write(rows::hurry).await {
                ApiError::from(error).tell(&service.log, format_args!("outbox"));
            }
        }
        edge.outbox.wake();
        let mut progress = edge.outbox.progress.subscribe();
        loop {
            progress.borrow_and_update();
            match service.index.read(rows::waiting).await {
                Ok(waiting) if waiting.count == 0 => {
                    together::write(service, edge, until).await;
                    events::send_all(service, edge).await;
                    return true;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
            if edge.side(Side::Writes).left_alone(Instant::now()).is_some() {
                return false;
            }
            // The sender lives as long as the edge.
            let _ = progress.changed().await;
        }
    };
    let ended = timeout(within, async {
        tokio::select! {
            drained = hurried => drained,
            () = stalled(service, edge) => false,
        }
    });
    let ended = ended.await;
    if ended.is_ok() {
        *lock(&edge.outbox.goes_on) = None;
    }
    let drained = ended.unwrap_or(false);
    unsent::note(service, None).await;
    drop(guard);
    drained
}

/// A number that grows with whatever comes of sending, and while the place wants it to wait.
fn seen(edge: &Edge) -> u64 {
    let RemoteCounters { bytes_in, asked_to_wait_ms, .. } = edge.remote.counters();
    let taken = edge.outbox.taken.load(Ordering::Relaxed);
    taken.saturating_add(bytes_in).saturating_add(asked_to_wait_ms)
}

/// Ends when nothing came of sending for a while: the place is left alone then.
async fn stalled(service: &Service, edge: &Edge) {
    loop {
        let (now, under_way) = (Instant::now(), edge.outbox.under_way.load(Ordering::Relaxed));
        let until = lock(&edge.outbox.stall).as_mut().map(|stall| {
            stall.note(seen(edge), now);
            stall.until(under_way)
        });
        let left = until.map_or(STALL_STEP, |until| until.saturating_duration_since(now));
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(STALL_STEP)).await;
    }
    let why = format!("it said nothing for {} s and more", DRAIN_STALL.as_secs());
    edge.leave_alone(&service.log, Side::Writes, FaultKind::Slow, &why);
}

struct Draining<'a>(&'a Edge);

impl<'a> Draining<'a> {
    fn begin(edge: &'a Edge) -> Self {
        edge.outbox.drains.fetch_add(1, Ordering::Relaxed);
        Self(edge)
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if self.0.outbox.drains.fetch_sub(1, Ordering::Relaxed) == 1 {
            *lock(&self.0.outbox.deadline) = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert_eq!(pause(0), OUTBOX_RETRY);
        assert_eq!(pause(3), OUTBOX_RETRY * 8);
        assert_eq!(pause(31), OUTBOX_MAX_RETRY);
        assert_eq!(pause(400), OUTBOX_MAX_RETRY);
    }
}
