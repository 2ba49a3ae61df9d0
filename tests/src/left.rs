//! What build scripts leave behind: the notes of those that ran ([`Tally`]), what is in `OUT_DIR`
//! ([`built`]) and what they printed ([`outputs`]).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::project::Project;
use crate::world::World;

/// The runs of scripts that note them.
#[derive(Debug, Clone)]
pub struct Tally {
    log: PathBuf,
}

impl Tally {
    /// An empty log in a world.
    pub fn new(world: &World) -> Self {
        let log = world.at("tally/scripts");
        std::fs::create_dir_all(world.at("tally")).expect("a directory");
        for log in [log.clone(), world.at("tally/scripts.pid")] {
            std::fs::write(&log, "").expect("a log");
        }
        Self { log }
    }

    /// The log.
    pub fn path(&self) -> &str {
        self.log.to_str().expect("UTF-8")
    }

    /// The packages whose scripts ran since the last time, sorted.
    pub fn take(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).expect("a log");
        std::fs::write(&self.log, "").expect("a log");
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }
}

/// The directories of script runs, by their names.
fn runs(project: &Project, profile: &str) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(project.at(&format!("target/{profile}/build"))) else {
        return Vec::new();
    };
    let mut found: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("out").is_dir())
        .map(|path| (path.file_name().expect("a name").to_str().expect("UTF-8").to_owned(), path))
        .collect();
    found.sort_unstable();
    found
}

/// Paths, what is there, and its bytes.
pub type Tree = BTreeMap<String, (String, Vec<u8>)>;

/// Everything in all `OUT_DIR`s of a built workspace: kind, mode, target of links, and with `content`
/// the bytes of files.
pub fn built(project: &Project, content: bool) -> Tree {
    built_in(project, "debug", content)
}

/// The same for another profile.
pub fn built_in(project: &Project, profile: &str, content: bool) -> Tree {
    let mut found = BTreeMap::new();
    for (name, dir) in runs(project, profile) {
        look(&dir.join("out"), &name, content, &mut found);
    }
    found
}

fn look(path: &Path, name: &str, content: bool, found: &mut Tree) {
    let meta = path.symlink_metadata().expect("it is there");
    let mode = meta.mode() & 0o7777;
    let (kind, bytes) = if meta.is_symlink() {
        let target = std::fs::read_link(path).expect("a link");
        ("link".to_owned(), target.into_os_string().into_encoded_bytes())
    } else if meta.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{name}/{}", entry.file_name().display());
            look(&entry.path(), &name, content, found);
        }
        (format!("directory {mode:o}"), Vec::new())
    } else if !meta.is_file() {
        (format!("other {mode:o}"), Vec::new())
    } else {
        let bytes = if content { std::fs::read(path).expect("a file") } else { Vec::new() };
        (format!("file {mode:o}"), bytes)
    };
    found.insert(name.to_owned(), (kind, bytes));
}

/// What the scripts of a built workspace printed, as cargo noted it, by package.
pub fn outputs(project: &Project) -> BTreeMap<String, String> {
    outputs_in(project, "debug")
}

/// The same for another profile.
pub fn outputs_in(project: &Project, profile: &str) -> BTreeMap<String, String> {
    let read = |dir: &Path, file| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let both = |dir: &Path| read(dir, "output") + "---\n" + &read(dir, "stderr");
    runs(project, profile).into_iter().map(|(name, dir)| (name, both(&dir))).collect()
}
