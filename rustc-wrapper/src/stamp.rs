//! File times: when a file was changed, the coarse clock that stamps changes, and a point in time
//! that tells changes before it from changes after it.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use kiln_storage::encode::Encoder;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Longest that a new file stamp is waited for: many ticks of the slowest kernel clock.
const MAX_LOOKS: u32 = 400;
const LOOK: Duration = Duration::from_micros(250);

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// This moment on the exact clock, nanoseconds since 1970.
pub fn now_ns() -> i128 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// This moment on the coarse clock: no change from now on is stamped earlier. Nanoseconds since
/// 1970.
#[cfg(target_os = "linux")]
pub fn coarse_now_ns() -> i128 {
    nanoseconds(clock_gettime(ClockId::RealtimeCoarse))
}

/// A moment before this one, by more than what other systems round the time of a change by.
#[cfg(not(target_os = "linux"))]
pub fn coarse_now_ns() -> i128 {
    const LONGEST_TICK_NS: i128 = 20_000_000;
    now_ns() - LONGEST_TICK_NS
}

/// When a file was last changed (content or inode), nanoseconds since 1970. Nobody can set it.
pub fn changed_ns(meta: &Metadata) -> i128 {
    i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
}

/// What the kernel says of a file that stays as it is: device, inode, size, mtime, ctime.
pub fn stamp(meta: &Metadata) -> [u8; 56] {
    let mut bytes = [0_u8; 56];
    let fields = [
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime().cast_unsigned(),
        meta.mtime_nsec().cast_unsigned(),
        meta.ctime().cast_unsigned(),
        meta.ctime_nsec().cast_unsigned(),
    ];
    for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
        chunk.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// Whether nobody wrote to a file between two looks at it: the same file with the same length and time of
/// writing. Its inode may have changed: a name was given to it or taken.
pub fn is_unwritten(before: &Metadata, now: &Metadata) -> bool {
    let key = |m: &Metadata| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec());
    key(before) == key(now)
}

/// Whether the file system of a directory stamps every change of a file that was looked at anew, as
/// Linux does since 6.13 for its own file systems: then a file whose stamp is what it was when it
/// was looked at has not been changed since, however short ago that was.
///
/// Tried out on a scratch file, which is removed: it is written and looked at a few times within a
/// tick, and each time the stamp has to move. None when it took longer than a tick, which proves nothing, or
/// cannot be tried.
pub fn is_multigrain(dir: &Path) -> Option<bool> {
    const TIMES: usize = 4;
    let path = dir.join(format!(".kiln-stamp-{}", std::process::id()));
    let stamps = || -> io::Result<Vec<i128>> {
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        let mut stamps = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            file.write_all(b"x")?;
            stamps.push(changed_ns(&file.metadata()?));
        }
        Ok(stamps)
    };
    let stamps = stamps();
    let _ = std::fs::remove_file(&path);
    const LONGEST_NS: i128 = 900_000;
    let stamps = stamps.ok()?;
    match stamps.windows(2).all(|pair| pair[0] < pair[1]) {
        true => (stamps[TIMES - 1] - stamps[0] < LONGEST_NS).then_some(true),
        false => Some(false),
    }
}

/// A name for the file system of a directory with this metadata, as it is mounted by the running kernel; none
/// where it cannot be told from others.
pub fn file_system(dir: &Path, meta: &Metadata) -> Option<[u8; 32]> {
    let kernel = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let id = rustix::fs::statvfs(dir).ok().map(|system| system.f_fsid).filter(|id| *id != 0)?;
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    let mut encoder = Encoder::new("kiln file system v1");
    encoder.bytes("kernel", &kernel).number("device", meta.dev());
    encoder.number("id", id).bytes("kind", &kind.to_le_bytes());
    Some(*encoder.finish().as_bytes())
}

/// A point in file time: what was changed before has an earlier stamp, what is changed later has
/// this one or a later one. `file` is a scratch file on a local file system.
///
/// A file is written until its stamp moves. Kernels with multigrain timestamps (6.13 and newer)
/// give a fresh stamp to a file that was looked at, at once; others at the next tick, 1 to 10 ms
/// later.
///
/// # Errors
/// When the file cannot be written, or its stamp does not move.
pub fn barrier(file: &Path) -> io::Result<i128> {
    let mut file = File::create(file)?;
    file.write_all(b"x")?;
    let first = changed_ns(&file.metadata()?);
    for look in 0..MAX_LOOKS {
        file.write_all(b"x")?;
        let stamp = changed_ns(&file.metadata()?);
        if stamp > first {
            return Ok(stamp);
        }
        if look > 0 {
            std::thread::sleep(LOOK);
        }
    }
    Err(io::Error::other("file times do not move"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_tells_before_from_after() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let (before, after) = (dir.path().join("before"), dir.path().join("after"));
            std::fs::write(&before, "x").unwrap();
            let stamp = barrier(&dir.path().join("scratch")).unwrap();
            std::fs::write(&after, "x").unwrap();
            let changed = |path: &Path| changed_ns(&std::fs::metadata(path).unwrap());
            assert!(changed(&before) < stamp, "round {round}");
            assert!(changed(&after) >= stamp, "round {round}");
        }
    }
}
