//! The one TLS implementation of the process, ring, and what is wrong with a certificate, for people. Called
//! before the first HTTP client is made, and by the clients of all places.
//!
//! Whom to trust is what the system says: its own list, or the file that `SSL_CERT_FILE` and the directory that
//! `SSL_CERT_DIR` name in its place.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig};
use rustls_platform_verifier::Verifier;

/// Most causes of an error that are looked through.
const MAX_CAUSES: usize = 16;

/// Makes ring the default of the process, unless there is one already.
pub fn install() {
    // An error says that somebody was first, with the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The implementation, for who makes a client or a server of TLS by hand.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How a client of HTTP/1.1 that is made by hand finds out who is at the other end: as the clients of all places do.
///
/// # Errors
/// There is nobody whom it could trust, in words.
pub fn client() -> Result<ClientConfig, &'static str> {
    let provider = provider();
    let nobody = "no certificate of an authority is to be had on this machine; name a file with some in SSL_CERT_FILE";
    let verifier = Verifier::new(provider.clone()).map_err(|_| nobody)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS is not to be had")?;
    let verified = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = verified.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What TLS refuses, and what to do, if an error comes of that. Holds nothing of the error itself.
pub fn refusal(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    for _ in 0..MAX_CAUSES {
        let error = next?;
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(words(error));
        }
        // The error within an error of I/O is not its source.
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}

fn words(error: &rustls::Error) -> &'static str {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            C::UnknownIssuer => {
                "its TLS certificate comes from an authority that this machine does not trust; name a file with \
                 that authority's certificate in SSL_CERT_FILE"
            }
            C::Expired | C::ExpiredContext { .. } => {
                "its TLS certificate has expired; it needs a new one, or the clock here is wrong"
            }
            C::NotValidYet | C::NotValidYetContext { .. } => {
                "its TLS certificate is not valid yet; look at the clock here"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "its TLS certificate is for another name; look at the address"
            }
            C::Revoked => "its TLS certificate was revoked; it needs a new one",
            _ => "its TLS certificate is not valid; it needs another one",
        },
        rustls::Error::InvalidMessage(_) => {
            "it speaks no TLS there; is the address one of http://?"
        }
        _ => "no TLS connection can be agreed on with it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_found_at_the_bottom() {
        let error = |why| rustls::Error::InvalidCertificate(why);
        let nested = io::Error::other(io::Error::other(error(CertificateError::UnknownIssuer)));
        assert!(refusal(&nested).unwrap().contains("SSL_CERT_FILE"));
        let expired = io::Error::other(error(CertificateError::Expired));
        assert!(refusal(&expired).unwrap().contains("has expired"));
        assert_eq!(refusal(&io::Error::other("certificate")), None);
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
