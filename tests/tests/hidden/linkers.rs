//! Theme: what the linker reads by an argument, a variable or a search of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::{Desk, With, first_error, names};
use kiln_tests::host::{SYSTEM_PATH, host};
use kiln_tests::{skip, world};

/// A program that prints the address of a symbol that only the linker knows.
const SYMBOL: &str = "extern \"C\" { static kt_value: u8; }\nfn main() { print!(\"{}\", &raw const kt_value as usize) }\n";

/// A program that calls a function of an archive.
const EXTERN: &str =
    "extern \"C\" { fn answer() -> i32; }\nfn main() { print!(\"{}\", unsafe { answer() }) }\n";

/// The linker of the system, not the one that rustc brings.
const SYSTEM_LD: &str = "-Clinker-features=-lld -Crelocation-model=static";

fn desk(main: &str) -> Desk {
    let desk = Desk::new(world!());
    desk.write("m.rs", main);
    desk
}

/// A linker that gives the symbol a value.
fn linker(desk: &Desk, path: &str, n: u32) {
    desk.script(path, &format!("exec /usr/bin/ld \"$@\" --defsym=kt_value={n}"));
}

#[test]
fn a_response_file_as_link_argument() {
    let desk = desk(SYMBOL);
    let options = |n: u32| desk.write("opts.rsp", format!("-Wl,--defsym=kt_value={n}\n"));
    options(17);
    let absolute = format!("-Crelocation-model=static -Clink-arg=@{} m.rs", desk.text("opts.rsp"));
    desk.check(|with| desk.program(with, &absolute), || options(34));
    let relative = "-Crelocation-model=static -Clink-arg=@opts.rsp m.rs";
    desk.check(|with| desk.program(with, relative), || options(51));
}

#[test]
fn another_linker_in_the_directory_of_an_argument() {
    for (name, more) in [("ld", ""), ("ld.bfd", "-Clink-arg=-fuse-ld=bfd")] {
        let desk = desk(SYMBOL);
        let path = format!("b/{name}");
        linker(&desk, &path, 17);
        let args = format!("{SYSTEM_LD} {more} -Clink-arg=-B{} m.rs", desk.text("b"));
        desk.check(|with| desk.program(with, &args), || linker(&desk, &path, 34));
    }
}

#[test]
fn a_linker_that_appears_in_the_directory_of_a_variable() {
    let desk = desk(SYMBOL);
    desk.set("COMPILER_PATH", desk.empty("cp").to_str().unwrap());
    let args = format!("{SYSTEM_LD} -Clink-arg=-Wl,--defsym=kt_value=51 m.rs");
    let build = |with: With| desk.program(with, &args);
    desk.check(build, || linker(&desk, "cp/ld", 68));
    desk.check(build, || linker(&desk, "cp/ld", 85));
}

#[test]
fn a_linker_that_appears_in_the_directory_of_an_argument() {
    let desk = desk(SYMBOL);
    desk.empty("b");
    let args = format!("{SYSTEM_LD} -Clink-arg=-Bb -Clink-arg=-Wl,--defsym=kt_value=51 m.rs");
    desk.check(|with| desk.program(with, &args), || linker(&desk, "b/ld", 68));
}

#[test]
fn a_linker_or_a_compiler_that_appears_earlier_in_path() {
    let desk = desk(SYMBOL);
    let path =
        format!("{}:{}:{SYSTEM_PATH}", desk.empty("pp").display(), host().toolchain.display());
    desk.set("PATH", &path);
    let args = format!("{SYSTEM_LD} -Clink-arg=-Wl,--defsym=kt_value=51 m.rs");
    let build = |with: With| desk.program(with, &args);
    // Whether the C compiler looks there for its linker is its own affair.
    desk.same(build);
    linker(&desk, "pp/ld", 68);
    desk.same(build);
    desk.project.remove("pp/ld");
    let change = || drop(desk.script("pp/cc", "exec /usr/bin/cc \"$@\" -Wl,--defsym=kt_value=102"));
    desk.check(build, change);
}

/// An archive appears in a directory that is searched before the one where it was found.
#[test]
fn every_spelling_of_a_search_directory() {
    for spelling in [
        &["-L@1", "-L@2", "-lkt"][..],
        &["-Wl,-L@1", "-Wl,-L@2", "-lkt"],
        &["-L @1 -L @2 -lkt"],
        &["-L @1", "-L @2 -lkt"],
        &["-Wl,--library-path=@1 -Wl,--library-path,@2 -lkt"],
        &["-B@1 -B@2 -lkt"],
        &["-Wl,-L,@1,-L,@2 -lkt"],
        &["-Xlinker -L@1 -Xlinker -L@2 -lkt"],
    ] {
        for absolute in [true, false] {
            check_spelling(spelling, absolute);
        }
    }
}

fn check_spelling(spelling: &[&str], absolute: bool) {
    let desk = desk(EXTERN);
    desk.empty("n1");
    desk.archive("n2/libkt.a", 2);
    let dir = |name: &str| {
        if absolute { desk.text(name) } else { name.to_owned() }
    };
    let fill = |text: &&str| {
        format!("-Clink-args={}", text.replace("@1", &dir("n1")).replace("@2", &dir("n2")))
    };
    let args: Vec<String> = spelling.iter().map(fill).collect();
    let build = |with: With| {
        desk.empty("out");
        let call = desk.call(with, "--crate-name m --emit=dep-info,link --out-dir out m.rs");
        first_error(&call.args(&args).run()).unwrap_or_else(|| desk.prints("out/m"))
    };
    assert_eq!(desk.same(build), "2", "{spelling:?}");
    desk.archive("n1/libkt.a", 1);
    assert_eq!(desk.same(build), "1", "{spelling:?}");
}

/// The C compiler takes `LPATH` for `LIBRARY_PATH`.
#[test]
fn libraries_found_by_an_old_variable() {
    let desk = desk(EXTERN);
    for n in [1, 2] {
        desk.archive(&format!("n{n}/libkt.a"), n);
    }
    desk.set("LPATH", &desk.text("n1"));
    let build = |with: With| desk.program(with, "-Clink-arg=-lkt m.rs");
    let before = desk.same(build);
    desk.set("LPATH", &desk.text("n2"));
    let after = desk.same(build);
    if before == after {
        skip!("this C compiler does not read LPATH: {after}");
    }
}

/// A shared library that another one needs is looked for in the directories of a variable.
#[test]
fn a_library_of_a_library_that_appears_earlier() {
    let desk = desk(EXTERN);
    let shared = |path: &str, source: &str, more: &str| {
        desk.write("c.c", source);
        desk.tool(
            "/usr/bin/cc",
            desk.project.dir(),
            &format!("-shared -fPIC -o {path} c.c {more}"),
        );
    };
    for dir in ["early", "late", "lib"] {
        desk.empty(dir);
    }
    let soname = "-Wl,-soname,libktin.so";
    shared("late/libktin.so", "int kt_in(void) { return 1; }\n", soname);
    shared(
        "lib/libktf.so",
        "int kt_in(void); int answer(void) { return kt_in(); }\n",
        "-Llate -lktin",
    );
    desk.set("LD_LIBRARY_PATH", &format!("{}:{}", desk.text("early"), desk.text("late")));
    let build = |with: With| {
        desk.empty("out");
        let args =
            "-Clinker-features=-lld -Clink-arg=-fuse-ld=bfd -Clink-arg=-Llib -Clink-arg=-lktf";
        let emit = "--crate-name m --emit=dep-info,link --out-dir out m.rs";
        let done = desk.call(with, &format!("{args} {emit}")).run();
        format!("{} {}", done.status, names(&desk.project.at("out")).contains(&"m".to_owned()))
    };
    desk.check(build, || shared("early/libktin.so", "int kt_other(void) { return 1; }\n", soname));
}

/// rustc's own linker writes the value of a variable into what it links.
#[test]
fn the_version_that_the_linker_writes() {
    let desk = desk(EXTERN);
    desk.archive("n1/libkt.a", 1);
    let comment = |with: With| {
        desk.program(with, "-Clink-arg=-Ln1 -Clink-arg=-lkt m.rs");
        let program = desk.project.read("out/m");
        let has = |text: &str| program.windows(text.len()).any(|w| w == text.as_bytes());
        format!("{} {}", has("kt-version-1"), has("kt-version-2"))
    };
    desk.set("LLD_VERSION", "kt-version-1");
    let before = desk.same(comment);
    desk.set("LLD_VERSION", "kt-version-2");
    let after = desk.same(comment);
    if before == after {
        skip!("this rustc does not link by lld: {after}");
    }
}

/// A variable makes rustc's own linker leave an archive of everything: whenever it is set.
#[test]
fn what_a_linker_is_asked_to_leave_behind() {
    let desk = desk(EXTERN);
    desk.archive("n1/libkt.a", 1);
    let build = |with: With| {
        desk.project.remove("r.tar");
        let printed = desk.program(with, "-Clink-arg=-Ln1 -Clink-arg=-lkt m.rs");
        format!("{printed} {}", desk.project.at("r.tar").exists())
    };
    desk.same(build);
    desk.set("LLD_REPRODUCE", &desk.text("r.tar"));
    desk.same(build);
    desk.same(build);
}

const NO_STD: &str = "#![no_std]\n#[panic_handler]\nfn p(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
    #[no_mangle]\npub extern \"C\" fn kt() -> i32 { 7 }\n";

/// A linker that is called by itself, without a C compiler.
#[test]
fn a_linker_called_without_a_compiler() {
    let desk = desk(NO_STD);
    let own = host().toolchain.with_file_name("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
    std::os::unix::fs::symlink("/usr/bin/ld", desk.project.at("myld")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/cc", desk.project.at("ld")).unwrap();
    for flags in [
        "-Clinker-flavor=ld -Clink-self-contained=no",
        "-Clinker-flavor=ld",
        "-Clinker-flavor=ld.lld",
        &format!("-Clinker={} -Clinker-flavor=ld.lld", own.display()),
        &format!("-Clinker={} -Clinker-flavor=ld", desk.text("myld")),
        "-Clinker=./myld -Clinker-flavor=ld",
        &format!("-Clinker={} -Clinker-flavor=gcc -Clinker-features=-lld", desk.text("ld")),
    ] {
        let build = |with: With| {
            desk.empty("out");
            let args = "--crate-name m --crate-type cdylib -Cpanic=abort --emit=dep-info,link --out-dir out m.rs";
            let done = desk.call(with, &format!("{flags} {args}")).run();
            format!("{flags}: {} {}", done.status, names(&desk.project.at("out")).join(" "))
        };
        // The second time it may come from the cache.
        desk.same(build);
        desk.same(build);
    }
}

/// A target that is linked by rustc's own linker and by no C compiler.
#[test]
fn a_target_without_a_compiler() {
    let desk = desk(
        "#![feature(no_core, lang_items)]\n#![no_core]\n#![no_main]\n\
         #[lang = \"pointee_sized\"]\npub trait P {}\n#[lang = \"meta_sized\"]\npub trait M: P {}\n\
         #[lang = \"sized\"]\npub trait S: M {}\n#[no_mangle]\npub extern \"C\" fn _start() {}\n",
    );
    desk.set("RUSTC_BOOTSTRAP", "1");
    let build = |with: With| {
        desk.empty("out");
        let args = "--crate-name n --crate-type bin -Cpanic=abort --emit=dep-info,link --out-dir out --target x86_64-unknown-linux-none m.rs";
        let done = desk.call(with, args).run();
        format!("{} {}", done.status, names(&desk.project.at("out")).join(" "))
    };
    desk.same(build);
    desk.same(build);
}
