//! The project that is built: a published release of ripgrep with the lock file it came with.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo::{bare, run_to_end};
use crate::failure::{Failure, Outcome, at};
use crate::report;

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
    let mut command = bare("cargo");
    command
        .args(["metadata", "--format-version=1", "--quiet"])
        .current_dir(&scratch);
    let published = source_of(&run_to_end(&mut command)?.stdout)?;
    let project = below.join(format!("{PACKAGE}-{VERSION}"));
    copy(&published, &project)?;
    run_to_end(
        bare("cargo")
            .args(["fetch", "--locked", "--quiet"])
            .current_dir(&project),
    )?;
    Ok(project)
}

/// The source directory of the package, from the output of `cargo metadata`.
fn source_of(metadata: &[u8]) -> Outcome<PathBuf> {
    let unexpected = || Failure::NotMeasured("cargo metadata does not name the package".into());
    let json: serde_json::Value = serde_json::from_slice(metadata).map_err(|_| unexpected())?;
    let packages = json["packages"].as_array().ok_or_else(unexpected)?;
    let package = packages
        .iter()
        .find(|p| p["name"] == PACKAGE && p["version"] == VERSION);
    let manifest = package
        .and_then(|p| p["manifest_path"].as_str())
        .ok_or_else(unexpected)?;
    Path::new(manifest)
        .parent()
        .map(PathBuf::from)
        .ok_or_else(unexpected)
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
    fn the_source_directory_is_read_from_metadata() {
        let package = |name: &str, version: &str| {
            format!(
                r#"{{"name":"{name}","version":"{version}","manifest_path":"/r/{name}-{version}/Cargo.toml"}}"#
            )
        };
        let both = [package(PACKAGE, "1.0.0"), package(PACKAGE, VERSION)].join(",");
        let source = source_of(format!(r#"{{"packages":[{both}]}}"#).as_bytes()).unwrap();
        assert_eq!(source, PathBuf::from(format!("/r/{PACKAGE}-{VERSION}")));
        assert!(source_of(b"{\"packages\":[]}").is_err());
        assert!(source_of(b"not json").is_err());
    }
}
