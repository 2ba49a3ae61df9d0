//! What goes wrong beside a build: the server, the store, the disk.

mod connections;
mod crowd;
mod server;
mod settings;
mod store;
