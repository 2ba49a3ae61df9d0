//! Theme: what a linker reads changes (archives, scripts, the linker itself, its variables).

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln_tests::change::{Change, State};
use kiln_tests::{Project, World, samples, world};

const EXTERN: &str =
    "extern \"C\" { fn answer() -> i32; }\nfn main() { println!(\"{}\", unsafe { answer() }); }\n";

/// A static archive whose function `answer` returns this number.
fn archive(world: &World, n: u32) -> Vec<u8> {
    let scratch = world.project(&format!("c{n}"));
    scratch.write("a.c", format!("int answer(void) {{ return {n}; }}\n"));
    world.call("/usr/bin/cc", scratch.dir(), &["-c", "a.c", "-o", "a.o"]).run().ok();
    scratch.remove("liba.a");
    world.call("/usr/bin/ar", scratch.dir(), &["crs", "liba.a", "a.o"]).run().ok();
    scratch.read("liba.a")
}

/// A program whose archive changes from 1 to 2.
fn check_archive(main: &str, args: &[&str]) {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", main);
    let state = |n: u32| State::prints(&n.to_string()).file("lib/libanswer.a", archive(&world, n));
    Change::rustc(&world, &project, args).check(&state(1), &state(2));
}

#[test]
fn an_archive_given_by_l_static() {
    check_archive(EXTERN, &["-L", "native=lib", "-l", "static=answer"]);
}

#[test]
fn a_whole_archive() {
    check_archive(EXTERN, &["-L", "native=lib", "-l", "static:+whole-archive=answer"]);
}

#[test]
fn a_renamed_archive() {
    check_archive(EXTERN, &["-Llib", "-lanswer"]);
}

#[test]
fn an_archive_of_a_link_attribute() {
    let main = |kind: &str| format!("#[link(name = \"answer\"{kind})]\n{EXTERN}");
    check_archive(&main(", kind = \"static\""), &["-L", "native=lib"]);
    check_archive(&main(""), &["-L", "native=lib"]);
}

#[test]
fn an_archive_given_as_a_link_argument() {
    check_archive(EXTERN, &["-Clink-arg=lib/libanswer.a"]);
    check_archive(EXTERN, &["-Clink-args=-Llib -lanswer"]);
}

/// An archive that appears in a directory that is searched earlier.
#[test]
fn an_archive_that_appears_earlier() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", EXTERN).write("late/libanswer.a", archive(&world, 1));
    std::fs::create_dir(project.at("early")).unwrap();
    let a = State::prints("1").absent("early/libanswer.a");
    let b = State::prints("2").file("early/libanswer.a", archive(&world, 2));
    let args = ["-Lnative=early", "-Lnative=late", "-lstatic=answer"];
    Change::rustc(&world, &project, &args).check(&a, &b);
}

/// `app` uses `mid` uses `low`, which bundles an archive that its build script names.
#[test]
fn an_archive_bundled_in_a_transitive_crate() {
    let world = world!();
    let project = samples::chain(&world, "app", "low::n()");
    project.write(
        "low/src/lib.rs",
        "extern \"C\" { fn answer() -> i32; }\npub fn n() -> i32 { unsafe { answer() } }\n",
    );
    project.write(
        "low/build.rs",
        "fn main() {\n    let here = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n    \
         println!(\"cargo::rustc-link-search=native={here}/lib\\ncargo::rustc-link-lib=static=answer\");\n}\n",
    );
    let state =
        |n: u32| State::prints(&n.to_string()).file("low/lib/libanswer.a", archive(&world, n));
    Change::cargo(&world, &project).watch(&["low", "app"]).check(&state(1), &state(2));
}

const SYMBOL: &str = "extern \"C\" { static kt_value: u8; }\nfn main() { println!(\"{}\", &raw const kt_value as usize); }\n";

/// A program that prints the address of `kt_value`, which the linker is told.
fn check_symbol(args: &[&str], state: impl Fn(&World, &Project, u32) -> State) {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", SYMBOL);
    let args: Vec<&str> = args.iter().copied().chain(["-Crelocation-model=static"]).collect();
    let (a, b) = (state(&world, &project, 1), state(&world, &project, 2));
    Change::rustc(&world, &project, &args).check(&a, &b);
}

fn prints(n: u32) -> State {
    State::prints(&n.to_string())
}

#[test]
fn a_linker_script() {
    let script = |n: u32| format!("kt_value = {n};\n");
    check_symbol(&["-Clink-arg=kt.ld"], |_, _, n| prints(n).file("kt.ld", script(n)));
    let inserted = |n: u32| {
        format!("SECTIONS {{ .kt : {{ QUAD({n}) }} }} INSERT AFTER .data;\nkt_value = {n};\n")
    };
    check_symbol(&["-Clink-arg=-Wl,-Tkt.ld"], |_, _, n| prints(n).file("kt.ld", inserted(n)));
    check_symbol(&["-Clink-args=-Wl,-T -Wl,kt.ld"], |_, _, n| prints(n).file("kt.ld", inserted(n)));
}

#[test]
fn a_version_script_and_a_dynamic_list() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "#[no_mangle]\npub extern \"C\" fn kt_one() {}\n#[no_mangle]\npub extern \"C\" fn kt_two() {}\nfn main() { println!(\"42\"); }\n");
    for flag in ["--version-script", "--dynamic-list"] {
        let list = |name: &str| match flag {
            "--dynamic-list" => format!("{{ {name}; }};\n"),
            _ => format!("KT_{name} {{ global: {name}; local: *; }};\n"),
        };
        let state = |name: &str| State::prints("42").file("list", list(name));
        let argument = format!("-Clink-arg=-Wl,{flag}=list");
        Change::rustc(&world, &project, &[&argument]).check(&state("kt_one"), &state("kt_two"));
    }
}

fn script(world: &World, path: PathBuf, content: &str) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{content}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(path.starts_with(world.root()));
    path.parent().unwrap().to_owned()
}

const CC: &str = "exec /usr/bin/cc \"$@\" -Wl,--defsym,kt_value=";

#[test]
fn another_linker_found_through_path() {
    check_symbol(&[], |world, _, n| {
        let dir = script(world, world.at(&format!("path{n}/cc")), &format!("{CC}{n}"));
        prints(n).path_first(dir)
    });
    check_symbol(&["-Clinker=kt-cc"], |world, _, n| {
        let dir = script(world, world.at(&format!("path{n}/kt-cc")), &format!("{CC}{n}"));
        prints(n).path_first(dir)
    });
}

/// The program at the same place has other bytes.
#[test]
fn the_content_of_a_linker() {
    for linker in ["./kt-cc", "sub/kt-cc"] {
        let world = world!();
        let project = world.project("x");
        project.write("main.rs", SYMBOL);
        let argument = format!("-Clinker={linker}");
        let change = Change::rustc(&world, &project, &[&argument, "-Crelocation-model=static"]);
        for n in [1, 2, 1] {
            script(&world, project.at(linker), &format!("{CC}{n}"));
            change.build(&prints(n));
        }
        script(&world, project.at(linker), &format!("{CC}2"));
        world.assert_all_hit(&change.build(&prints(2)));
    }
}

/// A linker that is a script may read anything: a file, a variable, through other programs.
#[test]
fn what_a_script_in_place_of_the_linker_reads() {
    for (text, variable) in [("$(cat flags)", false), ("$(printenv KT_VALUE)", true)] {
        check_symbol(&["-Clinker=kt-cc"], |world, _, n| {
            let dir = script(world, world.at("path/kt-cc"), &format!("{CC}{text}"));
            let value = if variable { n.to_string() } else { "0".to_owned() };
            prints(n).path_first(dir).file("flags", n.to_string()).env("KT_VALUE", &value)
        });
    }
}

/// A linker that appears earlier in `PATH` than the one that was used.
#[test]
fn a_linker_that_appears_earlier_in_path() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", SYMBOL);
    let late = script(&world, world.at("late/kt-cc"), &format!("{CC}1"));
    let early = world.at("early");
    std::fs::create_dir(&early).unwrap();
    let args = [
        "--crate-name=app",
        "--edition=2021",
        "-Clinker=kt-cc",
        "-Crelocation-model=static",
        "-o",
        "app",
        "main.rs",
    ];
    let build = || {
        let done = world.rustc(&project, &args).path_first(&late).path_first(&early).run().ok();
        (done, world.call(project.at("app"), project.dir(), &[]).run().ok().stdout)
    };
    assert_eq!(build().1, "1\n");
    script(&world, early.join("kt-cc"), &format!("{CC}2"));
    assert_eq!(build().1, "2\n");
    std::fs::remove_file(early.join("kt-cc")).unwrap();
    let (done, printed) = build();
    assert_eq!(printed, "1\n");
    world.assert_all_hit(&done);
}

#[test]
fn the_linker_behind_the_compiler() {
    let ld = |n: u32| format!("exec /usr/bin/ld \"$@\" --defsym kt_value={n}");
    // Given by a variable.
    check_symbol(&[SYSTEM_LD], |world, _, n| {
        let dir = script(world, world.at(&format!("ld{n}/ld")), &ld(n));
        prints(n).env("COMPILER_PATH", dir.to_str().unwrap())
    });
    // Given by an argument.
    check_symbol(&[SYSTEM_LD], |world, _, n| {
        let dir = script(world, world.at(&format!("ld{n}/ld")), &ld(n));
        prints(n).arg(&format!("-Clink-arg=-B{}", dir.display()))
    });
}

/// rustc brings a linker of its own and uses it by default; this turns it off.
const SYSTEM_LD: &str = "-Clinker-features=-lld";

/// The linker behind the compiler, at the same place with other bytes.
#[test]
fn the_content_of_the_linker_behind_the_compiler() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", SYMBOL);
    let change = Change::rustc(&world, &project, &["-Crelocation-model=static", SYSTEM_LD]);
    for n in [1, 2, 1, 2] {
        let ld = format!("exec /usr/bin/ld \"$@\" --defsym kt_value={n}");
        let dir = script(&world, world.at("ld/ld"), &ld);
        change.build(&prints(n).env("COMPILER_PATH", dir.to_str().unwrap()));
    }
}

#[test]
fn libraries_found_by_a_variable() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", EXTERN);
    for n in [1, 2] {
        project.write(&format!("{n}/libanswer.a"), archive(&world, n));
    }
    let change = Change::rustc(&world, &project, &["-lanswer"]);
    let state = |n: u32| prints(n).env("LIBRARY_PATH", &project.text(&n.to_string()));
    change.check(&state(1), &state(2));
    // The same value, another archive.
    let same = |n: u32| {
        prints(n)
            .env("LIBRARY_PATH", &project.text("same"))
            .file("same/libanswer.a", archive(&world, n))
    };
    for n in [1, 2, 1] {
        change.build(&same(n));
    }
    // One appears in a directory that was there before.
    let both = format!("{}:{}", project.text("new"), project.text("1"));
    std::fs::create_dir(project.at("new")).unwrap();
    let a = prints(1).env("LIBRARY_PATH", &both).absent("new/libanswer.a");
    let b = prints(2).env("LIBRARY_PATH", &both).file("new/libanswer.a", archive(&world, 2));
    change.check(&a, &b);
}

#[test]
fn the_run_path_of_a_variable() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn main() { println!(\"42\"); }\n");
    let change = Change::rustc(&world, &project, &[SYSTEM_LD]);
    let state = |dir: &str| State::prints("42").env("LD_RUN_PATH", dir);
    for dir in ["/kt/one", "/kt/two", "/kt/one"] {
        change.build(&state(dir));
        let program = project.read("target/app");
        assert!(program.windows(dir.len()).any(|w| w == dir.as_bytes()), "{dir}");
    }
    world.assert_all_hit(&change.build(&state("/kt/two")));
}

/// A shared library: its presence and symbols decide whether the link succeeds.
#[test]
fn a_shared_library() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", EXTERN);
    let shared = |name: &str| {
        let scratch = world.project("so");
        scratch.write("a.c", format!("int {name}(void) {{ return 1; }}\n"));
        world
            .call("/usr/bin/cc", scratch.dir(), &["-shared", "-fPIC", "a.c", "-o", "a.so"])
            .run()
            .ok();
        scratch.read("a.so")
    };
    let a = State::builds().file("lib/libanswer.so", shared("answer"));
    let b = State::fails("answer").file("lib/libanswer.so", shared("other"));
    Change::rustc(&world, &project, &["-Llib", "-lanswer"]).check(&a, &b);
}
