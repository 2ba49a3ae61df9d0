//! Results in a bucket that somebody wrote who means ill: what can be told apart from what a build made is refused,
//! and nothing that an answer says is believed beyond its bounds.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use crate::support::remotes::{find, memory, remote, some_result, store};
use bytes::Bytes;
use kiln_storage::record::{Content, RECORD_VERSION, Record};
use kiln_storage::testing::bodies::{list, name, read};
use kiln_storage::testing::results::{scope, unit};
use kiln_storage::{Backend, Body, Digest, ObjectName, Remote, Scope};

/// The one object of a result.
async fn object(backend: &dyn Backend) -> (ObjectName, Bytes) {
    let object = list(backend, "results/").await.unwrap().remove(0);
    let bytes = read(backend, &object).await.unwrap().unwrap();
    (object, bytes)
}

/// What somebody makes of a record, and its name.
type Change = (&'static str, fn(&mut Record));

/// Changes of a record that leave its key as it is, or lie about it.
fn changes() -> Vec<Change> {
    fn rename(record: &mut Record, to: &str) {
        record.outputs[0].name = to.into();
    }
    vec![
        ("leads up", |r| rename(r, "../evil")),
        ("leads up inside", |r| rename(r, "a/../../evil")),
        ("is absolute", |r| rename(r, "/etc/evil")),
        ("is empty", |r| rename(r, "")),
        ("is this directory", |r| rename(r, ".")),
        ("has a zero", |r| rename(r, "a\0b")),
        ("is there twice", |r| r.outputs[0].name = r.outputs[1].name.clone()),
        ("failed and left outputs", |r| r.status = 1),
        ("of another version", |r| r.version = RECORD_VERSION + 1),
        ("of other inputs", |r| r.values[0] = Digest::of(b"other")),
        ("with fewer inputs", |r| drop((r.members.pop(), r.values.pop()))),
        ("of another unit", |r| r.unit_key = unit("another")),
        ("with a stream that never ends", |r| r.stderr = "x".repeat(64 << 20)),
    ]
}

#[tokio::test]
async fn a_record_that_no_build_makes_is_no_answer() {
    for (what, change) in changes() {
        let backend = memory();
        let (name, record, blobs) = some_result(0, 0);
        let mut evil = record.clone();
        change(&mut evil);
        // Some are not even taken by the writer of an honest Kiln.
        let written = store(&remote(&backend), &name, &evil, &blobs).await;
        let reader = remote(&backend);
        assert!(find(&reader, &name).await.unwrap().is_empty(), "{what}");
        assert!(reader.results(std::slice::from_ref(&name)).await.unwrap().is_empty(), "{what}");
        // Who compiles it then stores it.
        store(&remote(&backend), &name, &record, &blobs).await.unwrap();
        assert_eq!(find(&reader, &name).await.unwrap().len(), 1, "{what}: {written:?}");
    }
}

/// Objects at places that are not theirs.
#[tokio::test]
async fn a_result_at_the_place_of_another_is_no_answer() {
    let (of, record, blobs) = some_result(0, 0);
    let backend = memory();
    store(&remote(&backend), &of, &record, &blobs).await.unwrap();
    let (there, bytes) = object(&*backend).await;
    let other_scope = Scope::new("owner/repository", "refs/pull/1/merge");
    let to_scope = there.as_str().replace(scope().id().as_str(), other_scope.id().as_str());
    let to_generation = format!("{}.7", there.as_str().strip_suffix(".0").unwrap());
    let other = some_result(0, 1).0;
    let to_result = there.as_str().replace(&of.result.to_string(), &other.result.to_string());
    for to in [to_scope, to_generation, to_result] {
        backend.put_if_absent(&name(&to), Body::Bytes(bytes.clone())).await.unwrap();
        let reader = remote(&backend);
        let scopes = [other_scope.clone(), scope()];
        // It may stand before the good one: then it is gone for the next who asks.
        let found = reader.lookup(&scopes, &[of.unit]).await.unwrap();
        assert!(found.iter().all(|found| found.name == of), "{to}");
        assert_eq!((reader.counters().damaged, backend.size(&name(&to)).await.unwrap()), (1, None));
        let found = reader.lookup(&scopes, &[of.unit]).await.unwrap();
        assert_eq!((found.len(), &found[0].name), (1, &of), "{to}");
    }
}

/// A record may name any blob; one that is not there, or has another size, is not brought.
#[tokio::test]
async fn a_record_that_names_what_is_not_so_brings_nothing() {
    let backend = memory();
    let (of, record, blobs) = some_result(0, 0);
    store(&remote(&backend), &of, &record, &blobs).await.unwrap();
    let reader = remote(&backend);
    for output in &record.outputs {
        let Content::Blob { digest, size } = output.content else { continue };
        let lies = [0, size.saturating_sub(1), size + 1, 64 << 20, u64::MAX];
        for wrong in lies.into_iter().filter(|lie| *lie != size) {
            assert!(reader.blob(&digest, wrong).await.unwrap().is_none(), "{wrong}");
            assert_eq!(reader.blobs(&[(digest, wrong)]).await.unwrap(), [], "{wrong}");
        }
        assert!(reader.blob(&Digest::of(b"nowhere"), size).await.unwrap().is_none());
    }
    assert_eq!(find(&reader, &of).await.unwrap().len(), 1);
}
