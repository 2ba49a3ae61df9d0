//! Theme: what is known of programs and shared objects by their content, for files that the real
//! compiler makes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln::memo::Memo;
use kiln::objects::{Class, Classes, Environment, Kind, classify};
use kiln::observe::programs::is_known;
use kiln_tests::host::{SYSTEM_PATH, host};
use kiln_tests::{Call, Project, World, registry, skip, world};

/// The instruction for a system call on this machine.
#[cfg(target_arch = "x86_64")]
const INSTRUCTION: &str = "syscall";
#[cfg(target_arch = "aarch64")]
const INSTRUCTION: &str = "svc #0";

/// Compiles a source with the compiler itself; the class of the file.
fn class(world: &World, source: &str, args: &[&str]) -> (Class, Vec<u8>) {
    let project = world.project("objects");
    project.write("x.rs", source);
    let rustc = host().toolchain.join("rustc");
    let call = Call::new(&rustc, project.dir(), &["--edition=2024", "x.rs", "-o", "out"]);
    call.args(args).env("PATH", SYSTEM_PATH).run().ok();
    let bytes = project.read("out");
    let class = classify(&bytes);
    let kept = Classes::open(&world.kiln_dir());
    assert_eq!(kept.of(&project.at("out"), &Memo::default()).unwrap(), class);
    assert_eq!(kept.of(&project.at("out"), &Memo::default()).unwrap(), class, "from the disk");
    (class, bytes)
}

/// A shared object with one function, which takes and returns a number.
fn library(world: &World, body: &str) -> (Class, Vec<u8>) {
    let source = format!(
        "use std::ffi::{{c_char, c_int, c_void}};\n#[unsafe(no_mangle)]\n\
         pub extern \"C\" fn function(n: usize) -> usize {{ {body} }}\n\
         #[allow(unused)] const UNUSED: Option<(c_char, c_int, *const c_void)> = None;\n"
    );
    class(world, &source, &["--crate-type=cdylib", "-Copt-level=1"])
}

/// Properties of a library: inline system calls, and which variables it reads.
fn properties(world: &World, body: &str) -> (bool, Environment) {
    let (class, _) = library(world, body);
    assert_eq!(class.kind, Kind::Dynamic { interpreter: None }, "{body}");
    assert!(class.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", class.needed);
    assert!(class.is_rust || !body.contains("std::"), "{body}");
    (class.inline_syscalls, class.environment)
}

#[test]
fn a_library_that_asks_libc() {
    let world = world!();
    for body in [
        "n + 1",
        "std::fs::read(\"a\").map_or(n, |bytes| bytes.len())",
        "std::env::var_os(\"A\").map_or(n, |value| value.len())",
        "std::fs::read_dir(\".\").map_or(n, Iterator::count)",
        "unsafe extern \"C\" { fn syscall(n: usize) -> usize; } unsafe { syscall(n) }",
        "unsafe extern \"C\" { fn getenv(n: usize) -> usize; } unsafe { getenv(n) }",
    ] {
        assert_eq!(properties(&world, body), (false, Environment::One), "{body}");
    }
}

#[test]
fn a_library_that_makes_system_calls_itself() {
    let world = world!();
    let body = format!("unsafe {{ std::arch::asm!(\"{INSTRUCTION}\") }}; n");
    assert_eq!(properties(&world, &body), (true, Environment::One));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_older_instructions() {
    let world = world!();
    for instruction in ["sysenter", "int 0x80"] {
        let body = format!("unsafe {{ std::arch::asm!(\"{instruction}\") }}; n");
        assert_eq!(properties(&world, &body), (true, Environment::One), "{instruction}");
    }
}

/// The bytes of a system call in the code, and none of them an instruction.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_library_with_such_bytes_in_constants() {
    let world = world!();
    for (body, bytes) in [
        ("n ^ 0x0102_0304_0f05_0f05", [0x05, 0x0f, 0x05, 0x0f, 0x04, 0x03]),
        ("n ^ 0x0102_0304_050f_050f", [0x0f, 0x05, 0x0f, 0x05, 0x04, 0x03]),
        ("n ^ 0x0102_0304_80cd_340f", [0x0f, 0x34, 0xcd, 0x80, 0x04, 0x03]),
    ] {
        let (class, file) = library(&world, body);
        assert!(
            file.windows(6).any(|window| window == bytes),
            "{body}: the constant is in the code"
        );
        assert!(!class.inline_syscalls, "{body}");
    }
}

#[test]
fn a_library_that_sees_the_whole_environment() {
    let world = world!();
    for (body, expected) in [
        ("std::env::vars_os().count() + n", Environment::Whole),
        ("std::env::vars().count() + n", Environment::Whole),
        (
            "unsafe extern \"C\" { static environ: *const *const u8; } unsafe { environ as usize + n }",
            Environment::Unknown,
        ),
        (
            "unsafe extern \"C\" { static __environ: *const *const u8; } unsafe { __environ as usize + n }",
            Environment::Unknown,
        ),
        // Whoever starts a program hands it the environment.
        ("std::process::Command::new(\"a\").status().map_or(n, |_| 0)", PASSED),
    ] {
        assert_eq!(properties(&world, body), (false, expected), "{body}");
    }
}

/// What is said where the code shows that variables are but handed on: other processors' code is not
/// read so closely.
const PASSED: Environment =
    if cfg!(target_arch = "x86_64") { Environment::Passed } else { Environment::Unknown };

/// Programs, and which variables they read, as far as it can be told of any profile.
const READERS: &[(&str, Environment)] = &[
    ("fn main() { println!(\"{:?}\", std::env::var(\"A\")); }", Environment::One),
    ("fn main() { println!(\"{:?}\", std::process::Command::new(\"a\").status()); }", PASSED),
    (
        "use std::process::*; fn main() { let mut a = Command::new(\"a\"); a.env(\"A\", \"1\").env_remove(\"B\");\n\
         println!(\"{:?} {:?}\", a.output(), a.stdout(Stdio::piped()).spawn().map(|c| c.id())); }",
        PASSED,
    ),
    (
        "use std::os::unix::process::CommandExt; fn main() { std::process::Command::new(\"a\").exec(); }",
        PASSED,
    ),
    ("fn main() { for v in std::env::vars_os() { println!(\"{v:?}\"); } }", Environment::Whole),
    ("fn main() { for v in std::env::vars() { println!(\"{v:?}\"); } }", Environment::Whole),
    (
        "fn main() { println!(\"{:?}\", std::process::Command::new(\"a\").envs(std::env::vars()).status()); }",
        Environment::Whole,
    ),
    ("fn main() { println!(\"{:?}\", std::env::vars_os()); }", Environment::Unknown),
    (
        "fn main() { let f: fn() -> std::env::VarsOs = std::hint::black_box(std::env::vars_os);\n\
         std::process::Command::new(\"a\").status().unwrap(); println!(\"{:?}\", f()); }",
        Environment::Unknown,
    ),
    (
        "static F: [fn() -> std::env::VarsOs; 1] = [std::env::vars_os];\n\
         fn main() { let f = std::hint::black_box(&F); std::process::Command::new(\"a\").status().unwrap();\n\
         println!(\"{:?}\", f[0]()); }",
        Environment::Unknown,
    ),
    (
        "unsafe extern \"C\" { static environ: *const *const u8; }\n\
         fn main() { println!(\"{:?} {:?}\", unsafe { environ }, std::process::Command::new(\"a\").status()); }",
        Environment::Unknown,
    ),
    (
        "unsafe extern \"C\" { fn dlsym(a: usize, b: *const i8) -> usize; }\n\
         fn main() { println!(\"{:?}\", unsafe { dlsym(0, c\"environ\".as_ptr()) }); }",
        Environment::Unknown,
    ),
];

/// Profiles in which the code of the standard library stays apart.
const PROFILES: &[&[&str]] = &[
    &["-Cdebuginfo=2"],
    &["-Copt-level=3", "-Cstrip=debuginfo"],
    &["-Csymbol-mangling-version=v0"],
    &["-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1"],
    &["-Copt-level=3", "-Clto=thin"],
];

#[test]
fn which_variables_a_program_reads() {
    let world = world!();
    for (source, expected) in READERS {
        for profile in PROFILES {
            let (class, _) = class(&world, source, profile);
            let thin = profile.contains(&"-Clto=thin");
            assert!(class.is_rust, "{source} {profile:?}");
            assert!(
                class.environment == *expected || (thin && is_worse(class.environment, *expected)),
                "{source} {profile:?}: {:?}",
                class.environment
            );
        }
    }
}

/// Where the code of the standard library is mixed with others, or has no names, what is said may be
/// worse, and never better.
#[test]
fn which_variables_a_program_reads_that_is_mixed_or_stripped() {
    let world = world!();
    let profiles: &[&[&str]] =
        &[&["-Copt-level=3", "-Clto=fat", "-Cpanic=abort"], &["-Crelocation-model=static"]];
    for (source, expected) in READERS {
        for profile in profiles {
            let said = class(&world, source, profile).0.environment;
            assert!(is_worse(said, *expected), "{source} {profile:?}: {said:?}");
        }
        let (class, _) = class(&world, source, &["-Cstrip=symbols"]);
        assert_eq!((class.environment, class.is_rust), (Environment::Unknown, false), "{source}");
    }
}

/// Whether an answer is the expected one or one that costs more.
fn is_worse(said: Environment, expected: Environment) -> bool {
    said == expected || said.may_be_whole()
}

/// Programs in C get all variables as an argument; of those of the system that builds start it is known
/// that they ask for single ones.
#[test]
fn programs_of_this_machine() {
    let memo = Memo::default();
    let find = |name: &str| {
        let mut dirs = SYSTEM_PATH.split(':');
        let path = dirs.find_map(|dir| std::fs::canonicalize(format!("{dir}/{name}")).ok());
        path.map(|path| (classify(&std::fs::read(&path).unwrap()), path))
    };
    let mut seen = 0;
    for name in ["gcc", "as", "ld", "ar", "git", "cat", "mkdir", "pkg-config"] {
        let Some((class, path)) = find(name) else { continue };
        if !matches!(class.kind, Kind::Dynamic { .. }) {
            continue;
        }
        seen += 1;
        assert!(!class.is_rust && class.environment.may_be_whole(), "{name}: {class:?}");
        assert!(is_known(&path, &class, &memo), "{}", path.display());
    }
    assert!(seen >= 4, "there are a compiler and plain tools");
    for name in ["sh", "env", "make", "perl"] {
        let Some((class, path)) = find(name) else { continue };
        assert!(class.environment.may_be_whole(), "{name}: {class:?}");
        assert!(!is_known(&path, &class, &memo), "{}", path.display());
    }
    let rustc = host().toolchain.join("rustc");
    let class = classify(&std::fs::read(&rustc).unwrap());
    assert!(is_known(&rustc, &class, &memo), "{class:?}");
    let cargo = host().toolchain.join("cargo");
    let class = classify(&std::fs::read(&cargo).unwrap());
    assert!(class.environment.may_be_whole() && !is_known(&cargo, &class, &memo), "{class:?}");
}

#[test]
fn programs() {
    let world = world!();
    let source = "fn main() { println!(\"{:?}\", std::fs::read(\"a\")); }\n";
    for args in [&[][..], &["-Crelocation-model=static"]] {
        let (class, _) = class(&world, source, args);
        let Kind::Dynamic { interpreter: Some(interpreter) } = &class.kind else {
            panic!("{class:?}")
        };
        assert!(interpreter.starts_with('/') && interpreter.contains("ld-linux"), "{interpreter}");
        assert!(!class.inline_syscalls, "{class:?}");
    }
}

/// Programs take the variable of libc over into their own data; it stays an import.
#[test]
fn a_program_with_a_copy_of_the_variable() {
    let world = world!();
    let source = "unsafe extern \"C\" { static environ: *const *const u8; }\n\
                  fn main() { println!(\"{:?}\", unsafe { environ }); }\n";
    for args in [&[][..], &["-Crelocation-model=static"]] {
        assert_eq!(class(&world, source, args).0.environment, Environment::Unknown, "{args:?}");
    }
}

/// The code is found without the table of sections, which a program does not need.
#[test]
fn a_library_without_sections() {
    let world = world!();
    let call = format!("unsafe {{ std::arch::asm!(\"{INSTRUCTION}\") }}; n");
    for (body, expected) in [("n ^ 0x0102_0304_050f_050f", false), (call.as_str(), true)] {
        let (class, mut file) = library(&world, body);
        assert!(class.is_rust);
        file[40..48].fill(0);
        file[58..64].fill(0);
        // Nor are there names then, that tell of Rust.
        assert_eq!(classify(&file), Class { is_rust: false, ..class });
        assert_eq!(class.inline_syscalls, expected);
    }
}

/// A real object, damaged in its headers and tables.
#[test]
fn damage_is_no_panic() {
    let world = world!();
    let source = "#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
        unsafe extern \"C\" { static environ: usize; fn system(n: usize) -> usize; }\n\
        #[unsafe(no_mangle)]\npub extern \"C\" fn f(n: usize) -> usize { unsafe { system(n ^ environ) } }\n";
    let (class, file) = class(
        &world,
        source,
        &["--crate-type=cdylib", "-Cpanic=abort", "-Clink-arg=-nostartfiles"],
    );
    assert_eq!(class.environment, Environment::Unknown, "{class:?}");
    // Numbers that look random, and the same ones each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut unknown, mut known) = (0, 0);
    for round in 0..20_000 {
        let mut damaged = file.clone();
        // Headers of the file and of segments; any place; the table of sections.
        let range = match round % 3 {
            0 => 0..0x300,
            1 => 0..file.len(),
            _ => file.len().saturating_sub(0x800)..file.len(),
        };
        for _ in 0..=next() % 4 {
            let at = range.start + next() as usize % range.len();
            damaged[at] = if next() % 3 == 0 { 0xff } else { next() as u8 };
        }
        match classify(&damaged).kind {
            Kind::Other => unknown += 1,
            _ => known += 1,
        }
    }
    assert!(unknown > 1000 && known > 1000, "{unknown} {known}: both ways were gone");
}

/// A procedural macro that looks at a file through `rustix`, beside macros in wide use.
#[test]
fn procedural_macros() {
    let world = world!();
    let fetched = match registry::macros(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(fetched);
    let project = world.project("macros");
    for file in ["Cargo.toml", "Cargo.lock"] {
        project.write(file, fetched.read(file));
    }
    let manifest = String::from_utf8(fetched.read("Cargo.toml")).unwrap();
    project.write("Cargo.toml", manifest + "\n[lib]\nproc-macro = true\n");
    project.write(
        "src/lib.rs",
        "#[proc_macro]\npub fn size(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         rustix::fs::stat(\"hidden\").map_or(0, |stat| stat.st_size).to_string().parse().unwrap()\n}\n",
    );
    world.plain_cargo(&project, &["build"]).run().ok();
    let class = |name: &str| class_of_library(&project, name);
    for name in ["clap_derive", "serde_derive", "thiserror_impl", "tokio_macros"] {
        let class = class(name);
        assert!(!class.inline_syscalls, "{name}: {class:?}");
        assert_eq!(class.environment, Environment::One, "{name}: {class:?}");
        assert_eq!(class.kind, Kind::Dynamic { interpreter: None });
    }
    assert!(class("macros").inline_syscalls);
}

fn class_of_library(project: &Project, name: &str) -> Class {
    let start = format!("lib{name}");
    let mut files = std::fs::read_dir(project.at("target/debug/deps")).unwrap().flatten();
    let file = files.find(|file| {
        let file = file.file_name();
        let file = file.to_str().unwrap();
        file.ends_with(".so") && file.split(['-', '.']).next() == Some(start.as_str())
    });
    let file = file.unwrap_or_else(|| panic!("no {start}"));
    classify(&std::fs::read(file.path()).unwrap())
}
