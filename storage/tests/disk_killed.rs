//! A process that writes to a disk store is killed at random moments: whatever is visible
//! afterwards is whole.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use kiln_storage::disk::{DiskBackend, DiskOptions, is_sealed};
use kiln_storage::testing::bodies::{Kind, blob_name, body, list, name, noise, read};
use kiln_storage::{Backend, Body, Verified};

const ROUNDS: u64 = 24;
/// In the working directory of the writer: that it may run, and is not a test started by hand.
const PERMISSION: &str = "writer-may-run";

fn open(dir: &Path, options: DiskOptions) -> Verified<DiskBackend> {
    Verified::new(DiskBackend::open(dir.join("store"), options).unwrap())
}

/// The process that is killed: this test, run alone in a directory of its own. Every byte that it
/// prints is a step of a write, so that its parent can stop it in the middle of one.
#[test]
#[ignore = "the process that the_killed_writer_leaves_whole_objects kills"]
fn writer() {
    let dir = std::env::current_dir().unwrap();
    if !dir.join(PERMISSION).exists() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let seed = u64::from(std::process::id()) << 32;
    let backend = open(&dir, DiskOptions::default());
    for i in seed.. {
        let bytes = noise(i, 100_000 + (i as usize % 7) * 300_000);
        let kind = [Kind::Bytes, Kind::File, Kind::Stream][i as usize % 3];
        let blob = noisy(body(&bytes, kind));
        let record = noisy(body(&bytes.slice(..50_000), kind));
        let names = (blob_name(&bytes), name(&format!("records/{}/{i}.0", i % 5)));
        runtime.block_on(async {
            let (blob, record) = tokio::join!(
                backend.put_if_absent(&names.0, blob),
                backend.put_if_absent(&names.1, record),
            );
            blob.unwrap();
            record.unwrap();
        });
        step();
    }
}

fn step() {
    // The parent is gone: so is the reason to write.
    if std::io::stderr().write_all(b".").is_err() {
        std::process::exit(0);
    }
}

/// The body, printing a byte with each chunk of a stream.
fn noisy(body: Body) -> Body {
    use futures_util::StreamExt as _;
    match body {
        Body::Stream { stream, len } => Body::Stream {
            stream: stream.inspect(|_| step()).boxed(),
            len,
        },
        other => other,
    }
}

/// Starts the writer, lets it do some steps, and kills it.
fn run_and_kill(dir: &Path, steps: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = vec![0; steps];
    let mut steps = child.stderr.take().unwrap();
    steps.read_exact(&mut printed).unwrap();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the writer ended by itself");
    assert!(
        printed.iter().all(|byte| *byte == b'.'),
        "the writer failed"
    );
}

#[test]
fn the_killed_writer_leaves_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(PERMISSION), "").unwrap();
    for round in 0..ROUNDS {
        let random = u64::from_le_bytes(noise(round, 8)[..].try_into().unwrap());
        run_and_kill(dir.path(), 1 + random as usize % 120);
    }
    let temporary = dir.path().join("store/~tmp");
    let left = std::fs::read_dir(&temporary).unwrap().count();
    println!("{left} temporary files were left by {ROUNDS} killed writers");

    let at_once = DiskOptions {
        temporary_max_age: Duration::ZERO,
        ..DiskOptions::default()
    };
    let verified = open(dir.path(), at_once);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let seen = runtime.block_on(check_all(&verified, &dir.path().join("store")));
    assert!(seen as u64 > ROUNDS, "only {seen} objects were written");
    assert_eq!(verified.counters().damaged, 0);
}

/// Reads every object, verified; how many there are.
async fn check_all(verified: &Verified<DiskBackend>, store: &Path) -> usize {
    let names = list(verified, "").await.unwrap();
    for name in &names {
        let meta = std::fs::metadata(store.join(name.as_str())).unwrap();
        if let Some(digest) = name.blob_digest() {
            assert!(is_sealed(&meta, &digest, meta.len()), "{name}");
        }
        let bytes: Option<Bytes> = read(verified, name).await.unwrap();
        assert!(bytes.is_some_and(|bytes| bytes.len() >= 50_000), "{name}");
    }
    names.len()
}
