//! Results and blobs out of packs: which ranges are read, and what becomes of their bytes.
//!
//! The plan is pure. What cannot be read, or is not what it has to be, is absent; the caller is told which
//! packs were not found and which results proved damaged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::client::{CacheError, Deadline, Span};
use super::entries::Entries;
use super::limits;
use super::pack::{BlobId, PackId, ResultAt, open_blob, open_record};
use super::view::View;
use crate::digest::Digest;
use crate::key::Scope;
use crate::remote::{Arrived, ResultName};

/// A result that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) scope: Scope,
    pub(super) view: Arc<View>,
    pub(super) pack: PackId,
    pub(super) at: ResultAt,
    /// With all of its blobs, not the small ones alone.
    pub(super) whole: bool,
}

impl Wanted {
    /// This, with where it lies.
    pub(super) fn item(self) -> Item<Self> {
        Item { pack: self.pack, span: self.span(), what: self }
    }

    fn span(&self) -> Span {
        if self.whole { self.at.whole() } else { self.at.head() }
    }

    fn name(&self) -> ResultName {
        ResultName {
            scope: self.scope.clone(),
            unit: self.at.unit,
            result: self.at.result,
            generation: self.at.generation,
        }
    }
}

/// Something that lies in a pack.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) pack: PackId,
    pub(super) span: Span,
    pub(super) what: T,
}

/// One range to read, and what lies in it.
#[derive(Debug)]
struct Read<T> {
    pack: PackId,
    span: Span,
    items: Vec<Item<T>>,
}

/// What proved to be no good.
#[derive(Debug)]
pub(super) enum Bad {
    /// A pack was not found.
    Missing(Scope, PackId),
    /// A result is damaged.
    Result(Scope, PackId, ResultAt),
    /// A blob is damaged.
    Blob(Scope, PackId, Span),
}

/// What was fetched, and what was not.
#[derive(Debug)]
pub(super) struct Fetched<A> {
    pub(super) arrived: Vec<A>,
    pub(super) bad: Vec<Bad>,
    /// Packs that are there.
    pub(super) read: HashSet<PackId>,
    pub(super) failed: Option<CacheError>,
}

/// The ranges of packs that bring what is wanted: neighbours as one, within a size.
fn plan<T>(items: Vec<Item<T>>) -> Vec<Read<T>> {
    let mut packs: BTreeMap<PackId, Vec<Item<T>>> = BTreeMap::new();
    for item in items {
        packs.entry(item.pack).or_default().push(item);
    }
    let mut reads: Vec<Read<T>> = Vec::new();
    for (pack, mut items) in packs {
        items.sort_by_key(|item| item.span);
        for item in items {
            let span = item.span;
            let near = reads.last_mut().filter(|read| {
                read.pack == pack
                    && span.offset <= read.span.end() + limits::COALESCE_GAP_BYTES
                    && span.end() - read.span.offset <= limits::MAX_READ_BYTES
            });
            match near {
                Some(read) => {
                    read.span.len = read.span.end().max(span.end()) - read.span.offset;
                    read.items.push(item);
                }
                None => reads.push(Read { pack, span, items: vec![item] }),
            }
        }
    }
    reads
}

/// What is wanted, and how it is taken out of what was read.
pub(super) trait Open: Sized + Send + 'static {
    /// What it is when it is taken out.
    type Out: Send + 'static;
    /// Where it is wanted from.
    fn scope(&self) -> &Scope;
    /// Takes it out of the bytes of a range, after every check.
    fn open(item: Item<Self>, read: Span, bytes: &Bytes) -> Result<Self::Out, Box<Bad>>;
}

/// Fetches what lies in packs.
pub(super) async fn fetch<T: Open>(
    entries: &Entries,
    items: Vec<Item<T>>,
    until: Deadline,
) -> Fetched<T::Out> {
    let mut answers = stream::iter(plan(items))
        .map(|read| async move {
            let bytes = entries.read(&read.pack.key(), Some(read.span), until).await;
            (read, bytes)
        })
        .buffer_unordered(limits::READS_AT_A_TIME);
    let (arrived, bad, read) = Default::default();
    let mut all = Fetched { arrived, bad, read, failed: None };
    while let Some((read, bytes)) = answers.next().await {
        match bytes {
            Ok(Some(bytes)) => {
                all.read.insert(read.pack);
                unpack(read, bytes, &mut all).await;
            }
            Ok(None) => {
                let scopes: HashSet<Scope> =
                    read.items.iter().map(|item| item.what.scope().clone()).collect();
                all.bad.extend(scopes.into_iter().map(|scope| Bad::Missing(scope, read.pack)));
            }
            Err(error) => all.failed = Some(error),
        }
    }
    all
}

/// Checks and decompresses what lies in a range, off the threads that do I/O.
async fn unpack<T: Open>(read: Read<T>, bytes: Bytes, all: &mut Fetched<T::Out>) {
    let opened = tokio::task::spawn_blocking(move || {
        let open = |item| T::open(item, read.span, &bytes);
        read.items.into_iter().map(open).collect::<Vec<_>>()
    });
    for result in opened.await.unwrap_or_default() {
        match result {
            Ok(arrived) => all.arrived.push(arrived),
            Err(bad) => all.bad.push(*bad),
        }
    }
}

/// The part of what was read that is a span of the pack.
fn slice(bytes: &Bytes, read: Span, span: Span) -> Option<Bytes> {
    let from = usize::try_from(span.offset.checked_sub(read.offset)?).ok()?;
    let to = from.checked_add(usize::try_from(span.len).ok()?)?;
    (to <= bytes.len()).then(|| bytes.slice(from..to))
}

impl Open for Wanted {
    type Out = Arrived;

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn open(item: Item<Self>, read: Span, bytes: &Bytes) -> Result<Arrived, Box<Bad>> {
        let one = item.what;
        let opened = open_result(&one, read, bytes);
        opened.map_err(|_| Box::new(Bad::Result(one.scope, one.pack, one.at)))
    }
}

fn open_result(one: &Wanted, read: Span, bytes: &Bytes) -> Result<Arrived, String> {
    let outside = || "outside of its pack".to_owned();
    let name = one.name();
    let at = Span { offset: one.at.offset, len: one.at.record_len };
    let record = open_record(&name, slice(bytes, read, at).ok_or_else(outside)?)?;
    let digests: HashMap<_, _> =
        record.blobs().into_iter().map(|(digest, _)| (BlobId::of(&digest), digest)).collect();
    let mut blobs = Vec::new();
    if let Some(index) = one.view.manifest.packs.get(&one.pack) {
        for at in index.blobs_in(one.span()).filter(|at| !at.raw) {
            let Some(digest) = digests.get(&at.blob) else { continue };
            let frame = slice(bytes, read, at.span).ok_or_else(outside)?;
            blobs.push((*digest, open_blob(digest, frame)?));
        }
    }
    Ok(Arrived { name, record, blobs, stored_ms: one.at.stored_ms })
}

/// A blob that is wanted.
#[derive(Debug)]
pub(super) struct WantedBlob {
    pub(super) scope: Scope,
    pub(super) digest: Digest,
}

impl Open for WantedBlob {
    type Out = (Digest, Bytes);

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn open(item: Item<Self>, read: Span, bytes: &Bytes) -> Result<Self::Out, Box<Bad>> {
        let Self { scope, digest } = item.what;
        let frame = slice(bytes, read, item.span);
        match frame.map(|frame| open_blob(&digest, frame)) {
            Some(Ok(bytes)) => Ok((digest, bytes)),
            _ => Err(Box::new(Bad::Blob(scope, item.pack, item.span))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(pack: u8, offset: u64, len: u64) -> Item<()> {
        Item { pack: PackId(Digest::of(&[pack])), span: Span { offset, len }, what: () }
    }

    /// Offset and end of each read, and how many things it brings.
    fn planned(items: Vec<Item<()>>) -> Vec<(u64, u64, usize)> {
        let mut reads: Vec<_> = plan(items)
            .into_iter()
            .map(|read| (read.span.offset, read.span.end(), read.items.len()))
            .collect();
        reads.sort_unstable();
        reads
    }

    #[test]
    fn neighbours_are_read_at_once() {
        let gap = limits::COALESCE_GAP_BYTES;
        assert_eq!(planned(vec![item(1, 200, 50), item(1, 100, 100)]), [(100, 250, 2)]);
        assert_eq!(planned(vec![item(1, 0, 10), item(1, 10 + gap, 10)]), [(0, 20 + gap, 2)]);
        let apart = planned(vec![item(1, 0, 10), item(1, 11 + gap, 10)]);
        assert_eq!(apart, [(0, 10, 1), (11 + gap, 21 + gap, 1)]);
        assert_eq!(planned(vec![item(1, 0, 10), item(2, 10, 10)]).len(), 2, "two packs");
        assert_eq!(planned(vec![item(1, 0, 10), item(1, 0, 10)]), [(0, 10, 2)], "the same");
        assert_eq!(planned(vec![item(1, 0, 100), item(1, 50, 10)]), [(0, 100, 2)], "inside");
    }

    #[test]
    fn a_read_has_a_bound_unless_one_thing_is_larger() {
        let most = limits::MAX_READ_BYTES;
        assert_eq!(planned(vec![item(1, 0, most - 5), item(1, most - 5, 10)]).len(), 2);
        assert_eq!(planned(vec![item(1, 0, most * 2)]), [(0, most * 2, 1)]);
    }
}
