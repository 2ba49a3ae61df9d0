//! [`FaultBackend`]: a backend that fails on purpose: on the nth call of a kind, or at random from
//! a seed. Called by [`super::model`] and by the tests of everything that has to survive a bad
//! store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::bodies::{broken, stream_of};
use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::key::ObjectName;

/// Most bytes of a body that is taken into memory to be damaged.
const MAX_DAMAGED_BYTES: u64 = 256 * 1024 * 1024;

/// What goes wrong. Where a kind of call has no use for a fault it is [`Fault::Unavailable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and does nothing.
    Unavailable,
    /// The call fails as in a read-only store and does nothing.
    ReadOnly,
    /// The call is done, and fails: its answer is lost.
    LostAnswer,
    /// A body ends early and says that this is its length: on a get as it is returned, on a put
    /// as it is stored.
    Truncate,
    /// One bit of a body is another.
    BitFlip,
    /// A body is a stream that fails in the middle; a listing fails after its first item.
    Break,
}

/// All faults.
pub const ALL_FAULTS: [Fault; 6] = [
    Fault::Unavailable,
    Fault::ReadOnly,
    Fault::LostAnswer,
    Fault::Truncate,
    Fault::BitFlip,
    Fault::Break,
];

/// The calls of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Backend::get`].
    Get,
    /// [`Backend::put_if_absent`].
    Put,
    /// [`Backend::size`].
    Size,
    /// [`Backend::delete`].
    Delete,
    /// [`Backend::list`].
    List,
}

/// When faults happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Faults {
    /// Never.
    Never,
    /// On the nth call of a kind, counted from 1, and only then.
    Nth(Call, u64, Fault),
    /// On so many of a thousand calls, each time one of these faults.
    Seeded {
        /// The same seed gives the same faults for the same calls.
        seed: u64,
        /// Of a thousand calls.
        per_mille: u16,
        /// What may happen.
        faults: Vec<Fault>,
    },
}

/// Fails as [`Faults`] say, and else does what the backend below does. Clones share the schedule.
#[derive(Debug, Clone)]
pub struct FaultBackend<B> {
    inner: B,
    schedule: Arc<Mutex<Schedule>>,
    injected: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Schedule {
    faults: Faults,
    calls: [u64; 5],
    random: u64,
}

impl<B: Backend> FaultBackend<B> {
    /// The layer over a backend.
    pub fn new(inner: B, faults: Faults) -> Self {
        Self {
            inner,
            schedule: Arc::new(Mutex::new(Schedule::new(faults))),
            injected: Arc::default(),
        }
    }

    /// The backend below.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// From now on these faults; calls are counted anew.
    pub fn set(&self, faults: Faults) {
        *self.schedule.lock().unwrap_or_else(PoisonError::into_inner) = Schedule::new(faults);
    }

    /// How many faults there were.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// The fault of this call, if it has one, with a random number to place it.
    fn next(&self, call: Call) -> Option<(Fault, u64)> {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = schedule.next(call)?;
        self.injected.fetch_add(1, Ordering::Relaxed);
        Some((fault, schedule.random()))
    }
}

impl Schedule {
    fn new(faults: Faults) -> Self {
        let random = match &faults {
            Faults::Seeded { seed, .. } => *seed,
            Faults::Never | Faults::Nth(..) => 0,
        };
        Self { faults, calls: [0; 5], random }
    }

    fn next(&mut self, call: Call) -> Option<Fault> {
        self.calls[call as usize] += 1;
        let (draw, pick) = (self.random(), self.random());
        match &self.faults {
            Faults::Nth(kind, nth, fault) => {
                (*kind == call && *nth == self.calls[call as usize]).then_some(*fault)
            }
            Faults::Seeded { per_mille, faults, .. }
                if draw % 1000 < u64::from(*per_mille) && !faults.is_empty() =>
            {
                Some(faults[pick as usize % faults.len()])
            }
            Faults::Never | Faults::Seeded { .. } => None,
        }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

fn failure(fault: Fault) -> StoreError {
    match fault {
        Fault::ReadOnly => StoreError::ReadOnly("a test broke this".to_owned()),
        _ => broken(),
    }
}

/// The body with a fault in it; `None` when there is nothing in it to damage.
async fn spoil(
    name: &ObjectName,
    body: Body,
    fault: Fault,
    place: u64,
) -> StoreResult<Option<Body>> {
    let bytes = body.into_bytes(name, MAX_DAMAGED_BYTES).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let len = bytes.len();
    let at = (place % len as u64) as usize;
    Ok(match fault {
        Fault::Truncate => Some(Body::Bytes(bytes.slice(..at))),
        Fault::BitFlip => {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1 << (place % 8);
            Some(Body::Bytes(Bytes::from(bytes)))
        }
        Fault::Break => Some(stream_of(vec![Ok(bytes.slice(..at)), Err(broken())], len as u64)),
        Fault::Unavailable | Fault::ReadOnly | Fault::LostAnswer => None,
    })
}

#[async_trait]
impl<B: Backend> Backend for FaultBackend<B> {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        let Some((fault, place)) = self.next(Call::Get) else {
            return self.inner.get(name).await;
        };
        match fault {
            Fault::Unavailable | Fault::ReadOnly | Fault::LostAnswer => Err(broken()),
            Fault::Truncate | Fault::BitFlip | Fault::Break => {
                let Some(body) = self.inner.get(name).await? else {
                    return Ok(None);
                };
                spoil(name, body, fault, place)
                    .await?
                    .map_or_else(|| Err(broken()), |body| Ok(Some(body)))
            }
        }
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        let Some((fault, place)) = self.next(Call::Put) else {
            return self.inner.put_if_absent(name, body).await;
        };
        match fault {
            Fault::Unavailable | Fault::ReadOnly => Err(failure(fault)),
            Fault::LostAnswer => {
                self.inner.put_if_absent(name, body).await?;
                Err(broken())
            }
            Fault::Truncate | Fault::BitFlip | Fault::Break => {
                match spoil(name, body, fault, place).await? {
                    Some(body) => self.inner.put_if_absent(name, body).await,
                    None => Err(broken()),
                }
            }
        }
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        match self.next(Call::Size) {
            None => self.inner.size(name).await,
            Some(_) => Err(broken()),
        }
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        match self.next(Call::Delete) {
            None => self.inner.delete(name).await,
            Some((Fault::LostAnswer, _)) => {
                self.inner.delete(name).await?;
                Err(broken())
            }
            Some((fault, _)) => Err(failure(fault)),
        }
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let failed = stream::iter([Err(broken())]);
        match self.next(Call::List) {
            None => self.inner.list(prefix),
            Some((Fault::Break, _)) => self.inner.list(prefix).take(1).chain(failed).boxed(),
            Some(_) => failed.boxed(),
        }
    }
}
