//! [`Bucket`]: a place of its own in a server of S3's API, and a proxy on the way there that counts and
//! fails when it is told to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_storage::testing::moto::{self, BUCKET};
use kiln_storage::testing::proxy::{Exchange, FaultProxy};
use tokio::runtime::Runtime;

use super::Traffic;
use crate::call::Call;
use crate::host::host;
use crate::world::World;

/// A prefix that nobody else has, behind a proxy.
#[derive(Debug)]
pub struct Bucket {
    proxy: FaultProxy,
    moto: SocketAddr,
    prefix: String,
    // Last: the proxy runs in it.
    _runtime: Runtime,
}

/// A runtime for what stands between a server and the place behind it.
pub(super) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

impl Bucket {
    /// An empty one.
    ///
    /// # Errors
    /// That there is no such server on this machine.
    pub fn open(world: &World) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let place = moto::Place {
            named: host().moto.clone(),
            path: host().path.clone(),
            tools: world.programs.shared.with_file_name("tests-tools"),
        };
        let moto = moto::address(&place).ok_or("there is no moto_server, nor can pip have it")?;
        let runtime = runtime();
        // It looks and writes without a lock between, which S3 does not.
        let proxy = runtime.block_on(FaultProxy::start_serial(moto)).expect("a proxy");
        let prefix = format!("Owner/repo-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { proxy, moto, prefix, _runtime: runtime })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/{}", self.prefix)
    }

    /// A call whose server has it behind itself.
    pub fn before(&self, call: Call) -> Call {
        self.at(call, &self.url())
    }

    /// The same for another URL of the same service.
    pub fn at(&self, call: Call, url: &str) -> Call {
        let endpoint = format!("http://{}", self.proxy.address());
        call.env("KILN_STORAGE", url).env("KILN_JOB", "dev").envs(&[
            ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen"),
            ("AWS_REGION", "us-east-1"),
        ])
    }

    /// The proxy.
    pub fn proxy(&self) -> &FaultProxy {
        &self.proxy
    }

    /// What went by since it was asked last, by kind: `LIST results`, `PUT packed`.
    pub fn take(&self) -> BTreeMap<String, Traffic> {
        let seen = self.proxy.seen();
        self.proxy.forget();
        let mut traffic: BTreeMap<String, Traffic> = BTreeMap::new();
        for exchange in seen {
            let one = traffic.entry(self.kind(&exchange)).or_default();
            one.requests += 1;
            one.sent += exchange.sent;
            one.received += exchange.received;
        }
        traffic
    }

    fn kind(&self, exchange: &Exchange) -> String {
        let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let below = format!("/{BUCKET}/{}/", self.prefix);
        match exchange.path.strip_prefix(&below) {
            Some(path) if exchange.query.contains("partNumber") => format!("PART {}", first(path)),
            Some(path) => format!("{} {}", exchange.method, first(path)),
            None => {
                let query = exchange.query.replace("%2F", "/");
                let listed = format!("prefix={}/", self.prefix);
                let (_, path) = query.split_once(&listed).unwrap_or(("", "?"));
                let method = if exchange.method == "GET" { "LIST" } else { &exchange.method };
                format!("{method} {}", first(path.split('&').next().unwrap_or_default()))
            }
        }
    }

    /// The objects below a directory of the prefix, e.g. `results`, as the service itself lists them.
    pub fn objects(&self, dir: &str) -> Vec<String> {
        let target = format!("/{BUCKET}?list-type=2&prefix={}/{dir}/", self.prefix);
        let answer = self.ask("GET", &target);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let keys = answer.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    /// Takes the objects below a directory of the prefix away, as a rule of the bucket does; how many.
    pub fn remove(&self, dir: &str) -> usize {
        let objects = self.objects(dir);
        for object in &objects {
            let answer = self.ask("DELETE", &format!("/{BUCKET}/{object}"));
            assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        }
        objects.len()
    }

    /// The answer of the service itself.
    fn ask(&self, method: &str, target: &str) -> String {
        let mut stream = TcpStream::connect(self.moto).expect("moto");
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request\r\n\r\n",
            self.moto
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

/// The lines of a server's log that warn of the place behind it, without those that sum up what was not sent
/// when it leaves.
pub fn warnings(kiln_dir: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(kiln_dir.join("server.log")).unwrap_or_default();
    let told = |line: &&str| {
        let sums_up = line.contains("stay queued") || line.contains("are lost to it");
        line.contains(" warn ") && line.contains(" remote ") && !sums_up
    };
    log.lines().filter(told).map(str::to_owned).collect()
}
