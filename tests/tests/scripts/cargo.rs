//! Theme: build scripts as cargo knows them. What a script tells cargo works whether it ran or not, and
//! cargo runs scripts again for the same reasons as without Kiln.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::With;
use kiln_tests::left::outputs;
use kiln_tests::script::{SHOW, Scripted, Stored, manifest};
use kiln_tests::{scripts, skip, world};

fn one(p: &Scripted) {
    p.write("pk/data/n", "one");
}

fn two(p: &Scripted) {
    p.write("pk/data/n", "two");
}

// What is told to cargo ----------------------------------------------------------------------------

scripts! {
    a_warning: Everywhere, "println!(\"cargo:warning=it is {}\", read(\"data/n\")); read(\"data/n\")", one, two;
    lines_that_are_not_for_cargo: Everywhere,
        "println!(\"a line of {}\", read(\"data/n\")); eprintln!(\"an error of {}\", read(\"data/n\")); read(\"data/n\")", one, two;
    output_that_is_no_text: Perhaps,
        "std::io::stdout().write_all(b\"a\\xffb\\n\").unwrap(); read(\"data/n\")", one, two;
    output_without_an_end_of_line: Everywhere, "print!(\"last\"); eprint!(\"last\"); read(\"data/n\")", one, two;
    much_output: Everywhere,
        "for n in 0..20000 { println!(\"line {n}\"); eprintln!(\"error {n}\"); } read(\"data/n\")", one, two;
}

fn shows(program: &str, script: &str) -> Scripted {
    let place = Scripted::new(world!(), &format!("{script} String::new()"));
    place.base("pk/src/main.rs", program);
    place
}

#[test]
fn a_variable_for_the_compiler() {
    shows(
        "fn main() { print!(\"{}\", env!(\"KT_MADE\")) }\n",
        "println!(\"cargo:rustc-env=KT_MADE={}\", read(\"data/n\"));",
    )
    .check(Stored::Everywhere, one, two);
}

#[test]
fn a_cfg_for_the_compiler() {
    shows(
        "fn main() { print!(\"{}\", if cfg!(kt_two) { \"two\" } else { \"one\" }) }\n",
        "println!(\"cargo:rustc-check-cfg=cfg(kt_one, kt_two)\"); println!(\"cargo:rustc-cfg=kt_{}\", read(\"data/n\"));",
    )
    .check(Stored::Everywhere, one, two);
}

#[test]
fn a_variable_with_the_place_of_its_directory() {
    shows(
        "fn main() { print!(\"{}\", include_str!(concat!(env!(\"KT_DIR\"), \"/made\"))) }\n",
        "fs::write(out(\"made\"), read(\"data/n\")).unwrap(); println!(\"cargo:rustc-env=KT_DIR={}\", var(\"OUT_DIR\"));",
    )
    .check(Stored::Everywhere, one, two);
}

/// cargo says the same with `-vv`, which shows what scripts print.
#[test]
fn what_cargo_shows_of_a_script() {
    let code = "println!(\"a line of {}\", read(\"data/n\")); eprintln!(\"an error\"); println!(\"cargo:rerun-if-changed=data/n\"); read(\"data/n\")";
    let place = Scripted::new(world!(), code).args(&["build", "-vv"]);
    one(&place);
    let lines = |with| {
        let done = place.build(with).done.ok();
        let told = done.stderr.lines().chain(done.stdout.lines()).filter(|l| l.starts_with("[pk "));
        let mut told: Vec<String> = told.map(str::to_owned).collect();
        told.sort_unstable();
        told
    };
    let plain = lines(With::Nothing);
    assert!(plain.iter().any(|l| l.contains("a line of one")), "{plain:#?}");
    assert_eq!(lines(With::Kiln), plain);
    assert_eq!(lines(With::Kiln), plain, "again");
}

// When cargo runs it again -------------------------------------------------------------------------

/// What cargo works on in a build on what is there.
fn dirty(place: &Scripted, with: With) -> Vec<String> {
    let done = place.cargo(with, &place.project, &["build", "-v"]).run().ok();
    let words = ["Dirty ", "Compiling ", "Running "];
    let line = |l: &str| words.iter().any(|w| l.trim_start().starts_with(w));
    let lines = done.stderr.lines().filter(|l| line(l));
    // Which compiler is called is another line with a wrapper.
    let lines = lines.filter(|l| !l.contains("rustc")).map(str::trim);
    // cargo tells the times.
    lines.map(|l| l.split_inclusive("has changed").next().unwrap_or(l).to_owned()).collect()
}

#[test]
fn cargo_runs_it_again_for_the_same_reasons() {
    let code = "println!(\"cargo:rerun-if-changed=data/n\"); println!(\"cargo:rerun-if-env-changed=KT_X\"); \
         read(\"data/n\") + &std::env::var(\"KT_X\").unwrap_or_default()";
    let place = Scripted::new(world!(), code);
    let story = |with: With| {
        place.reset();
        place.unset("KT_X");
        one(&place);
        place.write("pk/data/m", "");
        place.project.wipe();
        place.cargo(with, &place.project, &["build"]).run().ok();
        let mut told = vec![dirty(&place, with)];
        place.touch("pk/data/m");
        told.push(dirty(&place, with));
        place.touch("pk/data/n");
        told.push(dirty(&place, with));
        told.push(dirty(&place, with));
        place.set("KT_X", "x");
        told.push(dirty(&place, with));
        assert_eq!(place.prints(&place.project), "onex");
        told.push(dirty(&place, with));
        told
    };
    let plain = story(With::Nothing);
    let count: Vec<bool> = plain.iter().map(|lines| !lines.is_empty()).collect();
    assert_eq!(count, [false, false, true, false, true, false], "{plain:#?}");
    assert_eq!(story(With::Kiln), plain, "{}", place.why());
    assert_eq!(story(With::Kiln), plain, "again; {}", place.why());
}

/// Without any `rerun-if` every file of the package counts for cargo.
#[test]
fn cargo_runs_it_again_when_the_package_changes() {
    let place = Scripted::new(world!(), "read(\"data/n\")");
    one(&place);
    place.write("pk/data/m", "");
    for _ in 0..2 {
        place.build(With::Kiln).done.ok();
        assert_eq!(dirty(&place, With::Kiln), Vec::<String>::new());
        place.touch("pk/data/m");
        assert!(!dirty(&place, With::Kiln).is_empty());
        assert_eq!(dirty(&place, With::Kiln), Vec::<String>::new());
        place.project.wipe();
    }
}

#[test]
fn a_following_build_does_nothing() {
    let place =
        Scripted::new(world!(), "println!(\"cargo:rerun-if-changed=data\"); read(\"data/n\")");
    one(&place);
    place.build(With::Kiln).done.ok();
    place.build(With::Kiln).done.ok();
    for with in [With::Kiln, With::Nothing] {
        assert_eq!(dirty(&place, with), Vec::<String>::new());
    }
}

// Which packages have scripts ----------------------------------------------------------------------

#[test]
fn a_script_of_another_name() {
    let place = Scripted::new(world!(), "read(\"data/n\")");
    let script = String::from_utf8(place.project.read("pk/build.rs")).unwrap();
    place.base("pk/make.rs", &script);
    place.base("pk/build.rs", "compile_error!(\"not this one\");\n");
    place.base("pk/Cargo.toml", &manifest("pk", "build = \"make.rs\"\n"));
    place.check(Stored::Everywhere, one, two);
}

#[test]
fn a_script_in_a_directory() {
    let place = Scripted::new(world!(), "read(\"data/n\")");
    let script = String::from_utf8(place.project.read("pk/build.rs")).unwrap();
    place.base("pk/build/main.rs", &format!("{script}\nmod more;\n"));
    place.base("pk/build/more.rs", "");
    place.base("pk/build.rs", "compile_error!(\"not this one\");\n");
    place.base("pk/Cargo.toml", &manifest("pk", "build = \"build/main.rs\"\n"));
    place.check(Stored::Everywhere, one, two);
}

/// A package of which `pk` needs something, with a script of its own.
fn with_helper(kind: &str, of_helper: &str, use_in_script: &str, main: &str) -> Scripted {
    let script = format!(
        "fn main() {{ tally(); let text: String = {{ {use_in_script} }}; fs::write(out(\"shown\"), text).unwrap(); }}\n"
    );
    let place = Scripted::with_script(world!(), &script);
    place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\", \"help\"]\nresolver = \"2\"\n");
    let dependency = format!("\n[{kind}]\nhelp = {{ path = \"../help\" }}\n");
    place.base("pk/Cargo.toml", &manifest("pk", &dependency));
    place.base("pk/src/main.rs", main);
    place.base("help/Cargo.toml", &manifest("help", of_helper));
    place.script(
        "help/build.rs",
        "fn main() { tally(); fs::write(out(\"made\"), read(\"data/n\")).unwrap(); }\n",
    );
    place
}

fn help(text: &'static str) -> impl Fn(&Scripted) {
    move |p| p.write("help/data/n", text)
}

#[test]
fn the_script_of_a_build_dependency() {
    let place = with_helper("build-dependencies", "", "help::TEXT.into()", SHOW);
    place.base(
        "help/src/lib.rs",
        "pub const TEXT: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/made\"));\n",
    );
    place.check(Stored::Everywhere, help("one"), help("two"));
}

#[test]
fn the_script_of_a_procedural_macro() {
    let main = "fn main() { print!(\"{}\", help::made!()) }\n";
    let place = with_helper("dependencies", "\n[lib]\nproc-macro = true\n", "String::new()", main);
    place.base(
        "help/src/lib.rs",
        "const TEXT: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/made\"));\n\
         #[proc_macro]\npub fn made(_: proc_macro::TokenStream) -> proc_macro::TokenStream { format!(\"{TEXT:?}\").parse().unwrap() }\n",
    );
    place.check(Stored::Everywhere, help("one"), help("two"));
}

/// A package that is built for the host and for the target runs its script for each.
#[test]
fn a_package_for_both_sides() {
    let place = with_helper(
        "dependencies",
        "",
        "help::TEXT.into()",
        "fn main() { print!(\"{}{}\", include_str!(concat!(env!(\"OUT_DIR\"), \"/shown\")), help::TEXT) }\n",
    );
    let both = "\n[dependencies]\nhelp = { path = \"../help\" }\n\n[build-dependencies]\nhelp = { path = \"../help\" }\n";
    place.base("pk/Cargo.toml", &manifest("pk", both));
    place.base(
        "help/src/lib.rs",
        "pub const TEXT: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/made\"));\n",
    );
    place.check(Stored::Everywhere, help("one"), help("two"));
}

/// Two packages whose scripts are the same byte for byte: each reads its own files.
#[test]
fn scripts_with_the_same_content() {
    let place = Scripted::with_script(world!(), "");
    let script = "fn main() { let n = std::fs::read_to_string(\"data/n\").unwrap(); \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/shown\", n).unwrap(); }\n";
    place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\", \"low\"]\nresolver = \"2\"\n");
    place.base("pk/Cargo.toml", &manifest("pk", "\n[dependencies]\nlow = { path = \"../low\" }\n"));
    place.base("low/Cargo.toml", &manifest("low", ""));
    place.base("pk/build.rs", script);
    place.base("low/build.rs", script);
    place.base(
        "low/src/lib.rs",
        "pub const SHOWN: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/shown\"));\n",
    );
    place.base("pk/src/main.rs", "fn main() { print!(\"{} {}\", include_str!(concat!(env!(\"OUT_DIR\"), \"/shown\")), low::SHOWN) }\n");
    let state = |pk: &'static str, low: &'static str| {
        move |p: &Scripted| {
            p.write("pk/data/n", pk);
            p.write("low/data/n", low);
        }
    };
    place.check(Stored::Everywhere, state("one", "two"), state("two", "one"));
    place.check(Stored::Everywhere, state("one", "one"), state("two", "two"));
}

/// The same package twice in one build, with other features each time.
#[test]
fn other_features() {
    let place =
        Scripted::new(world!(), "std::env::var(\"CARGO_FEATURE_MORE\").is_ok().to_string()");
    place.base("pk/Cargo.toml", &manifest("pk", "\n[features]\nmore = []\n"));
    let mut place = place;
    for _ in 0..2 {
        for (args, text) in [(&["build"][..], "false"), (&["build", "--features", "more"], "true")]
        {
            place = place.args(args);
            assert_eq!(place.build(With::Kiln).text, text, "{}", place.why());
        }
    }
}

#[test]
fn another_profile() {
    let place = Scripted::new(world!(), "var(\"PROFILE\")");
    for _ in 0..2 {
        for (args, dir) in [(&["build"][..], "debug"), (&["build", "--release"], "release")] {
            place.project.wipe();
            place.cargo(With::Kiln, &place.project, args).run().ok();
            let program = place.project.at(&format!("target/{dir}/pk"));
            assert_eq!(place.world.call(program, place.project.dir(), &[]).run().ok().stdout, dir);
        }
    }
}

/// The same run serves every command. (Not clippy: its driver compiles the script, into another program.)
#[test]
fn other_commands() {
    let place = Scripted::new(world!(), "read(\"data/n\")");
    one(&place);
    assert_eq!(place.build(With::Kiln).scripts, ["pk"]);
    for args in [&["check"][..], &["test", "--no-run"], &["doc"], &["build"]] {
        place.project.wipe();
        place.cargo(With::Kiln, &place.project, args).run().ok();
        assert_eq!(place.tally.take(), Vec::<String>::new(), "{args:?}; {}", place.why());
    }
}

/// With a target that is named, what is for the host and what is for the target are apart.
#[test]
fn a_target_that_is_named() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let code = "var(\"TARGET\") + &read(\"data/n\")";
    let place = Scripted::new(world!(), code).args(&["build", "--target", &target]);
    one(&place);
    let program = format!("target/{target}/debug/pk");
    for runs in [1, 0] {
        let shown = place.build(With::Kiln);
        assert_eq!(shown.scripts.len(), runs, "{}", place.why());
        shown.done.ok();
        let program = place.world.call(place.project.at(&program), place.project.dir(), &[]);
        assert_eq!(program.run().ok().stdout, format!("{target}one"));
    }
}

/// One package of several is cleaned: its script is answered again, and nothing else happens.
#[test]
fn a_package_that_is_cleaned() {
    let place =
        Scripted::new(world!(), "println!(\"cargo:rerun-if-changed=data\"); read(\"data/n\")");
    one(&place);
    place.build(With::Kiln).done.ok();
    place.cargo(With::Kiln, &place.project, &["clean", "-p", "pk"]).run().ok();
    let again = place.build_on(With::Kiln, &place.project);
    assert_eq!((again.text.as_str(), again.scripts.len()), ("one", 0), "{}", place.why());
    assert_eq!(dirty(&place, With::Kiln), Vec::<String>::new());
}

// The jobserver ------------------------------------------------------------------------------------

/// `make` of a script gets its tokens from cargo: else it says that there is no jobserver.
#[test]
fn a_make_with_the_jobserver_of_cargo() {
    if !std::path::Path::new("/usr/bin/make").exists() {
        skip!("no make");
    }
    let code = "run(Command::new(\"make\").args([\"-s\", \"all\"]).env(\"MAKEFLAGS\", var(\"CARGO_MAKEFLAGS\"))) + &read(\"data/n\")";
    let place = Scripted::new(world!(), code);
    place.base("pk/Makefile", "all: a b c\na b c:\n\t@true\n");
    place.check(Stored::Everywhere, one, two);
    assert!(!outputs(&place.project).values().any(|text| text.contains("jobserver")));
    assert!(!place.prints(&place.project).contains("jobserver"));
}

/// Tokens can be taken and are given back: the rest of the build has them.
#[test]
fn tokens_of_the_jobserver() {
    let code = "let flags = var(\"CARGO_MAKEFLAGS\"); let auth = flags.split_whitespace().find_map(|w| w.strip_prefix(\"--jobserver-auth=\")).unwrap(); \
         let (from, to) = match auth.strip_prefix(\"fifo:\") { Some(path) => (path.to_owned(), path.to_owned()), \
         None => { let (r, w) = auth.split_once(',').unwrap(); (format!(\"/proc/self/fd/{r}\"), format!(\"/proc/self/fd/{w}\")) } }; \
         let mut token = [0]; File::open(from).unwrap().read_exact(&mut token).unwrap(); \
         OpenOptions::new().write(true).open(to).unwrap().write_all(&token).unwrap(); read(\"data/n\")";
    Scripted::new(world!(), code).args(&["build", "-j3"]).check(Stored::Perhaps, one, two);
}

/// A script sees itself where cargo started it.
#[test]
fn what_a_script_is_called() {
    let code = "let name = std::env::args().next().unwrap(); let own = std::env::current_exe().unwrap(); \
         eprintln!(\"{name} {}\", own.parent().unwrap().display()); \
         Path::new(&name).file_name().unwrap().to_str().unwrap().to_owned() + &read(\"data/n\")";
    Scripted::new(world!(), code).check(Stored::Perhaps, one, two);
}

/// Standard input is empty, and no descriptor of Kiln reaches a script.
#[test]
fn what_a_script_inherits() {
    let code = "let mut input = String::new(); std::io::stdin().read_to_string(&mut input).unwrap(); \
         assert!(input.is_empty()); let mut open: Vec<_> = (3..64).filter(|n| fs::read_link(format!(\"/proc/self/fd/{n}\")).is_ok()) \
         .map(|n| fs::read_link(format!(\"/proc/self/fd/{n}\")).unwrap().display().to_string()).map(|t| t.split(':').next().unwrap().to_owned()).collect(); \
         open.sort(); let mut names: Vec<_> = std::env::vars().map(|(n, _)| n).filter(|n| n != \"RUSTC_WRAPPER\").collect(); names.sort(); \
         eprintln!(\"{open:?} {names:?} {:?}\", std::env::args().skip(1).collect::<Vec<_>>()); read(\"data/n\")";
    Scripted::new(world!(), code).check(Stored::Perhaps, one, two);
}
