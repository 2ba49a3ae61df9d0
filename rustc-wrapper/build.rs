//! Compiles the observer a second time, as the library that `kiln` carries and preloads into
//! compilers; see `observer/src/lib.rs`. On systems where there is no observation, an empty file.

#![allow(clippy::panic, reason = "a build script reports a failure by ending")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the library calls where it could panic; there is no such function.
const PANIC: &[u8] = b"kiln_observer_can_panic";

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by variables only")]
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok()
}

fn main() {
    let source = Path::new("observer/src");
    println!("cargo::rerun-if-changed={}", source.display());
    let set = |name: &str| variable(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let library = PathBuf::from(set("OUT_DIR")).join("observer.so");
    let target = set("TARGET");
    let processor = matches!(set("CARGO_CFG_TARGET_ARCH").as_str(), "x86_64" | "aarch64");
    if set("CARGO_CFG_TARGET_OS") != "linux" || !processor {
        if let Err(error) = std::fs::write(&library, "") {
            panic!("{}: {error}", library.display());
        }
        return;
    }
    let mut rustc = Command::new(set("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "kiln_observer", "--crate-type", "cdylib"]);
    rustc.args(["--cfg", "preload", "--target", &target]);
    // Nothing of libc but its functions is linked in, and no path to a panic may be left.
    for option in [
        "panic=abort",
        "opt-level=3",
        "lto=fat",
        "codegen-units=1",
        "strip=symbols",
        "target-feature=-crt-static",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-Wl,-z,now",
        "link-arg=-Wl,--build-id=none",
    ] {
        rustc.args(["-C", option]);
    }
    if let Some(linker) = variable("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    rustc.arg("--remap-path-prefix").arg(format!("{}=", set("CARGO_MANIFEST_DIR")));
    rustc.arg("-o").arg(&library).arg(source.join("lib.rs"));
    match rustc.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("compiling the observer: {status}: {rustc:?}"),
        Err(error) => panic!("compiling the observer: {error}: {rustc:?}"),
    }
    let bytes = std::fs::read(&library).unwrap_or_default();
    if bytes.is_empty() || bytes.windows(PANIC.len()).any(|window| window == PANIC) {
        panic!("the observer could panic: {}", library.display());
    }
}
