//! Merging manifests, their stored form, and their bounds.

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::key::{ResultKey, Scope, UnitKey};
use crate::remote::gha::client::Span;
use crate::remote::gha::pack::{BlobAt, BlobId, ResultAt};

fn scope() -> Scope {
    Scope::new("owner/name", "refs/heads/main")
}

/// The pack of a number: its index is a function of its id, as with real ones.
fn pack(number: u64) -> (PackId, Arc<PackIndex>) {
    let digest = |what: &str| Digest::of(format!("{what} {number}").as_bytes());
    let result = ResultAt {
        unit: UnitKey::new(digest("unit")),
        result: ResultKey::new(digest("result")),
        generation: 0,
        stored_ms: 1000 + number,
        offset: 28,
        record_len: 100,
        head_len: 150,
        whole_len: 200,
    };
    let blob = BlobAt {
        blob: BlobId::of(&digest("blob")),
        span: Span { offset: 128, len: 20 },
        raw: number % 2 == 1,
    };
    let index = PackIndex {
        created_ms: 1000 + number,
        bytes: 300,
        results: vec![result],
        blobs: vec![blob],
    };
    (PackId(digest("pack")), Arc::new(index))
}

fn seen() -> impl Strategy<Value = Seen> {
    proptest::collection::vec((1_u64..20, any::<bool>(), 0_u64..50), 0..8).prop_map(|steps| {
        let mut seen = Seen::default();
        for (number, merged, at) in steps {
            if merged { seen.add(number, at) } else { seen.miss(number, at) }
        }
        seen
    })
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let some = || proptest::collection::vec(0_u64..12, 0..6);
    let notes = proptest::collection::vec(("[a-c]", 0_u64..4, "[x-z]{0,2}"), 0..4);
    (seen(), some(), some(), some(), notes).prop_map(|(seen, packs, gone, dead, notes)| {
        let mut manifest = Manifest { seen, ..Manifest::default() };
        manifest.gone.extend(gone.iter().map(|n| (pack(*n).0, n * 7 % 5)));
        manifest.packs.extend(packs.into_iter().map(pack));
        manifest.packs.retain(|id, _| !manifest.gone.contains_key(id));
        manifest.dead.extend(dead.into_iter().map(|n| (pack(n).0, 28)));
        for (name, written_ms, text) in notes {
            let note = Note { written_ms, text: text.into() };
            let kept = manifest.notes.entry(name).or_insert_with(|| note.clone());
            *kept = note.max(kept.clone());
        }
        manifest
    })
}

fn merged(parts: &[&Manifest]) -> Manifest {
    let mut all = Manifest::default();
    parts.iter().for_each(|part| all.merge(part));
    all
}

proptest! {
    #[test]
    fn merging_knows_no_order_and_no_repetition(
        a in manifests(), b in manifests(), c in manifests(),
    ) {
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
        prop_assert_eq!(merged(&[&merged(&[&a, &b]), &c]), merged(&[&a, &merged(&[&b, &c])]));
        prop_assert_eq!(merged(&[&a, &a]), a.clone());
        prop_assert_eq!(merged(&[&a, &b, &a, &b]), merged(&[&a, &b]));
    }

    #[test]
    fn nothing_is_lost_in_a_merge_but_what_is_gone(a in manifests(), b in manifests()) {
        let all = merged(&[&a, &b]);
        for id in a.packs.keys().chain(b.packs.keys()) {
            prop_assert_eq!(all.packs.contains_key(id), !all.gone.contains_key(id));
        }
        for number in 1..25 {
            prop_assert_eq!(all.seen.has(number), a.seen.has(number) || b.seen.has(number));
        }
    }

    #[test]
    fn what_is_stored_is_what_is_read(manifest in manifests(), number in 1_u64..1000) {
        let mut manifest = manifest;
        manifest.seen.add(number, 5);
        manifest.prune(10);
        let bytes = encode(&manifest, &scope(), number).unwrap();
        prop_assert_eq!(decode(&scope(), number, bytes.clone()).unwrap(), manifest);
        prop_assert!(decode(&scope(), number + 1, bytes.clone()).is_err());
        prop_assert!(decode(&Scope::new("owner/name", "other"), number, bytes).is_err());
    }

    #[test]
    fn damage_is_seen(manifest in manifests(), at in any::<prop::sample::Index>()) {
        let mut manifest = manifest;
        manifest.seen.add(7, 5);
        manifest.prune(10);
        let mut bytes = encode(&manifest, &scope(), 7).unwrap().to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&scope(), 7, bytes.into()).is_err());
    }

    #[test]
    fn malformed_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let name = format!("manifest/{}/7", scope().id()).parse().unwrap();
        let frame = crate::entry::encode(&name, &[&[1, 7, 0][..], &payload].concat()).unwrap();
        let _ = decode(&scope(), 7, frame.into());
    }
}

#[test]
fn bounds_are_kept_by_leaving_out_the_oldest() {
    let mut manifest = Manifest::default();
    for number in 0..limits::MAX_MANIFEST_PACKS as u64 + 10 {
        let (id, index) = pack(number);
        manifest.packs.insert(id, index);
    }
    for number in 0..limits::MAX_NOTES as u64 + 3 {
        let note = Note { written_ms: number, text: Bytes::from_static(b"x") };
        manifest.notes.insert(format!("note-{number}"), note);
    }
    manifest.seen.add(1, 0);
    let pruned = manifest.prune(0);
    assert_eq!(pruned, Pruned { packs: 10, results: 10, notes: 3, numbers: 0 });
    for (number, there) in [(0, false), (9, false), (10, true)] {
        assert_eq!(manifest.packs.contains_key(&pack(number).0), there, "{number}");
        assert_eq!(manifest.notes.contains_key(&format!("note-{number}")), number > 2);
    }
    assert_eq!(manifest.prune(0), Pruned::default(), "pruning again changes nothing");
    assert!(encode(&manifest, &scope(), 1).is_ok());
}

#[test]
fn the_largest_manifest_can_be_stored() {
    let mut manifest = Manifest::default();
    for number in 0..50 {
        let (id, index) = pack(number);
        let results = vec![index.results[0]; 1000];
        let blobs = vec![index.blobs[0]; 3000];
        let index = PackIndex { results, blobs, ..(*index).clone() };
        manifest.packs.insert(id, Arc::new(index));
    }
    manifest.seen.add(1, 0);
    let pruned = manifest.prune(0);
    assert!(pruned.packs > 0 && manifest.results() >= 20_000, "{} left", manifest.results());
    let bytes = encode(&manifest, &scope(), 1).unwrap();
    assert_eq!(decode(&scope(), 1, bytes).unwrap(), manifest);
}

#[test]
fn numbers_that_nobody_could_read_are_given_up() {
    let mut manifest = Manifest::default();
    manifest.seen.miss(1, 0);
    manifest.seen.miss(2, 100);
    manifest.seen.add(3, 100);
    let hour = limits::ABANDONED_AFTER.as_millis() as u64;
    assert_eq!(manifest.prune(hour - 1).numbers, 0);
    assert_eq!(manifest.prune(hour).numbers, 1);
    assert!(manifest.seen.has(1) && !manifest.seen.has(2));
}
