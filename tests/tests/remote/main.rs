//! Places behind a server.

mod chain;
mod dying;
mod faults;
mod gc;
mod gha;
mod https;
mod kiln;
mod racing;
mod rights;
mod s3;
mod tls;
mod versions;
