//! `GET /metrics` from outside: what was done is counted, once.

use kiln_storage::api::Outcome;

use crate::chain::before;
use crate::harness::{Fixture, TestServer, in_memory};
use crate::runs::{get, of, send};

pub(crate) fn value(server: &TestServer, series: &str) -> Option<f64> {
    let reply = get(server, "/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(reply.body).unwrap();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn what_was_done_is_counted_once() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), in_memory);
    let of_store = ["kiln_store_bytes", "kiln_store_results", "kiln_store_blobs"];
    assert!(of_store.iter().all(|name| value(&server, name) == Some(0.0)));
    assert_eq!(value(&server, "kiln_store_oldest_use_seconds"), None);
    assert_eq!(value(&server, "kiln_outbox_results"), None, "nothing is behind the server");

    for _ in 0..2 {
        send(&server, (0..3).map(|n| of("r", "j", n, Outcome::HitLocal)).collect());
        send(&server, vec![of("r", "k", 1, Outcome::Miss), of("q", "k", 2, Outcome::Bypass)]);
    }
    for (outcome, wanted) in [("hit-local", 3.0), ("miss", 1.0), ("bypass", 1.0), ("error", 0.0)] {
        let series = format!("kiln_units_total{{outcome=\"{outcome}\"}}");
        assert_eq!(value(&server, &series), Some(wanted), "{series}");
    }
    assert_eq!(value(&server, "kiln_saved_cpu_seconds_total"), Some(0.3));
    assert_eq!(value(&server, "kiln_compiled_seconds_total"), Some(0.1));
    assert_eq!((value(&server, "kiln_runs"), value(&server, "kiln_jobs")), (Some(2.0), Some(3.0)));

    let fixture = Fixture::new(server.dir.path(), "u", "v", &[b"four", b"seven!!"]);
    assert_eq!(server.publish(&fixture).status, 202);
    assert_eq!(server.lookup(&fixture.record).records.len(), 1);
    assert_eq!(value(&server, "kiln_lookup_duration_seconds_count"), Some(1.0));
    assert_eq!(value(&server, "kiln_lookup_duration_seconds_bucket{le=\"+Inf\"}"), Some(1.0));
    assert_eq!(value(&server, "kiln_blob_received_bytes_total"), Some(11.0));
    let digest = kiln_storage::Digest::of(b"seven!!");
    assert_eq!(get(&server, &format!("/v1/blobs/{digest}")).status, 200);
    assert_eq!(value(&server, "kiln_blob_sent_bytes_total"), Some(7.0));
    assert_eq!(value(&server, "kiln_store_blobs"), Some(2.0));
    assert!(value(&server, "kiln_store_oldest_use_seconds").is_some());
}

#[test]
fn what_is_behind_a_server_is_counted_with_its_faults() {
    let last = TestServer::start();
    let fixture = Fixture::new(last.dir.path(), "u", "v", &[b"four"]);
    assert_eq!(last.publish(&fixture).status, 202);
    assert_eq!(last.lookup(&fixture.record).records.len(), 1);
    let first = before(&last);
    assert_eq!(value(&first, "kiln_remote_up"), None, "it was not asked");
    assert_eq!(first.lookup(&fixture.record).records.len(), 1);
    assert_eq!(value(&first, "kiln_remote_up"), Some(1.0));
    assert!(value(&first, "kiln_remote_requests_total") >= Some(1.0));
    assert_eq!(value(&first, "kiln_remote_faults_total"), Some(0.0));
    assert_eq!(value(&first, "kiln_outbox_results"), Some(0.0));

    // Nobody listens there any more.
    let first = before(&last);
    last.stop();
    assert_eq!(first.lookup(&fixture.record).records.len(), 0);
    assert_eq!(value(&first, "kiln_remote_up"), Some(0.0));
    assert_eq!(value(&first, "kiln_remote_faults_total"), Some(1.0));
}
