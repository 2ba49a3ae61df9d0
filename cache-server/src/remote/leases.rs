//! Questions for leases passed on to another Kiln server, so that jobs with a server of their own each still share
//! them. Nothing is kept of a lease here: its id says where it is from ([`far`]), and whoever hangs up here hangs up
//! there.
//!
//! It is asked with the rights of this server, so for nobody who has a token ([`crate::principal::Rights::farther`]).
//! Where it is not, cannot be asked, or knows no leases, the answer is none, and this server's own leases
//! ([`crate::leases`]) count. Whoever is told there of a result finds it here by the next lookup; a release with a
//! result goes on only when the result is there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use kiln_storage::ResultKey;
use kiln_storage::api::{HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, ReleaseRequest};
use kiln_storage::limits::{MAX_LEASE_WAIT, MAX_SHOWN_LEASES};
use kiln_storage::remote::lease::KnowsLeases;
use kiln_storage::remote::via;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::through::{answered, arrive};
use super::{Edge, Side, kind_of, lock};
use crate::error::ApiError;
use crate::index::{outbox as rows, records};
use crate::limits::{
    LEASE_BROKEN, LEASE_QUESTION, LEASE_SENT, LEASES_UNKNOWN, MAX_LEASE_RELEASES, REMOTE_QUESTION,
};
use crate::principal::{Principal, Scoped};
use crate::service::Service;

/// What the ids of leases begin with that are another server's. Own ones are hexadecimal.
const FAR: &str = "up-";

/// Longest id of another server's lease, bytes: it may have passed some servers.
const MAX_ID_BYTES: usize = 64;

/// What questions that are passed on share.
#[derive(Debug)]
pub(crate) struct PassedOn {
    /// Until when it is not asked again, since it knows no leases.
    unknown: Mutex<Option<Instant>>,
    /// Leases there that are over here and wait for their results to be sent.
    releasing: Mutex<HashSet<String>>,
    turns: Arc<Semaphore>,
}

impl Default for PassedOn {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(MAX_LEASE_RELEASES));
        Self { unknown: Mutex::default(), releasing: Mutex::default(), turns }
    }
}

/// The id that another server has given a lease, when it is not one of this server.
pub(crate) fn far(id: &str) -> Option<&str> {
    let is_safe = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    id.strip_prefix(FAR).filter(|id| id.len() <= MAX_ID_BYTES && id.bytes().all(is_safe))
}

/// The server behind this one, if it may be asked for leases.
fn behind(edge: &Edge) -> Option<&dyn KnowsLeases> {
    let leases = edge.remote.leases()?;
    let unknown = lock(&edge.leases.unknown).is_some_and(|until| Instant::now() < until);
    (!unknown).then_some(leases)
}

/// The answer of the server behind this one; none: it cannot be asked.
pub(crate) async fn ask(
    service: &Service,
    principal: &Principal,
    headers: &HeaderMap,
    request: &LeaseRequest,
) -> Option<LeaseResponse> {
    let own = principal.farther()?;
    let edge = service.edge.as_ref()?;
    let leases = behind(edge)?;
    let through = edge.via(&service.log, headers)?;
    let answer = async {
        let answer = asked(service, edge, leases, request).await?;
        understood(service, edge, own, answer).await
    };
    tokio::select! {
        answer = via::within(through, answer) => answer,
        () = service.leaving() => Some(LeaseResponse::Free),
    }
}

/// What an answer from there means here.
async fn understood(
    service: &Service,
    edge: &Edge,
    own: &Scoped,
    answer: LeaseResponse,
) -> Option<LeaseResponse> {
    match answer {
        LeaseResponse::Granted { id } if !can_send(edge) => {
            // Others would wait there for what never comes.
            let service = service.clone();
            tokio::spawn(via::carry(async move {
                let leases = service.edge.as_ref().and_then(|edge| edge.remote.leases());
                if let Some(leases) = leases {
                    let _ = leases.release_lease(&id, ReleaseRequest::Abandoned).await;
                }
            }));
            None
        }
        LeaseResponse::Granted { id } => Some(LeaseResponse::Granted { id: format!("{FAR}{id}") }),
        LeaseResponse::Stored { result } => {
            find(service, edge, own, result).await;
            Some(LeaseResponse::Stored { result })
        }
        answer => Some(answer),
    }
}

/// Whether what is made here can be had there.
fn can_send(edge: &Edge) -> bool {
    edge.sends && edge.side(Side::Writes).left_alone(Instant::now()).is_none()
}

/// Asks, first without waiting: a server that says nothing shows at once, not after the time that somebody waits.
async fn asked(
    service: &Service,
    edge: &Edge,
    leases: &dyn KnowsLeases,
    request: &LeaseRequest,
) -> Option<LeaseResponse> {
    let until = Instant::now() + Duration::from_millis(request.wait_ms).min(MAX_LEASE_WAIT);
    let mut wait = Duration::ZERO;
    loop {
        if !edge.may(Side::Reads) {
            return None;
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match leases.ask_lease(&LeaseRequest { wait_ms, ..request.clone() }).await {
            Ok(Some(answer)) => {
                edge.good(Side::Reads);
                let left = until.saturating_duration_since(Instant::now());
                if !matches!(answer, LeaseResponse::Held { .. }) || left.as_millis() == 0 {
                    return Some(answer);
                }
                wait = left.min(LEASE_QUESTION);
            }
            Ok(None) => {
                edge.good(Side::Reads);
                *lock(&edge.leases.unknown) = Some(Instant::now() + LEASES_UNKNOWN);
                return None;
            }
            // Many wait at a time, and all of them are cut off when the server there is started anew: the next question
            // tells whether that is so.
            Err(_) if !wait.is_zero() => {
                tokio::time::sleep(LEASE_BROKEN).await;
                wait = Duration::ZERO;
            }
            Err(error) => {
                let (kind, why) = kind_of(&error);
                edge.fault(&service.log, Side::Reads, kind, &why);
                return None;
            }
        }
    }
}

/// Has a result that somebody is told of in the index, whatever was answered about its unit before.
async fn find(service: &Service, edge: &Edge, own: &Scoped, result: ResultKey) {
    let Some(leases) = edge.remote.leases() else { return };
    let scope = own.id.clone();
    let there = service.index.read(move |index| records::stored(index, &scope, &result)).await;
    if there.is_ok_and(|there| there.is_some()) {
        return;
    }
    let scope = edge.own_scope();
    let bring = async {
        let arrived = answered(service, edge, leases.told_result(&scope, result)).await.flatten();
        arrive(service, edge, own, arrived.into_iter().collect()).await
    };
    // Who looks it up asks for it once more.
    if let Ok(Err(error)) = timeout(REMOTE_QUESTION, bring).await {
        error.tell(&service.log, format_args!("a result that was told of"));
    }
}

/// Passes on that a holder lives; whether it has the lease.
pub(crate) async fn hold(
    service: &Service,
    principal: &Principal,
    headers: &HeaderMap,
    (id, request): (&str, HoldRequest),
) -> bool {
    let (Some(_), Some(edge)) = (principal.farther(), &service.edge) else { return false };
    let Some(through) = edge.via(&service.log, headers) else { return false };
    let (asks, lease) = (service.clone(), id.to_owned());
    let question = tokio::spawn(via::within(through, async move {
        let leases = asks.edge.as_ref().and_then(|edge| edge.remote.leases());
        match leases {
            Some(leases) => leases.hold_lease(&lease, request).await.unwrap_or(false),
            None => false,
        }
    }));
    let mut open = Open { edge, id, question };
    tokio::select! {
        held = &mut open.question => held.unwrap_or(false),
        () = service.leaving() => true,
    }
}

/// A question of a holder. Dropped, it hangs up, unless the lease is held on for its result to be sent.
struct Open<'a> {
    edge: &'a Edge,
    id: &'a str,
    question: JoinHandle<bool>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !lock(&self.edge.leases.releasing).contains(self.id) {
            self.question.abort();
        }
    }
}

/// Passes on how a lease ended; whether it was there. With a result, that happens when the result is there, and
/// nobody waits for it here.
pub(crate) async fn release(
    service: &Service,
    principal: &Principal,
    headers: &HeaderMap,
    (id, outcome): (&str, ReleaseRequest),
) -> bool {
    let (Some(own), Some(edge)) = (principal.farther(), &service.edge) else { return false };
    let Some(leases) = edge.remote.leases() else { return false };
    let Some(through) = edge.via(&service.log, headers) else { return false };
    via::within(through, async {
        let outcome = match outcome {
            ReleaseRequest::Stored { result } => match Releasing::begin(service, id) {
                Some(releasing) => {
                    let scope = own.id.clone();
                    tokio::spawn(via::carry(releasing.run(scope, result)));
                    return true;
                }
                None => ReleaseRequest::Abandoned,
            },
            outcome => outcome,
        };
        leases.release_lease(id, outcome).await.unwrap_or(false)
    })
    .await
}

/// A lease there that is over here, until the result is there.
struct Releasing {
    service: Service,
    id: String,
    _turn: OwnedSemaphorePermit,
}

impl Releasing {
    /// None: too many are on their way.
    fn begin(service: &Service, id: &str) -> Option<Self> {
        let leases = &service.edge.as_ref()?.leases;
        let turn = leases.turns.clone().try_acquire_owned().ok()?;
        lock(&leases.releasing).insert(id.to_owned());
        Some(Self { service: service.clone(), id: id.to_owned(), _turn: turn })
    }

    /// Holds the lease until the result was sent, within a bound, and says how it ended.
    async fn run(self, scope: String, result: ResultKey) {
        let Some(edge) = &self.service.edge else { return };
        let Some(leases) = edge.remote.leases() else { return };
        let release = async {
            let outcome = match timeout(LEASE_SENT, sent(&self.service, edge, &scope, result)).await
            {
                Ok(Sent::There) => ReleaseRequest::Stored { result },
                Ok(Sent::Never) => ReleaseRequest::NotStored,
                Ok(Sent::Unknown) | Err(_) => ReleaseRequest::Abandoned,
            };
            let _ = leases.release_lease(&self.id, outcome).await;
        };
        let hold = async {
            while leases.hold_lease(&self.id, HoldRequest::default()).await.unwrap_or(false) {}
        };
        tokio::select! {
            () = release => {}
            // It is another's by now, or nobody's.
            () = hold => {}
        }
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        if let Some(edge) = &self.service.edge {
            lock(&edge.leases.releasing).remove(&self.id);
        }
    }
}

/// Where a result is that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    There,
    /// It is refused there.
    Never,
    /// It is not here, or nobody knows.
    Unknown,
}

/// Waits until a result that was just published here is no longer to be sent.
async fn sent(service: &Service, edge: &Edge, scope: &str, result: ResultKey) -> Sent {
    service.pending.wait(scope, std::iter::once(*result.digest())).await;
    let mut progress = edge.outbox.progress();
    let mut hurried = false;
    loop {
        progress.borrow_and_update();
        let of = scope.to_owned();
        match service.index.read(move |index| rows::is_waiting(index, &of, &result)).await {
            Ok(Some(true)) => {}
            Ok(Some(false)) if edge.outbox.was_lost(scope, &result) => return Sent::Never,
            Ok(Some(false)) => return Sent::There,
            Ok(None) | Err(_) => return Sent::Unknown,
        }
        if !hurried {
            hurried = true;
            let of = scope.to_owned();
            let first = service.index.write(move |index| rows::first(index, &of, &result)).await;
            if let Err(error) = first {
                ApiError::from(error).tell(&service.log, format_args!("outbox"));
            }
            edge.outbox.wake();
        }
        // The sender lives as long as the edge.
        let _ = progress.changed().await;
    }
}

/// What the server behind this one lists, with what is this one's own.
pub(crate) async fn list(
    service: &Service,
    principal: &Principal,
    (headers, query): (&HeaderMap, Option<&str>),
    own: &mut LeasesResponse,
) {
    let (Some(_), Some(edge)) = (principal.farther(), &service.edge) else { return };
    let Some(leases) = behind(edge).filter(|_| edge.may(Side::Reads)) else { return };
    let Some(through) = edge.via(&service.log, headers) else { return };
    let asked = via::within(through, leases.list_leases(query));
    if let Some(LeasesResponse { leases }) = answered(service, edge, asked).await.flatten() {
        own.leases.extend(leases);
        own.leases.sort_by_key(|lease| std::cmp::Reverse(lease.holder.age_ms));
        own.leases.truncate(MAX_SHOWN_LEASES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::LeaseId;
    use crate::limits::JSON_REQUEST_TIMEOUT;
    use kiln_storage::limits;

    /// A question that waits is neither taken for one that nobody answers, nor given up.
    #[test]
    fn what_waits_fits_into_what_is_waited() {
        let longest = LEASE_QUESTION.max(limits::LEASE_HOLD) + limits::LEASE_ANSWER;
        assert!(longest < limits::REMOTE_STALL_TIMEOUT);
        let asked = MAX_LEASE_WAIT + limits::LEASE_ANSWER + LEASE_BROKEN + REMOTE_QUESTION;
        assert!(asked < JSON_REQUEST_TIMEOUT);
    }

    #[test]
    fn ids_say_where_they_are_from() {
        let own = "0123456789abcdef0123456789abcdef";
        assert_eq!(far(own), None);
        assert_eq!(far(&format!("{FAR}{own}")), Some(own));
        assert_eq!(far(&format!("{FAR}{FAR}{own}")), Some(format!("{FAR}{own}").as_str()));
        assert!(format!("{FAR}{own}").parse::<LeaseId>().is_err());
        for bad in ["up-../..", "up-a/b", "up-A", "up-?", &format!("up-{}", "a".repeat(65))] {
            assert_eq!(far(bad), None, "{bad}");
        }
    }
}
