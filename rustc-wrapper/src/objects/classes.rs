//! [`Classes`]: what [`classify`] said of each content, kept on disk.
//!
//! `KILN_DIR/objects` holds up to 256 files of bounded size, chosen by the first byte of the
//! digest. A file is a version, a checksum and a list, newest first; it is written whole under
//! another name and renamed. Where two wrappers write at once, one of them loses an answer, and
//! where a file is full, the oldest goes: both are found out again. A file of another classifier is
//! no answer, and is replaced. Called for the objects that a compile loads and the programs that it
//! starts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;

use crate::limits::{MAX_CLASSES_BYTES, MAX_OBJECT_BYTES};
use crate::memo::Memo;
use crate::objects::{CLASSIFIER_VERSION, Class, classify};
use crate::tool::write_whole;

/// Bytes of the checksum in front of a list, as text with the end of the line.
const HEAD_BYTES: usize = 65;

/// The classes known on this machine.
#[derive(Debug, Clone)]
pub struct Classes {
    dir: PathBuf,
}

/// What proves that a list was written whole, by one version of the classifier.
fn checksum(list: &[u8], classifier: u64) -> Digest {
    let mut encoder = Encoder::new("kiln object classes v1");
    encoder.number("classifier", classifier).bytes("list", list);
    encoder.finish()
}

impl Classes {
    /// Those kept in a state directory.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.join("objects") }
    }

    /// The class of a program or shared object, from the disk or found out now.
    ///
    /// # Errors
    /// What looking at the file or reading it fails with, as [`Memo::digest`] does.
    pub fn of(&self, path: &Path, memo: &Memo) -> io::Result<Class> {
        let meta = std::fs::metadata(path)?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if meta.len() > MAX_OBJECT_BYTES {
            return Ok(Class::unknown());
        }
        if let Some(class) = memo.get(&meta).and_then(|digest| self.get(&digest)) {
            return Ok(class);
        }
        // The file may be another one by now: the answer belongs to the bytes that are read.
        let (bytes, digest) = memo.read(path, MAX_OBJECT_BYTES)?;
        if bytes.len() as u64 > MAX_OBJECT_BYTES {
            return Ok(Class::unknown());
        }
        if let Some(class) = self.get(&digest) {
            return Ok(class);
        }
        let class = classify(&bytes);
        self.put(digest, &class);
        Ok(class)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{:02x}", digest.as_bytes()[0]))
    }

    fn get(&self, digest: &Digest) -> Option<Class> {
        let kept = read_list(&self.place(digest))?.into_iter().find(|kept| kept.0 == *digest);
        kept.map(|kept| kept.1)
    }

    fn put(&self, digest: Digest, class: &Class) {
        let place = self.place(&digest);
        let mut list = read_list(&place).unwrap_or_default();
        list.retain(|kept| kept.0 != digest);
        list.insert(0, (digest, class.clone()));
        // An answer that fills a file by itself is not kept.
        while !list.is_empty() {
            let Ok(text) = serde_json::to_vec(&list) else { return };
            if HEAD_BYTES + text.len() <= MAX_CLASSES_BYTES {
                let head = format!("{}\n", checksum(&text, CLASSIFIER_VERSION));
                return write_whole(&place, &[head.as_bytes(), &text].concat());
            }
            list.pop();
        }
    }
}

fn read_list(place: &Path) -> Option<Vec<(Digest, Class)>> {
    let mut bytes = Vec::new();
    let limit = MAX_CLASSES_BYTES as u64;
    File::open(place).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() > MAX_CLASSES_BYTES {
        return None;
    }
    let (head, list) = bytes.split_at_checked(HEAD_BYTES)?;
    let head = std::str::from_utf8(head).ok()?.strip_suffix('\n')?;
    if head.parse() != Ok(checksum(list, CLASSIFIER_VERSION)) {
        return None;
    }
    serde_json::from_slice(list).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Kind;
    use crate::objects::sample::Sample;

    /// A state directory, and a library beside it.
    struct Desk {
        dir: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let desk = Self { dir: tempfile::tempdir().unwrap() };
            desk.write(&Sample::library().bytes());
            desk
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("lib.so")
        }

        fn write(&self, bytes: &[u8]) {
            std::fs::write(self.path(), bytes).unwrap();
        }

        fn classes(&self) -> Classes {
            Classes::open(self.dir.path())
        }

        fn class(&self) -> Class {
            self.classes().of(&self.path(), &Memo::default()).unwrap()
        }

        fn digest(&self) -> Digest {
            Digest::of(&std::fs::read(self.path()).unwrap())
        }

        fn place(&self) -> PathBuf {
            self.classes().place(&self.digest())
        }

        /// Puts an answer under the file's digest that the classifier would not give.
        fn mark(&self) {
            self.classes().put(self.digest(), &marked());
        }
    }

    fn marked() -> Class {
        Class { needed: vec!["marked".into()], ..Class::unknown() }
    }

    #[test]
    fn a_kept_answer_is_given_again() {
        let desk = Desk::new();
        let class = desk.class();
        assert_eq!(class.kind, Kind::Dynamic { interpreter: None });
        assert_eq!(desk.classes().get(&desk.digest()), Some(class));
        desk.mark();
        assert_eq!(desk.class(), marked());
        assert_eq!(read_list(&desk.place()).unwrap().len(), 1, "in place of the first");
        let copy = desk.dir.path().join("copy");
        std::fs::copy(desk.path(), &copy).unwrap();
        assert_eq!(desk.classes().of(&copy, &Memo::default()).unwrap(), marked(), "by content");
        desk.write(b"#!/bin/sh\n");
        assert!(matches!(desk.class().kind, Kind::Script { .. }));
    }

    #[test]
    fn answers_stand_beside_each_other() {
        let desk = Desk::new();
        let classes = desk.classes();
        let digest =
            |n: u8| Digest::from_bytes([[7; 31].as_slice(), &[n]].concat().try_into().unwrap());
        let class = |n: u8| Class { needed: vec![n.to_string()], ..Class::unknown() };
        for n in 0..20 {
            classes.put(digest(n), &class(n));
        }
        for n in 0..20 {
            assert_eq!(classes.get(&digest(n)), Some(class(n)));
        }
        assert_eq!(std::fs::read_dir(&classes.dir).unwrap().count(), 1, "one file, no left-overs");
    }

    #[test]
    fn a_damaged_file_or_one_of_another_classifier_is_no_answer() {
        let desk = Desk::new();
        desk.mark();
        let bytes = std::fs::read(desk.place()).unwrap();
        for at in [0, HEAD_BYTES - 1, HEAD_BYTES, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(desk.place(), damaged).unwrap();
            assert_eq!(desk.classes().get(&desk.digest()), None, "at {at}");
        }
        std::fs::write(desk.place(), &bytes[..HEAD_BYTES - 2]).unwrap();
        assert_eq!(desk.classes().get(&desk.digest()), None);
        let list = &bytes[HEAD_BYTES..];
        let head = format!("{}\n", checksum(list, CLASSIFIER_VERSION + 1));
        let other = [head.as_bytes(), list].concat();
        std::fs::write(desk.place(), other).unwrap();
        assert_ne!(desk.class(), marked());
        assert_eq!(desk.classes().get(&desk.digest()), Some(desk.class()), "and is replaced");
    }

    #[test]
    fn a_full_file_loses_the_oldest() {
        let desk = Desk::new();
        let classes = desk.classes();
        let digest =
            |n: u8| Digest::from_bytes([[7; 31].as_slice(), &[n]].concat().try_into().unwrap());
        let class = Class { needed: vec!["x".repeat(MAX_CLASSES_BYTES / 4)], ..Class::unknown() };
        for n in 0..6 {
            classes.put(digest(n), &class);
        }
        let kept = |n| classes.get(&digest(n)).is_some();
        assert_eq!([0, 1, 2, 3, 4, 5].map(kept), [false, false, false, true, true, true]);
        // One that is too large by itself leaves what there is.
        let large = Class { needed: vec!["x".repeat(MAX_CLASSES_BYTES)], ..Class::unknown() };
        classes.put(digest(6), &large);
        assert_eq!([3, 4, 5, 6].map(kept), [true, true, true, false]);
    }

    #[test]
    fn what_is_no_plain_file_is_an_error() {
        let desk = Desk::new();
        let of = |path: &Path| desk.classes().of(path, &Memo::default()).map_err(|e| e.kind());
        assert_eq!(of(desk.dir.path()), Err(io::ErrorKind::IsADirectory));
        assert_eq!(of(&desk.dir.path().join("none")), Err(io::ErrorKind::NotFound));
        assert_eq!(of(Path::new("/dev/null")), Err(io::ErrorKind::InvalidInput));
    }

    /// Neither hashed nor read: that of a file full of holes would take long.
    #[test]
    fn a_file_that_is_too_large_is_unknown() {
        let desk = Desk::new();
        desk.write(b"#!/bin/sh\n");
        let file = File::options().write(true).open(desk.path()).unwrap();
        file.set_len(MAX_OBJECT_BYTES + 1).unwrap();
        assert_eq!(desk.class(), Class::unknown());
        assert!(!desk.classes().dir.exists());
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_costs_only_time() {
        let desk = Desk::new();
        std::fs::write(desk.dir.path().join("objects"), "a file is in the way").unwrap();
        assert_eq!(desk.class().kind, Kind::Dynamic { interpreter: None });
    }
}
