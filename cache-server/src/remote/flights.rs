//! [`Flights`]: which blobs are on their way here, so that each is fetched once, whoever waits for it. Called by all that
//! fetches.
//!
//! What comes in a pack comes when its turn is there. Whoever needs such a blob sooner takes it over ([`Claim::take_over`])
//! and fetches it alone; what the pack brings of it later is there already.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_storage::Digest;
use tokio::sync::watch;

use super::{Edge, lock};
use crate::service::Service;

/// How a blob comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By a request for it.
    Request,
    /// In a pack, some time.
    Pack,
}

/// One blob on its way.
#[derive(Debug)]
struct Flight {
    claim: u64,
    by: By,
    ended: watch::Receiver<()>,
}

/// Blobs on their way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_digest: Mutex<HashMap<Digest, Flight>>,
    next: AtomicU64,
}

/// A blob that somebody else fetches.
#[derive(Debug)]
pub(crate) struct Other {
    /// The blob.
    pub digest: Digest,
    /// How it comes.
    pub by: By,
    ended: watch::Receiver<()>,
}

impl Other {
    /// Waits until it is here, or will not come.
    pub(crate) async fn ends(&mut self) {
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = self.ended.changed().await;
    }
}

/// The right to fetch some blobs; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    service: Service,
    id: u64,
    digests: Vec<Digest>,
    // Dropped after the digests are out of the map: whoever waits looks again then.
    _ended: watch::Sender<()>,
}

impl Claim {
    /// Takes those of some blobs that nobody fetches, and what tells when the others have ended.
    pub(crate) fn take(
        service: &Service,
        edge: &Edge,
        wanted: &[Digest],
    ) -> (Option<Self>, Vec<Other>) {
        Self::take_if(service, edge, (wanted, By::Request), |_| false)
    }

    /// The same for one blob that comes in a pack.
    pub(crate) fn take_for_pack(service: &Service, edge: &Edge, wanted: Digest) -> Option<Self> {
        Self::take_if(service, edge, (&[wanted], By::Pack), |_| false).0
    }

    /// The same, and those that are to come in a pack, as if nobody fetched them.
    pub(crate) fn take_over(
        service: &Service,
        edge: &Edge,
        wanted: &[Digest],
    ) -> (Option<Self>, Vec<Other>) {
        Self::take_if(service, edge, (wanted, By::Request), |by| by == By::Pack)
    }

    fn take_if(
        service: &Service,
        edge: &Edge,
        (wanted, by): (&[Digest], By),
        over: impl Fn(By) -> bool,
    ) -> (Option<Self>, Vec<Other>) {
        let id = edge.flights.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = watch::channel(());
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        let mut flights = lock(&edge.flights.by_digest);
        for digest in wanted {
            match flights.get(digest).filter(|flight| !over(flight.by)) {
                Some(Flight { by, ended, .. }) => {
                    others.push(Other { digest: *digest, by: *by, ended: ended.clone() });
                }
                None => {
                    flights.insert(*digest, Flight { claim: id, by, ended: receiver.clone() });
                    mine.push(*digest);
                }
            }
        }
        drop(flights);
        let claim = Self { service: service.clone(), id, digests: mine, _ended: sender };
        ((!claim.digests.is_empty()).then_some(claim), others)
    }

    /// Whether a blob is among them.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(edge) = &self.service.edge {
            let mut flights = lock(&edge.flights.by_digest);
            for digest in &self.digests {
                // Not one that was taken over.
                if flights.get(digest).is_some_and(|flight| flight.claim == self.id) {
                    flights.remove(digest);
                }
            }
        }
    }
}
