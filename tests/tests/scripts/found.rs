//! Ways by which a build script's run was answered with something stale, or changed, each found by trying.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;

use kiln_tests::direct::With;
use kiln_tests::script::Scripted;
use kiln_tests::{scripts, world};

fn one(p: &Scripted) {
    p.write("pk/data/n", "one");
}

fn two(p: &Scripted) {
    p.write("pk/data/n", "two");
}

/// A tool that can be run, or not.
fn tool(p: &Scripted, mode: u32) {
    p.write("pk/data/tool", "#!/bin/sh\necho ran\n");
    let path = p.project.at("pk/data/tool");
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

scripts! {
    a_link_that_comes_and_goes: Perhaps,
        "std::os::unix::fs::symlink(at(\"data\"), out(\"l\")).unwrap(); let text = read(out(\"l/n\")); \
         fs::remove_file(out(\"l\")).unwrap(); text", one, two;
    a_link_that_comes_and_goes_elsewhere: Perhaps,
        "let l = std::env::temp_dir().join(format!(\"l{}\", std::process::id())); \
         std::os::unix::fs::symlink(at(\"data\"), &l).unwrap(); let text = read(l.join(\"n\")); \
         fs::remove_file(l).unwrap(); text", one, two;
    a_link_that_becomes_a_file: Perhaps,
        "std::os::unix::fs::symlink(at(\"data/n\"), out(\"l\")).unwrap(); let text = read(out(\"l\")); \
         fs::write(out(\"f\"), \"\").unwrap(); fs::rename(out(\"f\"), out(\"l\")).unwrap(); text", one, two;
    what_is_written_through_a_link_that_goes: Refused("writes-outside"),
        "std::os::unix::fs::symlink(at(\"data\"), out(\"l\")).unwrap(); fs::write(out(\"l/made\"), \"x\").unwrap(); \
         fs::remove_file(out(\"l\")).unwrap(); read(\"data/n\")", one, two;
    a_link_out_of_its_directory: Everywhere,
        "std::os::unix::fs::symlink(\"/etc/hostname\", out(\"l\")).unwrap(); read(\"data/n\")", one, two;
    its_directory_becomes_a_link: Perhaps,
        "fs::remove_dir(out(\"\")).unwrap(); std::os::unix::fs::symlink(at(\"data\"), var(\"OUT_DIR\")).unwrap(); \
         read(out(\"n\"))", one, two;
    a_way_through_an_open_directory: Perhaps,
        "use std::os::fd::AsRawFd; let dir = File::open(\"data\").unwrap(); \
         read(format!(\"/proc/self/fd/{}/n\", dir.as_raw_fd()))", one, two;
    a_way_through_its_working_directory: Perhaps, "read(\"/proc/self/cwd/data/n\")", one, two;
    a_tool_that_appears_in_another_directory: Perhaps,
        "match Command::new(\"./tool\").current_dir(\"data\").output() { \
         Ok(o) => String::from_utf8(o.stdout).unwrap(), Err(_) => \"none\".into() }",
        one, |p| { one(p); tool(p, 0o755); };
    a_tool_that_cannot_be_run_yet: Everywhere,
        "match Command::new(at(\"data/tool\")).output() { \
         Ok(o) => String::from_utf8(o.stdout).unwrap(), Err(_) => \"none\".into() }",
        |p| tool(p, 0o644), |p| tool(p, 0o755);
    whether_a_file_may_be_run: Everywhere, "sh(\"if [ -x data/tool ]; then echo yes; else echo no; fi\")",
        |p| tool(p, 0o644), |p| tool(p, 0o755);
    text_that_looks_like_a_place: Everywhere,
        "println!(\"cargo:warning=/kiln/package/x\"); read(\"data/n\")", one, two;
    /// What goes on when the script has ended is not waited for.
    a_program_that_goes_on: Refused("not-observed"),
        "Command::new(\"sleep\").arg(\"60\").stdout(std::process::Stdio::null()) \
         .stderr(std::process::Stdio::null()).spawn().unwrap(); read(\"data/n\")", one, two;
    /// In another checkout it is another file.
    a_file_above_all_checkouts: Here,
        "fs::read_to_string(at(\"\").ancestors().nth(3).unwrap().join(\"outside/n\")).unwrap_or(\"none\".into())",
        |p| p.write_outside("n", "one"), |p| p.write_outside("n", "two");
    a_place_above_all_checkouts: Here,
        "at(\"\").ancestors().nth(3).unwrap().display().to_string() + &read(\"data/n\")", one, two;
    /// The name of a source, as it was given, is a file that can be opened.
    a_source_that_includes_itself: Everywhere,
        "fs::write(out(\"x.c\"), \"#ifdef TWICE\\nint x = 1;\\n#else\\n#define TWICE\\n#include __FILE__\\n#endif\\n\").unwrap(); \
         run(Command::new(\"cc\").args([\"-g\", \"-c\"]).arg(out(\"x.c\")).arg(\"-o\").arg(out(\"x.o\"))) + &read(\"data/n\")",
        one, two;
}

scripts! {
    /// Programs look at each directory on the way to where they are, for links.
    the_way_to_the_checkout: Everywhere,
        "at(\"\").ancestors().all(|dir| fs::symlink_metadata(dir).unwrap().is_dir()).to_string() + &read(\"data/n\")",
        one, two;
}

/// A directory above a checkout that a file names is there or not, wherever the checkout is.
#[test]
fn a_directory_above_that_a_file_names() {
    let code = "fs::symlink_metadata(read(\"data/place\")).is_ok().to_string()";
    let p = Scripted::new(world!(), code);
    let state = |p: &Scripted| p.write("pk/data/place", p.world.at("ws/deep").to_str().unwrap());
    state(&p);
    let deep = p.project.copy_to(p.world.at("ws/deep/er/one"));
    assert_eq!(p.build_in(With::Kiln, &deep).text, "true");
    assert_eq!(p.build_in(With::Kiln, deep.wipe()).text, "true");
    let other = deep.copy_to(p.world.at("ws/other/two"));
    std::fs::remove_dir_all(p.world.at("ws/deep")).unwrap();
    assert_eq!(p.build_in(With::Kiln, &other).text, "false", "{}", p.why());
}

/// The same way with a link on it.
#[test]
fn a_link_on_the_way_to_the_checkout() {
    let code =
        "at(\"\").ancestors().all(|dir| fs::symlink_metadata(dir).unwrap().is_dir()).to_string()";
    let p = Scripted::new(world!(), code);
    let straight = p.project.copy_to(p.world.at("ws/deep/er/one"));
    assert_eq!(p.build_in(With::Kiln, &straight).text, "true");
    std::os::unix::fs::symlink(p.world.at("ws/deep"), p.world.at("ws/link")).unwrap();
    let manifest = p.world.at("ws/link/er/one/Cargo.toml");
    let linked = straight.copy_to(p.world.at("ws/deep/er/two"));
    let args = ["build", "-q", "--manifest-path", manifest.to_str().unwrap()];
    straight.wipe();
    p.cargo(With::Kiln, &linked, &args).run().ok();
    assert_eq!(p.prints(&straight), "false", "{}", p.why());
}

/// A profile that inherits all of another one differs from it but by the place of OUT_DIR.
#[test]
fn the_profile_by_its_place() {
    let p = Scripted::new(
        world!(),
        "out(\"\").ancestors().nth(3).unwrap().file_name().unwrap().to_str().unwrap().to_owned()",
    );
    let manifest = String::from_utf8(p.project.read("Cargo.toml")).unwrap();
    p.write("Cargo.toml", format!("{manifest}\n[profile.ci]\ninherits = \"dev\"\n"));
    let shown = |args: &[&str]| {
        let done = p.world.cargo(&p.project, &[&["run", "-q"], args].concat()).run().ok();
        done.stdout
    };
    assert_eq!(shown(&[]), "debug");
    assert_eq!(shown(&["--profile", "ci"]), "ci");
}
