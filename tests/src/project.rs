//! [`Project`]: a directory with sources, mostly a cargo package.

use std::path::{Path, PathBuf};

/// A directory with sources.
#[derive(Debug, Clone)]
pub struct Project {
    dir: PathBuf,
}

impl Project {
    /// An empty directory.
    pub fn create(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory");
        Self { dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// A path in it as text.
    pub fn text(&self, path: &str) -> String {
        self.at(path).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file; directories are made.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
        self
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Removes a file or a directory, if it is there.
    pub fn remove(&self, path: &str) -> &Self {
        let path = self.at(path);
        match path.is_dir() {
            true => std::fs::remove_dir_all(&path).expect("a directory goes"),
            false => drop(std::fs::remove_file(&path)),
        }
        self
    }

    /// A package without dependencies: `Cargo.toml` with more lines behind `[package]`.
    pub fn package(&self, name: &str, more: &str) -> &Self {
        let head =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        self.write("Cargo.toml", head + more)
    }

    /// Removes the target directory.
    pub fn wipe(&self) -> &Self {
        self.remove("target")
    }

    /// A copy in another place, without its target directory.
    pub fn copy_to(&self, dir: PathBuf) -> Self {
        copy_tree(&self.dir, &dir, &["target"]);
        Self { dir }
    }
}

/// Copies a directory tree; directories with these names are left out.
pub fn copy_tree(from: &Path, to: &Path, without: &[&str]) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a kind"));
        if without.iter().any(|w| name == *w) {
            continue;
        }
        let to = to.join(&name);
        if kind.is_dir() {
            copy_tree(&entry.path(), &to, without);
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).expect("a link");
            std::os::unix::fs::symlink(target, to).expect("a link");
        } else {
            std::fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// The files below a directory, sorted, relative to it.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() && !path.is_symlink() {
                true => open.push(path),
                false => files.push(path.strip_prefix(dir).expect("below").to_owned()),
            }
        }
    }
    files.sort_unstable();
    files
}
