//! [`Stamped`]: a backend that says when an object was written, by a clock that a test turns. Buckets tell just
//! that; backends of this machine tell when an object was last read. Called by tests of remotes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::backend::{Backend, Body, Listed, Put, StoreResult};
use crate::key::ObjectName;

/// When the clock begins, milliseconds since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;

#[derive(Debug, Default)]
struct Times {
    passed_ms: AtomicU64,
    written: Mutex<HashMap<ObjectName, u64>>,
}

impl Times {
    fn now_ms(&self) -> u64 {
        BEGIN_MS + self.passed_ms.load(Ordering::Relaxed)
    }

    fn written_ms(&self, name: &ObjectName) -> Option<u64> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

/// See the module. Clones are one place with one clock.
#[derive(Debug, Clone)]
pub struct Stamped {
    inner: Arc<dyn Backend>,
    times: Arc<Times>,
}

impl Stamped {
    /// What is in `inner` already keeps the times that it tells.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, times: Arc::default() }
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.times.passed_ms.fetch_add(by, Ordering::Relaxed);
    }
}

#[async_trait]
impl Backend for Stamped {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        self.inner.get(name).await
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        let put = self.inner.put_if_absent(name, body).await?;
        if put == Put::Created {
            let mut written = self.times.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert(name.clone(), self.times.now_ms());
        }
        Ok(put)
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.inner.size(name).await
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.inner.delete(name).await
    }

    async fn delete_all(&self, names: &[ObjectName]) -> StoreResult<()> {
        self.inner.delete_all(names).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let times = Arc::clone(&self.times);
        let listed = self.inner.list(prefix).map(move |listed| {
            let listed = listed?;
            let used_ms = times.written_ms(&listed.name).unwrap_or(listed.used_ms);
            Ok(Listed { used_ms, ..listed })
        });
        listed.boxed()
    }
}
