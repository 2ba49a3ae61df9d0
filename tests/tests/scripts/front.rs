//! Theme: cargo runs the front that stands in for a build script, and takes it for what it compiled.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln::env::Env;
use kiln::front;
use kiln_tests::project::files_below;
use kiln_tests::{Done, Project, World, world};

/// A wrapper that notes the build scripts that it is asked to run.
const KILN: &str = "#!/bin/sh\n\
    if [ \"$1\" != run-build-script ]; then exec \"$@\"; fi\n\
    printf '%s %s\\n' \"$2\" \"$3\" >> \"$0.ran\"\n\
    program=$2; shift 3; exec \"$program\" \"$@\"\n";

/// A package that prints what its build script was told.
fn package(world: &World) -> Project {
    let project = world.project("app");
    project.package("app", "");
    project.write("src/main.rs", "fn main() { println!(\"{}\", env!(\"KT_SET\")); }\n");
    project.write(
        "build.rs",
        "fn main() {\n    let n = std::env::var(\"KT_N\").unwrap();\n    \
         println!(\"cargo::rerun-if-env-changed=KT_N\\ncargo::rustc-env=KT_SET={n}\");\n    \
         if n == \"fail\" { eprintln!(\"it fails\"); std::process::exit(3); }\n}\n",
    );
    project
}

/// Files of the build directory that have to do with the program of the build script.
fn programs(project: &Project) -> Vec<PathBuf> {
    let dir = project.at("target/debug/build");
    let of_script = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        name.replace('-', "_").starts_with("build_script_build") && !name.ends_with(".d")
    };
    let files = if dir.exists() { files_below(&dir) } else { Vec::new() };
    files.into_iter().filter(of_script).map(|file| dir.join(file)).collect()
}

#[test]
fn cargo_runs_the_front() {
    let world = world!();
    let project = package(&world);
    let run = |n: &str| -> Done { world.plain_cargo(&project, &["run"]).env("KT_N", n).run() };
    assert_eq!(run("1").ok().stdout, "1\n");

    let [by_cargo, script] = <[PathBuf; 2]>::try_from(programs(&project)).unwrap();
    let mut env = Env::of_pairs([]);
    let kiln = world.at("kiln");
    std::fs::write(&kiln, KILN).unwrap();
    std::fs::set_permissions(&kiln, PermissionsExt::from_mode(0o755)).unwrap();
    env.program = Some(kiln.clone());
    front::put(&env, &script).unwrap();
    std::fs::remove_file(&by_cargo).unwrap();
    std::fs::hard_link(&script, &by_cargo).unwrap();
    let real = front::real_of(&by_cargo).unwrap();

    let ran = || std::fs::read_to_string(world.at("kiln.ran")).unwrap_or_default();
    let line = format!("{} {}\n", real.display(), by_cargo.display());
    // The variable is cargo's own here.
    let config = format!("build.rustc-wrapper = {kiln:?}\n");
    project.write(".cargo/config.toml", config);
    assert_eq!(run("2").ok().stdout, "2\n");
    assert_eq!(ran(), line);
    let again = run("2").ok();
    assert!(!again.stderr.contains("Compiling"), "all is fresh: {}", again.stderr);
    assert_eq!(ran(), line);
    let failed = run("fail").fails().stderr;
    assert!(failed.contains("exit status: 3") && failed.contains("it fails"), "{failed}");
    assert_eq!(ran(), line.repeat(2));

    // Without Kiln the build goes on; nothing is compiled again for that.
    project.remove(".cargo");
    std::fs::remove_file(&kiln).unwrap();
    assert_eq!(run("3").ok().stdout, "3\n");
    assert_eq!(ran(), line.repeat(2));
    assert_eq!(front::real_of(&by_cargo), Some(real));

    world.plain_cargo(&project, &["clean", "-p", "app"]).run().ok();
    assert_eq!(programs(&project), Vec::<PathBuf>::new());
}
