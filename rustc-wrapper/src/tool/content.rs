//! The digest of a toolchain's files. They are hundreds of megabytes, and many wrappers start at once: one
//! of them reads, by a few threads, while the others wait for it. Called by [`super::identify`].

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;
use rustix::fs::{FlockOperation, flock};

use super::{file_stamp, write_whole};
use crate::limits::TOOL_WAIT;
use crate::memo::Memo;

/// Most threads that read; the two largest files are most of it.
const THREADS: usize = 4;
/// Between two looks whether another wrapper is done.
const POLL: Duration = Duration::from_millis(3);

/// The digest of a toolchain's version and files. It is kept under the stamps of all files, so that
/// an unchanged toolchain costs one look at each file and one small read.
pub(super) fn digest(
    dir: &Path,
    version: &str,
    parts: &[(String, PathBuf)],
    memo: &Memo,
) -> Result<Digest, (PathBuf, io::Error)> {
    let mut stamps = Encoder::new("kiln tool stamps v1");
    stamps.text("version", version);
    for (label, path) in parts {
        stamps
            .text("part", label)
            .optional("stamp", file_stamp(path).as_ref().map(<[u8; 56]>::as_slice));
    }
    let tools = dir.join("tools");
    let kept = tools.join(format!("digest-{}", stamps.finish()));
    let known = || std::fs::read_to_string(&kept).ok().and_then(|text| text.parse().ok());
    if let Some(digest) = known() {
        return Ok(digest);
    }
    let _turn = turn(&tools, TOOL_WAIT, || known().is_some());
    if let Some(digest) = known() {
        return Ok(digest);
    }
    let from_ns = crate::stamp::coarse_now_ns();
    let mut encoder = Encoder::new("kiln tool v1");
    encoder.text("version", version);
    let mut settled = true;
    for ((label, path), content) in parts.iter().zip(contents(parts, memo)) {
        encoder.text("part", label);
        match content {
            Ok((digest, meta)) => {
                settled &= crate::stamp::changed_ns(&meta) < from_ns;
                encoder.digest("content", &digest);
            }
            // A link to nowhere: the compiler finds nothing there either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                encoder.text("absent", "");
            }
            Err(error) => return Err((path.clone(), error)),
        }
    }
    let digest = encoder.finish();
    if settled {
        write_whole(&kept, digest.to_string().as_bytes());
    }
    Ok(digest)
}

/// The turn to read a toolchain: a lock that ends with this process, however that ends. None when there is
/// no lock to be had, and when another wrapper had the turn: then this one waits until that is done or gone,
/// but not longer than it may. What is still not known after that each finds out by itself, so that nobody
/// queues where nothing can be kept.
fn turn(tools: &Path, longest: Duration, is_done: impl Fn() -> bool) -> Option<File> {
    let path = tools.join("turn.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    let is_free = || flock(&file, FlockOperation::NonBlockingLockExclusive).map(drop);
    match is_free() {
        Ok(()) => return Some(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        // A file system without locks.
        Err(_) => return None,
    }
    let deadline = Instant::now() + longest;
    while Instant::now() < deadline && !is_done() && is_free().is_err() {
        std::thread::sleep(POLL);
    }
    None
}

/// What one file holds.
type Content = io::Result<(Digest, Metadata)>;

/// The contents of all files, in their order.
fn contents(parts: &[(String, PathBuf)], memo: &Memo) -> Vec<Content> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, (_, path))) = take(&next, parts) {
            done.push((at, memo.digest(path)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    let mut all: Vec<Option<Content>> = parts.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        // Where there is no thread to be had, the others do it.
        let spawn = |_| Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let own = work();
        let theirs = others.into_iter().filter_map(|thread| thread.join().ok());
        for (at, content) in theirs.flatten().chain(own) {
            all[at] = Some(content);
        }
    });
    // What a thread took and did not bring back is found out here.
    let each = all.into_iter().zip(parts);
    each.map(|(content, (_, path))| content.unwrap_or_else(|| memo.digest(path))).collect()
}

/// The next of some things, and which one it is.
fn take<'a, T>(next: &AtomicUsize, all: &'a [T]) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    all.get(at).map(|one| (at, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A toolchain of some files, and one that is not there.
    fn toolchain(dir: &Path) -> Vec<(String, PathBuf)> {
        let file = |n: usize| {
            let path = dir.join(n.to_string());
            if n != 7 {
                std::fs::write(&path, format!("{n}").repeat(n)).unwrap();
            }
            (format!("lib/{n}"), path)
        };
        (0..40).map(file).collect()
    }

    #[test]
    fn contents_stand_in_the_order_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let parts = toolchain(dir.path());
        let found = contents(&parts, &Memo::default());
        assert_eq!(found.len(), parts.len());
        for (at, content) in found.iter().enumerate() {
            let want = (at != 7).then(|| Digest::of(format!("{at}").repeat(at).as_bytes()));
            assert_eq!(content.as_ref().ok().map(|(digest, _)| *digest), want, "{at}");
        }
    }

    #[test]
    fn a_turn_is_one_wrappers() {
        let dir = tempfile::tempdir().unwrap();
        let take = |longest, is_done: bool| turn(dir.path(), longest, || is_done);
        let long = Duration::from_secs(3600);
        let first = take(long, false);
        assert!(first.is_some());
        assert!(take(Duration::ZERO, false).is_none(), "not longer than it may");
        assert!(take(long, true).is_none(), "done meanwhile");
        drop(first);
        assert!(take(long, false).is_some());
        assert!(turn(&dir.path().join("none"), long, || false).is_none(), "no place for a lock");
    }

    #[test]
    fn whoever_waits_for_one_that_ends_without_an_answer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let long = Duration::from_secs(3600);
        let first = turn(dir.path(), long, || false).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let is_done = move || tell.send(()).is_err();
            let other = scope.spawn(|| turn(dir.path(), long, is_done));
            told.recv().unwrap();
            drop(first);
            assert!(other.join().unwrap().is_none());
        });
    }
}
