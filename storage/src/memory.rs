//! [`MemoryBackend`]: objects in memory, bounded by bytes.
//!
//! Owns a map and the order of last use. It verifies nothing and outlives nothing: it is the fast
//! tier of a server ([`crate::tiered`]), the store behind `memory:`, and the reference in tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::key::ObjectName;
use crate::limits;

/// Objects in memory. When the bound is reached, the least recently used ones go.
///
/// Clones share the same objects.
#[derive(Debug, Clone)]
pub struct MemoryBackend {
    max_bytes: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<ObjectName, Object>,
    /// The objects by last use, oldest first. Every object is here once.
    order: BTreeMap<u64, ObjectName>,
    next_use: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    used: u64,
    used_ms: u64,
}

impl MemoryBackend {
    /// An empty store that holds at most `max_bytes`, names and overhead included.
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, state: Arc::default() }
    }

    /// Bytes held now, names and overhead included.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// No operation leaves the state half-changed, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(name: &ObjectName, len: usize) -> u64 {
    (name.as_str().len() + len) as u64 + limits::MEMORY_OBJECT_OVERHEAD_BYTES
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl State {
    fn tick(&mut self) -> u64 {
        self.next_use += 1;
        self.next_use
    }

    fn get(&mut self, name: &ObjectName) -> Option<Bytes> {
        let tick = self.tick();
        let object = self.objects.get_mut(name)?;
        self.order.remove(&object.used);
        self.order.insert(tick, name.clone());
        object.used = tick;
        object.used_ms = now_ms();
        Some(object.bytes.clone())
    }

    fn remove(&mut self, name: &ObjectName) -> bool {
        let Some(object) = self.objects.remove(name) else {
            return false;
        };
        self.order.remove(&object.used);
        self.bytes -= cost(name, object.bytes.len());
        true
    }

    fn insert(&mut self, name: &ObjectName, bytes: Bytes, max_bytes: u64) {
        let needed = cost(name, bytes.len());
        while self.bytes + needed > max_bytes {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        let used = self.tick();
        self.bytes += needed;
        self.order.insert(used, name.clone());
        let object = Object { bytes, used, used_ms: now_ms() };
        self.objects.insert(name.clone(), object);
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        Ok(self.state().get(name).map(Body::Bytes))
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        if self.state().objects.contains_key(name) {
            return Ok(Put::AlreadyThere);
        }
        let size = body.len();
        if size.saturating_add(cost(name, 0)) > self.max_bytes {
            let name = name.clone();
            return Err(StoreError::TooLarge { name, size });
        }
        let bytes = body.into_bytes(name, self.max_bytes).await?;
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Ok(Put::AlreadyThere);
        }
        state.insert(name, bytes, self.max_bytes);
        Ok(Put::Created)
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let state = self.state();
        Ok(state.objects.get(name).map(|o| o.bytes.len() as u64))
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        Ok(self.state().remove(name))
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let state = self.state();
        let listed: Vec<_> = state
            .objects
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .map(|(name, object)| {
                Ok(Listed {
                    name: name.clone(),
                    size: object.bytes.len() as u64,
                    used_ms: object.used_ms,
                })
            })
            .collect();
        stream::iter(listed).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: usize) -> ObjectName {
        format!("o/{i:04}").parse().unwrap()
    }

    async fn put(backend: &MemoryBackend, i: usize, len: usize) -> StoreResult<Put> {
        let body = Body::Bytes(Bytes::from(vec![0; len]));
        backend.put_if_absent(&name(i), body).await
    }

    #[tokio::test]
    async fn the_bound_holds_and_the_least_recently_used_goes() {
        let one = cost(&name(0), 1000);
        let backend = MemoryBackend::new(3 * one);
        for i in 0..3 {
            assert_eq!(put(&backend, i, 1000).await.unwrap(), Put::Created);
        }
        assert!(backend.get(&name(0)).await.unwrap().is_some());
        assert_eq!(put(&backend, 3, 1000).await.unwrap(), Put::Created);
        assert_eq!(backend.bytes(), 3 * one);
        assert_eq!(backend.size(&name(0)).await.unwrap(), Some(1000));
        assert_eq!(backend.size(&name(1)).await.unwrap(), None);
        for i in 10..200 {
            put(&backend, i, i * 7).await.unwrap();
            assert!(backend.bytes() <= 3 * one);
        }
    }

    #[tokio::test]
    async fn an_object_over_the_whole_bound_is_refused_and_drops_nothing() {
        let backend = MemoryBackend::new(cost(&name(0), 1000));
        put(&backend, 0, 1000).await.unwrap();
        let refused = put(&backend, 1, 1001).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { size: 1001, .. })));
        assert_eq!(backend.size(&name(0)).await.unwrap(), Some(1000));
    }

    #[tokio::test]
    async fn deleting_gives_the_bytes_back() {
        let backend = MemoryBackend::new(10_000);
        put(&backend, 0, 1000).await.unwrap();
        assert!(backend.delete(&name(0)).await.unwrap());
        assert!(!backend.delete(&name(0)).await.unwrap());
        assert_eq!(backend.bytes(), 0);
    }
}
