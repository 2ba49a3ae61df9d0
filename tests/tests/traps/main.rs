//! Traps: a stale result would show.

mod found;
mod macro_tools;
mod macros;
mod natives;
mod objects;
mod outputs;
mod sources;
