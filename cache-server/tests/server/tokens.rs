//! The commands of the program for who runs a server: its tokens while it runs, and whether it is well.

use std::path::Path;
use std::process::Command;

use crate::guarded::As;
use crate::harness::TestServer;

/// What the program says with these arguments, and whether it ended well.
fn program(args: &[&str], dir: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    let output = command.args(args).arg("--dir").arg(dir).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
}

fn token(dir: &Path, name: &str) -> String {
    let args = ["token", "create", "--name", name, "--repository", "r", "--ref", "main"];
    let (done, token) = program(&args, dir);
    assert!(done, "{token}");
    token
}

/// Asks until the answer has this status: the server sees a change a moment later.
fn comes_to(who: &As<'_>, status: u16) {
    while who.ask("GET", "/v1/stats", b"").status != status {
        std::thread::yield_now();
    }
}

#[test]
fn a_token_is_made_and_revoked_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let first = token(&dir.path().join("kiln"), "first");
    let server = TestServer::start_with(dir, |_| {});
    let by = |token: &str| As(&server, Some(token.to_owned()));
    comes_to(&by(&first), 200);
    let second = token(&server.kiln_dir(), "second");
    comes_to(&by(&second), 200);
    assert!(program(&["token", "revoke", "first"], &server.kiln_dir()).0);
    comes_to(&by(&first), 401);
    comes_to(&by(&second), 200);
    // That the file is gone opens nothing.
    std::fs::remove_file(server.kiln_dir().join("tokens.json")).unwrap();
    comes_to(&by(&second), 401);
    assert_eq!(As(&server, None).ask("GET", "/v1/stats", b"").status, 401);
}

#[test]
fn whether_a_server_is_well_is_told_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    token(&dir.path().join("kiln"), "any");
    let server = TestServer::start_with(dir, |_| {});
    let (tcp, socket) = (server.tcp.to_string(), format!("unix://{}", server.socket.display()));
    let health = |listen: &str| program(&["health", "--listen", listen], &server.kiln_dir());
    assert_eq!(health(&tcp), (true, format!("http://{tcp} answers")));
    assert_eq!(health(&socket), (true, format!("{socket} answers")));
    let on_all = format!("0.0.0.0:{}", server.tcp.port());
    assert_eq!(health(&on_all), (true, format!("http://{tcp} answers")));
    let dir = server.stop();
    let gone = |listen: &str| program(&["health", "--listen", listen], dir.path());
    for listen in [&tcp, &socket] {
        let (well, text) = gone(listen);
        assert!(!well && text.contains("does not answer"), "{text}");
    }
    let (well, text) = gone("nowhere");
    assert!(!well && text.contains("nowhere"), "{text}");
}
