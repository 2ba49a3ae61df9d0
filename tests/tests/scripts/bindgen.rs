//! Theme: a build script that makes bindings to C: libclang is loaded into it, and rustfmt runs, through
//! rustup where that is how people have it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;

use kiln_tests::host::host;
use kiln_tests::project::files_below;
use kiln_tests::{Call, Project, World, registry, skip, world};

const SCRIPT: &str = r#"
use std::{env, fs, io::Write, path::Path};
fn main() {
    let mut tally = fs::OpenOptions::new().create(true).append(true).open("TALLY").unwrap();
    tally.write_all(b"x").unwrap();
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("bindings.rs");
    bindgen::Builder::default().header("all.h").clang_arg("-Iinclude").generate().unwrap()
        .write_to_file(out).unwrap();
}
"#;

const PROGRAM: &str = r#"
#![allow(non_camel_case_types)]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
fn main() { println!("{}", std::mem::size_of::<deep_t>()); }
"#;

/// libclang as clang-sys finds it: by its directory.
fn libclang() -> Option<PathBuf> {
    let llvm = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("lib"));
    let dirs = llvm.chain(["/usr/lib64", "/usr/lib"].map(PathBuf::from));
    let has = |dir: &PathBuf| {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy();
            // `libclang-cpp` is another library.
            let numbered = name.strip_prefix("libclang-").filter(|rest| rest.contains(".so"));
            name.starts_with("libclang.so")
                || numbered.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    dirs.filter(|dir| dir.starts_with("/usr/lib64") || dir.components().count() > 3).find(has)
}

/// Where rustup's stand-ins for the tools are, with its home, when the toolchain is one of its.
fn rustup() -> Option<(PathBuf, PathBuf)> {
    let home = host().toolchain.ancestors().nth(3)?.to_owned();
    let stand_ins = host().cargo_home.as_ref()?.join("bin");
    (home.join("settings.toml").is_file() && stand_ins.join("rustfmt").exists())
        .then_some((stand_ins, home))
}

struct Story {
    world: World,
    project: Project,
    libclang: PathBuf,
    runs: usize,
}

impl Story {
    fn cargo(&self) -> Call {
        let call = self.world.cargo(&self.project, &["build"]).env("LIBCLANG_PATH", &self.libclang);
        match rustup() {
            Some((stand_ins, home)) => call.env("RUSTUP_HOME", home).path_first(&stand_ins),
            None => call,
        }
    }

    /// Builds from nothing; whether the script ran, and what the program prints.
    fn build(&mut self) -> (bool, String) {
        self.project.wipe();
        self.cargo().run().ok();
        let runs = self.world.at("tally").metadata().map_or(0, |meta| meta.len() as usize);
        let ran = runs != std::mem::replace(&mut self.runs, runs);
        let program = self.project.at("target/debug/bindgen");
        (ran, self.world.call(program, self.project.dir(), &[]).run().ok().stdout)
    }

    fn bindings(&self) -> String {
        let below = self.project.at("target/debug/build");
        let is_it = |file: &PathBuf| file.ends_with("out/bindings.rs");
        let file = files_below(&below).into_iter().find(is_it).unwrap();
        std::fs::read_to_string(below.join(file)).unwrap()
    }
}

#[test]
fn bindings_are_made_again_when_a_header_behind_an_include_path_changes() {
    let world = world!();
    let Some(libclang) = libclang() else { skip!("no libclang below /usr/lib") };
    let fetched = match registry::bindgen(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(fetched);
    let project = fetched.copy_to(world.at("ws/one"));
    let manifest = String::from_utf8(project.read("Cargo.toml")).unwrap();
    let manifest = manifest.replace("[dependencies]", "[build-dependencies]");
    let script = SCRIPT.replace("TALLY", world.at("tally").to_str().unwrap());
    let header = |member: &str| format!("typedef struct {{ {member} }} deep_t;\n");
    project.remove("fetched").remove("src/lib.rs").write("Cargo.toml", manifest);
    project.write("build.rs", script).write("src/main.rs", PROGRAM);
    project.write("all.h", "#include <deep.h>\n").write("include/deep.h", header("char a[4];"));
    let mut story = Story { world, project, libclang, runs: 0 };
    assert_eq!(story.build(), (true, "4\n".into()));
    let bindings = story.bindings();
    assert!(bindings.contains("    pub a:"), "rustfmt laid it out: {bindings}");
    assert_eq!(story.build(), (false, "4\n".into()), "{}", why(&story.world));
    assert_eq!(story.bindings(), bindings);
    story.project.write("include/deep.h", header("char a[4]; char b[3];"));
    assert_eq!(story.build(), (true, "7\n".into()));
    // A header that is found earlier.
    story.project.write("deep.h", header("char c[9];")).write("all.h", "#include \"deep.h\"\n");
    assert_eq!(story.build(), (true, "9\n".into()));
    story.project.remove("deep.h");
    assert_eq!(story.build(), (true, "7\n".into()));
    story
        .project
        .write("all.h", "#include <deep.h>\n")
        .write("include/deep.h", header("char a[4];"));
    assert_eq!(story.build(), (false, "4\n".into()), "{}", why(&story.world));
    assert_eq!(story.bindings(), bindings);
}

/// What Kiln says of the last build.
fn why(world: &World) -> String {
    world.kiln(&["explain"]).run().stdout
}
