//! The front of a build script: the tiny program that cargo runs in its place.
//!
//! [`is_script`] tells whether a compile makes a build script; [`put`] puts the front there, with the
//! real program beside it; [`real_of`] finds that again. What the front does is in the crate
//! `kiln-front`. Called by [`crate::wrapper`] when it has answered a compile. Nothing here depends on
//! an answer of Kiln's: without a front a build script simply runs.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use kiln_front::block::Told;

use crate::args::Parsed;
use crate::env::Env;
use crate::limits::MAX_FRONT_BYTES;
use crate::outputs::{EXECUTABLE_MODE, temporary_name};

#[cfg(test)]
mod tests;

/// The program, as the build script of this crate made it. Empty where there is none.
const FRONT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/front"));
/// Ending of the real program's name.
const REAL: &str = ".real";

/// Whether a run of rustc compiles a build script, as cargo does.
///
/// Cargo names the crate `build_script_…` after its file. Other programs may be called so too: for
/// binaries and examples cargo sets `CARGO_BIN_NAME`, and tests have `--test` or `--cfg test`.
pub fn is_script(parsed: &Parsed, env: &Env) -> bool {
    let named = parsed.crate_name.starts_with("build_script_") && parsed.crate_types == ["bin"];
    let placed = parsed.out_dir.is_some() && parsed.output.is_none();
    let linked = parsed.emit.iter().any(|kind| kind == "link");
    let tested = parsed.test || parsed.cfgs.iter().any(|cfg| cfg == "test");
    let by_cargo = env.get("CARGO_MANIFEST_DIR").is_some() && env.get("CARGO_BIN_NAME").is_none();
    // With `--target` it may be for another machine; cargo gives a build script none.
    named && placed && linked && !tested && by_cargo && parsed.target.is_none()
}

/// Puts the front in the place of a build script, which is then beside it as `NAME.real`: its path. One that
/// is a front already gets a new one, with the same real program.
///
/// At every moment a program that can be run has the name. No file is written into that was there
/// before: cargo's own name of the program is a hard link to it.
///
/// # Errors
/// `Unsupported` when there is no front for this system, or a path is too long for it. What a file
/// system fails with. The name then has the program that it had, and no other file is left.
pub fn put(env: &Env, program: &Path) -> io::Result<PathBuf> {
    let known = told_real(program)?;
    let name = program.file_name().and_then(OsStr::to_str).ok_or(io::ErrorKind::Unsupported)?;
    let real = known.clone().unwrap_or_else(|| program.with_file_name(format!("{name}{REAL}")));
    let bytes = filled(env, &real)?;
    if !program.symlink_metadata()?.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let front = Temporary::create(program, name, &bytes)?;
    if known.is_some() {
        return std::fs::rename(&front.0, program).map(|()| real);
    }
    let was_there = real.symlink_metadata().is_ok();
    Temporary::twin(program, &format!("{name}{REAL}"))?.put_at(&real)?;
    std::fs::rename(&front.0, program).inspect_err(|_| {
        if !was_there {
            let _ = std::fs::remove_file(&real);
        }
    })?;
    Ok(real)
}

/// The real program beside a front; none when the program is no front, or the real one is gone.
pub fn real_of(program: &Path) -> Option<PathBuf> {
    told_real(program).ok().flatten()
}

/// The real program that a front names; none when the program is no front.
fn told_real(program: &Path) -> io::Result<Option<PathBuf>> {
    let file = File::open(program)?;
    if file.metadata()?.len() > MAX_FRONT_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FRONT_BYTES).read_to_end(&mut bytes)?;
    let Some(told) = Told::of_program(&bytes) else { return Ok(None) };
    let name = Path::new(OsStr::from_bytes(told.real));
    let mut parts = name.components();
    let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let real = program.with_file_name(name);
    real.metadata()?;
    Ok(Some(real))
}

/// The front, told what it has to know.
fn filled(env: &Env, real: &Path) -> io::Result<Vec<u8>> {
    let kiln = env.program.as_deref().ok_or(io::ErrorKind::Unsupported)?;
    let told = Told {
        kiln: kiln.as_os_str().as_bytes(),
        wrapper: env.get("RUSTC_WRAPPER").unwrap_or_default().as_bytes(),
        real: real.file_name().unwrap_or_default().as_bytes(),
    };
    let mut bytes = FRONT.to_vec();
    told.fill(&mut bytes).map_err(|_| io::ErrorKind::Unsupported)?;
    Ok(bytes)
}

/// A file under a temporary name, removed at the end where it still has that.
struct Temporary(PathBuf);

impl Temporary {
    /// A name beside a program; what a killed process of the same number left there is removed.
    fn beside(program: &Path, name: &str) -> Self {
        let path = program.with_file_name(temporary_name(name));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    /// A new program.
    fn create(program: &Path, name: &str, bytes: &[u8]) -> io::Result<Self> {
        let temporary = Self::beside(program, name);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(EXECUTABLE_MODE).open(&temporary.0)?;
        file.write_all(bytes)?;
        Ok(temporary)
    }

    /// Another name for a program, or a copy where there are no links.
    fn twin(program: &Path, name: &str) -> io::Result<Self> {
        let temporary = Self::beside(program, name);
        std::fs::hard_link(program, &temporary.0)
            .or_else(|_| std::fs::copy(program, &temporary.0).map(drop))?;
        Ok(temporary)
    }

    /// Gives the file its name. (Renaming does nothing where the two are links to one file; then the
    /// temporary name goes with this value.)
    fn put_at(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.0, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
