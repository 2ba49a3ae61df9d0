//! Events and statistics, and what the server says about itself.

use std::collections::BTreeMap;

use kiln_storage::api::{
    Cause, Event, EventsRequest, ExplainResponse, Outcome, RunAbout, ServerInfo,
};
use kiln_storage::limits::{MAX_ABOUT_BYTES, MAX_CAUSES, MAX_EVENTS};
use kiln_storage::record::UnitName;

use crate::harness::{Fixture, TestServer};

pub(crate) fn event(id: usize, build: &str, outcome: Outcome) -> Event {
    Event {
        id: format!("{build}-{id}"),
        at_ms: 1,
        run: "run".into(),
        job: "job".into(),
        about: None,
        build: build.into(),
        unit: UnitName::default(),
        unit_key: None,
        result_key: None,
        outcome,
        reason: Some("no-record".into()),
        detail: None,
        causes: Vec::new(),
        more_causes: 0,
        stem: None,
        pinned: Vec::new(),
        conservative: Vec::new(),
        phases_us: BTreeMap::new(),
        bytes: 7,
        cost_ms: 100,
        cpu_ms: 100,
        wall_us: 2500,
    }
}

/// The first run of each job asks for what it used in its last one.
#[test]
fn a_note_that_is_not_there_is_no_line_in_the_log() {
    let server = TestServer::start();
    assert_eq!(server.unix("GET", "/v1/notes/ahead-1", b"").status, 404);
    assert_eq!(server.unix("GET", "/v1/runs/1", b"").status, 404);
    let log = std::fs::read_to_string(server.kiln_dir().join("server.log")).unwrap();
    assert!(!log.contains("/v1/notes/") && log.contains("/v1/runs/1 404"), "{log}");
}

#[test]
fn events_are_counted_once_and_zeroed() {
    let server = TestServer::start();
    let send = |events: Vec<Event>| server.send("POST", "/v1/events", &EventsRequest { events });
    let first = vec![event(1, "a", Outcome::HitLocal), event(2, "a", Outcome::Miss)];
    assert_eq!(send(first.clone()).status, 204);
    assert_eq!(send(first).status, 204);
    assert_eq!(send(vec![event(1, "b", Outcome::HitLocal)]).status, 204);
    let stats = server.stats();
    assert_eq!((stats.total.units, stats.total.hit_local, stats.total.miss), (3, 2, 1));
    assert_eq!((stats.build.units, stats.missed.len()), (1, 0));
    assert_eq!(stats.total.miss_reasons["no-record"], 1);
    assert_eq!((stats.total.saved_ms, stats.total.restore_ms), (200, 5));
    assert!(stats.store.storage.starts_with("file:///"));
    assert_eq!(server.unix("POST", "/v1/stats/zero", b"").status, 204);
    assert_eq!(server.stats().total.units, 0);
    let explained = |path: &str| server.unix("GET", path, b"").json::<ExplainResponse>();
    let newest = explained("/v1/explain");
    assert_eq!((newest.build.as_deref(), newest.events.len()), (Some("b"), 1));
    assert_eq!(explained("/v1/explain?build=a").events.len(), 2);

    // Events that were taken last are written before the server has left.
    let last = vec![event(2, "b", Outcome::Bypass), event(1, "b", Outcome::HitLocal)];
    assert_eq!(send(last).status, 204);
    let dir = server.stop();
    let server = TestServer::start_with(dir, |_| {});
    let stats = server.stats();
    assert_eq!((stats.total.units, stats.total.bypass), (1, 1));
}

#[test]
fn batches_and_events_are_bounded() {
    let server = TestServer::start();
    let events = (0..=MAX_EVENTS).map(|i| event(i, "a", Outcome::Miss)).collect();
    let reply = server.send("POST", "/v1/events", &EventsRequest { events });
    assert_eq!((reply.status, reply.problem().as_str()), (413, "/problems/too-large"));
    let mut many = event(1, "a", Outcome::Miss);
    many.causes = vec![Cause::default(); MAX_CAUSES + 1];
    assert_eq!(
        server.send("POST", "/v1/events", &EventsRequest { events: vec![many] }).status,
        413
    );
    let mut large = event(1, "a", Outcome::Miss);
    large.detail = Some("x".repeat(kiln_server::limits::MAX_EVENT_BYTES));
    let events = vec![large];
    let reply = server.send("POST", "/v1/events", &EventsRequest { events });
    assert_eq!(reply.status, 413);
    let told = |bytes: usize| {
        let about = RunAbout { url: "x".repeat(bytes), ..RunAbout::default() };
        Event { about: Some(about), ..event(1, "a", Outcome::Miss) }
    };
    let send = |event: Event| {
        server.send("POST", "/v1/events", &EventsRequest { events: vec![event] }).status
    };
    assert_eq!(send(told(MAX_ABOUT_BYTES + 1)), 413);
    assert_eq!(server.stats().total.units, 0);
    assert_eq!(send(told(MAX_ABOUT_BYTES)), 204);
    let explained: ExplainResponse = server.unix("GET", "/v1/explain", b"").json();
    assert_eq!(explained.events, [told(MAX_ABOUT_BYTES)]);
}

#[test]
fn the_store_is_measured() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[&[7; 1000], b""]);
    server.publish(&one);
    server.lookup(&one.record);
    let store = server.stats().store;
    assert_eq!((store.results, store.blobs), (1, 2));
    assert!(store.bytes > 1000 && store.bytes < 3000, "{store:?}");
}

#[test]
fn the_server_says_who_it_is() {
    let server = TestServer::start();
    let info: ServerInfo = server.unix("GET", "/v1/server", b"").json();
    assert_eq!((info.name.as_str(), info.role.as_str()), ("kiln", "local"));
    assert_eq!((info.pid, info.idle_s), (std::process::id(), Some(600)));
    assert_eq!(info.read_only, None);
    assert_eq!(server.tcp("GET", "/healthz", &[], b"").body, b"ok\n");
    assert_eq!(server.tcp("GET", "/v1/nothing", &[], b"").problem(), "/problems/not-found");
    let shutdown = server.tcp("POST", "/v1/shutdown", &[], b"");
    assert_eq!(shutdown.problem(), "/problems/forbidden");
}

/// The document in the repository is the one that the server serves. When this fails, run
/// `cargo run -p kiln-server --bin kiln-server -- openapi > docs/openapi.json`.
#[test]
fn the_document_in_docs_is_the_one_served() {
    let server = TestServer::start();
    let served = server.tcp("GET", "/openapi.json", &[], b"").body;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let kept = std::fs::read(path).unwrap_or_default();
    assert!(
        served == kept,
        "docs/openapi.json is out of date; run\n  \
         cargo run -p kiln-server --bin kiln-server -- openapi > docs/openapi.json"
    );
}
