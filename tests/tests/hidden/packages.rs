//! Theme: what procedural macros find in the package of the crate that uses them, and special files.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use kiln_tests::direct::{Desk, With, ends_within};
use kiln_tests::world;

const MACROS: &str = r#"
use proc_macro::TokenStream;
fn at(path: &str) -> std::path::PathBuf {
    std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)
}
fn text(value: impl std::fmt::Debug) -> TokenStream {
    format!("{:?}", format!("{value:?}")).parse().unwrap()
}
#[proc_macro]
pub fn reads(_: TokenStream) -> TokenStream {
    text(std::fs::read_to_string(at("data/x.txt")).unwrap())
}
#[proc_macro]
pub fn lists(_: TokenStream) -> TokenStream {
    text(std::fs::read_dir(at("data")).unwrap().count())
}
#[proc_macro]
pub fn is_there(_: TokenStream) -> TokenStream {
    text(at("empty").is_dir())
}
#[proc_macro]
pub fn mode(_: TokenStream) -> TokenStream {
    use std::os::unix::fs::PermissionsExt;
    text(std::fs::metadata(at("f.sh")).unwrap().permissions().mode() & 0o111 != 0)
}
#[proc_macro]
pub fn link(_: TokenStream) -> TokenStream {
    text(std::fs::read_link(at("link")).unwrap())
}
#[proc_macro]
pub fn one(_: TokenStream) -> TokenStream {
    "1".parse().unwrap()
}
"#;

/// A package in `pk` whose program prints what a macro gives.
fn desk(name: &str) -> Desk {
    let desk = Desk::new(world!());
    desk.write("pm.rs", MACROS);
    let args = "--crate-name pm --crate-type proc-macro --edition=2021 --extern proc_macro --out-dir pm pm.rs";
    desk.rustc(With::Nothing, args);
    desk.write("pk/src/main.rs", format!("fn main() {{ print!(\"{{}}\", pm::{name}!()) }}\n"));
    desk.set("CARGO_MANIFEST_DIR", &desk.text("pk"));
    desk
}

const ARGS: &str = "--crate-name m --edition=2021 --emit=dep-info,link --out-dir ../out --extern pm=../pm/libpm.so src/main.rs";

fn build(desk: &Desk, with: With) -> String {
    desk.empty("out");
    desk.call(with, ARGS).dir(&desk.project.at("pk")).run().ok();
    desk.prints("out/m")
}

fn check(desk: &Desk, change: impl FnOnce()) {
    desk.check(|with| build(desk, with), change);
}

#[test]
fn a_file_behind_a_linked_directory() {
    let desk = desk("reads");
    desk.write("shared/x.txt", "one");
    symlink("../shared", desk.project.at("pk/data")).unwrap();
    check(&desk, || desk.write("shared/x.txt", "two"));
}

#[test]
fn a_linked_directory_that_points_elsewhere() {
    let desk = desk("reads");
    desk.write("shared/x.txt", "one");
    desk.write("other/x.txt", "two");
    let link = desk.project.at("pk/data");
    symlink("../shared", &link).unwrap();
    check(&desk, || {
        std::fs::remove_file(&link).unwrap();
        symlink("../other", &link).unwrap();
    });
}

#[test]
fn a_file_that_appears_behind_a_linked_directory() {
    let desk = desk("lists");
    desk.write("shared/x.txt", "one");
    symlink("../shared", desk.project.at("pk/data")).unwrap();
    check(&desk, || desk.write("shared/y.txt", ""));
}

#[test]
fn an_empty_directory() {
    let desk = desk("is_there");
    check(&desk, || drop(desk.empty("pk/empty")));
}

#[test]
fn an_executable_bit() {
    let desk = desk("mode");
    desk.write("pk/f.sh", "");
    let set = |mode: u32| {
        let mode = PermissionsExt::from_mode(mode);
        std::fs::set_permissions(desk.project.at("pk/f.sh"), mode).unwrap();
    };
    set(0o644);
    check(&desk, || set(0o755));
}

#[test]
fn where_a_link_points() {
    let desk = desk("link");
    let link = desk.project.at("pk/link");
    symlink("nowhere", &link).unwrap();
    check(&desk, || {
        std::fs::remove_file(&link).unwrap();
        symlink("elsewhere", &link).unwrap();
    });
}

/// Longest that a compile may take which would hang.
const LONGEST: Duration = Duration::from_secs(60);

/// Builds twice: neither may hang.
fn check_ends(desk: &Desk) {
    for _ in 0..2 {
        desk.empty("out");
        let call = desk.call(With::Kiln, ARGS).dir(&desk.project.at("pk"));
        let status = ends_within(&call, LONGEST);
        assert!(status.is_some_and(|status| status.success()), "{status:?}; none: it hangs");
        assert_eq!(desk.prints("out/m"), "1");
    }
}

fn fifo(desk: &Desk, path: &str) {
    desk.tool("/usr/bin/mkfifo", desk.project.dir(), path);
}

#[test]
fn a_fifo_in_a_package() {
    let desk = desk("one");
    fifo(&desk, "pk/pipe");
    fifo(&desk, "pk/src/pipe.rs");
    check_ends(&desk);
}

#[test]
fn a_socket_in_a_package() {
    let desk = desk("one");
    let _socket = std::os::unix::net::UnixListener::bind(desk.project.at("pk/s")).unwrap();
    check_ends(&desk);
}

#[test]
fn links_without_end_in_a_package() {
    let desk = desk("one");
    symlink("loop", desk.project.at("pk/loop")).unwrap();
    symlink("..", desk.project.at("pk/up")).unwrap();
    symlink(".", desk.project.at("pk/here")).unwrap();
    symlink("/dev/zero", desk.project.at("pk/zero")).unwrap();
    check_ends(&desk);
}

#[test]
fn a_name_that_is_no_text_in_a_package() {
    let desk = desk("one");
    let name = Path::new(std::ffi::OsStr::from_bytes(b"a\xff"));
    std::fs::write(desk.project.at("pk").join(name), "x").unwrap();
    check_ends(&desk);
}

/// A source that can be read only once.
#[test]
fn an_included_fifo() {
    let desk = desk("one");
    fifo(&desk, "i.txt");
    desk.write("f.rs", "fn main() { print!(\"{}\", include_str!(\"i.txt\")) }\n");
    for text in ["one", "two"] {
        desk.empty("out");
        let path = desk.project.at("i.txt");
        // Waits in `open` until the compiler reads; if none does, with the process.
        std::thread::spawn(move || {
            let pipe = std::fs::OpenOptions::new().write(true).open(path);
            let _ = pipe.and_then(|mut pipe| pipe.write_all(text.as_bytes()));
        });
        let call = desk.call(With::Kiln, "--crate-name f --emit=dep-info,link --out-dir out f.rs");
        let status = ends_within(&call, LONGEST);
        assert!(status.is_some_and(|status| status.success()), "{status:?}; none: it hangs");
        assert_eq!(desk.prints("out/f"), text);
    }
}
