//! [`Tiered`]: a fast place before a slow one (memory before disk, disk before a remote).
//!
//! Reads come from the fast one, else from the slow one, and fill the fast one. The slow one is the
//! authority: it decides who created an object, and nothing enters the fast one that it would
//! contradict. The fast one may fail or forget at any time; that costs time, never an answer.
//! It verifies nothing: put [`crate::verify`] over the tier that needs it.

use std::collections::HashSet;
use std::io::Seek as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, future};

use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;
use crate::limits;

/// Where writes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// To both; the answer is the slow one's. The object is kept in the fast one even when the
    /// slow one cannot be reached or takes no writes, and the caller is told of that failure.
    Both,
    /// To the fast one alone: the owner sends objects on behind the caller's back, or never. The
    /// slow one is not asked, so an object that it holds can be created in the fast one again.
    Fast,
    /// To the slow one alone; reads fill the fast one.
    Slow,
}

/// Two backends as one. Clones share the counters.
#[derive(Debug, Clone)]
pub struct Tiered {
    fast: Arc<dyn Backend>,
    slow: Arc<dyn Backend>,
    writes: Writes,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    fast_hits: AtomicU64,
    slow_hits: AtomicU64,
    misses: AtomicU64,
    fills: AtomicU64,
    fast_failures: AtomicU64,
    slow_failures: AtomicU64,
}

/// What the two tiers did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TieredCounters {
    /// Reads that the fast tier answered.
    pub fast_hits: u64,
    /// Reads that the slow tier answered.
    pub slow_hits: u64,
    /// Reads that neither answered.
    pub misses: u64,
    /// Objects that reads brought into the fast tier.
    pub fills: u64,
    /// Failures of the fast tier; the callers did not see them, unless it was to be written alone.
    pub fast_failures: u64,
    /// Failures of the slow tier.
    pub slow_failures: u64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tiered {
    /// `fast` before `slow`.
    pub fn new(fast: Arc<dyn Backend>, slow: Arc<dyn Backend>, writes: Writes) -> Self {
        Self { fast, slow, writes, counts: Arc::default() }
    }

    /// What the two tiers did so far.
    pub fn counters(&self) -> TieredCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TieredCounters {
            fast_hits: read(&self.counts.fast_hits),
            slow_hits: read(&self.counts.slow_hits),
            misses: read(&self.counts.misses),
            fills: read(&self.counts.fills),
            fast_failures: read(&self.counts.fast_failures),
            slow_failures: read(&self.counts.slow_failures),
        }
    }

    fn fast_result<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        result.inspect_err(|_| count(&self.counts.fast_failures))
    }

    fn slow_result<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        result.inspect_err(|_| count(&self.counts.slow_failures))
    }

    /// Puts into the fast tier what the slow one holds; whether it is there now.
    async fn fill(&self, name: &ObjectName, body: Body) -> bool {
        match self.fast_result(self.fast.put_if_absent(name, body).await) {
            Ok(Put::Created) => {
                count(&self.counts.fills);
                true
            }
            Ok(Put::AlreadyThere) => true,
            Err(_) => false,
        }
    }

    /// Brings an object from the slow tier into the fast one, and hands it out.
    async fn fill_and_pass(&self, name: &ObjectName, body: Body) -> StoreResult<Option<Body>> {
        match Twice::of(name, body).await? {
            Twice::Yes(twice) => {
                if let Some(copy) = twice.copy() {
                    self.fill(name, copy).await;
                }
                twice.into_body().map(Some)
            }
            Twice::No(stream) => {
                if self.fill(name, stream).await
                    && let Ok(Some(body)) = self.fast_result(self.fast.get(name).await)
                {
                    return Ok(Some(body));
                }
                // The stream is used up, and the fast tier could not keep it.
                self.slow_result(self.slow.get(name).await)
            }
        }
    }

    /// Makes the fast tier agree with what the slow one answered to a write. It may hold other
    /// bytes under the name of a record, from a time when the slow one could not be reached.
    async fn follow(&self, name: &ObjectName, put: Put, body: Body) {
        let is_blob = name.blob_digest().is_some();
        if put == Put::AlreadyThere && !is_blob {
            // Whose bytes are there is not known: the next read that misses brings them.
            return;
        }
        if !is_blob && let Ok(Some(_)) = self.fast.size(name).await {
            let _ = self.fast_result(self.fast.delete(name).await);
        }
        let _ = self.fast_result(self.fast.put_if_absent(name, body).await);
    }

    async fn put_both(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        let twice = match Twice::of(name, body).await? {
            Twice::Yes(twice) => twice,
            // Too long to hold: the fast tier gets it on the first read.
            Twice::No(stream) => {
                return self.slow_result(self.slow.put_if_absent(name, stream).await);
            }
        };
        let copy = twice.copy();
        let body = twice.into_body()?;
        let put = match copy {
            None => return self.slow_result(self.slow.put_if_absent(name, body).await),
            Some(copy) => self.slow_result(self.slow.put_if_absent(name, copy).await),
        };
        match &put {
            Ok(put) => self.follow(name, *put, rewound(body)?).await,
            Err(StoreError::Unavailable(_) | StoreError::ReadOnly(_)) => {
                let body = rewound(body)?;
                let _ = self.fast_result(self.fast.put_if_absent(name, body).await);
            }
            Err(
                StoreError::Damaged { .. } | StoreError::TooLarge { .. } | StoreError::Refused(_),
            ) => {}
        }
        put
    }
}

/// A body that can be handed on more than once, if it can.
enum Twice {
    Yes(Repeatable),
    No(Body),
}

/// Bytes or a file. The copies of a file share its position: one is used up before the next.
struct Repeatable(Body);

impl Twice {
    /// Short streams are taken into memory for it.
    async fn of(name: &ObjectName, body: Body) -> StoreResult<Self> {
        match body {
            Body::Stream { len, .. } if len > limits::LAYER_BUFFER_BYTES => Ok(Self::No(body)),
            Body::Stream { .. } => {
                let bytes = body.into_bytes(name, limits::LAYER_BUFFER_BYTES).await?;
                Ok(Self::Yes(Repeatable(Body::Bytes(bytes))))
            }
            Body::Bytes(_) | Body::File { .. } => Ok(Self::Yes(Repeatable(body))),
        }
    }
}

impl Repeatable {
    fn copy(&self) -> Option<Body> {
        match &self.0 {
            Body::Bytes(bytes) => Some(Body::Bytes(bytes.clone())),
            Body::File { file, len } => {
                let file = file.try_clone().ok()?;
                Some(Body::File { file, len: *len })
            }
            Body::Stream { .. } => None,
        }
    }

    fn into_body(self) -> StoreResult<Body> {
        rewound(self.0)
    }
}

fn rewound(mut body: Body) -> StoreResult<Body> {
    if let Body::File { file, .. } = &mut body {
        file.rewind().map_err(|error| StoreError::Unavailable(format!("disk: {error}")))?;
    }
    Ok(body)
}

/// Sixteen bytes that stand for a name in a listing: two names of a store do not meet in them.
fn name_id(name: &ObjectName) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&Digest::of(name.as_str().as_bytes()).as_bytes()[..16]);
    id
}

#[async_trait]
impl Backend for Tiered {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        if let Ok(Some(body)) = self.fast_result(self.fast.get(name).await) {
            count(&self.counts.fast_hits);
            return Ok(Some(body));
        }
        match self.slow_result(self.slow.get(name).await)? {
            None => {
                count(&self.counts.misses);
                Ok(None)
            }
            Some(body) => {
                count(&self.counts.slow_hits);
                self.fill_and_pass(name, body).await
            }
        }
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        match self.writes {
            Writes::Both => self.put_both(name, body).await,
            Writes::Slow => self.slow_result(self.slow.put_if_absent(name, body).await),
            Writes::Fast => self.fast_result(self.fast.put_if_absent(name, body).await),
        }
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        if let Ok(Some(size)) = self.fast_result(self.fast.size(name).await) {
            return Ok(Some(size));
        }
        self.slow_result(self.slow.size(name).await)
    }

    /// From both; an object that cannot be removed from one is not gone.
    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let slow = self.slow_result(self.slow.delete(name).await);
        let fast = self.fast_result(self.fast.delete(name).await);
        Ok(slow? | fast?)
    }

    /// What either holds, each once. Remembers sixteen bytes for each object of the fast tier.
    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let (known, counts) = (Arc::clone(&seen), Arc::clone(&self.counts));
        let fast = self.fast.list(prefix).filter_map(move |item| {
            match &item {
                Ok(listed) => {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.insert(name_id(&listed.name));
                }
                Err(_) => count(&counts.fast_failures),
            }
            future::ready(item.ok().map(Ok))
        });
        let slow = self.slow.list(prefix).filter(move |item| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = |listed: &Listed| known.contains(&name_id(&listed.name));
            future::ready(!item.as_ref().is_ok_and(is_known))
        });
        fast.chain(slow).boxed()
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.fast.local_dir().or_else(|| self.slow.local_dir())
    }
}
