//! Those who read and store nothing, and those who have no token at all: what they get to see, and that they keep
//! nobody waiting.

use kiln_storage::api::{LeaseRequest, LeaseResponse, LeasesResponse, ReleaseRequest};
use serde_json::{Value, json};

use crate::guarded::{As, Guarded};
use crate::harness::{Reply, TestServer};
use crate::leases::{granted, request};

/// A job that reads the main branch and stores nothing.
fn reader(guarded: &Guarded) -> As<'_> {
    guarded.job(json!({"event_name": "pull_request_target", "base_ref": "main"}))
}

fn ask(who: &As<'_>, request: &LeaseRequest) -> LeaseResponse {
    let reply = who.json("POST", "/v1/leases", request);
    assert_eq!(reply.status, 200);
    reply.json()
}

#[test]
fn who_stores_nothing_waits_for_others_and_is_waited_for_by_nobody() {
    let guarded = Guarded::start("");
    let (main, reader) = (guarded.job(json!({})), reader(&guarded));
    let foreign = guarded.job(json!({"repository_id": "99"}));
    let at_once = |asker: &str| LeaseRequest { wait_ms: 0, ..request("u", asker) };
    assert_eq!(ask(&reader, &request("u", "a")), LeaseResponse::Free);
    let id = granted(&ask(&main, &request("u", "b")));
    // By the name of the holder it does not get the lease, and it says nothing for it.
    for asker in ["a", "b"] {
        let answer = ask(&reader, &at_once(asker));
        assert!(matches!(answer, LeaseResponse::Held { .. }), "{answer:?}");
    }
    for what in ["hold", "release"] {
        let path = format!("/v1/leases/{id}/{what}");
        let body = json!({"outcome": "abandoned", "cpu_ms": 1});
        assert_eq!(reader.json("POST", &path, &body).status, 403, "{what}");
        assert_eq!(foreign.json("POST", &path, &body).status, 404, "{what}");
    }
    granted(&ask(&foreign, &at_once("c")));
    let result = guarded.result("1", "x", b"x").record.result_key;
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            loop {
                let answer = ask(&reader, &request("u", "a"));
                if !matches!(answer, LeaseResponse::Held { .. }) {
                    return answer;
                }
            }
        });
        while guarded.waiting() == 0 {
            // The holder lives meanwhile.
            assert_eq!(ask(&main, &request("u", "b")), LeaseResponse::Granted { id: id.clone() });
        }
        let listed: LeasesResponse = main.ask("GET", "/v1/leases", b"").json();
        assert_eq!((listed.leases.len(), listed.leases[0].waiting.len()), (1, 0));
        let release = format!("/v1/leases/{id}/release");
        assert_eq!(main.json("POST", &release, &ReleaseRequest::Stored { result }).status, 204);
        asking.join().unwrap()
    });
    assert_eq!(answer, LeaseResponse::Stored { result });
}

/// A pull request waits for what the main branch compiles, and has leases of its own alone.
#[test]
fn a_pull_request_waits_for_the_main_branch_and_not_the_other_way_round() {
    let guarded = Guarded::start("");
    let main = guarded.job(json!({}));
    let pull = |number: u32| {
        let merge = format!("refs/pull/{number}/merge");
        guarded.job(json!({"event_name": "pull_request", "ref": merge, "base_ref": "main"}))
    };
    let (one, two) = (pull(1), pull(2));
    let at_once = |unit: &str, asker: &str| LeaseRequest { wait_ms: 0, ..request(unit, asker) };
    let is_held = |answer: LeaseResponse| matches!(answer, LeaseResponse::Held { .. });
    let id = granted(&ask(&main, &at_once("u", "m")));
    assert!(is_held(ask(&one, &at_once("u", "a"))));
    // Too slow: it compiles itself, and main goes on.
    let own = granted(&ask(&one, &LeaseRequest { over_ms: Some(0), ..at_once("u", "a") }));
    assert_eq!(ask(&main, &at_once("u", "m")), LeaseResponse::Granted { id: id.clone() });
    assert_eq!(
        ask(&one, &LeaseRequest { over_ms: Some(0), ..at_once("u", "a") }),
        LeaseResponse::Granted { id: own }
    );
    let result = guarded.result("1", "x", b"x").record.result_key;
    let release = format!("/v1/leases/{id}/release");
    assert_eq!(main.json("POST", &release, &ReleaseRequest::Stored { result }).status, 204);
    assert_eq!(ask(&two, &request("u", "b")), LeaseResponse::Stored { result });
    let known = LeaseRequest { known: vec![result], ..at_once("u", "b") };
    granted(&ask(&two, &known));
    // What pull requests compile is nothing to others.
    granted(&ask(&one, &at_once("v", "a")));
    for other in [&two, &main] {
        granted(&ask(other, &at_once("v", "c")));
    }
}

#[test]
fn who_has_no_token_waits_for_nobody() {
    let guarded = Guarded::start(r#", "public_read": true"#);
    granted(&ask(&guarded.job(json!({})), &request("u", "b")));
    assert_eq!(ask(&As(&guarded.server, None), &request("u", "a")), LeaseResponse::Free);
}

/// The place behind a server is named to those who get in.
#[test]
fn who_has_no_token_does_not_see_what_is_behind_the_server() {
    let behind = TestServer::start();
    let upstream = format!("http://{}", behind.tcp);
    let guarded = Guarded::start_with(r#", "public_read": true"#, |config| {
        let mut settings = kiln_server::Settings::default();
        settings.flag(kiln_server::Key::Upstream, &upstream);
        *config = config.clone().with(&settings).unwrap();
    });
    let place = |reply: Reply| {
        assert_eq!(reply.status, 200);
        reply.json::<Value>()["remote"]["place"].as_str().map(str::to_owned)
    };
    let nobody = As(&guarded.server, None);
    let stranger = As(&guarded.server, Some("kiln_t_0".to_owned()));
    let job = guarded.job(json!({}));
    for path in ["/readyz", "/v1/server"] {
        assert_eq!(place(nobody.ask("GET", path, b"")), None, "{path}");
        assert_eq!(place(job.ask("GET", path, b"")), Some(upstream.clone()), "{path}");
        assert_eq!(place(guarded.server.unix("GET", path, b"")), Some(upstream.clone()), "{path}");
    }
    assert_eq!(place(stranger.ask("GET", "/readyz", b"")), None);
}
