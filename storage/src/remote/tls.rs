//! What TLS is made of: `ring`, for every client of this process.
//!
//! Called by whoever makes a client, before it does. Reads no settings.

/// Makes `ring` the provider of the process, unless there is one.
pub fn install() {
    // One that is there already does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
