//! Theme: what shows where a checkout, an output directory or Kiln's own directory is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;

use kiln_tests::direct::{Desk, With, first_error, names};
use kiln_tests::host::host;
use kiln_tests::server::Server;
use kiln_tests::{Project, World, skip, world};

/// All dep-info files of cargo's target directory.
fn dep_info(project: &Project) -> String {
    let dir = project.at("target/debug/deps");
    let files = names(&dir).into_iter().filter(|name| name.ends_with(".d"));
    files.map(|name| std::fs::read_to_string(dir.join(name)).unwrap()).collect()
}

/// Builds a package in one place and then in another: there, dep-info must be as without Kiln,
/// cargo must see nothing to be built again, and the program must work.
fn check_dep_info(world: &World, first: &Project, second: &Project) {
    let data = |project: &Project| project.text("data");
    let build = |project: &Project| world.cargo(project, &["build"]).env("KT_DATA", data(project));
    build(first).run().ok();
    build(second).run().ok();
    let kiln = dep_info(second);
    assert!(!kiln.contains(&format!("{}/", first.text(""))), "{kiln}");
    let again = build(second).args(&["-v"]).run().ok();
    assert!(again.compiled().is_empty(), "{}", again.stderr);
    assert!(!again.stderr.contains("Dirty"), "{}", again.stderr);
    let program = world.call(second.at("target/debug/app"), second.dir(), &[]).run().ok();
    assert_eq!(program.stdout, "7 x\n");
    second.wipe();
    world.plain_cargo(second, &["build"]).env("KT_DATA", data(second)).run().ok();
    assert_eq!(kiln, dep_info(second));
}

fn package_with_build_script(project: &Project) {
    project.package("app", "");
    project.write(
        "build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
         std::fs::write(out + \"/g.rs\", \"pub const X: u32 = 7;\").unwrap();\n}\n",
    );
    project.write("data/x", "x");
    project.write(
        "src/main.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/g.rs\"));\n\
         fn main() { println!(\"{} {}\", X, include_str!(concat!(env!(\"KT_DATA\"), \"/x\"))) }\n",
    );
}

#[test]
fn dep_info_of_a_checkout_with_a_blank_after_one_without() {
    let world = world!();
    let (plain, blank) = (world.project("a"), world.project("b c"));
    package_with_build_script(&plain);
    package_with_build_script(&blank);
    check_dep_info(&world, &plain, &blank);
}

#[test]
fn dep_info_of_a_checkout_without_a_blank_after_one_with() {
    let world = world!();
    let (plain, blank) = (world.project("a"), world.project("b c"));
    package_with_build_script(&plain);
    package_with_build_script(&blank);
    check_dep_info(&world, &blank, &plain);
}

/// The run path to the compiler's libraries is relative to where the program is.
#[test]
fn a_run_path_at_another_depth() {
    let desk = Desk::new(world!());
    let build = |with: With, dir: &str| {
        desk.write(&format!("{dir}/src/main.rs"), "fn main() { print!(\"ok\") }\n");
        let out = desk.empty(&format!("{dir}/out"));
        let args = format!(
            "--crate-name m --emit=dep-info,link --out-dir {} -Cprefer-dynamic -Crpath src/main.rs",
            out.display()
        );
        desk.call(with, &args).dir(&desk.project.at(dir)).run().ok();
        desk.prints(&format!("{dir}/out/m"))
    };
    assert_eq!(build(With::Nothing, "x/y/z"), "ok");
    assert_eq!(build(With::Kiln, "a"), "ok");
    assert_eq!(build(With::Kiln, "x/y/z"), "ok");
    assert_eq!(build(With::Kiln, "x/y"), "ok");
}

/// Macros of a dependency, out of sight of whoever looks at the sources of the crate alone.
const DEPENDENCY: &str = "#[macro_export]\nmacro_rules! length { () => { env!(\"KT_ROOTED\").len() } }\n\
    #[macro_export]\nmacro_rules! length_of { ($l:literal) => { env!($l).len() } }\n";

/// A program that bakes the length of a variable that lies below the checkout.
fn check_length(variable: &str, code: &str) {
    let desk = Desk::new(world!());
    let code = code.replace("KT_ROOTED", variable);
    let main = format!(
        "include!(concat!(env!(\"{variable}\"), \"/g.rs\"));\n{code}\nfn main() {{ print!(\"{{}}\", L + X as usize) }}\n"
    );
    let build = |with: With, dir: &str| {
        desk.write(&format!("{dir}/src/main.rs"), &main);
        desk.write(&format!("{dir}/dep.rs"), DEPENDENCY.replace("KT_ROOTED", variable));
        let out = desk.empty(&format!("{dir}/out")).display().to_string();
        desk.write(&format!("{dir}/out/gen/g.rs"), "pub const X: u32 = 1;\n");
        let run = |args: &str| {
            let call = desk.call(with, &format!("--edition=2021 --out-dir {out} {args}"));
            call.dir(&desk.project.at(dir)).env(variable, format!("{out}/gen")).run().ok();
        };
        run("--crate-name d --crate-type lib --emit=dep-info,metadata,link dep.rs");
        run(&format!("--crate-name m --emit=dep-info,link --extern d={out}/libd.rlib src/main.rs"));
        desk.prints(&format!("{dir}/out/m"))
    };
    let first = build(With::Kiln, "a");
    assert_eq!(first, build(With::Nothing, "a"), "{variable}: {code}");
    let second = build(With::Kiln, "bb/ccccc");
    assert_eq!(second, build(With::Nothing, "bb/ccccc"), "{variable}: {code}");
    assert_ne!(first, second, "{variable}: {code}");
}

/// Variables with a path of the checkout that are not only used to include files.
fn check_lengths(code: &str) {
    for variable in ["OUT_DIR", "CARGO_MANIFEST_DIR", "KT_GENERATED"] {
        check_length(variable, code);
    }
}

#[test]
fn the_length_of_a_variable() {
    check_lengths("const L: usize = env!(\"KT_ROOTED\").len();");
    check_lengths("const L: usize = option_env!(\"KT_ROOTED\").unwrap().len();");
}

#[test]
fn the_length_of_a_variable_whose_name_is_put_together() {
    check_length("OUT_DIR", "const L: usize = env!(concat!(\"OUT\", \"_DIR\")).len();");
    check_lengths("const L: usize = env!(stringify!(KT_ROOTED)).len();");
}

#[test]
fn the_length_of_a_variable_whose_name_is_escaped() {
    check_length("OUT_DIR", "const L: usize = env!(\"OUT\\x5fDIR\").len();");
    check_length("OUT_DIR", "const L: usize = env!(r#\"OUT_DIR\"#).len();");
}

#[test]
fn the_length_of_a_variable_taken_by_a_macro_of_a_dependency() {
    check_lengths("const L: usize = d::length!();");
    check_lengths("const L: usize = d::length_of!(\"KT_ROOTED\");");
}

#[test]
fn the_length_of_a_variable_in_macros_that_are_named_like_others() {
    check_lengths(
        "mod q { macro_rules! include_str { ($e:expr) => { $e.len() } } pub const L: usize = include_str!(env!(\"KT_ROOTED\")); }\nuse q::L;",
    );
    check_lengths(
        "const L: usize = { macro_rules! w { (include_str!($e:expr)) => { $e.len() } } w!(include_str!(env!(\"KT_ROOTED\"))) };",
    );
}

#[test]
fn the_length_of_a_variable_in_a_macro_that_repeats_its_input() {
    check_lengths(
        "macro_rules! e { ($($t:tt)*) => { $($t)* } }\nconst L: usize = e!(env!(\"KT_ROOTED\")).len();",
    );
}

/// A variable that the arguments set.
#[test]
fn the_length_of_a_variable_set_by_an_argument() {
    let desk = Desk::new(world!());
    desk.set("RUSTC_BOOTSTRAP", "1");
    let build = |with: With, dir: &str| {
        desk.write(
            &format!("{dir}/m.rs"),
            "fn main() { print!(\"{}\", env!(\"KT_SET\").len()) }\n",
        );
        let (dir, out) = (desk.project.at(dir), desk.empty(&format!("{dir}/out")));
        let args = format!(
            "--crate-name m --emit=dep-info,link --out-dir {} -Zunstable-options",
            out.display()
        );
        let set = format!("--env-set KT_SET={}/a m.rs", dir.display());
        desk.call(with, &format!("{args} {set}")).dir(&dir).run().ok();
        desk.prints(out.join("m").to_str().unwrap())
    };
    let first = build(With::Kiln, "a");
    let second = build(With::Kiln, "bb22");
    assert_eq!(second, build(With::Nothing, "bb22"));
    assert_ne!(first, second);
}

/// A dependency outside of the workspace finds a file by the name of its own source.
#[test]
fn a_file_included_by_the_name_of_the_source() {
    let world = world!();
    let (dep, app) = (world.project("dep"), world.project("app"));
    dep.package("dep", "").write("src/lib.rs.txt", "one\n");
    dep.write("src/lib.rs", "pub const T: &str = include_str!(concat!(file!(), \".txt\"));\npub const F: &str = file!();\n");
    app.package("app", "\n[dependencies]\ndep = { path = \"../dep\" }\n\n[workspace]\n");
    app.write("src/main.rs", "fn main() { print!(\"{}\", dep::T) }\n");
    let build = || {
        app.wipe();
        let done = world.cargo(&app, &["build", "-q"]).run().ok();
        assert_eq!(done.stderr, "");
        world.call(app.at("target/debug/app"), app.dir(), &[]).run().ok().stdout
    };
    for _ in 0..3 {
        assert_eq!(build(), "one\n");
    }
    dep.write("src/lib.rs.txt", "two\n");
    for _ in 0..2 {
        assert_eq!(build(), "two\n");
    }
}

/// Below the checkout there is a directory that repeats the place of another root, as below a
/// `rootfs`.
#[test]
fn a_directory_that_repeats_another_root() {
    let desk = Desk::new(world!());
    let home = "/srv/kt-mirrored";
    let build = |with: With, dir: &str, home: &str| {
        desk.write(&format!("{dir}/m.rs"), "#[path = \"srv/kt-mirrored/src/l.rs\"]\nmod l;\ninclude!(concat!(env!(\"KT_HERE\"), \"/srv/kt-mirrored/i.rs\"));\nfn main() {}\n");
        desk.write(&format!("{dir}/srv/kt-mirrored/src/l.rs"), "pub fn f() { let x = 1; }\n");
        desk.write(&format!("{dir}/srv/kt-mirrored/i.rs"), "pub fn i() { let y = 2; }\n");
        desk.empty(&format!("{dir}/out"));
        let call = desk.call(with, "--crate-name m --emit=dep-info,link --out-dir out m.rs");
        let done = call
            .dir(&desk.project.at(dir))
            .env("HOME", home)
            .env("KT_HERE", desk.text(dir))
            .run()
            .ok();
        let dep_info = desk.project.read(&format!("{dir}/out/m.d"));
        done.stderr + &String::from_utf8(dep_info).unwrap()
    };
    build(With::Kiln, "a", home);
    for other in ["/elsewhere/home", home] {
        assert_eq!(build(With::Kiln, "b", other), build(With::Nothing, "b", other), "{other}");
    }
}

/// Ends the server of a directory that is not that of the world.
struct Served(PathBuf);

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(server) = Server::of(&self.0) {
            server.kill_if_alive();
        }
    }
}

#[test]
fn a_state_directory_with_an_odd_name() {
    for name in ["a,b", "x y", "ü\"q'", "a=b", "$h", "b\\s", "n\nl", "-d", "a:b"] {
        let desk = Desk::new(world!());
        desk.write("l.rs", "pub fn f() {}\n");
        let served = Served(desk.world.at(name));
        desk.set("KILN_DIR", served.0.to_str().unwrap());
        for emit in ["link", "metadata,link", "dep-info,metadata,link"] {
            let build = |with: With| {
                desk.empty("out");
                let args =
                    format!("--crate-name l --crate-type lib --emit={emit} --out-dir out l.rs");
                let done = desk.call(with, &args).run();
                let error = first_error(&done).unwrap_or_default();
                format!(
                    "{name:?}: {} {error} {}{}",
                    done.status,
                    done.stderr,
                    names(&desk.project.at("out")).join(" ")
                )
            };
            desk.same(build);
            desk.same(build);
        }
    }
}

/// Removes a directory outside of the world.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Dep-info and the notices of artifacts name the directory of the outputs, wherever it is.
fn check_output_dirs(desk: &Desk, dirs: &[&str]) {
    desk.write("l.rs", "pub fn f() {}\n");
    let build = |with: With, dir: &str| {
        let at = desk.project.at(dir);
        let _ = std::fs::remove_dir_all(&at);
        std::fs::create_dir_all(&at).unwrap();
        let args = "--crate-name l --crate-type lib --error-format=json --json=artifacts --emit=dep-info,metadata,link";
        let done = desk.call(with, &format!("{args} --out-dir {dir} l.rs")).run().ok();
        done.stderr + &std::fs::read_to_string(at.join("l.d")).unwrap() + &names(&at).join(" ")
    };
    for dir in dirs.iter().chain(dirs) {
        assert_eq!(build(With::Kiln, dir), build(With::Nothing, dir), "{dir}");
    }
}

#[test]
fn relative_output_directories() {
    let desk = Desk::new(world!());
    let (absolute, dotted) = (desk.text("o1"), format!("{}/../x/o1", desk.text("")));
    check_output_dirs(
        &desk,
        &["o1", "o2", &absolute, "./o1", "o2/../o1", "../other", &dotted, "o1/", "o1//sub"],
    );
}

#[test]
fn output_directories_of_one_component() {
    if !host().is_root {
        skip!("only root may make directories in /");
    }
    let desk = Desk::new(world!());
    let dirs =
        ["1", "2"].map(|n| Removed(format!("/kiln-tests-{}-{n}", std::process::id()).into()));
    if std::fs::create_dir(&dirs[0].0).is_err() {
        skip!("no directory can be made in /");
    }
    check_output_dirs(&desk, &dirs.each_ref().map(|dir| dir.0.to_str().unwrap()));
}

/// The names of split debug information are in the program.
#[test]
fn relative_output_directories_of_split_debug_information() {
    let desk = Desk::new(world!());
    desk.write("m.rs", "fn main() { print!(\"x\") }\n");
    let (one, two) = (desk.text("e1"), desk.text("e2"));
    for pair in [["d1", "d2"], [&one, &two]] {
        for dir in pair {
            desk.empty("d1");
            desk.empty("d2");
            desk.empty("e1");
            desk.empty("e2");
            let args =
                "--crate-name m -g -Csplit-debuginfo=unpacked --emit=dep-info,link --out-dir";
            desk.rustc(With::Kiln, &format!("{args} {dir} m.rs"));
            let other = if dir == pair[0] { pair[1] } else { pair[0] };
            let program = std::fs::read(desk.project.at(dir).join("m")).unwrap();
            let has = |text: &str| program.windows(text.len()).any(|w| w == text.as_bytes());
            assert!(!has(&format!("{other}/m.")), "{dir} holds names of {other}");
        }
    }
}
