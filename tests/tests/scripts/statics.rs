//! Theme: Kiln itself is linked statically, as in a release. Nothing of it can be observed when a script asks a
//! compiler through it; it tells itself what it read.

use kiln_tests::host::host;
use kiln_tests::script::Scripted;
use kiln_tests::script::Stored::{self, Everywhere, Refused};
use kiln_tests::{Programs, World, skip};

/// Asks `RUSTC` through `RUSTC_WRAPPER`, as cargo asks scripts to do.
const ASKS: &str = "let mut asks = match std::env::var_os(\"RUSTC_WRAPPER\") { None => Command::new(var(\"RUSTC\")), \
     Some(wrapper) => { let mut asks = Command::new(wrapper); asks.arg(var(\"RUSTC\")); asks } };";

/// Checks a script with the programs that `KILN_TEST_PROGRAMS` names; says why, where there are none.
fn check(stored: Stored, code: &str, states: [fn(&Scripted); 2]) {
    let kiln = host().programs.as_ref().map(|dir| dir.join("kiln")).filter(|kiln| kiln.is_file());
    let Some(kiln) = kiln else {
        skip!("KILN_TEST_PROGRAMS names no directory with a static kiln")
    };
    let built = kiln_tests::world!().programs.clone();
    let world = World::new(Programs { kiln, ..built });
    Scripted::new(world, &format!("{ASKS} {code}")).check(stored, states[0], states[1]);
}

const TRIES: &str = "asks.args([\"--crate-name=tried\", \"--crate-type=lib\", \"--emit=metadata\", \"--out-dir\"]); \
     asks.arg(out(\"\")).arg(at(\"data/n\")).stderr(std::process::Stdio::null()).status().unwrap().to_string()";

#[test]
fn a_source_that_compiles_or_is_refused() {
    check(
        Everywhere,
        TRIES,
        [|p| p.write("pk/data/n", "pub fn f() {}"), |p| p.write("pk/data/n", "pub fn")],
    );
}

#[test]
fn the_version() {
    let code = "run(asks.arg(\"--version\")) + &read(\"data/n\")";
    check(Everywhere, code, [|p| p.write("pk/data/n", "one"), |p| p.write("pk/data/n", "two")]);
}

/// Kiln becomes the compiler then, which nobody sees.
#[test]
fn a_question_that_is_handed_over() {
    let code = "run(asks.args([\"--print=cfg\"])) + &read(\"data/n\")";
    let states: [fn(&Scripted); 2] =
        [|p| p.write("pk/data/n", "one"), |p| p.write("pk/data/n", "two")];
    check(Refused("not-observed"), code, states);
}
