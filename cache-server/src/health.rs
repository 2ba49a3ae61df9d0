//! `kiln-server health`: whether the server of a configuration answers. For whoever starts servers and looks after them:
//! needs no token, and no program beside the server's own.
//!
//! By TLS any certificate will do: nothing is told to who listens there, and nothing is believed of him but that he
//! answers. A server whose files were exchanged for others that are no good goes on, and is well.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use kiln_storage::remote::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::config::ServeConfig;
use crate::limits::HEALTH_TIMEOUT;

const QUESTION: &str = "GET /healthz HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n";

/// Longest first line of an answer, bytes.
const MAX_LINE_BYTES: usize = 256;

/// Asks the server that listens where a configuration says; what to say when it answers.
///
/// # Errors
/// What is wrong, for people.
pub fn health(config: &ServeConfig) -> Result<String, String> {
    let (place, answer) = match (config.listen.tcp, &config.listen.socket) {
        (Some(address), _) => {
            let address = reached(address);
            match config.tls_files() {
                None => (format!("http://{address}"), by_tcp(address).and_then(first_line)),
                Some(_) => (format!("https://{address}"), by_tls(address)),
            }
        }
        (None, Some(path)) => (format!("unix://{}", path.display()), by_socket(path)),
        (None, None) => return Err("the server listens nowhere".to_owned()),
    };
    match answer {
        Ok(line) if line.split(' ').nth(1) == Some("200") => Ok(format!("{place} answers")),
        Ok(line) => {
            Err(format!("{place} answers {line:?}: it is no Kiln server, or none that is well"))
        }
        Err(error) => Err(format!("{place} does not answer: {error}")),
    }
}

/// Where a server is reached that listens on all addresses.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn by_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
    Ok(stream)
}

fn by_tls(address: SocketAddr) -> io::Result<String> {
    let stream = by_tcp(address)?;
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(tls::provider())))
        .with_no_client_auth();
    let name = ServerName::IpAddress(address.ip().into());
    let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    first_line(StreamOwned::new(client, stream))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn by_socket(path: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
    first_line(stream)
}

fn first_line(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(QUESTION.as_bytes())?;
    let mut bytes = [0; MAX_LINE_BYTES];
    let mut len = 0;
    while len < bytes.len() && !bytes[..len].contains(&b'\n') {
        match stream.read(&mut bytes[len..])? {
            0 => break,
            read => len += read,
        }
    }
    let line = String::from_utf8_lossy(&bytes[..len]).into_owned();
    Ok(line.lines().next().unwrap_or_default().trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_this_machine() {
        let check = |listens: &str, asked: &str| {
            assert_eq!(reached(listens.parse().unwrap()), asked.parse().unwrap());
        };
        check("0.0.0.0:5456", "127.0.0.1:5456");
        check("[::]:1", "[::1]:1");
        check("192.0.2.1:7", "192.0.2.1:7");
    }
}
