//! Theme: `kiln explain` names the true cause of every miss, and the crate where the chain began.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_tests::toolchain::toolchain;
use kiln_tests::{Call, Done, Project, World, samples, world};
use serde_json::Value;

const LOW: &str = "low/src/lib.rs";

/// Three packages in a row, and what is asked about their builds.
struct Chain {
    world: World,
    project: Project,
}

impl Chain {
    /// The library of `low` has this source.
    fn new(low: &str) -> Self {
        let world = world!();
        let project = samples::chain(&world, "app", "low::n()");
        project.write(LOW, low);
        Self { world, project }
    }

    /// The library of `low` returns a number.
    fn plain() -> Self {
        Self::new("pub fn n() -> i32 { 1 }\n")
    }

    /// Builds from nothing, in a changed way.
    #[track_caller]
    fn build_with(&self, args: &[&str], change: impl FnOnce(Call) -> Call) -> Done {
        self.project.wipe();
        change(self.world.cargo(&self.project, args)).run().ok()
    }

    #[track_caller]
    fn build(&self) -> Done {
        self.build_with(&["build"], |call| call)
    }

    #[track_caller]
    fn explain(&self) -> Value {
        let done = self.world.kiln(&["explain", "--format", "json"]).run().ok();
        serde_json::from_str(&done.stdout).unwrap()
    }

    #[track_caller]
    fn text(&self, args: &[&str]) -> String {
        self.world.kiln(&[&["explain"], args].concat()).run().ok().stdout
    }

    /// The last build was compiled for one reason, which began in some crates and led to others.
    #[track_caller]
    fn is(&self, what: (&str, &str), values: (&str, &str), began: &[&str], then: &[&str]) {
        let explanation = self.explain();
        let chains = explanation["chains"].as_array().unwrap();
        assert_eq!(chains.len(), 1, "{explanation:#}");
        let cause = &chains[0]["cause"];
        let text = |key: &str| cause[key].as_str().unwrap_or_default().to_owned();
        assert_eq!((text("kind"), text("name")), (what.0.into(), what.1.into()), "{cause:#}");
        let shown = |value: &Value| match value.as_str() {
            None => "-".to_owned(),
            Some(text) if text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                "#".to_owned()
            }
            Some(text) => text.to_owned(),
        };
        assert_eq!(
            (shown(&cause["then"]), shown(&cause["now"])),
            (values.0.into(), values.1.into())
        );
        assert_eq!(names(&chains[0]["began_in"]), began, "{explanation:#}");
        assert_eq!(names(&chains[0]["then"]), then, "{explanation:#}");
    }

    /// It began in `low`, and the others followed.
    #[track_caller]
    fn is_of_low(&self, kind: &str, name: &str, values: (&str, &str)) {
        self.is((kind, name), values, &["low"], &["app", "mid"]);
    }
}

/// Names of crates, sorted.
fn names(units: &Value) -> Vec<String> {
    let units = units.as_array().unwrap();
    let mut names: Vec<String> =
        units.iter().map(|unit| unit["crate_name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

const ALL: &[&str] = &["app", "low", "mid"];

#[test]
fn a_first_compile_then_none() {
    let chain = Chain::plain();
    assert!(chain.text(&[]).contains("no units are known"));
    chain.build();
    chain.is(("first", ""), ("-", "-"), ALL, &[]);
    assert!(chain.text(&[]).contains("first compile"), "{}", chain.text(&[]));
    chain.build();
    let explanation = chain.explain();
    assert_eq!((&explanation["hits"], &explanation["units"]), (&3.into(), &3.into()));
    assert!(chain.text(&[]).contains("Everything came from the cache"), "{}", chain.text(&[]));
}

#[test]
fn a_source() {
    let chain = Chain::plain();
    chain.build();
    chain.project.write(LOW, "pub fn n() -> i32 { 2 }\n");
    chain.build();
    chain.is_of_low("file", "<workspace>/low/src/lib.rs", ("#", "#"));
    let text = chain.text(&[]);
    for part in [
        "3 units: 0 from the cache, 3 compiled",
        "1. file low/src/lib.rs changed (",
        "in     low 0.1.0 (lib)",
        "then   2 units: ",
        "mid 0.1.0 (lib)",
        "app 0.1.0 (bin)",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let stats = chain.world.kiln(&["stats"]).run().ok().stdout;
    assert!(stats.contains("kiln explain"), "{stats}");
}

/// The same without a wiped target directory: what cargo finds fresh has no event.
#[test]
fn a_source_in_a_build_that_goes_on() {
    let chain = Chain::plain();
    let build = |args: &[&str]| chain.world.cargo(&chain.project, args).run().ok();
    build(&["build"]);
    chain.project.write(LOW, "pub fn n() -> i32 { 2 }\n");
    build(&["build", "-p", "low"]);
    chain.is(("file", "<workspace>/low/src/lib.rs"), ("#", "#"), &["low"], &[]);
    build(&["build"]);
    let explanation = chain.explain();
    let text = explanation["chains"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("crate file liblow-"), "{text}");
    assert!(text.ends_with("compiled before this build"), "{text}");
    assert_eq!(explanation["misses"], 2);
}

#[test]
fn a_variable() {
    let chain =
        Chain::new("pub fn n() -> i32 { option_env!(\"KT_V\").map_or(0, |v| v.len() as i32) }\n");
    chain.build();
    let set = |value: &'static str| chain.build_with(&["build"], |call| call.env("KT_V", value));
    set("");
    chain.is_of_low("variable", "KT_V", ("unset", "empty"));
    set("secret");
    chain.is_of_low("variable", "KT_V", ("empty", "#"));
    assert!(!chain.text(&[]).contains("secret"));
    set("secret2");
    chain.is_of_low("variable", "KT_V", ("#", "#"));
}

#[test]
fn an_included_file() {
    let chain = Chain::new("pub fn n() -> i32 { include_str!(\"note.txt\").len() as i32 }\n");
    chain.project.write("low/src/note.txt", "one");
    chain.build();
    chain.project.write("low/src/note.txt", "three");
    chain.build();
    chain.is_of_low("file", "<workspace>/low/src/note.txt", ("#", "#"));
}

#[test]
fn a_module_that_moves() {
    let chain = Chain::new("mod foo;\npub use foo::n;\n");
    let module = "pub fn n() -> i32 { 1 }\n";
    chain.project.write("low/src/foo.rs", module);
    chain.build();
    chain.project.remove("low/src/foo.rs").write("low/src/foo/mod.rs", module);
    chain.build();
    let explanation = chain.explain();
    let low = &explanation["chains"][0];
    assert_eq!(
        (names(&low["began_in"]), names(&low["then"])),
        (vec!["low".to_owned()], vec!["app".to_owned(), "mid".to_owned()])
    );
    let told = |at: &Value| at["text"].as_str().unwrap().to_owned();
    let mut texts = vec![told(&low["cause"]), told(&low["also"][0])];
    texts.sort_unstable();
    assert_eq!(texts, ["file low/src/foo.rs is gone", "file low/src/foo/mod.rs appeared"]);
}

/// Settings of clippy that are deleted.
#[test]
fn a_deleted_file() {
    let chain = Chain::plain();
    chain.project.write("low/clippy.toml", "too-many-arguments-threshold = 2\n");
    chain.build_with(&["clippy"], |call| call);
    chain.project.remove("low/clippy.toml");
    chain.build_with(&["clippy"], |call| call);
    let explanation = chain.explain();
    let text = explanation["chains"][0]["text"].as_str().unwrap();
    assert!(text.contains("clippy.toml") && text.ends_with("is gone"), "{explanation:#}");
    assert_eq!(names(&explanation["chains"][0]["began_in"]), ["low"]);
}

#[test]
fn a_feature() {
    let chain = Chain::plain();
    let append = |file: &str, more: &str| {
        let text = String::from_utf8(chain.project.read(file)).unwrap();
        chain.project.write(file, text + more);
    };
    append("low/Cargo.toml", "\n[features]\nkt = []\n");
    chain.build();
    let mid = String::from_utf8(chain.project.read("mid/Cargo.toml")).unwrap();
    let mid = mid.replace("path = \"../low\"", "path = \"../low\", features = [\"kt\"]");
    chain.project.write("mid/Cargo.toml", mid);
    chain.build();
    chain.is_of_low("feature", "kt", ("-", "given"));
    assert!(chain.text(&[]).contains("feature \"kt\" added"));
}

#[test]
fn flags() {
    let chain = Chain::plain();
    chain.build();
    let flags = |flags: &'static str| chain.build_with(&["build"], |c| c.env("RUSTFLAGS", flags));
    flags("-Copt-level=1");
    chain.is(("argument", "-C opt-level"), ("-", "1"), ALL, &[]);
    flags("-Copt-level=2");
    chain.is(("argument", "-C opt-level"), ("1", "2"), ALL, &[]);
    flags("-Copt-level=2 --cfg=kt --check-cfg=cfg(kt)");
    chain.is(("argument", "--cfg kt"), ("-", "given"), ALL, &[]);
}

#[test]
fn a_profile() {
    let chain = Chain::plain();
    chain.build();
    chain.build_with(&["build", "--release"], |call| call);
    chain.is(("argument", "-C opt-level"), ("-", "3"), ALL, &[]);
    let manifest = String::from_utf8(chain.project.read("Cargo.toml")).unwrap();
    chain.project.write("Cargo.toml", manifest + "\n[profile.dev]\noverflow-checks = false\n");
    chain.build();
    chain.is(("argument", "-C overflow-checks"), ("-", "off"), ALL, &[]);
    chain.build_with(&["check"], |call| call);
    let explanation = chain.explain();
    let text = explanation["compiled"][0]["causes"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("first compile as ") && text.contains(": stored so far as "),
        "{text}"
    );
    assert_eq!(names(&explanation["chains"][0]["began_in"]), ALL, "{explanation:#}");
}

#[test]
fn another_version() {
    let chain = Chain::plain();
    chain.build();
    let manifest = String::from_utf8(chain.project.read("low/Cargo.toml")).unwrap();
    chain.project.write("low/Cargo.toml", manifest.replace("0.1.0", "0.2.0"));
    chain.build();
    chain.is_of_low("version", "", ("0.1.0", "0.2.0"));
}

/// Two compilers that say the same of themselves.
#[test]
fn another_toolchain() {
    let chain = Chain::plain();
    let bins = ["one", "two"].map(|name| toolchain(chain.world.at(name), name.as_bytes()));
    let build = |bin: &Path| {
        std::fs::write(chain.world.bin().join("toolchain"), bin.to_str().unwrap()).unwrap();
        chain.build()
    };
    build(&bins[0]);
    build(&bins[1]);
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    assert_eq!(explanation["chains"].as_array().unwrap().len(), 1, "{explanation:#}");
    assert_eq!(
        (names(&first["began_in"]), &first["cause"]["kind"]),
        (ALL.iter().map(ToString::to_string).collect(), &"compiler".into())
    );
    let (then, now) =
        (first["cause"]["then"].as_str().unwrap(), first["cause"]["now"].as_str().unwrap());
    assert!(then.starts_with("rustc ") && now.starts_with("rustc ") && then != now, "{first:#}");
    assert_eq!(then.rsplit_once(' ').unwrap().0, now.rsplit_once(' ').unwrap().0);
}

/// `low` bundles an archive that its build script names.
#[test]
fn a_static_library() {
    let chain = Chain::new(
        "extern \"C\" { fn answer() -> i32; }\npub fn n() -> i32 { unsafe { answer() } }\n",
    );
    chain.project.write(
        "low/build.rs",
        "fn main() {\n    let here = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n    \
         println!(\"cargo::rustc-link-search=native={here}/lib\\ncargo::rustc-link-lib=static=answer\");\n}\n",
    );
    for n in [1, 2] {
        let scratch = chain.world.project(&format!("c{n}"));
        scratch.write("a.c", format!("int answer(void) {{ return {n}; }}\n"));
        chain.world.call("/usr/bin/cc", scratch.dir(), &["-c", "a.c", "-o", "a.o"]).run().ok();
        chain.world.call("/usr/bin/ar", scratch.dir(), &["crs", "liba.a", "a.o"]).run().ok();
        chain.project.write("low/lib/libanswer.a", scratch.read("liba.a"));
        chain.build();
    }
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    // cargo hands the directory to `mid`, too; `app` links what the others made of it.
    assert_eq!(explanation["chains"].as_array().unwrap().len(), 1, "{explanation:#}");
    assert_eq!(names(&first["began_in"]), ["low", "mid"], "{explanation:#}");
    assert_eq!(names(&first["then"]), ["app"], "{explanation:#}");
    let text = first["text"].as_str().unwrap();
    assert!(
        text.starts_with("files below low/lib changed")
            || text.starts_with("file low/lib/libanswer.a changed"),
        "{text}"
    );
}

#[test]
fn a_linker() {
    let chain = Chain::plain();
    let linker = |more: &str| {
        let path = chain.world.at("kt-cc");
        std::fs::write(&path, format!("#!/bin/sh\nexec /usr/bin/cc \"$@\" {more}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let flag = format!("-Clinker={}", path.display());
        chain.build_with(&["build"], |call| call.env("RUSTFLAGS", flag))
    };
    linker("");
    linker("-Wl,--defsym,kt=1");
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    assert_eq!(
        (names(&first["began_in"]), &explanation["hits"]),
        (vec!["app".to_owned()], &2.into())
    );
    assert!(first["cause"]["name"].as_str().unwrap().ends_with("/kt-cc"), "{first:#}");
    chain.build();
    let explanation = chain.explain();
    let texts = explanation["chains"][0]["text"].as_str().unwrap();
    assert!(texts.starts_with("argument -C linker="), "{explanation:#}");
}

/// What a build script wrote ends the chain: it is no crate.
#[test]
fn a_generated_file() {
    let chain =
        Chain::new("pub fn n() -> i32 { include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\")) }\n");
    chain.project.write(
        "low/build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-env-changed=KT_N\");\n    \
         let n = std::env::var(\"KT_N\").unwrap();\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", n).unwrap();\n}\n",
    );
    for n in ["1", "2"] {
        chain.build_with(&["build"], |call| call.env("KT_N", n));
    }
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    let name = first["cause"]["name"].as_str().unwrap();
    assert!(name.starts_with("<target>/debug/build/low-") && name.ends_with("/out/n.rs"), "{name}");
    assert_eq!(names(&first["then"]), ["app", "mid"]);
    assert!(first["hint"].as_str().unwrap().contains("build script"));
}

/// A crate that came from the cache, and is not the one that its dependents were compiled with.
#[test]
fn a_change_that_was_taken_back() {
    let chain = Chain::plain();
    let state = |low: u32, mid: u32| {
        chain.project.write(LOW, format!("pub fn n() -> i32 {{ {low} }}\n"));
        chain
            .project
            .write("mid/src/lib.rs", format!("pub fn n() -> i32 {{ low::n() + {mid} }}\n"));
        chain.build();
    };
    state(1, 1);
    state(2, 2);
    state(1, 2);
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    assert_eq!(explanation["hits"], 1, "{explanation:#}");
    assert_eq!(first["begins_with"], "restored", "{explanation:#}");
    assert_eq!(
        (names(&first["began_in"]), names(&first["then"])),
        (vec!["low".into()], vec!["app".into(), "mid".into()])
    );
}

#[test]
fn what_is_not_cached() {
    let chain = Chain::plain();
    chain.build_with(&["build"], |call| call.env("CARGO_INCREMENTAL", "1"));
    let explanation = chain.explain();
    let first = &explanation["chains"][0];
    assert_eq!(
        (&first["begins_with"], &first["reason"]),
        (&"reason".into(), &"incremental".into())
    );
    assert_eq!((names(&first["began_in"]).len(), &explanation["bypasses"]), (3, &3.into()));
    assert!(chain.text(&[]).contains("set CARGO_INCREMENTAL=0"), "{}", chain.text(&[]));
}

#[test]
fn one_crate_and_an_unknown_one() {
    let chain = Chain::plain();
    chain.build();
    chain.project.write(LOW, "pub fn n() -> i32 { 2 }\n");
    chain.build();
    let text = chain.text(&["app"]);
    assert!(text.starts_with("app 0.1.0 (bin): compiled in "), "{text}");
    for part in
        ["crate file lib", "it followed from low 0.1.0 (lib)", "file low/src/lib.rs changed"]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("mid 0.1.0 (lib):"), "{text}");
    let done = chain.world.kiln(&["explain", "lwo"]).run().fails();
    assert!(
        done.stderr.contains("\"lwo\"") && done.stderr.contains("there is low"),
        "{}",
        done.stderr
    );
    let done = chain.world.kiln(&["explain", "--build", "none"]).run().fails();
    assert!(done.stderr.contains("no build \"none\" is known"), "{}", done.stderr);
    let build = chain.explain()["build"].as_str().unwrap().to_owned();
    assert_eq!(chain.text(&["app", "--build", &build]), text);
}

/// Whatever a crate calls its variables, a terminal is not told what to do.
#[test]
fn hostile_names() {
    let name = "KT\u{1b}[31m\u{9b}2J\u{202e}";
    let chain = Chain::new(&format!(
        "pub fn n() -> i32 {{ option_env!({name:?}).map_or(0, |v| v.len() as i32) }}\n"
    ));
    chain.build();
    chain.build_with(&["build"], |call| call.env(name, "1"));
    let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for args in
        [&["explain"][..], &["explain", "low"], &["explain", "--format", "json"], &["stats"]]
    {
        let done = chain.world.kiln(args).run().ok();
        assert!(!done.stdout.contains(odd), "{:?}", done.stdout);
    }
    chain.is_of_low("variable", name, ("unset", "#"));
    let done = chain.world.kiln(&["explain", "\u{1b}[31m"]).run().fails();
    assert!(!done.stderr.contains(odd), "{:?}", done.stderr);
}

/// The result was there, and its files are no longer.
#[test]
fn a_result_that_is_gone() {
    let chain = Chain::plain();
    chain.build();
    chain.world.stop_server();
    std::fs::remove_dir_all(chain.world.kiln_dir().join("store/blobs")).unwrap();
    std::fs::remove_file(chain.world.kiln_dir().join("index.sqlite")).unwrap();
    chain.build();
    chain.is(("gone", ""), ("-", "-"), ALL, &[]);
    assert!(chain.text(&[]).contains("KILN_CACHE_SIZE"), "{}", chain.text(&[]));
}

/// Nothing was asked for before the build, and a server that is new knows it all the same.
#[test]
fn another_server_of_the_same_place() {
    let chain = Chain::plain();
    chain.build();
    chain.world.stop_server();
    chain.project.write(LOW, "pub fn n() -> i32 { 2 }\n");
    chain.build();
    chain.world.stop_server();
    chain.is_of_low("file", "<workspace>/low/src/lib.rs", ("#", "#"));
}
