//! The fake of the GitHub Actions cache itself: that it is as strict as the service is said to be, where the
//! official client does not get.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use kiln_storage::remote::tls;
use kiln_storage::testing::gha::{
    Behaviour, Call, FakeCache, Fault, READ, READ_WRITE, WRITE, token,
};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

const MAIN: &str = "refs/heads/main";
const VERSION: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A client of the fake, with a token.
struct User {
    fake: FakeCache,
    client: Client,
    token: String,
}

impl User {
    fn new(fake: &FakeCache, scopes: &[(&str, u8)]) -> Self {
        tls::install();
        Self { fake: fake.clone(), client: Client::new(), token: token(scopes) }
    }

    fn request(&self, method: &str, body: &Value) -> RequestBuilder {
        let place = "twirp/github.actions.results.api.v1.CacheService";
        self.client
            .post(format!("{}{place}/{method}", self.fake.results_url()))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn call(&self, method: &str, body: Value) -> (u16, Value) {
        let answer = self.request(method, &body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn create(&self, key: &str) -> (u16, Value) {
        self.call("CreateCacheEntry", json!({"key": key, "version": VERSION})).await
    }

    async fn address(&self, key: &str) -> String {
        self.create(key).await.1["signed_upload_url"].as_str().unwrap().to_owned()
    }

    async fn finalize(&self, key: &str, size: usize) -> (u16, Value) {
        let size = size.to_string();
        let body = json!({"key": key, "version": VERSION, "size_bytes": size});
        self.call("FinalizeCacheEntryUpload", body).await
    }

    async fn find(&self, key: &str) -> (u16, Value) {
        let body = json!({"key": key, "restore_keys": [key], "version": VERSION});
        self.call("GetCacheEntryDownloadURL", body).await
    }

    fn put(&self, address: &str, more: &str, bytes: &'static [u8]) -> RequestBuilder {
        self.client.put(format!("{address}{more}")).body(bytes)
    }

    /// A whole entry.
    async fn store(&self, key: &str, bytes: &'static [u8]) {
        let address = self.address(key).await;
        let put = self.put(&address, "", bytes).header("x-ms-blob-type", "BlockBlob");
        assert_eq!(status(put).await, 201);
        assert_eq!(self.finalize(key, bytes.len()).await.1["ok"], true);
    }
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

async fn started() -> (FakeCache, User) {
    let fake = FakeCache::start(Behaviour::default()).await;
    let user = User::new(&fake, &[(MAIN, READ_WRITE)]);
    (fake, user)
}

#[tokio::test]
async fn entries_are_written_once_and_a_reservation_blocks_its_key() {
    let (fake, user) = started().await;
    let address = user.address("a").await;
    assert_eq!(user.create("a").await.0, 409);
    assert_eq!(user.create("a").await.1["code"], "already_exists");
    assert_eq!(user.find("a").await.1, json!({"ok": false}), "it is not finalized");
    assert_eq!(user.finalize("a", 3).await.1["code"], "not_found", "nothing was uploaded");
    let put = || user.put(&address, "", b"abc").header("x-ms-blob-type", "BlockBlob");
    assert_eq!(status(user.put(&address, "", b"abc")).await, 400, "no kind of blob");
    assert_eq!(status(put()).await, 201);
    assert_eq!(user.finalize("a", 4).await.0, 400, "another size");
    assert_eq!(user.finalize("a", 3).await.0, 200);
    assert_eq!(user.finalize("a", 3).await.0, 409);
    assert_eq!(status(put()).await, 409, "it is finalized");
    assert_eq!(user.create("a").await.0, 409);
    assert_eq!(fake.evict("a"), 1);
    assert_eq!(user.create("a").await.0, 200);
}

#[tokio::test]
async fn blocks_are_joined_in_the_order_of_their_list() {
    let (_, user) = started().await;
    let address = user.address("a").await;
    assert_eq!(status(user.put(&address, "&comp=block&blockid=MDE%3D", b"one")).await, 201);
    assert_eq!(status(user.put(&address, "&comp=block&blockid=MDI%3D", b"two")).await, 201);
    let odd = user.put(&address, "&comp=block&blockid=MDAx", b"?");
    assert_eq!(status(odd).await, 400, "block ids are of one length");
    let list = b"<?xml version=\"1.0\"?><BlockList><Latest>MDI=</Latest></BlockList>";
    let unknown = b"<BlockList><Latest>MDk=</Latest></BlockList>";
    assert_eq!(status(user.put(&address, "&comp=blocklist", unknown)).await, 400);
    assert_eq!(status(user.put(&address, "&comp=blocklist", list)).await, 201);
    let list = b"<BlockList><Latest>MDI=</Latest><Latest>MDE=</Latest></BlockList>";
    assert_eq!(status(user.put(&address, "&comp=blocklist", list)).await, 201);
    assert_eq!(user.finalize("a", 6).await.1["ok"], true);
    let found = user.find("a").await.1;
    let url = found["signed_download_url"].as_str().unwrap();
    let read = user.client.get(url).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(read, "twoone");
}

#[tokio::test]
async fn downloads_know_ranges_and_addresses_end() {
    let (fake, user) = started().await;
    user.store("a", b"0123456789").await;
    let found = user.find("a").await.1;
    let url = found["signed_download_url"].as_str().unwrap();
    let head = user.client.request(Method::HEAD, url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "10");
    let part = |range: &str| user.client.get(url).header("range", range.to_owned());
    let answer = part("bytes=2-4").send().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(answer.bytes().await.unwrap(), "234");
    let rest = part("bytes=7-100").send().await.unwrap();
    assert_eq!((rest.status().as_u16(), rest.bytes().await.unwrap().as_ref()), (206, &b"789"[..]));
    assert_eq!(status(part("bytes=10-")).await, 416);
    assert_eq!(status(user.client.get(url.replace("sig=", "sig=0"))).await, 403);
    let upload = url.replace("/download/", "/upload/");
    assert_eq!(status(user.client.put(upload).body("x")).await, 403, "another right");
    fake.clock().advance(Duration::from_secs(601));
    assert_eq!(status(user.client.get(url)).await, 403, "it is over");
    assert_eq!(fake.counted().of(Call::Download), 6);
}

#[tokio::test]
async fn two_hundred_new_entries_a_minute() {
    let (fake, user) = started().await;
    for number in 0..200 {
        assert_eq!(user.create(&format!("key-{number}")).await.0, 200);
    }
    fake.clock().advance(Duration::from_secs(59));
    assert_eq!(user.create("key-7").await.0, 409, "what is taken is no new entry");
    let refused = json!({"key": "more", "version": VERSION});
    let refused = user.request("CreateCacheEntry", &refused).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(fake.counted().rate_limited, 1);
    fake.clock().advance(Duration::from_secs(1));
    assert_eq!(user.create("more").await.0, 200);
    assert_eq!(fake.counted().reserved, 201);
}

#[tokio::test]
async fn a_prefix_finds_the_newest_and_what_is_new_is_found_late() {
    let (fake, user) = started().await;
    user.store("a-1", b"1").await;
    user.store("a-2", b"2").await;
    assert_eq!(user.find("a-").await.1["matched_key"], "a-2");
    assert_eq!(user.find("a-1").await.1["matched_key"], "a-1");
    fake.behave(|behaviour| {
        behaviour.lag_lookups = 1;
        behaviour.lag = Duration::from_secs(10);
    });
    fake.clock().advance(Duration::from_secs(10));
    user.store("a-3", b"3").await;
    for _ in 0..4 {
        assert_eq!(user.find("a-").await.1["matched_key"], "a-2");
    }
    fake.clock().advance(Duration::from_secs(10));
    assert_eq!(user.find("a-").await.1["matched_key"], "a-3");
}

#[tokio::test]
async fn keys_versions_and_tokens_are_checked() {
    let (fake, user) = started().await;
    assert_eq!(user.create(&"k".repeat(512)).await.0, 200);
    for key in ["", "a,b", &"k".repeat(513)] {
        assert_eq!(user.create(key).await.0, 400, "{key:?}");
    }
    let body = json!({"key": "a", "version": "not hexadecimal"});
    assert_eq!(user.call("CreateCacheEntry", body).await.0, 400);
    let keys: Vec<_> = (0..11).map(|number| number.to_string()).collect();
    let body = json!({"key": "a", "restore_keys": keys, "version": VERSION});
    assert_eq!(user.call("GetCacheEntryDownloadURL", body).await.0, 400, "too many keys");
    assert_eq!(user.call("DeleteCacheEntry", json!({})).await.0, 404);
    assert_eq!(fake.counted().reserved, 1);

    let reader = User::new(&fake, &[(MAIN, READ)]);
    let (status, answer) = reader.create("a").await;
    assert_eq!((status, &answer["ok"]), (200, &json!(false)));
    assert!(answer["message"].as_str().unwrap().starts_with("cache write denied:"));
    let writer = User::new(&fake, &[(MAIN, WRITE)]);
    writer.store("written", b"x").await;
    assert_eq!(writer.find("written").await.1, json!({"ok": false}), "it may only write");
    assert_eq!(reader.find("written").await.1["matched_key"], "written");
    let nobody = User { token: "nonsense".into(), ..User::new(&fake, &[]) };
    assert_eq!(nobody.create("b").await.0, 401);
    fake.behave(|behaviour| behaviour.token_calls = Some(0));
    assert_eq!(user.create("b").await.0, 401, "it is over");
}

#[tokio::test]
async fn faults_come_in_the_order_of_the_script_and_are_counted() {
    let (fake, user) = started().await;
    fake.script(Call::Create, [None, Some(Fault::Status(502)), Some(Fault::RetryAfter(9))]);
    assert_eq!(user.create("a").await.0, 200);
    assert_eq!(user.create("b").await.0, 502);
    assert_eq!(user.create("b").await.0, 429);
    assert_eq!(user.create("b").await.0, 200);
    fake.fail(Call::Create, &Fault::AnswerLost, 1);
    let lost = user.request("CreateCacheEntry", &json!({"key": "c", "version": VERSION}));
    assert!(lost.send().await.is_err());
    assert_eq!(user.create("c").await.0, 409, "it was done");
    fake.fail(Call::Create, &Fault::Drop, 1);
    let dropped = user.request("CreateCacheEntry", &json!({"key": "d", "version": VERSION}));
    assert!(dropped.send().await.is_err());
    assert_eq!(user.create("d").await.0, 200, "it was not done");
    assert_eq!(fake.counted().injected, 4);
}
