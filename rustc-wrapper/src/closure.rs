//! The crates that a crate depends on, read from its metadata: all of them, however deep.
//!
//! rustc writes into the metadata of every crate the names of all crates in its dependency graph,
//! with the suffix cargo gave each file (`-0123456789abcdef`). The bytes are scanned for suffixes
//! of files that are really there, so nothing depends on the layout of the format; and that the
//! standard library's own suffixes are found proves for each file that the scan can read it.
//! Used after a compile only; a lookup checks the files that were found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use memchr::memmem;

/// Length of `-0123456789abcdef`.
const SUFFIX_LEN: usize = 17;
/// What a proc-macro library exports; its dependencies are linked into it.
const PROC_MACRO_SYMBOL: &[u8] = b"__rustc_proc_macro_decls_";

/// Whether the metadata of a crate file mentions some text; unreadable files are taken to.
pub fn mentions(path: &Path, text: &str) -> bool {
    std::fs::read(path)
        .map_or(true, |bytes| memmem::find(metadata(&bytes), text.as_bytes()).is_some())
}

/// The crate files that a compile can have read besides those it was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Files, sorted.
    pub files: BTreeSet<PathBuf>,
    /// Files without cargo's suffix whose names are mentioned, which for a short name may be chance.
    pub named: BTreeSet<PathBuf>,
    /// Whether all crates in the dependency directories have to count, because some crate's
    /// dependencies cannot be read.
    pub everything: bool,
}

/// The suffix in a file name such as `libserde-0123456789abcdef.rmeta`.
pub fn suffix(name: &str) -> Option<&str> {
    let stem = name.rsplit('/').next()?.split('.').next()?;
    let at = stem.len().checked_sub(SUFFIX_LEN)?;
    let tail = stem.get(at..)?;
    is_suffix(tail.as_bytes()).then_some(tail)
}

fn is_suffix(bytes: &[u8]) -> bool {
    bytes.len() == SUFFIX_LEN
        && bytes[0] == b'-'
        && bytes[1..].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All suffixes in some bytes.
fn suffixes_in(bytes: &[u8]) -> BTreeSet<&[u8]> {
    memchr::memchr_iter(b'-', bytes)
        .filter_map(|at| bytes.get(at..at + SUFFIX_LEN).filter(|s| is_suffix(s)))
        .collect()
}

/// The part of a crate file that holds its metadata: the first member of an rlib, else everything.
fn metadata(bytes: &[u8]) -> &[u8] {
    const HEADER: usize = 60;
    let Some(mut rest) = bytes.strip_prefix(b"!<arch>\n") else {
        return bytes;
    };
    // The symbol table may come first.
    for _ in 0..4 {
        let Some(header) = rest.get(..HEADER) else {
            break;
        };
        let size = std::str::from_utf8(&header[48..58]).ok().and_then(|t| t.trim().parse().ok());
        let Some(size) = size.filter(|s: &usize| HEADER + s <= rest.len()) else {
            break;
        };
        if header.starts_with(b"lib.rmeta/") {
            return &rest[HEADER..HEADER + size];
        }
        rest = rest.get(HEADER + size + size % 2..).unwrap_or_default();
    }
    bytes
}

/// Whether metadata names a crate file without cargo's suffix: by the name of the crate, and a suffix
/// of any kind, which are written apart.
fn is_named(metadata: &[u8], stem: &str) -> bool {
    let has = |part: &str| memmem::find(metadata, part.as_bytes()).is_some();
    (1..=stem.len())
        .filter(|at| stem.is_char_boundary(*at))
        .any(|at| has(&stem[..at]) && has(&stem[at..]))
}

/// The crate files in the dependency directories.
#[derive(Default)]
struct Available {
    /// By cargo's suffix.
    suffixed: BTreeMap<String, Vec<PathBuf>>,
    /// Those without one, by their names: cargo gives none to a library that is also a cdylib or
    /// dylib.
    plain: BTreeMap<String, Vec<PathBuf>>,
}

fn available(dirs: &[&Path]) -> Available {
    let mut found = Available::default();
    for dir in dirs {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| is_crate_file(n)) else {
                continue;
            };
            let group = match suffix(name) {
                Some(suffix) => found.suffixed.entry(suffix.to_owned()),
                None => {
                    let stem = name.strip_prefix("lib").unwrap_or(name);
                    let stem = stem.split('.').next().unwrap_or(stem);
                    found.plain.entry(stem.to_owned())
                }
            };
            group.or_default().push(entry.path());
        }
    }
    found
}

/// Whether a file name is that of a Rust library.
pub fn is_crate_file(name: &str) -> bool {
    name.starts_with("lib")
        && [".rlib", ".rmeta", ".so", ".dylib"].iter().any(|e| name.ends_with(e))
}

/// Of the files of one crate the one that a compile reads: for a link the library, else the
/// metadata.
fn choose(files: &[PathBuf], links: bool) -> Option<&PathBuf> {
    let order =
        if links { ["rlib", "so", "dylib", "rmeta"] } else { ["rmeta", "rlib", "so", "dylib"] };
    order.iter().find_map(|end| files.iter().find(|f| f.extension().is_some_and(|e| e == *end)))
}

/// The closure of some crate files within the dependency directories.
///
/// # Errors
/// When a crate file cannot be read.
pub fn closure(
    given: &[&Path],
    dirs: &[&Path],
    std_suffixes: &[String],
    links: bool,
) -> std::io::Result<Closure> {
    let mut result = Closure::default();
    if given.is_empty() {
        return Ok(result);
    }
    let available = available(dirs);
    for path in given {
        let bytes = std::fs::read(path)?;
        let shared = path.extension().is_some_and(|e| e == "so" || e == "dylib");
        if shared && memmem::find(&bytes, PROC_MACRO_SYMBOL).is_some() {
            continue;
        }
        let metadata = metadata(&bytes);
        let mentioned = suffixes_in(metadata);
        let readable = std_suffixes.iter().any(|s| mentioned.contains(s.as_bytes()));
        result.everything |= shared || !readable;
        for suffix in mentioned {
            let files = std::str::from_utf8(suffix).ok().and_then(|s| available.suffixed.get(s));
            result.files.extend(files.and_then(|files| choose(files, links)).cloned());
        }
        for (name, files) in &available.plain {
            if is_named(metadata, name) {
                // Two crates may have this name.
                result.named.extend(files.iter().cloned());
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STD: &str = "-00000000000000aa";

    #[test]
    fn suffixes_of_names() {
        assert_eq!(suffix("libserde-0123456789abcdef.rmeta"), Some("-0123456789abcdef"));
        assert_eq!(suffix("std/libcore-0123456789abcdef.rlib"), Some("-0123456789abcdef"));
        assert_eq!(suffix("libserde.rmeta"), None);
        assert_eq!(suffix("libserde-0123456789abcdeg.rmeta"), None);
    }

    #[test]
    fn mentioned_crates_that_are_there_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(
            at("liba-1111111111111111.rmeta"),
            format!("xx{STD}yy-2222222222222222-9999999999999999"),
        )
        .unwrap();
        for name in [
            "libb-2222222222222222.rmeta",
            "libb-2222222222222222.rlib",
            "libc-3333333333333333.rmeta",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        let given = at("liba-1111111111111111.rmeta");
        let look = |links| closure(&[&given], &[dir.path()], &[STD.to_owned()], links).unwrap();
        assert_eq!(look(false).files, BTreeSet::from([at("libb-2222222222222222.rmeta")]));
        assert_eq!(look(true).files, BTreeSet::from([at("libb-2222222222222222.rlib")]));
        assert!(!look(true).everything);
    }

    #[test]
    fn crates_without_a_suffix_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let given = at("liba-1111111111111111.rlib");
        std::fs::write(&given, format!("{STD} mid other -11111111")).unwrap();
        std::fs::write(at("libmid.rlib"), "").unwrap();
        std::fs::write(at("libother-11111111.rlib"), "").unwrap();
        std::fs::write(at("libfar.rlib"), "").unwrap();
        let found = closure(&[&given], &[dir.path()], &[STD.to_owned()], true).unwrap();
        assert_eq!(found.named, BTreeSet::from([at("libmid.rlib"), at("libother-11111111.rlib")]));
        assert_eq!(found.files, BTreeSet::new());
    }

    #[test]
    fn metadata_that_cannot_be_read_counts_everything() {
        let dir = tempfile::tempdir().unwrap();
        let given = dir.path().join("liba-1111111111111111.rmeta");
        std::fs::write(&given, "compressed").unwrap();
        assert!(closure(&[&given], &[dir.path()], &[STD.to_owned()], false).unwrap().everything);
        let mac = dir.path().join("libm-1111111111111111.so");
        std::fs::write(&mac, "x__rustc_proc_macro_decls_abc__").unwrap();
        assert!(!closure(&[&mac], &[dir.path()], &[STD.to_owned()], false).unwrap().everything);
    }
}
