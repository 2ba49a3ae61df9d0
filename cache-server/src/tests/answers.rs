//! Who is answered, and with what.

use axum::response::Response;
use kiln_storage::Digest;
use kiln_storage::api::{Offer, PublishRequest};
use kiln_storage::backend::{Body, Put};

use super::{Fixture, problem, read, record};
use crate::index::IndexError;
use crate::limits::{INGEST_QUEUE_RECORDS, MAX_REPORT_REQUESTS, REPORTS_MADE_AT_ONCE};
use crate::principal::Peer;
use crate::routes;

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let fixture = Fixture::new();
    for i in 0..INGEST_QUEUE_RECORDS {
        let (_, response) = fixture.publish(&format!("unit-{i}")).await;
        assert_eq!(response.status(), 202);
    }
    let (_, response) = fixture.publish("one-more").await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await, "503 /problems/busy");
    assert!(!fixture.service.queue.is_idle());
    fixture.backend.gate.add_permits(INGEST_QUEUE_RECORDS + 1);
    fixture.service.queue.drain().await;
    assert_eq!(fixture.publish("one-more").await.1.status(), 202);
}

#[tokio::test]
async fn however_many_read_reports_builds_get_their_turns() {
    let fixture = Fixture::new();
    let readers = fixture.service.readers.acquire_many(MAX_REPORT_REQUESTS as u32).await.unwrap();
    for path in ["/", "/runs/r", "/v1/runs", "/v1/runs/r/report.json", "/v1/runs/r/now"] {
        let response = fixture.send("GET", path, &()).await;
        assert_eq!(problem(response).await, "503 /problems/busy", "{path}");
    }
    for path in ["/v1/stats", "/v1/server", "/healthz"] {
        assert_eq!(fixture.send("GET", path, &()).await.status(), 200, "{path}");
    }
    drop(readers);
    assert_eq!(fixture.send("GET", "/v1/runs", &()).await.status(), 200);
}

#[tokio::test]
async fn few_reports_are_made_at_once() {
    let fixture = Fixture::new();
    let making = fixture.service.making.acquire_many(REPORTS_MADE_AT_ONCE as u32).await.unwrap();
    let paths =
        ["/runs/r", "/v1/runs/r/report.json", "/v1/runs/r/report.md", "/v1/runs/r/report.html"];
    let mut asked: Vec<_> =
        paths.iter().map(|path| Box::pin(fixture.send("GET", path, &()))).collect();
    for asked in &mut asked {
        // What is read before its turn is done by then.
        let lists = fixture.send("GET", "/v1/runs", &());
        tokio::select! {
            biased;
            _ = asked => panic!("answered without a turn"),
            response = lists => assert_eq!(response.status(), 200),
        }
    }
    drop(making);
    for asked in asked {
        assert_eq!(asked.await.status(), 404);
    }
}

#[tokio::test]
async fn a_history_that_is_damaged_under_way_is_begun_anew() {
    let fixture = Fixture::new();
    let tell = async |n: usize| {
        let mut event =
            crate::tally::tests::event(&n.to_string(), "b", kiln_storage::api::Outcome::Miss);
        event.run = "r".into();
        let events = kiln_storage::api::EventsRequest { events: vec![event] };
        assert_eq!(fixture.send("POST", "/v1/events", &events).await.status(), 204);
    };
    let units = async || {
        let response = fixture.send("GET", "/v1/runs/r/report.json", &()).await;
        match response.status().as_u16() {
            200 => read::<serde_json::Value>(response).await["total"]["units"].as_u64(),
            404 => None,
            _ => panic!("{}", problem(response).await),
        }
    };
    tell(1).await;
    assert_eq!(units().await, Some(1));
    let damaged = fixture.service.history.read(|_| -> rusqlite::Result<()> {
        let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(rusqlite::Error::SqliteFailure(corrupt, None))
    });
    let told = damaged.await.unwrap_err().to_string();
    assert!(told.contains("begun anew, in memory till the server starts again"), "{told}");
    assert_eq!(units().await, None);
    tell(3).await;
    assert_eq!(units().await, Some(1));
    let (again, told) = crate::history::open::open(fixture.dir.path()).unwrap();
    assert!(told.len() == 1 && told[0].contains("thrown away"), "{told:?}");
    let runs = again
        .read(|rows| rows.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0)));
    assert_eq!(runs.await.unwrap(), 0);
}

#[tokio::test]
async fn a_store_without_writes_still_answers() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let (stored, _) = fixture.publish("stored").await;
    assert_eq!(fixture.lookup(&stored).await.len(), 1);

    for (why, expected) in [
        ("Read-only file system", "503 /problems/read-only"),
        ("No space left on device", "507 /problems/insufficient-storage"),
    ] {
        *fixture.backend.fault.lock().unwrap() = Some(why);
        // What the store itself says shows at the first write, whatever was noted before.
        let blob = Body::Bytes(why.into());
        let put = fixture.service.store.put_blob(&Digest::of(why.as_bytes()), blob).await;
        assert!(put.is_err());
        let (_, response) = fixture.publish("refused").await;
        assert_eq!(problem(response).await, expected);
        assert_eq!(fixture.lookup(&stored).await.len(), 1);
        assert_eq!(fixture.publish("stored").await.1.status(), 200);
        let ready = fixture.send("GET", "/readyz", &()).await;
        assert_eq!(ready.status(), 200);
        let ready: serde_json::Value = read(ready).await;
        assert!(ready["read_only"].is_string() && ready["ready"] == true, "{ready}");
    }
    *fixture.backend.fault.lock().unwrap() = None;
    fixture.backend.gate.add_permits(1);
    let blob = Body::Bytes("works".into());
    let put = fixture.service.store.put_blob(&Digest::of(b"works"), blob).await;
    assert_eq!(put.unwrap(), Put::Created);
    assert_eq!(fixture.service.store.read_only(), None);
}

/// What each unit meets while the disk is full is one line.
#[tokio::test]
async fn a_full_store_is_told_once() {
    let fixture = Fixture::new();
    *fixture.backend.fault.lock().unwrap() = Some("No space left on device");
    for unit in ["a", "b", "c"] {
        fixture.publish(unit).await;
        fixture.service.queue.drain().await;
    }
    let log = std::fs::read_to_string(fixture.dir.path().join("server.log")).unwrap();
    let said: Vec<_> = log.lines().filter(|line| line.contains("insufficient storage")).collect();
    let told = said.iter().filter(|line| !line.contains(" debug ")).count();
    assert!(said.len() > 2 && told == 1, "{said:#?}");
}

#[tokio::test]
async fn other_users_are_refused_on_the_socket() {
    let fixture = Fixture::new();
    let uid = Some(rustix::process::geteuid().as_raw() + 1);
    for (path, methods, _) in routes::table() {
        let path = path
            .replace("{digest}", &Digest::of(b"").to_string())
            .replace("{key}", &Digest::of(b"").to_string());
        for method in methods.iter().filter(|_| path.starts_with("/v1/")) {
            let method = method.to_uppercase();
            let response = fixture.send_as(Peer::Unix { uid }, &method, &path, &()).await;
            assert_eq!(problem_or_status(&method, response).await, "403", "{method} {path}");
        }
    }
}

async fn problem_or_status(method: &str, response: Response) -> String {
    if method == "HEAD" {
        return response.status().as_u16().to_string();
    }
    let problem = problem(response).await;
    problem.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn over_tcp_no_files_are_taken_and_the_server_stays() {
    let fixture = Fixture::new();
    let record = record("a");
    let request = PublishRequest {
        record: record.clone(),
        offers: vec![Offer { digest: Digest::of(b"a"), path: "/etc/passwd".into() }],
        replace: false,
    };
    let path = format!("/v1/results/{}", record.result_key);
    let refused = fixture.send_as(Peer::Tcp(None), "PUT", &path, &request).await;
    assert_eq!(problem(refused).await, "422 /problems/unprocessable");
    let refused = fixture.send_as(Peer::Tcp(None), "POST", "/v1/shutdown", &()).await;
    assert_eq!(problem(refused).await, "403 /problems/forbidden");
    assert!(!*fixture.service.stop.borrow());
}

#[tokio::test]
async fn damage_of_the_index_is_noticed() {
    let fixture = Fixture::new();
    let fail = async |code| {
        let failed = fixture.service.index.read(move |_| {
            let error = rusqlite::ffi::Error::new(code);
            Err::<(), _>(rusqlite::Error::SqliteFailure(error, None))
        });
        failed.await.unwrap_err()
    };
    assert_eq!(fail(rusqlite::ffi::SQLITE_FULL).await, IndexError::Full);
    assert!(!fixture.service.index.is_damaged());
    fail(rusqlite::ffi::SQLITE_CORRUPT).await;
    fixture.service.index.damaged().await;
}

/// The document lists every route and nothing else.
#[test]
fn the_document_lists_every_route() {
    let text = crate::openapi_text().unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut documented: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.push(format!("{method} {path}"));
        }
    }
    let mut routed: Vec<String> = routes::table()
        .into_iter()
        .flat_map(|(path, methods, _)| methods.iter().map(move |m| format!("{m} {path}")))
        .collect();
    documented.sort();
    routed.sort();
    assert_eq!(documented, routed);
}

/// Every method in the table is really answered, and no other.
#[tokio::test]
async fn the_table_is_what_the_router_answers() {
    let fixture = Fixture::new();
    for (path, methods, _) in routes::table() {
        for method in ["get", "head", "put", "post", "delete", "patch"] {
            let response =
                fixture.send_as(Peer::Tcp(None), &method.to_uppercase(), path, &()).await;
            let implied = method == "head" && methods.contains(&"get");
            let answered = response.status() != 405;
            assert_eq!(answered, methods.contains(&method) || implied, "{method} {path}");
        }
    }
}
