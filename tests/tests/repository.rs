//! Theme: the rules of this repository hold.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use kiln_tests::host::host;
use kiln_tests::project::files_below;
use kiln_tests::{Call, world};

/// Longest source file, lines.
const MAX_LINES: usize = 500;
/// Packages of the workspace.
const PACKAGES: &[&str] = &["storage", "cache-server", "rustc-wrapper", "tests", "benches"];
/// The modules that may read the environment, one for each program.
const READ_ENVIRONMENT: &[&str] = &[
    "rustc-wrapper/src/env.rs",
    "cache-server/src/bin/kiln-server.rs",
    "benches/src/environment.rs",
    "tests/src/host.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust source of the workspace, relative to the root.
fn sources() -> Vec<String> {
    let below = |package: &&str| {
        let dir = root().join(package);
        let files =
            files_below(&dir).into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs"));
        files.map(|f| Path::new(package).join(f)).collect::<Vec<PathBuf>>()
    };
    let sources: Vec<String> =
        PACKAGES.iter().flat_map(below).map(|f| f.to_str().unwrap().to_owned()).collect();
    assert!(sources.len() > 50, "the sources are found");
    sources
}

#[test]
fn files_are_short() {
    let long = |file: &String| read(file).lines().count() > MAX_LINES;
    let long: Vec<String> = sources().into_iter().filter(long).collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:#?}");
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |file: &String| !read(file).starts_with("//!");
    let silent: Vec<String> = sources().into_iter().filter(silent).collect();
    assert!(silent.is_empty(), "without `//!` at the top: {silent:#?}");
}

#[test]
fn lengths_of_functions_are_linted_everywhere() {
    let settings = read("clippy.toml");
    for rule in ["too-many-lines-threshold = 70", "too-many-arguments-threshold = 5"] {
        assert!(settings.contains(rule), "clippy.toml: {rule}");
    }
    let workspace = read("Cargo.toml");
    for lint in [
        "too_many_lines",
        "too_many_arguments",
        "disallowed_methods",
        "allow_attributes_without_reason",
    ] {
        assert!(workspace.contains(&format!("{lint} = \"warn\"")), "Cargo.toml: {lint}");
    }
    for package in PACKAGES {
        assert!(
            read(&format!("{package}/Cargo.toml")).contains("[lints]\nworkspace = true"),
            "{package}"
        );
    }
}

#[test]
fn the_environment_is_read_in_few_places() {
    let calls = [
        "env::var(",
        "env::var_os(",
        "env::vars(",
        "env::vars_os(",
        "env::set_var(",
        "env::remove_var(",
    ];
    let reads = |file: &String| {
        // Text of a program in a string, or a comment, is no call.
        let code = |line: &&str| !line.contains('"') && !line.trim_start().starts_with("//");
        let text = read(file);
        text.lines().filter(code).any(|line| calls.iter().any(|call| line.contains(call)))
    };
    // Sources of tests hold whole programs as text; there clippy alone decides.
    let elsewhere: Vec<String> = sources()
        .into_iter()
        .filter(|file| !READ_ENVIRONMENT.contains(&file.as_str()) && file.contains("/src/"))
        .filter(reads)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[test]
fn the_environment_is_never_changed() {
    let methods = [
        "std::env::var",
        "std::env::var_os",
        "std::env::vars",
        "std::env::set_var",
        "std::env::remove_var",
    ];
    let settings = read("clippy.toml");
    for method in methods {
        assert!(settings.contains(&format!("\"{method}\"")), "clippy.toml disallows {method}");
    }
}

/// What a program prints as a page of the documentation is what the repository has.
#[track_caller]
fn check_page(call: Call, file: &str, how: &str) {
    let page = call.run().ok().stdout;
    assert!(page.trim() == read(file).trim(), "{file} is out of date; run\n  {how} > {file}");
}

#[test]
fn generated_pages_are_up_to_date() {
    let world = world!();
    for (page, file) in [
        ("flags", "docs/rustc-flags.md"),
        ("settings", "docs/settings.md"),
        ("reasons", "docs/reasons.md"),
        ("inputs", "docs/observed-inputs.md"),
    ] {
        check_page(world.kiln(&["doc", page]), file, &format!("cargo run -p kiln -- doc {page}"));
    }
}

#[test]
fn the_description_of_the_api_is_up_to_date() {
    let text = kiln_server::openapi_text().unwrap();
    assert!(text.trim() == read("docs/openapi.json").trim(), "docs/openapi.json is out of date");
}

/// Else `kiln` would be compiled again in each target directory.
#[test]
fn kiln_itself_uses_out_dir_to_include_files_only() {
    let own = sources().into_iter().filter(|file| file.starts_with("rustc-wrapper/src/"));
    let odd: Vec<String> = own
        .filter(|file| kiln::envuse::scan("OUT_DIR", &read(file)) == kiln::envuse::Use::Elsewhere)
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

/// Tests are hermetic: none waits by the clock, runs alone or changes its own environment.
#[test]
fn tests_do_not_sleep() {
    let words =
        [["thread::", "sleep("].concat(), ["#[seri", "al"].concat(), ["set_", "var("].concat()];
    let odd = |file: &String| words.iter().any(|word| read(file).contains(word.as_str()));
    let own = sources().into_iter().filter(|file| file.starts_with("tests/"));
    let odd: Vec<String> =
        own.filter(|file| file != "tests/tests/repository.rs").filter(odd).collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

/// Links between files of the documentation lead somewhere.
#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut dead = Vec::new();
    let pages = files_below(&root().join("docs")).into_iter().map(|f| Path::new("docs").join(f));
    let top =
        std::fs::read_dir(root()).unwrap().flatten().map(|entry| PathBuf::from(entry.file_name()));
    for page in pages.chain(top).filter(|f| f.extension().is_some_and(|e| e == "md")) {
        for part in read(page.to_str().unwrap()).split("](").skip(1) {
            let link = part.split([')', '#', ' ']).next().unwrap();
            let local = !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:");
            if local && !root().join(&page).parent().unwrap().join(link).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// The harness finds the real toolchain, not a proxy that chooses one.
#[test]
fn the_toolchain_of_the_tests_is_no_proxy() {
    let rustc = host().toolchain.join("rustc");
    assert!(rustc.exists() && !host().toolchain.join("rustup").exists(), "{}", rustc.display());
}
