//! [`TlsFiles`]: a certificate chain and its key as files of PEM, read and looked through; and what is wrong with
//! them, for people. Called by [`super`], which shows them to clients, and by [`crate::check`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_storage::Digest;
use kiln_storage::remote::tls;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use crate::limits::MAX_PEM_BYTES;
use crate::whole;

/// The setting that names the certificate.
pub(crate) const CERT: &str = "KILN_TLS_CERT";
/// The setting that names its key.
pub(crate) const KEY: &str = "KILN_TLS_KEY";

/// Where the certificate chain of a server and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The key of the first one.
    pub key: PathBuf,
}

/// Why a certificate and a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} ({setting}) cannot be read: {why}", path.display())]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file holds something else than it should.
    #[error("{} ({setting}) {why}", path.display())]
    Unfit {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// They do not belong together.
    #[error(
        "the key in {} ({KEY}) is not that of the first certificate in {} ({CERT})",
        .0.key.display(), .0.cert.display()
    )]
    Mismatch(TlsFiles),
    /// There is no TLS in this program.
    #[error("TLS is not to be had: {0}")]
    Unavailable(String),
}

impl TlsError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "it is read as the user of the server",
            Self::Unfit { setting: CERT, .. } => {
                "it accepts PEM: the server's own certificate, then those between it and the authority"
            }
            Self::Unavailable(_) => "this is a fault of Kiln",
            Self::Unfit { .. } => {
                "it accepts PEM: one key without a password, of RSA, ECDSA (P-256, P-384) or Ed25519"
            }
            Self::Mismatch(_) => "the server's own certificate is the first of the chain",
        }
    }

    /// What is wrong, and what to do, in two lines.
    pub fn in_full(&self) -> String {
        format!("{self}\nhint: {}", self.hint())
    }
}

/// The bytes of both files, as they were at a moment.
#[derive(Debug)]
pub(super) struct Pems {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pems {
    /// What tells them from others.
    pub(super) fn digest(&self) -> Digest {
        let mut both = Digest::of(&self.cert).to_string();
        both.push_str(&Digest::of(&self.key).to_string());
        Digest::of(both.as_bytes())
    }
}

impl TlsFiles {
    /// Reads both.
    pub(super) fn read(&self) -> Result<Pems, TlsError> {
        Ok(Pems { cert: read(CERT, &self.cert)?, key: read(KEY, &self.key)? })
    }

    /// The chain with its key.
    pub(super) fn understand(&self, pems: &Pems) -> Result<CertifiedKey, TlsError> {
        let unfit = |setting, path: &Path, why| TlsError::Unfit { setting, path: path.into(), why };
        let no_cert = |why| unfit(CERT, &self.cert, why);
        let no_key = |why| unfit(KEY, &self.key, why);
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&pems.cert).collect();
        let chain = chain.map_err(|_| no_cert("is no PEM"))?;
        if chain.is_empty() {
            return Err(no_cert("has no certificate in it"));
        }
        if chain.iter().any(|one| ParsedCertificate::try_from(one).is_err()) {
            return Err(no_cert("has a certificate in it that is malformed"));
        }
        let key = PrivateKeyDer::from_pem_slice(&pems.key).map_err(|error| match error {
            pem::Error::NoItemsFound if is_encrypted(&pems.key) => {
                no_key("has a key with a password")
            }
            pem::Error::NoItemsFound => no_key("has no key in it"),
            _ => no_key("is no PEM"),
        })?;
        let key = tls::provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| no_key("has a key that is malformed, or of another kind"))?;
        let both = CertifiedKey::new(chain, key);
        both.keys_match().map_err(|_| TlsError::Mismatch(self.clone()))?;
        Ok(both)
    }

    /// Reads and understands both.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(crate) fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        self.understand(&self.read()?).map(Arc::new)
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let mark = b"ENCRYPTED PRIVATE KEY";
    pem.windows(mark.len()).any(|part| part == mark)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error: io::Error| TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        why: error.to_string(),
    };
    whole::read(path, MAX_PEM_BYTES).map_err(failed)
}
