//! Theme: what does not matter. After each of these changes every unit has to come from the cache: the
//! stand-ins count that no compiler runs. The workspace has a library, a program, tests, a build
//! script, and procedural macros: one that reads nothing and one that reads a file and a variable.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use kiln_tests::project::files_below;
use kiln_tests::samples::small_workspace;
use kiln_tests::{Call, Done, Project, World, registry, skip, world};

const MACROS: &str = r#"
use proc_macro::TokenStream;
/// As derives do: it reads nothing.
#[proc_macro_derive(Name)]
pub fn name(input: TokenStream) -> TokenStream {
    let mut words = input.into_iter().map(|token| token.to_string());
    let name = words.by_ref().skip_while(|word| word != "struct").nth(1).unwrap();
    format!("impl {name} {{ pub const NAME: &'static str = {name:?}; }}").parse().unwrap()
}
#[proc_macro]
pub fn file(_: TokenStream) -> TokenStream {
    let place = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let text = std::fs::read_to_string(place + "/data/one").unwrap();
    format!("{text:?}").parse().unwrap()
}
"#;

fn manifest(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
}

/// The workspace: `app` uses `low` and the derive; `reader` uses the macro that reads.
fn workspace(world: &World, name: &str) -> Project {
    let project = world.project(name);
    project.write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"app\", \"low\", \"mac\", \"other\"]\nresolver = \"2\"\n",
    );
    project.write(
        "app/Cargo.toml",
        manifest("app", "\n[features]\na = []\nb = []\n\n[dependencies]\nlow = { path = \"../low\" }\nmac = { path = \"../mac\" }\n"),
    );
    project.write(
        "app/build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", \"42\").unwrap();\n}\n",
    );
    project.write("app/src/lib.rs", "#[derive(mac::Name)]\npub struct Thing;\npub mod deep;\n");
    project.write(
        "app/src/deep/mod.rs",
        "pub fn n() -> i32 { include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\")) + low::n() }\n",
    );
    project.write("app/src/main.rs", "#[derive(mac::Name)]\nstruct Own;\nfn main() { println!(\"{} {} {}\", app::Thing::NAME, Own::NAME, app::deep::n()); }\n");
    project.write("app/tests/plain.rs", "#[derive(mac::Name)]\nstruct Own;\n#[test]\nfn works() { assert_eq!(Own::NAME, \"Own\"); }\n");
    project.write("low/Cargo.toml", manifest("low", ""));
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 0 }\n");
    project.write("mac/Cargo.toml", manifest("mac", "\n[lib]\nproc-macro = true\n"));
    project.write("mac/src/lib.rs", MACROS);
    project.write("other/Cargo.toml", manifest("other", ""));
    project.write("other/src/lib.rs", "pub fn n() -> i32 { 1 }\n");
    project.write("README.md", "one\n").write("app/README.md", "one\n");
    project
}

/// A workspace whose `app` uses the macro that reads a file, too.
fn reading_workspace(world: &World) -> Project {
    let project = workspace(world, "reads");
    project.write(
        "app/src/deep/mod.rs",
        "pub const T: &str = mac::file!();\npub fn n() -> i32 { 42 }\n",
    );
    project.write("app/data/one", "one");
    project.write("app/data/two", "two");
    project
}

const BUILD: [&str; 4] = ["build", "-p", "app", "--all-targets"];

/// Something that must not matter.
struct Case {
    name: &'static str,
    /// What happens between the builds.
    between: fn(&Project),
    /// How the later build is called.
    call: fn(Call, &World) -> Call,
}

fn call(name: &'static str, call: fn(Call, &World) -> Call) -> Case {
    Case { name, between: |_| {}, call }
}

fn between(name: &'static str, between: fn(&Project)) -> Case {
    Case { name, between, call: |call, _| call }
}

/// What was compiled in a build in which nothing should have been.
fn compiled(world: &World, done: &Done, name: &str) -> Option<String> {
    let compiled = done.compiled();
    (!compiled.is_empty()).then(|| format!("{name}: {compiled:?}: {:#}", world.stats()["missed"]))
}

/// One build, then one from nothing after each change. One that matters is found, and the next is told
/// apart from it: it is compared with the build before.
#[track_caller]
fn check_in(world: &World, project: &Project, args: &[&str], cases: &[Case]) {
    world.cargo(project, args).run().ok();
    let mut found = Vec::new();
    for case in cases {
        project.wipe();
        (case.between)(project);
        let done = (case.call)(world.cargo(project, args), world).run().ok();
        found.extend(compiled(world, &done, case.name));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[track_caller]
fn check(cases: &[Case]) {
    let world = world!();
    let project = workspace(&world, "one");
    check_in(&world, &project, &BUILD, cases);
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
    assert_eq!(program.stdout, "Thing Own 42\n");
}

#[test]
fn variables_of_the_user_and_the_shell() {
    check(&[
        call("USER", |c, _| c.env("USER", "somebody").env("LOGNAME", "somebody")),
        call("SHELL", |c, _| c.env("SHELL", "/bin/zsh").env("EDITOR", "vi").env("PAGER", "less")),
        call("PWD", |c, _| c.env("PWD", "/elsewhere").env("OLDPWD", "/before")),
        call("SHLVL", |c, _| c.env("SHLVL", "3").env("_", "/usr/bin/env")),
        call("any", |c, _| {
            c.env("KT_ANY", "x").env("SSH_AUTH_SOCK", "/tmp/s").env("DISPLAY", ":0")
        }),
        call("HOSTNAME", |c, _| c.env("HOSTNAME", "box").env("XDG_RUNTIME_DIR", "/run/user/7")),
        call("HOME", |c, w| c.env("HOME", w.at("bin"))),
        call("TMPDIR", |c, w| c.env("TMPDIR", w.at("home"))),
    ]);
}

#[test]
fn variables_of_continuous_integration() {
    check(&[
        call("CI", |c, _| c.env("CI", "true")),
        call("GITHUB", |c, _| {
            c.env("GITHUB_ACTIONS", "true")
                .env("GITHUB_RUN_ID", "1")
                .env("GITHUB_SHA", "abc")
                .env("GITHUB_JOB", "x")
        }),
        call("GITHUB again", |c, _| {
            c.env("GITHUB_ACTIONS", "true")
                .env("GITHUB_RUN_ID", "2")
                .env("GITHUB_SHA", "def")
                .env("RUNNER_TEMP", "/tmp")
        }),
        call("GITLAB", |c, _| {
            c.env("GITLAB_CI", "true").env("CI_JOB_ID", "7").env("CI_COMMIT_SHA", "a")
        }),
        call("KILN_RUN", |c, _| c.env("KILN_RUN", "7").env("KILN_JOB", "linux")),
        call("KILN_RUN again", |c, _| c.env("KILN_RUN", "8").env("KILN_JOB", "other")),
        call("KILN_MATRIX", |c, _| c.env("KILN_MATRIX", r#"{"os":"linux"}"#)),
    ]);
}

#[test]
fn variables_of_terminals_and_locales() {
    check(&[
        call("LANG", |c, _| c.env("LANG", "de_DE.UTF-8")),
        call("LC_ALL", |c, _| c.env("LC_ALL", "C").env("LC_CTYPE", "C.UTF-8")),
        call("TERM", |c, _| c.env("TERM", "dumb").env("COLORTERM", "truecolor")),
        call("NO_COLOR", |c, _| c.env("NO_COLOR", "1")),
        call("COLUMNS", |c, _| c.env("COLUMNS", "40").env("LINES", "20")),
        call("RUST_BACKTRACE", |c, _| c.env("RUST_BACKTRACE", "full")),
        call("CARGO_TERM", |c, _| {
            c.env("CARGO_TERM_COLOR", "always")
                .env("CARGO_TERM_VERBOSE", "true")
                .env("CARGO_TERM_PROGRESS_WHEN", "never")
        }),
        call("TZ", |c, _| c.env("TZ", "Asia/Tokyo").env("SOURCE_DATE_EPOCH", "7")),
        call("RUST_LOG", |c, _| c.env("RUST_LOG", "warn").env("CARGO_LOG", "off")),
        call("umask", |c, _| c.umask("077")),
    ]);
}

#[test]
fn arguments_of_cargo() {
    check(&[
        call("-j1", |c, _| c.args(&["-j1"])),
        call("-j4", |c, _| c.args(&["-j4"])),
        call("-v", |c, _| c.args(&["-v"])),
        call("-vv", |c, _| c.args(&["-vv"])),
        call("-q", |c, _| c.args(&["-q"])),
        call("color", |c, _| c.args(&["--color", "always"])),
        call("no color", |c, _| c.args(&["--color", "never"])),
        call("json", |c, _| c.args(&["--message-format", "json"])),
        call("rendered json", |c, _| {
            c.args(&["--message-format", "json-diagnostic-rendered-ansi"])
        }),
        call("locked", |c, _| c.args(&["--locked", "--offline"])),
        call("keep going", |c, _| c.args(&["--keep-going"])),
        call("timings", |c, _| c.args(&["--timings"])),
        call("target directory", |c, w| c.env("CARGO_TARGET_DIR", w.at("elsewhere"))),
        call("manifest", |c, w| {
            let manifest = w.at("ws/one/Cargo.toml");
            c.args(&["--manifest-path", manifest.to_str().unwrap()]).dir(w.root())
        }),
        call("another directory", |c, w| c.dir(&w.at("ws/one/app/src"))),
    ]);
}

#[test]
fn orders_and_spaces() {
    let world = world!();
    let project = workspace(&world, "one");
    let flags = |c: Call, flags: &str| c.env("RUSTFLAGS", flags).args(&["--features", "a,b"]);
    flags(world.cargo(&project, &BUILD), "--cfg kt_one --cfg kt_two -Copt-level=1").run().ok();
    let mut found = Vec::new();
    for (name, given, features) in [
        ("spaces", "  --cfg  kt_one  --cfg  kt_two   -Copt-level=1 ", "a,b"),
        ("features", "--cfg kt_one --cfg kt_two -Copt-level=1", "b,a"),
        ("features apart", "--cfg kt_one --cfg kt_two -Copt-level=1", "b a"),
    ] {
        project.wipe();
        let call = world.cargo(&project, &BUILD).env("RUSTFLAGS", given);
        let done = call.args(&["--features", features]).run().ok();
        found.extend(compiled(&world, &done, name));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Cargo itself takes another order in `RUSTFLAGS` for another unit; rustc does not.
#[test]
fn order_of_configurations() {
    let world = world!();
    let project = world.project("x");
    project.write("l.rs", "#[cfg(all(kt_one, kt_two))] pub fn n() {}\n");
    let build = |order: [&str; 4]| {
        let call = world.rustc(&project, &["--crate-type=lib", "--emit=dep-info,metadata", "l.rs"]);
        call.args(&order).run().ok()
    };
    let [one, two] = ["--cfg=kt_one", "--cfg=kt_two"];
    let [first, second] = ["--check-cfg=cfg(kt_one)", "--check-cfg=cfg(kt_two)"];
    assert_eq!(build([one, two, first, second]).compiled().len(), 1);
    world.assert_all_hit(&build([two, one, second, first]));
}

fn touch(project: &Project, time: SystemTime) {
    for file in files_below(project.dir()) {
        std::fs::File::open(project.dir().join(file)).unwrap().set_modified(time).unwrap();
    }
}

fn add(project: &Project, path: &str, line: &str) {
    let mut text = project.read(path);
    text.extend(line.as_bytes());
    project.write(path, text);
}

#[test]
fn times_modes_and_copies_of_files() {
    check(&[
        between("touched", |p| touch(p, SystemTime::now())),
        between("old", |p| touch(p, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))),
        between("executable", |p| {
            let mode = PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(p.at("app/src/lib.rs"), mode).unwrap();
        }),
        between("read only", |p| {
            let mode = PermissionsExt::from_mode(0o444);
            std::fs::set_permissions(p.at("low/src/lib.rs"), mode).unwrap();
        }),
        between("written anew", |p| {
            for file in files_below(p.dir()) {
                let path = p.dir().join(file);
                let bytes = std::fs::read(&path).unwrap();
                std::fs::remove_file(&path).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }),
        between("changed and changed back", |p| {
            let was = p.read("app/src/lib.rs");
            p.write("app/src/lib.rs", "nonsense").write("app/src/lib.rs", was);
        }),
    ]);
}

#[test]
fn files_that_nobody_reads() {
    check(&[
        between("beside the sources", |p| {
            p.write("app/src/notes.txt", "x");
        }),
        between("a module that is not used", |p| {
            p.write("app/src/unused.rs", "x");
        }),
        between("of an editor", |p| {
            p.write("app/src/.lib.rs.swp", "x").write("app/src/lib.rs~", "x");
        }),
        between("in the workspace", |p| {
            p.write("notes.txt", "x").write("docs/page.md", "x");
        }),
        between("in the package", |p| {
            p.write("app/data/x", "x").write("app/.env", "X=1");
        }),
        between("documentation", |p| {
            p.write("README.md", "two\n").write("app/README.md", "two\n");
        }),
        between("a comment in a manifest", |p| {
            for path in ["Cargo.toml", "app/Cargo.toml", "low/Cargo.toml", "mac/Cargo.toml"] {
                add(p, path, "\n# A comment.\n");
            }
        }),
        between("another crate of the workspace", |p| {
            p.write("other/src/lib.rs", "pub fn n() -> i32 { 2 }\n");
        }),
        between("a repository", |p| {
            p.write(".git/HEAD", "one").write(".gitignore", "x");
        }),
        between("a commit", |p| {
            p.write(".git/HEAD", "two").write(".git/index", "x");
        }),
        between("an empty directory", |p| std::fs::create_dir(p.at("app/src/empty")).unwrap()),
        between("a file of cargo", |p| {
            p.write(".cargo/config.toml", "[alias]\nx = \"build\"\n");
        }),
        between("tests of another kind", |p| {
            p.write("app/tests/data/x.txt", "x");
        }),
    ]);
}

#[test]
fn a_file_that_goes_again() {
    check(&[
        between("comes", |p| {
            p.write("app/src/notes.txt", "x");
        }),
        between("changes", |p| {
            p.write("app/src/notes.txt", "y");
        }),
        between("goes", |p| {
            p.remove("app/src/notes.txt");
        }),
        between("becomes a directory", |p| {
            p.write("app/src/notes.txt/x", "y");
        }),
    ]);
}

/// A dependency of tests changes what tests see, not the library and the program.
#[test]
fn a_dependency_of_tests_alone() {
    let world = world!();
    let project = workspace(&world, "one");
    check_in(
        &world,
        &project,
        &["build", "-p", "app"],
        &[between("added", |p| {
            add(p, "app/Cargo.toml", "\n[dev-dependencies]\nother = { path = \"../other\" }\n")
        })],
    );
}

/// The macro reads a file and a variable of cargo: others do not matter to it.
#[test]
fn what_a_reading_macro_does_not_read() {
    let world = world!();
    let project = reading_workspace(&world);
    check_in(
        &world,
        &project,
        &BUILD,
        &[
            between("nothing", |_| {}),
            between("another file", |p| {
                p.write("app/data/two", "three");
            }),
            between("a new file", |p| {
                p.write("app/data/three", "x").write("app/src/notes.txt", "x");
            }),
            between("a touched file", |p| {
                p.write("app/data/one", "one");
            }),
            between("the workspace", |p| {
                p.write("notes.txt", "x").write("README.md", "two\n");
            }),
            between("a manifest", |p| add(p, "app/Cargo.toml", "\n# A comment.\n")),
            between("another crate", |p| {
                p.write("other/src/lib.rs", "pub fn n() -> i32 { 3 }\n");
            }),
            between("a commit", |p| {
                p.write(".git/HEAD", "two");
            }),
            call("variables", |c, _| {
                c.env("USER", "somebody").env("GITHUB_SHA", "abc").env("LANG", "C")
            }),
            call("home", |c, w| c.env("HOME", w.at("bin")).env("TMPDIR", w.at("home"))),
            call("target directory", |c, w| c.env("CARGO_TARGET_DIR", w.at("elsewhere"))),
            call("jobs", |c, _| c.args(&["-j1", "-v"])),
        ],
    );
}

// Places ---------------------------------------------------------------------------------------

#[test]
fn another_place() {
    let world = world!();
    let one = workspace(&world, "one");
    world.cargo(&one, &BUILD).run().ok();
    let mut found = Vec::new();
    for name in ["deep/er/two", "a name with blanks", "ünï#c{o}d'e"] {
        let two = one.copy_to(world.at("checkouts").join(name));
        let done = world.cargo(&two, &BUILD).run().ok();
        found.extend(compiled(&world, &done, name));
    }
    let link = world.at("link");
    std::os::unix::fs::symlink(one.dir(), &link).unwrap();
    one.wipe();
    let done = world.cargo(&one, &BUILD).dir(&link).run().ok();
    found.extend(compiled(&world, &done, "behind a link"));
    let two = one.copy_to(world.at("checkouts/all"));
    let call =
        world.cargo(&two, &BUILD).env("HOME", world.at("bin")).env("CARGO_HOME", world.at("home"));
    let done =
        call.env("TMPDIR", world.at("cargo")).env("CARGO_TARGET_DIR", world.at("t")).run().ok();
    found.extend(compiled(&world, &done, "everything elsewhere"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The same published crates in two workspaces that have nothing to do with each other.
#[test]
fn the_same_crates_in_another_workspace() {
    let world = world!();
    let fetched = match registry::small(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    let one = small_workspace(&world, fetched);
    world.cargo(&one, &["build"]).run().ok();
    let two = one.copy_to(world.at("ws/two"));
    two.write(
        "one/src/lib.rs",
        "pub fn show(n: u8) -> String { itoa::Buffer::new().format(n).into() }\n",
    );
    two.write("notes.txt", "x");
    let done = world.cargo(&two, &["build"]).run().ok();
    world.assert_compiled(&done, &["one lib", "two bin"]);
}

// Orders of commands -----------------------------------------------------------------------------

#[test]
fn one_command_after_another() {
    let world = world!();
    let project = reading_workspace(&world);
    let commands: [&[&str]; 5] = [
        &["build"],
        &["check", "--all-targets"],
        &["clippy", "--all-targets"],
        &["test", "--no-run"],
        &["build", "--release"],
    ];
    for args in commands {
        world.cargo(&project, args).run().ok();
    }
    let mut found = Vec::new();
    for args in commands.iter().rev().chain(&commands) {
        project.wipe();
        let done = world.cargo(&project, args).run().ok();
        found.extend(compiled(&world, &done, &args.join(" ")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A jobserver that is not cargo's.
#[test]
fn under_make() {
    let make = std::path::Path::new("/usr/bin/make");
    if !make.exists() {
        skip!("no make");
    }
    let world = world!();
    let project = workspace(&world, "one");
    world.cargo(&project, &BUILD).run().ok();
    let cargo = kiln_tests::host::host().toolchain.join("cargo");
    project.write("Makefile", format!("all:\n\t+{} {}\n", cargo.display(), BUILD.join(" ")));
    for jobs in ["-j1", "-j3"] {
        project.wipe();
        let done = world.call(make, project.dir(), &[jobs]).run().ok();
        assert!(project.at("target/debug/app").exists());
        world.assert_all_hit(&done);
    }
}
