//! [`RealPaths`]: where paths lead in the end, links followed, with each directory on the way looked at
//! once. Called by [`crate::members`], which asks for hundreds of paths of few directories in one lookup.
//!
//! The answers are those of [`std::fs::canonicalize`] at one moment. It keeps nothing beyond that lookup.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The directories that were resolved.
#[derive(Debug, Default)]
pub struct RealPaths {
    known: HashMap<PathBuf, Option<PathBuf>>,
}

impl RealPaths {
    /// Where an absolute path leads; none when it leads nowhere.
    pub fn of(&mut self, path: &Path) -> Option<PathBuf> {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        // A slash at the end asks for a directory.
        let asks = path.as_os_str().as_bytes().ends_with(b"/");
        match path.is_absolute() && !asks && path.components().all(plain) {
            true => self.last(path),
            false => fs::canonicalize(path).ok(),
        }
    }

    /// The last component by itself, in a directory that is resolved.
    fn last(&mut self, path: &Path) -> Option<PathBuf> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Some(path.to_owned());
        };
        let real = self.dir(dir)?.join(name);
        match fs::symlink_metadata(&real).ok()?.is_symlink() {
            true => fs::canonicalize(&real).ok(),
            false => Some(real),
        }
    }

    fn dir(&mut self, dir: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.get(dir) {
            return known.clone();
        }
        let real = self.last(dir);
        self.known.insert(dir.to_owned(), real.clone());
        real
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
        assert_eq!(real.of(Path::new("/")), Some("/".into()));
        assert_eq!(real.of(Path::new("relative")), None);
    }
}
