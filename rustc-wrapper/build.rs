//! Compiles two crates a second time, as what `kiln` carries: the observer, a library that it
//! preloads into compilers (see `observer/src/lib.rs`), and the front, a program that it puts in the
//! place of a build script (see `front/src/lib.rs`). Empty files on systems that have neither.

#![allow(clippy::panic, reason = "a build script reports a failure by ending")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate that needs no standard library, compiled to one file.
struct Carried {
    /// Its name without `kiln_`, which is its directory too.
    name: &'static str,
    /// What `--cfg` makes it be what is carried.
    cfg: &'static str,
    crate_type: &'static str,
    /// Name of the file that is made.
    file: &'static str,
    options: &'static [&'static str],
}

const OBSERVER: Carried = Carried {
    name: "observer",
    cfg: "preload",
    crate_type: "cdylib",
    file: "observer.so",
    // Nothing of libc but its functions is linked in.
    options: &["opt-level=3", "target-feature=-crt-static", "link-arg=-Wl,-z,now"],
};

const FRONT: Carried = Carried {
    name: "front",
    cfg: "front",
    crate_type: "bin",
    file: "front",
    // Needs nothing at run time, and lies where it is linked to: there is nobody to relocate it.
    options: &[
        "opt-level=s",
        "target-feature=+crt-static",
        "relocation-model=static",
        "force-unwind-tables=no",
        "link-arg=-static",
        "link-arg=-no-pie",
        "link-arg=-Wl,-z,noseparate-code",
    ],
};

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by variables only")]
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok()
}

fn set(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

fn main() {
    let processor = matches!(set("CARGO_CFG_TARGET_ARCH").as_str(), "x86_64" | "aarch64");
    let known = set("CARGO_CFG_TARGET_OS") == "linux" && processor;
    // `kiln` starts for each unit: at a fixed place it needs none of its thousands of relocations. What is
    // linked statically is `-static-pie`, which this would contradict.
    let is_static =
        variable("CARGO_CFG_TARGET_FEATURE").is_some_and(|on| on.contains("crt-static"));
    if known && set("CARGO_CFG_TARGET_ENV") == "gnu" && !is_static {
        println!("cargo::rustc-link-arg-bin=kiln=-no-pie");
    }
    for carried in [OBSERVER, FRONT] {
        let file = PathBuf::from(set("OUT_DIR")).join(carried.file);
        match known {
            true => carried.compile(&file),
            false => {
                if let Err(error) = std::fs::write(&file, "") {
                    panic!("{}: {error}", file.display());
                }
            }
        }
    }
}

impl Carried {
    fn compile(&self, file: &Path) {
        let source = Path::new(self.name).join("src");
        println!("cargo::rerun-if-changed={}", source.display());
        let name = format!("kiln_{}", self.name);
        let mut rustc = Command::new(set("RUSTC"));
        rustc.args(["--edition", "2024", "--crate-name", &name, "--crate-type", self.crate_type]);
        rustc.args(["--cfg", self.cfg, "--target", &set("TARGET")]);
        // No path to a panic may be left.
        let common = ["panic=abort", "lto=fat", "codegen-units=1", "strip=symbols"];
        let bare = ["link-arg=-nostartfiles", "link-arg=-nostdlib", "link-arg=-Wl,--build-id=none"];
        // The toolchain brings the C library's start files for musl.
        let without: &[&str] = match set("CARGO_CFG_TARGET_ENV").as_str() {
            "musl" if self.crate_type == "bin" => &["link-self-contained=no"],
            _ => &[],
        };
        for option in common.iter().chain(&bare).chain(self.options).chain(without) {
            rustc.args(["-C", option]);
        }
        if let Some(linker) = variable("RUSTC_LINKER") {
            rustc.args(["-C", &format!("linker={linker}")]);
        }
        rustc.arg("--remap-path-prefix").arg(format!("{}=", set("CARGO_MANIFEST_DIR")));
        rustc.arg("-o").arg(file).arg(source.join("lib.rs"));
        match rustc.status() {
            Ok(status) if status.success() => {}
            Ok(status) => panic!("compiling the {}: {status}: {rustc:?}", self.name),
            Err(error) => panic!("compiling the {}: {error}: {rustc:?}", self.name),
        }
        // What is called where it could panic; there is no such function.
        let panic = format!("{name}_can_panic");
        let bytes = std::fs::read(file).unwrap_or_default();
        if bytes.is_empty() || bytes.windows(panic.len()).any(|bytes| bytes == panic.as_bytes()) {
            panic!("the {} could panic: {}", self.name, file.display());
        }
    }
}
