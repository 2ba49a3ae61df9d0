//! What code may have done in a build script's run that a preloaded library does not see, told by its
//! content.

use std::io;
use std::path::Path;

use kiln_storage::record::Variables;

use super::programs::{library_may_read_all, may_read_all};
use crate::memo::Memo;
use crate::objects::{Classes, Environment};

/// What is not seen of some code.
#[derive(Debug, Default)]
pub struct Unseen {
    /// Variables that count since it may have read them.
    pub variables: Option<Variables>,
    /// Whether it makes system calls past libc.
    pub calls: bool,
    /// The objects that it asks the loader for, by name, but for those of the system and the compiler.
    pub needed: Vec<String>,
}

/// What is not seen of a shared object, or of a program.
///
/// # Errors
/// What reading it fails with.
pub fn of(path: &Path, is_program: bool, classes: &Classes, memo: &Memo) -> io::Result<Unseen> {
    if super::is_system_library(path) {
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
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(Unseen {
        variables: may.then_some(which),
        calls: class.inline_syscalls && !is_of_compiler(name),
        needed: class.needed.into_iter().filter(foreign).collect(),
    })
}

/// Whether an object is a part of rustc: what it makes system calls for are temporary directories.
fn is_of_compiler(name: &str) -> bool {
    ["librustc_driver-", "libLLVM", "libstd-", "libtest-"]
        .iter()
        .any(|start| name.starts_with(start))
}
