//! Theme: how procedural macros read: by child processes, by libc, by system calls, by other libraries,
//! on other threads; and what they write.
//!
//! Where a macro starts a program, all variables are inputs: a program gets all of them. What makes its
//! system calls itself, a static program, and what libc's `system` and `popen` start is read the
//! conservative way even with observation: what that reads outside of the workspace is out of reach.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_tests::direct::{Desk, With};
use kiln_tests::trap::{Place, SHOW, Stored, Way};
use kiln_tests::{World, registry, skip, traps, world};

fn one(p: &Place) {
    p.write("ws/pk/data/n", "one");
}

fn two(p: &Place) {
    p.write("ws/pk/data/n", "two");
}

fn out_one(p: &Place) {
    p.write("outside/n", "one");
}

fn out_two(p: &Place) {
    p.write("outside/n", "two");
}

// By programs ----------------------------------------------------------------------------------

traps! {
    a_program_that_reads: both Yes
        "let o = std::process::Command::new(\"cat\").arg(at(\"data/n\")).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()", one, two;
    a_program_that_reads_elsewhere: observed Yes
        "let o = std::process::Command::new(\"/bin/cat\").arg(outside(\"n\")).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()", out_one, out_two;
    a_program_in_another_directory: observed Yes
        "let o = std::process::Command::new(\"cat\").arg(\"n\").current_dir(outside(\"\")).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()", out_one, out_two;
    a_shell: observed Yes
        "let o = std::process::Command::new(\"sh\").arg(\"-c\").arg(format!(\"cat < {}\", outside(\"n\").display())) \
         .output().unwrap(); String::from_utf8(o.stdout).unwrap()", out_one, out_two;
    /// It is forked by the shell, and starts a program itself.
    a_shell_below_a_shell: observed Yes
        "let o = std::process::Command::new(\"sh\").arg(\"-c\").arg(format!(\"(sh -c '(cat {})') | cat\", outside(\"n\").display())) \
         .output().unwrap(); String::from_utf8(o.stdout).unwrap()", out_one, out_two;
    a_script: both Yes SCRIPT, |p| script(p, "echo one"), |p| script(p, "echo two");
    what_a_script_reads: observed Yes SCRIPT,
        |p| { out_one(p); script(p, &reading(p)); }, |p| { out_two(p); script(p, &reading(p)); };
    whether_a_program_finds_a_file: observed Yes
        "std::process::Command::new(\"test\").arg(\"-e\").arg(outside(\"n\")).status().unwrap().success().to_string()",
        out_one, |p| p.remove("outside/n");
    a_variable_of_a_program: observed Yes
        "let o = std::process::Command::new(\"sh\").args([\"-c\", \"echo \\\"<$KT_VALUE>\\\"\"]).output().unwrap(); \
         String::from_utf8(o.stdout).unwrap()",
        |p| p.set("KT_VALUE", "one"), |p| p.set("KT_VALUE", "two");
    a_program_that_appears_earlier: observed Yes
        "let o = std::process::Command::new(\"kt-tool\").output(); \
         o.map_or(\"none\".into(), |o| String::from_utf8(o.stdout).unwrap())",
        |p| tools(p, "outside/a", "one"),
        |p| { tools(p, "outside/a", "one"); tool(p, "outside/b", "two"); };
    a_program_that_is_not_there: observed Yes
        "std::process::Command::new(\"kt-tool\").status().is_ok().to_string()",
        |p| tools(p, "outside/c", "one"), |p| tools(p, "outside/a", "one");
    /// By functions of libc that start a shell.
    a_shell_of_libc: both Yes
        "extern \"C\" { fn system(c: *const std::ffi::c_char) -> i32; } \
         let line = std::ffi::CString::new(format!(\"grep -q one {}\", at(\"data/n\").display())).unwrap(); \
         unsafe { system(line.as_ptr()) }.to_string()", one, two;
}

const SCRIPT: &str = "let o = std::process::Command::new(at(\"run.sh\")).output().unwrap(); \
     String::from_utf8(o.stdout).unwrap()";

fn script(p: &Place, text: &str) {
    p.desk.script("ws/pk/run.sh", text);
}

fn reading(p: &Place) -> String {
    format!(
        "while read -r line || [ -n \"$line\" ]; do echo $line; done < {}",
        p.desk.text("outside/n")
    )
}

fn tool(p: &Place, dir: &str, says: &str) {
    p.desk.script(&format!("{dir}/kt-tool"), &format!("echo {says}"));
}

/// The tool in one directory of `PATH`.
fn tools(p: &Place, dir: &str, says: &str) {
    let dirs = format!("{}:{}:/usr/bin:/bin", p.desk.text("outside/b"), p.desk.text("outside/a"));
    p.set("PATH", &dirs);
    tool(p, dir, says);
}

/// Runs something with git in the workspace.
fn git(p: &Place, args: &str) {
    let settings = "-c user.name=n -c user.email=e@example.org -c init.defaultBranch=main";
    p.desk.tool("/usr/bin/git", &p.at("ws"), &format!("{settings} {args}"));
}

const HEAD: &str = "let o = std::process::Command::new(\"git\").args([\"rev-parse\", \"HEAD\"]).current_dir(at(\"\")).output().unwrap(); \
     String::from_utf8(o.stdout).unwrap()";

#[test]
fn the_commit_that_is_checked_out() {
    if !Path::new("/usr/bin/git").exists() {
        skip!("no git");
    }
    let place = Place::new(world!(), Way::Observed, HEAD, SHOW);
    git(&place, "init -q .");
    git(&place, "commit -q --allow-empty -m one");
    let first = place.same("one commit");
    place.hits(&first);
    git(&place, "commit -q --allow-empty -m two");
    let second = place.same("another commit");
    assert_ne!(first, second);
    git(&place, "checkout -q HEAD~1");
    assert_eq!(place.same("the first again"), first);
}

/// A helper in C, compiled on the way.
fn helper(code: &str) -> impl Fn(&Desk) {
    let code = code.to_owned();
    move |desk| {
        desk.write("helper.c", &code);
        desk.tool("/usr/bin/cc", desk.project.dir(), "-O0 helper.c -o helper -ldl");
    }
}

/// A macro that shows what a program beside the workspace prints.
fn check_helper(code: &str, args: &str, way: Way) {
    let run = format!(
        "let o = std::process::Command::new(outside(\"../helper\")).arg({args}).output().unwrap(); String::from_utf8(o.stdout).unwrap()"
    );
    let place = Place::new(world!(), way, &run, SHOW);
    helper(code)(&place.desk);
    match way {
        Way::Observed => place.check(Stored::Yes, out_one, out_two),
        Way::Conservative => place.check(Stored::Yes, one, two),
    }
}

const COPIES: &str = "#include <stdio.h>\nint main(int n, char **a) { FILE *f = fopen(a[1], \"r\"); int c; while ((c = getc(f)) != EOF) putchar(c); return 0; }\n";

#[test]
fn a_compiled_program() {
    check_helper(COPIES, "outside(\"n\")", Way::Observed);
    check_helper(COPIES, "at(\"data/n\")", Way::Conservative);
}

/// It forks, and the child reads and becomes another program by each of the functions there are.
#[test]
fn a_program_that_forks() {
    for call in [
        "execl(\"/bin/cat\", \"cat\", a[1], (char *)0)",
        "execlp(\"cat\", \"cat\", a[1], (char *)0)",
        "execv(\"/bin/cat\", (char *[]){\"cat\", a[1], 0})",
        "execvp(\"cat\", (char *[]){\"cat\", a[1], 0})",
        "execle(\"/bin/cat\", \"cat\", a[1], (char *)0, (char *[]){\"X=1\", 0})",
        "execve(\"/bin/cat\", (char *[]){\"cat\", a[1], 0}, (char *[]){0})",
    ] {
        let code = format!(
            "#include <unistd.h>\n#include <sys/wait.h>\nint main(int n, char **a) {{ if (!fork()) {{ {call}; _exit(1); }} wait(0); return 0; }}\n"
        );
        check_helper(&code, "outside(\"n\")", Way::Observed);
    }
}

/// The file is opened by libc, for the program to be started.
#[test]
fn a_program_whose_input_is_opened_for_it() {
    let code = "#include <spawn.h>\n#include <fcntl.h>\n#include <sys/wait.h>\nextern char **environ;\n\
         int main(int n, char **a) { posix_spawn_file_actions_t f; posix_spawn_file_actions_init(&f); \
         posix_spawn_file_actions_addopen(&f, 0, a[1], O_RDONLY, 0); pid_t p; \
         posix_spawn(&p, \"/bin/cat\", &f, 0, (char *[]){\"cat\", 0}, environ); waitpid(p, 0, 0); return 0; }\n";
    check_helper(code, "outside(\"n\")", Way::Observed);
}

/// It does not take the library: the conservative way is right in the workspace.
#[test]
fn a_static_program() {
    for way in [Way::Observed, Way::Conservative] {
        let run = "let o = std::process::Command::new(outside(\"../helper\")).arg(at(\"data/n\")).output().unwrap(); \
             String::from_utf8(o.stdout).unwrap()";
        let place = Place::new(world!(), way, run, SHOW);
        place.desk.write("helper.c", COPIES);
        let call = ["-static", "helper.c", "-o", "helper"];
        let made = place.desk.world.call("/usr/bin/cc", place.project().dir(), &call).run();
        if !made.status.success() {
            skip!("no static libc");
        }
        place.check(Stored::Yes, one, two);
    }
}

#[test]
fn a_program_that_is_another_language() {
    let Some(python) =
        ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|p| Path::new(p).exists())
    else {
        skip!("no python3");
    };
    let code = format!(
        "let o = std::process::Command::new(\"{python}\").arg(\"-c\").arg(format!(\"print(open('{{}}').read())\", outside(\"n\").display())).output().unwrap(); String::from_utf8(o.stdout).unwrap()"
    );
    // Python writes caches of its modules where it may.
    Place::new(world!(), Way::Observed, &code, SHOW).check(Stored::Perhaps, out_one, out_two);
}

// By libc and the kernel -----------------------------------------------------------------------

const LIBC_OPEN: &str = "extern \"C\" { fn open(p: *const std::ffi::c_char, f: i32, ...) -> i32; } \
     use std::os::fd::FromRawFd; let p = c(PATH); \
     let mut f = unsafe { File::from_raw_fd(open(p.as_ptr(), 0)) }; \
     let mut s = String::new(); f.read_to_string(&mut s).unwrap(); s";
const LIBC_FOPEN: &str = "extern \"C\" { fn fopen(p: *const std::ffi::c_char, m: *const std::ffi::c_char) -> usize; fn fgetc(f: usize) -> i32; } \
     let p = c(PATH); let f = unsafe { fopen(p.as_ptr(), c\"r\".as_ptr()) }; let mut s = String::new(); \
     loop { let c = unsafe { fgetc(f) }; if c < 0 { break } s.push(c as u8 as char) } s";
const LIBC_SYSCALL: &str = "extern \"C\" { fn syscall(n: i64, ...) -> i64; } \
     use std::os::fd::FromRawFd; let p = c(PATH); \
     let n: i64 = if cfg!(target_arch = \"aarch64\") { 56 } else { 257 }; \
     let mut f = unsafe { File::from_raw_fd(syscall(n, -100i64, p.as_ptr(), 0i64, 0i64) as i32) }; \
     let mut s = String::new(); f.read_to_string(&mut s).unwrap(); s";
const MAPPED: &str = "extern \"C\" { fn mmap(a: usize, n: usize, p: i32, f: i32, d: i32, o: i64) -> *const u8; } \
     use std::os::fd::AsRawFd; let f = File::open(PATH).unwrap(); \
     let m = unsafe { std::slice::from_raw_parts(mmap(0, 3, 1, 2, f.as_raw_fd(), 0), 3) }; \
     String::from_utf8(m.to_vec()).unwrap()";
const READ_AT: &str = "use std::os::unix::fs::FileExt; let f = File::open(PATH).unwrap(); \
     let mut b = [0; 3]; f.read_exact_at(&mut b, 0).unwrap(); String::from_utf8(b.to_vec()).unwrap()";
const RELATIVE_TO_A_DIRECTORY: &str = "extern \"C\" { fn openat(d: i32, p: *const std::ffi::c_char, f: i32, ...) -> i32; } \
     use std::os::fd::{AsRawFd, FromRawFd}; let p: PathBuf = PATH; let d = File::open(p.parent().unwrap()).unwrap(); \
     let mut f = unsafe { File::from_raw_fd(openat(d.as_raw_fd(), c\"n\".as_ptr(), 0)) }; \
     let mut s = String::new(); f.read_to_string(&mut s).unwrap(); s";
const THREADS: &str = "let read = || read(PATH); \
     let all: Vec<String> = std::thread::scope(|s| { let t: Vec<_> = (0..8).map(|_| s.spawn(read)).collect(); \
     t.into_iter().map(|t| t.join().unwrap()).collect() }); all.concat()";
const AFTER_CHANGING_DIRECTORY: &str = "let p: PathBuf = PATH; let was = std::env::current_dir().unwrap(); \
     std::env::set_current_dir(p.parent().unwrap()).unwrap(); let s = read(\"n\"); std::env::set_current_dir(was).unwrap(); s";

/// One way to read, tried on a file of the package and on one elsewhere.
fn check_way_to_read(code: &str) {
    let inside = code.replace("PATH", "at(\"data/n\")");
    for way in [Way::Observed, Way::Conservative] {
        Place::new(world!(), way, &inside, SHOW).check(Stored::Yes, one, two);
    }
    let outside = code.replace("PATH", "outside(\"n\")");
    Place::new(world!(), Way::Observed, &outside, SHOW).check(Stored::Yes, out_one, out_two);
}

#[test]
fn by_open() {
    check_way_to_read(LIBC_OPEN);
}

#[test]
fn by_fopen() {
    check_way_to_read(LIBC_FOPEN);
}

#[test]
fn by_syscall() {
    check_way_to_read(LIBC_SYSCALL);
}

#[test]
fn by_a_map() {
    check_way_to_read(MAPPED);
}

#[test]
fn by_reading_at_an_offset() {
    check_way_to_read(READ_AT);
}

#[test]
fn relative_to_a_directory() {
    check_way_to_read(RELATIVE_TO_A_DIRECTORY);
}

#[test]
fn on_other_threads() {
    check_way_to_read(THREADS);
}

#[test]
fn in_another_directory() {
    check_way_to_read(AFTER_CHANGING_DIRECTORY);
}

/// Past libc, in a file of the workspace: the conservative way is right.
#[cfg(target_arch = "x86_64")]
#[test]
fn by_a_system_call_of_its_own() {
    let code = "use std::os::fd::FromRawFd; let p = c(at(\"data/n\")); let mut fd: i64; \
         unsafe { std::arch::asm!(\"syscall\", inlateout(\"rax\") 2i64 => fd, in(\"rdi\") p.as_ptr(), in(\"rsi\") 0, in(\"rdx\") 0, \
         out(\"rcx\") _, out(\"r11\") _); } \
         let mut f = unsafe { File::from_raw_fd(fd as i32) }; let mut s = String::new(); f.read_to_string(&mut s).unwrap(); s";
    for way in [Way::Observed, Way::Conservative] {
        Place::new(world!(), way, code, SHOW).check(Stored::Yes, one, two);
    }
}

// By libraries ---------------------------------------------------------------------------------

const LOADED: &str = "extern \"C\" { fn dlopen(p: *const std::ffi::c_char, f: i32) -> usize; fn dlsym(h: usize, n: *const std::ffi::c_char) -> usize; } \
     let p = c(at(\"data/lib.so\")); unsafe { let h = dlopen(p.as_ptr(), 2); \
     let f: extern \"C\" fn() -> i32 = std::mem::transmute(dlsym(h, c\"answer\".as_ptr())); f().to_string() }";

fn library(p: &Place, body: &str) {
    p.write("lib.c", format!("#include <stdio.h>\nint answer(void) {{ {body} }}\n"));
    p.desk.tool("/usr/bin/cc", p.project().dir(), "-shared -fPIC lib.c -o lib.so");
    p.write("ws/pk/data/lib.so", p.project().read("lib.so"));
}

traps! {
    a_library_that_is_loaded: both Yes LOADED,
        |p| library(p, "return 1;"), |p| library(p, "return 2;");
    what_a_loaded_library_reads: observed Yes LOADED,
        |p| { out_one(p); library(p, &counting(p)); },
        |p| { p.write("outside/n", "three"); library(p, &counting(p)); };
    a_variable_of_a_loaded_library: observed Yes LOADED,
        |p| { p.unset("KT_VALUE"); library(p, "extern char *getenv(const char *); return getenv(\"KT_VALUE\") != 0;"); },
        |p| { p.set("KT_VALUE", ""); library(p, "extern char *getenv(const char *); return getenv(\"KT_VALUE\") != 0;"); };
}

fn counting(p: &Place) -> String {
    let path = p.desk.text("outside/n");
    format!(
        "FILE *f = fopen(\"{path}\", \"r\"); int n = 0; while (getc(f) != EOF) n++; fclose(f); return n;"
    )
}

/// rustix makes its system calls itself.
fn with_rustix(world: &World, fetched: &kiln_tests::Project) -> kiln_tests::Project {
    let project = world.project("app");
    world.provide_sources(fetched);
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\n\n[workspace]\nmembers = [\"mac\"]\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", mac::show!()); }\n");
    project.write(
        "mac/Cargo.toml",
        "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\nproc-macro = true\n\n\
         [dependencies]\nrustix = { version = \"1\", features = [\"fs\"] }\n",
    );
    project.write(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn show(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         let path = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/data/n\";\n    \
         let file = rustix::fs::open(path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();\n    \
         let mut text = String::new();\n    \
         std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text).unwrap();\n    \
         format!(\"{text:?}\").parse().unwrap()\n}\n",
    );
    project
}

#[test]
fn by_rustix() {
    use kiln_tests::change::{Change, State};
    for way in ["on", "off"] {
        let world = world!();
        let fetched = match registry::macros(&world) {
            Ok(fetched) => fetched,
            Err(why) => skip!("{why}"),
        };
        let project = with_rustix(&world, fetched);
        let state = |n: &str| State::prints(n).file("data/n", n).env("KILN_OBSERVE", way);
        Change::cargo(&world, &project).check(&state("one"), &state("two"));
    }
}

// Writing --------------------------------------------------------------------------------------

traps! {
    /// What it read first is an input; what it reads afterwards is its own.
    a_file_that_is_read_and_written: both Perhaps
        "let was = read(at(\"data/n\")); fs::write(at(\"data/n\"), \"own\").unwrap(); was + &read(at(\"data/n\"))", one, two;
    a_file_that_is_written_and_read: both Perhaps
        "fs::write(at(\"made\"), read(at(\"data/n\"))).unwrap(); read(at(\"made\"))", one, two;
    a_cache_in_the_package: both Perhaps
        "fs::read_to_string(at(\"cache\")).unwrap_or_else(|_| { let s = read(at(\"data/n\")); fs::write(at(\"cache\"), &s).unwrap(); s })", one, two;
    a_cache_elsewhere: observed Perhaps
        "fs::create_dir_all(outside(\"c\")).unwrap(); \
         if let Ok(s) = fs::read_to_string(outside(\"c/cache\")) { return s } \
         fs::write(outside(\"c/cache\"), \"new\").unwrap(); read(outside(\"c/cache\"))",
        |p| p.remove("outside/c"), |p| p.write("outside/c/cache", "old");
    a_cache_whose_directory_goes: observed Perhaps
        "let new = fs::create_dir(outside(\"c\")).is_ok(); if new { fs::remove_dir(outside(\"c\")).unwrap() } new.to_string()",
        |p| p.remove("outside/c"), |p| p.dir("outside/c");
    a_file_that_must_be_new: observed Perhaps
        "let new = File::create_new(outside(\"c\")).is_ok(); if new { fs::remove_file(outside(\"c\")).unwrap() } new.to_string()",
        |p| p.remove("outside/c"), |p| p.write("outside/c", "");
    a_file_that_is_appended_to: observed Perhaps
        "File::options().append(true).create(true).open(outside(\"n\")).unwrap().write_all(b\"+\").unwrap(); read(outside(\"n\"))",
        out_one, out_two;
    a_temporary_file_that_is_appended_to: observed Perhaps
        "let p = std::env::temp_dir().join(\"n\"); \
         File::options().append(true).create(true).open(&p).unwrap().write_all(b\"+\").unwrap(); read(p)",
        |p| { temporary(p); out_one(p); }, |p| { temporary(p); out_two(p); };
    a_link_that_is_made: observed Perhaps
        "let l = outside(\"link\"); let _ = fs::remove_file(&l); std::os::unix::fs::symlink(outside(\"d\"), &l).unwrap(); \
         let s = read(l.join(\"n\")); fs::remove_file(&l).unwrap(); s",
        |p| p.write("outside/d/n", "one"), |p| p.write("outside/d/n", "two");
    a_second_name_that_is_made: observed Perhaps
        "let l = outside(\"l\"); fs::hard_link(outside(\"n\"), &l).unwrap(); let s = read(&l); fs::remove_file(&l).unwrap(); s",
        out_one, out_two;
    a_file_that_is_renamed: observed Perhaps
        "let l = outside(\"l\"); fs::rename(outside(\"n\"), &l).unwrap(); let s = read(&l); fs::rename(&l, outside(\"n\")).unwrap(); s",
        out_one, out_two;
    a_directory_that_is_renamed: observed Perhaps
        "let l = outside(\"l\"); fs::rename(outside(\"d\"), &l).unwrap(); let s = read(l.join(\"n\")); fs::rename(&l, outside(\"d\")).unwrap(); s",
        |p| p.write("outside/d/n", "one"), |p| p.write("outside/d/n", "two");
    whether_a_file_could_be_removed: observed Perhaps
        "fs::remove_file(outside(\"n\")).is_ok().to_string()", out_one, |p| p.remove("outside/n");
    whether_a_file_could_be_opened_for_writing: observed Perhaps
        "File::options().write(true).open(outside(\"n\")).is_ok().to_string()",
        |p| p.remove("outside/n"), out_one;
    whether_a_directory_could_be_entered: observed Yes
        "let was = std::env::current_dir().unwrap(); let ok = std::env::set_current_dir(outside(\"d\")).is_ok(); \
         std::env::set_current_dir(was).unwrap(); ok.to_string()",
        |p| p.remove("outside/d"), |p| p.dir("outside/d");
    a_copy_that_is_made: observed Perhaps
        "let l = outside(\"l\"); fs::copy(outside(\"n\"), &l).unwrap(); let s = read(&l); fs::remove_file(&l).unwrap(); s",
        out_one, out_two;
}

fn temporary(p: &Place) {
    p.set("TMPDIR", &p.desk.text("outside"));
}

/// A macro that leaves something behind has to run each time.
#[test]
fn what_a_macro_leaves_behind() {
    let place = Place::new(
        world!(),
        Way::Observed,
        "fs::write(at(\"left\"), \"x\").unwrap(); \"ok\".into()",
        SHOW,
    );
    for _ in 0..3 {
        place.remove("ws/pk/left");
        place.build(With::Kiln);
        assert!(place.at("ws/pk/left").exists());
    }
}
