//! The pages from outside: what they answer, what browsers are told, names of any kind, and pages of the list.

use kiln_storage::api::Outcome;

use crate::chain::before;
use crate::harness::{Reply, TestServer};
use crate::runs::{get, hex, of, send};

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

/// A page, after checking what a browser is told about it.
fn page(server: &TestServer, path: &str, status: u16) -> String {
    let reply = server.tcp("GET", path, &[], b"");
    assert_eq!(reply.status, status, "{path}");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    text(&reply)
}

#[test]
fn runs_are_listed_page_by_page_and_lead_to_their_reports() {
    let server = TestServer::start();
    assert!(page(&server, "/", 200).contains("No run is known"));
    for n in 0..60 {
        send(&server, vec![of(&format!("run-{n}"), "build", n, Outcome::Miss)]);
    }
    let first = page(&server, "/", 200);
    assert_eq!(first.matches("href=\"/runs/run-").count(), 50);
    let older = first.split("href=\"").find(|part| part.starts_with("/?before=")).unwrap();
    let second = page(&server, older.split('"').next().unwrap(), 200);
    assert_eq!(second.matches("href=\"/runs/run-").count(), 10);
    assert!(second.contains(">Newest</a>") && !second.contains(">Older</a>"));
    let run = page(&server, "/runs/run-7", 200);
    assert!(run.contains("<bdi>run-7</bdi>") && run.contains("<bdi>build</bdi>"), "{run}");
    for bad in ["/?before=x", "/?before=1", "/?before=9-9-9"] {
        assert_eq!(get(&server, bad).problem(), "/problems/bad-request", "{bad}");
    }
}

#[test]
fn what_is_not_there_has_a_page_that_says_so() {
    let server = TestServer::start();
    let page = page(&server, &format!("/runs/{}", hex("<script>x")), 404);
    assert!(page.contains("<bdi>&lt;script&gt;x</bdi>"), "{page}");
    assert_eq!(get(&server, "/v1/runs/x/report.html").problem(), "/problems/not-found");
    assert_eq!(get(&server, "/pages/x").problem(), "/problems/not-found");
    assert_eq!(get(&server, "/runs/%ff").status, 400);
}

#[test]
fn names_of_any_kind_are_texts() {
    let server = TestServer::start();
    for name in ["<script>alert(1)</script>", "\"' onload=x", "\u{1b}[2J\u{202e}", "a/../b?#"] {
        let mut event = of(name, name, 1, Outcome::Miss);
        event.unit.crate_name = name.into();
        (event.reason, event.detail) = (Some(name.into()), Some(name.into()));
        send(&server, vec![event]);
        let run = page(&server, &format!("/runs/{}", hex(name)), 200);
        let file = text(&get(&server, &format!("/v1/runs/{}/report.html", hex(name))));
        for page in [run, page(&server, "/", 200), file] {
            assert!(!page.contains("<script>") && !page.contains("\"' onload"), "{page}");
            assert!(!page.contains(['\u{1b}', '\u{202e}']), "{page}");
        }
    }
    assert!(page(&server, "/", 200).contains("href=\"/runs/a%2F..%2Fb%3F%23\""));
}

#[test]
fn pages_bring_all_that_they_are_made_with() {
    let server = TestServer::start();
    let page = page(&server, "/", 200);
    for (name, kind) in [
        ("style.css", "text/css; charset=utf-8"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        assert!(page.contains(&format!("\"/pages/{name}\"")), "{page}");
        let reply = get(&server, &format!("/pages/{name}"));
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)));
    }
    assert!(!page.contains("://"), "{page}");
}

#[test]
fn pages_come_from_the_server_that_has_all_runs() {
    let last = TestServer::start();
    send(&last, vec![of("r", "far away", 1, Outcome::Miss)]);
    let first = before(&last);
    for path in ["/runs/r", "/", "/?before=9999999999999-9"] {
        let reply = get(&first, path);
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("script-src 'self'"), "{policy}");
        let shown = text(&reply);
        let name = if path == "/runs/r" { "far away" } else { "<bdi>r</bdi>" };
        assert!(shown.contains(name) && shown.contains("/pages/script.js"), "{shown}");
        assert!(!shown.contains("the server behind it"), "{shown}");
    }
    send(&first, vec![of("own", "j", 1, Outcome::Miss)]);
    drop(last);
    let shown = page(&first, "/", 200);
    assert!(shown.contains("<bdi>own</bdi>") && !shown.contains("<bdi>r</bdi>"), "{shown}");
    assert!(shown.contains("the server behind it, which has all, does not tell"), "{shown}");
    page(&first, "/runs/r", 404);
    page(&first, "/runs/own", 200);
}

#[test]
fn the_file_of_a_run_comes_from_the_server_that_has_the_run() {
    let last = TestServer::start();
    send(&last, vec![of("r", "far away", 1, Outcome::Miss)]);
    let first = before(&last);
    let reply = get(&first, "/v1/runs/r/report.html");
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("script"), "{policy}");
    let file = text(&reply);
    assert!(file.contains("<bdi>far away</bdi>") && !file.contains("<script"), "{file}");
    assert_eq!(get(&first, "/v1/runs/x/report.html").status, 404);
}
