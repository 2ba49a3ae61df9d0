//! The suites that every backend and every layer runs, and the tools they need (feature
//! `testing`). Nothing here is part of a running Kiln.
//!
//! - [`conformance`]: what the [`crate::Backend`] trait promises, one check for each promise;
//! - [`certificates`]: an authority that nobody trusts but who is told to;
//! - [`faults`]: a backend that fails on purpose;
//! - [`model`]: random operations against a reference;
//! - [`moto`]: a server of S3's API;
//! - [`npm`]: programs in node with their packages;
//! - [`proxy`]: an HTTP proxy that injects faults between a client and a real server;
//! - [`results`]: records with blobs, as remotes store them;
//! - [`gha`]: the GitHub Actions cache service;
//! - [`remotes`]: what the [`crate::Remote`] trait promises, checks and a model;
//! - [`stamped`]: a backend with a clock that a test turns;
//! - [`remote`]: a remote in memory that does what a test tells it.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking, like the tests that call it")]

pub mod bodies;
pub mod certificates;
pub mod conformance;
pub mod faults;
pub mod gha;
pub mod model;
pub mod moto;
pub mod npm;
pub mod proxy;
pub mod remote;
pub mod remotes;
pub mod results;
pub mod stamped;
mod wire;
