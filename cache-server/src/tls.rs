//! [`Tls`]: the server's end of TLS: a certificate that is shown to clients, and looked at again while the server runs.
//!
//! What connections are about is in [`crate::http`]; here a handshake ends with a stream and what was agreed on. An
//! exchange of the files takes no restart: connections that are open go on, further ones see the new certificate. A pair
//! of files that is no good is told of once, and the one of before is shown on.

mod dates;
mod pair;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kiln_storage::Digest;
use kiln_storage::remote::tls;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::dates::Validity;
pub(crate) use self::pair::{CERT, KEY};
pub use self::pair::{TlsError, TlsFiles};
use crate::clock;
use crate::limits::{TLS_HANDSHAKE_TIMEOUT, TLS_LOOKED_AFTER};
use crate::log::Log;

/// What is agreed on with a client that speaks HTTP/2.
const H2: &[u8] = b"h2";

/// The certificate that is shown at the moment.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What was found when the files were looked at last.
#[derive(Debug)]
struct Looked {
    /// The bytes of the certificate that is shown.
    shown: Digest,
    /// What is wrong with those that are there, and whether the log has it.
    wrong: Option<(TlsError, bool)>,
}

/// The server's end of TLS; clones are one.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    files: TlsFiles,
    looked: Arc<Mutex<Looked>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// How a connection goes on after its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// HTTP/1.1, also where nothing was said.
    Http1,
    /// HTTP/2.
    Http2,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let pems = files.read()?;
        let key = Arc::new(files.understand(&pems)?);
        let shown = Arc::new(Shown(RwLock::new(key)));
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| TlsError::Unavailable(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            shown,
            files: files.clone(),
            looked: Arc::new(Mutex::new(Looked { shown: pems.digest(), wrong: None })),
        })
    }

    /// Agrees with a client within [`TLS_HANDSHAKE_TIMEOUT`].
    ///
    /// # Errors
    /// It speaks no TLS, refuses the certificate, or is too slow.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Agreed)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = timeout(TLS_HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await??;
        let agreed = match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Agreed::Http2,
            _ => Agreed::Http1,
        };
        Ok((stream, agreed))
    }

    /// Looks after the files until the task is dropped.
    pub(crate) async fn watch(self, log: Log) {
        self.tell_dates(&log);
        loop {
            tokio::time::sleep(TLS_LOOKED_AFTER).await;
            let (this, log) = (self.clone(), log.clone());
            let _ = tokio::task::spawn_blocking(move || this.look(&log)).await;
        }
    }

    /// Shows what is in the files now, if that is good and something else.
    fn look(&self, log: &Log) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.files.read();
        if read.as_ref().is_ok_and(|pems| pems.digest() == looked.shown) {
            looked.wrong = None;
            return;
        }
        let found = read.and_then(|pems| Ok((pems.digest(), self.files.understand(&pems)?)));
        match found {
            Ok((digest, key)) => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                *looked = Looked { shown: digest, wrong: None };
                log.info(format_args!(
                    "TLS: another certificate is shown: {}",
                    self.files.cert.display()
                ));
                self.tell_dates(log);
            }
            Err(error) => {
                // Perhaps one of the two files was not written yet: it is told when it stays so.
                let told = match &looked.wrong {
                    Some((last, told)) if *last == error => {
                        if !told {
                            log.warn(format_args!(
                                "TLS: the certificate of before is shown on: {error}"
                            ));
                        }
                        true
                    }
                    _ => false,
                };
                looked.wrong = Some((error, told));
            }
        }
    }

    /// Says when the certificate that is shown is not valid now.
    fn tell_dates(&self, log: &Log) {
        let key = self.shown.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(when) = when(&key).filter(|when| !when.is_now) {
            log.warn(format_args!("TLS: the certificate {}, so clients refuse it", when.words));
        }
    }
}

/// When a certificate is valid, in words.
#[derive(Debug)]
pub(crate) struct When {
    /// Whether it is.
    is_now: bool,
    /// Words behind its name.
    pub words: String,
}

/// When a certificate is valid; none where it does not say so in a way that is understood.
pub(crate) fn when(key: &CertifiedKey) -> Option<When> {
    let Validity { not_before, not_after } = Validity::of(key.cert.first()?)?;
    let millis = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let (from, until, now) = (millis(not_before), millis(not_after), clock::now_ms());
    let day = |ms: u64| clock::iso(ms).chars().take(10).collect::<String>();
    let words = match (now < from, now > until) {
        (true, _) => format!("is not valid before {}", day(from)),
        (_, true) => format!("has expired on {}", day(until)),
        _ => format!("is valid until {}", day(until)),
    };
    Some(When { is_now: (from..=until).contains(&now), words })
}

#[cfg(test)]
mod tests {
    use kiln_storage::testing::certificates::Authority;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_in_a_handshake_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let files = Authority::new().signs(dir.path(), &["localhost"], 2120);
        let tls = Tls::open(&TlsFiles { cert: files.cert, key: files.key }).unwrap();
        let (_silent, stream) = tokio::io::duplex(1024);
        let begun = tokio::time::Instant::now();
        let error = tls.accept(stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), TLS_HANDSHAKE_TIMEOUT);
    }
}
