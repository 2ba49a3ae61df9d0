//! What a filter wants of a tree of files. Called by [`super::Evaluator`].

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_storage::record::TreeFilter;

use crate::roots::TARGET_MARKER;

/// Most files in one tree; a larger one makes the unit uncacheable.
const MAX_TREE_FILES: usize = 20_000;
/// Deepest directory in a tree.
const MAX_TREE_DEPTH: usize = 64;

/// The paths below a directory that a filter wants, relative to it and sorted; none when something cannot be
/// read, or there is too much. `target` is the target directory.
pub(super) fn files(
    dir: &Path,
    filter: TreeFilter,
    target: Option<&Path>,
) -> Option<Vec<(String, Kind)>> {
    let mut walk = Walk { filter, target, found: Vec::new(), visited: HashSet::new() };
    walk.collect(dir, "", 0)?;
    walk.found.sort_unstable();
    Some(walk.found)
}

fn wanted(name: &str, filter: TreeFilter) -> bool {
    let has = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match filter {
        TreeFilter::Package | TreeFilter::All | TreeFilter::Files => true,
        TreeFilter::Libraries => {
            has(&[".a", ".so", ".o", ".lib", ".dylib", ".tbd"]) || name.contains(".so.")
        }
        TreeFilter::Crates => has(&[".rlib", ".rmeta", ".so", ".dylib"]),
    }
}

/// What a name in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
}

/// A walk over what a filter wants of a tree, as paths relative to it.
struct Walk<'a> {
    filter: TreeFilter,
    /// The target directory, which may lie in the package and have no marker.
    target: Option<&'a Path>,
    found: Vec<(String, Kind)>,
    /// Directories entered, so that links do not lead in circles.
    visited: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn skips(&self, path: &Path, name: &str) -> bool {
        self.filter == TreeFilter::Package
            && (name == ".git" || path.join(TARGET_MARKER).exists() || Some(path) == self.target)
    }

    /// None when something cannot be read, or there is too much.
    fn collect(&mut self, dir: &Path, prefix: &str, depth: usize) -> Option<()> {
        let meta = std::fs::metadata(dir).ok()?;
        if !self.visited.insert((meta.dev(), meta.ino())) {
            return Some(());
        }
        if depth > MAX_TREE_DEPTH {
            return None;
        }
        let deep = matches!(self.filter, TreeFilter::Package | TreeFilter::All);
        for entry in std::fs::read_dir(dir).ok()? {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let path = entry.path();
            let kind = entry.file_type().ok()?;
            let is_dir = kind.is_dir() || (kind.is_symlink() && path.is_dir());
            if is_dir && (!deep || self.skips(&path, &name)) {
                continue;
            }
            let relative = format!("{prefix}{name}");
            if is_dir {
                self.collect(&path, &format!("{relative}/"), depth + 1)?;
            } else if !wanted(&name, self.filter) {
                continue;
            }
            let kind = match (kind.is_symlink(), is_dir) {
                (true, _) => Kind::Link,
                (false, true) => Kind::Directory,
                (false, false) => Kind::File,
            };
            self.found.push((relative, kind));
            if self.found.len() > MAX_TREE_FILES {
                return None;
            }
        }
        Some(())
    }
}
