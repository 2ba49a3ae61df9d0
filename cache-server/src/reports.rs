//! Events on their way into the index, for figures and explanations of late, and into the history, for reports:
//! taken at once, written together a moment later.
//!
//! A build reports every unit while it runs; a transaction each would compete with the compilers
//! for the disk. Whoever reads events flushes first, and a server that leaves flushes last; one
//! that is killed loses the events of a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_storage::api::Event;
use tokio::sync::Notify;

use crate::clock;
use crate::error::ApiError;
use crate::history::{outgoing, unshared};
use crate::index::{IndexError, events};
use crate::limits::{EVENT_FLUSH_DELAY, MAX_STORED_EVENTS, MAX_WAITING_EVENTS};
use crate::remote::Edge;
use crate::service::Service;

/// The scope that events are of, and others whose results they may have used.
type Of = (String, Vec<String>);

/// Events that are not written yet, by scope.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// Held while events are written: a flush that finds nothing waiting returns only when
    /// nothing is on its way either.
    flushing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: BTreeMap<Of, Vec<Event>>,
    count: usize,
}

impl Reports {
    /// Takes events.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when too many wait.
    pub(crate) fn take(&self, of: Of, events: Vec<Event>) -> Result<(), ApiError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.count + events.len() > MAX_WAITING_EVENTS {
            return Err(ApiError::Busy("too many events at once"));
        }
        waiting.count += events.len();
        waiting.events.entry(of).or_default().extend(events);
        self.wake.notify_one();
        Ok(())
    }

    /// Writes the events that wait.
    ///
    /// # Errors
    /// What the index fails with; the events are lost then.
    pub(crate) async fn flush(&self, service: &Service) -> Result<(), IndexError> {
        let _guard = self.flushing.lock().await;
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        if waiting.count == 0 {
            return Ok(());
        }
        let batches: Batches =
            waiting.events.into_iter().map(|(of, batch)| (of, Arc::new(batch))).collect();
        let for_index = batches.clone();
        let written = service.index.write(move |index| {
            for ((scope, others), batch) in &for_index {
                events::add(index, (scope, others), batch, clock::now_ms())?;
            }
            events::trim(index, MAX_STORED_EVENTS)
        });
        // Beside each other; what one of them does not take is not lost to the other.
        let (written, kept) = tokio::join!(written, keep(service, batches));
        written.and(kept)
    }
}

/// Events by scope.
type Batches = Vec<(Of, Arc<Vec<Event>>)>;

/// Writes events into the history, counts those that are new, and queues them for what is behind the server.
async fn keep(service: &Service, batches: Batches) -> Result<(), IndexError> {
    let mut kept = Ok(());
    let takes = service.edge.as_ref().is_some_and(Edge::takes_events);
    let refuses = service.edge.as_ref().and_then(Edge::refuses_events);
    for ((scope, _), batch) in batches {
        let is_shared = service.policy.goes_on(&scope);
        let (goes_on, refused) = (takes && is_shared, refuses.clone().filter(|_| is_shared));
        let (metrics, of) = (service.metrics.clone(), scope.clone());
        let added = service.history.add((scope, false), batch, move |rows, new| {
            new.iter().for_each(|event| metrics.event(event));
            if let Some(why) = refused {
                unshared::note_all(rows, &of, new, &why)?;
            }
            match goes_on {
                true => outgoing::queue(rows, new),
                false => Ok(()),
            }
        });
        kept = kept.and(added.await);
    }
    if let Some(edge) = service.edge.as_ref().filter(|_| takes) {
        edge.events.wake();
    }
    kept
}

/// Writes events whenever some have waited for a moment, until the task is dropped.
pub(crate) async fn run(service: Service) {
    loop {
        service.reports.wake.notified().await;
        tokio::time::sleep(EVENT_FLUSH_DELAY).await;
        if let Err(error) = service.reports.flush(&service).await {
            ApiError::from(error).tell(&service.log, format_args!("events lost"));
        }
    }
}
