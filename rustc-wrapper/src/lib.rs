//! Kiln's wrapper and command line: all that knows of compilers.
//!
//! The stages of a wrapper run, each importing only earlier ones: [`mod@env`], [`config`], [`args`],
//! [`roots`], [`tool`], [`mod@unit`], then [`lookup`] and [`outputs`] (a hit) or [`compile`],
//! [`inputs`] and [`publish`] (a miss), or [`verify`] (a hit that is checked); a miss may wait for another job
//! (`lease`). [`wrapper`] joins them for a compile, [`script`] for the run of a build script that [`front`] stands in for; [`cli`] holds the
//! commands.
//!
//! Linux is what it is made for. On other Unix systems nothing is observed; where there is no Unix the program is
//! `elsewhere` alone, and this library is empty.

#![cfg(unix)]

pub mod args;
mod bring;
pub mod causes;
pub mod cli;
pub mod client;
pub mod closure;
pub mod compile;
pub mod config;
pub mod depinfo;
pub mod diagnostics;
pub mod engine;
pub mod env;
pub mod envuse;
pub mod explain;
pub mod front;
pub mod host;
pub mod identity;
pub mod inputs;
mod jobserver;
mod lease;
pub mod limits;
pub mod linker;
pub mod local;
pub mod lookup;
pub mod members;
pub mod memo;
pub mod names;
pub mod needles;
pub mod notes;
pub mod objects;
pub mod observe;
pub mod outputs;
mod places;
pub mod probes;
pub mod publish;
pub mod quick;
pub mod real_paths;
pub mod reasons;
pub mod roots;
pub mod say;
pub mod scratch;
pub mod script;
pub mod session;
pub mod silent;
pub mod sources;
mod spawn;
pub mod stamp;
pub mod stdin;
pub mod tool;
pub mod unit;
pub mod variables;
pub mod verify;
pub mod wrapper;

use std::process::ExitCode;

use crate::config::Config;
use crate::env::Env;

/// Exit status for a wrong use or a malformed setting.
const USAGE: u8 = 2;

/// The whole program: a wrapper when its first argument is a path or a compiler's name, else the
/// command line. A compiler of C becomes what it would be without Kiln.
pub fn main() -> ExitCode {
    let env = Env::of_process();
    let arguments = Env::arguments();
    if arguments.first().is_some_and(|word| word == script::WORD) {
        script::main(&env, &arguments[1..])
    } else if cli::is_other_compiler(&arguments) {
        compile::become_tool(&arguments)
    } else if cli::is_wrapper_call(&arguments) {
        wrapper::main(&env, &arguments)
    } else {
        cli::main(&env, &arguments)
    }
}

/// The settings; for a malformed one, what is said of it, and the exit status.
fn settings(env: &Env) -> Result<Config, ExitCode> {
    Config::resolve(env).map_err(|error| {
        say::error(&error.to_string(), &["see docs/settings.md, or unset it"]);
        ExitCode::from(USAGE)
    })
}
