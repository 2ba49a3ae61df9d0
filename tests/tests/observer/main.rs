//! The library that is loaded into compilers and scripts.

mod aside;
mod hidden;
mod hostile;
mod libc;
mod maps;
mod network;
mod starts;
mod stress;
