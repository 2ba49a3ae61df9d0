//! The moto server of this test process, with what the tests of this package are told of the machine.
//! `KILN_TEST_MOTO` may name the program.

use std::net::SocketAddr;
use std::path::Path;

pub use kiln_storage::testing::moto::BUCKET;
use kiln_storage::testing::moto::{self, Place};

/// Where the server listens; `None` where there is none.
#[allow(clippy::print_stdout, reason = "what CI looks for")]
#[allow(clippy::disallowed_methods, reason = "tests are told where their tools are")]
pub fn address() -> Option<SocketAddr> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tests-tools");
    let named = std::env::var_os("KILN_TEST_MOTO").map(Into::into);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let address = moto::address(&Place { named, path, tools });
    if address.is_none() {
        println!("SKIP: there is no moto_server, and pip cannot install it");
    }
    address
}
