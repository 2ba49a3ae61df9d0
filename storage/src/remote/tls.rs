//! The one TLS implementation of the process: ring. Called before the first HTTP client is made.

/// Makes ring the default of the process, unless there is one already.
pub fn install() {
    // An error says that somebody was first, with the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
