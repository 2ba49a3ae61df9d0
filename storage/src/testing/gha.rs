//! [`FakeCache`]: the GitHub Actions cache service on a loopback port, as strict as the real one.
//!
//! Owns the listening socket, the script of faults and what the tests hold: clock, counters, evictions. It
//! must not be kinder than production: scopes and rights come from the `ac` claim of the token, entries are
//! write-once, a reservation that is never finalized blocks its key, a lookup takes the newest entry whose
//! key *begins* with what was asked for, signed addresses expire, and 200 new entries a minute are all there
//! are. Used by the tests of [`crate::remote::gha`], and held against the official client, so that it cannot
//! drift.
//!
//! - `state`: the entries and the rules;
//! - `http`: v2, three Twirp calls and the blob half;
//! - `v1`: `_apis/artifactcache`, the older face of the same entries;
//! - `token`: runtime tokens and what they allow.

mod http;
mod state;
mod token;
mod v1;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use bytes::Bytes;

use crate::remote::gha::clock::Clock;

use state::State;
pub use token::{READ, READ_WRITE, WRITE, token};

/// A clock that only goes on when it is told to, or when somebody sleeps by it.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows this many milliseconds since 1970.
    pub fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep(&self, time: Duration) {
        self.advance(time);
        tokio::task::yield_now().await;
    }
}

/// The kinds of requests, the same for both faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Reserving an entry.
    Create,
    /// Bytes of an entry on their way in, blocks and their lists too.
    Upload,
    /// Making it visible.
    Finalize,
    /// Asking for an entry.
    Lookup,
    /// Its bytes on their way out.
    Download,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status and nothing done.
    Status(u16),
    /// 429 with `Retry-After`, seconds, and nothing done.
    RetryAfter(u64),
    /// The connection ends before an answer, nothing done.
    Drop,
    /// Done, and the connection ends before the answer.
    AnswerLost,
    /// Half of the answer's body, then the connection ends.
    DropMidBody,
    /// One bit of the answer's body is wrong.
    FlipBit,
    /// Half of the answer's body, whole as far as its headers say.
    Short,
    /// A download answers 200 with the whole entry, whatever range was asked for.
    WholeBody,
    /// 404 with the code `not_found`, as finalizing sometimes says at first.
    NotFound,
    /// `ok: false`, `cache write denied:`; 403 on the older face.
    WriteDenied,
    /// `ok: false` with a message that nobody knows; 400 on the older face.
    NotOk,
    /// 403, `cache read denied:`.
    ReadDenied,
    /// 403, `insufficient usage`.
    Quota,
    /// 401, as of a token that is over.
    Unauthorized,
    /// 403, as of a signed address that is over.
    Expired,
    /// No answer, ever.
    Stall,
    /// A body that is no JSON.
    Garbage,
}

/// What a fake has counted since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests by kind, those that were refused too.
    pub requests: BTreeMap<Call, u64>,
    /// Entries that were reserved.
    pub reserved: u64,
    /// Entries that were finalized.
    pub finalized: u64,
    /// Reservations that were refused for the rate.
    pub rate_limited: u64,
    /// Bytes of uploaded bodies.
    pub bytes_in: u64,
    /// Bytes of downloaded bodies.
    pub bytes_out: u64,
    /// Faults that were injected.
    pub injected: u64,
}

impl Counted {
    /// All requests.
    pub fn all_requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Requests of a kind.
    pub fn of(&self, call: Call) -> u64 {
        self.requests.get(&call).copied().unwrap_or_default()
    }
}

/// How the service behaves when nothing is scripted.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Lookups that do not find a new entry yet, for each entry. 0 ends that for all of them.
    pub lag_lookups: u32,
    /// Time for which lookups do not find a new entry.
    pub lag: Duration,
    /// Time for which a signed address holds.
    pub url_lifetime: Duration,
    /// New entries a minute for the whole repository.
    pub entries_per_minute: usize,
    /// Calls after which every token is over.
    pub token_calls: Option<u64>,
    /// Of the v1 face: whether a reserved key can be reserved again, as with small servers.
    pub lax_reservations: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            lag_lookups: 0,
            lag: Duration::ZERO,
            url_lifetime: Duration::from_secs(600),
            entries_per_minute: 200,
            token_calls: None,
            lax_reservations: false,
        }
    }
}

struct Inner {
    address: SocketAddr,
    clock: ManualClock,
    state: Mutex<State>,
    script: Mutex<Vec<(Call, VecDeque<Option<Fault>>)>>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that this request meets. Counts the request.
    fn meets(&self, call: Call) -> Option<Fault> {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let scripted = script.iter_mut().find(|(of, _)| *of == call);
        let fault = scripted.and_then(|(_, faults)| faults.pop_front()).flatten();
        let mut state = self.state();
        *state.counted.requests.entry(call).or_default() += 1;
        state.counted.injected += u64::from(fault.is_some());
        fault
    }
}

/// A running fake. It ends with the runtime of the test.
#[derive(Clone)]
pub struct FakeCache(Arc<Inner>);

impl FakeCache {
    /// Starts a fake of one repository on a free port, its clock at a fixed time.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start(behaviour: Behaviour) -> Self {
        Self::start_at(behaviour, ManualClock::at(1_700_000_000_000)).await
    }

    /// Starts a fake with a clock of the caller's.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start_at(behaviour: Behaviour, clock: ManualClock) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            clock,
            state: Mutex::new(State::new(behaviour)),
            script: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self(inner)
    }

    /// What `ACTIONS_RESULTS_URL` is; ends with `/`.
    pub fn results_url(&self) -> String {
        format!("http://{}/", self.0.address)
    }

    /// What `ACTIONS_CACHE_URL` is for the v1 face; ends with `/`.
    pub fn cache_url(&self) -> String {
        format!("http://{}/v1/", self.0.address)
    }

    /// The clock that it goes by.
    pub fn clock(&self) -> ManualClock {
        self.0.clock.clone()
    }

    /// The next requests of a kind meet these faults, one each; `None` lets one through.
    pub fn script(&self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) {
        let mut script = self.0.script.lock().unwrap_or_else(PoisonError::into_inner);
        match script.iter_mut().find(|(of, _)| *of == call) {
            Some((_, queue)) => queue.extend(faults),
            None => script.push((call, faults.into_iter().collect())),
        }
    }

    /// The next so many requests of a kind meet this fault.
    pub fn fail(&self, call: Call, fault: &Fault, times: usize) {
        self.script(call, std::iter::repeat_n(Some(fault.clone()), times));
    }

    /// Forgets the faults that have not happened yet.
    pub fn heal(&self) {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Changes how the service behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.0.state().behaviour);
    }

    /// Takes away the finalized entries whose key begins with this, as the service does for room. How many.
    pub fn evict(&self, prefix: &str) -> usize {
        self.0.state().evict(prefix)
    }

    /// Changes the bytes of the finalized entries whose key begins with this. How many.
    pub fn damage(&self, prefix: &str, change: impl Fn(&mut Vec<u8>)) -> usize {
        self.0.state().damage(prefix, change)
    }

    /// Puts an entry there that somebody else made, of the same version as the newest one.
    pub fn plant(&self, scope: &str, key: &str, bytes: &'static [u8]) {
        self.0.state().plant(scope, key, Bytes::from_static(bytes));
    }

    /// Keys of finalized entries, oldest first, with their scope.
    pub fn keys(&self) -> Vec<(String, String)> {
        self.0.state().keys()
    }

    /// What it has counted.
    pub fn counted(&self) -> Counted {
        self.0.state().counted.clone()
    }
}

impl std::fmt::Debug for FakeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeCache({})", self.0.address)
    }
}

async fn answer(Shared(inner): Shared<Arc<Inner>>, request: Request<Body>) -> Response {
    if request.uri().path().starts_with("/v1/") {
        v1::answer(&inner, request).await
    } else {
        http::answer(&inner, request).await
    }
}
