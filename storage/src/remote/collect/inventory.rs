//! Reads what is in a bucket. Called by a collection, before its plan; and by its end, for results that came
//! meanwhile.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Inventory, KeptBlob, KeptPack, KeptResult, ResultContent};
use crate::backend::{Backend, Listed, StoreError, StoreResult};
use crate::entry;
use crate::key::{ObjectName, ResultKey};
use crate::limits;
use crate::remote::objects::layout::{self, ResultObject};
use crate::remote::objects::pack;
use crate::remote::uses;

impl Inventory {
    /// What is there. Each result is read, for its cost and the blobs it names: one request for each,
    /// and a listing of everything.
    ///
    /// # Errors
    /// Those of the backend. An inventory with holes would take what is needed for what is not.
    pub async fn read(backend: &dyn Backend) -> StoreResult<Self> {
        let used_objects = list(backend, layout::USED).await?;
        let used = read_used(backend, &used_objects).await?;
        let pins: HashSet<(String, ResultKey)> = list(backend, layout::PINS)
            .await?
            .iter()
            .filter_map(|listed| layout::parse_pin(&listed.name))
            .collect();
        let listed = list(backend, layout::RESULTS).await?;
        let mut results = Vec::with_capacity(listed.len());
        for (object, listed) in known(&listed) {
            results.push(kept_result(backend, object, listed));
        }
        let mut results: Vec<KeptResult> = stream::iter(results)
            .buffered(limits::REMOTE_LOOKUPS_AT_ONCE)
            .try_filter_map(async |kept| Ok(kept))
            .try_collect()
            .await?;
        for result in &mut results {
            let key = (result.scope_id.clone(), result.result);
            result.used_ms = used.get(&key).copied().unwrap_or(0).max(result.stored_ms);
            result.pinned = pins.contains(&key);
        }
        // After the results: whoever names a blob came after it.
        let mut blobs = list(backend, layout::PACKED).await?;
        blobs.extend(list(backend, layout::RAW).await?);
        let announced = list(backend, layout::COLLECTING).await?;
        let packs = list(backend, layout::TOGETHER).await?;
        let rejected = list(backend, layout::REJECTED).await?;
        Ok(Self {
            packs: packs.into_iter().filter_map(kept_pack).collect(),
            rejections: rejected.into_iter().filter_map(rejection).collect(),
            events: list(backend, layout::EVENTS).await?.into_iter().filter_map(events).collect(),
            results,
            blobs: blobs.into_iter().filter_map(kept_blob).collect(),
            used_pages: used_objects.into_iter().filter_map(used_page).collect(),
            announcements: announced.into_iter().filter_map(announcement).collect(),
        })
    }
}

/// The blobs that results name which are there now and are not among `before`.
pub(super) async fn named_since(
    backend: &dyn Backend,
    before: &HashSet<&ObjectName>,
) -> StoreResult<HashSet<crate::Digest>> {
    let listed = list(backend, layout::RESULTS).await?;
    let mut reads = Vec::new();
    for (object, listed) in known(&listed) {
        if !before.contains(&listed.name) {
            reads.push(kept_result(backend, object, listed));
        }
    }
    let came: Vec<Option<KeptResult>> =
        stream::iter(reads).buffered(limits::REMOTE_LOOKUPS_AT_ONCE).try_collect().await?;
    let mut named = HashSet::new();
    for result in came.into_iter().flatten() {
        if let ResultContent::Read { blobs, .. } = result.content {
            named.extend(blobs);
        }
    }
    Ok(named)
}

async fn list(backend: &dyn Backend, prefix: &str) -> StoreResult<Vec<Listed>> {
    backend.list(prefix).try_collect().await
}

fn known(listed: &[Listed]) -> impl Iterator<Item = (ResultObject, &Listed)> {
    listed.iter().filter_map(|listed| Some((layout::parse_whole(&listed.name)?, listed)))
}

/// A blob. What is not called as a blob is here in every letter is somebody else's: other programs have
/// directories of these names, too (`blobs/sha256/<digest>`).
fn kept_blob(listed: Listed) -> Option<KeptBlob> {
    let digest = layout::parse_blob(&listed.name)?;
    let names = [0, limits::MAX_BLOB_BYTES].map(|size| layout::blob(&digest, size).0);
    if !names.contains(&listed.name) {
        return None;
    }
    Some(KeptBlob { object: listed.name, digest, bytes: listed.size, stored_ms: listed.used_ms })
}

/// An object of what was used, with its day.
fn used_page(listed: Listed) -> Option<(ObjectName, u64)> {
    let (scope_id, day) = layout::parse_used(&listed.name)?;
    let prefix = layout::used_prefix(&scope_id, day);
    let well = is_hex(&scope_id, SCOPE_ID_CHARS) && is_timed(&listed.name, &prefix);
    well.then_some((listed.name, day))
}

/// What says that a result is rejected, with its time.
fn rejection(listed: Listed) -> Option<(ObjectName, u64)> {
    let (scope_id, result) =
        listed.name.as_str().strip_prefix(layout::REJECTED)?.split_once('/')?;
    let well = is_hex(scope_id, SCOPE_ID_CHARS) && layout::parse_result(result).is_some();
    well.then_some((listed.name, listed.used_ms))
}

/// Events of a job, with their time.
fn events(listed: Listed) -> Option<(ObjectName, u64)> {
    let scope_id = layout::parse_events(&listed.name)?;
    is_hex(&scope_id, SCOPE_ID_CHARS).then_some((listed.name, listed.used_ms))
}

/// An announcement, or what says that it is over, with its time.
fn announcement(listed: Listed) -> Option<(ObjectName, u64)> {
    let at_ms = layout::parse_timed(&listed.name)?;
    is_timed(&listed.name, layout::COLLECTING).then_some((listed.name, at_ms))
}

/// Whether a name is one of [`layout::timed`] below a prefix, or named after one.
fn is_timed(name: &ObjectName, prefix: &str) -> bool {
    let last = name.as_str().strip_prefix(prefix).unwrap_or_default();
    let last = last.strip_suffix(".done").unwrap_or(last);
    last.split_once('-').is_some_and(|(order, chance)| is_hex(order, 16) && is_hex(chance, 16))
}

fn is_hex(text: &str, chars: usize) -> bool {
    text.len() == chars && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// Characters of [`crate::Scope::id`].
const SCOPE_ID_CHARS: usize = 32;

fn kept_pack(listed: Listed) -> Option<KeptPack> {
    let (scope_id, _) = layout::parse_together(&listed.name)?;
    let (prefix, _) = listed.name.as_str().rsplit_once('/')?;
    let well = is_hex(&scope_id, SCOPE_ID_CHARS) && is_timed(&listed.name, &format!("{prefix}/"));
    let (object, stored_ms) = (listed.name, listed.used_ms);
    well.then_some(KeptPack { object, scope_id, bytes: listed.size, stored_ms })
}

/// The bytes of an object in a frame; `None` when it went, `Some(None)` when they are none of it.
async fn frame(backend: &dyn Backend, object: &ObjectName) -> StoreResult<Option<Option<Bytes>>> {
    let Some(body) = backend.get(object).await? else { return Ok(None) };
    match body.into_bytes(object, entry::max_frame(object)).await {
        Ok(frame) => Ok(Some(Some(frame))),
        Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => Ok(Some(None)),
        Err(error) => Err(error),
    }
}

/// What a listed result is; `None` when it went meanwhile.
async fn kept_result(
    backend: &dyn Backend,
    object: ResultObject,
    listed: &Listed,
) -> StoreResult<Option<KeptResult>> {
    let content = if object.readable {
        match frame(backend, &listed.name).await? {
            None => return Ok(None),
            Some(None) => ResultContent::Damaged,
            Some(Some(frame)) => content(&object, &listed.name, frame),
        }
    } else {
        ResultContent::Foreign
    };
    Ok(Some(KeptResult {
        object: listed.name.clone(),
        scope_id: object.scope_id,
        unit: object.unit,
        result: object.result,
        generation: object.generation,
        bytes: listed.size,
        stored_ms: listed.used_ms,
        used_ms: listed.used_ms,
        content,
        pinned: false,
    }))
}

fn content(object: &ResultObject, name: &ObjectName, frame: Bytes) -> ResultContent {
    let Ok((record, inline)) = pack::decode_object(name, (&object.unit, &object.result), frame)
    else {
        return ResultContent::Damaged;
    };
    let inline: HashSet<_> = inline.into_iter().map(|(digest, _)| digest).collect();
    let blobs = record.blobs().into_iter().map(|(digest, _)| digest);
    ResultContent::Read {
        unit_name: format!("{} {}", record.unit.crate_name, record.unit.version).trim().to_owned(),
        cost_ms: record.cost.wall_ms,
        blobs: blobs.filter(|digest| !inline.contains(digest)).collect(),
    }
}

/// When each result of a scope was last used.
async fn read_used(
    backend: &dyn Backend,
    objects: &[Listed],
) -> StoreResult<HashMap<(String, ResultKey), u64>> {
    let mut reads = Vec::with_capacity(objects.len());
    for listed in objects {
        reads.push(async move { StoreResult::Ok((listed, frame(backend, &listed.name).await?)) });
    }
    let pages: Vec<_> =
        stream::iter(reads).buffered(limits::REMOTE_LOOKUPS_AT_ONCE).try_collect().await?;
    let mut used: HashMap<(String, ResultKey), u64> = HashMap::new();
    for (listed, frame) in pages {
        let page = layout::parse_used(&listed.name);
        let results = frame.flatten().and_then(|frame| uses::decode(&listed.name, frame));
        let (Some((scope_id, day)), Some(results)) = (page, results) else { continue };
        for result in results {
            let last = used.entry((scope_id.clone(), result)).or_default();
            *last = uses::end_of(day).max(*last);
        }
    }
    Ok(used)
}
