//! Theme: what build scripts ask the compiler. Their tries are answered from the cache, those too that
//! fail on purpose; their questions for the version likewise; and the Kiln around a script is told what
//! was read for it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln::notes::{Note, Notes};
use kiln_storage::record::{Member, TokenPath};
use kiln_tests::mount::Mount;
use kiln_tests::server::wait_until;
use kiln_tests::{Call, Done, Project, Run, World, registry, skip, world};

/// A package whose build script asks.
struct Script {
    world: World,
    project: Project,
}

impl Script {
    fn new(world: World) -> Self {
        let project = world.project("p");
        project.write("out/.keep", "");
        let script = Self { world, project };
        // Who the compiler is, is asked once.
        script.call("--crate-name=known --crate-type=lib --emit=metadata -").run().ok();
        // The server takes outputs over behind the wrapper's back; a failure has none.
        wait_until("the first result is stored", || script.stored() == 1);
        script
    }

    /// How many results there are.
    fn stored(&self) -> u64 {
        self.world.stats()["store"]["results"].as_u64().unwrap()
    }

    /// A run of the compiler with these arguments, apart by blanks, as a build script of cargo calls it.
    fn call(&self, args: &str) -> Call {
        let words: Vec<&str> = args.split_whitespace().collect();
        let call = self.world.rustc(&self.project, &words);
        let out_dir = self.project.text("out");
        call.envs(&[("OUT_DIR", &out_dir), ("NUM_JOBS", "2"), ("OPT_LEVEL", "0"), ("HOST", "host")])
    }

    /// A try of a source on standard input.
    fn probe(&self, source: &str) -> Call {
        self.call("--crate-name p --crate-type=lib --emit=metadata --out-dir out -")
            .stdin(source.as_bytes())
    }

    /// Runs a call for the first time: the compiler runs.
    #[track_caller]
    fn first(&self, call: &Call) -> Done {
        let done = call.clone().run();
        assert_eq!(done.runs.len(), 1, "the compiler runs\n{}", done.stderr);
        done
    }

    /// Runs it again: no compiler runs, and all that can be seen is the same.
    #[track_caller]
    fn again(&self, call: &Call, first: &Done) {
        let done = call.clone().run();
        assert_eq!(done.runs.len(), 0, "reasons: {:#}", self.world.stats()["missed"]);
        let seen = |done: &Done| (done.status, done.stdout.clone(), done.stderr.clone());
        assert_eq!(seen(&done), seen(first));
    }

    /// Runs a call twice; what it showed.
    #[track_caller]
    fn twice(&self, call: &Call) -> Done {
        let first = self.first(call);
        self.again(call, &first);
        first
    }
}

#[test]
fn a_source_on_standard_input_is_part_of_the_key() {
    let script = Script::new(world!());
    let good = script.probe("pub fn f() -> u8 { 1 }");
    script.twice(&good.clone()).ok();
    let made = script.project.read("out/libp.rmeta");
    script.project.remove("out/libp.rmeta");
    good.clone().run().ok();
    assert_eq!(script.project.read("out/libp.rmeta"), made);
    // Another source, another flag: other units.
    script.twice(&script.probe("pub fn f() -> u8 { 2 }")).ok();
    script.twice(&good.clone().args(&["--cfg=x"])).ok();
    // As rustix does it: one file, named.
    let named = script.call("--crate-type=rlib --emit=metadata -o out/can_compile -");
    script.twice(&named.stdin(b"pub fn f() {}")).ok();
    assert!(script.project.at("out/can_compile").exists());
    // Whoever calls.
    let plain = ["--crate-name=p", "--crate-type=lib", "--out-dir=out", "-"];
    let plain = script.world.rustc(&script.project, &plain).stdin(b"pub fn g() {}");
    script.twice(&plain).ok();
}

#[test]
fn what_a_source_on_standard_input_reads_counts() {
    let script = Script::new(world!());
    script.project.write("inner.rs", "pub const N: u8 = 1;");
    let probe = script.probe("pub mod inner; pub const V: Option<&str> = option_env!(\"SEEN\");");
    script.twice(&probe).ok();
    script.project.write("inner.rs", "pub const N: u8 = 2;");
    script.twice(&probe).ok();
    script.twice(&probe.clone().env("SEEN", "1")).ok();
    script.twice(&probe.env("RUSTC_BOOTSTRAP", "1")).ok();
}

/// A source is read once. Where it is too long to be kept, the compiler gets all of it.
#[test]
fn a_long_source_reaches_the_compiler_whole() {
    let script = Script::new(world!());
    let long = format!("// {}\npub fn f() {{ compile_error!(\"the end\"); }}", "x".repeat(1 << 20));
    let probe = script.probe(&long);
    for _ in 0..2 {
        let done = script.first(&probe).fails();
        assert!(done.stderr.contains("the end"), "{}", done.stderr);
    }
    assert_eq!(script.world.stats()["bypass_reasons"]["stdin-source"], 2);
}

const FEATURE: &str = "#![feature(box_patterns)]";

/// Stable compilers refuse features; one with `RUSTC_BOOTSTRAP` does not.
#[test]
fn a_refused_source_is_a_result() {
    let script = Script::new(world!());
    for source in
        [FEATURE, "pub fn f( {", "pub fn f() -> u8 { \"\" }", "#![deny(unused)] fn unused() {}"]
    {
        let done = script.twice(&script.probe(source)).fails();
        assert_eq!(done.status.code(), Some(1));
        assert!(done.stderr.contains("-->"), "{}", done.stderr);
        script.twice(&script.probe(source).args(&["--error-format=json"])).fails();
    }
    script.twice(&script.probe(FEATURE).env("RUSTC_BOOTSTRAP", "1")).ok();
    let stats = script.world.stats();
    assert_eq!(stats["hit_local"], 9, "{stats:#}");
    assert_eq!(stats["miss"], 1 + 9, "{stats:#}");
}

/// As anyhow, thiserror and proc-macro2 do it: a file of the package, and dep-info, which the compiler
/// writes before it looks at features.
#[test]
fn a_refused_file_is_a_result_and_leaves_nothing() {
    let script = Script::new(world!());
    script.project.write("probe.rs", format!("{FEATURE}\nmod more;\n")).write("more.rs", "");
    let probe = script
        .call("--crate-name p --crate-type=lib --emit=dep-info,metadata --out-dir out probe.rs");
    script.twice(&probe).fails();
    assert_eq!(kiln_tests::direct::names(&script.project.at("out")), [".keep"]);
    script.project.write("more.rs", "pub fn f( {");
    let done = script.twice(&probe).fails();
    assert!(done.stderr.contains("more.rs"), "{}", done.stderr);
    // The other place of a module appears.
    script.project.write("more/mod.rs", "");
    let done = script.twice(&probe).fails();
    assert!(done.stderr.contains("E0761"), "{}", done.stderr);
    script.project.remove("more").write("more.rs", "").write("probe.rs", "mod more;\n");
    script.twice(&probe).ok();
    assert!(script.project.at("out/libp.rmeta").exists());
}

#[test]
fn another_checkout_has_the_same_failure_under_its_own_names() {
    let script = Script::new(world!());
    script.project.write("probe.rs", FEATURE);
    let args = ["--crate-name=p", "--crate-type=lib", "--emit=metadata", "--out-dir"];
    let call = |project: &Project| {
        let (out, source) = (project.text("out"), project.text("probe.rs"));
        let call = script.world.rustc(project, &args).args(&[&out, &source]);
        let manifest = project.dir().to_str().unwrap().to_owned();
        call.envs(&[("OUT_DIR", &out), ("CARGO_MANIFEST_DIR", &manifest)]).envs(&[
            ("NUM_JOBS", "2"),
            ("OPT_LEVEL", "0"),
            ("HOST", "host"),
        ])
    };
    script.first(&call(&script.project)).fails();
    let other = script.project.copy_to(script.world.at("ws/elsewhere/q"));
    let done = call(&other).run().fails();
    assert_eq!(done.runs.len(), 0, "{:#}", script.world.stats()["missed"]);
    assert!(done.stderr.contains(&other.text("probe.rs")), "{}", done.stderr);
}

/// Nobody's own crate that does not compile is stored.
#[test]
fn a_failing_compile_outside_of_scripts_is_not_stored() {
    let script = Script::new(world!());
    let probe = script.probe(FEATURE);
    for call in [
        probe.clone().without("NUM_JOBS"),
        probe.clone().without("OUT_DIR"),
        probe.clone().without("HOST"),
        probe.env("CARGO_CRATE_NAME", "p"),
    ] {
        script.first(&call).fails();
        script.first(&call).fails();
    }
    assert_eq!(script.stored(), 1);
}

#[test]
fn a_crate_that_appears_or_changes_is_seen() {
    let script = Script::new(world!());
    script.project.write("lib/.keep", "");
    let library = |dir: &str, text: &str| {
        script.project.write("dep.rs", text);
        let args = format!("--crate-name=dep --crate-type=lib --out-dir {dir} dep.rs");
        script.call(&args).without("RUSTC_WRAPPER").run().ok();
    };
    let searched = script.probe("extern crate dep; pub use dep::f;").args(&["-L", "lib"]);
    let done = script.twice(&searched).fails();
    assert!(done.stderr.contains("E0463"), "{}", done.stderr);
    library("lib", "pub fn g() {}");
    let done = script.twice(&searched).fails();
    assert!(done.stderr.contains("E0432"), "{}", done.stderr);
    library("lib", "pub fn f() {}");
    script.twice(&searched).ok();

    library("given", "pub fn g() {}");
    let given = script.probe("pub use dep::f;");
    let given = given.args(&["--edition=2021", "--extern", "dep=given/libdep.rlib"]);
    script.twice(&given).fails();
    library("given", "pub fn f() {}");
    script.twice(&given).ok();
}

/// A macro that refuses may have read anything.
#[test]
fn what_a_macro_reads_that_refuses_is_seen() {
    let script = Script::new(world!());
    let refusing = "extern crate proc_macro; use proc_macro::TokenStream;\n\
        #[proc_macro] pub fn m(_: TokenStream) -> TokenStream {\n\
        let text = std::fs::read_to_string(\"switch\").unwrap_or_default();\n\
        text.parse().unwrap() }\n";
    script.project.write("mac.rs", refusing).write("switch", "compile_error!(\"one\");");
    script.call("--crate-type=proc-macro --crate-name=mac --out-dir given mac.rs").run().ok();
    let probe = script.probe("mac::m!();");
    let probe = probe.args(&["--edition=2021", "--extern", "mac=given/libmac.so"]);
    for word in ["one", "two"] {
        script.project.write("switch", format!("compile_error!(\"{word}\");"));
        let done = script.twice(&probe).fails();
        assert!(done.stderr.contains(word), "{}", done.stderr);
    }
    script.project.write("switch", "pub fn f() {}");
    script.twice(&probe).ok();
    script.project.remove("switch");
    script.twice(&probe).ok();
}

/// What a failure leaves behind, a hit would not: such a one is not stored.
#[test]
fn a_failure_that_leaves_a_file_is_not_stored() {
    let script = Script::new(world!());
    let deep = format!("{}u8{}", "Option<".repeat(60), ">".repeat(60));
    let source = format!("pub fn f(x: {deep}) -> u8 {{ let y = (x, 1, \"\", [0; 3]); y }}");
    let probe = script.probe(&source);
    for _ in 0..2 {
        let done = script.first(&probe).fails();
        assert!(done.stderr.contains("has been written to"), "{}", done.stderr);
    }
    assert_eq!(script.stored(), 1);
}

/// A script of a workspace asks clippy-driver, when cargo clippy runs it.
#[test]
fn clippy_in_front_is_asked_once() {
    let script = Script::new(world!());
    let (kiln, bin) = (script.world.programs.kiln.clone(), script.world.bin());
    let words = [bin.join("clippy-driver"), bin.join("rustc")];
    let probe = |source: &str| {
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let args = ["--crate-name=p", "--crate-type=lib", "--emit=metadata", "--out-dir=out", "-"];
        let call = script.world.call(&kiln, script.project.dir(), &[&words[..], &args].concat());
        let out_dir = script.project.text("out");
        let call = call.envs(&[("OUT_DIR", &out_dir), ("NUM_JOBS", "2"), ("OPT_LEVEL", "0")]);
        call.env("HOST", "host").stdin(source.as_bytes())
    };
    script.twice(&probe(FEATURE)).fails();
    script.twice(&probe("pub fn f() {}")).ok();
}

/// Also those that the compiler reads for itself, and whose names a source may use all the same.
#[test]
fn variables_of_a_refused_source_are_seen() {
    let script = Script::new(world!());
    for name in ["SEEN", "TERM", "CI"] {
        let source = format!("pub const V: &str = env!(\"{name}\");");
        let done = script.twice(&script.probe(&source)).fails();
        assert!(done.stderr.contains(name), "{}", done.stderr);
        script.twice(&script.probe(&source).env(name, "1")).ok();
        // One that is refused after all names were looked up, and one that is before.
        for late in ["const _: () = assert!(V.is_none());", "use nothing::at::all;"] {
            let source = format!("pub const V: Option<&str> = option_env!(\"{name}\"); {late}");
            let call = script.probe(&source).env(name, "1");
            script.twice(&call).fails();
            script.first(&call.without(name));
        }
    }
}

/// What fails for want of room or rights says nothing of the source.
#[test]
fn a_failure_of_the_machine_is_not_stored() {
    let script = Script::new(world!());
    script.project.write("file", "");
    let blocked =
        script.call("--crate-name p --crate-type=lib --emit=metadata --out-dir file/out -");
    let blocked = blocked.stdin(b"pub fn f() {}");
    script.first(&blocked).fails();
    script.first(&blocked).fails();
    let link = script.call("--crate-name p --emit=link --out-dir out -Clink-arg=--nonsense -");
    let link = link.stdin(b"fn main() {}");
    script.first(&link).fails();
    script.first(&link).fails();
    let absent = script.probe("pub const X: &str = include_str!(\"/nothing/there\");");
    script.first(&absent).fails();
    assert_eq!(script.stored(), 1);
    let out = script.project.at("small");
    let _mount = match Mount::new(&["-t", "tmpfs", "-o", "size=64k", "none"], &out) {
        Ok(mount) => mount,
        Err(why) => skip!("{why}"),
    };
    script.project.write("small/ballast", [0; 65536]);
    let full = script.call("--crate-name p --crate-type=lib --emit=metadata --out-dir small -");
    let full = full.stdin(b"pub fn f() {}");
    script.first(&full).fails();
    assert_eq!(script.stored(), 1);
    script.project.remove("small/ballast");
    script.twice(&full).ok();
}

/// Without observation nobody knows what a failing compiler read.
#[test]
fn without_observation_failures_are_not_stored() {
    let script = Script::new(world!());
    let probe = script.probe(FEATURE).env("KILN_OBSERVE", "off");
    script.first(&probe).fails();
    script.first(&probe).fails();
    assert_eq!(script.world.stats()["miss_reasons"]["failure-not-observed"], 2);
}

#[test]
fn a_compiler_that_is_killed_leaves_nothing() {
    let script = Script::new(world!());
    std::fs::write(script.world.bin().join("p.kill"), "").unwrap();
    script.first(&script.probe(FEATURE)).fails();
    std::fs::remove_file(script.world.bin().join("p.kill")).unwrap();
    let done = script.twice(&script.probe(FEATURE)).fails();
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn the_version_is_told_without_the_compiler() {
    let script = Script::new(world!());
    let short = script.call("--version");
    let done = script.twice(&short).ok();
    script.again(&script.call("-V"), &done);
    let long = script.twice(&script.call("-vV")).ok();
    script.again(&script.call("--version --verbose"), &long);
    assert_eq!(long.stdout.lines().next(), done.stdout.lines().next());
    // Asked by others, it answers itself.
    script.first(&short.clone().without("OUT_DIR")).ok();
    script.first(&script.call("--version --print=sysroot")).ok();
    // Another variable that it may listen to, another compiler.
    script.twice(&short.clone().env("RUSTC_BOOTSTRAP", "1")).ok();
    let standin = script.world.bin().join("rustc");
    let copy = std::fs::read(&standin).unwrap();
    std::fs::remove_file(&standin).unwrap();
    std::fs::write(&standin, copy).unwrap();
    std::fs::set_permissions(&standin, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    script.first(&short).ok();
    script.probe("pub fn other() {}").run().ok();
    script.twice(&short).ok();
}

/// What cargo asks before its first compile tells Kiln all that it wants to know.
#[test]
fn on_a_fresh_machine_the_compiler_is_asked_by_cargo_alone() {
    let world = world!();
    let project = world.project("one");
    project.package("one", "[workspace]\n").write("src/lib.rs", "");
    let plain = world.plain_cargo(&project, &["build", "--target-dir", "plain"]).run().ok();
    let first = world.cargo(&project, &["build"]).run().ok();
    let questions = |done: &Done| done.runs.iter().filter(|run| !run.is_compile()).count();
    assert!(first.did_compile("one"));
    assert_eq!(questions(&first), questions(&plain));
    // Without them it asks itself.
    std::fs::remove_dir_all(world.kiln_dir().join("tools")).unwrap();
    project.write("src/lib.rs", "pub fn other() {}\n");
    let again = world.cargo(&project, &["build"]).run().ok();
    assert!(again.did_compile("one"));
    assert_eq!(questions(&again), 2);
    project.write("src/lib.rs", "pub fn third() {}\n");
    assert_eq!(questions(&world.cargo(&project, &["build"]).run().ok()), 0);
}

fn file(path: &str) -> Member {
    Member::File(TokenPath(path.into()))
}

/// Each run of Kiln within an observed script leaves one note, whatever becomes of it.
#[test]
fn every_run_within_a_script_leaves_one_note() {
    let script = Script::new(world!());
    let out_dir = script.project.text("out");
    script.project.write("inner.rs", "");
    let rustc = script.world.bin().join("rustc");
    let check = |call: &Call| -> Note {
        let notes = Notes::begin(&script.world.kiln_dir(), Path::new(&out_dir)).unwrap();
        call.clone().run();
        let read = notes.read().unwrap();
        assert_eq!(read.len(), 1, "{read:?}");
        read[0].clone()
    };
    let good = script.probe("mod inner;");
    let refused = script.probe(FEATURE);
    let unstored = script.probe("pub fn f() { compile_error!(\"(os error 5)\"); }");
    // Made, then found.
    for call in [&good, &good, &refused, &refused] {
        let note = check(call);
        assert_eq!((note.refused, note.became), (None, false));
        assert!(note.members.contains(&file(rustc.to_str().unwrap())), "{:?}", note.members);
        let tokens = note.members.iter().any(|m| serde_json::to_string(m).unwrap().contains("\"<"));
        assert!(!tokens, "{:?}", note.members);
        let inner = note.members.contains(&file(&script.project.text("inner.rs")));
        assert_eq!(inner, std::ptr::eq(call, &good), "{:?}", note.members);
        let driver = |m: &Member| matches!(m, Member::File(p) if p.0.contains("librustc_driver-"));
        assert!(note.members.iter().any(driver));
    }
    assert!(check(&unstored).refused.unwrap().starts_with("compile-failed"));
    let cannot_store = script.probe("pub fn g() {}").env("KILN_MODE", "read");
    assert!(check(&cannot_store).refused.is_some());
    for call in [
        script.call("--print=sysroot"),
        script.call("-Csave-temps --crate-type=lib --out-dir out inner.rs"),
        script.probe("pub fn h() {}").env("KILN_MODE", "off"),
        script.probe(&"x".repeat(2 << 20)),
        script.call("-Cnonsense=a b c"),
    ] {
        let note = check(&call);
        assert!(note.became && note.members.is_empty() && note.refused.is_none(), "{note:?}");
    }
    // Asked, then found.
    for _ in 0..2 {
        let note = check(&script.call("--version"));
        assert_eq!((&note.refused, note.became), (&None, false));
        assert!(note.members.contains(&file(rustc.to_str().unwrap())), "{note:?}");
    }
    let other = script.probe("pub fn i() {}").env("OUT_DIR", "/elsewhere");
    let notes = Notes::begin(&script.world.kiln_dir(), Path::new(&out_dir)).unwrap();
    other.run().ok();
    assert_eq!(notes.read().unwrap(), []);
}

/// The build scripts of crates in wide use, where all of them run: what they ask is answered.
#[test]
fn scripts_of_real_crates() {
    let world = world!();
    let fetched = match registry::probing(&world) {
        Ok(project) => project,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(fetched);
    let project = fetched.copy_to(world.at("ws/one"));
    let build = |project: &Project| {
        world.cargo(project, &["build"]).env("KILN_BUILD_SCRIPTS", "off").run().ok()
    };
    // Some ask for the version past the wrapper; what asks through it has a test of its own.
    let direct = |run: &&Run| run.args == ["--version"];
    let of_scripts = |done: &Done| -> Vec<Vec<String>> {
        let runs = done.runs.iter().filter(|run| run.of_build_script && !direct(run));
        runs.map(|run| run.args.clone()).collect()
    };
    let first = build(&project);
    assert!(of_scripts(&first).len() > 8, "{:#?}", of_scripts(&first));
    // autocfg gives each of its crates a name by chance.
    let by_chance = |args: &Vec<String>| args.iter().any(|arg| arg.starts_with("autocfg_"));
    for place in ["one", "two"] {
        project.wipe();
        let project = match place {
            "one" => project.clone(),
            _ => project.copy_to(world.at("ws/elsewhere/two")),
        };
        let done = build(&project);
        let runs = of_scripts(&done);
        let rest: Vec<_> = runs.iter().filter(|args| !by_chance(args)).collect();
        assert!(rest.is_empty(), "{place}: {rest:#?}\n{:#}", world.stats()["missed"]);
    }
}
