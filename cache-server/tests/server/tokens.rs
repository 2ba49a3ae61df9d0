//! The commands of the program for who runs a server: its tokens while it runs, and whether it is well.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kiln_server::limits::{LOGIN_PERIOD, MAX_FAILED_LOGINS, MAX_TOLD_REFUSALS};
use kiln_storage::Digest;

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

/// Asks until the answer has this status: the server sees a change a moment later. Not so often that it counts as
/// guessing.
fn comes_to(who: &As<'_>, status: u16) {
    while who.ask("GET", "/v1/stats", b"").status != status {
        std::thread::sleep(Duration::from_millis(100));
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

/// Who has a good token gets in, whatever else comes from its address.
#[test]
fn failed_logins_are_bounded_and_told_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let reader = token(&dir.path().join("kiln"), "reader");
    let server = TestServer::start_with(dir, |_| {});
    let by = |token: &str| As(&server, Some(token.to_owned()));
    let guess = |n: u32| by(&format!("kiln_t_guess{n}")).ask("GET", "/v1/stats", b"");
    let blob = format!("/v1/blobs/{}", Digest::of(b"x"));
    assert_eq!(by(&reader).ask("PUT", &blob, b"x").status, 403);
    // Many jobs come with sessions that are over when a server was started anew: they may log in at once.
    for _ in 0..=MAX_FAILED_LOGINS {
        assert_eq!(by("kiln_s_over").ask("GET", "/v1/stats", b"").status, 401);
    }
    for n in 0..MAX_FAILED_LOGINS {
        assert_eq!(guess(n).status, 401, "{n}");
    }
    let refused = guess(MAX_FAILED_LOGINS);
    assert_eq!((refused.problem().as_str(), refused.status), ("/problems/too-many-logins", 429));
    assert_eq!(refused.header("retry-after"), Some(LOGIN_PERIOD.as_secs().to_string().as_str()));
    // Here are no sessions, whoever asks.
    let session = serde_json::json!({"token": "a.b.c"});
    assert_eq!(As(&server, None).json("POST", "/v1/session", &session).status, 404);
    assert_eq!(by(&reader).ask("GET", "/v1/stats", b"").status, 200);
    assert_eq!(As(&server, None).ask("GET", "/v1/stats", b"").status, 401);

    let log = std::fs::read_to_string(server.kiln_dir().join("server.log")).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("audit: ")).collect();
    let has = |parts: &[&str]| told.iter().any(|l| parts.iter().all(|part| l.contains(part)));
    assert!(has(&["token reader came from 127.0.0.1"]), "{log}");
    assert!(has(&["PUT", "403 refused to token reader from 127.0.0.1"]), "{log}");
    assert!(has(&["GET /v1/stats 401 refused to nobody known from 127.0.0.1"]), "{log}");
    assert!(has(&["is not told for a while"]), "{log}");
    assert_eq!(told.len() as u32, MAX_TOLD_REFUSALS + 1, "{log}");
    assert!(!log.contains("guess") && !log.contains(&reader[7..]), "{log}");
}
