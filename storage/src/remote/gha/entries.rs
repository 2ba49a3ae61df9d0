//! [`Entries`]: whole entries of the cache by key, over the calls of [`CacheService`].
//!
//! Owns what is remembered of signed addresses, whether anything may be read or written, and that a found
//! key is the one that was asked for. `numbers`, `fetch` and `flush` use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::client::{CacheError, CacheService, Deadline, Found, Reserved, Slot, Span};
use super::clock::Clock;
use super::limits;
use super::settings::{Mode, Secret};

/// Where an entry is, if there is one.
type Asked = Result<Option<Secret>, CacheError>;

/// The entries of a cache.
#[derive(Debug)]
pub(super) struct Entries {
    service: Box<dyn CacheService>,
    pub(super) clock: Arc<dyn Clock>,
    mode: Mode,
    /// Why nothing is written any more.
    read_only: OnceLock<String>,
    /// Where entries are, and when that was said.
    addresses: Mutex<HashMap<String, (Secret, u64)>>,
    /// Questions for addresses that are under way: each is asked once, whoever waits for it.
    asking: Mutex<HashMap<String, Arc<OnceCell<Asked>>>>,
}

impl Entries {
    pub(super) fn new(service: Box<dyn CacheService>, clock: Arc<dyn Clock>, mode: Mode) -> Self {
        let (read_only, addresses, asking) = Default::default();
        Self { service, clock, mode, read_only, addresses, asking }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<String, (Secret, u64)>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<Asked>>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is read at all.
    pub(super) fn reads(&self) -> bool {
        self.mode.reads()
    }

    /// Refuses when it is known that nothing is written.
    pub(super) fn writable(&self) -> Result<(), CacheError> {
        let why = self.mode.no_writes().or_else(|| self.read_only.get().map(String::as_str));
        why.map_or(Ok(()), |why| Err(CacheError::ReadOnly(why.to_owned())))
    }

    /// Remembers that nothing is written, when that is what a call came to.
    fn written<T>(&self, outcome: Result<T, CacheError>) -> Result<T, CacheError> {
        if let Err(CacheError::ReadOnly(why)) = &outcome {
            let _ = self.read_only.set(why.clone());
        }
        outcome
    }

    /// The newest entry whose key begins with this.
    pub(super) async fn find(
        &self,
        prefix: &str,
        until: Deadline,
    ) -> Result<Option<Found>, CacheError> {
        let found = self.service.find(prefix, until).await?;
        if let Some(found) = &found {
            self.remember(found);
        }
        Ok(found)
    }

    fn remember(&self, found: &Found) {
        let now = self.clock.now_ms();
        let most = limits::ADDRESS_MAX_AGE.as_millis() as u64;
        let mut addresses = self.addresses();
        if addresses.len() >= limits::MAX_ADDRESSES {
            addresses.retain(|_, (_, at)| *at + most > now);
        }
        if addresses.len() >= limits::MAX_ADDRESSES {
            addresses.clear();
        }
        addresses.insert(found.key.clone(), (found.address.clone(), now));
    }

    async fn address(&self, key: &str, until: Deadline) -> Asked {
        let most = limits::ADDRESS_MAX_AGE.as_millis() as u64;
        let now = self.clock.now_ms();
        if let Some((address, at)) = self.addresses().get(key)
            && *at + most > now
        {
            return Ok(Some(address.clone()));
        }
        // Ranges of a pack are read side by side.
        let question = {
            let mut asking = self.asking();
            // Only questions that were given up stay.
            if asking.len() >= limits::MAX_ADDRESSES {
                asking.clear();
            }
            Arc::clone(asking.entry(key.to_owned()).or_default())
        };
        let answer = question.get_or_init(|| self.ask_address(key, until)).await.clone();
        let mut asking = self.asking();
        if asking.get(key).is_some_and(|there| Arc::ptr_eq(there, &question)) {
            asking.remove(key);
        }
        answer
    }

    async fn ask_address(&self, key: &str, until: Deadline) -> Asked {
        let found = self.find(key, until).await?;
        // A longer key with this beginning is another entry.
        Ok(found.filter(|found| found.key == key).map(|found| found.address))
    }

    /// The bytes of an entry, or a range of them; `None` when there is no such entry.
    pub(super) async fn read(
        &self,
        key: &str,
        span: Option<Span>,
        until: Deadline,
    ) -> Result<Option<Bytes>, CacheError> {
        for _ in 0..2 {
            let Some(address) = self.address(key, until).await? else { return Ok(None) };
            match self.service.read(&address, span, until).await {
                // Over, or the entry went away: it is asked for once more.
                Err(CacheError::Expired) => self.addresses().remove(key),
                outcome => return outcome.map(Some),
            };
        }
        Ok(None)
    }

    /// Claims a key; `None` when it is taken.
    pub(super) async fn claim(
        &self,
        key: &str,
        size: u64,
        until: Deadline,
    ) -> Result<Option<Slot>, CacheError> {
        self.writable()?;
        match self.written(self.service.reserve(key, size, until).await)? {
            Reserved::Ours(slot) => Ok(Some(slot)),
            Reserved::Taken => Ok(None),
        }
    }

    /// Sends and finishes a claimed entry.
    pub(super) async fn fill(
        &self,
        key: &str,
        slot: &Slot,
        bytes: Bytes,
        until: Deadline,
    ) -> Result<(), CacheError> {
        let size = bytes.len() as u64;
        self.written(self.service.upload(slot, bytes, until).await)?;
        self.written(self.service.commit(key, slot, size, until).await)
    }
}
