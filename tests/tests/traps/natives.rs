//! Theme: what the assembler, the archiver and the linker read. Each is tried with observation and
//! without.
//!
//! Two are out of reach of `KILN_OBSERVE=off`, and tried with observation alone: assembly whose directives
//! are put together by macros, and thin archives, which name objects that lie elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::{Desk, With};
use kiln_tests::world;

const LIBRARY: &str =
    "--crate-name b --crate-type lib --emit=dep-info,metadata,link --out-dir out b.rs";

fn desk(way: &str) -> Desk {
    let desk = Desk::new(world!());
    desk.set("KILN_OBSERVE", way);
    desk.write("m.rs", "fn main() { print!(\"{}\", b::v()) }\n");
    desk
}

/// The library `b`, and a program that shows what it gives.
fn build(desk: &Desk, with: With, args: &str) -> String {
    desk.empty("out");
    let done = desk.call(with, &format!("{LIBRARY} {args}")).run();
    if !done.status.success() {
        return done.stderr;
    }
    let program = "--crate-name m --edition=2021 --emit=dep-info,link --out-dir out -L dependency=out --extern b=out/libb.rlib m.rs";
    desk.rustc(with, &format!("{program} {args}"));
    desk.prints("out/m")
}

/// From one state to another and back; whether `b` is stored.
#[track_caller]
fn check(desk: &Desk, args: &str, stored: bool, a: impl Fn(&Desk), b: impl Fn(&Desk)) {
    let same = || desk.same(|with| build(desk, with, args));
    a(desk);
    let first = same();
    assert_eq!(desk.rustc(With::Kiln, &format!("{LIBRARY} {args}")).did_compile("b"), !stored);
    b(desk);
    assert_ne!(same(), first, "the change has to show");
    a(desk);
    assert_eq!(same(), first);
    assert_eq!(desk.rustc(With::Kiln, &format!("{LIBRARY} {args}")).did_compile("b"), !stored);
}

/// Shows three bytes at `kt_data`.
const DATA: &str = "extern \"C\" { static kt_data: [u8; 3]; }\n\
     pub fn v() -> String { unsafe { String::from_utf8_lossy(&kt_data).into_owned() } }\n";

fn assembly(lines: &str) -> String {
    format!(
        "core::arch::global_asm!(\".section .rodata\", \"kt_data:\", {lines}, \".byte 0\", \".text\");\n{DATA}"
    )
}

/// What the assembler in the compiler reads is observed; nothing else tells of it.
const WAYS: [(&str, bool); 2] = [("on", true), ("off", false)];

#[test]
fn bytes_that_the_assembler_includes() {
    for (way, stored) in WAYS {
        let desk = desk(way);
        desk.write("b.rs", assembly("\".incbin \\\"data.bin\\\"\""));
        check(&desk, "", stored, |d| d.write("data.bin", "one"), |d| d.write("data.bin", "two"));
    }
}

#[test]
fn a_chain_that_the_assembler_includes() {
    for (way, stored) in WAYS {
        let desk = desk(way);
        desk.write("b.rs", assembly("\".include \\\"one.s\\\"\""));
        desk.write("one.s", ".include \"deep/two.s\"\n");
        desk.write("deep/two.s", ".incbin \"deep/data.bin\"\n");
        check(
            &desk,
            "",
            stored,
            |d| d.write("deep/data.bin", "one"),
            |d| d.write("deep/data.bin", "two"),
        );
    }
}

/// The text of the assembly comes from a file and from a macro of another crate.
#[test]
fn assembly_from_elsewhere() {
    for (way, stored) in WAYS {
        let desk = desk(way);
        desk.write("b.rs", format!("core::arch::global_asm!(include_str!(\"all.s\"));\n{DATA}"));
        desk.write("all.s", ".section .rodata\nkt_data: .incbin \"data.bin\"\n.byte 0\n.text\n");
        check(&desk, "", stored, |d| d.write("data.bin", "one"), |d| d.write("data.bin", "two"));
    }
}

/// The name of the directive is put together, so that no source holds it.
#[test]
fn assembly_that_is_put_together() {
    let desk = desk("on");
    desk.write("b.rs", assembly("concat!(\".inc\", \"bin \\\"data.bin\\\"\")"));
    check(&desk, "", true, |d| d.write("data.bin", "one"), |d| d.write("data.bin", "two"));
}

/// Assembly in a function, and in a procedural macro's output.
#[test]
fn assembly_in_a_function() {
    for (way, stored) in WAYS {
        let desk = desk(way);
        let code = "pub fn v() -> String { let p: *const u8; unsafe { \
             core::arch::asm!(\".pushsection .rodata.kt\", \"77: .incbin \\\"data.bin\\\"\", \".popsection\", \"lea {0}, [rip + 77b]\", out(reg) p); \
             String::from_utf8_lossy(core::slice::from_raw_parts(p, 3)).into_owned() } }\n";
        if !cfg!(target_arch = "x86_64") {
            return;
        }
        desk.write("b.rs", code);
        check(&desk, "", stored, |d| d.write("data.bin", "one"), |d| d.write("data.bin", "two"));
    }
}

const EXTERN: &str =
    "extern \"C\" { fn answer() -> i32; }\npub fn v() -> i32 { unsafe { answer() } }\n";

/// An archive that holds the names of objects only.
#[test]
fn a_thin_archive() {
    let desk = desk("on");
    desk.write("b.rs", format!("#[link(name = \"foo\", kind = \"static\")] {EXTERN}"));
    let object = |desk: &Desk, n: u32| {
        desk.write("nat/objects/a.c", format!("int answer(void) {{ return {n}; }}\n"));
        let dir = desk.project.at("nat");
        desk.tool("/usr/bin/cc", &dir, "-c objects/a.c -o objects/a.o");
    };
    object(&desk, 1);
    desk.tool("/usr/bin/ar", &desk.project.at("nat"), "rcsTD libfoo.a objects/a.o");
    let archive = desk.project.read("nat/libfoo.a");
    check(&desk, "-Lnative=nat", true, |d| object(d, 1), |d| object(d, 2));
    assert_eq!(desk.project.read("nat/libfoo.a"), archive, "the archive itself stays");
}

fn shared(desk: &Desk, path: &str, code: &str, args: &str) {
    desk.write("s.c", code);
    desk.tool("/usr/bin/cc", desk.project.dir(), &format!("-shared -fPIC s.c -o {path} {args}"));
}

const ANSWER: &str = "int answer(void) { return 1; }\n";

/// What the program asks the loader for.
fn needs(desk: &Desk, with: With) -> String {
    desk.empty("out");
    let args = "--crate-name m --emit=dep-info,link --out-dir out -Lnative=nat -ldylib=foo m.rs";
    desk.rustc(with, args);
    let program = desk.project.read("out/m");
    let has = |name: &str| program.windows(name.len()).any(|w| w == name.as_bytes());
    format!("{} {}", has("libkt-one.so"), has("libkt-two.so"))
}

#[test]
fn the_name_that_a_shared_library_gives_itself() {
    for way in ["on", "off"] {
        let desk = desk(way);
        desk.write("m.rs", "extern \"C\" { fn answer() -> i32; }\nfn main() { print!(\"{}\", unsafe { answer() }) }\n");
        desk.empty("nat");
        let make = |name: &str| {
            shared(&desk, "nat/libfoo.so", ANSWER, &format!("-Wl,-soname,libkt-{name}.so"))
        };
        make("one");
        desk.check(|with| needs(&desk, with), || make("two"));
        make("one");
        assert_eq!(needs(&desk, With::Kiln), "true false");
    }
}

/// A library that is a text for the linker names others.
#[test]
fn a_library_that_is_a_script() {
    for way in ["on", "off"] {
        let desk = desk(way);
        desk.write("m.rs", "extern \"C\" { fn answer() -> i32; }\nfn main() { print!(\"{}\", unsafe { answer() }) }\n");
        desk.write("nat/libfoo.so", format!("INPUT({})\n", desk.text("far/libbar.a")));
        let program = |with| {
            desk.empty("out");
            desk.rustc(
                with,
                "--crate-name m --emit=dep-info,link --out-dir out -Lnative=nat -ldylib=foo m.rs",
            );
            desk.prints("out/m")
        };
        desk.archive("far/libbar.a", 1);
        desk.check(program, || desk.archive("far/libbar.a", 2));
        desk.archive("far/libbar.a", 1);
        assert_eq!(desk.same(program), "1");
    }
}

/// A linker's plugin or option file that the C compiler reads itself.
#[test]
fn specifications_of_the_c_compiler() {
    for way in ["on", "off"] {
        let desk = desk(way);
        desk.write("m.rs", "extern \"C\" { static kt_value: u8; }\nfn main() { print!(\"{}\", &raw const kt_value as usize) }\n");
        let specs = |n: u32| desk.write("kt.specs", format!("*link:\n+ --defsym kt_value={n}\n"));
        let program =
            |with| desk.program(with, "-Crelocation-model=static -Clink-arg=-specs=kt.specs m.rs");
        specs(1);
        assert_eq!(desk.same(program), "1");
        specs(2);
        assert_eq!(desk.same(program), "2");
        specs(1);
        assert_eq!(desk.same(program), "1");
    }
}
