//! Reading from the cache: which copies are tried, and what becomes known of those that are no good.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;

use super::GhaRemote;
use super::client::{CacheError, Deadline, Span};
use super::fetch::{Bad, Item, Wanted, WantedBlob, fetch};
use super::limits;
use super::pack::{PackId, open_blob};
use super::view::{Place, View};
use crate::backend::{Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ResultKey, Scope, UnitKey};
use crate::remote::{Arrived, ResultName};

impl GhaRemote {
    /// When reading so many bytes has to be over.
    fn until(&self, bytes: u64) -> Deadline {
        let moving = Duration::from_secs(bytes / limits::SLOWEST_READ_BYTES_PER_SECOND);
        Deadline::after(&*self.entries.clock, limits::READ_WITHIN + moving)
    }

    /// Whether what lies there can be read as far as this process knows.
    pub(super) fn is_good(&self, pack: &PackId, offset: u64) -> bool {
        let now = self.now_ms();
        let again = limits::MANIFEST_MAX_AGE.as_millis() as u64;
        let bad = self.bad();
        let missed = bad.packs.get(pack).is_some_and(|missed| now < missed + again);
        !missed && !bad.places.contains(&(*pack, offset))
    }

    /// Whether what lies there need not be stored again: nobody knows of a pack that was not found, however long
    /// ago, that it is there.
    pub(super) fn is_stored(&self, pack: &PackId, offset: u64) -> bool {
        let bad = self.bad();
        !bad.packs.contains_key(pack) && !bad.places.contains(&(*pack, offset))
    }

    /// The views of scopes, those that can be had. An error only when there is none.
    async fn views(&self, scopes: &[Scope]) -> StoreResult<Vec<(Scope, Arc<View>)>> {
        let mut views = Vec::new();
        let mut failed = None;
        let asked = scopes.iter().map(|scope| self.views.get(scope));
        for (scope, view) in scopes.iter().zip(join_all(asked).await) {
            match view {
                Ok(view) => views.push((scope.clone(), view)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if views.is_empty() => Err(error.into()),
            _ => Ok(views),
        }
    }

    /// The newest results of units.
    pub(super) async fn read_newest(
        &self,
        scopes: &[Scope],
        units: &[UnitKey],
    ) -> StoreResult<Vec<Arrived>> {
        let views = self.views(scopes).await?;
        let arrived = self.fetch_copies(|there| self.newest(&views, units, there)).await?;
        // In the order in which they were asked for, newest first.
        let place = |one: &Arrived| {
            let unit = units.iter().position(|unit| *unit == one.name.unit);
            let scope = scopes.iter().position(|scope| *scope == one.name.scope);
            (unit, scope, Reverse(one.stored_ms))
        };
        let mut arrived: Vec<_> = arrived.into_iter().map(|one| (place(&one), one)).collect();
        arrived.sort_by_key(|(place, _)| *place);
        Ok(arrived.into_iter().map(|(_, one)| one).collect())
    }

    /// Results by name, with all blobs that are not too large.
    pub(super) async fn read_named(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        let mut scopes: Vec<Scope> = names.iter().map(|name| name.scope.clone()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let views: HashMap<Scope, Arc<View>> = self.views(&scopes).await?.into_iter().collect();
        self.fetch_copies(|there| self.named(&views, names, there)).await
    }

    /// Fetches what `plan` asks for, which is told what arrived already, until there is no other copy.
    async fn fetch_copies(
        &self,
        plan: impl Fn(&[Arrived]) -> Vec<Wanted> + Send + Sync,
    ) -> StoreResult<Vec<Arrived>> {
        let mut all = Vec::new();
        for _ in 0..limits::COPIES {
            let mut wanted = plan(&all);
            let mut bytes = 0;
            for one in wanted.iter_mut().filter(|one| one.whole) {
                bytes += one.at.whole_len;
                one.whole = bytes <= limits::MAX_ARRIVED_BYTES;
            }
            let items: Vec<_> = wanted.into_iter().map(Wanted::item).collect();
            let until = self.until(items.iter().map(|item| item.span.len).sum());
            let fetched = fetch(&self.entries, items, until).await;
            all.extend(fetched.arrived);
            self.were_read(fetched.read.iter());
            let again = self.heed(fetched.bad).await;
            match fetched.failed {
                Some(error) if all.is_empty() => return Err(error.into()),
                None if again => {}
                _ => break,
            }
        }
        Ok(all)
    }

    /// Where the newest results of units are, but for those that are there already.
    fn newest(
        &self,
        views: &[(Scope, Arc<View>)],
        units: &[UnitKey],
        there: &[Arrived],
    ) -> Vec<Wanted> {
        let mut arrived: HashMap<UnitKey, HashSet<ResultKey>> = HashMap::new();
        for one in there {
            arrived.entry(one.name.unit).or_default().insert(one.name.result);
        }
        let mut wanted = Vec::new();
        for unit in units {
            let there = arrived.entry(*unit).or_default();
            for (scope, view) in views {
                for (pack, at) in view.unit(unit) {
                    let full = there.len() >= crate::limits::MAX_RECORDS_PER_UNIT;
                    if !full && self.is_good(pack, at.offset) && there.insert(at.result) {
                        let (scope, view) = (scope.clone(), Arc::clone(view));
                        wanted.push(Wanted { scope, view, pack: *pack, at: *at, whole: false });
                    }
                }
            }
        }
        wanted
    }

    /// Where results are by name, but for those that are there already.
    fn named(
        &self,
        views: &HashMap<Scope, Arc<View>>,
        names: &[ResultName],
        there: &[Arrived],
    ) -> Vec<Wanted> {
        let there: HashSet<&ResultName> = there.iter().map(|one| &one.name).collect();
        let mut wanted = Vec::new();
        for name in names.iter().filter(|name| !there.contains(name)) {
            let Some(view) = views.get(&name.scope) else { continue };
            let found = view.unit(&name.unit).iter().find(|(pack, at)| {
                at.result == name.result
                    && at.generation == name.generation
                    && self.is_good(pack, at.offset)
            });
            if let Some((pack, at)) = found {
                let (scope, view) = (name.scope.clone(), Arc::clone(view));
                wanted.push(Wanted { scope, view, pack: *pack, at: *at, whole: true });
            }
        }
        wanted
    }

    /// The best place of a blob in a view.
    fn place(&self, view: &View, digest: &Digest) -> Option<Place> {
        let mut places = view.blob(digest).iter();
        places.find(|place| self.is_good(&place.pack, place.span.offset)).copied()
    }

    /// A blob: in memory, or a large one as a stream.
    pub(super) async fn read_blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>> {
        let views = self.views(&self.views.scopes()).await?;
        let mut failed = None;
        for (scope, view) in &views {
            for _ in 0..limits::COPIES {
                let Some(place) = self.place(view, digest) else { break };
                match self.read_place(&place, digest, size).await {
                    Ok(Some(body)) => {
                        self.were_read([&place.pack]);
                        return Ok(Some(body));
                    }
                    Ok(None) => {
                        self.heed(vec![Bad::Missing(scope.clone(), place.pack)]).await;
                    }
                    Err(None) => {
                        let span = place.span;
                        self.heed(vec![Bad::Blob(scope.clone(), place.pack, span)]).await;
                    }
                    Err(Some(error)) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(None), |error| Err(error.into()))
    }

    /// What lies in a place: nothing when the pack is not there, an error without a cause when it is damaged.
    async fn read_place(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<Body>, Option<CacheError>> {
        let key = place.pack.key();
        if place.raw {
            if place.span.len != size {
                return Err(None);
            }
            return self.stream(key, place.span).await.map_err(Some);
        }
        let read = self
            .entries
            .read(&key, Some(place.span), self.until(place.span.len))
            .await
            .map_err(Some)?;
        let Some(frame) = read else { return Ok(None) };
        let digest = *digest;
        match tokio::task::spawn_blocking(move || open_blob(&digest, frame)).await {
            Ok(Ok(bytes)) => Ok(Some(Body::Bytes(bytes))),
            _ => Err(None),
        }
    }

    /// The bytes of a large blob, part by part. The first part is read before this returns.
    async fn stream(&self, key: String, span: Span) -> Result<Option<Body>, CacheError> {
        let part = move |offset: u64| Span {
            offset,
            len: (span.end() - offset).min(limits::MAX_READ_BYTES),
        };
        let first = self
            .entries
            .read(&key, Some(part(span.offset)), self.until(limits::MAX_READ_BYTES))
            .await?;
        let Some(first) = first else { return Ok(None) };
        let entries = Arc::clone(&self.entries);
        let part_within = self.until(limits::MAX_READ_BYTES).left(&*entries.clock);
        let next = span.offset + first.len() as u64;
        let parts = stream::unfold((Some(first), next), move |(read, at)| {
            let (entries, key) = (Arc::clone(&entries), key.clone());
            async move {
                if let Some(bytes) = read {
                    return Some((Ok(bytes), (None, at)));
                }
                if at >= span.end() {
                    return None;
                }
                let until = Deadline::after(&*entries.clock, part_within);
                match entries.read(&key, Some(part(at)), until).await {
                    Ok(Some(bytes)) => {
                        let next = at + bytes.len() as u64;
                        Some((Ok(bytes), (None, next)))
                    }
                    Ok(None) => {
                        let gone = StoreError::Unavailable("a pack went away".into());
                        Some((Err(gone), (None, span.end())))
                    }
                    Err(error) => Some((Err(error.into()), (None, span.end()))),
                }
            }
        });
        Ok(Some(Body::Stream { stream: Box::pin(parts), len: span.len }))
    }

    /// Many blobs, neighbours in one range.
    pub(super) async fn read_blobs(
        &self,
        wanted: &[(Digest, u64)],
    ) -> StoreResult<Vec<(Digest, Bytes)>> {
        let views = self.views(&self.views.scopes()).await?;
        let mut items = Vec::new();
        let mut bytes = 0;
        for (digest, size) in wanted {
            let found = views.iter().find_map(|(scope, view)| {
                Some((scope, self.place(view, digest).filter(|place| !place.raw)?))
            });
            let Some((scope, place)) = found else { continue };
            bytes += size;
            if bytes > limits::MAX_ARRIVED_BYTES {
                break;
            }
            let what = WantedBlob { scope: scope.clone(), digest: *digest };
            items.push(Item { pack: place.pack, span: place.span, what });
        }
        let fetched = fetch(&self.entries, items, self.until(bytes)).await;
        self.were_read(fetched.read.iter());
        self.heed(fetched.bad).await;
        match fetched.failed {
            Some(error) if fetched.arrived.is_empty() => Err(error.into()),
            _ => Ok(fetched.arrived),
        }
    }

    /// Remembers what proved to be missing or damaged, for this process and for the next manifest. Whether
    /// there was anything.
    async fn heed(&self, all: Vec<Bad>) -> bool {
        let any = !all.is_empty();
        for bad in all {
            match bad {
                Bad::Missing(scope, pack) => self.mark_missing(&scope, pack).await,
                Bad::Result(scope, pack, at) => {
                    self.counters.damaged();
                    self.mark_damaged(&scope, pack, at.offset);
                }
                Bad::Blob(scope, pack, span) => {
                    self.counters.damaged();
                    self.forget(pack, span.offset);
                    let view = self.views.now(&scope).await;
                    if let Some(at) = view.result_around(&pack, span) {
                        self.mark_damaged(&scope, pack, at.offset);
                    }
                }
            }
        }
        any
    }

    /// Packs that were not found before are there: lookups lagged.
    fn were_read<'a>(&self, packs: impl IntoIterator<Item = &'a PackId>) {
        let mut bad = self.bad();
        for pack in packs {
            bad.packs.remove(pack);
        }
    }

    fn forget(&self, pack: PackId, offset: u64) {
        let mut bad = self.bad();
        if bad.places.len() >= limits::MAX_DEAD_RESULTS {
            bad.places.clear();
        }
        bad.places.insert((pack, offset));
    }

    /// A result proved damaged.
    pub(super) fn mark_damaged(&self, scope: &Scope, pack: PackId, offset: u64) {
        self.forget(pack, offset);
        self.collected.tell(scope, |mine| {
            mine.dead.insert((pack, offset));
        });
    }

    /// Of a young pack, lookups may lag; an old one is gone.
    async fn mark_missing(&self, scope: &Scope, pack: PackId) {
        let now = self.now_ms();
        {
            let mut bad = self.bad();
            if bad.packs.len() >= limits::MAX_GONE_PACKS {
                bad.packs.clear();
            }
            bad.packs.insert(pack, now);
        }
        let view = self.views.now(scope).await;
        let gone = limits::GONE_AFTER.as_millis() as u64;
        if view.manifest.packs.get(&pack).is_some_and(|index| index.created_ms + gone < now) {
            self.collected.tell(scope, |mine| {
                mine.gone.insert(pack, now);
            });
        }
    }
}
