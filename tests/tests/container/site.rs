//! [`Site`]: a server in a container, the store beside it, and machines for jobs, each in a network of its own on one
//! switch, as `deploy/compose.yaml` and `deploy/compose.jobs.yaml` have it; and [`Container`], one that runs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use kiln_tests::container::contained;
use kiln_tests::far::bucket::Bucket;
use kiln_tests::net::{Lan, Place};
use kiln_tests::server::{is_alive, kill, wait_until};
use kiln_tests::{Call, Done, Running, World};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::image::{HOSTS, Image, RULES, RULES_DIR};
use crate::issuer::Issuer;

/// Machines on the switch: the server's, the store's, and two for jobs.
const SERVER: usize = 0;
const STORE: usize = 1;
const JOBS: [usize; 2] = [2, 3];

const PORT: u16 = 5456;
const STORE_PORT: u16 = 7070;
/// Whom the tokens of jobs are made for.
pub(crate) const AUDIENCE: &str = "https://kiln.example";
/// What `deploy/compose.yaml` and the file for jobs over it have to say for this to be what they do.
const DOCUMENTED: [&str; 9] = [
    "KILN_UPSTREAM: s3://kiln/shared",
    "KILN_DRAIN: 120",
    "AWS_ENDPOINT_URL_S3: http://store:7070",
    "read_only: true",
    "cap_drop: [ALL]",
    "security_opt: [\"no-new-privileges:true\"]",
    "command: [\"--listen\", \"0.0.0.0:5456\"]",
    "KILN_TRUST: /etc/kiln/trust.json",
    "target: /etc/kiln\n",
];

/// Everything but the server. See the module.
pub(crate) struct Site {
    pub(crate) bucket: Bucket,
    pub(crate) issuer: Issuer,
    pub(crate) image: &'static Image,
    store: Store,
    lan: Lan,
    world: World,
    /// The program that starts one.
    contain: String,
}

/// An empty [`Site`]; ends a test that cannot have it.
#[macro_export]
macro_rules! site {
    () => {
        match $crate::site::Site::open(kiln_tests::world!(), env!("CARGO_BIN_EXE_contain")) {
            Ok(site) => site,
            Err(why) => kiln_tests::skip!("{why}"),
        }
    };
}

/// The answer to a request: its status and its body.
pub(crate) type Answer = (u16, String);

impl Site {
    pub(crate) fn open(world: World, contain: &str) -> Result<Self, String> {
        let tools = world.programs.shared.with_file_name("tests-tools");
        let image = Image::of(&tools)?;
        let bucket = Bucket::open(&world)?;
        let lan = Lan::new(4)?;
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, STORE_PORT));
        let store = Store::before(lan.machine(STORE).listen(at), bucket.proxy().address());
        // Keys come from where nobody on the way can change them: the same machine.
        let issuer = lan.machine(SERVER).inside(Issuer::start);
        std::fs::create_dir(world.at("rules")).unwrap();
        let hosts = format!("{} store\n", Lan::address(STORE));
        std::fs::write(world.at("hosts"), hosts).unwrap();
        let contain = contain.to_owned();
        let site = Self { bucket, issuer, image, store, lan, world, contain };
        site.know("1234");
        Ok(site)
    }

    /// Replaces the file of rules, as an editor does, by one that knows this repository.
    pub(crate) fn know(&self, repository: &str) {
        let issuer = self.issuer.url();
        let rules = json!({"audience": AUDIENCE, "issuers": [{"url": issuer}], "repositories": [
            {"id": repository, "issuer": issuer, "default_branch": "main"}]});
        let place = self.world.at("rules");
        std::fs::write(place.join("new"), rules.to_string()).unwrap();
        std::fs::rename(place.join("new"), place.join("trust.json")).unwrap();
    }

    /// The machine of a job.
    pub(crate) fn machine(&self, n: usize) -> &Place {
        self.lan.machine(JOBS[n])
    }

    /// Where the server listens.
    pub(crate) fn url() -> String {
        format!("http://{}:{PORT}", Lan::address(SERVER))
    }

    /// An empty volume; whose it is the image decides.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        use std::os::unix::fs::MetadataExt as _;
        let dir = self.world.at(name);
        std::fs::create_dir(&dir).unwrap();
        let of_image = std::fs::metadata(self.image.root.join("var/lib/kiln")).unwrap();
        std::os::unix::fs::chown(&dir, Some(of_image.uid()), Some(of_image.gid())).unwrap();
        dir
    }

    /// The variables of the server.
    fn variables(&self) -> BTreeMap<String, String> {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let files = ["compose.yaml", "compose.jobs.yaml"];
        let says = files.map(|file| std::fs::read_to_string(deploy.join(file)).unwrap()).concat();
        for line in DOCUMENTED {
            assert!(says.contains(line), "deploy/compose.yaml: {line}");
        }
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for pair in self.image.words("Env") {
            let (name, value) = pair.split_once('=').unwrap();
            all.insert(name.to_owned(), value.to_owned());
        }
        let endpoint = format!("http://store:{STORE_PORT}");
        for (name, value) in [
            ("KILN_UPSTREAM", self.bucket.url()),
            ("KILN_DRAIN", "120".to_owned()),
            ("KILN_TRUST", RULES.to_owned()),
            ("AWS_ENDPOINT_URL_S3", endpoint),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen".to_owned()),
        ] {
            all.insert(name.to_owned(), value);
        }
        all
    }

    /// Starts the server on a volume, and waits until it is ready.
    pub(crate) fn start(&self, volume: &Path) -> Container<'_> {
        let place = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let volumes = [
            place(volume, "/var/lib/kiln"),
            place(&self.world.at("rules"), RULES_DIR) + ":ro",
            place(&self.world.at("hosts"), HOSTS) + ":ro",
        ];
        let user = self.image.says("User").as_str().unwrap();
        let call = contained(&self.contain, user, &self.image.root, &volumes);
        let call = call.args(&self.image.words("Entrypoint"));
        let call = call.args(&["--listen", "0.0.0.0:5456"]);
        let call = self.variables().iter().fold(call, |call, (name, value)| call.env(name, value));
        let running = self.lan.machine(SERVER).call(call).spawn();
        let pid = child_of(running.pid());
        let container = Container { site: self, running: Some(running), pid };
        wait_until("the server is ready", || {
            assert!(is_alive(pid), "it ended");
            self.try_ask(None, ("GET", "/readyz"), b"").is_some_and(|answer| answer.0 == 200)
        });
        container
    }

    /// Asks the server, from the machine of a job.
    pub(crate) fn ask(&self, token: Option<&str>, call: (&str, &str), body: &[u8]) -> Answer {
        self.try_ask(token, call, body).unwrap()
    }

    fn try_ask(&self, token: Option<&str>, call: (&str, &str), body: &[u8]) -> Option<Answer> {
        let (method, path) = call;
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n{authorization}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.machine(0).inside(|| {
            let mut stream = TcpStream::connect((Lan::address(SERVER), PORT)).ok()?;
            stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok()?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        })
    }

    /// Exchanges a token of a job for a session.
    pub(crate) fn exchange(&self, token: &str) -> Answer {
        self.ask(None, ("POST", "/v1/session"), json!({"token": token}).to_string().as_bytes())
    }

    /// Whether the server takes no connections.
    pub(crate) fn is_left(&self) -> bool {
        self.try_ask(None, ("GET", "/healthz"), b"").is_none()
    }

    /// A session of a job that is this, besides a push to main.
    pub(crate) fn session(&self, with: Value) -> String {
        let (status, body) = self.exchange(&self.issuer.token(AUDIENCE, with));
        assert_eq!(status, 200, "{body}");
        let told: Value = serde_json::from_str(&body).unwrap();
        told["token"].as_str().unwrap().to_owned()
    }

    /// The store takes no writes until [`Site::take_writes`].
    pub(crate) fn hold_writes(&self) {
        *self.store.held.0.lock().unwrap() = true;
    }

    pub(crate) fn take_writes(&self) {
        *self.store.held.0.lock().unwrap() = false;
        self.store.held.1.notify_all();
    }

    /// How many results are in the bucket.
    pub(crate) fn results(&self) -> usize {
        self.bucket.objects("results").len()
    }
}

/// The one child of a process, which it has after a moment.
fn child_of(pid: u32) -> u32 {
    let mut child = None;
    wait_until("the container begins", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        child = children.ok().and_then(|all| all.split_whitespace().next()?.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

/// A server that runs.
pub(crate) struct Container<'a> {
    site: &'a Site,
    running: Option<Running>,
    pid: u32,
}

impl Container<'_> {
    /// Its process, as this machine counts.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal);
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> Done {
        self.running.take().unwrap().wait()
    }

    /// Runs a program in it, as `docker exec` does.
    pub(crate) fn exec(&self, words: &[String]) -> Done {
        let pid = self.pid.to_string();
        let into = ["--target", &pid, "--net", "--mount", "--pid", "--root", "--wd"];
        let call = Call::new(Path::new("/usr/bin/nsenter"), Path::new("/"), &into);
        let call = call.args(&["--setuid", "65532", "--setgid", "65532"]).args(words);
        let variables = self.site.variables();
        variables.iter().fold(call, |call, (name, value)| call.env(name, value)).run()
    }

    /// What its volume has of a log.
    pub(crate) fn log(&self) -> String {
        let path = format!("/proc/{}/root/var/lib/kiln/server.log", self.pid);
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            kill(self.pid, Signal::KILL);
            running.wait();
        }
    }
}

/// The store's machine: hands on what comes, and holds writes when it is told to.
struct Store {
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Store {
    fn before(listener: TcpListener, service: SocketAddr) -> Self {
        let held = Arc::new((Mutex::new(false), Condvar::new()));
        let gate = held.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let gate = gate.clone();
                std::thread::spawn(move || hand_on(client, service, &gate));
            }
        });
        Self { held }
    }
}

/// Hands one connection on, which has one request.
fn hand_on(mut client: TcpStream, service: SocketAddr, gate: &(Mutex<bool>, Condvar)) {
    let mut first = [0];
    if client.peek(&mut first).is_ok_and(|read| read == 1) && first == *b"P" {
        let held = gate.0.lock().unwrap();
        drop(gate.1.wait_while(held, |held| *held).unwrap());
    }
    let Ok(mut there) = TcpStream::connect(service) else { return };
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), there.try_clone()) else { return };
    let requests = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut there, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = requests.join();
}
