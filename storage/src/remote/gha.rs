//! The GitHub Actions cache as a place for results.

pub mod budget;
pub mod claim;
pub mod client;
pub mod clock;
pub mod limits;
pub mod manifest;
pub mod pack;
pub mod settings;
mod transport;
mod v1;
mod v2;
