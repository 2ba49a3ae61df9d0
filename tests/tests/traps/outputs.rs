//! Theme: what a compile leaves is what is restored, of every kind of debug information and output; and
//! it follows its sources.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::{Desk, With, first_error, names};
use kiln_tests::world;

const SOURCE: &str = "pub mod other { pub fn n() -> i32 { N } }\n#[inline(never)] pub fn n() -> i32 { other::n() }\nfn main() { print!(\"{}\", n()) }\n";

fn source(desk: &Desk, n: &str) {
    desk.write("m.rs", SOURCE.replace('N', n));
}

/// The names of all outputs with what makes up their size: that is the same with Kiln as without, as far
/// as no path is in them.
fn outputs(desk: &Desk) -> String {
    names(&desk.project.at("out")).join(" ")
}

fn build(desk: &Desk, with: With, args: &str) -> String {
    desk.empty("out");
    let done =
        desk.call(with, &format!("--crate-name m --edition=2021 --out-dir out {args} m.rs")).run();
    let error = first_error(&done).unwrap_or_default();
    let program =
        if desk.project.at("out/m").exists() { desk.prints("out/m") } else { String::new() };
    format!("{error} [{}] {program}", outputs(desk))
}

/// Outputs of one source, of another, and of the first again; whether they are stored.
fn check(args: &str, stored: bool) {
    for way in ["on", "off"] {
        let desk = Desk::new(world!());
        desk.set("KILN_OBSERVE", way);
        source(&desk, "1");
        let first = desk.same(|with| build(&desk, with, args));
        let again = || {
            desk.empty("out");
            desk.rustc(
                With::Kiln,
                &format!("--crate-name m --edition=2021 --out-dir out {args} m.rs"),
            )
        };
        assert_eq!(again().did_compile("m"), !stored, "{args}: {:#}", desk.world.stats()["missed"]);
        let made = content(&desk);
        source(&desk, "2");
        desk.same(|with| build(&desk, with, args));
        assert_ne!(content(&desk), made, "{args}: the change has to show");
        source(&desk, "1");
        assert_eq!(desk.same(|with| build(&desk, with, args)), first);
        assert_eq!(again().did_compile("m"), !stored, "{args}");
        if stored {
            assert_eq!(content(&desk), made, "{args}: what comes back is what was made");
        }
    }
}

fn content(desk: &Desk) -> Vec<(String, Vec<u8>)> {
    let dir = desk.project.at("out");
    names(&dir)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(dir.join(name)).unwrap()))
        .collect()
}

#[test]
fn every_kind_of_split_debug_information() {
    for split in ["off", "packed", "unpacked"] {
        check(&format!("--emit=dep-info,link -g -Csplit-debuginfo={split}"), true);
    }
}

#[test]
fn amounts_of_debug_information() {
    for amount in ["line-tables-only", "limited", "full"] {
        check(&format!("--emit=dep-info,link -Cdebuginfo={amount}"), true);
    }
}

/// Split debug information of a library lies beside it, and its user packs it.
#[test]
fn split_debug_information_of_a_library() {
    for split in ["packed", "unpacked"] {
        for way in ["on", "off"] {
            let desk = Desk::new(world!());
            desk.set("KILN_OBSERVE", way);
            desk.write("m.rs", "fn main() { print!(\"{}\", b::n()) }\n");
            let build = |with: With| {
                desk.empty("out");
                let common = format!("--edition=2021 -g -Csplit-debuginfo={split} --out-dir out");
                desk.rustc(with, &format!("--crate-name b --crate-type lib --emit=dep-info,metadata,link {common} b.rs"));
                desk.rustc(
                    with,
                    &format!(
                        "--crate-name m --emit=dep-info,link --extern b=out/libb.rlib {common} m.rs"
                    ),
                );
                format!("{} {}", desk.prints("out/m"), outputs(&desk))
            };
            let library = |n: u32| desk.write("b.rs", format!("pub fn n() -> i32 {{ {n} }}\n"));
            library(1);
            desk.check(build, || library(2));
            library(1);
            desk.same(build);
        }
    }
}

#[test]
fn kinds_of_output() {
    for emit in ["asm", "llvm-bc", "llvm-ir", "obj", "mir", "asm,llvm-ir,obj,link"] {
        check(&format!("--emit={emit} -Ccodegen-units=1"), true);
    }
}
