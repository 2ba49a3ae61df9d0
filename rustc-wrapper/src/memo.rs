//! [`Memo`]: the digests of files that did not change since they were hashed.
//!
//! One file per `KILN_DIR`, shared by all wrappers without locks: a table of fixed size whose rows
//! are keyed by what the kernel says of a file (device, inode, size, mtime, ctime) and carry a
//! checksum, so that a torn or foreign row is no answer. A row is written only when a later change
//! is sure to get another ctime, which nobody can set back: because the last change is older than
//! the current tick of the kernel's file clock, or because the file system stamps every change of a
//! file that was looked at anew ([`Memo::probe`]).

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use kiln_storage::Digest;
use rustix::fs::OFlags;

use crate::stamp::{changed_ns, coarse_now_ns, file_system, is_multigrain, is_unwritten, stamp};

const FILE_NAME: &str = "memo.v1";
/// Rows in a bucket, and buckets in the table: 8 MiB, sparse until used.
const BUCKET_ROWS: usize = 8;
const BUCKETS: u64 = 16 * 1024;
/// 16 bytes of key, 32 of digest, 8 of checksum, 8 unused.
const ROW_BYTES: usize = 64;
const BUCKET_BYTES: usize = BUCKET_ROWS * ROW_BYTES;
/// File systems that keep whole seconds need that much distance, nanoseconds.
const COARSE_FILE_SYSTEM_NS: i128 = 2_100_000_000;

/// The shared table; without a directory it answers nothing.
#[derive(Debug, Default)]
pub struct Memo {
    file: Option<File>,
    /// A device on which [`crate::stamp::is_multigrain`] holds.
    multigrain: Option<u64>,
}

/// Whether a file with this metadata, hashed from `hashed_from_ns` (coarse clock) on, cannot have
/// been changed since without another ctime.
fn settled(meta: &Metadata, hashed_from_ns: i128) -> bool {
    let margin = if meta.ctime_nsec() == 0 { COARSE_FILE_SYSTEM_NS } else { 0 };
    changed_ns(meta) + margin < hashed_from_ns
}

/// What identifies an unchanged file, as a row's key.
fn row_key(meta: &Metadata) -> [u8; 32] {
    *Digest::of(&stamp(meta)).as_bytes()
}

/// What a row says of a file system: whether it is multigrain.
fn multigrain_word(is: bool) -> Digest {
    Digest::of(if is { b"multigrain" } else { b"coarse" })
}

fn checksum(row: &[u8]) -> [u8; 8] {
    let digest = Digest::of(row);
    let mut sum = [0_u8; 8];
    sum.copy_from_slice(&digest.as_bytes()[..8]);
    sum
}

impl Memo {
    /// The memo of a state directory. When it cannot be opened it answers nothing.
    pub fn open(dir: &Path) -> Self {
        let mut options = OpenOptions::new();
        let path = dir.join(FILE_NAME);
        let file = options
            .read(true)
            .write(true)
            .open(&path)
            .or_else(|_| options.create(true).truncate(false).open(&path));
        // A write beyond the bound on files would end the process.
        let bound = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        let fits = bound.is_none_or(|bound| bound >= BUCKETS * BUCKET_BYTES as u64);
        Self { file: file.ok().filter(|_| fits), multigrain: None }
    }

    fn bucket(key: &[u8; 32]) -> u64 {
        let mut index = [0_u8; 8];
        index.copy_from_slice(&key[16..24]);
        (u64::from_le_bytes(index) % BUCKETS) * BUCKET_BYTES as u64
    }

    /// The digest of a file with this metadata, if it was noted.
    pub fn get(&self, meta: &Metadata) -> Option<Digest> {
        self.row(&row_key(meta))
    }

    fn row(&self, key: &[u8; 32]) -> Option<Digest> {
        let file = self.file.as_ref()?;
        let mut bucket = [0_u8; BUCKET_BYTES];
        let read = file.read_at(&mut bucket, Self::bucket(key)).ok()?;
        bucket[..read].chunks_exact(ROW_BYTES).find_map(|row| {
            if row[..16] != key[..16] || checksum(&row[..48]) != row[48..56] {
                return None;
            }
            let mut digest = [0_u8; 32];
            digest.copy_from_slice(&row[16..48]);
            Some(Digest::from_bytes(digest))
        })
    }

    /// Finds out whether files of this directory's device can be noted right after a change. Tried out once
    /// for a file system, where that can be told from every other.
    pub fn probe(&mut self, dir: &Path) {
        let Ok(meta) = std::fs::metadata(dir) else { return };
        if self.multigrain == Some(meta.dev()) {
            return;
        }
        let key = file_system(dir, &meta);
        let known = key.and_then(|key| self.row(&key));
        let is = match known {
            Some(word) => Some(word == multigrain_word(true)),
            None => is_multigrain(dir),
        };
        if let (Some(key), None, Some(is)) = (&key, known, is) {
            self.put_row(key, &multigrain_word(is));
        }
        if is == Some(true) {
            self.multigrain = Some(meta.dev());
        }
    }

    /// Notes the digest of a file, if it cannot have been changed unseen since the coarse clock
    /// showed `hashed_from_ns`. The file was looked at before it was hashed, and was the same after.
    pub fn put(&self, meta: &Metadata, hashed_from_ns: i128, digest: &Digest) {
        if settled(meta, hashed_from_ns) || self.multigrain == Some(meta.dev()) {
            self.put_row(&row_key(meta), digest);
        }
    }

    /// What is noted of a file, with its metadata.
    pub fn known(&self, path: &Path) -> Option<(Digest, Metadata)> {
        let meta = std::fs::metadata(path).ok()?;
        Some((self.get(&meta)?, meta))
    }

    /// Notes what was known of a file under another name of it, unless somebody wrote to it.
    pub fn follow(&self, path: &Path, (digest, before): &(Digest, Metadata)) {
        let hashed_from_ns = coarse_now_ns();
        if let Ok(now) = std::fs::metadata(path)
            && is_unwritten(before, &now)
        {
            self.put(&now, hashed_from_ns, digest);
        }
    }

    fn put_row(&self, key: &[u8; 32], digest: &Digest) {
        let Some(file) = &self.file else { return };
        let at = Self::bucket(key);
        let mut bucket = [0_u8; BUCKET_BYTES];
        let read = file.read_at(&mut bucket, at).unwrap_or(0);
        let rows = || bucket[..read].chunks_exact(ROW_BYTES);
        let same_or_free = rows().position(|row| row[..16] == key[..16] || row[48..56] == [0; 8]);
        // Rows beyond the end of the file are free; in a full bucket chance decides.
        let free = (read / ROW_BYTES < BUCKET_ROWS).then_some(read / ROW_BYTES);
        let place = same_or_free.or(free).unwrap_or(usize::from(key[24]) % BUCKET_ROWS);
        let mut row = [0_u8; ROW_BYTES];
        row[..16].copy_from_slice(&key[..16]);
        row[16..48].copy_from_slice(digest.as_bytes());
        let sum = checksum(&row[..48]);
        row[48..56].copy_from_slice(&sum);
        // A row that cannot be written is hashed again next time.
        let _ = file.write_at(&row, at + (place * ROW_BYTES) as u64);
    }

    /// The digest of a file's content, from the memo or by hashing it now, and its metadata.
    ///
    /// # Errors
    /// What opening or reading fails with; [`std::io::ErrorKind::IsADirectory`] for a directory, and
    /// [`std::io::ErrorKind::InvalidInput`] for what is no plain file (a pipe may never answer).
    pub fn digest(&self, path: &Path) -> std::io::Result<(Digest, Metadata)> {
        self.digest_of(path, std::fs::metadata(path)?)
    }

    /// The same for a file with this metadata, which was looked at right now.
    ///
    /// # Errors
    /// As for [`Memo::digest`].
    pub fn digest_of(&self, path: &Path, meta: Metadata) -> std::io::Result<(Digest, Metadata)> {
        if meta.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        if let Some(digest) = self.get(&meta) {
            return Ok((digest, meta));
        }
        let hashed_from_ns = coarse_now_ns();
        let mut file = open(path)?;
        let before = file.metadata()?;
        let (digest, _) = Digest::of_reader(&mut file)?;
        let after = file.metadata()?;
        if row_key(&before) == row_key(&after) {
            self.put(&after, hashed_from_ns, &digest);
        }
        Ok((digest, after))
    }

    /// The bytes of a plain file, one more than a limit when there are too many, and their digest.
    ///
    /// # Errors
    /// What opening or reading fails with.
    pub fn read(&self, path: &Path, limit: u64) -> std::io::Result<(Vec<u8>, Digest)> {
        let hashed_from_ns = coarse_now_ns();
        let file = open(path)?;
        let before = file.metadata()?;
        let room = usize::try_from(before.len().min(limit)).unwrap_or_default() + 1;
        let mut bytes = Vec::with_capacity(room);
        (&file).take(limit + 1).read_to_end(&mut bytes)?;
        let after = file.metadata()?;
        let is_whole = row_key(&before) == row_key(&after) && bytes.len() as u64 == after.len();
        // What is noted of a file that is as it was is the digest of what was read.
        if let Some(known) = is_whole.then(|| self.get(&after)).flatten() {
            return Ok((bytes, known));
        }
        let digest = Digest::of(&bytes);
        if is_whole {
            self.put(&after, hashed_from_ns, &digest);
        }
        Ok((bytes, digest))
    }
}

/// Opens a file to read. Should it become a pipe right now, this does not wait for a writer.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wait_for_the_next_tick() {
        let start = crate::stamp::now_ns();
        while coarse_now_ns() <= start {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_settled_file_is_hashed_once() {
        let dir = tempfile::tempdir().unwrap();
        let memo = Memo::open(dir.path());
        let path = dir.path().join("a");
        std::fs::write(&path, "one").unwrap();
        wait_for_the_next_tick();
        let (digest, meta) = memo.digest(&path).unwrap();
        assert_eq!(digest, Digest::of(b"one"));
        assert_eq!(memo.get(&meta), Some(digest));
        assert_eq!(Memo::open(dir.path()).get(&meta), Some(digest), "another process sees it");
    }

    #[test]
    fn a_file_changed_within_the_tick_is_never_remembered_wrongly() {
        let dir = tempfile::tempdir().unwrap();
        let memo = Memo::open(dir.path());
        let path = dir.path().join("a");
        for round in 0..2000_u32 {
            let text = format!("{round:08}");
            std::fs::write(&path, &text).unwrap();
            let (digest, _) = memo.digest(&path).unwrap();
            assert_eq!(digest, Digest::of(text.as_bytes()), "round {round}");
        }
    }

    /// The same with the file system's own word for it, where it gives it.
    #[test]
    fn a_file_changed_within_the_tick_is_seen_on_a_multigrain_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let mut memo = Memo::open(dir.path());
        memo.probe(dir.path());
        let path = dir.path().join("a");
        for round in 0..2000_u32 {
            let text = format!("{round:08}");
            std::fs::write(&path, &text).unwrap();
            for _ in 0..2 {
                let (digest, _) = memo.digest(&path).unwrap();
                assert_eq!(digest, Digest::of(text.as_bytes()), "round {round}");
            }
        }
    }

    #[test]
    fn what_is_known_follows_a_new_name_but_not_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut memo = Memo::open(dir.path());
        memo.probe(dir.path());
        let (path, link) = (dir.path().join("a"), dir.path().join("b"));
        for (text, follows) in [("one", true), ("two", false)] {
            std::fs::write(&path, text).unwrap();
            wait_for_the_next_tick();
            let (digest, _) = memo.digest(&path).unwrap();
            let known = memo.known(&path).unwrap();
            assert_eq!(known.0, digest);
            let _ = std::fs::remove_file(&link);
            std::fs::hard_link(&path, &link).unwrap();
            if !follows {
                std::fs::write(&path, "2wo").unwrap();
            }
            wait_for_the_next_tick();
            memo.follow(&link, &known);
            let now = memo.get(&std::fs::metadata(&link).unwrap());
            assert_eq!(now, follows.then_some(digest), "{text}");
        }
    }

    #[test]
    fn a_file_system_is_tried_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        let probe = || {
            let mut memo = Memo::open(dir.path());
            memo.probe(place.path());
            (memo.multigrain, std::fs::metadata(place.path()).unwrap().modified().unwrap())
        };
        let (first, again) = (probe(), probe());
        assert_eq!(first.0, again.0);
        let meta = std::fs::metadata(place.path()).unwrap();
        if file_system(place.path(), &meta).is_some() {
            assert_eq!(first.1, again.1, "no scratch file was made the second time");
        }
    }

    #[test]
    fn same_size_and_mtime_with_other_content_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let memo = Memo::open(dir.path());
        let path = dir.path().join("a");
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for text in ["one", "two"] {
            std::fs::write(&path, text).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            wait_for_the_next_tick();
            assert_eq!(memo.digest(&path).unwrap().0, Digest::of(text.as_bytes()));
        }
    }

    #[test]
    fn damage_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let memo = Memo::open(dir.path());
        let path = dir.path().join("a");
        std::fs::write(&path, "one").unwrap();
        wait_for_the_next_tick();
        let (digest, meta) = memo.digest(&path).unwrap();
        let table = dir.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&table).unwrap();
        let at = bytes.windows(32).position(|w| w == digest.as_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&table, bytes).unwrap();
        assert_eq!(memo.get(&meta), None);
    }
}
