//! TLS for the blocking client: a handshake within a bound, and what it refuses in words. Whom to trust is what
//! [`kiln_storage::remote::tls`] says, as for a server's own requests.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_storage::remote::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::timed::Timed;
use super::{ClientError, Stream};
use crate::limits::TLS_TIMEOUT;

/// Whom this process trusts: read once, since that takes longer than a handshake.
static CONFIG: OnceLock<Result<Arc<ClientConfig>, &'static str>> = OnceLock::new();

impl Stream for StreamOwned<ClientConnection, Timed<TcpStream>> {
    fn within(&mut self, time: Duration) {
        self.sock.within(time);
    }
}

/// Agrees on TLS with who listens at `host:port`, and finds out that it is him.
pub(super) fn agree(
    mut stream: Timed<TcpStream>,
    host: &str,
) -> Result<StreamOwned<ClientConnection, Timed<TcpStream>>, ClientError> {
    let config = CONFIG.get_or_init(|| tls::client().map(Arc::new)).clone();
    let config = config.map_err(ClientError::Untrusted)?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = ServerName::try_from(name.to_owned());
    let name = name.map_err(|_| ClientError::Untrusted("no certificate can be for such a name"))?;
    let broken = |error| ClientError::Broken(io::Error::other(error));
    let mut connection = ClientConnection::new(config, name).map_err(broken)?;
    stream.within(TLS_TIMEOUT);
    while connection.is_handshaking() {
        // A refusal is found in the error; it says nothing of a name or an address.
        connection.complete_io(&mut stream).map_err(|error| match tls::refusal(&error) {
            Some(why) => ClientError::Untrusted(why),
            None if error.kind() == io::ErrorKind::WouldBlock => ClientError::Broken(
                io::Error::new(io::ErrorKind::TimedOut, "it does not answer to TLS"),
            ),
            None => ClientError::Broken(error),
        })?;
    }
    Ok(StreamOwned::new(connection, stream))
}
