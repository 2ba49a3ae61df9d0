//! [`CacheService`]: the few calls that both services have in common.
//!
//! Owns their types and errors. `v2` and `v1` implement it over `transport`; `address` and `publish` use it.
//! It knows nothing of packs and manifests.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::clock::Clock;
use super::settings::Secret;

/// Names the format of the entries: the service keeps entries of other versions apart, and wants 64
/// hexadecimal digits. SHA-256 of `kiln results v1`, computed once: a hash function for one constant is not
/// worth a dependency.
pub const VERSION: &str = "670c8804e90f00d3f2cc228a100af7c453ca9103c8145e551b7ca0448609d030";

/// What a token is told that may only read.
pub(super) const NO_WRITES: &str = "the token may not write here";

/// A point in time at which an operation ends, by [`Clock::now_ms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// So much time from now.
    pub fn after(clock: &dyn Clock, time: Duration) -> Self {
        Self(clock.now_ms().saturating_add(time.as_millis() as u64))
    }

    /// The time that is left.
    pub fn left(self, clock: &dyn Clock) -> Duration {
        Duration::from_millis(self.0.saturating_sub(clock.now_ms()))
    }

    /// Whether it is over.
    pub fn over(self, clock: &dyn Clock) -> bool {
        clock.now_ms() >= self.0
    }
}

/// What a caller can do about a failed call. No text in it holds a token or a signed address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// A passing fault: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Too many new entries or requests; try again after this time.
    #[error("the rate of requests is limited (for {} s)", .0.as_secs())]
    RateLimited(Duration),
    /// The service takes no writes from this token, now or ever.
    #[error("{0}")]
    ReadOnly(String),
    /// The signed address does not hold any more: ask for another one.
    #[error("the address of an entry is over")]
    Expired,
}

/// What a reservation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The key is ours to fill.
    Ours(Slot),
    /// Somebody has it, finished or not.
    Taken,
}

/// Where the bytes of a reserved entry go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// A signed address.
    Address(Secret),
    /// A number of the older service.
    Number(u64),
}

/// An entry that a lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its key: not always the one that was asked for.
    pub key: String,
    /// Where its bytes are.
    pub address: Secret,
}

/// A range of bytes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; not 0.
    pub len: u64,
}

impl Span {
    /// Where it ends.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// The calls of a cache service.
#[async_trait]
pub trait CacheService: Send + Sync + fmt::Debug {
    /// Claims a key for an entry of so many bytes (0: not known yet).
    ///
    /// # Errors
    /// [`CacheError`].
    async fn reserve(&self, key: &str, size: u64, until: Deadline) -> Result<Reserved, CacheError>;

    /// Sends the bytes of a claimed entry.
    ///
    /// # Errors
    /// [`CacheError`]. [`CacheError::Expired`]: the claim is lost.
    async fn upload(&self, slot: &Slot, bytes: Bytes, until: Deadline) -> Result<(), CacheError>;

    /// Makes an entry visible whose bytes were sent.
    ///
    /// # Errors
    /// [`CacheError`]. The entry may be visible all the same.
    async fn commit(
        &self,
        key: &str,
        slot: &Slot,
        size: u64,
        until: Deadline,
    ) -> Result<(), CacheError>;

    /// The newest entry whose key begins with this, exact matches first. The caller compares the keys.
    ///
    /// # Errors
    /// [`CacheError`].
    async fn find(&self, key: &str, until: Deadline) -> Result<Option<Found>, CacheError>;

    /// A range of an entry's bytes, exactly as long; the whole entry (bounded) without one.
    ///
    /// # Errors
    /// [`CacheError`].
    async fn read(
        &self,
        address: &Secret,
        span: Option<Span>,
        until: Deadline,
    ) -> Result<Bytes, CacheError>;
}
