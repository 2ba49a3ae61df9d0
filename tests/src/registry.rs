//! Sources from crates.io: fetched once for all test programs into a directory that they share,
//! copied from there into each world that wants them.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::call::{Call, Done};
use crate::host::{SYSTEM_PATH, host};
use crate::project::{Project, copy_tree};
use crate::world::World;

/// The dependencies of the small workspace: build scripts, procedural macros, plain crates.
pub const SMALL: &[(&str, &str)] = &[
    ("serde", "{ version = \"1\", features = [\"derive\"] }"),
    ("anyhow", "\"1\""),
    ("libc", "\"0.2\""),
    ("itoa", "\"1\""),
    ("memchr", "\"2\""),
];

/// Procedural macros in wide use, and a library that makes its system calls itself.
pub const MACROS: &[(&str, &str)] = &[
    ("clap_derive", "\"4\""),
    ("serde_derive", "\"1\""),
    ("thiserror-impl", "\"2\""),
    ("tokio-macros", "\"2\""),
    ("rustix", "{ version = \"1\", features = [\"fs\"] }"),
];

/// Crates whose build scripts try out the compiler, in all the ways there are.
pub const PROBING: &[(&str, &str)] = &[
    ("num-traits", "\"0.2\""),
    ("anyhow", "\"1\""),
    ("thiserror", "\"2\""),
    ("proc-macro2", "\"1\""),
    ("rustix", "{ version = \"1\", features = [\"fs\"] }"),
    ("libc", "\"0.2\""),
];

/// Packages whose build scripts compile C, run `rustc`, or look at the machine.
pub const NATIVE: &[(&str, &str)] = &[
    ("libsqlite3-sys", "{ version = \"0.30\", features = [\"bundled\"] }"),
    ("zstd-sys", "\"2\""),
    ("libgit2-sys", "{ version = \"0.18\", default-features = false, features = [\"vendored\"] }"),
    ("onig_sys", "{ version = \"69\", default-features = false }"),
    ("ring", "\"0.17\""),
    ("serde", "\"1\""),
    ("proc-macro2", "\"1\""),
    ("libc", "\"0.2\""),
    ("anyhow", "\"1\""),
    ("thiserror", "\"2\""),
    ("rustix", "\"1\""),
    ("rustix-0-38", "{ package = \"rustix\", version = \"0.38\" }"),
    ("typenum", "\"1\""),
    ("crc32fast", "\"1\""),
    ("num-traits", "\"0.2\""),
    ("parking_lot_core", "\"0.9\""),
];

/// What an extension of Python in Rust needs, and a crate for numbers.
pub const PYTHON: &[(&str, &str)] = &[
    ("pyo3", "{ version = \"0.30\", features = [\"extension-module\"] }"),
    ("num-complex", "\"0.4\""),
];

/// What makes bindings to C with libclang, in build scripts.
pub const BINDGEN: &[(&str, &str)] = &[("bindgen", "\"0.72\"")];

/// Sources that are on this machine, or why they are not.
pub type Fetched = Result<Project, String>;

fn cargo_home(shared: &Path) -> PathBuf {
    shared.join("registry-home")
}

fn fetch(shared: &Path, project: &Project) -> Done {
    let cargo = host().toolchain.join("cargo");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut call = Call::new(&cargo, project.dir(), &["fetch", "--target", &target]);
    for (name, value) in &host().network {
        call = call.env(name, value);
    }
    let path = format!("{}:{SYSTEM_PATH}", host().toolchain.display());
    call.env("HOME", shared).env("CARGO_HOME", cargo_home(shared)).env("PATH", path).run()
}

/// Holds the shared directory for one test program at a time.
fn turn(shared: &Path) -> File {
    let path = shared.join("registry.lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a file");
    file.lock().expect("a lock");
    file
}

/// Settings of the user's cargo that say how the registry is reached.
fn settings(shared: &Path) {
    let home = cargo_home(shared);
    std::fs::create_dir_all(&home).expect("a directory");
    for name in ["config.toml", "credentials.toml"] {
        let from =
            host().cargo_home.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists());
        if let Some(from) = from {
            std::fs::copy(from, home.join(name)).expect("a copy");
        }
    }
}

/// A package with these dependencies and its lock file, all fetched.
fn package(shared: &Path, name: &str, dependencies: &[(&str, &str)]) -> Fetched {
    let _turn = turn(shared);
    settings(shared);
    let project = Project::create(shared.join(format!("registry-{name}")));
    let mut manifest =
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n");
    manifest.push_str("[workspace]\n\n[dependencies]\n");
    for (dependency, spec) in dependencies {
        manifest.push_str(&format!("{dependency} = {spec}\n"));
    }
    let done = project.at("fetched");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == manifest) {
        return Ok(project);
    }
    project.remove("Cargo.lock").write("Cargo.toml", &manifest).write("src/lib.rs", "");
    let fetched = fetch(shared, &project);
    match fetched.status.success() {
        true => {
            project.write("fetched", &manifest);
            Ok(project)
        }
        false => Err(format!("the registry is not to be reached: {}", fetched.stderr)),
    }
}

/// [`SMALL`], fetched once for each test program.
pub fn small(world: &World) -> &'static Fetched {
    static SMALL_SET: OnceLock<Fetched> = OnceLock::new();
    SMALL_SET.get_or_init(|| package(&world.programs.shared, "small", SMALL))
}

/// [`MACROS`], fetched once for each test program.
pub fn macros(world: &World) -> &'static Fetched {
    static MACROS_SET: OnceLock<Fetched> = OnceLock::new();
    MACROS_SET.get_or_init(|| package(&world.programs.shared, "macros", MACROS))
}

/// [`PROBING`], fetched once for each test program.
pub fn probing(world: &World) -> &'static Fetched {
    static PROBING_SET: OnceLock<Fetched> = OnceLock::new();
    PROBING_SET.get_or_init(|| package(&world.programs.shared, "probing", PROBING))
}

/// [`NATIVE`], fetched once for each test program.
pub fn native(world: &World) -> &'static Fetched {
    static NATIVE_SET: OnceLock<Fetched> = OnceLock::new();
    NATIVE_SET.get_or_init(|| package(&world.programs.shared, "native", NATIVE))
}

/// [`BINDGEN`], fetched once for each test program.
pub fn bindgen(world: &World) -> &'static Fetched {
    static BINDGEN_SET: OnceLock<Fetched> = OnceLock::new();
    BINDGEN_SET.get_or_init(|| package(&world.programs.shared, "bindgen", BINDGEN))
}

/// [`PYTHON`], fetched once for each test program.
pub fn python(world: &World) -> &'static Fetched {
    static PYTHON_SET: OnceLock<Fetched> = OnceLock::new();
    PYTHON_SET.get_or_init(|| package(&world.programs.shared, "python", PYTHON))
}

/// A published program with its own lock file, and all that it needs.
pub fn published(world: &World, name: &str, version: &str) -> Fetched {
    let shared = &world.programs.shared;
    package(shared, &format!("get-{name}"), &[(name, &format!("\"={version}\""))])?;
    let _turn = turn(shared);
    let project = Project::create(shared.join(format!("published-{name}-{version}")));
    if project.at("fetched").exists() {
        return Ok(project);
    }
    let sources = cargo_home(shared).join("registry/src");
    let index = std::fs::read_dir(sources).ok().and_then(|mut dirs| dirs.next()?.ok());
    let index = index.ok_or("no sources were unpacked")?.path();
    copy_tree(&index.join(format!("{name}-{version}")), project.dir(), &[]);
    project.remove(".cargo-ok").remove(".cargo_vcs_info.json").remove("Cargo.toml.orig");
    // A workspace of its own, wherever it is put.
    let manifest = String::from_utf8(project.read("Cargo.toml")).expect("UTF-8");
    if !manifest.contains("\n[workspace]") {
        project.write("Cargo.toml", manifest + "\n[workspace]\n");
    }
    let fetched = fetch(shared, &project);
    match fetched.status.success() {
        true => {
            project.write("fetched", "");
            Ok(project)
        }
        false => Err(format!("the registry is not to be reached: {}", fetched.stderr)),
    }
}

impl World {
    /// Gives this world's cargo home the sources that a fetched project's lock file names.
    pub fn provide_sources(&self, project: &Project) {
        self.provide_sources_to(project, &self.cargo_home());
    }

    /// The same for another cargo home.
    pub fn provide_sources_to(&self, project: &Project, home: &Path) {
        let from = cargo_home(&self.programs.shared).join("registry");
        let to = home.join("registry");
        copy_tree(&from.join("index"), &to.join("index"), &[]);
        let lock = String::from_utf8(project.read("Cargo.lock")).expect("UTF-8");
        for source in std::fs::read_dir(from.join("src")).expect("sources").flatten() {
            let index = PathBuf::from(source.file_name());
            let archives = to.join("cache").join(&index);
            std::fs::create_dir_all(&archives).expect("a directory");
            for package in packages(&lock) {
                let sources = source.path().join(&package);
                if !sources.exists() {
                    continue;
                }
                copy_tree(&sources, &to.join("src").join(&index).join(&package), &[]);
                let archive = format!("{package}.crate");
                let from = from.join("cache").join(&index).join(&archive);
                std::fs::copy(from, archives.join(&archive)).expect("an archive");
            }
        }
    }
}

/// `name-version` of all packages in a lock file.
fn packages(lock: &str) -> Vec<String> {
    let value = |line: &str, key: &str| -> Option<String> {
        Some(line.strip_prefix(key)?.trim_start_matches(" = ").trim_matches('"').to_owned())
    };
    let mut name = String::new();
    let mut found = Vec::new();
    for line in lock.lines() {
        if let Some(n) = value(line, "name") {
            name = n;
        } else if let Some(version) = value(line, "version").filter(|_| !name.is_empty()) {
            found.push(format!("{}-{version}", std::mem::take(&mut name)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_are_read() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"0.2.0\"\n";
        assert_eq!(packages(lock), ["a-1.0.0", "b-0.2.0"]);
    }
}
