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
