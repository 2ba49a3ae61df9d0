//! [`Terminator`]: ends TLS before a server that speaks plain HTTP, with a certificate that was made for it.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_storage::testing::certificates::Certified;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::message;

/// Longest that a client may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// What a server needs that shows a certificate.
fn shows(files: &Certified) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    kiln_storage::remote::tls::install();
    let config = ServerConfig::builder().with_no_client_auth();
    config.with_single_cert(vec![certificate], key).expect("a certificate with its key")
}

/// See the module. It ends with the test.
#[derive(Debug)]
pub struct Terminator {
    address: SocketAddr,
    handed_on: Arc<AtomicU64>,
}

impl Terminator {
    /// Ends TLS before a server.
    pub fn before(server: SocketAddr, files: &Certified) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (config, handed_on) = (Arc::new(shows(files)), Arc::new(AtomicU64::new(0)));
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
