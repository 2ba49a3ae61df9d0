//! The name of a rustc run, and which files are its outputs, both from its arguments alone. Pure.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Seed and prime of FNV-1a with 64 bits.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The name of a run: a hash of its arguments, the compiler among them. Every argument is preceded
/// by its length, so that moving a byte from one to the next gives another name.
pub fn key(argv: &[OsString]) -> String {
    let mut hash = SEED;
    for argument in argv {
        let bytes = argument.as_encoded_bytes();
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    format!("{hash:016x}")
}

/// Whether a run asks the compiler about itself: it names no crate, or the one cargo asks with.
pub fn is_probe(argv: &[OsString]) -> bool {
    value(argv, "--crate-name").is_none_or(|name| name == "___")
}

/// The value of a flag that is written as two arguments.
pub fn value<'a>(argv: &'a [OsString], flag: &str) -> Option<&'a OsStr> {
    let at = argv.iter().position(|argument| argument == flag)?;
    argv.get(at + 1).map(OsString::as_os_str)
}

/// Where the files of a run go.
pub fn out_dir(argv: &[OsString]) -> Option<PathBuf> {
    value(argv, "--out-dir").map(PathBuf::from)
}

/// Whether a file in the output directory belongs to a run: `CRATE-SUFFIX`, with or without `lib`
/// in front, and anything behind a dot.
pub fn owns(argv: &[OsString], file: &str) -> bool {
    let Some(name) = value(argv, "--crate-name").and_then(OsStr::to_str) else {
        return false;
    };
    let mut suffix = argv.iter().filter_map(|a| a.to_str()?.strip_prefix("extra-filename="));
    let stem = format!("{name}{}", suffix.next_back().unwrap_or_default());
    let is_stem = |file: &str| {
        file.strip_prefix(&stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    is_stem(file) || file.strip_prefix("lib").is_some_and(is_stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_key_is_stable_and_sees_every_argument() {
        let base = key(&words("rustc --crate-name a src/lib.rs"));
        assert_eq!(base, key(&words("rustc --crate-name a src/lib.rs")));
        for other in [
            "rustc --crate-name b src/lib.rs",
            "rustc --crate-name a",
            "rustc src/lib.rs --crate-name a",
        ] {
            assert_ne!(base, key(&words(other)), "{other}");
        }
        assert_eq!(key(&[]), format!("{SEED:016x}"));
    }

    #[test]
    fn the_key_sees_where_arguments_end() {
        assert_ne!(key(&words("ab c")), key(&words("a bc")));
        assert_ne!(key(&words("abc")), key(&words("ab c")));
    }

    #[test]
    fn questions_are_told_from_units() {
        for probe in ["rustc -vV", "rustc - --crate-name ___ --print=file-names"] {
            assert!(is_probe(&words(probe)), "{probe}");
        }
        assert!(!is_probe(&words("rustc --crate-name a src/lib.rs")));
    }

    #[test]
    fn outputs_are_those_with_the_name_and_suffix() {
        let argv = words("rustc --crate-name ab -C metadata=1 -C extra-filename=-0f --out-dir /t");
        assert_eq!(out_dir(&argv), Some(PathBuf::from("/t")));
        for own in ["libab-0f.rlib", "libab-0f.rmeta", "ab-0f.d", "ab-0f", "ab-0f.long-type.txt"] {
            assert!(owns(&argv, own), "{own}");
        }
        for other in ["libab-0e.rlib", "ab-0f2", "xab-0f.d", "liblibab-0f.rlib", "ab"] {
            assert!(!owns(&argv, other), "{other}");
        }
    }
}
