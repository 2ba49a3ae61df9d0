//! Notes of an [`ObjectRemote`]: small texts that are replaced, in a place where nothing can be overwritten. Each
//! version is an object of its own, named so that the newest sorts first; older ones are deleted by
//! whoever writes the next. Called by [`super`].

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::{ObjectRemote, chance, layout, now_ms};
use crate::backend::{Backend as _, Body, StoreError, StoreResult};
use crate::entry;
use crate::key::{ObjectName, Scope};
use crate::limits;

/// A version that goes while it is read was replaced: so often the newest is looked for again.
const READS: usize = 3;

impl ObjectRemote {
    pub(super) async fn newest_note(
        &self,
        scopes: &[Scope],
        note: &str,
    ) -> StoreResult<Option<Bytes>> {
        for scope in scopes {
            if let Some(text) = self.note_in(scope, note).await? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    async fn note_in(&self, scope: &Scope, note: &str) -> StoreResult<Option<Bytes>> {
        for _ in 0..READS {
            let versions = self.versions(scope, note).await?;
            let Some(newest) = versions.first() else { return Ok(None) };
            let (name, max) = (newest.clone(), entry::max_frame(newest));
            let text = self.read(newest, max, move |frame| entry::decode(&name, frame)).await?;
            if let Some(text) = text {
                return Ok(Some(text.into_bytes()));
            }
        }
        Ok(None)
    }

    /// The names of a note's versions, newest first.
    async fn versions(&self, scope: &Scope, note: &str) -> StoreResult<Vec<ObjectName>> {
        let listing = self.backend.list(&layout::note_prefix(scope, note));
        let mut names: Vec<_> = listing.map_ok(|listed| listed.name).try_collect().await?;
        names.retain(|name| layout::parse_timed(name).is_some());
        names.sort();
        Ok(names)
    }

    /// A version that is newer than all that are there, whatever the clock of this machine says.
    pub(super) async fn replace_note(
        &self,
        scope: &Scope,
        note: &str,
        text: &[u8],
    ) -> StoreResult<()> {
        let older = self.versions(scope, note).await?;
        let newest = older.first().and_then(layout::parse_timed);
        let at = newest.map_or(0, |newest| newest.saturating_add(1)).max(now_ms());
        let name = layout::timed(&layout::note_prefix(scope, note), at, chance());
        if text.len() > limits::MAX_NOTE_BYTES {
            return Err(StoreError::TooLarge { name, size: text.len() as u64 });
        }
        let frame = entry::encode(&name, text)
            .map_err(|_| StoreError::TooLarge { name: name.clone(), size: text.len() as u64 })?;
        self.backend.put_if_absent(&name, Body::Bytes(frame.into())).await?;
        if !older.is_empty() {
            // Versions that stay cost a few bytes, and are deleted by the next writer.
            let _ = self.backend.delete_all(&older).await;
        }
        Ok(())
    }
}
