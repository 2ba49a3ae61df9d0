//! The container as `deploy/Dockerfile` makes it and `docs/operations.md` has it run, with an S3 store beside it, for jobs
//! in networks of their own.

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "it is of the server's tests, and has more than is used here"
)]
#[path = "../../../cache-server/tests/server/issuer.rs"]
mod issuer;

mod hardened;
mod image;
mod job;
mod serving;
mod site;
mod tokens;
