//! Events in a bucket: each batch an object of its own that never changes, so that any number of servers may write
//! those of one run, and any of them read all. Called by [`super`].
//!
//! A batch is named by its content: one that is written again is there already.

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{ObjectRemote, layout, some_at_once};
use crate::backend::{Backend as _, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::entry;
use crate::key::Scope;
use crate::limits;
use crate::remote::events::{EventBatch, EventsThere, KnownBatches};

impl ObjectRemote {
    pub(super) async fn write_events(&self, scope: &Scope, batch: &EventBatch) -> StoreResult<()> {
        let unwritten = |_| StoreError::Unavailable("events cannot be written as JSON".into());
        let text = serde_json::to_vec(batch).map_err(unwritten)?;
        let name = layout::events(scope, &batch.run, &batch.job, &Digest::of(&text));
        let size = text.len() as u64;
        let frame = entry::encode(&name, &text)
            .map_err(|_| StoreError::TooLarge { name: name.clone(), size })?;
        self.backend.put_if_absent(&name, Body::Bytes(frame.into())).await.map(drop)
    }

    pub(super) async fn read_events(
        &self,
        scopes: &[Scope],
        run: &str,
        known: &KnownBatches,
    ) -> StoreResult<EventsThere> {
        let mut names = Vec::new();
        for scope in scopes {
            let listing = self.backend.list(&layout::events_prefix(scope, run));
            let listed: Vec<_> =
                listing.take(limits::MAX_RUN_BATCHES).map_ok(|one| one.name).try_collect().await?;
            names.extend(listed.into_iter().filter(|name| !known.contains(name.as_str())));
        }
        let mut reads = Vec::with_capacity(names.len());
        for name in &names {
            let (of, max) = (name.clone(), entry::max_frame(name));
            reads.push(self.read(name, max, move |frame| entry::decode(&of, frame)));
        }
        let read = some_at_once(reads).await?;
        let batches = names.iter().zip(read).filter_map(|(name, text)| {
            let batch: EventBatch = serde_json::from_slice(&text?.into_bytes()).ok()?;
            (batch.run == run).then(|| (name.as_str().to_owned(), batch))
        });
        Ok(EventsThere { batches: batches.collect() })
    }
}
