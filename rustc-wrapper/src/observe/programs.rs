//! [`may_read_all`]: which programs may read variables that they do not ask libc for one by one.
//!
//! A program in C gets all variables as an argument of `main`, and its bytes do not tell whether it goes
//! through them. Of those that builds start most, it is known: what they read, the preloaded library
//! sees. A program that starts others and hands the variables on is known too; what it starts is looked
//! at by itself. Called by [`super::Observed::new`] for the programs that a plugin started.
//!
//! Not known, and why: interpreters and `make` give all variables to what they interpret; `env` and
//! `printenv` print them; `cargo` takes a copy of all when it starts, and looks its settings up there.

use std::ffi::OsStr;
use std::path::Path;

use crate::memo::Memo;
use crate::objects::Class;
use crate::silent::is_system_dir;

/// Programs of the system, by the name without a target before it or a version behind it, and what they
/// are.
const OF_SYSTEM: &[(&str, &[&str])] = &[
    (
        "gcc: getenv of what its manual names, and environ for what it starts",
        &[
            "gcc",
            "g++",
            "cc",
            "c++",
            "cpp",
            "cc1",
            "cc1plus",
            "cc1obj",
            "cc1objplus",
            "collect2",
            "lto1",
            "lto-wrapper",
            "gcc-ar",
            "gcc-nm",
            "gcc-ranlib",
        ],
    ),
    (
        "binutils: getenv, and environ in ar and ld for plugins of a linker that start programs",
        &[
            "as",
            "ld",
            "ld.bfd",
            "ld.gold",
            "gold",
            "ar",
            "ranlib",
            "nm",
            "strip",
            "objcopy",
            "objdump",
            "readelf",
            "size",
            "strings",
            "addr2line",
        ],
    ),
    (
        "LLVM: getenv through its own library, and environ for what it starts",
        &[
            "clang",
            "clang++",
            "clang-cpp",
            "lld",
            "ld.lld",
            "llvm-ar",
            "llvm-ranlib",
            "llvm-nm",
            "llvm-strip",
            "llvm-objcopy",
            "llvm-objdump",
            "llvm-readelf",
            "llvm-readobj",
            "llvm-config",
            "llvm-as",
            "llvm-lib",
            "llvm-profdata",
            "llvm-symbolizer",
            "mold",
        ],
    ),
    (
        "pkg-config: getenv of PKG_CONFIG_*, and of a name for each variable that it overrides",
        &["pkg-config", "pkgconf"],
    ),
    ("git: getenv of GIT_* and of settings; hooks and aliases are programs of their own", &["git"]),
    ("cmake and ninja: getenv of what a project names", &["cmake", "ninja"]),
    (
        "coreutils and their kin: getenv of the locale and of their own settings",
        &[
            "[",
            "basename",
            "cat",
            "chmod",
            "cksum",
            "cmp",
            "comm",
            "cp",
            "cut",
            "date",
            "diff",
            "dirname",
            "echo",
            "expr",
            "false",
            "fold",
            "grep",
            "gzip",
            "head",
            "install",
            "join",
            "ln",
            "ls",
            "md5sum",
            "mkdir",
            "mkfifo",
            "mktemp",
            "mv",
            "nproc",
            "od",
            "paste",
            "printf",
            "pwd",
            "readlink",
            "realpath",
            "rm",
            "rmdir",
            "seq",
            "sha1sum",
            "sha256sum",
            "sha512sum",
            "sleep",
            "stat",
            "sum",
            "tail",
            "tar",
            "tee",
            "test",
            "touch",
            "tr",
            "true",
            "truncate",
            "uname",
            "uniq",
            "wc",
            "xz",
        ],
    ),
];

/// Libraries of such programs that name `environ` for what they start. The plugin is gcc's, for linkers; `ar` and
/// `nm` load it wherever it is installed for binutils, on many systems for each archive.
const LIBRARIES: &[&str] = &[
    "libbfd",
    "libctf",
    "libctf-nobfd",
    "libopcodes",
    "liblto_plugin",
    "libLLVM",
    "libclang-cpp",
    "liblld",
];

/// What every program around rustc loads: they ask for single variables.
const DRIVER: &str = "librustc_driver-";

/// Whether a program may have read any of the variables it got, without asking for it.
pub fn may_read_all(path: &Path, class: &Class, memo: &Memo) -> bool {
    // A program that is not one of Rust got them as an argument.
    let asks = class.is_rust && !class.environment.may_be_whole();
    !asks && !is_known(path, class, memo)
}

/// Whether a library may read any variable of its process, without asking for it.
pub fn library_may_read_all(path: &Path, class: &Class) -> bool {
    class.environment.may_be_whole() && !is_known_library(path)
}

/// Whether a program is known to read variables only one by one, by asking libc for them.
///
/// Those of the system by name, where the system's package manager puts them: whoever can write there
/// can do anything. The compiler of Rust by what it loads, wherever it lies. rustup, which stands in for
/// the tools of a toolchain, by its name or as another name of the file `rustup` beside it.
pub fn is_known(path: &Path, class: &Class, memo: &Memo) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    let of_system =
        path.to_str().is_some_and(|path| is_system_dir(path) || path.starts_with("/bin/"));
    (of_system && is_of_system(name))
        || class.needed.iter().any(|needed| needed.starts_with(DRIVER))
        || is_rustup(path, memo)
}

/// Whether a library is one of such a program, and names `environ` but to hand it on.
fn is_known_library(path: &Path) -> bool {
    let of_system = path.to_str().is_some_and(is_system_dir);
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let stem = name.split(".so").next().unwrap_or_default();
    of_system && LIBRARIES.contains(&without_version(stem))
}

/// Whether a program is rustup, under its name or that of a tool. It chooses a toolchain by files and
/// variables that it asks libc for, and becomes the tool; past libc it makes temporary files at most.
pub fn is_rustup(path: &Path, memo: &Memo) -> bool {
    let digest = |path: &Path| memo.digest(path).ok().map(|(digest, _)| digest);
    let beside = path.with_file_name("rustup");
    path.file_name().is_some_and(|name| name == "rustup")
        || digest(&beside).is_some_and(|rustup| digest(path) == Some(rustup))
}

fn is_of_system(name: &str) -> bool {
    let listed = |name: &str| OF_SYSTEM.iter().any(|(_, names)| names.contains(&name));
    let plain = without_version(name);
    // What begins with a target, `x86_64-linux-gnu-`, has two dashes at least before the name.
    let parts: Vec<&str> = plain.split('-').collect();
    let behind_a_target = (2..parts.len()).any(|from| listed(&parts[from..].join("-")));
    listed(name) || listed(plain) || behind_a_target
}

/// A name without a version: `gcc-12`, `clang-14.0`, `libbfd-2.40-system`.
fn without_version(name: &str) -> &str {
    let name = name.strip_suffix("-system").unwrap_or(name);
    let version = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    match name.rsplit_once('-') {
        Some((name, behind)) if version(behind) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system() {
        let check = |path: &str, want: bool| {
            let known = is_known(Path::new(path), &Class::unknown(), &Memo::default());
            assert_eq!(known, want, "{path}");
        };
        for path in [
            "/usr/bin/x86_64-linux-gnu-gcc-12",
            "/usr/bin/gcc",
            "/usr/bin/g++-13",
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
            "/usr/libexec/gcc/x86_64-linux-gnu/13/cc1plus",
            "/usr/bin/aarch64-linux-gnu-as",
            "/usr/bin/x86_64-linux-gnu-ld.bfd",
            "/usr/lib/llvm-14/bin/clang",
            "/usr/bin/clang-14",
            "/usr/bin/x86_64-linux-gnu-gcc-ar-12",
            "/usr/local/bin/git",
            "/usr/lib/git-core/git",
            "/usr/bin/pkgconf",
            "/usr/bin/cmake",
            "/usr/bin/[",
            "/bin/cat",
        ] {
            check(path, true);
        }
        for path in [
            "/usr/bin/env",
            "/usr/bin/printenv",
            "/usr/bin/make",
            "/usr/bin/dash",
            "/usr/bin/perl",
            "/usr/bin/python3.11",
            "/usr/bin/cargo",
            "/usr/bin/ccache",
            "/usr/bin/my-gcc",
            "/usr/bin/gcc-wrapper",
            "/home/ann/bin/gcc",
            "/ws/target/debug/build/a/gcc",
            "/usr-local/bin/gcc",
            "gcc",
            "/usr/bin/",
        ] {
            check(path, false);
        }
    }

    #[test]
    fn libraries_of_such_programs() {
        for (path, want) in [
            ("/usr/lib/x86_64-linux-gnu/libbfd-2.40-system.so", true),
            ("/usr/lib/x86_64-linux-gnu/libopcodes-2.40-system.so", true),
            ("/usr/lib/x86_64-linux-gnu/libctf-nobfd.so.0.0.0", true),
            ("/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1", true),
            ("/usr/lib/x86_64-linux-gnu/libLLVM.so.19.1", true),
            ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", false),
            ("/usr/lib/bfd-plugins/liblto_plugin.so", true),
            ("/usr/bin/../bin/../lib/bfd-plugins/liblto_plugin.so", true),
            ("/usr/libexec/gcc/x86_64-linux-gnu/13/liblto_plugin.so.0.0.0", true),
            ("/usr/lib/bfd-plugins/libother.so", false),
            ("/home/ann/gcc/liblto_plugin.so", false),
            ("/opt/lib/libbfd-2.40-system.so", false),
        ] {
            assert_eq!(is_known_library(Path::new(path)), want, "{path}");
        }
    }

    #[test]
    fn the_compiler_and_rustup() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let known = |name: &str, class: &Class| is_known(&at(name), class, &Memo::default());
        let driver = Class { needed: vec!["librustc_driver-0123.so".into()], ..Class::unknown() };
        assert!(known("rustc", &driver));
        assert!(!known("rustc", &Class::unknown()));
        for (name, content) in [("rustc", "proxy"), ("rustup", "proxy"), ("cargo-x", "another")] {
            std::fs::write(at(name), content).unwrap();
        }
        assert!(known("rustc", &Class::unknown()) && known("rustup", &Class::unknown()));
        let rustup = |name: &str| is_rustup(&at(name), &Memo::default());
        assert!(rustup("rustc") && rustup("rustup") && !rustup("cargo-x") && !rustup("absent"));
        assert!(!known("cargo-x", &Class::unknown()) && !known("absent", &Class::unknown()));
    }
}
