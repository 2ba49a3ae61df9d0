//! The GitHub Actions cache as a place for results.

pub mod clock;
