//! What waits to be sent, told also when the index in which it waits is gone.
//!
//! Called by `outbox`, which has the number noted while it sends, and when a server opens its index.

use std::time::{Duration, Instant};

use super::{count, lock};
use crate::index::outbox as rows;
use crate::index::unsent;
use crate::limits::OUTBOX_NOTED;
use crate::service::Service;

/// Says what waited to be sent in an index that was thrown away or removed; none: nobody knows.
pub(crate) fn tell(service: &Service, unsent: Option<u64>) {
    let Some(edge) = service.edge.as_ref().filter(|edge| edge.sends) else { return };
    let why = match unsent {
        Some(0) => return,
        Some(_) => "the index in which results waited to be sent is gone",
        None => "an index was thrown away: if results waited in it to be sent, they are lost",
    };
    count(&edge.counts.lost, unsent.unwrap_or(0));
    *lock(&edge.counts.lost_why) = Some(why.to_owned());
    let count = match unsent {
        Some(1) => "1 result is never sent: ".to_owned(),
        Some(count) => format!("{count} results are never sent: "),
        None => String::new(),
    };
    service.log.warn(format_args!("remote {}: {count}{why}", edge.remote.display()));
}

/// When it was noted last how many results wait, and how many these were.
#[derive(Debug, Default)]
pub(super) struct Noted(Option<(Instant, u64)>);

impl Noted {
    /// Notes it, unless that was done a moment ago; when it is to be noted then.
    pub(super) async fn keep(&mut self, service: &Service) -> Option<Duration> {
        let (since, before) =
            self.0.map_or((OUTBOX_NOTED, None), |(at, n)| (at.elapsed(), Some(n)));
        if since < OUTBOX_NOTED {
            return Some(OUTBOX_NOTED - since);
        }
        self.0 = note(service, before).await.map(|count| (Instant::now(), count)).or(self.0);
        None
    }
}

/// Notes beside the index how many results wait in it, unless these are as many as before.
pub(super) async fn note(service: &Service, before: Option<u64>) -> Option<u64> {
    let count = service.index.read(rows::waiting).await.ok()?.count;
    if before != Some(count) {
        let dir = service.config.kiln_dir.clone();
        // A failure costs a line in a log, some day.
        let _ = tokio::task::spawn_blocking(move || unsent::note(&dir, count)).await;
    }
    Some(count)
}
