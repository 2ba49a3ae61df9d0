//! What code may have done in a build script's run that a preloaded library does not see, told by its
//! content.

use std::io;
use std::path::{Path, PathBuf};

use kiln_storage::record::Variables;

use super::programs::{is_rustup, library_may_read_all, may_read_all};
use crate::memo::Memo;
use crate::objects::{Classes, Environment};

/// What is not seen of some code.
#[derive(Debug, Default)]
pub struct Unseen {
    /// Variables that count since it may have read them.
    pub variables: Option<Variables>,
    /// Whether it makes system calls past libc that may matter.
    pub calls: bool,
    /// The objects that it asks the loader for, by name, but for those of the system and the compiler.
    pub needed: Vec<String>,
}

/// What is not seen of a shared object, or of a program.
///
/// # Errors
/// What reading it fails with.
pub fn of(path: &Path, is_program: bool, classes: &Classes, memo: &Memo) -> io::Result<Unseen> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if super::is_system_library(path) || is_of_compiler(name) {
        return Ok(Unseen::default());
    }
    let class = classes.of(path, memo)?;
    let may = match is_program {
        true => may_read_all(path, &class, memo),
        false => library_may_read_all(path, &class),
    };
    let which = match class.environment {
        Environment::Whole => Variables::All,
        // Mostly a shell or make: what they take of it lasts, or they would do something else each time.
        _ => Variables::Lasting,
    };
    let foreign =
        |name: &String| !super::is_system_library(Path::new(name)) && !is_of_compiler(name);
    Ok(Unseen {
        variables: may.then_some(which),
        calls: class.inline_syscalls && !(is_program && is_rustup(path, memo)),
        needed: class.needed.into_iter().filter(foreign).collect(),
    })
}

/// Whether an object is a part of rustc: what it makes system calls for are temporary directories, and it asks
/// for single variables.
fn is_of_compiler(name: &str) -> bool {
    ["librustc_driver-", "libLLVM", "libstd-", "libtest-"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Where the loader finds a library that a library of the system asks for by name; none for libraries from
/// elsewhere, which may be looked for anywhere.
pub fn find_library(by: &Path, name: &str) -> Option<PathBuf> {
    let real = by.canonicalize().ok()?;
    let of_system = real.to_str().is_some_and(crate::silent::is_system_dir);
    let beside = real.parent().filter(|_| of_system)?;
    let triple = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let dirs =
        triple.iter().flat_map(|triple| ["/lib", "/usr/lib"].map(|d| Path::new(d).join(triple)));
    let dirs = dirs.chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    dirs.chain([beside.to_owned()]).map(|dir| dir.join(name)).find(|path| path.is_file())
}
