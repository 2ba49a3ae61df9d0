//! Two processes that write to one disk store are killed at random moments: whatever is visible,
//! meanwhile and afterwards, is whole.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use kiln_storage::disk::{DiskBackend, DiskOptions, is_sealed};
use kiln_storage::testing::bodies::{Kind, blob_name, body, list, name, noise, read};
use kiln_storage::{Backend, Body, Verified};

const ROUNDS: u64 = 24;
/// In the working directory of the writer: the round. Without it, it was started by hand.
const PERMISSION: &str = "writer-may-run";

fn open(dir: &Path, options: DiskOptions) -> Verified<DiskBackend> {
    Verified::new(DiskBackend::open(dir.join("store"), options).unwrap())
}

/// A process that is killed: this test, run alone in a directory of its own. Every byte that it
/// prints is a step of a write, so that its parent can stop it in the middle of one.
#[test]
#[ignore = "a process that killed_writers_leave_whole_objects kills"]
fn writer() {
    let dir = std::env::current_dir().unwrap();
    let Ok(round) = std::fs::read_to_string(dir.join(PERMISSION)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    // The writers of a round race for the same new names.
    let seed = round.parse::<u64>().unwrap() << 32;
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
        Body::Stream { stream, len } => {
            Body::Stream { stream: stream.inspect(|_| step()).boxed(), len }
        }
        other => other,
    }
}

/// A writer that is killed at the latest when this is dropped.
struct Writer(Child);

impl Writer {
    fn start(dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk_killed::writer", "--ignored", "--nocapture"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Returns when the writer has done so many steps more.
    fn await_steps(&mut self, steps: usize) {
        let mut printed = vec![0; steps];
        let pipe = self.0.stderr.as_mut().unwrap();
        pipe.read_exact(&mut printed).unwrap();
        let all_are_steps = printed.iter().all(|byte| *byte == b'.');
        assert!(all_are_steps, "the writer failed");
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.code(), None, "the writer ended by itself");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn killed_writers_leave_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = dir.path().join("store");
    for round in 0..ROUNDS {
        std::fs::write(dir.path().join(PERMISSION), round.to_string()).unwrap();
        let [steps, more] = [0, 1].map(|i| 1 + usize::from(noise(round, 2)[i]) / 2);
        let [mut one, mut two] = [Writer::start(dir.path()), Writer::start(dir.path())];
        one.await_steps(steps);
        if round % 8 == 0 {
            // Nothing half-written shows while they write, either.
            let reader = open(dir.path(), DiskOptions::default());
            runtime.block_on(check_all(&reader, &store));
            assert_eq!(reader.counters().damaged, 0);
        }
        two.await_steps(more);
        one.kill();
        two.kill();
    }
    let temporary = dir.path().join("store/~tmp");
    let left = std::fs::read_dir(&temporary).unwrap().count();
    println!("{left} temporary files were left behind");

    let at_once = DiskOptions { temporary_max_age: Duration::ZERO, ..DiskOptions::default() };
    let verified = open(dir.path(), at_once);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    let seen = runtime.block_on(check_all(&verified, &store));
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
