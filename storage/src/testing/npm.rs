//! Programs in node that tests drive, with the packages they need, installed by npm where their lock file says.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a directory of such a program holds.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "drive.mjs"];

/// Copies a program to a place and installs its packages there, unless those of its lock file are there already.
///
/// # Errors
/// Why npm did not do it: there is none, or what it said.
pub fn install(source: &Path, place: &Path) -> Result<(), String> {
    fs::create_dir_all(place).unwrap();
    let lock = fs::read(source.join(FILES[1])).unwrap();
    let done = place.join("installed");
    let current = fs::read(&done).is_ok_and(|of| of == lock);
    for file in FILES {
        fs::copy(source.join(file), place.join(file)).unwrap();
    }
    if current {
        return Ok(());
    }
    let run = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(place)
        .output()
        .map_err(|error| format!("npm cannot be started: {error}"))?;
    if !run.status.success() {
        return Err(format!("npm ci: {}", String::from_utf8_lossy(&run.stderr)));
    }
    fs::write(done, lock).unwrap();
    Ok(())
}
