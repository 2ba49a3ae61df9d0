//! `kiln.toml`, as the program reads it.

use std::path::Path;
use std::process::{Command, Output};

/// The program with a directory.
fn program(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.args(args).env_clear().env("KILN_DIR", dir).envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

#[test]
fn what_is_said_where_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kiln.toml");
    let rules = "[trust]\naudience = 'https://cache.example'\n";
    let said = format!("listen = '0.0.0.0:7'\nidle = 1\ndrain = 2\nlog = 'warn'\n{rules}");
    std::fs::write(&file, said).unwrap();
    let check = |args: &[&str]| {
        let all = [&["--check", "--idle", "3"], args].concat();
        let output = program(dir.path(), &all, &[("KILN_DRAIN", "4"), ("KILN_IDLE", "5")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    let shared = check(&[]);
    let at = |line: usize| format!("({}, line {line})", file.display());
    for line in [
        &format!("settings of: {}", file.display()),
        "listens on: http://0.0.0.0:7 (who has a token)",
        "audience: https://cache.example",
        &format!("said: listen=0.0.0.0:7 {}", at(1)),
        "said: idle=3 (--idle)",
        "said: drain=4 (KILN_DRAIN)",
        &format!("said: log=warn {}", at(4)),
    ] {
        assert!(shared.lines().any(|said| said == line), "{line}: {shared}");
    }
    // The wrapper looks for its server where that always is.
    let local = check(&["--role", "local"]);
    assert!(local.contains("listens on: unix://") && !local.contains("http://"), "{local}");

    let other = dir.path().join("other.toml");
    std::fs::write(&other, "storage = 'memory:'\n").unwrap();
    let named = check(&["--config", other.to_str().unwrap()]);
    assert!(named.contains("storage: memory:") && !named.contains("kiln.toml"), "{named}");
}

#[test]
fn the_program_tells_what_it_is_and_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    for (args, status, words) in [
        (&["--version"][..], 0, concat!("kiln-server ", env!("CARGO_PKG_VERSION"), "\n")),
        (&["-V"], 0, concat!("kiln-server ", env!("CARGO_PKG_VERSION"), "\n")),
        (&["--help"], 0, "usage: kiln-server [--role"),
        (&["token", "create", "--help"], 0, "--rights read|write"),
        (&["revoke", "-h"], 0, "TIME is 2026-01-31T12:00:00Z"),
        (&["start"], 2, "unknown command \"start\""),
        (&["--lissten"], 2, "unknown flag \"--lissten\""),
        (&["--listen"], 2, "--listen has no value"),
    ] {
        let output = program(dir.path(), args, &[]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_mistake_in_the_file_is_no_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kiln.toml"), "idle = 1\ncache-size = '1GiB'\n").unwrap();
    for args in [&[][..], &["--check"], &["--role", "local"]] {
        let output = program(dir.path(), args, &[]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("kiln.toml, line 2: ") && said.contains("is cache_size meant?"),
            "{said}"
        );
    }
    for named in ["relative.toml", "/nowhere/kiln.toml"] {
        let output = program(dir.path(), &["--check"], &[("KILN_CONFIG", named)]);
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains(named), "{said}");
    }
}
