//! [`Pending`]: the keys of records that are being taken over, and waiting for them.
//!
//! A lookup that comes between the publication of a record and the moment it can be found waits
//! here: notified, not polled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kiln_storage::Digest;
use tokio::sync::watch;

type Key = (String, Digest);

/// Keys in the making. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    keys: Arc<Mutex<HashMap<Key, Weak<watch::Sender<()>>>>>,
}

/// Keeps keys pending until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingGuard {
    pending: Pending,
    held: Vec<(Key, Option<Arc<watch::Sender<()>>>)>,
}

impl Pending {
    /// Makes keys of a scope pending. A key may be pending several times at once.
    pub(crate) fn begin(&self, scope: &str, digests: &[Digest]) -> PendingGuard {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let held = digests
            .iter()
            .map(|digest| {
                let key = (scope.to_owned(), *digest);
                let sender = keys.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                    let sender = Arc::new(watch::Sender::new(()));
                    keys.insert(key.clone(), Arc::downgrade(&sender));
                    sender
                });
                (key, Some(sender))
            })
            .collect();
        PendingGuard { pending: self.clone(), held }
    }

    /// Waits until none of the records that are pending now is pending any more.
    pub(crate) async fn wait(&self, scope: &str, digests: impl Iterator<Item = Digest>) {
        let receivers: Vec<_> = {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.is_empty() {
                return;
            }
            digests
                .filter_map(|digest| keys.get(&(scope.to_owned(), digest))?.upgrade())
                .map(|sender| sender.subscribe())
                .collect()
        };
        for mut receiver in receivers {
            // Nothing is ever sent: it ends when the last sender is dropped.
            let _ = receiver.changed().await;
        }
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut keys = self.pending.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, sender) in &mut self.held {
            drop(sender.take());
            if keys.get(key).is_some_and(|weak| weak.strong_count() == 0) {
                keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn waiters_wake_when_the_last_holder_is_gone() {
        let pending = Pending::default();
        let key = Digest::of(b"k");
        pending.wait("s", [key].into_iter()).await;
        let one = pending.begin("s", &[key, Digest::of(b"l")]);
        let two = pending.begin("s", &[key]);
        pending.wait("other", [key].into_iter()).await;
        let mut wait = Box::pin(pending.wait("s", [key].into_iter()));
        assert!(wait.as_mut().now_or_never().is_none());
        drop(one);
        assert!(wait.as_mut().now_or_never().is_none());
        drop(two);
        wait.await;
        assert!(pending.keys.lock().unwrap().is_empty());
    }
}
