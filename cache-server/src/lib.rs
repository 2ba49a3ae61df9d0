//! Kiln's cache server: the HTTP API over a store, with an index in SQLite.
//!
//! One program in two roles. A *local* server is started by the wrapper, listens on a unix socket
//! in its directory and leaves when idle; a *shared* one is started by somebody and listens on TCP.
//! [`serve`] runs either and blocks.
//!
//! The server moves verified blobs and checked records. It knows nothing of rustc, and reads no
//! environment: whoever calls passes a resolved [`ServeConfig`].

pub mod config;
pub mod gc;
pub mod limits;
pub mod log;
pub mod remote;
pub mod socket_path;

mod asker;
mod check;
mod clock;
mod error;
mod evict;
mod health;
mod history;
mod http;
mod index;
mod ingest;
mod leases;
mod maker;
mod metrics;
mod pages;
mod pending;
mod place;
mod principal;
mod publish;
mod quarantine;
mod rebuild;
pub mod report;
mod reports;
mod revoke;
mod routes;
mod scopes;
mod serve;
mod service;
mod shares;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod whole;

pub use check::check;
pub use config::{ConfigError, Key, Listen, RemoteConfig, Role, ServeConfig, Settings, StorageUrl};
pub use health::health;
pub use remote::url::{Access, RemoteUrl};
pub use revoke::command::{RevokeEnd, RevokeError, USAGE as REVOKE_USAGE, revoke};
pub use routes::openapi::text as openapi_text;
pub use serve::{ServeError, Server, serve};
pub use socket_path::socket_path;
pub use tls::{TlsError, TlsFiles};
pub use trust::command::{USAGE as TOKEN_USAGE, token};
