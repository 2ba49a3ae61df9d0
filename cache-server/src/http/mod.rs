//! HTTP as such: connections, what happens around every request, bodies. What the calls mean is
//! in [`crate::routes`].

pub(crate) mod audit;
pub(crate) mod body;
pub(crate) mod connection;
mod h2;
pub(crate) mod middleware;
mod page;
mod stall;
