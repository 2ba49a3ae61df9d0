//! Blobs over HTTP.

use kiln_storage::Digest;
use kiln_storage::api::MissingRequest;

use crate::harness::{TestServer, blob_file, in_memory};

fn path(bytes: &[u8]) -> String {
    format!("/v1/blobs/{}", Digest::of(bytes))
}

fn blobs_travel_whole_and_in_ranges(server: &TestServer) {
    // Over one chunk, and over what a small read returns in memory.
    let bytes: Vec<u8> = (0..700_001_u32).map(|i| (i * 7 % 251) as u8).collect();
    let path = path(&bytes);
    assert_eq!(server.tcp("GET", &path, &[], b"").problem(), "/problems/not-found");
    assert_eq!(server.tcp("HEAD", &path, &[], b"").status, 404);
    assert_eq!(server.tcp("PUT", &path, &[], &bytes).status, 201);
    assert_eq!(server.unix("PUT", &path, &bytes).status, 200);

    let whole = server.tcp("GET", &path, &[], b"");
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    let head = server.tcp("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("700001"));

    let part = |range: &str| server.tcp("GET", &path, &[("range", range)], b"");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=300000-600000", 300_000, 600_001),
        ("bytes=700000-", 700_000, 700_001),
        ("bytes=-5", 699_996, 700_001),
    ] {
        let reply = part(range);
        assert_eq!(reply.status, 206, "{range}");
        assert!(reply.body == bytes[from..to], "{range}");
        let expected = format!("bytes {from}-{}/700001", to - 1);
        assert_eq!(reply.header("content-range"), Some(expected.as_str()));
    }
    let outside = part("bytes=700001-");
    assert_eq!(outside.problem(), "/problems/range-not-satisfiable");
    assert_eq!(outside.header("content-range"), Some("bytes */700001"));
    assert_eq!(part("bytes=0-1,5-6").status, 200);
}

#[test]
fn blobs_travel_from_and_to_the_disk() {
    blobs_travel_whole_and_in_ranges(&TestServer::start());
}

#[test]
fn blobs_travel_from_and_to_memory() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), in_memory);
    blobs_travel_whole_and_in_ranges(&server);
}

#[test]
fn bytes_of_another_digest_are_refused_and_not_stored() {
    let server = TestServer::start();
    for wrong in [b"wrong".as_slice(), b""] {
        let reply = server.tcp("PUT", &path(b"right"), &[], wrong);
        assert_eq!((reply.status, reply.problem().as_str()), (422, "/problems/digest-mismatch"));
    }
    assert_eq!(server.tcp("HEAD", &path(b"right"), &[], b"").status, 404);
    assert_eq!(server.stats().store.blobs, 0);
    assert_eq!(server.tcp("PUT", &path(b""), &[], b"").status, 201);
    assert_eq!(server.tcp("GET", &path(b""), &[], b"").status, 200);
}

#[test]
fn malformed_uploads_are_problems() {
    let server = TestServer::start();
    let chunked = [("transfer-encoding", "chunked")];
    let reply = server.tcp("PUT", &path(b"a"), &chunked, b"1\r\na\r\n0\r\n\r\n");
    assert_eq!(reply.problem(), "/problems/length-required");
    for name in ["short", &"g".repeat(64), &"A".repeat(64)] {
        let reply = server.tcp("PUT", &format!("/v1/blobs/{name}"), &[], b"a");
        assert_eq!(reply.problem(), "/problems/bad-request", "{name}");
    }
    let reply = server.tcp("DELETE", &path(b"a"), &[], b"");
    assert_eq!(reply.problem(), "/problems/method-not-allowed");
}

#[test]
fn missing_blobs_are_told() {
    let server = TestServer::start();
    server.tcp("PUT", &path(b"a"), &[], b"a");
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let request = MissingRequest { blobs: vec![b, a, b] };
    let reply = server.send("POST", "/v1/blobs/missing", &request);
    assert_eq!(reply.json::<MissingRequest>().blobs, [b, b]);
    let many = MissingRequest { blobs: vec![a; kiln_server::limits::MAX_MISSING_BLOBS + 1] };
    let reply = server.send("POST", "/v1/blobs/missing", &many);
    assert_eq!((reply.status, reply.problem().as_str()), (413, "/problems/too-large"));
}

#[test]
fn a_damaged_blob_is_not_served() {
    let server = TestServer::start();
    server.tcp("PUT", &path(b"right"), &[], b"right");
    std::fs::write(blob_file(&server.store_dir(), b"right"), b"wrong").unwrap();
    assert_eq!(server.tcp("GET", &path(b"right"), &[], b"").status, 404);
    assert_eq!(server.tcp("PUT", &path(b"right"), &[], b"right").status, 201);
    assert_eq!(server.tcp("GET", &path(b"right"), &[], b"").body, b"right");
}
