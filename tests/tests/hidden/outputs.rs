//! Theme: which files are outputs of a compile, and which are those of others beside them; sources
//! that change while the compiler runs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;

use kiln_tests::direct::{Desk, With, first_error, names};
use kiln_tests::world;

/// A file name without what a compiler makes up: hashes and the numbers of codegen units.
fn plain_name(name: &str) -> String {
    let made_up = |part: &str| part.len() >= 12 || part.contains("-cgu") || part == "rcgu";
    let parts = name.split('.').map(|part| if made_up(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

/// What is in the directory of the outputs.
fn outputs(desk: &Desk) -> String {
    let mut all: Vec<String> =
        names(&desk.project.at("out")).iter().map(|n| plain_name(n)).collect();
    all.sort_unstable();
    all.join(" ")
}

#[test]
fn outputs_named_by_an_argument() {
    for name in ["app", "app.exe", "app.v1.2", "libx.rlib", "odd name", "-dash", "m", "m.d"] {
        let desk = Desk::new(world!());
        desk.write("m.rs", "fn main() { print!(\"x\") }\n");
        for split in ["off", "packed", "unpacked"] {
            let build = |with: With| {
                desk.empty("out");
                let library = if name.ends_with("rlib") { "--crate-type=lib" } else { "" };
                let args = format!("--crate-name m -g -Csplit-debuginfo={split} {library} m.rs -o");
                let done = desk.call(with, &args).args(&[format!("out/{name}")]).run();
                format!("{name} {split}: {} {}", done.status, outputs(&desk))
            };
            desk.same(build);
            desk.same(build);
        }
    }
}

/// The same compile into two directories of one target directory, as build scripts do it that try
/// whether something compiles: dep-info and artifact notices name each its own.
#[test]
fn two_output_directories_in_one_target_directory() {
    let desk = Desk::new(world!());
    desk.write("l.rs", "pub fn one() {}\n");
    desk.write("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    let args = "--crate-name l --crate-type lib --error-format=json --json=artifacts \
                --emit=dep-info,metadata l.rs --out-dir";
    for dir in ["target/debug/build/a/out", "target/debug/build/b/out"] {
        desk.same(|with| {
            desk.empty(dir);
            let done = desk.call(with, args).args(&[desk.project.at(dir)]).run().ok();
            let dep_info = desk.project.read(&format!("{dir}/l.d"));
            done.stderr + &String::from_utf8(dep_info).unwrap()
        });
    }
}

/// While a program compiles, another compiler writes a library of the same name beside it.
#[test]
fn a_library_that_another_compile_writes_beside() {
    let desk = Desk::new(world!());
    desk.write("m.rs", "fn main() { print!(\"x\") }\n");
    desk.write("l.rs", "pub fn one() {}\n");
    let real = desk.world.bin().join("rustc").display().to_string();
    let library = format!("{real} --crate-name app --crate-type lib --out-dir out l.rs");
    let script = format!(
        "case \"$*\" in *\"--crate-type bin\"*) if [ -f other ]; then rm other; {library}; fi;; esac\nexec {real} \"$@\""
    );
    desk.set_compiler(desk.script("rs", &script));
    let program = "--crate-name app --crate-type bin --emit=dep-info,link --out-dir out m.rs";
    desk.empty("out");
    desk.write("other", "");
    desk.rustc(With::Kiln, program);
    assert!(desk.project.at("out/libapp.rlib").exists(), "the other compile ran");
    desk.empty("out");
    desk.write("l.rs", "pub fn two() {}\n");
    desk.rustc(With::Nothing, "--crate-name app --crate-type lib --out-dir out l.rs");
    let before = desk.project.read("out/libapp.rlib");
    for _ in 0..2 {
        desk.rustc(With::Kiln, program);
        assert_eq!(desk.prints("out/app"), "x");
        assert_eq!(desk.project.read("out/libapp.rlib"), before);
    }
    desk.project.remove("out/libapp.rlib");
    desk.rustc(With::Kiln, program);
    assert_eq!(names(&desk.project.at("out")), ["app", "app.d"]);
}

/// The compiler's own messages go to a file that is named like an output.
#[test]
fn a_log_beside_the_source() {
    let desk = Desk::new(world!());
    desk.write("m.rs", "fn main() { let x = 1; }\n");
    let (kiln, rustc) = (&desk.world.programs.kiln, desk.world.bin().join("rustc"));
    let line = format!(
        "(echo begin $1; {} {} m.rs; echo end $1) > m.log 2>&1",
        kiln.display(),
        rustc.display()
    );
    let log = |n: &str| {
        desk.world.call("/bin/sh", desk.project.dir(), &["-c", &line, "sh", n]).run().ok();
        String::from_utf8(desk.project.read("m.log")).unwrap()
    };
    let first = log("1");
    assert!(first.contains("unused variable"), "{first}");
    for n in ["2", "3"] {
        assert_eq!(
            log(n),
            first.replace("begin 1", &format!("begin {n}")).replace("end 1", &format!("end {n}"))
        );
    }
    desk.project.remove("m.log");
    desk.rustc(With::Kiln, "m.rs");
    assert!(!desk.project.at("m.log").exists());
}

/// Warnings about arguments that do not go together.
#[test]
fn a_warning_about_two_output_arguments() {
    let desk = Desk::new(world!());
    desk.write("m.rs", "fn main() {}\n");
    let build = |with: With, more: &str| {
        desk.empty("out");
        desk.rustc(with, &format!("--crate-name m -o out/m {more} m.rs")).stderr
    };
    let quiet = desk.same(|with| build(with, ""));
    let warns = desk.same(|with| build(with, "--out-dir out"));
    assert_ne!(quiet, warns);
    assert_eq!(desk.same(|with| build(with, "")), quiet);
}

/// A compiler that runs `swap.sh` once, after the compile and before Kiln looks.
fn desk_with_swap() -> Desk {
    let desk = Desk::new(world!());
    let real = desk.world.bin().join("rustc").display().to_string();
    let script = format!(
        "case \"$*\" in *\"--crate-name m\"*) {real} \"$@\"; e=$?; if [ -f swap.sh ]; then mv swap.sh done.sh; sh done.sh; fi; exit $e;; esac\nexec {real} \"$@\""
    );
    desk.set_compiler(desk.script("rs", &script));
    desk
}

fn sources(desk: &Desk, dir: &str, n: u32) {
    desk.write(&format!("{dir}/main.rs"), "mod v;\nfn main() { print!(\"{}\", v::V) }\n");
    desk.write(&format!("{dir}/v.rs"), format!("pub const V: u32 = {n};\n"));
}

/// Compiles 1, while a script makes 2 of it; then it must be 2.
fn check_swap(desk: &Desk, youngest: &str, swap: &str) {
    desk.settle(youngest);
    desk.write("swap.sh", swap);
    assert_eq!(desk.program(With::Kiln, "src/main.rs"), "1");
    assert!(!desk.project.at("swap.sh").exists(), "the script ran");
    assert_eq!(desk.program(With::Kiln, "src/main.rs"), "2");
    assert_eq!(desk.program(With::Nothing, "src/main.rs"), "2");
    assert_eq!(desk.program(With::Kiln, "src/main.rs"), "2");
}

#[test]
fn a_directory_renamed_while_the_compiler_runs() {
    let desk = desk_with_swap();
    sources(&desk, "new", 2);
    sources(&desk, "src", 1);
    check_swap(&desk, "src/v.rs", "mv src old; mv new src");
}

#[test]
fn a_link_pointed_elsewhere_while_the_compiler_runs() {
    let desk = desk_with_swap();
    sources(&desk, "s2", 2);
    sources(&desk, "s1", 1);
    symlink("s1", desk.project.at("src")).unwrap();
    check_swap(&desk, "s1/v.rs", "ln -sfn s2 src");
}

#[test]
fn a_file_replaced_by_an_older_one_while_the_compiler_runs() {
    let desk = desk_with_swap();
    desk.write("v2", "pub const V: u32 = 2;\n");
    sources(&desk, "src", 1);
    check_swap(&desk, "src/v.rs", "mv v2 src/v.rs");
}

/// The same with a directory further up.
#[test]
fn a_parent_directory_renamed_while_the_compiler_runs() {
    let desk = desk_with_swap();
    sources(&desk, "new/in", 2);
    sources(&desk, "cur/in", 1);
    symlink("cur/in", desk.project.at("src")).unwrap();
    check_swap(&desk, "cur/in/v.rs", "mv cur old; mv new cur");
}

/// Outputs in whose place there is something else.
#[test]
fn outputs_in_place_of_links() {
    let desk = Desk::new(world!());
    desk.write("l.rs", "pub fn f() {}\n");
    let at = |path: &str| desk.project.at(path);
    let prepare: [(&str, &dyn Fn()); 4] = [
        ("nothing", &|| {}),
        ("a link", &|| symlink("../victim", at("out/libl.rlib")).unwrap()),
        ("a hard link", &|| fs::hard_link(at("victim"), at("out/libl.rlib")).unwrap()),
        ("a dangling link", &|| symlink("nowhere", at("out/libl.rmeta")).unwrap()),
    ];
    for (name, prepare) in prepare {
        let build = |with: With| {
            desk.empty("out");
            desk.write("victim", "v");
            prepare();
            let args =
                "--crate-name l --crate-type lib --emit=dep-info,metadata,link --out-dir out l.rs";
            let done = desk.call(with, args).run();
            let error = first_error(&done).is_some();
            let is_link = at("out/libl.rlib").is_symlink();
            format!(
                "{name}: {error} {is_link} {} {}",
                outputs(&desk),
                desk.project.read("victim") == b"v"
            )
        };
        desk.same(build);
        desk.same(build);
    }
}

/// A directory is in the way: that is an error, and nothing of Kiln's own stays behind.
#[test]
fn an_output_in_place_of_a_directory() {
    let desk = Desk::new(world!());
    desk.write("l.rs", "pub fn f() {}\n");
    let args = "--crate-name l --crate-type lib --emit=dep-info,metadata,link --out-dir out l.rs";
    desk.empty("out");
    desk.rustc(With::Kiln, args);
    desk.empty("out/libl.rlib");
    let kiln = desk.call(With::Kiln, args).run();
    let left = names(&desk.project.at("out"));
    desk.empty("out");
    desk.empty("out/libl.rlib");
    let plain = desk.call(With::Nothing, args).run();
    assert_eq!((kiln.status, kiln.stderr), (plain.status, plain.stderr));
    assert!(!left.iter().any(|name| name.contains("kiln")), "{left:?}");
}
