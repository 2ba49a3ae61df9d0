//! How much one principal may ask for, how much of a full store one repository may hold, and rules that change while the
//! server runs.

use std::path::Path;
use std::process::Command;

use kiln_storage::Digest;
use serde_json::{Value, json};

use crate::guarded::{As, Guarded};
use crate::harness::{Fixture, TestServer};

/// A token that writes a repository.
fn token(dir: &Path, name: &str, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command
        .env_clear()
        .args(["token", "create", "--rights", "write", "--ref", "main", "--name", name]);
    let output = command.args(["--repository", name]).args(more).arg("--dir").arg(dir.join("kiln"));
    let output = output.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Until something is so that the server does by itself.
fn until(is: impl Fn() -> bool) {
    while !is() {
        std::thread::yield_now();
    }
}

#[test]
fn who_asks_for_too_much_is_told_and_others_are_not_concerned() {
    let dir = tempfile::tempdir().unwrap();
    let busy = token(dir.path(), "busy", &["--max-requests", "5"]);
    let large = token(dir.path(), "large", &["--max-upload", "10B"]);
    let plain = token(dir.path(), "plain", &[]);
    let server = TestServer::start_with(dir, |_| {});
    let by = |token: &String| As(&server, Some(token.clone()));
    for _ in 0..5 {
        assert_eq!(by(&busy).ask("GET", "/v1/stats", b"").status, 200);
    }
    let refused = by(&busy).ask("GET", "/v1/stats", b"");
    assert_eq!((refused.problem().as_str(), refused.status), ("/problems/over-limit", 429));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");

    let put = |bytes: &[u8]| {
        by(&large).ask("PUT", &format!("/v1/blobs/{}", Digest::of(bytes)), bytes).status
    };
    assert_eq!(
        (put(b"12345678"), put(b"abcdefgh")),
        (201, 201),
        "what begins within it may go beyond it"
    );
    assert_eq!(put(b"x"), 429);
    assert_eq!(by(&large).ask("GET", "/v1/stats", b"").status, 200, "reading is something else");
    assert_eq!(by(&plain).ask("GET", "/v1/stats", b"").status, 200);
    assert_eq!(server.unix("GET", "/v1/stats", b"").status, 200);
    let log = std::fs::read_to_string(server.kiln_dir().join("server.log")).unwrap();
    assert!(log.contains("audit: ") && log.contains("429 refused to token busy"), "{log}");
}

/// What one repository stores pushes out its own, though what another one has is worth less.
#[test]
fn nobody_pushes_out_what_others_have() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (token(dir.path(), "small", &[]), token(dir.path(), "large", &[]));
    let server = TestServer::start_with(dir, |config| config.cache_size = Some(200_000));
    let by = |token: &String| As(&server, Some(token.clone()));
    let result = |unit: &str, cost_ms| {
        let bytes: Vec<u8> = unit.bytes().cycle().take(20_000).collect();
        let mut one = Fixture::new(server.dir.path(), unit, "1", &[&bytes]);
        one.record.cost.wall_ms = cost_ms;
        (one, bytes)
    };
    let (cheap, bytes) = result("cheap", 1);
    assert_eq!(by(&small).publish(&cheap, &bytes), 201);
    for n in 0..12 {
        let (dear, bytes) = result(&format!("dear-{n:02}"), 1_000_000);
        assert_eq!(by(&large).publish(&dear, &bytes), 201);
    }
    until(|| server.stats().store.bytes <= 200_000);
    assert_eq!(by(&small).finds(&cheap), ["out"]);
}

fn rules(guarded: &Guarded, repositories: Value) -> String {
    let issuer = guarded.issuer.url();
    json!({"audience": crate::guarded::AUDIENCE, "issuers": [{"url": issuer}],
        "repositories": repositories})
    .to_string()
}

#[test]
fn rules_that_change_hold_at_once_and_end_what_they_do_not_give() {
    let guarded = Guarded::start("");
    let path = guarded.server.dir.path().join("trust.json");
    let issuer = guarded.issuer.url();
    let repository = |id: &str| json!({"id": id, "issuer": issuer, "default_branch": "main"});
    let mut reader = repository("99");
    reader["write_refs"] = json!([]);
    let (main, other) = (guarded.job(json!({})), guarded.job(json!({"repository_id": "99"})));
    let is_in = |job: &As<'_>| job.ask("GET", "/v1/quarantine", b"").status == 200;
    assert!(is_in(&main) && is_in(&other));

    // What cannot be used keeps the rules, and says so.
    std::fs::write(&path, "{\"audience\": 1").unwrap();
    until(|| guarded.log().contains("the rules from before hold on"));
    assert!(is_in(&main) && is_in(&other));
    assert!(is_in(&guarded.job(json!({}))));

    std::fs::write(&path, rules(&guarded, json!([repository("99")]))).unwrap();
    until(|| !is_in(&main));
    assert!(is_in(&other), "its rights are the same");
    let gone = guarded.issuer.token(crate::guarded::AUDIENCE, json!({}));
    assert_eq!(guarded.exchange(&gone).status, 403);
    until(|| guarded.log().contains("audit: new rules hold, 2 sessions ended"));

    std::fs::write(&path, rules(&guarded, json!([reader]))).unwrap();
    until(|| !is_in(&other));
    let again = guarded.job(json!({"repository_id": "99"}));
    assert_eq!(again.ask("DELETE", "/v1/quarantine", b"").status, 403);
    // A file that is gone opens nothing.
    std::fs::remove_file(&path).unwrap();
    until(|| guarded.log().matches("hold on").count() == 2);
    assert_eq!(As(&guarded.server, None).ask("GET", "/v1/quarantine", b"").status, 401);
    assert!(is_in(&again));
}

#[test]
fn who_has_no_token_learns_nothing_of_the_machine() {
    let guarded = Guarded::start(r#", "public_read": true"#);
    let (nobody, main) = (As(&guarded.server, None), guarded.job(json!({})));
    assert_eq!(nobody.ask("GET", "/metrics", b"").status, 403);
    assert_eq!(main.ask("GET", "/metrics", b"").status, 200);
    let storage = |who: &As<'_>| {
        let stats: Value = who.ask("GET", "/v1/stats", b"").json();
        stats["store"]["storage"].as_str().unwrap().to_owned()
    };
    assert_eq!(storage(&nobody), "");
    assert!(storage(&main).starts_with("file:///"));
}
