//! What the tests of object stores share: a moto server, a proxy before it, backends in it.

#![allow(unreachable_pub, reason = "it is of all files of the suite")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub mod azurite;
pub mod moto;
pub mod remotes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_storage::object::{ObjectBackend, ObjectOptions, Patience};
use kiln_storage::testing::proxy::FaultProxy;

/// The smallest size of parts that the service takes.
pub const PART_BYTES: usize = 5 * 1024 * 1024;

/// Settings for a server at an address.
pub fn settings(address: SocketAddr) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL_S3", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_PROFILE", "is left alone".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Options for a place behind an address, with pauses that tests can wait for.
pub fn options(address: SocketAddr, url: &str) -> ObjectOptions {
    let mut options = ObjectOptions::new(url, settings(address));
    options.limits.patience = Patience {
        attempts: 4,
        first_pause: Duration::from_millis(2),
        max_pause: Duration::from_millis(20),
        total: Duration::from_secs(30),
    };
    options.limits.read_timeout = Duration::from_secs(20);
    options.limits.part_bytes = PART_BYTES;
    options
}

/// A URL in the bucket of all tests that no other test has.
pub fn fresh_url() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("s3://{}/Owner/repo-{}", moto::BUCKET, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A place of its own in the server, and the proxy on the way there. moto looks and writes without a
/// lock between, which S3 does not: the proxy lets its writes through one at a time.
pub struct Bucket {
    pub proxy: FaultProxy,
    pub url: String,
}

impl Bucket {
    /// `None` where there is no moto.
    pub async fn new() -> Option<Self> {
        let proxy = FaultProxy::start_serial(moto::address()?).await.unwrap();
        Some(Self { proxy, url: fresh_url() })
    }

    /// One more client of the place.
    pub fn open(&self) -> ObjectBackend {
        ObjectBackend::open(&options(self.proxy.address(), &self.url)).unwrap()
    }
}
