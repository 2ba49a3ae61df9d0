//! Places behind a server.

mod chain;
mod faults;
mod gc;
mod gha;
mod kiln;
mod rights;
mod s3;
mod tls;
