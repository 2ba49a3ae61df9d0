//! The bounds of connections, before anything of a request is known: HTTP/1.1, HTTP/2, TLS.

use std::time::Duration;

/// Most open connections; further ones wait in the listener's backlog. Those that wait for leases
/// ([`super::MAX_LEASE_QUESTIONS`]) or hold them ([`super::MAX_HELD_LEASES`]) leave a thousand for work.
pub const MAX_CONNECTIONS: usize = 4096;

/// Most connections that the system takes for the server before that has taken them; it may allow less (`somaxconn`).
pub const CONNECTION_BACKLOG: i32 = 4096;

/// Longest that a client takes for the head of a request, idle time of the connection included.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that a client takes nothing of an answer.
pub const ANSWER_STALL: Duration = Duration::from_secs(60);

/// Most open connections by sockets of this machine, whatever comes over TCP.
pub const MAX_OWN_CONNECTIONS: usize = 4096;

/// Largest head of a request, bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Longest that a client takes for the handshake of TLS.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files of a certificate and its key are looked at.
pub const TLS_LOOKED_AFTER: Duration = Duration::from_secs(2);

/// Largest file of a certificate chain or a key, bytes.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Most requests of one connection of HTTP/2 at once; further ones wait at the client, where an answer that does not come is
/// a fault. All questions of a machine for leases that wait are among them, up to three for each of its processors, and as
/// many as one principal may have ([`super::MAX_LEASE_QUESTIONS_EACH`]).
pub const MAX_STREAMS: u32 = 1024;

/// Most requests of a connection of HTTP/2 that were taken back before they were looked at; with more it ends.
pub const MAX_TAKEN_BACK: usize = 64;

/// Most requests of a connection of HTTP/2, as long as it lasts, that were wrong in themselves; with more it ends. What a
/// client sends on for a request that was refused early may be among them.
pub const MAX_WRONG_STREAMS: usize = 1024;

/// Bytes of one request of HTTP/2 that a client may send ahead of who reads them.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The same for all requests of a connection together.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of one answer of HTTP/2 that wait for the client to take them.
pub const STREAM_SEND_BYTES: usize = 256 * 1024;

/// How often a client of HTTP/2 is asked whether it is there.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Longest that it takes for the answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest that a connection of HTTP/2 without a request goes on after its client was told that it ends.
pub const GOAWAY_GRACE: Duration = Duration::from_secs(2);
