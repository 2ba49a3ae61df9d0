//! Every route of the API document, asked by those who may not: by nobody, and by a job of another repository for what
//! a job stored, reported and holds. A route that is new is asked as well, by what its parameters are called.

use std::collections::{BTreeMap, BTreeSet};

use kiln_storage::api::{
    EventsRequest, LeaseRequest, LeaseResponse, LookupRequest, MissingRequest, NearestRequest,
    Outcome, PublishRequest,
};
use kiln_storage::record::{UnitName, UnitPart};
use kiln_storage::{Digest, LeaseKey};
use serde_json::{Value, json};

use crate::guarded::{As, Guarded};
use crate::harness::{Fixture, Reply};
use crate::runs;

/// What is answered to everybody: nothing of it is anybody's.
const OF_ALL: [&str; 5] =
    ["GET /healthz", "GET /readyz", "GET /openapi.json", "GET /pages/{name}", "POST /v1/session"];

/// A word in all texts that the job stores.
const MARK: &str = "markedword";

/// The bytes of its blob.
const BLOB: &[u8] = b"markedword in a blob";

/// What answers of the job's own hold the word for.
const TELLING: [&str; 15] = [
    "POST /v1/lookup",
    "GET /v1/blobs/{digest}",
    "POST /v1/blobs/pack",
    "GET /v1/quarantine",
    "GET /v1/notes/{name}",
    "GET /v1/leases",
    "POST /v1/nearest",
    "GET /v1/explain",
    "GET /v1/stats",
    "GET /v1/runs",
    "GET /v1/runs/{run}",
    "GET /v1/runs/{run}/now",
    "GET /v1/runs/{run}/jobs/{job}",
    "GET /v1/runs/{run}/report.json",
    "GET /v1/runs/{run}/report.html",
];

/// The routes of the document, as method and path.
fn routes(guarded: &Guarded) -> Vec<(String, String)> {
    let document: Value = guarded.server.unix("GET", "/openapi.json", b"").json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        routes.extend(
            methods.as_object().unwrap().keys().map(|name| (name.to_uppercase(), path.clone())),
        );
    }
    assert!(routes.len() > 35, "{routes:?}");
    routes
}

/// What a job of repository 1234 has on the server.
struct Marked {
    one: Fixture,
    lease: String,
}

impl Marked {
    fn unit() -> UnitName {
        UnitName { crate_name: format!("{MARK}_crate"), ..UnitName::default() }
    }

    fn lease(asker: &str) -> LeaseRequest {
        LeaseRequest {
            key: LeaseKey::new(Digest::of(b"unit")),
            asker: asker.to_owned(),
            unit: Self::unit(),
            run: "r".to_owned(),
            job: "j".to_owned(),
            wait_ms: 0,
            known: Vec::new(),
            over_ms: None,
        }
    }

    /// Has the job store, report, note, quarantine and hold something.
    fn made(guarded: &Guarded, job: &As<'_>) -> Self {
        let mut one = guarded.result("1", MARK, BLOB);
        one.record.unit = Self::unit();
        one.record.parts = vec![UnitPart { group: "cfg".into(), name: MARK.into(), value: None }];
        assert_eq!(job.publish(&one, BLOB), 201);
        let wrong = guarded.result("2", "wrong", b"wrong");
        let quarantine = json!({"unit": Self::unit(), "reason": MARK});
        let path = format!("{}/quarantine", wrong.path());
        assert_eq!(job.json("POST", &path, &quarantine).status, 204);
        let mut event = runs::of("r", "j", 1, Outcome::Miss);
        event.unit = Self::unit();
        event.reason = Some(MARK.to_owned());
        event.unit_key = Some(one.record.unit_key);
        let events = EventsRequest { events: vec![event] };
        assert_eq!(job.json("POST", "/v1/events", &events).status, 204);
        assert_eq!(job.ask("PUT", "/v1/notes/n", MARK.as_bytes()).status, 204);
        let LeaseResponse::Granted { id } =
            job.json("POST", "/v1/leases", &Self::lease("a")).json()
        else {
            panic!("the lease is somebody's");
        };
        Self { one, lease: id }
    }

    /// A path with names of what there is.
    fn path(&self, path: &str) -> String {
        path.replace("{digest}", &Digest::of(BLOB).to_string())
            .replace("{key}", &self.one.record.result_key.to_string())
            .replace("{id}", &self.lease)
            .replace("{run}", "r")
            .replace("{job}", "j")
            .replace("{name}", "n")
    }

    /// A body that asks for what there is, where a route takes one.
    fn body(&self, route: &str) -> Vec<u8> {
        let Fixture { record, .. } = &self.one;
        let asked = match route {
            "POST /v1/lookup" => json!(LookupRequest {
                units: vec![record.unit_key],
                results: vec![record.result_key],
                ..LookupRequest::default()
            }),
            "POST /v1/blobs/missing" | "POST /v1/blobs/pack" => {
                json!(MissingRequest { blobs: vec![Digest::of(BLOB)] })
            }
            "PUT /v1/results/{key}" => {
                json!(PublishRequest { offers: Vec::new(), ..self.one.request() })
            }
            "POST /v1/results/{key}/reject" => json!({"reason": "x"}),
            "POST /v1/results/{key}/quarantine" => json!({"unit": Self::unit(), "reason": "x"}),
            "POST /v1/results/{key}/bring" => json!({"within_ms": 100}),
            "POST /v1/leases" => json!(Self::lease("b")),
            "POST /v1/leases/{id}/hold" => json!({"cpu_ms": 0}),
            "POST /v1/leases/{id}/release" => json!({"outcome": "abandoned"}),
            "POST /v1/events" => json!({"events": []}),
            "POST /v1/nearest" => json!(NearestRequest {
                unit_key: kiln_storage::UnitKey::new(Digest::of(b"new")),
                unit: Self::unit(),
                result: None,
            }),
            "POST /v1/session" => json!({"token": "a.b.c"}),
            route if route.starts_with("GET ") || route.starts_with("HEAD ") => return Vec::new(),
            _ => json!({}),
        };
        serde_json::to_vec(&asked).unwrap()
    }

    /// The answers of all routes to somebody.
    fn asked_by(
        &self,
        who: &As<'_>,
        routes: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<String, Reply> {
        let ask = |(method, path): (String, String)| {
            let route = format!("{method} {path}");
            let reply = who.ask(&method, &self.path(&path), &self.body(&route));
            (route, reply)
        };
        routes.into_iter().map(ask).collect()
    }
}

fn is_marked(reply: &Reply) -> bool {
    reply.body.windows(MARK.len()).any(|part| part == MARK.as_bytes())
}

#[test]
fn no_route_is_for_those_without_a_token_where_one_is_asked_for() {
    let guarded = Guarded::start("");
    let marked = Marked::made(&guarded, &guarded.job(json!({})));
    let nobody = As(&guarded.server, None);
    let mut of_all = BTreeSet::from(OF_ALL);
    for (route, reply) in marked.asked_by(&nobody, routes(&guarded)) {
        assert!(!is_marked(&reply), "{route}");
        if !of_all.remove(route.as_str()) {
            assert_eq!(reply.status, 401, "{route}");
        }
    }
    assert_eq!(of_all, BTreeSet::new());
    assert_eq!(nobody.ask("GET", "/healthz", b"").status, 200);
    let browser = guarded.server.tcp("GET", "/", &[("accept", "text/html")], b"");
    assert_eq!(browser.header("www-authenticate"), Some("Basic realm=\"kiln\""));
    assert_eq!(guarded.server.unix("GET", "/v1/stats", b"").status, 200, "the own user needs none");
}

#[test]
fn what_a_job_has_is_not_there_for_another_repository() {
    let guarded = Guarded::start("");
    let job = guarded.job(json!({}));
    let marked = Marked::made(&guarded, &job);
    let before = job.ask("GET", "/v1/stats", b"").body;
    let stranger = guarded.job(json!({"repository_id": "99"}));
    for (route, reply) in marked.asked_by(&stranger, routes(&guarded)) {
        // A page about a run that is not there may say which it is.
        assert!(!is_marked(&reply), "{route}: {}", String::from_utf8_lossy(&reply.body));
        let path = route.split_once(' ').unwrap().1;
        let names_own = ["{digest}", "{id}", "{run}"].iter().any(|name| path.contains(name));
        if names_own && route != "PUT /v1/blobs/{digest}" {
            assert_eq!(reply.status, 404, "{route}");
        }
        match route.as_str() {
            // They get what they ask for, of their own.
            "POST /v1/leases" => {
                assert!(matches!(reply.json(), LeaseResponse::Granted { .. }), "{route}");
            }
            "PUT /v1/results/{key}" => assert_eq!(reply.problem(), "/problems/missing-blobs"),
            _ => {}
        }
    }
    // Nothing is lost, and the same questions are answered where they may be.
    let after: Value = serde_json::from_slice(&job.ask("GET", "/v1/stats", b"").body).unwrap();
    let before: Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(after["total"], before["total"]);
    let telling = routes(&guarded)
        .into_iter()
        .filter(|(method, path)| TELLING.contains(&format!("{method} {path}").as_str()));
    let told = marked.asked_by(&job, telling);
    assert_eq!(told.len(), TELLING.len());
    for (route, reply) in &told {
        assert!(is_marked(reply), "{route}: {}", String::from_utf8_lossy(&reply.body));
    }
    let held: LeaseResponse = job.json("POST", "/v1/leases", &Marked::lease("b")).json();
    assert!(matches!(held, LeaseResponse::Held { .. }), "{held:?}");
    let release = format!("/v1/leases/{}/release", marked.lease);
    let abandoned = json!({"outcome": "abandoned"});
    assert_eq!(job.json("POST", &release, &abandoned).status, 204, "it was its own till now");
}
