//! Build scripts.

mod bindgen;
mod cargo;
mod elsewhere;
mod found;
mod front;
mod inputs;
mod outputs;
mod real;
mod refused;
mod statics;
mod switches;
