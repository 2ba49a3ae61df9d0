//! Tests of the store on an ordinary directory. Read-only and full places, and killed processes,
//! are in `storage/tests`.

use std::fs::{self, File, FileTimes};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

use super::*;
use crate::backend::{Put, StoreError};

fn store() -> (tempfile::TempDir, DiskStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path().join("store"), DiskOptions::default()).unwrap();
    (dir, store)
}

fn blob(bytes: &[u8]) -> (Digest, ObjectName) {
    let digest = Digest::of(bytes);
    (digest, ObjectName::blob(&digest))
}

fn temporaries(store: &DiskStore) -> usize {
    fs::read_dir(store.dir().join("~tmp")).map_or(0, Iterator::count)
}

fn listed(store: &DiskStore, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    let all = store.list(prefix, |listed| {
        names.push(listed.name.to_string());
        ControlFlow::Continue(())
    });
    all.unwrap();
    names.sort();
    names
}

fn set_times(path: &Path, times: FileTimes) {
    File::open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn a_blob_is_a_sealed_plain_file_of_its_own() {
    let (dir, store) = store();
    let bytes = b"bytes of a library".repeat(100_000);
    let (digest, name) = blob(&bytes);
    let source = dir.path().join("libx.rlib");
    fs::write(&source, &bytes).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();

    let before = SystemTime::now();
    let file = File::open(&source).unwrap();
    let put = store.put_file(&name, &file, bytes.len() as u64).unwrap();
    assert_eq!(put, Put::Created);

    let path = blob_path(store.dir(), &digest);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(is_sealed(&meta, &digest, bytes.len() as u64));
    assert!(!is_sealed(&meta, &digest, bytes.len() as u64 - 1));
    assert!(!is_sealed(&meta, &Digest::of(b"other"), bytes.len() as u64));
    assert_eq!(meta.permissions().mode() & 0o777 & !0o644, 0, "not executable");
    assert_eq!(meta.permissions().mode() & 0o600, 0o600);
    assert_eq!(meta.nlink(), 1);
    assert_eq!(fs::metadata(&source).unwrap().nlink(), 1, "never linked");
    assert!(meta.accessed().unwrap() >= before - Duration::from_secs(1));
    assert_eq!(temporaries(&store), 0);
    assert_eq!(store.put_bytes(&name, &bytes).unwrap(), Put::AlreadyThere);
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_not_stored() {
    let (dir, store) = store();
    let (_, name) = blob(b"right");
    let source = dir.path().join("changed");
    for wrong in ["wrong", "longer than that", "x", ""] {
        fs::write(&source, wrong).unwrap();
        let file = File::open(&source).unwrap();
        for announced in [5, wrong.len() as u64] {
            let refused = store.put_file(&name, &file, announced);
            assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{wrong:?}");
        }
        let refused = store.put_bytes(&name, wrong.as_bytes());
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{wrong:?}");
    }
    assert_eq!(store.size(&name).unwrap(), None);
    assert_eq!(temporaries(&store), 0);
}

#[test]
fn a_good_blob_with_a_broken_seal_is_sealed_again() {
    let (_dir, store) = store();
    let (digest, name) = blob(b"content");
    store.put_bytes(&name, b"content").unwrap();
    let path = store.path(&name);
    set_times(&path, FileTimes::new().set_modified(SystemTime::now()));
    assert!(!is_sealed(&fs::metadata(&path).unwrap(), &digest, 7));

    assert_eq!(&store.read(&name, 100).unwrap().unwrap()[..], b"content");
    assert!(is_sealed(&fs::metadata(&path).unwrap(), &digest, 7));
    let counters = store.counters();
    assert_eq!((counters.resealed, counters.damaged), (1, 0));
}

#[test]
fn a_damaged_blob_is_removed_and_can_be_stored_again() {
    type Use = fn(&DiskStore, &ObjectName) -> bool;
    let uses: [Use; 3] = [
        |store, name| store.get(name).unwrap().is_none(),
        |store, name| store.size(name).unwrap().is_none(),
        |store, name| store.put_bytes(name, b"content").unwrap() == Put::Created,
    ];
    for finds_nothing in uses {
        for damage in ["Content", "contents", "", "c"] {
            let (_dir, store) = store();
            let (_, name) = blob(b"content");
            store.put_bytes(&name, b"content").unwrap();
            fs::write(store.path(&name), damage).unwrap();
            assert!(finds_nothing(&store, &name), "{damage:?}");
            assert_eq!(store.counters().damaged, 1);
            store.put_bytes(&name, b"content").unwrap();
            assert_eq!(&store.read(&name, 100).unwrap().unwrap()[..], b"content");
        }
    }
}

/// What a power cut leaves behind: the times are there, the bytes are not.
#[test]
fn a_sealed_file_without_its_bytes_is_damaged() {
    let (_dir, store) = store();
    let (digest, name) = blob(b"content");
    store.put_bytes(&name, b"content").unwrap();
    let file = File::create(store.path(&name)).unwrap();
    temporary::seal(&file, &digest).unwrap();
    assert!(store.get(&name).unwrap().is_none());

    let (_, empty) = blob(b"");
    store.put_bytes(&empty, b"").unwrap();
    assert_eq!(store.size(&empty).unwrap(), Some(0));
    assert_eq!(store.counters().resealed, 0);
}

#[test]
fn touching_records_the_use_and_keeps_the_seal() {
    let (_dir, store) = store();
    let (digest, name) = blob(b"content");
    store.put_bytes(&name, b"content").unwrap();
    let path = store.path(&name);
    let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
    let was_used_now = || {
        let used = fs::metadata(&path).unwrap().accessed().unwrap();
        used > SystemTime::now() - Duration::from_secs(100)
    };
    let uses: [&dyn Fn(); 3] = [
        &|| assert!(store.touch(&name).unwrap()),
        &|| assert!(store.get(&name).unwrap().is_some()),
        &|| assert_eq!(store.put_bytes(&name, b"content").unwrap(), Put::AlreadyThere),
    ];
    for used in uses {
        set_times(&path, FileTimes::new().set_accessed(long_ago));
        assert!(!was_used_now());
        used();
        assert!(was_used_now());
        assert!(is_sealed(&fs::metadata(&path).unwrap(), &digest, 7));
    }
    assert!(!store.touch(&"not/there".parse().unwrap()).unwrap());
}

#[test]
fn opening_removes_abandoned_temporary_files_only() {
    let (dir, store) = store();
    let (_, name) = blob(b"content");
    store.put_bytes(&name, b"content").unwrap();
    let temporary = store.dir().join("~tmp");
    for file in ["old", "young", "sealed-but-young"] {
        fs::write(temporary.join(file), file).unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    let old = FileTimes::new().set_modified(long_ago);
    set_times(&temporary.join("sealed-but-young"), old);
    set_times(&temporary.join("old"), old.set_accessed(long_ago));

    let again = DiskStore::open(dir.path().join("store"), DiskOptions::default()).unwrap();
    assert!(!temporary.join("old").exists());
    assert!(temporary.join("young").exists());
    assert!(temporary.join("sealed-but-young").exists());
    assert_eq!(again.size(&name).unwrap(), Some(7));
}

#[test]
fn a_directory_that_vanishes_is_made_again() {
    let (_dir, store) = store();
    let (_, name) = blob(b"content");
    store.put_bytes(&name, b"content").unwrap();
    fs::remove_dir_all(store.dir()).unwrap();
    assert_eq!(store.size(&name).unwrap(), None);
    assert!(listed(&store, "").is_empty());
    assert_eq!(store.put_bytes(&name, b"content").unwrap(), Put::Created);

    // In the middle of a write that one write is lost, and the next one goes through.
    let (_, other) = blob(b"other");
    let mut writer = store.writer(&other, 5).unwrap().unwrap();
    writer.write(b"other").unwrap();
    fs::remove_dir_all(store.dir()).unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::Unavailable(_))));
    assert_eq!(store.put_bytes(&other, b"other").unwrap(), Put::Created);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (_dir, store) = store();
    let name: ObjectName = "records/a.0".parse().unwrap();
    let mut writer = store.writer(&name, 100).unwrap().unwrap();
    writer.write(b"some").unwrap();
    assert_eq!(temporaries(&store), 1);
    assert!(listed(&store, "").is_empty(), "nothing half-written shows");
    drop(writer);
    assert_eq!(temporaries(&store), 0);
    assert!(store.get(&name).unwrap().is_none());
}

#[test]
fn the_first_of_two_writers_wins() {
    let (_dir, store) = store();
    let name: ObjectName = "records/a.0".parse().unwrap();
    let mut first = store.writer(&name, 5).unwrap().unwrap();
    let mut second = store.writer(&name, 6).unwrap().unwrap();
    second.write(b"second").unwrap();
    first.write(b"first").unwrap();
    assert_eq!(second.finish().unwrap(), Put::Created);
    assert_eq!(first.finish().unwrap(), Put::AlreadyThere);
    assert_eq!(&store.read(&name, 100).unwrap().unwrap()[..], b"second");
    assert_eq!(temporaries(&store), 0);
}

#[test]
fn listing_stays_below_its_prefix_and_skips_what_is_no_object() {
    let (_dir, store) = store();
    for name in ["r/a/1.0", "r/a/2.0", "r/ab/1.0", "s/1"] {
        store.put_bytes(&name.parse().unwrap(), b"x").unwrap();
    }
    fs::write(store.dir().join("r/a/UPPER"), "x").unwrap();
    std::os::unix::fs::symlink("1.0", store.dir().join("r/a/link")).unwrap();
    fs::write(store.dir().join("~tmp/t"), "x").unwrap();
    assert_eq!(listed(&store, ""), ["r/a/1.0", "r/a/2.0", "r/ab/1.0", "s/1"]);
    assert_eq!(listed(&store, "r/a"), ["r/a/1.0", "r/a/2.0", "r/ab/1.0"]);
    assert_eq!(listed(&store, "r/a/"), ["r/a/1.0", "r/a/2.0"]);
    assert_eq!(listed(&store, "r/a/1"), ["r/a/1.0"]);
    for none in ["../", "r/../s/", "/", "r//", "r/a/1.0/", "~tmp/", "absent"] {
        assert!(listed(&store, none).is_empty(), "{none:?}");
    }
    assert!(store.get(&"r/a/link".parse().unwrap()).unwrap().is_none());
    let mut seen = 0;
    let first = store.list("", |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    first.unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn deleting_a_record_leaves_no_empty_directories() {
    let (_dir, store) = store();
    let [one, two] = ["r/a/b/1.0", "r/a/c/1.0"].map(|n| n.parse::<ObjectName>().unwrap());
    store.put_bytes(&one, b"1").unwrap();
    store.put_bytes(&two, b"2").unwrap();
    assert!(store.delete(&one).unwrap());
    assert!(!store.delete(&one).unwrap());
    assert!(!store.dir().join("r/a/b").exists());
    assert!(store.dir().join("r/a/c").exists());
    assert!(!store.delete(&"r/a".parse().unwrap()).unwrap(), "a directory");
    assert!(store.delete(&two).unwrap());
    assert!(!store.dir().join("r").exists());
    assert!(store.dir().exists());
}

#[test]
fn names_that_meet_a_directory_or_a_file_are_misses() {
    let (_dir, store) = store();
    store.put_bytes(&"a/b".parse().unwrap(), b"x").unwrap();
    let long = "x".repeat(300);
    for name in ["a", "a/b/c", &long] {
        let name: ObjectName = name.parse().unwrap();
        assert!(store.get(&name).unwrap().is_none(), "{name}");
        assert_eq!(store.size(&name).unwrap(), None, "{name}");
        assert!(!store.delete(&name).unwrap(), "{name}");
    }
}

#[test]
fn an_object_over_the_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions { max_object_bytes: 3, ..DiskOptions::default() };
    let store = DiskStore::open(dir.path(), options).unwrap();
    let name: ObjectName = "a".parse().unwrap();
    let refused = store.put_bytes(&name, b"four");
    assert!(matches!(refused, Err(StoreError::TooLarge { size: 4, .. })));
    assert_eq!(store.put_bytes(&name, b"3ch").unwrap(), Put::Created);
    let refused = store.read(&name, 2);
    assert!(matches!(refused, Err(StoreError::TooLarge { size: 3, .. })));
}
