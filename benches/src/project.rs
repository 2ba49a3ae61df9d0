//! The project that is built: a published release of ripgrep with the lock file it came with.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo::{bare, run_to_end};
use crate::failure::{Failure, Outcome, at};
use crate::{environment, report};

/// The package.
pub const PACKAGE: &str = "ripgrep";
/// Its version.
pub const VERSION: &str = "15.2.0";

/// Fetches the project and everything it depends on through cargo's registry cache, and puts its
/// sources below a directory.
///
/// # Errors
/// When cargo cannot fetch it.
pub fn fetch(below: &Path) -> Outcome<PathBuf> {
    report::progress(&format!("fetching {PACKAGE} {VERSION}"));
    let scratch = below.join("scratch");
    fs::create_dir_all(scratch.join("src")).map_err(at(&scratch))?;
    let manifest = format!(
        "[package]\nname = \"scratch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [dependencies]\n{PACKAGE} = \"={VERSION}\"\n[workspace]\n"
    );
    let file = scratch.join("Cargo.toml");
    fs::write(&file, manifest).map_err(at(&file))?;
    fs::write(scratch.join("src/lib.rs"), "").map_err(at(&scratch))?;
    run_to_end(bare("cargo").args(["fetch", "--quiet"]).current_dir(&scratch))?;
    let published = unpacked(&environment::cargo_home().unwrap_or_default())?;
    let project = below.join(format!("{PACKAGE}-{VERSION}"));
    copy(&published, &project)?;
    run_to_end(bare("cargo").args(["fetch", "--locked", "--quiet"]).current_dir(&project))?;
    Ok(project)
}

/// What the program with C libraries depends on: packages whose build scripts compile C, run the
/// compiler, or look at the machine.
const C_LIBRARIES: &str = r#"[package]
name = "native"
version = "0.1.0"
edition = "2021"
[workspace]
[dependencies]
libsqlite3-sys = { version = "0.30", features = ["bundled"] }
zstd-sys = "2"
libgit2-sys = { version = "0.18", default-features = false, features = ["vendored"] }
onig_sys = { version = "69", default-features = false }
ring = "0.17"
serde = "1"
proc-macro2 = "1"
libc = "0.2"
anyhow = "1"
thiserror = "2"
rustix = "1"
typenum = "1"
crc32fast = "1"
num-traits = "0.2"
parking_lot_core = "0.9"
"#;

/// Calls into the C libraries, so that they are linked.
const C_MAIN: &str = r#"
fn main() {
    let (mut a, mut b, mut c) = (0, 0, 0);
    unsafe {
        libgit2_sys::git_libgit2_version(&mut a, &mut b, &mut c);
        println!("{a} {} {}", zstd_sys::ZSTD_versionNumber(), libsqlite3_sys::sqlite3_libversion_number());
        println!("{}", !onig_sys::onig_version().is_null());
    }
    println!("{:?}", ring::digest::digest(&ring::digest::SHA256, b"kiln"));
}
"#;

/// Makes a program that is linked with C libraries, and fetches what it depends on.
///
/// # Errors
/// When cargo cannot fetch it.
pub fn with_c_libraries(below: &Path) -> Outcome<PathBuf> {
    report::progress("fetching packages with C libraries");
    let project = below.join("native");
    fs::create_dir_all(project.join("src")).map_err(at(&project))?;
    for (file, text) in [("Cargo.toml", C_LIBRARIES), ("src/main.rs", C_MAIN)] {
        let file = project.join(file);
        fs::write(&file, text).map_err(at(&file))?;
    }
    run_to_end(bare("cargo").args(["fetch", "--quiet"]).current_dir(&project))?;
    Ok(project)
}

/// Where cargo unpacked the package.
fn unpacked(cargo_home: &Path) -> Outcome<PathBuf> {
    let sources = cargo_home.join("registry/src");
    let registries = fs::read_dir(&sources).map_err(at(&sources))?;
    let package = |entry: fs::DirEntry| entry.path().join(format!("{PACKAGE}-{VERSION}"));
    let found = registries.flatten().map(package).find(|path| path.is_dir());
    found.ok_or_else(|| Failure::NotMeasured(format!("cargo did not unpack {PACKAGE} {VERSION}")))
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to).map_err(at(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_found_in_whatever_registry_has_it() {
        let home = tempfile::tempdir().unwrap();
        assert!(unpacked(home.path()).is_err());
        let sources = home.path().join("registry/src");
        fs::create_dir_all(sources.join("another-registry")).unwrap();
        assert!(unpacked(home.path()).is_err());
        let package = sources.join("one-registry").join(format!("{PACKAGE}-{VERSION}"));
        fs::create_dir_all(&package).unwrap();
        assert_eq!(unpacked(home.path()).unwrap(), package);
    }
}
