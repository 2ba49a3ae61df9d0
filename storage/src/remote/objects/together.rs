//! Packs of jobs in a bucket: reading those that a note names, writing new ones, deleting old ones. Called by
//! [`super`]; what is in a pack is in [`crate::remote::together`].
//!
//! A result that proved wrong is deleted, and named below `rejected/`, so that no pack gives it any more: whoever
//! reads a pack looks there, and whoever writes one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::timeout_at;

use super::{ObjectRemote, chance, joined, layout, lock, now_ms, pack};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, ResultKey, Scope};
use crate::limits;
use crate::record::Record;
use crate::remote::ResultName;
use crate::remote::together::{BlobIn, Contents, Incoming, PackName, ToWrite, Written};

type Rejected = HashSet<(ResultKey, u32)>;

impl ObjectRemote {
    pub(super) async fn read_packs(&self, packs: &[PackName]) -> StoreResult<Vec<Incoming>> {
        let named = packs.iter().filter_map(|pack| pack.0.parse::<ObjectName>().ok());
        let named = named.filter_map(|name| Some((layout::parse_together(&name)?.0, name)));
        let named: Vec<(String, ObjectName)> = named.take(limits::MAX_JOB_PACKS).collect();
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let refused = self.rejected(named.iter().map(|(scope, _)| scope.clone()).collect());
        let gets: Vec<_> = named.iter().map(|(_, name)| self.backend.get(name)).collect();
        let gets = stream::iter(gets).buffered(limits::REMOTE_LOOKUPS_AT_ONCE).try_collect();
        let (refused, bodies): (Rejected, Vec<Option<Body>>) = tokio::try_join!(refused, gets)?;
        let begun = named.iter().zip(bodies).filter_map(|((_, name), body)| {
            Some(Incoming::begin(name.clone(), body?, refused.clone()))
        });
        let begun: Vec<_> =
            stream::iter(begun.collect::<Vec<_>>()).buffered(limits::MAX_JOB_PACKS).collect().await;
        let mut packs = Vec::with_capacity(begun.len());
        for pack in begun {
            match pack {
                Ok(pack) => packs.push(pack),
                Err(StoreError::Damaged { .. }) => self.count_damaged(),
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    fn count_damaged(&self) {
        self.damaged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// The results of some scopes that no pack may give, here and there.
    async fn rejected(&self, scopes: BTreeSet<String>) -> StoreResult<Rejected> {
        let mut rejected = HashSet::new();
        for scope in scopes {
            rejected.extend(self.rejected_in(&scope).await?);
        }
        Ok(rejected)
    }

    /// Those of one scope.
    async fn rejected_in(&self, scope_id: &str) -> StoreResult<Rejected> {
        let prefix = layout::rejected_prefix(scope_id);
        let listing = self.backend.list(&prefix).take(limits::MAX_REJECTED + 1);
        let listed: Vec<_> = listing.try_collect().await?;
        if listed.len() > limits::MAX_REJECTED {
            // All of them cannot be known: no pack is used.
            return Err(StoreError::Unavailable(format!("{}: too much is rejected", self.shown)));
        }
        let below = listed.iter().filter_map(|listed| listed.name.as_str().strip_prefix(&prefix));
        let mut rejected: Rejected = below.filter_map(layout::parse_result).collect();
        rejected.extend(lock(&self.rejected).iter().map(|name| (name.result, name.generation)));
        Ok(rejected)
    }

    /// Says that no pack may give a result any more.
    pub(super) async fn reject_in_packs(&self, name: &ResultName) -> StoreResult<()> {
        let said = Body::Bytes(Bytes::from_static(b"rejected\n"));
        self.backend.put_if_absent(&layout::rejected(name), said).await.map(drop)
    }

    pub(super) async fn delete_packs(
        &self,
        scope: &Scope,
        note: &str,
        keep: &[PackName],
    ) -> StoreResult<()> {
        let grace = u64::try_from(limits::ORPHAN_GRACE.as_millis()).unwrap_or(u64::MAX);
        let listing = self.backend.list(&layout::together_prefix(scope, note));
        let mut old: Vec<ObjectName> = listing.map_ok(|listed| listed.name).try_collect().await?;
        old.retain(|name| {
            let at = layout::parse_timed(name);
            at.is_some_and(|at| at.saturating_add(grace) < now_ms())
                && !keep.iter().any(|keep| keep.0 == name.as_str())
        });
        if old.is_empty() { Ok(()) } else { self.backend.delete_all(&old).await }
    }

    pub(super) async fn write_packs(&self, what: &ToWrite<'_>, local: &dyn Backend) -> Written {
        let mut writer = Writer::new(self, what);
        if let Err(error) = writer.all(what.results, local).await {
            writer.written.failed = Some(error);
        }
        writer.told()
    }
}

/// Writes packs one after another.
struct Writer<'a> {
    remote: &'a ObjectRemote,
    prefix: String,
    left: u64,
    until: Instant,
    seen: HashSet<Digest>,
    building: Contents,
    frames: Vec<Bytes>,
    /// Whose frame is each of them.
    owners: Vec<ResultKey>,
    /// Frames of a result that are not durable, and bytes of those that are; none when one cannot be had.
    state: HashMap<ResultKey, Option<(usize, u64)>>,
    written: Written,
}

/// A blob that is put into a pack, and the one that it may be stored without.
type Large = (ResultKey, (Digest, u64), Option<(Digest, u64)>);

impl<'a> Writer<'a> {
    fn new(remote: &'a ObjectRemote, what: &ToWrite<'_>) -> Self {
        Self {
            remote,
            prefix: layout::together_prefix(what.scope, what.note),
            left: what.bytes,
            until: what.until,
            seen: what.packed.clone(),
            building: Contents::default(),
            frames: Vec::new(),
            owners: Vec::new(),
            state: HashMap::new(),
            written: Written::default(),
        }
    }

    fn told(self) -> Written {
        let whole = self.state.into_iter().filter_map(|(result, state)| match state {
            Some((0, bytes)) => Some((result, bytes)),
            _ => None,
        });
        Written { results: whole.collect(), ..self.written }
    }

    async fn all(
        &mut self,
        results: &[(ResultName, Record)],
        local: &dyn Backend,
    ) -> StoreResult<()> {
        let scopes = results.iter().map(|(name, _)| name.scope.id()).collect();
        let rejected = self.remote.rejected(scopes).await?;
        let mut large: Vec<Large> = Vec::new();
        for (name, record) in results {
            if rejected.contains(&(name.result, name.generation)) {
                continue;
            }
            match self.result(name, record, local).await {
                Ok(of_result) => large.extend(of_result),
                // Damaged or gone here: others may be whole.
                Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => {}
                Err(error) => return Err(error),
            }
            if self.left == 0 {
                break;
            }
        }
        for (result, blob, part) in large {
            let added = self.blob(result, blob, part, local).await;
            match added {
                Ok(true) => {}
                Ok(false) => self.lack(result),
                Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => self.lack(result),
                Err(error) => return Err(error),
            }
        }
        self.end_pack().await
    }

    fn lack(&mut self, result: ResultKey) {
        self.state.insert(result, None);
    }

    /// Adds a result; its blobs that are to come.
    async fn result(
        &mut self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Vec<Large>> {
        let json = serde_json::to_vec(record)
            .map_err(|error| StoreError::Unavailable(format!("a record: {error}")))?;
        let (inline, large) = self.remote.sort_out(record, json.len(), local).await?;
        let of = name.clone();
        let frame = self.remote.blocking(usize::MAX, move || pack::encode(&of, &json, &inline));
        let too_large = |_| StoreError::TooLarge { name: layout::result(name), size: 0 };
        let frame = frame.await?.map_err(too_large)?;
        let len = frame.len() as u64;
        if len > self.left {
            self.left = 0;
            return Ok(Vec::new());
        }
        self.building.results.push((name.clone(), len));
        self.state.insert(name.result, Some((0, 0)));
        self.add(name.result, frame.into()).await?;
        let pairs = joined::pairs(&record.outputs);
        let mut ordered = Vec::with_capacity(large.len());
        let whole = |digest: &Digest| pairs.iter().find(|(whole, _)| whole == digest);
        for blob in &large {
            let part = whole(&blob.0).map(|(_, part)| *part).filter(|part| large.contains(part));
            let is_part = pairs.iter().any(|(_, part)| part == blob);
            match part {
                Some(part) => {
                    ordered.push((name.result, part, None));
                    ordered.push((name.result, *blob, Some(part)));
                }
                None if !is_part => ordered.push((name.result, *blob, None)),
                None => {}
            }
        }
        // Parts whose whole is not among the large ones.
        let named: HashSet<Digest> = ordered.iter().map(|(_, blob, _)| blob.0).collect();
        let rest = large.into_iter().filter(|blob| !named.contains(&blob.0));
        ordered.extend(rest.map(|blob| (name.result, blob, None)));
        Ok(ordered)
    }

    /// Adds a blob, unless a pack has it; whether one has it then.
    async fn blob(
        &mut self,
        result: ResultKey,
        (digest, size): (Digest, u64),
        part: Option<(Digest, u64)>,
        local: &dyn Backend,
    ) -> StoreResult<bool> {
        if self.seen.contains(&digest) {
            return Ok(true);
        }
        if size > limits::MAX_FRAMED_BLOB_BYTES as u64 || self.left == 0 {
            return Ok(false);
        }
        let mut blob = self.remote.framed(digest, size, local).await?;
        let before = self.building.blobs.last();
        let part = part.filter(|part| before.is_some_and(|b| b.digest == part.0 && !b.joined));
        let mut joined = false;
        if let Some((part, part_size)) = part {
            joined = self.remote.take_out(&mut blob, part, part_size, local).await?;
        }
        let len = blob.frame.len() as u64;
        if len > self.left {
            self.left = 0;
            return Ok(false);
        }
        self.seen.insert(digest);
        self.building.blobs.push(BlobIn { digest, size, len, joined });
        self.add(result, blob.frame.into()).await?;
        Ok(true)
    }

    async fn add(&mut self, result: ResultKey, frame: Bytes) -> StoreResult<()> {
        if let Some(Some((waiting, _))) = self.state.get_mut(&result) {
            *waiting += 1;
        }
        if Instant::now() >= self.until {
            return Err(self.late());
        }
        self.left -= frame.len() as u64;
        self.frames.push(frame);
        self.owners.push(result);
        let bytes: usize = self.frames.iter().map(Bytes::len).sum();
        if bytes as u64 >= limits::JOB_PACK_BYTES { self.end_pack().await } else { Ok(()) }
    }

    fn late(&self) -> StoreError {
        StoreError::Unavailable(format!("{}: no time for packs", self.remote.shown))
    }

    async fn end_pack(&mut self) -> StoreResult<()> {
        let (contents, frames) =
            (std::mem::take(&mut self.building), std::mem::take(&mut self.frames));
        let owners = std::mem::take(&mut self.owners);
        if frames.is_empty() {
            return Ok(());
        }
        let name = layout::timed(&self.prefix, now_ms(), chance());
        let head = contents.encode();
        let head = head.ok_or_else(|| StoreError::TooLarge { name: name.clone(), size: 0 })?;
        let lens: Vec<u64> = frames.iter().map(|frame| frame.len() as u64).collect();
        let mut pack = head;
        frames.iter().for_each(|frame| pack.extend_from_slice(frame));
        drop(frames);
        let bytes = pack.len() as u64;
        let put = self.remote.backend.put_if_absent(&name, Body::Bytes(pack.into()));
        timeout_at(self.until.into(), put).await.map_err(|_| self.late())??;
        self.written.packs.push(PackName(name.as_str().to_owned()));
        self.written.bytes += bytes;
        for (owner, len) in owners.into_iter().zip(lens) {
            if let Some(Some((waiting, durable))) = self.state.get_mut(&owner) {
                *waiting -= 1;
                *durable += len;
            }
        }
        Ok(())
    }
}
