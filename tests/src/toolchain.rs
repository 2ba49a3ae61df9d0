//! Toolchains that differ from the real one in content only.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::host::host;

/// Links every entry of a directory but those with these beginnings.
pub fn link_entries(from: &Path, to: &Path, without: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let text = name.to_str().unwrap();
        if !without.iter().any(|w| text.starts_with(w)) {
            symlink(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// A toolchain that says of itself what the real one says: links, but for a copy of the program and
/// of the driver, with some bytes behind it.
pub fn toolchain(dir: PathBuf, more: &[u8]) -> PathBuf {
    let real = host().toolchain.parent().unwrap();
    link_entries(&real.join("lib"), &dir.join("lib"), &["librustc_driver"]);
    std::fs::create_dir(dir.join("bin")).unwrap();
    std::fs::copy(real.join("bin/rustc"), dir.join("bin/rustc")).unwrap();
    for entry in std::fs::read_dir(real.join("lib")).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with("librustc_driver") {
            let copy = dir.join("lib").join(&name);
            std::fs::copy(real.join("lib").join(&name), &copy).unwrap();
            std::fs::OpenOptions::new().append(true).open(copy).unwrap().write_all(more).unwrap();
        }
    }
    dir.join("bin")
}

/// Gives a toolchain of [`toolchain`] what the component `rust-src` brings, as far as the compiler looks: a first file.
pub fn add_sources(bin: &Path) {
    let lib = bin.with_file_name("lib");
    let real = std::fs::read_link(lib.join("rustlib")).unwrap();
    std::fs::remove_file(lib.join("rustlib")).unwrap();
    link_entries(&real, &lib.join("rustlib"), &["src"]);
    for (name, text) in [("std", "//! std\n"), ("core", "//! core\n"), ("alloc", "//! alloc\n")] {
        let dir = lib.join("rustlib/src/rust/library").join(name).join("src");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("lib.rs"), text).unwrap();
    }
}
