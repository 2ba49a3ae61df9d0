//! A server that speaks TLS: to whom, with which certificate, and what is said of files that are no good.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use kiln_server::TlsFiles;
use kiln_server::log::Level;
use kiln_storage::remote::tls::provider;
use kiln_storage::testing::certificates::{Authority, Certified};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::harness::{TestServer, exchange};

/// Longer than any test.
pub(crate) const FAR: i32 = 2120;

pub(crate) fn files(files: &Certified) -> TlsFiles {
    TlsFiles { cert: files.cert.clone(), key: files.key.clone() }
}

/// A server with a certificate of an authority of its own.
pub(crate) struct Secured {
    pub(crate) server: TestServer,
    authority: Authority,
    pub(crate) root: PathBuf,
}

pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

impl Secured {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start_in(dir: TempDir) -> Self {
        let authority = Authority::new();
        let (root, place) = (dir.path().join("authority.pem"), dir.path().join("shown"));
        authority.write(&root);
        // As kubernetes mounts a secret: the files are links into a directory that is a link.
        authority.signs(&dir.path().join("first"), &["127.0.0.1"], FAR);
        symlink("first", &place).unwrap();
        let shown = Certified { cert: place.join("cert.pem"), key: place.join("key.pem") };
        let server = TestServer::start_with(dir, |config| {
            (config.tls, config.log) = (Some(files(&shown)), Level::Debug);
        });
        Self { server, authority, root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.server.dir.path().join(path)
    }

    /// Exchanges the files in one step.
    fn exchange(&self, to: &str) {
        symlink(to, self.at("next")).unwrap();
        std::fs::rename(self.at("next"), self.at("shown")).unwrap();
    }

    /// A connection on which one of these protocols is agreed on.
    pub(crate) fn connect(&self, protocols: &[&str]) -> Connection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.root).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(self.server.tcp).unwrap();
        while client.is_handshaking() {
            client.complete_io(&mut stream).unwrap();
        }
        StreamOwned::new(client, stream)
    }

    fn answers(&self) -> bool {
        let reply = exchange(self.connect(&["http/1.1"]), "GET", "/healthz", &[], b"");
        reply.status == 200 && reply.body == b"ok\n"
    }

    /// The certificate that a new connection sees.
    fn shown(&self) -> Vec<u8> {
        self.connect(&[]).conn.peer_certificates().unwrap()[0].to_vec()
    }

    fn in_file(&self, dir: &str) -> Vec<u8> {
        CertificateDer::from_pem_file(self.at(dir).join("cert.pem")).unwrap().to_vec()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.server.kiln_dir().join("server.log")).unwrap()
    }

    fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn over_tcp_it_speaks_tls_and_nothing_else() {
    let secured = Secured::start();
    let agreed = |protocols: &[&str]| {
        let connection = secured.connect(protocols);
        connection.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    };
    assert_eq!(agreed(&["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&[]), None);
    assert!(secured.answers());
    // Who says nothing, or begins and goes no further, keeps nobody waiting.
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(secured.server.tcp).unwrap()).collect();
    (&silent[0]).write_all(&[0x16, 3, 1]).unwrap();
    let shown_before =
        secured.log().matches(" warn ").count() + secured.log().matches(" info ").count();
    for _ in 0..20 {
        let mut plain = TcpStream::connect(secured.server.tcp).unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: kiln\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(secured.answers());
    let log = secured.log();
    let shown = log.matches(" warn ").count() + log.matches(" info ").count();
    assert_eq!(shown, shown_before, "{log}");
    assert_eq!(secured.server.unix("GET", "/healthz", b"").status, 200, "plain on its socket");
    drop(silent);
    drop(secured.server.stop());
}

#[test]
fn another_certificate_is_shown_without_a_restart() {
    let secured = Secured::start();
    let mut open = secured.connect(&["http/1.1"]);
    let ask = |open: &mut Connection| {
        open.write_all(b"GET /healthz HTTP/1.1\r\nhost: kiln\r\n\r\n").unwrap();
        let (mut bytes, mut chunk) = (Vec::new(), [0; 1024]);
        while !bytes.ends_with(b"ok\n") {
            let read = open.read(&mut chunk).unwrap();
            assert_ne!(read, 0);
            bytes.extend_from_slice(&chunk[..read]);
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200"));
    };
    ask(&mut open);
    assert_eq!(secured.shown(), secured.in_file("first"));
    secured.authority.signs(&secured.at("second"), &["127.0.0.1"], FAR);
    secured.exchange("second");
    secured.until(|secured| secured.shown() == secured.in_file("second"));
    ask(&mut open);

    // A key of another certificate: the one of before goes on, and the log has it once.
    secured.authority.signs(&secured.at("third"), &["127.0.0.1"], FAR);
    let broken = secured.at("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::copy(secured.at("third/cert.pem"), broken.join("cert.pem")).unwrap();
    std::fs::copy(secured.at("first/key.pem"), broken.join("key.pem")).unwrap();
    secured.exchange("broken");
    let told = "the certificate of before is shown on: the key in ";
    secured.until(|secured| secured.log().contains(told));
    assert_eq!(secured.shown(), secured.in_file("second"));
    let (well, said) = said(&run(&secured.server, "health", &[]));
    assert!(well && said.contains("https://") && said.contains(" answers"), "{said}");
    secured.exchange("third");
    secured.until(|secured| secured.shown() == secured.in_file("third"));
    ask(&mut open);
    assert_eq!(secured.log().matches(told).count(), 1, "{}", secured.log());
    assert_eq!(secured.log().matches("another certificate is shown").count(), 2);
}

/// `kiln-server COMMAND` as for a server.
fn run(server: &TestServer, command: &str, more: &[&str]) -> Output {
    let shown = server.dir.path().join("shown");
    program(&[command, "--listen", &server.tcp.to_string()], &shown.join("cert.pem"), more)
}

/// The program with a certificate, a key beside it, and further arguments.
fn program(args: &[&str], cert: &Path, more: &[&str]) -> Output {
    let dir = cert.parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.args(args).env_clear().env("KILN_DIR", dir.join("kiln"));
    command.env("KILN_TLS_CERT", cert).env("KILN_TLS_KEY", dir.join("key.pem"));
    command.args(more).output().unwrap()
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn files_that_are_no_good_are_named_before_it_starts() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let good = authority.signs(dir.path(), &["127.0.0.1"], FAR);
    let other = authority.signs(&dir.path().join("other"), &["127.0.0.1"], FAR);
    let pem = std::fs::read_to_string(&good.cert).unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("empty.pem", String::new()),
        ("text.pem", "no certificate".to_owned()),
        ("cut.pem", pem[..pem.len() / 2].to_owned()),
        ("bad.pem", pem.replace("MII", "AAA")),
        (
            "locked.pem",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
                .to_owned(),
        ),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    let check = |cert: &Path, key: &Path, why: &str, of: &Path| {
        let flags = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        for (args, status) in [(&["--check"][..], 1), (&["serve"], 2)] {
            let output = program(args, &good.cert, &flags);
            let text = said(&output).1;
            assert_eq!(output.status.code(), Some(status), "{text}");
            let named = text.contains(why) && text.contains(of.to_str().unwrap());
            assert!(named && text.contains("hint: "), "{text}");
        }
    };
    let cert = |name: &str, why: &str| check(&at(name), &good.key, why, &at(name));
    cert("missing.pem", "(KILN_TLS_CERT) cannot be read");
    cert("empty.pem", "has no certificate in it");
    cert("text.pem", "has no certificate in it");
    cert("cut.pem", "is no PEM");
    cert("bad.pem", "has a certificate in it that is malformed");
    cert("", "it is no file");
    let key = |name: &str, why: &str| check(&good.cert, &at(name), why, &at(name));
    key("missing.pem", "(KILN_TLS_KEY) cannot be read");
    key("cert.pem", "has no key in it");
    key("locked.pem", "has a key with a password");
    check(&good.cert, &other.key, "is not that of the first certificate", &other.key);

    let half = program(&["--check", "--tls-key", ""], &good.cert, &[]);
    assert_eq!(half.status.code(), Some(2), "{half:?}");
    let (well, text) = said(&program(&["--check"], &good.cert, &[]));
    assert!(well && text.contains("cert.pem (is valid until 2120-01-01)"), "{text}");
    assert!(text.contains("listens on: https://127.0.0.1:5456 (anybody)"), "{text}");
    let old = authority.signs(&at("old"), &["127.0.0.1"], 2021);
    let (well, text) = said(&program(&["--check"], &old.cert, &[]));
    assert!(well && text.contains("has expired on 2021-01-01"), "{text}");
}

#[test]
fn health_is_asked_without_an_authority() {
    let secured = Secured::start();
    let (well, text) = said(&run(&secured.server, "health", &[]));
    assert!(well && text.starts_with("https://127.0.0.1:"), "{text}");
    let plain = TestServer::start();
    let listen = plain.tcp.to_string();
    let (well, text) = said(&run(&secured.server, "health", &["--listen", &listen]));
    assert!(!well && text.contains("does not answer"), "{text}");
}
