//! Changes that neither arguments nor dep-info show.

mod linkers;
mod natives;
mod outputs;
mod packages;
mod paths;
mod tools;
