//! Theme: ways by which a procedural macro once got a stale result past observation, or was disturbed by
//! it. Each is named after what it did.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::With;
use kiln_tests::trap::{Place, SHOW, Way};
use kiln_tests::{skip, traps, world};

fn out_one(p: &Place) {
    p.write("outside/n", "one");
}

fn out_two(p: &Place) {
    p.write("outside/n", "two");
}

traps! {
    /// What lies behind a link was not made by the run that made the link.
    a_directory_of_links_that_it_made: observed Perhaps
        "let d = std::env::temp_dir().join(format!(\"kt-links-{}\", std::process::id())); \
         std::fs::create_dir_all(&d).unwrap(); \
         std::os::unix::fs::symlink(outside(\"n\"), d.join(\"in\")).unwrap(); \
         let text = std::fs::read_to_string(d.join(\"in\")).unwrap(); \
         std::fs::remove_dir_all(&d).unwrap(); text", out_one, out_two;
    /// By a path that is relative to the directory it is started in.
    a_program_by_a_relative_path: observed Perhaps
        "let o = std::process::Command::new(\"./tool\").current_dir(outside(\"\")).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()",
        |p| { p.desk.script("outside/tool", "echo one"); },
        |p| { p.desk.script("outside/tool", "echo two"); };
    /// A name that no environment holds on its own; libc finds it all the same.
    a_variable_with_an_equals_sign_in_its_name: observed Perhaps
        "extern \"C\" { fn getenv(n: *const std::ffi::c_char) -> *const std::ffi::c_char; } \
         let value = unsafe { getenv(c\"KT_A=KT_B\".as_ptr()) }; \
         if value.is_null() { \"none\".into() } \
         else { unsafe { std::ffi::CStr::from_ptr(value) }.to_str().unwrap().to_owned() }",
        |p| p.set("KT_A", "KT_B=one"), |p| p.set("KT_A", "KT_B=two");
    /// A project's own variable whose name begins like Kiln's.
    a_variable_that_begins_like_kilns: observed Yes
        "std::env::vars().filter(|(n, _)| n == \"KILN_APP\").map(|(_, v)| v).collect()",
        |p| p.set("KILN_APP", "one"), |p| p.set("KILN_APP", "two");
}

/// AddressSanitizer's runtime ends a program where another library was loaded before it.
#[test]
fn a_program_with_a_runtime_that_has_to_be_first() {
    let world = world!();
    let project = world.project("asan");
    project.write("a.c", "#include <stdio.h>\nint main(void) { puts(\"one\"); return 0; }\n");
    let args = ["-fsanitize=address", "a.c", "-o", "a"];
    let made = world.call("/usr/bin/cc", project.dir(), &args).run();
    if !made.status.success() {
        skip!("the C compiler has no AddressSanitizer: {}", made.stderr);
    }
    let tool = project.at("a");
    let code = format!(
        "let o = std::process::Command::new({tool:?}).output().unwrap(); \
         format!(\"{{}}{{}}\", String::from_utf8(o.stdout).unwrap(), String::from_utf8(o.stderr).unwrap())"
    );
    let place = Place::new(world, Way::Observed, &code, SHOW);
    assert_eq!(place.build(With::Kiln).0, place.build(With::Nothing).0);
    assert_eq!(place.build(With::Nothing).0, "one\n");
}
