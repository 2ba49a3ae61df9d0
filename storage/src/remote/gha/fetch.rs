//! Results and blobs out of packs: which ranges are read, and what becomes of their bytes.
//!
//! The plan is pure. What cannot be read, or is not what it has to be, is absent; the caller is told which
//! packs were not found and which results proved damaged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::client::{CacheError, Deadline, Span};
use super::entries::Entries;
use super::limits;
use super::pack::{BlobId, PackId, ResultAt, open_blob, open_record};
use super::view::View;
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

/// One range to read, and what lies in it.
#[derive(Debug)]
struct Read {
    pack: PackId,
    span: Span,
    wanted: Vec<Wanted>,
}

/// What was fetched, and what was not.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) arrived: Vec<Arrived>,
    pub(super) damaged: Vec<(Scope, PackId, ResultAt)>,
    pub(super) missing: Vec<(Scope, PackId)>,
    pub(super) failed: Option<CacheError>,
}

/// The ranges of packs that bring what is wanted: neighbours as one, within a size.
fn plan(wanted: Vec<Wanted>) -> Vec<Read> {
    let mut packs: BTreeMap<PackId, Vec<Wanted>> = BTreeMap::new();
    for one in wanted {
        packs.entry(one.pack).or_default().push(one);
    }
    let mut reads: Vec<Read> = Vec::new();
    for (pack, mut wanted) in packs {
        wanted.sort_by_key(Wanted::span);
        for one in wanted {
            let span = one.span();
            let near = reads.last_mut().filter(|read| {
                read.pack == pack
                    && span.offset <= read.span.end() + limits::COALESCE_GAP_BYTES
                    && span.end() - read.span.offset <= limits::MAX_READ_BYTES
            });
            match near {
                Some(read) => {
                    read.span.len = read.span.end().max(span.end()) - read.span.offset;
                    read.wanted.push(one);
                }
                None => reads.push(Read { pack, span, wanted: vec![one] }),
            }
        }
    }
    reads
}

/// Fetches results.
pub(super) async fn fetch(entries: &Entries, wanted: Vec<Wanted>, until: Deadline) -> Fetched {
    let reads = plan(wanted);
    let mut answers = stream::iter(reads)
        .map(|read| async move {
            let bytes = entries.read(&read.pack.key(), Some(read.span), until).await;
            (read, bytes)
        })
        .buffer_unordered(limits::READS_AT_A_TIME);
    let mut all = Fetched::default();
    while let Some((read, bytes)) = answers.next().await {
        match bytes {
            Ok(Some(bytes)) => unpack(read, bytes, &mut all).await,
            Ok(None) => {
                all.missing.extend(read.wanted.into_iter().map(|one| (one.scope, one.pack)));
            }
            Err(error) => all.failed = Some(error),
        }
    }
    all
}

/// Checks and decompresses what lies in a range, off the threads that do I/O.
async fn unpack(read: Read, bytes: Bytes, all: &mut Fetched) {
    let opened = tokio::task::spawn_blocking(move || {
        let open = |one: Wanted| {
            let result = open_result(&one, read.span, &bytes);
            result.map_err(|_| Box::new((one.scope, one.pack, one.at)))
        };
        read.wanted.into_iter().map(open).collect::<Vec<_>>()
    });
    for result in opened.await.unwrap_or_default() {
        match result {
            Ok(arrived) => all.arrived.push(arrived),
            Err(damaged) => all.damaged.push(*damaged),
        }
    }
}

/// The part of what was read that is a span of the pack.
fn slice(bytes: &Bytes, read: Span, span: Span) -> Option<Bytes> {
    let from = usize::try_from(span.offset.checked_sub(read.offset)?).ok()?;
    let to = from.checked_add(usize::try_from(span.len).ok()?)?;
    (to <= bytes.len()).then(|| bytes.slice(from..to))
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
        for at in index.blobs_in(one.span()) {
            let Some(digest) = digests.get(&at.blob) else { continue };
            let frame = slice(bytes, read, at.span).ok_or_else(outside)?;
            blobs.push((*digest, open_blob(digest, frame)?));
        }
    }
    Ok(Arrived { name, record, blobs, stored_ms: one.at.stored_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::key::{ResultKey, UnitKey};

    fn wanted(pack: u8, offset: u64, len: u64) -> Wanted {
        let digest = Digest::of(&offset.to_le_bytes());
        let at = ResultAt {
            unit: UnitKey::new(digest),
            result: ResultKey::new(digest),
            generation: 0,
            stored_ms: 0,
            offset,
            record_len: 1,
            head_len: len,
            whole_len: len * 10,
        };
        Wanted {
            scope: Scope::local_user(1),
            view: Arc::default(),
            pack: PackId(Digest::of(&[pack])),
            at,
            whole: false,
        }
    }

    /// Offset and end of each read, and how many results it brings.
    fn planned(wanted: Vec<Wanted>) -> Vec<(u64, u64, usize)> {
        let mut reads: Vec<_> = plan(wanted)
            .into_iter()
            .map(|read| (read.span.offset, read.span.end(), read.wanted.len()))
            .collect();
        reads.sort_unstable();
        reads
    }

    #[test]
    fn neighbours_are_read_at_once() {
        let gap = limits::COALESCE_GAP_BYTES;
        assert_eq!(planned(vec![wanted(1, 200, 50), wanted(1, 100, 100)]), [(100, 250, 2)]);
        assert_eq!(planned(vec![wanted(1, 0, 10), wanted(1, 10 + gap, 10)]), [(0, 20 + gap, 2)]);
        let apart = planned(vec![wanted(1, 0, 10), wanted(1, 11 + gap, 10)]);
        assert_eq!(apart, [(0, 10, 1), (11 + gap, 21 + gap, 1)]);
        assert_eq!(planned(vec![wanted(1, 0, 10), wanted(2, 10, 10)]).len(), 2, "two packs");
        assert_eq!(planned(vec![wanted(1, 0, 10), wanted(1, 0, 10)]), [(0, 10, 2)], "the same");
    }

    #[test]
    fn a_read_has_a_bound_unless_one_result_is_larger() {
        let most = limits::MAX_READ_BYTES;
        assert_eq!(planned(vec![wanted(1, 0, most - 5), wanted(1, most - 5, 10)]).len(), 2);
        assert_eq!(planned(vec![wanted(1, 0, most * 2)]), [(0, most * 2, 1)]);
    }
}
