//! [`classify`]: what can be known of a program or shared object before it runs, from its bytes.
//!
//! A library preloaded into a compiler notes the files and variables that the compiler and its
//! children read, as far as they ask libc for them. What it cannot see is found out here, once for
//! each content ([`Classes`] keeps the answers): system calls made without libc, and all of the
//! environment read at a time. Pure apart from [`classes`]; it knows nothing of units. A doubt is always answered with the worse class.
//!
//! Not seen, and nobody's promise: code that a program makes or loads from elsewhere while it runs,
//! and an object made to deceive.
//!
//! [`elf`] takes files apart; [`x86`] and [`aarch64`] find system calls in code, [`environment`] who
//! reads variables.

pub mod aarch64;
pub mod classes;
pub mod elf;
pub mod environment;
#[cfg(test)]
mod sample;
pub mod x86;

use serde::{Deserialize, Serialize};

pub use classes::Classes;
pub use environment::Environment;

use crate::objects::elf::{Elf, Machine, Unreadable};

/// What is kept under a content's digest is worth nothing to another version of the classifier.
/// Change this number with every change of what [`classify`] answers.
pub const CLASSIFIER_VERSION: u64 = 6;

/// As much of a script's first line as the kernel looks at, bytes.
const SCRIPT_LINE_BYTES: usize = 256;

/// What kind of file it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A program or a shared object that the dynamic loader puts together.
    Dynamic {
        /// The loader that a program names. Without one nothing can be preloaded when it is started
        /// as a program; it is a library then, or the loader itself.
        interpreter: Option<String>,
    },
    /// A program that no loader touches: nothing can be preloaded.
    Static,
    /// A text that the kernel hands to another program.
    Script {
        /// The program.
        interpreter: String,
        /// What stands behind it in the first line, as one argument.
        argument: Option<String>,
    },
    /// Anything else, also what is damaged, too large, of another machine or of an unknown form.
    Other,
}

/// What is known of a file by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// What kind of file it is.
    pub kind: Kind,
    /// Whether its own code makes system calls, past libc.
    pub inline_syscalls: bool,
    /// Which variables it may read past libc's functions for one variable. A program that is not known to
    /// be one of Rust gets all of them as an argument.
    pub environment: Environment,
    /// Whether rustc made it: a program with Rust's runtime, or an object with its standard library.
    pub is_rust: bool,
    /// The objects that it asks the loader for, by name.
    pub needed: Vec<String>,
}

impl Class {
    /// What is said of a file that nothing is known of.
    pub fn unknown() -> Self {
        Self {
            kind: Kind::Other,
            inline_syscalls: true,
            environment: Environment::Unknown,
            is_rust: false,
            needed: Vec::new(),
        }
    }
}

/// Classifies a file by its bytes.
pub fn classify(bytes: &[u8]) -> Class {
    if bytes.starts_with(b"#!") {
        return script(bytes).unwrap_or_else(Class::unknown);
    }
    Elf::parse(bytes).and_then(|elf| object(&elf)).unwrap_or_else(|_| Class::unknown())
}

/// A script, as the kernel reads its first line.
fn script(bytes: &[u8]) -> Option<Class> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = &bytes[2..bytes.len().min(SCRIPT_LINE_BYTES)];
    let end = start.iter().position(|&byte| byte == b'\n');
    let line = &start[..end.unwrap_or(start.len())];
    let line = &line[line.iter().position(|byte| !blank(byte))?..];
    let len = line.iter().position(|byte| blank(byte) || *byte == 0);
    // A name that goes on where the kernel stops reading is refused by the kernel.
    if len.is_none() && end.is_none() && bytes.len() > SCRIPT_LINE_BYTES {
        return None;
    }
    let (interpreter, rest) = line.split_at(len.unwrap_or(line.len()));
    let rest = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let argument = std::str::from_utf8(rest).ok()?.trim_matches([' ', '\t']);
    if interpreter.is_empty() {
        return None;
    }
    let kind = Kind::Script {
        interpreter: String::from_utf8(interpreter.to_owned()).ok()?,
        argument: (!argument.is_empty()).then(|| argument.to_owned()),
    };
    let environment = Environment::One;
    Some(Class { kind, inline_syscalls: false, environment, ..Class::unknown() })
}

fn object(elf: &Elf<'_>) -> Result<Class, Unreadable> {
    let starts = elf.function_starts();
    let inline_syscalls = elf.code()?.iter().any(|code| match elf.machine {
        Machine::X86_64 => x86::makes_system_call(code.bytes, &code.places(&starts)),
        Machine::Aarch64 => aarch64::makes_system_call(code.bytes),
    });
    let Some(dynamic) = elf.dynamic()?.filter(|dynamic| !elf.is_static_program(dynamic)) else {
        return Ok(Class { kind: Kind::Static, inline_syscalls, ..Class::unknown() });
    };
    let (imports, interpreter) = (dynamic.imports()?, elf.interpreter()?);
    let functions = elf.functions().unwrap_or_default();
    let is_program = interpreter.is_some();
    let is_rust = environment::is_rust(is_program, &imports, &functions);
    let environment = match environment::of(elf, &dynamic, &imports, &functions) {
        Environment::One if is_program && !is_rust => Environment::Unknown,
        environment => environment,
    };
    let kind = Kind::Dynamic { interpreter };
    Ok(Class { kind, inline_syscalls, environment, is_rust, needed: dynamic.needed()? })
}

#[cfg(test)]
mod tests {
    use super::sample::{AARCH64, ET_EXEC, PIE, Sample, Symbol, X86_64};
    use super::*;
    use proptest::prelude::*;

    const SYSCALL: &[u8] = &[0x90, 0x0f, 0x05, 0xc3];
    const CONSTANT: &[u8] = &[0xb8, 0x0f, 0x05, 0x00, 0x00];
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

    fn dynamic(interpreter: Option<&str>) -> Kind {
        Kind::Dynamic { interpreter: interpreter.map(str::to_owned) }
    }

    /// A class of a library that nothing is to be said against.
    fn plain() -> Class {
        Class {
            kind: dynamic(None),
            inline_syscalls: false,
            environment: Environment::One,
            is_rust: false,
            needed: vec!["libc.so.6".into()],
        }
    }

    #[track_caller]
    fn check(sample: Sample, expected: Class) {
        assert_eq!(classify(&sample.bytes()), expected, "{sample:x?}");
    }

    #[test]
    fn scripts() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let kind = expected.map(|(interpreter, argument)| Kind::Script {
                interpreter: interpreter.into(),
                argument: argument.map(str::to_owned),
            });
            let class = classify(text.as_bytes());
            assert_eq!(class.kind, kind.clone().unwrap_or(Kind::Other), "{text:?}");
            assert_eq!(
                class.inline_syscalls || class.environment != Environment::One,
                kind.is_none(),
                "{text:?}"
            );
        };
        check("#!/bin/sh\nexit\n", Some(("/bin/sh", None)));
        check("#! /bin/sh\t-e  -u \nexit\n", Some(("/bin/sh", Some("-e  -u"))));
        check("#!/usr/bin/env python3", Some(("/usr/bin/env", Some("python3"))));
        check("#!/bin/sh\0-e\n", Some(("/bin/sh", None)));
        check(
            &format!("#!/bin/sh {}", "x".repeat(1000)),
            Some(("/bin/sh", Some(&"x".repeat(246)))),
        );
        check(&format!("#!/{}\n", "x".repeat(1000)), None);
        for text in ["", "#", "#!", "#!\n", "#!  \n/bin/sh\n", "echo\n", " #!/bin/sh\n"] {
            check(text, None);
        }
        assert_eq!(classify(b"#!/bin/\xff\n"), Class::unknown(), "not the same name as text");
    }

    #[test]
    fn libraries_and_programs() {
        let library = Sample::library();
        check(library.clone(), plain());
        let program = Sample { interpreter: Some(LOADER), ..library.clone() };
        // `main` gets all variables.
        let environment = Environment::Unknown;
        let class = Class { kind: dynamic(Some(LOADER)), environment, ..plain() };
        check(program.clone(), class.clone());
        let program = Sample { kind: ET_EXEC, tags: vec![PIE], ..program };
        check(program, class);
        let several = Sample { needed: vec!["liba.so", "libb.so.1"], ..library };
        check(several, Class { needed: vec!["liba.so".into(), "libb.so.1".into()], ..plain() });
    }

    #[test]
    fn static_programs() {
        let library = Sample { needed: Vec::new(), ..Sample::library() };
        let class = Class { kind: Kind::Static, inline_syscalls: false, ..Class::unknown() };
        check(Sample { kind: ET_EXEC, is_dynamic: false, ..library.clone() }, class.clone());
        check(Sample { kind: ET_EXEC, ..library.clone() }, class.clone());
        check(Sample { tags: vec![PIE], ..library.clone() }, class.clone());
        check(Sample { is_dynamic: false, ..library.clone() }, class.clone());
        let calls = Sample { kind: ET_EXEC, code: SYSCALL.into(), ..library };
        check(calls, Class { inline_syscalls: true, ..class });
    }

    #[test]
    fn other_files() {
        let library = Sample::library();
        for machine in [3, 40, 243] {
            check(Sample { machine, ..library.clone() }, Class::unknown());
        }
        for kind in [0, 1, 4] {
            check(Sample { kind, ..library.clone() }, Class::unknown());
        }
        // Relocations without addends, packed ones; auditing libraries.
        for tag in [17, 0x4000_0026, 0x6fff_fefb, 0x6fff_fefc] {
            check(Sample { tags: vec![(tag, 1)], ..library.clone() }, Class::unknown());
        }
        for (at, byte) in [(4, 1), (5, 2), (0, 0)] {
            let mut bytes = library.bytes();
            assert_eq!(classify(&bytes), plain());
            bytes[at] = byte;
            assert_eq!(classify(&bytes), Class::unknown(), "{at} {byte}");
        }
        assert_eq!(classify(b"!<arch>\n"), Class::unknown());
    }

    #[test]
    fn imports() {
        for machine in [X86_64, AARCH64] {
            let with = |symbols: &[(&'static str, Symbol)]| Sample {
                machine,
                symbols: symbols.to_vec(),
                ..Sample::library()
            };
            let whole = Class { environment: Environment::Unknown, ..plain() };
            for name in ["environ", "__environ", "_environ"] {
                check(with(&[("read", Symbol::Import), (name, Symbol::Import)]), whole.clone());
                check(with(&[(name, Symbol::Copy)]), whole.clone());
                check(with(&[(name, Symbol::Defined)]), plain());
                check(with(&[(name, Symbol::Unused)]), plain());
            }
            // A lookup by a name that is in the file, as the name of another symbol is here.
            for name in ["dlsym", "dlvsym"] {
                let looks = |found| with(&[(name, Symbol::Import), (found, Symbol::Unused)]);
                check(looks("environ"), whole.clone());
                check(looks("environment"), plain());
            }
            for name in ["getenv", "environs", "my_environ", "system_", "nftw65"] {
                check(with(&[(name, Symbol::Import)]), plain());
            }
        }
    }

    #[test]
    fn code_of_both_machines() {
        let svc = 0xd400_0001_u32.to_le_bytes();
        for (machine, code, expected) in [
            (X86_64, SYSCALL, true),
            (X86_64, CONSTANT, false),
            (X86_64, &svc, false),
            (AARCH64, &svc, true),
            (AARCH64, SYSCALL, false),
        ] {
            let sample = Sample { machine, code: code.into(), ..Sample::library() };
            check(sample, Class { inline_syscalls: expected, ..plain() });
        }
    }

    /// Old linkers put constants into the executable segment; there the sections tell.
    #[test]
    fn sections_of_an_executable_segment() {
        let code = [SYSCALL, CONSTANT, &[0x0f]].concat();
        let at = |sections: &[(u64, u64)], expected: bool| {
            let sample =
                Sample { code: code.clone(), sections: sections.to_vec(), ..Sample::library() };
            check(sample, Class { inline_syscalls: expected, ..plain() });
        };
        at(&[], true);
        at(&[(0, 4)], true);
        at(&[(4, 5)], false);
        at(&[(0, 1), (4, 5)], false);
        at(&[(0, 1), (4, 5), (1, 3)], true);
        // A section that is not within the segment, empty, or not in the file: the segment counts.
        at(&[(4, 0)], true);
        at(&[(9, 60)], true);
        at(&[(4, 5), (1 << 40, 4)], true);
        at(&[(4, 5), (u64::MAX - 0x1000, 4)], true);
    }

    #[test]
    fn the_same_bytes_as_code_over_and_over() {
        let sections = vec![(0, 5); 60_000];
        let sample = Sample { code: CONSTANT.into(), sections, ..Sample::library() };
        let bytes = sample.bytes();
        assert!(!classify(&bytes).inline_syscalls, "they are shorter than their headers");
        let code = CONSTANT.repeat(20_000);
        let sections = vec![(0, 100_000); 60_000];
        let sample = Sample { code, sections, ..Sample::library() };
        assert_eq!(classify(&sample.bytes()), Class::unknown());
    }

    /// A program with something of everything.
    fn rich() -> Vec<u8> {
        let symbols = vec![
            ("environ", Symbol::Copy),
            ("system", Symbol::Import),
            ("own", Symbol::Defined),
            ("getenv", Symbol::Import),
        ];
        let sample = Sample {
            interpreter: Some(LOADER),
            needed: vec!["liba.so", "libb.so.1", "libc.so.6"],
            symbols,
            code: [CONSTANT, SYSCALL].concat(),
            sections: vec![(0, 5), (5, 4)],
            ..Sample::library()
        };
        sample.bytes()
    }

    /// What is cut off is missed, but for the sections, which are not needed.
    #[test]
    fn a_part_of_a_file_is_nothing_or_the_whole() {
        let bytes = rich();
        let class = classify(&bytes);
        assert!(class.inline_syscalls && class.environment == Environment::Unknown);
        let kind = |len: usize| classify(&bytes[..len]).kind;
        let whole = (0..bytes.len()).filter(|len| kind(*len) != Kind::Other);
        assert_eq!(whole.collect::<Vec<_>>(), (bytes.len() - 128..bytes.len()).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever it says, it says it within a few passes, and of a form that can be kept.
        #[test]
        fn damage_is_no_panic(
            changes in proptest::collection::vec(
                (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]),
                1..12,
            ),
            len in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = rich();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if cut {
                bytes.truncate(len.index(bytes.len()));
            }
            let class = classify(&bytes);
            let kept: Class = serde_json::from_slice(&serde_json::to_vec(&class).unwrap()).unwrap();
            prop_assert_eq!(kept, class);
        }

        #[test]
        fn any_bytes_behind_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut file = rich()[..64].to_vec();
            file.extend_from_slice(&bytes);
            let class = classify(&file);
            prop_assert!(class == Class::unknown() || class.kind != Kind::Other);
        }
    }
}
