//! [`made`]: what a build left, with its bytes, to be held against another build at the same place.

use std::collections::BTreeMap;

use kiln::front;

use crate::project::{Project, files_below};

/// Files below a target directory, with their bytes.
pub type Made = BTreeMap<String, Vec<u8>>;

/// All files that rustc made, with their bytes, and what build scripts said and left; of a build script's program those
/// behind its front.
pub fn made(project: &Project) -> Made {
    let target = project.at("target");
    let files = files_below(&target).into_iter().map(|f| f.to_str().expect("UTF-8").to_owned());
    let own = ["/deps/", "/examples/", "build-script-build", "/out/", "/output"];
    let own =
        files.filter(|f| own.iter().any(|part| f.contains(part)) && !f.contains(".fingerprint"));
    let read = |f: &String| {
        let path = target.join(f);
        std::fs::read(front::real_of(&path).unwrap_or(path)).expect("a file")
    };
    own.map(|f| (f.clone(), read(&f))).collect()
}

/// Asserts that two builds left the same.
#[track_caller]
pub fn assert_same(
    what: &str,
    made: &BTreeMap<String, Vec<u8>>,
    plain: &BTreeMap<String, Vec<u8>>,
) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(made), names(plain), "{what}");
    let other: Vec<&String> = plain.keys().filter(|name| made[*name] != plain[*name]).collect();
    assert!(other.is_empty(), "{what}: other bytes in {other:#?}");
}
