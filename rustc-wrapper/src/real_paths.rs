//! [`RealPaths`]: where paths lead in the end, links followed, with each path and each directory on the way
//! looked at once. Called by [`crate::members`] and [`crate::script`], which ask for hundreds of paths of few
//! directories at a time.
//!
//! The answers are those of [`std::fs::canonicalize`] at one moment. It keeps nothing beyond that pass.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::quick::QuickMap;

/// What was resolved.
#[derive(Debug, Default)]
pub struct RealPaths {
    known: QuickMap<PathBuf, Option<PathBuf>>,
}

impl RealPaths {
    /// Where an absolute path leads; none when it leads nowhere.
    pub fn of(&mut self, path: &Path) -> Option<PathBuf> {
        let bytes = path.as_os_str().as_bytes();
        // A slash at the end, or a dot behind one, asks for a directory.
        let asks = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        match path.is_absolute() && !asks {
            true => self.plain(path),
            false => fs::canonicalize(path).ok(),
        }
    }

    fn plain(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let real = self.last(path);
        self.known.insert(path.to_owned(), real.clone());
        real
    }

    /// The last component by itself, in a directory that is resolved.
    fn last(&mut self, path: &Path) -> Option<PathBuf> {
        let Some(dir) = path.parent() else { return Some(path.to_owned()) };
        let dir = self.plain(dir)?;
        match path.components().next_back() {
            Some(Component::ParentDir) => {
                let is_dir = fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir());
                is_dir.then(|| dir.parent().unwrap_or(&dir).to_owned())
            }
            last => {
                let real = dir.join(last?);
                match fs::symlink_metadata(&real).ok()?.is_symlink() {
                    true => fs::canonicalize(&real).ok(),
                    false => Some(real),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn answers_are_those_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "").unwrap();
        symlink("b", at("a/relative")).unwrap();
        symlink(at("a"), at("absolute")).unwrap();
        symlink("circle", at("circle")).unwrap();
        symlink("nowhere", at("a/dangling")).unwrap();
        symlink("relative/file", at("a/through")).unwrap();
        let mut real = RealPaths::default();
        for name in [
            "",
            "a",
            "a/b/file",
            "a/b/absent",
            "a/b/file/below",
            "a/b/file/",
            "a/b/",
            "a/b/file/.",
            "a/b/.",
            "a/b/file/..",
            "a/b/file/../file",
            "a/b/..",
            "a/b/../b/../../a/b/file",
            "a/b/absent/..",
            "a/relative/..",
            "absolute/..",
            "absolute/../a",
            "a/dangling/..",
            "a/through/..",
            "a/relative",
            "a/relative/file",
            "absolute/relative/file",
            "absolute/through",
            "a/dangling",
            "a/dangling/below",
            "circle",
            "circle/below",
            "a/../a/b",
            "absolute/relative/../b/file",
            "a/./b",
            "absent/b",
        ] {
            let path = at(name);
            for _ in 0..2 {
                assert_eq!(real.of(&path), fs::canonicalize(&path).ok(), "{name}");
            }
        }
        for top in ["/", "/..", "/../.."] {
            assert_eq!(real.of(Path::new(top)), Some("/".into()));
        }
        assert_eq!(real.of(Path::new("relative")), None);
    }
}
