//! The fault proxy does what it says: other tests rest on it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use kiln_storage::testing::proxy::{FaultProxy, HttpFault, When};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BODY: &str = "0123456789abcdef";

/// A server that answers each request with what it got, and keeps its connections open.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !whole(&request) {
                let read = client.read(&mut buffer).await.unwrap();
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            let answer = answer(&String::from_utf8(request).unwrap());
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

/// Whether all of a request came.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn plain(_: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())
}

async fn proxy() -> FaultProxy {
    FaultProxy::start(server(plain).await).await.unwrap()
}

/// Sends bytes and reads to the end of the connection.
async fn send(proxy: &FaultProxy, request: &str) -> (String, io::Result<()>) {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await.map(drop);
    (String::from_utf8(answer).unwrap(), end)
}

async fn get(proxy: &FaultProxy) -> (String, io::Result<()>) {
    send(proxy, "GET /a/b?c=d HTTP/1.1\r\nHost: h\r\n\r\n").await
}

#[tokio::test]
async fn without_faults_it_changes_nothing_and_counts() {
    let proxy = FaultProxy::start(
        server(|request| {
            let got = request.to_owned();
            format!(
                "HTTP/1.1 201 Created\r\nX-Own: 1\r\nContent-Length: {}\r\n\r\n{got}",
                got.len()
            )
        })
        .await,
    )
    .await
    .unwrap();
    let request = "PUT /p?q HTTP/1.1\r\nHost: h\r\nX-Mine: 2\r\nContent-Length: 4\r\n\r\nbody";
    let (answer, end) = send(&proxy, request).await;
    end.unwrap();
    for part in ["HTTP/1.1 201", "X-Own: 1", "PUT /p?q HTTP/1.1", "X-Mine: 2", "\r\n\r\nbody"] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let seen = proxy.seen();
    assert_eq!((seen.len(), seen[0].status, seen[0].sent), (1, 201, 4));
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(seen[0].received, body.len() as u64);
    assert_eq!(
        (proxy.count("PUT", "/p?q"), proxy.count("PUT", "/x"), proxy.count("GET", "")),
        (1, 0, 0)
    );
    assert_eq!(proxy.injected(), 0);
}

#[tokio::test]
async fn chunks_go_both_ways() {
    let proxy = FaultProxy::start(server(|request| {
        assert!(request.ends_with("\r\n\r\nbody!"), "{request}");
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n".to_owned()
    })
    .await)
    .await
    .unwrap();
    let request =
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n1\r\n!\r\n0\r\n\r\n";
    let (answer, _) = send(&proxy, request).await;
    assert!(
        answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\nabcde"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_head_keeps_the_length_of_what_was_not_sent() {
    let proxy = FaultProxy::start(
        server(|_| "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n".to_owned()).await,
    )
    .await
    .unwrap();
    let (answer, _) = send(&proxy, "HEAD / HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("content-length: 77\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn statuses_come_from_the_proxy_alone() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap()).await.unwrap();
    proxy.inject(When::any(), HttpFault::Status(429, Some(7)));
    proxy.inject(When::any(), HttpFault::Status(503, None));
    proxy.inject(When::any(), HttpFault::Conflict);
    let answer = get(&proxy).await.0;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 7\r\n"));
    let answer = get(&proxy).await.0;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("retry-after"));
    let answer = get(&proxy).await.0;
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("ConditionalRequestConflict"));
    assert_eq!(proxy.injected(), 3);
    let statuses: Vec<_> = proxy.seen().iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [429, 503, 409]);
}

#[tokio::test]
async fn resets_are_no_orderly_ends() {
    let proxy = proxy().await;
    proxy.inject(When::any(), HttpFault::ResetBefore);
    proxy.inject(When::any(), HttpFault::LostAnswer);
    for asked in [0, 200] {
        let (answer, end) = get(&proxy).await;
        assert_eq!(answer, "");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.seen().last().unwrap().status, asked, "whether the server was asked");
    }
    proxy.inject(When::any(), HttpFault::ResetInside);
    let (_, end) = get(&proxy).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bodies_are_cut_and_flipped_under_their_full_length() {
    let proxy = proxy().await;
    proxy.inject(When::any(), HttpFault::Truncate);
    proxy.inject(When::any(), HttpFault::BitFlip);
    let (answer, end) = get(&proxy).await;
    end.unwrap();
    assert!(answer.contains("content-length: 16\r\n") && answer.ends_with("\r\n\r\n01234567"));
    let (answer, _) = get(&proxy).await;
    assert!(answer.ends_with("\r\n\r\n0123456709abcdef"), "{answer}");
    let (answer, _) = get(&proxy).await;
    assert!(answer.ends_with(BODY));
}

#[tokio::test]
async fn a_stall_lasts_until_the_client_goes_and_slow_is_whole() {
    let proxy = proxy().await;
    proxy.inject(When::any(), HttpFault::Stall);
    proxy.inject(When::any(), HttpFault::Slow { pieces: 4, pause: Duration::from_millis(1) });
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut got = String::new();
    while !got.ends_with("01234567") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        got.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let more = stream.read_u8();
    assert!(tokio::time::timeout(Duration::from_millis(20), more).await.is_err(), "it came");
    drop(stream);
    let (answer, end) = get(&proxy).await;
    end.unwrap();
    assert!(answer.ends_with(BODY));
}

#[tokio::test]
async fn a_script_says_which_and_how_many() {
    let proxy = proxy().await;
    let when = When::next("GET", "c=d").after(1).times(2);
    proxy.inject(When::next("PUT", ""), HttpFault::Status(500, None));
    proxy.inject(when, HttpFault::Status(500, None));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&proxy).await.0.starts_with("HTTP/1.1 500"));
    }
    assert_eq!(statuses, [false, true, true, false]);
    proxy.inject(When::any().always(), HttpFault::Status(500, None));
    assert!(get(&proxy).await.0.starts_with("HTTP/1.1 500"));
    proxy.clear();
    assert!(get(&proxy).await.0.starts_with("HTTP/1.1 200"));
    proxy.forget();
    assert_eq!((proxy.seen().len(), proxy.injected()), (0, 0));
}

#[tokio::test]
async fn where_writes_go_one_at_a_time_all_of_them_go() {
    let proxy = FaultProxy::start_serial(server(plain).await).await.unwrap();
    let request = "PUT /p HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
    let many: Vec<_> = (0..8).map(|_| send(&proxy, request)).collect();
    for (answer, _) in futures_util::future::join_all(many).await {
        assert!(answer.ends_with(BODY));
    }
    assert_eq!(proxy.count("PUT", "/p"), 8);
}
