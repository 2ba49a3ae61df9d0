//! Faults between the object-store backend and a real server: what is tried again, for how long, and what
//! comes of the rest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::support::{Bucket, PART_BYTES, fresh_url, options};
use kiln_storage::object::ObjectBackend;
use kiln_storage::testing::bodies::{blob_name, list, name, noise, read};
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_storage::{Backend, Body, ObjectName, Put, StoreError, StoreResult, Verified};

async fn put(backend: &dyn Backend, name: &ObjectName, len: usize) -> StoreResult<Put> {
    backend.put_if_absent(name, Body::Bytes(noise(1, len))).await
}

/// What is over after one attempt more, of every kind of call.
#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_outlasted() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    let there = name("there");
    put(&backend, &there, 100_000).await.unwrap();
    let faults = [
        HttpFault::Status(429, None),
        HttpFault::Status(500, None),
        HttpFault::Status(503, None),
        HttpFault::ResetBefore,
        HttpFault::LostAnswer,
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let before = backend.traffic().retries();
        bucket.proxy.inject(When::next("GET", "there").times(2), fault);
        assert_eq!(read(&backend, &there).await.unwrap(), Some(noise(1, 100_000)), "{fault:?}");
        bucket.proxy.inject(When::next("HEAD", "there").times(2), fault);
        assert_eq!(backend.size(&there).await.unwrap(), Some(100_000), "{fault:?}");
        bucket.proxy.inject(When::next("GET", "list-type").times(2), fault);
        assert_eq!(list(&backend, "there").await.unwrap(), [name("there")], "{fault:?}");
        let new = name(&format!("new-{i}"));
        bucket.proxy.inject(When::next("PUT", "new").times(2), fault);
        let created = put(&backend, &new, 10).await.unwrap();
        // The first attempt did it, and the second finds it there.
        let expected = match fault {
            HttpFault::LostAnswer => Put::AlreadyThere,
            _ => Put::Created,
        };
        assert_eq!(created, expected, "{fault:?}");
        assert_eq!(read(&backend, &new).await.unwrap(), Some(noise(1, 10)), "{fault:?}");
        bucket.proxy.inject(When::next("POST", "delete").times(2), fault);
        assert!(backend.delete(&new).await.unwrap(), "{fault:?}");
        assert_eq!(backend.size(&new).await.unwrap(), None, "{fault:?}");
        assert_eq!(backend.traffic().retries() - before, 10, "{fault:?}");
        assert_eq!(bucket.proxy.injected(), 10 * (i as u64 + 1), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_stay_are_given_up_after_a_few_attempts() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    for (fault, said) in [
        (HttpFault::Status(429, None), "status 429; it is busy or broken, which passes"),
        (HttpFault::Status(503, None), "status 503; it is busy or broken, which passes"),
        (HttpFault::ResetBefore, "the connection broke before an answer came"),
        (HttpFault::Conflict, "status 409 (ConditionalRequestConflict)"),
    ] {
        bucket.proxy.clear();
        bucket.proxy.forget();
        bucket.proxy.inject(When::any().always(), fault);
        let failed = put(&backend, &name("x"), 10).await;
        let Err(StoreError::Unavailable(text)) = failed else { panic!("{fault:?}: {failed:?}") };
        assert!(text.ends_with(said), "{text}");
        assert_eq!(bucket.proxy.injected(), 4, "{fault:?}");
        bucket.proxy.clear();
        assert_eq!(backend.size(&name("x")).await.unwrap(), None);
    }
    // A service that does not know conditional writes is not asked again.
    bucket.proxy.forget();
    bucket.proxy.inject(When::any().always(), HttpFault::Status(501, None));
    assert!(put(&backend, &name("x"), 10).await.is_err());
    assert_eq!(bucket.proxy.injected(), 1);
}

/// A build waits for what is read, and is told at once that nobody listens; what is written waits behind it.
#[tokio::test]
async fn where_nobody_listens_reads_are_given_up_early() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let backend = ObjectBackend::open(&options(address, &fresh_url())).unwrap();
    let retries = || backend.traffic().retries();
    for (what, tries) in [("get", 1), ("size", 1), ("list", 1), ("put", 3)] {
        let before = retries();
        let failed = match what {
            "get" => backend.get(&name("x")).await.err(),
            "size" => backend.size(&name("x")).await.err(),
            "list" => backend.list("results/").next().await.unwrap().err(),
            _ => put(&backend, &name("x"), 10).await.err(),
        };
        let Some(StoreError::Unavailable(text)) = failed else { panic!("{what}: {failed:?}") };
        assert!(text.contains("no connection"), "{what}: {text}");
        assert_eq!(retries() - before, tries, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_asks_to_wait_is_waited_or_given_up_at_once() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    bucket.proxy.inject(When::next("PUT", "x"), HttpFault::Status(429, Some(1)));
    let began = Instant::now();
    assert_eq!(put(&backend, &name("x"), 10).await.unwrap(), Put::Created);
    assert!(began.elapsed() >= Duration::from_secs(1), "it was asked again too early");
    // Longer than all the time there is: nobody waits.
    bucket.proxy.forget();
    bucket.proxy.inject(When::any().always(), HttpFault::Status(503, Some(3600)));
    assert!(matches!(backend.get(&name("x")).await, Err(StoreError::Unavailable(_))));
    assert_eq!(bucket.proxy.injected(), 1);
}

/// A server that leaves gives a silent place up; one that says when to come again is not silent meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_asks_to_wait_is_counted_as_it_passes() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    bucket.proxy.inject(When::next("PUT", "x"), HttpFault::Status(503, Some(2)));
    let (asked, traffic, mut counted) = (name("x"), backend.traffic(), Vec::new());
    let wait = async {
        loop {
            let now = traffic.asked_to_wait_ms();
            if counted.last() != Some(&now) {
                counted.push(now);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        put = put(&backend, &asked, 10) => assert_eq!(put.unwrap(), Put::Created),
        () = wait => {}
    }
    assert!(traffic.asked_to_wait_ms() >= 2000 && counted.len() >= 2, "{counted:?}");
    // Pauses of one's own are none of it.
    let before = traffic.asked_to_wait_ms();
    bucket.proxy.inject(When::next("PUT", "y").times(2), HttpFault::Status(503, None));
    assert_eq!(put(&backend, &name("y"), 10).await.unwrap(), Put::Created);
    assert_eq!(traffic.asked_to_wait_ms(), before);
}

/// What is wrong with credentials is said, also of what is asked with HEAD, where the service cannot say it.
#[tokio::test(flavor = "multi_thread")]
async fn why_nobody_is_let_in_is_said() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    for (status, code, said) in [
        (400, "ExpiredToken", "; the session of AWS_SESSION_TOKEN is over"),
        (400, "InvalidToken", "; the session of AWS_SESSION_TOKEN is over"),
        (403, "RequestTimeTooSkewed", "; the clock of this machine is wrong"),
        (403, "InvalidAccessKeyId", "; it lets nobody in like that: look at AWS_ACCESS_KEY_ID"),
    ] {
        bucket.proxy.clear();
        bucket.proxy.inject(When::any().always(), HttpFault::Code(status, code));
        let got = backend.get(&name("x")).await.err();
        let asked = backend.size(&name("x")).await.err();
        for failed in [got, asked] {
            let Some(StoreError::Unavailable(text)) = failed else { panic!("{code}: {failed:?}") };
            assert!(text.contains(&format!("status {status} ({code}){said}")), "{text}");
        }
    }
    // Of another status nothing is known.
    bucket.proxy.clear();
    bucket.proxy.inject(When::any().always(), HttpFault::Status(401, None));
    let Err(StoreError::Unavailable(text)) = backend.size(&name("x")).await else { panic!() };
    assert!(text.contains("the credentials have no right to this"), "{text}");
}

/// A file that is to give a token and is not there is named by its setting.
#[tokio::test]
async fn a_file_of_a_token_that_is_not_there_is_named() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let mut there = options(address, "s3://bucket");
    let file = ("AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(), "/nowhere/hidden".to_owned());
    there.settings.push(file.clone());
    assert!(ObjectBackend::open(&there).is_ok(), "with keys it is not read");
    there.settings = vec![file, ("AWS_ROLE_ARN".to_owned(), "arn:aws:iam::1:role/x".to_owned())];
    let error = ObjectBackend::open(&there).err().unwrap().to_string();
    assert!(error.contains("AWS_WEB_IDENTITY_TOKEN_FILE names a file"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
}

/// A conditional write that meets another one is asked again, and finds that one there.
#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_of_conditional_writes_is_resolved() {
    let Some(bucket) = Bucket::new().await else { return };
    let (one, two) = (bucket.open(), bucket.open());
    bucket.proxy.inject(When::next("PUT", "alone").times(2), HttpFault::Conflict);
    assert_eq!(put(&one, &name("alone"), 10).await.unwrap(), Put::Created);
    assert_eq!(put(&two, &name("raced"), 10).await.unwrap(), Put::Created);
    bucket.proxy.inject(When::next("PUT", "raced"), HttpFault::Conflict);
    assert_eq!(put(&one, &name("raced"), 20).await.unwrap(), Put::AlreadyThere);
    assert_eq!(read(&one, &name("raced")).await.unwrap(), Some(noise(1, 10)));
    let bytes = noise(1, PART_BYTES + 5);
    bucket.proxy.inject(When::next("POST", "uploadId="), HttpFault::Conflict);
    let put = one.put_if_absent(&blob_name(&bytes), Body::Bytes(bytes.clone())).await;
    assert_eq!(put.unwrap(), Put::Created);
    assert_eq!(bucket.proxy.injected(), 4);
}

/// A server that gives every request the same answer, and what it was asked.
async fn always(
    answer: String,
) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 16 * 1024];
            let read = client.read(&mut request).await.unwrap();
            asked.send(String::from_utf8_lossy(&request[..read]).into_owned()).unwrap();
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

/// S3 sends what is wrong in chunks, without a length.
#[tokio::test]
async fn codes_are_read_from_bodies_of_unknown_length() {
    let body = "<Error><Code>AccessDenied</Code></Error>";
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let (address, _requests) = always(answer).await;
    let backend = ObjectBackend::open(&options(address, "s3://bucket")).unwrap();
    let failed = put(&backend, &name("x"), 10).await;
    let Err(StoreError::ReadOnly(text)) = failed else { panic!("{failed:?}") };
    assert_eq!(
        text,
        "s3://bucket: status 403 (AccessDenied); it lets nobody in like that: look at AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY and at what they allow"
    );
}

/// S3 sends who asks in the wrong region away without saying where to.
#[tokio::test]
async fn a_bucket_in_another_region_is_said() {
    let body = "<Error><Code>PermanentRedirect</Code><Endpoint>elsewhere</Endpoint></Error>";
    let answer = format!(
        "HTTP/1.1 301 Moved Permanently\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (address, _requests) = always(answer).await;
    let backend = ObjectBackend::open(&options(address, "s3://bucket")).unwrap();
    let failed = put(&backend, &name("x"), 10).await;
    let Err(StoreError::Unavailable(text)) = failed else { panic!("{failed:?}") };
    assert_eq!(text, "s3://bucket: the bucket is in another region; name that in AWS_REGION");
}

/// Without keys the machine is asked for its role; that there is none is said, too.
#[tokio::test]
async fn that_there_are_no_credentials_is_said() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut none = options(dead, "s3://bucket");
    none.settings = vec![("AWS_METADATA_ENDPOINT".to_owned(), format!("http://{dead}"))];
    let backend = ObjectBackend::open(&none).unwrap();
    let failed = put(&backend, &name("x"), 10).await;
    let Err(StoreError::Unavailable(text)) = failed else { panic!("{failed:?}") };
    assert!(text.starts_with("s3://bucket: "), "{text}");
    assert_eq!(
        text,
        "s3://bucket: no credentials are set, and this machine has no role that gives some; set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    );
}

/// Google says it in a header of its own that there must not be one yet.
#[tokio::test]
async fn writes_to_google_are_conditional() {
    let refused =
        "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (address, mut requests) = always(refused.to_owned()).await;
    let mut google = options(address, "gs://bucket/prefix");
    google.settings = vec![
        ("GOOGLE_BASE_URL".to_owned(), format!("http://{address}")),
        ("GOOGLE_BEARER_TOKEN".to_owned(), "token".to_owned()),
    ];
    let backend = ObjectBackend::open(&google).unwrap();
    assert_eq!(put(&backend, &name("x"), 10).await.unwrap(), Put::AlreadyThere);
    let request = requests.recv().await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("put /bucket/prefix%2fx http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nx-goog-if-generation-match: 0\r\n"), "{request}");
}

/// A body that breaks off is asked for again from where it broke.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_off_are_resumed() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    let bytes = noise(1, 1_000_000);
    let name = blob_name(&bytes);
    backend.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
    for fault in [HttpFault::Truncate, HttpFault::ResetInside] {
        bucket.proxy.forget();
        let before = backend.traffic().bytes_in();
        bucket.proxy.inject(When::next("GET", "blobs"), fault);
        assert!(read(&backend, &name).await.unwrap().as_ref() == Some(&bytes), "{fault:?}");
        assert_eq!(bucket.proxy.injected(), 1);
        assert_eq!(bucket.proxy.count("GET", ""), 2, "{fault:?}");
        assert_eq!(backend.traffic().bytes_in() - before, 1_000_000);
        assert!(bucket.proxy.seen()[1].received < 1_000_000, "it began anew");
    }
    bucket.proxy.inject(When::next("GET", "blobs").always(), HttpFault::Truncate);
    let broken = read(&backend, &name).await;
    assert!(matches!(broken, Err(StoreError::Unavailable(_))), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stall_are_given_up_and_slow_ones_are_not() {
    let Some(bucket) = Bucket::new().await else { return };
    let bytes = noise(1, 200_000);
    let name = blob_name(&bytes);
    bucket.open().put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
    let mut options = options(bucket.proxy.address(), &bucket.url);
    options.limits.read_timeout = Duration::from_millis(300);
    let backend = ObjectBackend::open(&options).unwrap();
    bucket.proxy.inject(When::next("GET", "blobs"), HttpFault::Stall);
    assert!(read(&backend, &name).await.unwrap().as_ref() == Some(&bytes), "resumed");
    // Slower in all than the time for one byte.
    let slow = HttpFault::Slow { pieces: 40, pause: Duration::from_millis(10) };
    bucket.proxy.inject(When::next("GET", "blobs"), slow);
    assert!(read(&backend, &name).await.unwrap().as_ref() == Some(&bytes));
    bucket.proxy.inject(When::any().always(), HttpFault::Stall);
    assert!(matches!(read(&backend, &name).await, Err(StoreError::Unavailable(_))));
}

/// A bit that flips on the way is not the backend's to see, and the layer above does.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_seen_by_the_layer_above() {
    let Some(bucket) = Bucket::new().await else { return };
    let verified = Verified::new(bucket.open());
    let bytes = noise(1, 50_000);
    let (blob, record) = (blob_name(&bytes), name("records/x.0"));
    for name in [blob, record] {
        verified.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
        bucket.proxy.inject(When::next("GET", name.as_str()), HttpFault::BitFlip);
        assert_eq!(read(&verified, &name).await.unwrap(), None, "{name}");
    }
    assert_eq!((verified.counters().damaged, bucket.proxy.injected()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_right_to_write_and_a_read_that_fails() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    put(&backend, &name("x"), 10).await.unwrap();
    for status in [401, 403] {
        bucket.proxy.clear();
        bucket.proxy.inject(When::any().always(), HttpFault::Status(status, None));
        assert!(matches!(put(&backend, &name("y"), 10).await, Err(StoreError::ReadOnly(_))));
        let large = put(&backend, &name("y"), PART_BYTES + 1).await;
        assert!(matches!(large, Err(StoreError::Unavailable(_) | StoreError::ReadOnly(_))));
        let read = backend.get(&name("x")).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        assert!(list(&backend, "").await.is_err());
        bucket.proxy.clear();
        bucket.proxy.inject(When::next("POST", "delete").always(), HttpFault::Status(status, None));
        let deleted = backend.delete(&name("x")).await;
        assert!(matches!(deleted, Err(StoreError::ReadOnly(_))), "{deleted:?}");
    }
}

/// Each request of a large upload fails once, then always.
#[tokio::test(flavor = "multi_thread")]
async fn large_uploads_outlast_faults_and_leave_nothing_half() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    let bytes = noise(2, 2 * PART_BYTES + 9);
    let name = blob_name(&bytes);
    for (method, part) in
        [("HEAD", ""), ("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId=")]
    {
        for fault in [HttpFault::Status(500, None), HttpFault::ResetBefore, HttpFault::LostAnswer] {
            bucket.proxy.clear();
            bucket.proxy.forget();
            bucket.proxy.inject(When::next(method, part), fault);
            let put = backend.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
            assert_eq!(bucket.proxy.injected(), 1, "{method} {part}");
            // moto answers a second completion of an upload as it answered the first.
            assert_eq!(put, Put::Created, "{method} {part} {fault:?}");
            assert!(read(&backend, &name).await.unwrap().as_ref() == Some(&bytes));
            assert!(backend.delete(&name).await.unwrap());
        }
        bucket.proxy.inject(When::next(method, part).always(), HttpFault::Status(500, None));
        let put = backend.put_if_absent(&name, Body::Bytes(bytes.clone())).await;
        assert!(matches!(put, Err(StoreError::Unavailable(_))), "{method} {part}");
        bucket.proxy.clear();
        assert!(read(&backend, &name).await.unwrap().is_none(), "{method} {part}");
    }
}
