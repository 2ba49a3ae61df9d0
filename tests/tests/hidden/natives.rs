//! Theme: archives and crates that no argument names, but that become part of the output.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;

use kiln_tests::direct::{Desk, With, first_error};
use kiln_tests::host::host;
use kiln_tests::{skip, world};

const EXTERN: &str = "extern \"C\" { fn answer() -> i32; }\n";

/// A crate that calls the function of an archive.
fn user_of(attribute: &str) -> String {
    format!(
        "#[link({attribute})]\n{EXTERN}#[inline(never)]\npub fn v() -> i32 {{ unsafe {{ answer() }} }}\n"
    )
}

/// A program with crate `b`, which bundles what it finds in `dir`.
fn program_with_b(desk: &Desk, with: With, dir: &str) -> String {
    desk.empty("out");
    let args = "--crate-name b --crate-type lib --emit=dep-info,metadata,link --out-dir out b.rs";
    let done = desk.call(with, &format!("{args} -L native={dir}")).run();
    if let Some(error) = first_error(&done) {
        return error;
    }
    desk.rustc(
        with,
        "--crate-name m --emit=dep-info,link --out-dir out --extern b=out/libb.rlib m.rs",
    );
    desk.prints("out/m")
}

/// A static library bundles the natives of all crates below it.
#[test]
fn a_static_library_and_the_native_of_a_transitive_crate() {
    // Suffixes as cargo gives them.
    check_static_library(|n| format!("-{}", n.to_string().repeat(16)));
}

/// Suffixes of other build systems: any text.
#[test]
fn a_static_library_and_suffixes_that_are_not_those_of_cargo() {
    check_static_library(|n| format!("-{}", n.to_string().repeat(8)));
    check_static_library(|n| format!("_kt{n}"));
}

fn check_static_library(suffix: impl Fn(u32) -> String) {
    let desk = Desk::new(world!());
    desk.write("b.rs", user_of("name = \"foo\", kind = \"static\""));
    desk.write("a.rs", "pub fn v() -> i32 { b::v() }\n");
    desk.write("s.rs", "#[no_mangle]\npub extern \"C\" fn sv() -> i32 { a::v() }\n");
    desk.write("m.c", MAIN_C);
    desk.archive("nat/libfoo.a", 1);
    let common = "--edition=2021 --out-dir out -L dependency=out";
    let named = |n: u32| format!("-Cmetadata={n} -Cextra-filename={}", suffix(n));
    let (b, a, s) = (suffix(1), suffix(2), suffix(3));
    let build = |with: With| {
        desk.empty("out");
        let library = "--crate-type lib --emit=dep-info,metadata,link";
        desk.rustc(
            with,
            &format!("--crate-name b {library} {common} {} -L native=nat b.rs", named(1)),
        );
        let extern_b = format!("--extern b=out/libb{b}.rmeta");
        desk.rustc(
            with,
            &format!("--crate-name a {library} {common} {} {extern_b} a.rs", named(2)),
        );
        let extern_a = format!("--extern a=out/liba{a}.rlib");
        let library = "--crate-type staticlib --emit=dep-info,link";
        desk.rustc(
            with,
            &format!("--crate-name s {library} {common} {} {extern_a} s.rs", named(3)),
        );
        let natives = format!("-o out/m m.c out/libs{s}.a -lpthread -ldl -lm");
        desk.tool("/usr/bin/cc", desk.project.dir(), &natives);
        desk.prints("out/m")
    };
    desk.check(build, || desk.archive("nat/libfoo.a", 2));
}

const MAIN_C: &str = "int sv(void);\nint printf(const char*, ...);\n\
    int main(void) { printf(\"%d\", sv()); return 0; }\n";

/// The same as cargo builds it: the source of a build script of a crate far below.
#[test]
fn a_static_library_and_a_build_script_below() {
    let desk = Desk::new(world!());
    let manifest = |name: &str, more: &str| {
        let head =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        desk.write(&format!("{name}/Cargo.toml"), head + more);
    };
    manifest(
        "s",
        "[lib]\ncrate-type = [\"staticlib\"]\n[dependencies]\na = { path = \"../a\" }\n[workspace]\n",
    );
    manifest("a", "[dependencies]\nb = { path = \"../b\" }\n");
    manifest("b", "");
    desk.write("s/src/lib.rs", "#[no_mangle]\npub extern \"C\" fn sv() -> i32 { a::v() }\n");
    desk.write("a/src/lib.rs", "pub fn v() -> i32 { b::v() }\n");
    desk.write("b/src/lib.rs", format!("{EXTERN}pub fn v() -> i32 {{ unsafe {{ answer() }} }}\n"));
    desk.write("b/build.rs", BUILD_SCRIPT);
    desk.write("m.c", MAIN_C);
    desk.write("b/n.c", "int answer(void) { return 1; }\n");
    let build = |with: With| {
        desk.project.remove("s/target");
        let call = match with {
            With::Kiln => desk.world.cargo(&desk.project, &["build"]),
            With::Nothing => desk.world.plain_cargo(&desk.project, &["build"]),
        };
        call.dir(&desk.project.at("s")).run().ok();
        let natives = "-o m m.c s/target/debug/libs.a -lpthread -ldl -lm";
        desk.tool("/usr/bin/cc", desk.project.dir(), natives);
        desk.prints("m")
    };
    desk.check(build, || desk.write("b/n.c", "int answer(void) { return 2; }\n"));
}

const BUILD_SCRIPT: &str = r#"
use std::process::Command;
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    let run = |program: &str, args: &[&str]| assert!(Command::new(program).args(args).status().unwrap().success());
    run("cc", &["-c", "-fPIC", "n.c", "-o", &format!("{out}/n.o")]);
    run("ar", &["rcsD", &format!("{out}/libn.a"), &format!("{out}/n.o")]);
    println!("cargo::rerun-if-changed=n.c");
    println!("cargo::rustc-link-search=native={out}\ncargo::rustc-link-lib=static=n");
}
"#;

#[test]
fn an_archive_with_a_verbatim_name() {
    let desk = Desk::new(world!());
    desk.write("b.rs", user_of("name = \"foo.bin\", kind = \"static\", modifiers = \"+verbatim\""));
    desk.write("m.rs", "fn main() { print!(\"{}\", b::v()) }\n");
    desk.archive("nat/foo.bin", 1);
    desk.check(|with| program_with_b(&desk, with, "nat"), || desk.archive("nat/foo.bin", 2));
}

/// Removes a directory outside of the world.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Libraries of the system are not taken as one, unless they are bundled.
#[test]
fn an_archive_in_a_directory_of_the_system() {
    if !host().is_root {
        skip!("only root may write to /usr/local/lib");
    }
    let desk = Desk::new(world!());
    let dir = Removed(format!("/usr/local/lib/kiln-tests-{}", std::process::id()).into());
    if std::fs::create_dir_all(&dir.0).is_err() {
        skip!("/usr/local/lib cannot be written to");
    }
    desk.write("b.rs", user_of("name = \"ktfoo\", kind = \"static\""));
    desk.write("m.rs", "fn main() { print!(\"{}\", b::v()) }\n");
    let archive = |n: u32| {
        desk.archive("libktfoo.a", n);
        std::fs::copy(desk.project.at("libktfoo.a"), dir.0.join("libktfoo.a")).unwrap();
    };
    archive(1);
    desk.check(|with| program_with_b(&desk, with, dir.0.to_str().unwrap()), || archive(2));
}

/// The assembler reads a file that nothing tells of but observation; without it such a crate is never
/// stored.
#[test]
fn a_file_that_the_assembler_reads() {
    let desk = Desk::new(world!());
    desk.write(
        "b.rs",
        "core::arch::global_asm!(\".section .rodata\", \"kt_data: .incbin \\\"data.bin\\\"\", \".byte 0\", \".text\");\n\
         extern \"C\" { static kt_data: [u8; 3]; }\n\
         pub fn v() -> String { unsafe { String::from_utf8_lossy(&kt_data).into_owned() } }\n",
    );
    desk.write("m.rs", "fn main() { print!(\"{}\", b::v()) }\n");
    desk.write("data.bin", "one");
    desk.check(|with| program_with_b(&desk, with, "."), || desk.write("data.bin", "two"));
    let args = "--crate-name b --crate-type lib --emit=dep-info,metadata,link --out-dir out b.rs -L native=.";
    desk.rustc(With::Kiln, args);
    assert!(!desk.rustc(With::Kiln, args).did_compile("b"), "it is not stored");
    desk.write("data.bin", "six");
    desk.set("KILN_OBSERVE", "off");
    for _ in 0..2 {
        assert!(desk.rustc(With::Kiln, args).did_compile("b"), "it is stored");
    }
}

/// A program with crates `a` and `b`, whose files have no suffix that names their content.
#[test]
fn a_native_of_a_transitive_crate_without_suffix() {
    for more in ["", "-Clto=fat", "-Clto=thin"] {
        let desk = Desk::new(world!());
        desk.write("b.rs", user_of("name = \"foo\", kind = \"static\""));
        desk.write("a.rs", "pub fn v() -> i32 { b::v() }\n");
        desk.write("m.rs", "fn main() { print!(\"{}\", a::v()) }\n");
        desk.archive("nat/libfoo.a", 1);
        crate_b(&desk);
        crate_a(&desk);
        let args = format!("-L dependency=d --extern a=d/liba.rlib {more} m.rs");
        desk.check(
            |with| desk.program(with, &args),
            || {
                desk.archive("nat/libfoo.a", 2);
                crate_b(&desk);
            },
        );
    }
}

fn crate_b(desk: &Desk) {
    let args = "--crate-name b --crate-type lib --emit=metadata,link --out-dir d -L native=nat -Cembed-bitcode=yes b.rs";
    desk.rustc(With::Nothing, args);
}

fn crate_a(desk: &Desk) {
    let args = "--edition=2021 --crate-name a --crate-type lib --emit=metadata,link --out-dir d -L dependency=d --extern b=d/libb.rlib a.rs";
    desk.rustc(With::Nothing, args);
}

/// A crate below changed and what uses it did not: rustc refuses that.
#[test]
fn a_transitive_crate_without_suffix_that_does_not_fit_any_more() {
    let desk = Desk::new(world!());
    desk.write("b.rs", "pub fn v() -> i32 { 1 }\n");
    desk.write("a.rs", "pub fn v() -> i32 { b::v() }\n");
    desk.write("m.rs", "fn main() { print!(\"{}\", a::v()) }\n");
    desk.write("c.rs", "pub fn w() -> i32 { a::v() }\n");
    let args = "-L dependency=d --extern a=d/liba.rlib";
    let library = |with: With| {
        desk.empty("out");
        let emit = "--crate-name c --crate-type lib --emit=dep-info,metadata,link --out-dir out";
        let done = desk.call(with, &format!("{emit} {args} c.rs")).run();
        first_error(&done)
            .unwrap_or_else(|| kiln_tests::direct::names(&desk.project.at("out")).join(" "))
    };
    for text in ["pub fn x() {}\n", "pub fn y() {}\n"] {
        crate_b(&desk);
        crate_a(&desk);
        let change = || {
            desk.write("b.rs", format!("pub fn v() -> i32 {{ 1 }}\n{text}"));
            crate_b(&desk);
        };
        match text.contains('x') {
            true => desk.check(|with| desk.program(with, &format!("{args} m.rs")), change),
            false => desk.check(library, change),
        }
    }
}

/// Crates that the compiler finds by itself in directories.
#[test]
fn a_transitive_crate_of_one_found_by_search() {
    let desk = Desk::new(world!());
    desk.write("b.rs", "pub fn v() -> u32 { 1 }\n");
    desk.write("a.rs", "pub fn v() -> u32 { b::v() }\n");
    desk.write("c.rs", "extern crate a;\npub fn v() -> u32 { a::v() }\n");
    let suffix = "-Cextra-filename=-11111111";
    let library = "--edition=2021 --crate-type lib --emit=metadata,link";
    let crate_b = || {
        desk.rustc(With::Nothing, &format!("--crate-name b {library} {suffix} --out-dir dp b.rs"))
    };
    crate_b();
    let extern_b = "--extern b=dp/libb-11111111.rlib -L dependency=dp";
    desk.rustc(With::Nothing, &format!("--crate-name a {library} --out-dir cr {extern_b} a.rs"));
    let build = |with: With| {
        desk.empty("out");
        let args = "--crate-name c --crate-type lib --emit=dep-info,metadata,link --out-dir out -L crate=cr -L dependency=dp c.rs";
        first_error(&desk.call(with, args).run()).unwrap_or_default()
    };
    desk.check(build, || {
        desk.write("b.rs", "pub fn v() -> u32 { 1 }\npub fn x() {}\n");
        crate_b();
    });
}

/// A procedural macro that the compiler finds by itself reads a file of the package.
#[test]
fn a_procedural_macro_found_by_search() {
    let desk = Desk::new(world!());
    desk.write(
        "pm.rs",
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn rd(_: TokenStream) -> TokenStream {\n    \
         let dir = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n    \
         format!(\"{:?}\", std::fs::read_to_string(dir + \"/x.txt\").unwrap()).parse().unwrap()\n}\n",
    );
    let args =
        "--crate-name pm --crate-type proc-macro --edition=2021 --extern proc_macro --out-dir";
    let elsewhere = desk.world.at("macros");
    desk.rustc(With::Nothing, &format!("{args} {} pm.rs", elsewhere.display()));
    desk.write(
        "pk/m.rs",
        "#[macro_use]\nextern crate pm;\nfn main() { print!(\"{}\", pm::rd!()) }\n",
    );
    desk.write("pk/x.txt", "one");
    desk.set("CARGO_MANIFEST_DIR", &desk.text("pk"));
    let build = |with: With| {
        desk.empty("out");
        let args = format!(
            "--crate-name m --emit=dep-info,link --out-dir ../out -L {} m.rs",
            elsewhere.display()
        );
        desk.call(with, &args).dir(&desk.project.at("pk")).run().ok();
        desk.prints("out/m")
    };
    desk.check(build, || desk.write("pk/x.txt", "two"));
}
