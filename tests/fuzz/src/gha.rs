//! The wire of the GitHub cache: answers of both services, manifests and packs. Whatever comes, nothing points outside of a
//! pack, what is believed has its digest, and what is read is written as itself.

use bytes::Bytes;
use kiln_storage::entry;
use kiln_storage::remote::gha::manifest::{self, Manifest};
use kiln_storage::remote::gha::{fuzzing, limits, pack, token};
use kiln_storage::remote::pack::{self as wire, Unpack};
use kiln_storage::{Digest, Scope};

const NUMBER: u64 = 3;

/// What a service answers is an entry with an address or none; never more than it said.
fn check_answers(status: u16, body: &[u8]) {
    for found in [fuzzing::found_by_v2(status, body), fuzzing::found_by_v1(status, body)] {
        match found {
            Ok(Some(found)) => {
                assert!((200..300).contains(&status), "a refusal that found something");
                assert!(found.key.len() <= body.len());
                let number = fuzzing::manifest_number("kiln-idx-", &found.key);
                assert!(number.is_none_or(|number| (1..=limits::MAX_NUMBER).contains(&number)));
            }
            Ok(None) => {}
            Err(error) => assert!(error.to_string().len() < 200, "it says what the answer said"),
        }
    }
}

/// A manifest that is believed points nowhere else, and is the same when it is written, merged with itself, or pruned.
fn check_manifest(payload: &[u8]) {
    let scope = Scope::new("o/r", "refs/heads/main");
    let name = format!("manifest/{}/{NUMBER}", scope.id()).parse().expect("a name");
    let Ok(frame) = entry::encode(&name, payload) else { return };
    let other = Scope::new("o/r", "refs/heads/other");
    assert!(manifest::decode(&other, NUMBER, frame.clone().into()).is_err());
    assert!(manifest::decode(&scope, NUMBER + 1, frame.clone().into()).is_err());
    let Ok(read) = manifest::decode(&scope, NUMBER, frame.into()) else { return };
    for index in read.packs.values() {
        let spans =
            index.results.iter().map(|at| at.whole()).chain(index.blobs.iter().map(|at| at.span));
        for span in spans {
            let end = span.offset.checked_add(span.len).expect("no overflow");
            assert!(end <= index.bytes && index.bytes <= limits::MAX_PACK_BYTES);
        }
        for at in &index.results {
            let blobs = index.blobs_in(at.whole()).collect::<Vec<_>>();
            assert!(blobs.iter().all(|blob| blob.span.end() <= at.whole().end()));
        }
    }
    let written = manifest::encode(&read, &scope, NUMBER).expect("it was taken");
    assert_eq!(manifest::decode(&scope, NUMBER, written).as_ref(), Ok(&read));
    // A writer has no pack that is gone, too.
    let mut merged = Manifest::default();
    merged.merge(&read);
    let once = merged.clone();
    merged.merge(&read);
    assert_eq!(merged, once, "twice is once");
    let mut on = once.clone();
    on.seen.miss(limits::MAX_NUMBER, 1);
    on.prune(u64::MAX);
    let mut next = on.clone();
    next.prune(u64::MAX);
    assert_eq!(on, next, "pruned is within its bounds");
    let high = on.seen.high();
    assert!(manifest::encode(&on, &scope, high).is_ok(), "pruned fits");
}

/// What comes out of a pack has its digest, however it arrives, and as much of it as is there.
fn check_unpack(bytes: &[u8], chunk: usize) {
    let read = |chunk: usize| {
        let mut unpack = Unpack::default();
        let mut found: Vec<(Digest, Bytes)> = Vec::new();
        for part in bytes.chunks(chunk) {
            unpack.push(part);
            loop {
                match unpack.blob() {
                    Ok(Some((digest, blob))) => {
                        assert_eq!(Digest::of(&blob), digest);
                        assert!(blob.len() <= 1 << 20);
                        found.push((digest, blob));
                    }
                    Ok(None) => break,
                    Err(why) => return (found, Err(why)),
                }
            }
        }
        (found, unpack.finish())
    };
    assert_eq!(read(chunk), read(bytes.len().max(1)), "it does not matter how it arrives");
}

/// A pack of blobs gives them back; a damaged one gives none but these.
fn check_damaged(bytes: &[u8], at: usize, change: u8) {
    let mut blobs: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // Long enough to be compressed.
    let long = bytes.repeat(16);
    blobs.push(&long);
    let mut packed = wire::MAGIC.to_vec();
    blobs.iter().for_each(|blob| packed.extend_from_slice(&wire::entry(&Digest::of(blob), blob)));
    let read = |packed: &[u8]| {
        let (mut unpack, mut found) = (Unpack::default(), Vec::new());
        unpack.push(packed);
        while let Ok(Some((_, blob))) = unpack.blob() {
            found.push(blob);
        }
        found
    };
    assert_eq!(read(&packed), blobs);
    let at = at % packed.len();
    packed[at] ^= change.max(1);
    assert!(read(&packed).iter().all(|blob| blobs.contains(&&blob[..])), "byte {at} made a blob");
}

pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let status = [200, 204, 400, 401, 403, 404, 409, 500][usize::from(kind / 4 % 8)];
            check_answers(status, rest);
        }
        1 => check_manifest(rest),
        2 => {
            check_unpack(rest, usize::from(kind / 4) + 1);
            if let Some(([low, high, change], blobs)) = rest.split_first_chunk() {
                check_damaged(blobs, usize::from(*low) | usize::from(*high) << 8, *change);
            }
        }
        _ => {
            let text = String::from_utf8_lossy(rest);
            let bytes = token::decode(&text);
            assert!(bytes.is_none_or(|bytes| bytes.len() <= text.len()));
            let secret = kiln_storage::remote::gha::settings::Secret::new(text.into_owned());
            if let Some(refs) = token::Refs::of(&secret) {
                assert!(refs.read.len() <= limits::MAX_REFS);
            }
            let digest = Digest::of(rest);
            assert!(
                pack::open_blob(&digest, Bytes::copy_from_slice(rest)).is_err(),
                "no frame of itself"
            );
        }
    }
}
