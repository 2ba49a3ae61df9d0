//! A disk store in bad places: full, read-only, no directory at all. The file systems are mounted
//! for the test, which only root may do; without that, the tests say so and check nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_storage::disk::{DiskBackend, DiskOptions, DiskStore, is_sealed};
use kiln_storage::testing::bodies::{Kind, blob_name, body, noise};
use kiln_storage::{Backend, Put, StoreError};

/// A mounted file system; unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with the reason printed, when this process may not mount.
    fn new(arguments: &[&str], target: &Path) -> Option<Self> {
        std::fs::create_dir_all(target).unwrap();
        match Command::new("mount").args(arguments).arg(target).output() {
            Ok(output) if output.status.success() => Some(Self(target.to_owned())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                println!("skipped: cannot mount: {}", why.trim());
                None
            }
            Err(error) => {
                println!("skipped: no mount command: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn temporaries(store: &DiskStore) -> usize {
    std::fs::read_dir(store.dir().join("~tmp")).map_or(0, Iterator::count)
}

fn is_read_only<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::ReadOnly(_)))
}

#[tokio::test]
async fn a_full_disk_takes_no_writes_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("full");
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "none"], &target) else {
        return;
    };
    let backend = DiskBackend::open(&target, DiskOptions::default()).unwrap();
    let store = backend.store();
    let (small, large) = (noise(1, 300_000), noise(2, 2_000_000));
    assert_eq!(store.put_bytes(&blob_name(&small), &small).unwrap(), Put::Created);

    for kind in [Kind::Bytes, Kind::File, Kind::Stream] {
        let put = backend.put_if_absent(&blob_name(&large), body(&large, kind)).await;
        assert!(is_read_only(&put), "{kind:?}: {put:?}");
        assert_eq!(temporaries(store), 0, "{kind:?}");
        assert_eq!(store.size(&blob_name(&large)).unwrap(), None);
    }
    assert_eq!(store.read(&blob_name(&small), 300_000).unwrap().unwrap(), small);

    // What was deleted makes room.
    let fits = noise(3, 900_000);
    assert!(is_read_only(&store.put_bytes(&blob_name(&fits), &fits)));
    assert!(store.delete(&blob_name(&small)).unwrap());
    assert_eq!(store.put_bytes(&blob_name(&fits), &fits).unwrap(), Put::Created);
}

#[test]
fn a_disk_without_inodes_takes_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("full");
    let options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=5", "none"];
    let Some(_mount) = Mount::new(&options, &target) else {
        return;
    };
    let store = DiskStore::open(&target, DiskOptions::default()).unwrap();
    let puts: Vec<_> =
        (0..10).map(|i| store.put_bytes(&blob_name(&noise(i, 10)), &noise(i, 10))).collect();
    assert!(puts.iter().any(is_read_only), "{puts:?}");
    assert!(puts.iter().all(|put| put.is_ok() || is_read_only(put)), "{puts:?}");
    assert_eq!(temporaries(&store), 0);
}

#[test]
fn a_read_only_store_answers_every_read() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("ro"));
    let store = DiskStore::open(&source, DiskOptions::default()).unwrap();
    let [sealed, unsealed, damaged] = [1, 2, 3].map(|i| noise(i, 100_000));
    for bytes in [&sealed, &unsealed, &damaged] {
        store.put_bytes(&blob_name(bytes), bytes).unwrap();
    }
    std::fs::write(store.path(&blob_name(&unsealed)), &unsealed).unwrap();
    std::fs::write(store.path(&blob_name(&damaged)), b"damaged").unwrap();
    let bind = ["--bind", "-o", "ro", &source.to_string_lossy()].map(str::to_owned);
    let bind: Vec<&str> = bind.iter().map(String::as_str).collect();
    let Some(_mount) = Mount::new(&bind, &target) else {
        return;
    };

    let store = DiskStore::open(&target, DiskOptions::default()).unwrap();
    assert!(is_read_only(&store.check_writable()));
    let get = |bytes: &bytes::Bytes| store.read(&blob_name(bytes), 100_000).unwrap();
    for _ in 0..2 {
        assert_eq!(get(&sealed).as_ref(), Some(&sealed));
        assert_eq!(get(&unsealed).as_ref(), Some(&unsealed), "verified each time");
        assert_eq!(get(&damaged), None);
        assert_eq!(store.size(&blob_name(&damaged)).unwrap(), None);
    }
    let mut listed = 0;
    let all = store.list("", |_| {
        listed += 1;
        std::ops::ControlFlow::Continue(())
    });
    all.unwrap();
    assert_eq!(listed, 3);

    let new = noise(4, 1000);
    assert!(is_read_only(&store.put_bytes(&blob_name(&new), &new)));
    assert!(is_read_only(&store.delete(&blob_name(&sealed))));
    assert!(is_read_only(&store.touch(&blob_name(&sealed))));
    let again = store.put_bytes(&blob_name(&sealed), &sealed).unwrap();
    assert_eq!(again, Put::AlreadyThere);
    let none = DiskStore::open(target.join("none"), DiskOptions::default());
    assert!(is_read_only(&none), "there is no directory and none can be made");
}

#[test]
fn a_place_that_is_no_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(DiskStore::open(&file, DiskOptions::default()).is_err());
    assert!(DiskStore::open(file.join("below"), DiskOptions::default()).is_err());
}

/// In the working directory of [`without_permission`]: that it was started by its parent.
const PERMISSION: &str = "may-run";

/// The store of somebody else: it can be read and nothing more.
#[test]
#[ignore = "the process of another user that a_store_of_another_user_can_be_read starts"]
fn without_permission() {
    let dir = std::env::current_dir().unwrap();
    if !dir.join(PERMISSION).exists() {
        return;
    }
    let store = DiskStore::open(dir.join("store"), DiskOptions::default()).unwrap();
    let (sealed, unsealed, new) = (noise(1, 1000), noise(2, 1000), noise(3, 1000));
    for bytes in [&sealed, &unsealed] {
        let found = store.read(&blob_name(bytes), 1000).unwrap();
        assert_eq!(found.as_ref(), Some(bytes));
    }
    assert_eq!(store.counters().resealed, 0, "only the owner can seal");
    assert!(is_read_only(&store.check_writable()));
    assert!(is_read_only(&store.put_bytes(&blob_name(&new), &new)));
    assert!(is_read_only(&store.delete(&blob_name(&sealed))));
    assert!(is_read_only(&store.touch(&blob_name(&sealed))));
    let none = DiskStore::open(dir.join("none"), DiskOptions::default());
    assert!(is_read_only(&none));
}

#[test]
fn a_store_of_another_user_can_be_read() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let dir = tempfile::tempdir().unwrap();
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), readable).unwrap();
    let store = DiskStore::open(dir.path().join("store"), DiskOptions::default()).unwrap();
    for bytes in [noise(1, 1000), noise(2, 1000)] {
        store.put_bytes(&blob_name(&bytes), &bytes).unwrap();
    }
    std::fs::write(store.path(&blob_name(&noise(2, 1000))), noise(2, 1000)).unwrap();
    std::fs::write(dir.path().join(PERMISSION), "").unwrap();

    // The test may lie where the other user cannot reach it.
    let program = dir.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let child = Command::new(&program)
        .args(["--exact", "disk_places::without_permission", "--ignored"])
        .current_dir(dir.path())
        .uid(65_534)
        .gid(65_534)
        .output();
    match child {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
            assert!(said.contains("1 passed"), "{said}");
        }
        Err(error) => println!("skipped: cannot become another user: {error}"),
    }
}

/// On file systems that share blocks, taking a file over shares them: there is no room for a copy.
/// What was taken over is verified all the same.
#[test]
fn a_reflinked_blob_is_verified_and_sealed() {
    let bytes = noise(1, 200 * 1024 * 1024);
    for mkfs in ["mkfs.btrfs", "mkfs.xfs"] {
        let dir = tempfile::tempdir().unwrap();
        let (image, target) = (dir.path().join("image"), dir.path().join("mounted"));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(340 * 1024 * 1024).unwrap();
        let made = Command::new(mkfs).arg("-q").arg(&image).output();
        if !made.is_ok_and(|output| output.status.success()) {
            println!("skipped: {mkfs} does not work here");
            continue;
        }
        let image = image.to_string_lossy();
        if let Some(_mount) = Mount::new(&["-o", "loop", &image], &target) {
            take_over_by_reflink(&target, &bytes);
        }
    }
}

fn take_over_by_reflink(target: &Path, bytes: &bytes::Bytes) {
    let store = DiskStore::open(target.join("store"), DiskOptions::default()).unwrap();
    let source = target.join("source");
    std::fs::write(&source, bytes).unwrap();
    let file = std::fs::File::open(&source).unwrap();
    let (name, len) = (blob_name(bytes), bytes.len() as u64);
    assert!(is_read_only(&store.put_bytes(&name, bytes)), "there is room for a copy");

    for wrong in [len - 1, len + 1] {
        let refused = store.put_file(&name, &file, wrong);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    }
    let refused = store.put_file(&blob_name(b"other"), &file, len);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(store.put_file(&name, &file, len).unwrap(), Put::Created);
    std::fs::write(&source, "changed afterwards").unwrap();
    let meta = std::fs::metadata(store.path(&name)).unwrap();
    assert!(is_sealed(&meta, &name.blob_digest().unwrap(), len));
    assert!(store.read(&name, len).unwrap().unwrap() == *bytes);
    assert_eq!(temporaries(&store), 0);
}
