//! What code may have done in a build script's run that a preloaded library does not see, by its content.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use kiln_storage::record::Variables;

use crate::memo::Memo;
use crate::objects::{Class, Classes};

/// What is not seen of some code.
#[derive(Debug)]
pub struct Unseen {
    class: Option<Class>,
    /// Variables that count since it may have read them.
    pub variables: Option<Variables>,
}

/// What is not seen of a program or shared object.
///
/// # Errors
/// What reading it fails with.
pub fn of(path: &Path, helper: bool, classes: &Classes, memo: &Memo) -> io::Result<Unseen> {
    if super::is_system_library(path) || is_of_compiler(path) {
        return Ok(Unseen { class: None, variables: None });
    }
    let class = classes.of(path, memo)?;
    let variables = helper.then_some(Variables::Lasting);
    Ok(Unseen { class: Some(class), variables })
}

/// Whether an object is a part of rustc: what it makes system calls for are temporary directories.
fn is_of_compiler(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ["librustc_driver-", "libLLVM", "libstd-"].iter().any(|start| name.starts_with(start))
}

impl Unseen {
    /// Why it is not known what the code read.
    pub fn doubt(&self, _code: &BTreeSet<PathBuf>) -> Option<&'static str> {
        let class = self.class.as_ref()?;
        class.inline_syscalls.then_some("makes system calls past libc")
    }
}
