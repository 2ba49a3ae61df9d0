//! Jobs that build at the same time and share a server: each unit is compiled once, whatever becomes of the jobs.

mod holders;
mod machines;
mod matrix;
mod network;
mod places;
mod tokens;
mod wire;
