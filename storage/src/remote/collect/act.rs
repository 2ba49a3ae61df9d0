//! Does what a plan says, in the order that loses nothing ([`super`] says why), and pins. Called by a command
//! and by tests.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;

use super::{Inventory, Plan, inventory};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::{DIGEST_LEN, Digest};
use crate::entry;
use crate::key::{ObjectName, ResultKey, Scope};
use crate::limits;
use crate::remote::objects::{chance, layout, now_ms};

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Results that are gone.
    pub results: u64,
    /// Blobs that are gone.
    pub blobs: u64,
    /// Blobs that a result named that came meanwhile: they stay.
    pub spared: u64,
    /// Blobs that are left for the next collection, since this one took too long.
    pub left: u64,
}

/// Deletes what a plan says of an inventory.
///
/// # Errors
/// Those of the backend. What was deleted then was in the plan, results before blobs.
pub async fn act(
    backend: &dyn Backend,
    inventory: &Inventory,
    plan: &Plan,
) -> StoreResult<Collected> {
    let gone: Vec<ObjectName> = plan.results.iter().map(|(object, _)| object.clone()).collect();
    delete(backend, &gone).await?;
    let mut collected = Collected { results: gone.len() as u64, ..Collected::default() };
    if !plan.blobs.is_empty() {
        let began = Instant::now();
        let announced = announce(backend, plan).await?;
        let gone: HashSet<&ObjectName> = gone.iter().collect();
        let all = inventory.results.iter().map(|result| &result.object);
        // One that was deleted and is there again is a new one.
        let stay: HashSet<&ObjectName> = all.filter(|object| !gone.contains(object)).collect();
        let done = match inventory::named_since(backend, &stay).await {
            Ok(named) => delete_blobs(backend, plan, &named, began).await,
            Err(error) => Err(error),
        };
        let blobs = done?;
        // The announcement stays: who looked at a blob before it went has to learn of that. A later collection
        // deletes it.
        for announcement in &announced {
            let done = layout::done(announcement);
            backend.put_if_absent(&done, Body::Bytes(Bytes::from_static(b"done\n"))).await?;
        }
        collected = Collected { results: collected.results, ..blobs };
    }
    delete(backend, &plan.others).await?;
    Ok(collected)
}

async fn delete_blobs(
    backend: &dyn Backend,
    plan: &Plan,
    named: &HashSet<Digest>,
    began: Instant,
) -> StoreResult<Collected> {
    let mut collected = Collected::default();
    let (spared, orphans): (Vec<_>, Vec<_>) =
        plan.blobs.iter().partition(|(_, digest)| named.contains(digest));
    collected.spared = spared.len() as u64;
    for some in orphans.chunks(limits::COLLECTED_AT_ONCE) {
        if began.elapsed() >= limits::COLLECTION_TIME {
            collected.left += some.len() as u64;
            continue;
        }
        let objects: Vec<_> = some.iter().map(|(object, _)| object.clone()).collect();
        backend.delete_all(&objects).await?;
        collected.blobs += some.len() as u64;
    }
    Ok(collected)
}

async fn delete(backend: &dyn Backend, objects: &[ObjectName]) -> StoreResult<()> {
    for some in objects.chunks(limits::COLLECTED_AT_ONCE) {
        backend.delete_all(some).await?;
    }
    Ok(())
}

/// Says which blobs are about to go, before anything else is looked at.
async fn announce(backend: &dyn Backend, plan: &Plan) -> StoreResult<Vec<ObjectName>> {
    let mut announced = Vec::new();
    for some in plan.blobs.chunks(limits::MAX_RECORD_BYTES / DIGEST_LEN) {
        let name = layout::timed(layout::COLLECTING, now_ms(), chance());
        let digests: Vec<u8> = some.iter().flat_map(|(_, digest)| *digest.as_bytes()).collect();
        let frame = entry::encode(&name, &digests)
            .map_err(|error| StoreError::Unavailable(format!("an announcement: {error}")))?;
        backend.put_if_absent(&name, Body::Bytes(frame.into())).await?;
        announced.push(name);
    }
    Ok(announced)
}

/// Keeps a result, until [`unpin`].
///
/// # Errors
/// Those of the backend.
pub async fn pin(backend: &dyn Backend, scope: &Scope, result: &ResultKey) -> StoreResult<()> {
    let name = layout::pin(scope, result);
    backend.put_if_absent(&name, Body::Bytes(Bytes::from_static(b"pinned\n"))).await.map(drop)
}

/// Keeps a result no longer; whether it was pinned.
///
/// # Errors
/// Those of the backend.
pub async fn unpin(backend: &dyn Backend, scope: &Scope, result: &ResultKey) -> StoreResult<bool> {
    backend.delete(&layout::pin(scope, result)).await
}
