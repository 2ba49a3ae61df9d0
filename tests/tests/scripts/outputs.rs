//! Theme: what build scripts leave. It comes back as it was: bytes, kinds, modes, links, names; and what
//! was made holds where it was made for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::With;
use kiln_tests::left::built;
use kiln_tests::script::{SHOW, Scripted, Stored, manifest};
use kiln_tests::{scripts, world};

fn one(p: &Scripted) {
    p.write("pk/data/n", "one");
}

fn two(p: &Scripted) {
    p.write("pk/data/n", "two");
}

// OUT_DIR ----------------------------------------------------------------------------------------

/// What a directory holds, in words.
const LIST: &str = "fn list(dir: &Path, found: &mut Vec<String>) { use std::os::unix::fs::PermissionsExt; \
     for entry in fs::read_dir(dir).unwrap() { let path = entry.unwrap().path(); \
     let meta = path.symlink_metadata().unwrap(); \
     found.push(format!(\"{:?} {:o}\", path.file_name().unwrap(), meta.permissions().mode())); \
     if meta.is_dir() { list(&path, found) } } } \
     let mut found = Vec::new(); list(&out(\"\"), &mut found); found.sort(); found.join(\"\\n\") + &read(\"data/n\")";

macro_rules! leaving {
    ($code:expr) => {
        &format!("use std::os::unix::fs::{{symlink, PermissionsExt}}; {} {LIST}", $code)
    };
}

fn leaves(stored: Stored, code: &str) {
    Scripted::new(world!(), code).check(stored, one, two);
}

#[test]
fn directories_that_are_empty() {
    leaves(Stored::Everywhere, leaving!("fs::create_dir_all(out(\"a/b/c\")).unwrap();"));
}

#[test]
fn files_that_are_empty() {
    leaves(Stored::Everywhere, leaving!("fs::write(out(\"empty\"), \"\").unwrap();"));
}

#[test]
fn relative_links() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "fs::write(out(\"a\"), \"a\").unwrap(); symlink(\"a\", out(\"to-a\")).unwrap(); \
             fs::create_dir(out(\"d\")).unwrap(); symlink(\"../a\", out(\"d/up\")).unwrap(); symlink(\"d\", out(\"to-d\")).unwrap();"
        ),
    );
}

#[test]
fn a_link_into_its_own_directory_by_its_whole_path() {
    leaves(
        Stored::Here,
        leaving!(
            "fs::write(out(\"a\"), \"a\").unwrap(); symlink(out(\"a\"), out(\"to-a\")).unwrap();"
        ),
    );
}

#[test]
fn links_that_lead_nowhere() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "symlink(\"none\", out(\"a\")).unwrap(); symlink(\"/none/at/all\", out(\"b\")).unwrap();"
        ),
    );
}

#[test]
fn modes() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "for mode in [0o444, 0o755, 0o600, 0o640] { let file = out(&format!(\"{mode:o}\")); \
             fs::write(&file, \"x\").unwrap(); fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap(); } \
             fs::create_dir(out(\"d\")).unwrap(); fs::set_permissions(out(\"d\"), PermissionsExt::from_mode(0o700)).unwrap();"
        ),
    );
}

#[test]
fn odd_names() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "for name in [\"a b\", \"ünï\", \"-rf\", \"quote'\\\"\", \"$x\", \"*\", \".hidden\"] { \
             fs::write(out(name), name).unwrap(); } fs::create_dir(out(\"d d\")).unwrap(); fs::write(out(\"d d/e e\"), \"\").unwrap();"
        ),
    );
}

/// Not in the list that is shown: it is compared with what the first run left.
#[test]
fn names_that_are_no_text_or_hold_a_backslash() {
    let code = "use std::os::unix::ffi::OsStrExt; \
         fs::write(out(\"\").join(std::ffi::OsStr::from_bytes(b\"a\\xff\")), \"x\").unwrap(); \
         fs::write(out(\"a\\\\b\"), \"x\").unwrap(); read(\"data/n\")";
    leaves(Stored::Perhaps, code);
}

/// Two names of one file: each is a file of its own in the cache, with the same content.
#[test]
fn hard_links() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "fs::write(out(\"a\"), \"a\").unwrap(); fs::hard_link(out(\"a\"), out(\"b\")).unwrap();"
        ),
    );
}

#[test]
fn many_files_and_a_large_one() {
    leaves(
        Stored::Everywhere,
        leaving!(
            "for n in 0..300 { fs::create_dir_all(out(&format!(\"d{}\", n % 7))).unwrap(); \
             fs::write(out(&format!(\"d{}/f{n}\", n % 7)), n.to_string()).unwrap(); } \
             let large: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2654435761) >> 24) as u8).collect(); \
             fs::write(out(\"large\"), large).unwrap();"
        ),
    );
}

scripts! {
    /// Files that are made and go again, and one that is renamed.
    what_is_made_and_removed: Everywhere,
        "fs::write(out(\"a\"), \"a\").unwrap(); fs::remove_file(out(\"a\")).unwrap(); \
         fs::create_dir(out(\"d\")).unwrap(); fs::write(out(\"d/b\"), \"b\").unwrap(); \
         fs::rename(out(\"d\"), out(\"e\")).unwrap(); read(\"data/n\") + &read(out(\"e/b\"))", one, two;
    a_directory_that_is_emptied_first: Everywhere,
        "let _ = fs::remove_dir_all(out(\"\")); fs::create_dir_all(out(\"\")).unwrap(); read(\"data/n\")", one, two;
    files_in_a_temporary_directory: Everywhere,
        "let dir = std::env::temp_dir().join(format!(\"kt-{}\", std::process::id())); \
         fs::create_dir(&dir).unwrap(); fs::write(dir.join(\"a\"), read(\"data/n\")).unwrap(); \
         let text = read(dir.join(\"a\")); fs::remove_dir_all(&dir).unwrap(); text", one, two;
    files_that_stay_in_a_temporary_directory: Everywhere,
        "let file = std::env::temp_dir().join(format!(\"kt-{}\", std::process::id())); \
         fs::write(&file, read(\"data/n\")).unwrap(); read(&file)",
        |p| { tmp(p); one(p); }, |p| { tmp(p); two(p); };
    a_program_that_it_makes_and_runs: Everywhere,
        "fs::write(out(\"p.c\"), format!(\"#include <stdio.h>\\nint main(void) {{ puts(\\\"{}\\\"); return 0; }}\\n\", read(\"data/n\"))).unwrap(); \
         run(Command::new(\"cc\").args([\"p.c\", \"-o\", \"p\"]).current_dir(out(\"\"))); run(&mut Command::new(out(\"p\")))",
        one, two;
    no_output_at_all: Everywhere, "read(\"data/n\")", one, two;
}

fn tmp(p: &Scripted) {
    let dir = p.world.at("own-tmp");
    std::fs::create_dir_all(&dir).unwrap();
    p.set("TMPDIR", dir.to_str().unwrap());
}

/// What an earlier run left is there when the next begins; cargo does not empty the directory.
#[test]
fn what_an_earlier_run_left() {
    let code = "let n: u32 = fs::read_to_string(out(\"count\")).map_or(0, |n| n.parse().unwrap()) + 1; \
         fs::write(out(\"count\"), n.to_string()).unwrap(); format!(\"{n} {}\", read(\"data/n\"))";
    let place = Scripted::new(world!(), code);
    let steps = |place: &Scripted, with| {
        place.reset();
        one(place);
        let mut shown = vec![place.build(with).text];
        for text in ["two", "one", "three"] {
            place.change("pk/data/n", text);
            shown.push(place.build_on(with, &place.project).text);
        }
        shown
    };
    let plain = steps(&place, With::Nothing);
    assert_eq!(plain, ["1 one", "2 two", "3 one", "4 three"]);
    assert_eq!(steps(&place, With::Kiln), plain, "{}", place.why());
    assert_eq!(steps(&place, With::Kiln), plain, "again; {}", place.why());
}

/// What is put back has the modes that it would have been made with.
#[test]
fn another_umask() {
    let code = "fs::create_dir(out(\"d\")).unwrap(); fs::write(out(\"d/a\"), \"\").unwrap(); read(\"data/n\")";
    let place = Scripted::new(world!(), code);
    let build = |with, mask| {
        place.reset();
        one(&place);
        place.project.wipe();
        place.cargo(with, &place.project, &["build"]).umask(mask).run().ok();
        (place.prints(&place.project), built(&place.project, true))
    };
    let plain = (build(With::Nothing, "022"), build(With::Nothing, "077"));
    assert_ne!(plain.0.1, plain.1.1);
    for _ in 0..2 {
        assert_eq!(build(With::Kiln, "022"), plain.0);
        assert_eq!(build(With::Kiln, "077"), plain.1);
    }
}

// C ----------------------------------------------------------------------------------------------

/// A script that compiles `a.c`, which lies in the package, into an archive; its arguments are given.
fn archive(args: &str) -> String {
    format!(
        "let args: &[&str] = &[{args}]; run(Command::new(\"cc\").args(args).arg(\"-c\").arg(at(\"a.c\")).arg(\"-o\").arg(out(\"a.o\"))); \
         run(Command::new(\"ar\").arg(\"crs\").arg(out(\"liba.a\")).arg(out(\"a.o\"))); \
         println!(\"cargo:rustc-link-search=native={{}}\", out(\"\").display()); \
         println!(\"cargo:rustc-link-lib=static=a\"); String::new()"
    )
}

const CALLS: &str = "extern \"C\" { fn text() -> *const std::ffi::c_char; }\n\
     fn main() { print!(\"{}\", unsafe { std::ffi::CStr::from_ptr(text()) }.to_str().unwrap()) }\n";

fn compiled(args: &str) -> Scripted {
    let place = Scripted::new(world!(), &archive(args));
    place.base("pk/src/main.rs", CALLS);
    place
}

fn c_one(p: &Scripted) {
    p.write("pk/a.c", "const char *text(void) { return \"one\"; }\n");
}

fn c_two(p: &Scripted) {
    p.write("pk/a.c", "const char *text(void) { return \"two\"; }\n");
}

#[test]
fn an_archive() {
    compiled("").check(Stored::Everywhere, c_one, c_two);
}

/// Debug information names the source: by a place that every checkout shares.
#[test]
fn an_archive_with_debug_information() {
    compiled("\"-g\"").check(Stored::Everywhere, c_one, c_two);
}

/// As the `cc` crate calls it.
#[test]
fn an_archive_as_the_cc_crate_makes_it() {
    let args = "\"-O0\", \"-ffunction-sections\", \"-fdata-sections\", \"-fPIC\", \"-gdwarf-4\", \"-fno-omit-frame-pointer\", \"-m64\", \"-Wall\", \"-Wextra\"";
    compiled(args).check(Stored::Everywhere, c_one, c_two);
}

#[test]
fn an_archive_of_a_directory_of_headers() {
    let place = compiled("\"-Iinclude\"");
    place.base("pk/a.c", "#include \"n.h\"\nconst char *text(void) { return N; }\n");
    place.check(
        Stored::Everywhere,
        |p| p.write("pk/include/n.h", "#define N \"one\"\n"),
        |p| p.write("pk/include/n.h", "#define N \"two\"\n"),
    );
}

#[test]
fn an_archive_in_directories_with_odd_names() {
    let place = compiled("\"-g\"");
    c_one(&place);
    assert_eq!(place.build(With::Kiln).text, "one");
    place.project.wipe();
    for name in ["a b", "ünï", "$x", "quote'"] {
        let two = place.project.copy_to(place.world.at("ws/odd").join(name));
        place.hits_in(&two, "one", name);
    }
    // What cannot be said in an argument is no reason for a wrong result.
    for name in ["a=b", "a=b=c d"] {
        let two = place.project.copy_to(place.world.at("ws/odd").join(name));
        for _ in 0..2 {
            assert_eq!(place.build_in(With::Kiln, &two).text, "one", "{name}; {}", place.why());
        }
    }
}

/// `__FILE__` is what the caller says: a whole path here. What the program prints must be the place of
/// the checkout it was built in, or one that is the same everywhere.
#[test]
fn an_archive_that_names_its_source() {
    let place = compiled("\"-g\"");
    let source = |p: &Scripted, more: &str| {
        p.write("pk/a.c", format!("const char *text(void) {{ return __FILE__ \"{more}\"; }}\n"));
    };
    source(&place, "one");
    let seen = place.build(With::Kiln);
    assert!(seen.text.ends_with("pk/a.cone"), "{}", seen.text);
    let again = place.build(With::Kiln);
    assert_eq!(again.text, seen.text);
    source(&place, "two");
    assert!(place.build(With::Kiln).text.ends_with("pk/a.ctwo"));
    source(&place, "one");
    assert_eq!(place.build(With::Kiln).text, seen.text);
    let far = place.project.copy_to(place.world.at("ws/far/er/two"));
    let there = place.build_in(With::Kiln, &far);
    assert!(
        there.text == seen.text && !seen.text.contains(place.project.dir().to_str().unwrap())
            || there.text == format!("{}one", far.at("pk/a.c").display()),
        "{} at {}, {} at {}",
        seen.text,
        place.project.dir().display(),
        there.text,
        far.dir().display(),
    );
}

/// The caller's own prefix map wins over Kiln's.
#[test]
fn a_prefix_map_of_the_script() {
    let place =
        compiled("\"-g\", &format!(\"-ffile-prefix-map={}=/own\", var(\"CARGO_MANIFEST_DIR\"))");
    place.base("pk/a.c", "const char *text(void) { return __FILE__; }\n");
    let show = |p: &Scripted| p.write("pk/data/n", "one");
    place.check_one(Stored::Everywhere, show);
    assert_eq!(place.build(With::Kiln).text, "/own/a.c");
}

// Whoever uses it later ----------------------------------------------------------------------------

/// The crate lists the directory by a macro, at another checkout and here.
#[test]
fn a_directory_that_a_macro_lists() {
    let place = Scripted::with_script(
        world!(),
        "fn main() { tally(); for name in read(\"data/n\").split_whitespace() { fs::write(out(name), \"\").unwrap(); } }\n",
    );
    place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\", \"pm\"]\nresolver = \"2\"\n");
    place.base("pk/Cargo.toml", &manifest("pk", "\n[dependencies]\npm = { path = \"../pm\" }\n"));
    place.base("pk/src/main.rs", "fn main() { print!(\"{}\", pm::list!()) }\n");
    place.base("pm/Cargo.toml", &manifest("pm", "\n[lib]\nproc-macro = true\n"));
    place.base(
        "pm/src/lib.rs",
        "#[proc_macro]\npub fn list(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         let entries = std::fs::read_dir(std::env::var(\"OUT_DIR\").unwrap()).unwrap();\n    \
         let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();\n    \
         names.sort();\n    format!(\"{:?}\", names.join(\" \")).parse().unwrap()\n}\n",
    );
    place.compiling_again().check(
        Stored::Here,
        |p| p.write("pk/data/n", "a b"),
        |p| p.write("pk/data/n", "a b c"),
    );
}

/// A dependent's script lists what the script of a library left, which it knows by `DEP_LOW_ROOT`.
fn dependent(read: &str) -> Scripted {
    let script = format!(
        "fn main() {{ tally(); let text = {{ {read} }}; fs::write(out(\"shown\"), text).unwrap(); }}\n"
    );
    let place = Scripted::with_script(world!(), &script);
    place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\", \"low\"]\nresolver = \"2\"\n");
    place.base("pk/Cargo.toml", &manifest("pk", "\n[dependencies]\nlow = { path = \"../low\" }\n"));
    place.base("pk/src/main.rs", SHOW);
    place.base("low/Cargo.toml", &manifest("low", "links = \"low\"\n"));
    place.base("low/src/lib.rs", "");
    place.script(
        "low/build.rs",
        "fn main() { tally(); for name in read(\"data/n\").split_whitespace() { fs::write(out(name), name).unwrap(); } \
         println!(\"cargo:root={}\", out(\"\").display()); println!(\"cargo:names={}\", read(\"data/n\")); }\n",
    );
    place
}

fn low(text: &'static str) -> impl Fn(&Scripted) {
    move |p| p.write("low/data/n", text)
}

#[test]
fn a_directory_that_the_script_of_a_dependent_lists() {
    dependent(
        "let mut names: Vec<_> = fs::read_dir(var(\"DEP_LOW_ROOT\")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect(); names.sort(); names.join(\" \")",
    )
    .check(Stored::Everywhere, low("a b"), low("a b c"));
}

#[test]
fn a_file_that_the_script_of_a_dependent_reads() {
    dependent("read(Path::new(&var(\"DEP_LOW_ROOT\")).join(\"a\"))")
        .check_one(Stored::Everywhere, low("a"));
}

#[test]
fn metadata_for_the_script_of_a_dependent() {
    dependent("var(\"DEP_LOW_NAMES\")").check(Stored::Everywhere, low("a b"), low("a b c"));
}

#[test]
fn metadata_with_a_place_for_the_script_of_a_dependent() {
    dependent("var(\"DEP_LOW_ROOT\") + &var(\"DEP_LOW_NAMES\")").check(
        Stored::Here,
        low("a b"),
        low("a b c"),
    );
}
