//! The harness of Kiln's tests: real builds by cargo and rustc, seen from outside.
//!
//! A test makes a [`World`] (its own home, cargo home, state directory and stand-in compilers),
//! puts a [`Project`] into it, runs cargo, rustc or kiln through a [`Call`], and looks at what came
//! of it ([`Done`]): the status, the output, and which compiles really ran. The tests themselves
//! are in `tests/tests`, a directory for each theme, since linking each file by itself takes minutes.
//!
//! Only [`host`] reads the environment of the test process; nothing changes it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness: a broken premise ends the test, and says so"
)]

pub mod call;
pub mod change;
pub mod checking;
pub mod container;
pub mod direct;
pub mod far;
pub mod host;
pub mod job;
pub mod lab;
pub mod left;
pub mod made;
pub mod memo;
pub mod mount;
pub mod native;
pub mod net;
pub mod project;
pub mod registry;
pub mod runs;
pub mod samples;
pub mod script;
pub mod server;
pub mod toolchain;
pub mod tools;
pub mod trap;
pub mod world;

pub use call::{Call, Done, Running};
pub use change::Change;
pub use job::Job;
pub use lab::{Lab, Program};
pub use project::Project;
pub use runs::Run;
pub use world::{Programs, World};

/// A fresh [`World`] with the programs of this build.
#[macro_export]
macro_rules! world {
    () => {
        $crate::World::new($crate::Programs {
            kiln: env!("CARGO_BIN_EXE_kiln-under-test").into(),
            standin: env!("CARGO_BIN_EXE_rustc-standin").into(),
            shared: env!("CARGO_TARGET_TMPDIR").into(),
        })
    };
}

/// A fresh [`Lab`] with the C compiler `cc` or another one; ends a test that cannot have it.
#[macro_export]
macro_rules! lab {
    () => {
        $crate::lab!("cc")
    };
    ($compiler:expr) => {
        match $crate::Lab::open($compiler) {
            Ok(lab) => lab,
            Err(why) => $crate::skip!("{}: {why}", $compiler),
        }
    };
}

/// Says why a test was not run, and ends it.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("SKIP: {}", format!($($why)*));
        return;
    }};
}

/// A fresh [`far::bucket::Bucket`]; ends a test that cannot have it.
#[macro_export]
macro_rules! bucket {
    ($world:expr) => {
        match $crate::far::bucket::Bucket::open(&$world) {
            Ok(bucket) => bucket,
            Err(why) => $crate::skip!("{why}"),
        }
    };
}
