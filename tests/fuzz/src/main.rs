//! The fuzz targets, in one program that is told by its name which one it is: `.ci/fuzz` makes a link for each. An input is one
//! that libFuzzer makes; a target panics where a promise is broken. What they reach beside public functions is
//! `fuzzing` in the crates.
#![no_main]

// What is fuzzed of the wrapper and of the server: files that need nothing of the rest, whose build would take minutes.
#[path = "../../../rustc-wrapper/src"]
#[allow(dead_code, reason = "not all of it is fuzzed")]
mod wrapper {
    pub(crate) mod args;
    pub(crate) mod depinfo;
}
#[path = "../../../cache-server/src"]
#[allow(dead_code, unused_imports, reason = "not all of it is fuzzed")]
mod server {
    pub(crate) mod limits;
    pub(crate) mod trust {
        pub(crate) mod claims;
        pub(crate) mod document;
        pub(crate) mod rules;
        pub(crate) mod secret;
        pub(crate) mod spending;
    }
}
// They name it so.
use server::limits;

mod args;
mod depinfo;
mod entries;
mod gha;
mod tokens;

use std::sync::OnceLock;

/// What a target does with an input.
type Run = fn(&[u8]);

/// A target by its name.
const TARGETS: [(&str, Run); 5] = [
    ("args", args::run),
    ("depinfo", depinfo::run),
    ("entries", entries::run),
    ("gha", gha::run),
    ("tokens", tokens::run),
];

static TARGET: OnceLock<Run> = OnceLock::new();

fn target() -> Run {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name().unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| name == *target);
    found.expect("a link to this program named after a target").1
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(target)(data));
