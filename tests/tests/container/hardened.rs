//! Theme: what is in the image, and that it runs without rights and writes to its volume alone.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::site;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn the_image_is_two_programs_that_run_without_rights_and_write_to_their_volume_alone() {
    let site = site!();
    let files = ["etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/local/bin/kiln"];
    let mut files: Vec<PathBuf> = files.map(PathBuf::from).to_vec();
    files.push("usr/local/bin/kiln-server".into());
    files.sort_unstable();
    assert_eq!(site.image.files, files, "and nothing else: no shell");
    for (name, value) in [
        ("User", json!("65532:65532")),
        ("StopSignal", json!("SIGTERM")),
        ("Volumes", json!({"/var/lib/kiln": {}})),
        ("ExposedPorts", json!({"5456": {}})),
        ("Cmd", json!(["--listen", "0.0.0.0:5456"])),
    ] {
        let says = site.image.says(name);
        let port = |value: &Value| value.to_string().replace("5456/tcp", "5456");
        assert_eq!(port(says), value.to_string(), "{name}");
    }

    let volume = site.volume("volume");
    let server = site.start(&volume);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        "Gid:\t65532\t65532\t65532\t65532",
        "Groups:\t ",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.lines().any(|one| one == line), "{line:?} in {status}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", server.pid())).unwrap();
    let writable = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        words[5].split(',').any(|option| option == "rw").then(|| words[4].to_owned())
    };
    let writable: Vec<String> = mounts.lines().filter_map(writable).collect();
    assert_eq!(writable, ["/var/lib/kiln", "/proc"], "{mounts}");

    let check = site.image.says("Healthcheck")["Test"].clone();
    let check: Vec<String> = serde_json::from_value(check).unwrap();
    assert_eq!(check[0], "CMD");
    server.exec(&check[1..]).ok();
    for dir in ["/", "/etc/kiln", "/usr/local/bin"] {
        let make =
            ["kiln-server", "token", "create", "--name", "x", "--repository", "r", "--ref", "m"];
        let done = server.exec(&words(&[&make[..], &["--dir", dir]].concat())).fails();
        assert!(done.stderr.contains("Read-only file system"), "{done:?}");
    }
    server.exec(&words(&["kiln", "--version"])).ok();
    let log = server.log();
    assert!(!log.contains(" error ") && !log.contains(" warn "), "{log}");
    let said: Vec<String> = server
        .exec(&words(&["kiln-server", "--check", "--listen", "0.0.0.0:5456"]))
        .ok()
        .stdout
        .lines()
        .filter(|line| line.starts_with("behind it: "))
        .map(str::to_owned)
        .collect();
    assert!(
        said.iter().any(|line| line.contains("who has a token gets and keeps there")),
        "{said:?}"
    );

    server.signal(rustix::process::Signal::KILL);
    let pid = server.pid();
    server.ended();
    assert!(!kiln_tests::server::is_alive(pid));
}
