//! Shapes of CI as real projects have them, as a whole: what their jobs compile, and what they do not.

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "it is of the server's tests, and has more than is used here"
)]
#[path = "../../../cache-server/tests/server/issuer.rs"]
mod issuer;

mod pull_requests;
mod split;
mod stages;
mod wheels;

/// The manifest of a package, with more lines behind `[package]`.
pub(crate) fn manifest(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n{more}")
}

/// The setting of a job that asks the shared server itself, and of one that has a server of its own between.
pub(crate) const WAYS: [&str; 2] = ["KILN_SERVER", "KILN_UPSTREAM"];
