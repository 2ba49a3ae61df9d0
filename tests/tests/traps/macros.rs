//! Theme: what procedural macros read by themselves. Each trap is tried with observation and, where that
//! can be right, without.
//!
//! Without observation the workspace and cargo's variables stand for what is read. What lies elsewhere
//! is out of its reach: files outside of the workspace, `.git`, variables that are not cargo's, the
//! place of a link's target. Those traps are `observed` alone: they are the known limits of
//! `KILN_OBSERVE=off`.
//!
//! No inputs in any way, and so not among the traps: times of files, the clock, randomness, the network,
//! the size and the name of the machine, extended attributes, the compiler's own arguments
//! (`std::env::args`), and the length alone of what `Span::local_file` tells of a crate outside of the
//! workspace. A macro that looks for the next function of a name behind the observer (`RTLD_NEXT`), or
//! whose libc is not the compiler's, hides on purpose.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_tests::project::copy_tree;
use kiln_tests::trap::{Place, SHOW, Stored, Way};
use kiln_tests::{traps, world};

fn one(p: &Place) {
    p.write("ws/pk/data/n", "one");
}

fn two(p: &Place) {
    p.write("ws/pk/data/n", "two");
}

// Files ----------------------------------------------------------------------------------------

traps! {
    a_hidden_file: both Yes "read(at(\"data/n\"))", one, two;
    a_file_that_appears: both Yes
        "fs::read_to_string(at(\"data/n\")).unwrap_or(\"none\".into())",
        |p| p.remove("ws/pk/data/n"), two;
    a_directory_that_appears: both Yes "at(\"data\").is_dir().to_string()",
        |p| p.remove("ws/pk/data"), |p| p.dir("ws/pk/data");
    an_earlier_file_that_fails: both Yes
        "fs::read_to_string(at(\"first\")).or_else(|_| fs::read_to_string(at(\"data/n\"))).unwrap()",
        |p| { one(p); p.remove("ws/pk/first"); }, |p| { one(p); p.write("ws/pk/first", "two"); };
    whether_a_file_is_there: both Yes "at(\"data/n\").exists().to_string()",
        one, |p| p.remove("ws/pk/data/n");
    the_length_of_a_file: both Yes "fs::metadata(at(\"data/n\")).unwrap().len().to_string()",
        one, |p| p.write("ws/pk/data/n", "three");
    a_file_that_becomes_a_directory: both Yes "at(\"data/n\").is_dir().to_string()",
        one, |p| p.dir("ws/pk/data/n");
    whether_a_file_can_be_run: both Yes
        "use std::os::unix::fs::PermissionsExt; \
         (fs::metadata(at(\"data/n\")).unwrap().permissions().mode() & 0o111).to_string()",
        |p| { one(p); mode(p, "ws/pk/data/n", 0o644); },
        |p| { one(p); mode(p, "ws/pk/data/n", 0o755); };
    /// By the descriptor of a file that is open.
    whether_an_open_file_can_be_run: both Yes
        "use std::os::unix::fs::PermissionsExt; \
         (File::open(at(\"data/n\")).unwrap().metadata().unwrap().permissions().mode() & 0o111).to_string()",
        |p| { one(p); mode(p, "ws/pk/data/n", 0o644); },
        |p| { one(p); mode(p, "ws/pk/data/n", 0o755); };
    a_file_that_lets_the_macro_panic: both Yes
        "assert_eq!(read(at(\"data/n\")), \"one\", \"not one\"); \"ok\".into()", one, two;
    a_file_in_a_name_of_two_lines: both Yes "read(at(\"data/a\\nb\"))",
        |p| p.write("ws/pk/data/a\nb", "one"), |p| p.write("ws/pk/data/a\nb", "two");
    a_name_that_is_no_text: both Perhaps
        "use std::os::unix::ffi::OsStrExt; read(at(\"data\").join(std::ffi::OsStr::from_bytes(b\"a\\xff\")))",
        |p| odd(p, "one"), |p| odd(p, "two");
    an_absent_name_that_is_no_text: both Perhaps
        "use std::os::unix::ffi::OsStrExt; at(\"data\").join(std::ffi::OsStr::from_bytes(b\"a\\xff\")).exists().to_string()",
        |p| p.remove("ws/pk/data"), |p| odd(p, "two");
    a_file_beside_the_package: both Yes "read(beside(\"other/n\"))",
        |p| p.write("ws/other/n", "one"), |p| p.write("ws/other/n", "two");
    a_file_outside_of_the_workspace: observed Yes "read(outside(\"n\"))",
        |p| p.write("outside/n", "one"), |p| p.write("outside/n", "two");
    a_file_in_the_home: observed Yes "read(std::env::var(\"HOME\").unwrap() + \"/n\")",
        |p| std::fs::write(p.desk.world.at("home/n"), "one").unwrap(),
        |p| std::fs::write(p.desk.world.at("home/n"), "two").unwrap();
    the_repository: observed Yes "read(beside(\".git/HEAD\"))",
        |p| p.write("ws/.git/HEAD", "ref: one"), |p| p.write("ws/.git/HEAD", "ref: two");
    a_repository_that_appears: observed Yes "beside(\".git\").exists().to_string()",
        |p| p.remove("ws/.git"), |p| p.dir("ws/.git");
    a_file_in_a_target_directory: observed Yes "read(beside(\"target/n\"))",
        |p| target(p, "one"), |p| target(p, "two");
}

fn mode(p: &Place, path: &str, mode: u32) {
    std::fs::set_permissions(p.at(path), PermissionsExt::from_mode(mode)).unwrap();
}

fn odd(p: &Place, text: &str) {
    p.dir("ws/pk/data");
    let name = Path::new(std::ffi::OsStr::from_bytes(b"a\xff"));
    std::fs::write(p.at("ws/pk/data").join(name), text).unwrap();
}

fn target(p: &Place, text: &str) {
    p.write("ws/target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    p.write("ws/target/n", text);
}

// Listings and links ---------------------------------------------------------------------------

const WALK: &str = "fn walk(dir: &Path, found: &mut Vec<String>) { \
     for entry in fs::read_dir(dir).unwrap() { let entry = entry.unwrap(); \
     found.push(entry.file_name().into_string().unwrap()); \
     if entry.file_type().unwrap().is_dir() { walk(&entry.path(), found) } } } \
     let mut found = Vec::new(); walk(&at(\"data\"), &mut found); found.sort(); found.join(\" \")";

traps! {
    a_listing: both Yes "fs::read_dir(at(\"data\")).unwrap().count().to_string()",
        |p| { one(p); p.remove("ws/pk/data/o"); }, |p| { one(p); p.write("ws/pk/data/o", ""); };
    a_listing_of_listings: both Yes WALK,
        |p| { p.write("ws/pk/data/a/b/c", ""); p.remove("ws/pk/data/a/b/d"); },
        |p| { p.write("ws/pk/data/a/b/c", ""); p.write("ws/pk/data/a/b/d", ""); };
    /// A name stays, what it names does not.
    the_kinds_in_a_listing: both Yes
        "fs::read_dir(at(\"data\")).unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir()).count().to_string()",
        one, |p| p.dir("ws/pk/data/n");
    a_name_that_changes: both Yes WALK,
        |p| { p.dir("ws/pk/data"); p.write("ws/pk/data/a", ""); },
        |p| { p.dir("ws/pk/data"); p.write("ws/pk/data/b", ""); };
    a_listing_outside_of_the_workspace: observed Yes
        "fs::read_dir(outside(\"\")).unwrap().count().to_string()",
        |p| p.remove("outside/n"), |p| p.write("outside/n", "");
    a_link_that_leads_to_another_file: both Yes "read(at(\"link\"))",
        |p| { one(p); p.link("ws/pk/link", "data/n"); },
        |p| { p.write("ws/pk/data/m", "two"); p.link("ws/pk/link", "data/m"); };
    /// The two files hold the same.
    where_a_link_leads: both Yes "fs::read_link(at(\"link\")).unwrap().display().to_string()",
        |p| { one(p); p.link("ws/pk/link", "data/n"); },
        |p| { p.write("ws/pk/data/m", "one"); p.link("ws/pk/link", "data/m"); };
    a_link_that_leads_to_another_directory: both Yes "read(at(\"link/n\"))",
        |p| { one(p); p.link("ws/pk/link", "data"); },
        |p| { p.write("ws/pk/other/n", "two"); p.link("ws/pk/link", "other"); };
    a_link_that_leads_out_of_the_workspace: observed Yes "read(at(\"link/n\"))",
        |p| { p.write("outside/n", "one"); p.link("ws/pk/link", "../../outside"); },
        |p| p.write("outside/n", "two");
    a_file_that_becomes_a_link: both Yes
        "fs::symlink_metadata(at(\"data/n\")).unwrap().is_symlink().to_string()",
        one, |p| { p.write("ws/pk/data/m", "one"); p.link("ws/pk/data/n", "m"); };
    a_link_that_leads_nowhere: both Yes "fs::read_to_string(at(\"link\")).is_ok().to_string()",
        |p| { one(p); p.link("ws/pk/link", "data/n"); }, |p| p.link("ws/pk/link", "data/none");
    a_place_behind_a_link: both Yes
        "fs::canonicalize(at(\"link\")).unwrap().file_name().unwrap().to_str().unwrap().into()",
        |p| { one(p); p.link("ws/pk/link", "data/n"); },
        |p| { p.write("ws/pk/data/m", "one"); p.link("ws/pk/link", "data/m"); };
    a_place_behind_a_link_outside: observed Yes
        "fs::canonicalize(outside(\"link\")).unwrap().file_name().unwrap().to_str().unwrap().into()",
        |p| { p.write("outside/a", ""); p.link("outside/link", "a"); },
        |p| { p.write("outside/b", ""); p.link("outside/link", "b"); };
}

// Variables ------------------------------------------------------------------------------------

const SHOWN: &str = "format!(\"{:?}\", std::env::var_os(\"KT_VALUE\"))";

fn unset(p: &Place) {
    p.unset("KT_VALUE");
}

fn empty(p: &Place) {
    p.set("KT_VALUE", "");
}

fn set(p: &Place) {
    p.set("KT_VALUE", "one");
}

fn other(p: &Place) {
    p.set("KT_VALUE", "other");
}

traps! {
    a_variable_that_is_set: observed Yes SHOWN, unset, set;
    a_variable_that_becomes_empty: observed Yes SHOWN, unset, empty;
    an_empty_variable_that_is_filled: observed Yes SHOWN, empty, set;
    a_variable_that_changes: observed Yes SHOWN, set, other;
    all_variables: observed Yes
        "std::env::vars().filter(|(n, _)| n == \"KT_VALUE\").count().to_string()", unset, set;
    all_variables_by_a_name_of_libc: observed Yes
        "extern \"C\" { static environ: *const *const std::ffi::c_char; } \
         unsafe { let mut n = 0; while !(*environ.add(n)).is_null() { n += 1; } n.to_string() }", unset, set;
    all_variables_by_a_lookup: observed Yes
        "extern \"C\" { fn dlsym(h: usize, n: *const std::ffi::c_char) -> *const *const *const std::ffi::c_char; } \
         unsafe { let e = *dlsym(0, c\"environ\".as_ptr()); let mut n = 0; \
         while !(*e.add(n)).is_null() { n += 1; } n.to_string() }", unset, set;
    all_variables_as_the_kernel_has_them: observed Perhaps
        "fs::read(\"/proc/self/environ\").unwrap().windows(9).filter(|w| w == b\"KT_VALUE=\").count().to_string()",
        unset, set;
    a_variable_of_cargo: both Yes "std::env::var(\"CARGO_PKG_DESCRIPTION\").unwrap_or_default()",
        |p| p.set("CARGO_PKG_DESCRIPTION", "one"), |p| p.set("CARGO_PKG_DESCRIPTION", "two");
    /// libc reads the variable by itself.
    the_time_zone: observed Yes
        "extern \"C\" { fn localtime_r(t: *const i64, tm: *mut [u64; 8]) -> usize; } \
         let mut tm = [0; 8]; unsafe { localtime_r(&0, &mut tm); } format!(\"{:x?}\", &tm[..5])",
        |p| p.set("TZ", "UTC0"), |p| p.set("TZ", "UTC+9");
    the_directory_of_temporary_files: observed Yes "std::env::temp_dir().display().to_string()",
        |p| p.set("TMPDIR", "/tmp"), |p| p.set("TMPDIR", "/var/tmp");
}

// Places ---------------------------------------------------------------------------------------

const SOURCE: &str = "pk/src/main.rs";

/// A macro that has the place of a file in its code reads there, wherever it is used.
#[test]
fn a_file_of_another_checkout() {
    let place = Place::new(world!(), Way::Observed, "String::new()", SHOW);
    let code = format!("fn value() -> String {{ read({:?}) }}", place.desk.text("ws/pk/data/n"));
    place.make_macro("", &code);
    one(&place);
    assert_eq!(place.same("the first checkout"), "one");
    let second = place.at("second");
    copy_tree(&place.at("ws"), &second, &[]);
    two(&place);
    assert_eq!(place.same_in(&second, Path::new(SOURCE)), "two");
}

/// What depends on where a checkout is, and leaves no place in the output.
#[test]
fn lengths_of_places() {
    for code in [
        "std::env::current_dir().unwrap().to_str().unwrap().len().to_string()",
        "fs::canonicalize(\"pk/src/main.rs\").unwrap().to_str().unwrap().len().to_string()",
        "fs::canonicalize(\"pk/../pk/src\").unwrap().components().count().to_string()",
        "at(\"x\").to_str().unwrap().len().to_string()",
        "std::path::absolute(\"pk\").unwrap().to_str().unwrap().len().to_string()",
        "fs::read_link(\"/proc/self/cwd\").unwrap().to_str().unwrap().len().to_string()",
        "let o = std::process::Command::new(\"pwd\").output().unwrap(); o.stdout.len().to_string()",
        "let o = std::process::Command::new(\"sh\").args([\"-c\", \"cd pk; pwd | wc -c\"]).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()",
    ] {
        let place = Place::new(world!(), Way::Observed, code, SHOW);
        let first = place.same("the first checkout");
        let second = place.at("another/place");
        copy_tree(&place.at("ws"), &second, &[]);
        assert_ne!(place.same_in(&second, Path::new(SOURCE)), first, "{code}");
        assert_eq!(place.same("the first checkout"), first, "{code}");
    }
}

/// The same with a home and a directory of temporary files.
#[test]
fn a_file_of_another_home() {
    for variable in ["HOME", "TMPDIR"] {
        let place = Place::new(world!(), Way::Observed, "read(outside(\"home/n\"))", SHOW);
        place.write("outside/home/n", "one");
        place.write("outside/other/n", "one");
        place.set(variable, &place.desk.text("outside/home"));
        assert_eq!(place.same("the first home"), "one");
        place.set(variable, &place.desk.text("outside/other"));
        place.write("outside/home/n", "two");
        assert_eq!(place.same("another home"), "two", "{variable}");
    }
}

/// The compiler tells macros where a source is. (Its length alone leaves no trace: a known limit.)
#[test]
fn the_place_of_a_source() {
    let code = "proc_macro::Span::call_site().local_file().unwrap().to_str().unwrap().into()";
    let place = Place::new(world!(), Way::Observed, code, SHOW);
    let build = |home: &str| {
        let dir = place.at(home).join("registry/src/index");
        copy_tree(&place.at("ws"), &dir, &[]);
        place.set("CARGO_HOME", &place.desk.text(home));
        place.same_in(&dir, &dir.join(SOURCE))
    };
    assert_ne!(build("cargo"), build("another/cargo/home"));
    assert_ne!(build("cargo"), build("another/cargo/home"));
}

/// The whole libc of the macro is that of the compiler's own libraries.
#[test]
fn all_variables_of_a_macro_with_a_shared_standard_library() {
    let code = "std::env::vars().filter(|(n, _)| n == \"KT_VALUE\").count().to_string()";
    let place = Place::new(world!(), Way::Observed, code, SHOW);
    let items = format!("fn value() -> String {{ {code} }}");
    place.make_macro("-Cprefer-dynamic", &items);
    place.check(Stored::Yes, unset, set);
}

#[test]
fn a_file_of_a_macro_with_a_shared_standard_library() {
    let code = "read(outside(\"n\"))";
    let place = Place::new(world!(), Way::Observed, code, SHOW);
    place.make_macro("-Cprefer-dynamic", &format!("fn value() -> String {{ {code} }}"));
    place.check(Stored::Yes, |p| p.write("outside/n", "one"), |p| p.write("outside/n", "two"));
}
