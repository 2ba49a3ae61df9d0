//! The server from outside: a real unix socket, real TCP, a tiny raw HTTP client.

// In test code clippy lets `unwrap` pass; it knows it by this attribute.
#[cfg(test)]
mod allowances;
#[cfg(test)]
mod blobs;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod edge_login;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod guarded;
#[cfg(test)]
mod h2;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod issuer;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod leases_behind;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod metrics;
#[cfg(test)]
#[path = "../../../storage/tests/suite/support/moto.rs"]
#[allow(unreachable_pub, reason = "the tests of another package have it, too")]
mod moto;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod remotes;
#[cfg(test)]
mod results;
#[cfg(test)]
mod revoke;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod scoped;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod stats;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod trust;
