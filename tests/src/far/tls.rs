//! [`Terminator`]: ends TLS before a server that speaks plain HTTP, with a certificate of an authority that was
//! made for it by `openssl`.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::message;
use crate::host::SYSTEM_PATH;

/// Longest that a client may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

const SETTINGS: &str = "[req]\nprompt = no\ndistinguished_name = name\n[name]\nCN = Kiln\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
    subjectKeyIdentifier = hash\n\
    [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n\
    [other]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:elsewhere.example\n";

/// An authority of its own, and what it has signed.
#[derive(Debug)]
pub struct Authority(PathBuf);

impl Authority {
    /// Makes one, in a directory that is there.
    ///
    /// # Errors
    /// That there is no `openssl`, or that it fails.
    pub fn create(dir: &Path) -> Result<Self, String> {
        let this = Self(dir.to_owned());
        std::fs::write(dir.join("settings"), SETTINGS).map_err(|error| error.to_string())?;
        this.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -config settings \
             -extensions authority -subj /CN=authority -keyout authority.key -out authority.pem",
        )?;
        Ok(this)
    }

    fn openssl(&self, words: &str) -> Result<(), String> {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(&self.0);
        command.env_clear().env("PATH", SYSTEM_PATH);
        let done = command.output().map_err(|error| format!("there is no openssl: {error}"))?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(()) } else { Err(format!("openssl: {said}")) }
    }

    /// Its certificate, as `SSL_CERT_FILE` names it.
    pub fn file(&self) -> PathBuf {
        self.0.join("authority.pem")
    }

    /// What a server needs that has a certificate for a section of the settings: `server`, or `other` for one of
    /// another name.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn signs(&self, section: &str) -> Result<ServerConfig, String> {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config settings -subj /CN=server \
             -keyout {section}.key -out {section}.csr"
        ))?;
        self.openssl(&format!(
            "x509 -req -in {section}.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 30 \
             -extfile settings -extensions {section} -out {section}.pem"
        ))?;
        let at = |end: &str| self.0.join(format!("{section}.{end}"));
        let certificate = CertificateDer::from_pem_file(at("pem")).map_err(|e| e.to_string())?;
        let key = PrivateKeyDer::from_pem_file(at("key")).map_err(|e| e.to_string())?;
        kiln_storage::remote::tls::install();
        let config = ServerConfig::builder().with_no_client_auth();
        config.with_single_cert(vec![certificate], key).map_err(|error| error.to_string())
    }
}

/// See the module. It ends with the test.
#[derive(Debug)]
pub struct Terminator {
    address: SocketAddr,
    handed_on: Arc<AtomicU64>,
}

impl Terminator {
    /// Ends TLS before a server.
    pub fn before(server: SocketAddr, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (config, handed_on) = (Arc::new(config), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&handed_on);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (config, count) = (Arc::clone(&config), Arc::clone(&count));
                std::thread::spawn(move || serve(client, config, server, &count));
            }
        });
        Self { address, handed_on }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many requests it handed on.
    pub fn handed_on(&self) -> u64 {
        self.handed_on.load(Ordering::Relaxed)
    }
}

/// One request of a connection; the server closes it after its answer.
fn serve(
    client: TcpStream,
    config: Arc<ServerConfig>,
    server: SocketAddr,
    count: &AtomicU64,
) -> Option<()> {
    client.set_read_timeout(Some(SILENCE)).ok()?;
    let tls = StreamOwned::new(ServerConnection::new(config).ok()?, client);
    let mut reader = BufReader::new(tls);
    let (_, request) = message(&mut reader)?;
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream.write_all(&request).ok()?;
    count.fetch_add(1, Ordering::Relaxed);
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    let tls = reader.get_mut();
    tls.write_all(&answer).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}
