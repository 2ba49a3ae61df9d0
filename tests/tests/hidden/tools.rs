//! Theme: what a compiler reads beside its arguments (target descriptions, settings, variables),
//! and compilers that are not what they seem.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::direct::{Desk, With, first_error};
use kiln_tests::{Project, World, world};
use serde_json::Value;

/// What the smallest crate without any library needs.
const NO_CORE: &str = "#![feature(no_core, lang_items)]\n#![no_core]\n\
    #[lang = \"pointee_sized\"]\npub trait P {}\n#[lang = \"meta_sized\"]\npub trait M: P {}\n\
    #[lang = \"sized\"]\npub trait S: M {}\n";

/// The description of the usual target with another processor.
fn description(desk: &Desk, cpu: &str) -> String {
    desk.set("RUSTC_BOOTSTRAP", "1");
    let args = "-Zunstable-options --print target-spec-json --target x86_64-unknown-linux-gnu";
    let mut target: Value = serde_json::from_str(&desk.rustc(With::Nothing, args).stdout).unwrap();
    let fields = target.as_object_mut().unwrap();
    fields.remove("is-builtin");
    fields.insert("metadata".into(), serde_json::json!({}));
    fields.insert("cpu".into(), cpu.into());
    target.to_string()
}

/// Compiles a crate without libraries for a target; the first line of its code with some text.
fn code(desk: &Desk, with: With, args: &str, text: &str) -> String {
    desk.empty("out");
    let emit =
        "--crate-name m --crate-type lib --emit=dep-info,llvm-ir --out-dir out -Zunstable-options";
    if let Some(error) = first_error(&desk.call(with, &format!("{emit} {args} m.rs")).run()) {
        return error;
    }
    let code = String::from_utf8(desk.project.read("out/m.ll")).unwrap();
    code.lines()
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no {text} in {code}"))
        .into()
}

fn desk_without_core() -> Desk {
    let desk = Desk::new(world!());
    desk.write("m.rs", format!("{NO_CORE}#[no_mangle]\npub extern \"C\" fn f() {{}}\n"));
    desk
}

#[test]
fn a_target_description_found_by_a_variable() {
    let desk = desk_without_core();
    desk.write("targets/kt-linux.json", description(&desk, "x86-64"));
    desk.set("RUST_TARGET_PATH", &desk.text("targets"));
    let build = |with: With| code(&desk, with, "--target kt-linux", "target-cpu");
    desk.check(build, || desk.write("targets/kt-linux.json", description(&desk, "haswell")));
}

/// One that appears in a directory that is searched earlier.
#[test]
fn a_target_description_that_appears_earlier() {
    let desk = desk_without_core();
    desk.empty("early");
    desk.write("late/kt-linux.json", description(&desk, "x86-64"));
    desk.set("RUST_TARGET_PATH", &format!("{}:{}", desk.text("early"), desk.text("late")));
    let build = |with: With| code(&desk, with, "--target kt-linux", "target-cpu");
    desk.check(build, || desk.write("early/kt-linux.json", description(&desk, "haswell")));
}

#[test]
fn a_target_description_given_as_a_file() {
    let desk = desk_without_core();
    desk.write("kt.json", description(&desk, "x86-64"));
    let build = |with: With| code(&desk, with, "--target kt.json", "target-cpu");
    desk.check(build, || desk.write("kt.json", description(&desk, "haswell")));
}

#[test]
fn a_target_description_in_the_sysroot() {
    let desk = desk_without_core();
    let path = "sysroot/lib/rustlib/kt-sys/target.json";
    desk.empty("sysroot/lib/rustlib/kt-sys/lib");
    desk.write(path, description(&desk, "x86-64"));
    let args = format!("--target kt-sys --sysroot {}", desk.text("sysroot"));
    let build = |with: With| code(&desk, with, &args, "target-cpu");
    desk.check(build, || desk.write(path, description(&desk, "haswell")));
}

/// A library of the sysroot of a target that is described by a file.
#[test]
fn a_library_of_the_sysroot_of_a_described_target() {
    let desk = Desk::new(world!());
    let target = description(&desk, "x86-64");
    desk.write("kt.json", target);
    desk.write("m.rs", "#![feature(no_core)]\n#![no_core]\nextern crate ktcore;\n#[no_mangle]\npub fn f() -> u32 { ktcore::V }\n");
    let libraries = "sysroot/lib/rustlib/kt/lib";
    let library = |n: u32| {
        desk.empty(libraries);
        desk.write("ktcore.rs", format!("{NO_CORE}#[lang = \"copy\"]\npub trait C {{}}\nimpl C for u32 {{}}\npub const V: u32 = {n};\n"));
        let args = format!(
            "--crate-name ktcore --crate-type lib --target kt.json -Zunstable-options --out-dir {libraries} ktcore.rs"
        );
        desk.rustc(With::Nothing, &args);
    };
    library(1);
    let args = format!("--target kt.json --sysroot {}", desk.text("sysroot"));
    desk.check(|with| code(&desk, with, &args, "ret i32"), || library(2));
}

/// A file that only an unstable flag names.
#[test]
fn a_profile_of_samples() {
    let desk = Desk::new(world!());
    desk.set("RUSTC_BOOTSTRAP", "1");
    desk.write("m.rs", "#[no_mangle]\npub fn kt(x: u32) -> u32 { if x > 3 { 1 } else { 2 } }\n");
    let profile = |n: u32| desk.write("p.prof", format!("kt:{n}:{n}\n 0: {n}\n"));
    profile(100);
    let build =
        |with: With| code(&desk, with, "-O -g -Zprofile-sample-use=p.prof", "function_entry_count");
    desk.check(build, || profile(900));
}

/// clippy-driver's messages about a library.
fn clippy(desk: &Desk, with: With) -> String {
    desk.empty("out");
    let driver = desk.world.bin().join("clippy-driver");
    let (program, first) = match with {
        With::Kiln => {
            (desk.world.programs.kiln.clone(), vec![driver, desk.world.bin().join("rustc")])
        }
        With::Nothing => (driver, vec![desk.world.bin().join("rustc")]),
    };
    let args = [
        "--crate-name=l",
        "--crate-type=lib",
        "--edition=2021",
        "--emit=dep-info,metadata",
        "--out-dir=out",
        "l.rs",
    ];
    let call = desk.world.call(program, desk.project.dir(), &[]).args(&first).args(&args);
    let done = desk.dress(call).run();
    format!("{}\n{}", done.status, done.stderr)
}

fn clippy_desk() -> Desk {
    let desk = Desk::new(world!());
    let body = "if x.starts_with(\"ab\") { Some(&x[2..]) } else { None }";
    desk.write("l.rs", format!("pub fn f(x: &str) -> Option<&str> {{ {body} }}\n"));
    desk.set("CARGO_PRIMARY_PACKAGE", "1");
    desk.set("CARGO_MANIFEST_DIR", &desk.text(""));
    desk
}

#[test]
fn clippy_and_the_oldest_compiler_of_the_package() {
    let desk = clippy_desk();
    desk.set("CARGO_PKG_RUST_VERSION", "1.40");
    desk.check(|with| clippy(&desk, with), || desk.set("CARGO_PKG_RUST_VERSION", "1.80"));
}

#[test]
fn clippy_and_the_place_of_its_libraries() {
    let desk = clippy_desk();
    desk.same(|with| clippy(&desk, with));
    desk.set("SYSROOT", "/nonexistent");
    desk.same(|with| clippy(&desk, with));
}

#[test]
fn a_second_file_of_clippy_settings() {
    let desk = clippy_desk();
    desk.write(".clippy.toml", "");
    desk.check(|with| clippy(&desk, with), || desk.write("clippy.toml", ""));
}

#[test]
fn clippy_settings_that_change_and_come_and_go() {
    let desk = clippy_desk();
    desk.write("clippy.toml", "msrv = \"1.40\"\n");
    desk.check(|with| clippy(&desk, with), || desk.write("clippy.toml", "msrv = \"1.80\"\n"));
    desk.write("clippy.toml", "msrv = \"1.40\"\n");
    desk.check(
        |with| clippy(&desk, with),
        || {
            desk.project.remove("clippy.toml");
        },
    );
    desk.check(|with| clippy(&desk, with), || desk.write(".clippy.toml", "msrv = \"1.40\"\n"));
}

/// The oldest compiler is that of the workspace.
#[test]
fn clippy_and_the_oldest_compiler_of_the_workspace() {
    let world = world!();
    let project = world.project("ws");
    let version = |text: &str| {
        let head = "[workspace]\nmembers = [\"app\"]\nresolver = \"2\"\n[workspace.package]\nrust-version = ";
        project.write("Cargo.toml", format!("{head}\"{text}\"\n"));
    };
    project.write("app/Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2018\"\nrust-version.workspace = true\n");
    project.write("app/src/lib.rs", "pub fn f(x: &str) -> Option<&str> { if x.starts_with(\"ab\") { Some(&x[2..]) } else { None } }\n");
    let warns = || {
        project.wipe();
        world.cargo(&project, &["clippy", "-q"]).run().ok().stderr.contains("manual_strip")
    };
    version("1.40");
    assert!(!warns());
    version("1.80");
    assert!(warns());
    version("1.40");
    assert!(!warns());
}

/// rustc words its help for those who call it by cargo.
#[test]
fn the_wording_of_help() {
    let desk = Desk::new(world!());
    desk.write(
        "m.rs",
        "#[cfg(feature = \"x\")]\nfn g() {}\n#[cfg(featur = \"a\")]\nfn h() {}\nfn main() {}\n",
    );
    let build = |with: With| {
        desk.empty("out");
        let args = [
            "--crate-name=m",
            "--emit=dep-info,link",
            "--out-dir=out",
            "m.rs",
            "--check-cfg",
            "cfg(feature, values(\"a\"))",
        ];
        desk.call(with, "").args(&args).run().ok().stderr
    };
    let plain = desk.same(build);
    let mut differs = false;
    for (name, value) in [
        ("CARGO_CRATE_NAME", "m"),
        ("CARGO", "/x/cargo"),
        ("CARGO_PKG_NAME", "m"),
        ("CARGO_MANIFEST_DIR", "/x"),
    ] {
        desk.set(name, value);
        differs |= desk.same(build) != plain;
    }
    assert!(differs, "some variable has to show");
}

#[test]
fn the_producer_that_is_written_into_bitcode() {
    let desk = Desk::new(world!());
    desk.write("l.rs", "pub fn q() {}\n");
    let build = |with: With| {
        desk.empty("out");
        desk.rustc(
            with,
            "--crate-name l --crate-type lib --emit=dep-info,llvm-bc --out-dir out l.rs",
        );
        let bitcode = desk.project.read("out/l.bc");
        let has = |text: &str| bitcode.windows(text.len()).any(|w| w == text.as_bytes());
        format!("{} {}", has("kt-producer-one"), has("kt-producer-two"))
    };
    desk.set("LLVM_OVERRIDE_PRODUCER", "kt-producer-one");
    desk.check(build, || desk.set("LLVM_OVERRIDE_PRODUCER", "kt-producer-two"));
}

/// Messages that show code of another crate of the workspace.
#[test]
fn messages_that_point_into_another_crate() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "\n[dependencies]\ndep = { path = \"dep\" }\n\n[workspace]\n");
    project.write(
        "dep/Cargo.toml",
        "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    );
    project.write(
        "dep/src/lib.rs",
        "#[macro_export]\nmacro_rules! unused { () => { let mut x = 1; } }\n#[derive(Debug)]\npub struct S;\n\
         pub trait T { fn t(&self); }\n#[deprecated]\npub fn old() {}\npub fn takes(_: u8) {}\n",
    );
    for (main, builds) in [
        ("fn main() { dep::unused!(); dep::old(); }\n", true),
        (
            "fn main() { dep::takes(\"x\"); dep::S.clone(); struct Q; impl dep::T for Q {} }\n",
            false,
        ),
    ] {
        project.write("src/main.rs", main);
        let plain = messages(&project, &world, false, builds);
        assert_eq!(plain.contains("dep/src/lib.rs"), !builds, "{plain}");
        for _ in 0..2 {
            assert_eq!(messages(&project, &world, true, builds), plain);
        }
    }
}

fn messages(project: &Project, world: &World, kiln: bool, builds: bool) -> String {
    project.wipe();
    let call = match kiln {
        true => world.cargo(project, &["build", "-q"]),
        false => world.plain_cargo(project, &["build", "-q"]),
    };
    let done = call.run();
    assert_eq!(done.status.success(), builds, "{}", done.stderr);
    done.stderr
}

const ZZ: &str = "fn main() { print!(\"{}\", cfg!(zz)) }\n";

#[test]
fn a_compiler_behind_a_link() {
    let desk = Desk::new(world!());
    desk.write("m.rs", "fn main() { print!(\"ok\") }\n");
    let link = desk.project.at("rustc-link");
    std::os::unix::fs::symlink(kiln_tests::host::host().toolchain.join("rustc"), &link).unwrap();
    desk.set_compiler(link);
    for _ in 0..2 {
        assert_eq!(desk.same(|with| desk.program(with, "m.rs")), "ok");
    }
}

#[test]
fn a_compiler_that_is_a_script_and_reads_a_variable() {
    let desk = Desk::new(world!());
    let real = desk.world.bin().join("rustc");
    desk.write("m.rs", ZZ);
    desk.set_compiler(desk.script("rs", &format!("exec {} $KT_FLAGS \"$@\"", real.display())));
    desk.set("KT_FLAGS", "");
    desk.check(|with| desk.program(with, "m.rs"), || desk.set("KT_FLAGS", "--cfg zz"));
}

#[test]
fn a_compiler_that_is_a_script_and_reads_a_file() {
    let desk = Desk::new(world!());
    let real = desk.world.bin().join("rustc");
    desk.write("m.rs", ZZ);
    desk.write("flags", "");
    let script = format!("exec {} $(cat {}) \"$@\"", real.display(), desk.text("flags"));
    desk.set_compiler(desk.script("rs", &script));
    desk.check(|with| desk.program(with, "m.rs"), || desk.write("flags", "--cfg zz\n"));
}

#[test]
fn a_compiler_that_is_a_script_and_changes() {
    let desk = Desk::new(world!());
    let real = desk.world.bin().join("rustc");
    desk.write("m.rs", ZZ);
    desk.set_compiler(desk.script("rs", &format!("exec {} \"$@\"", real.display())));
    let change = || drop(desk.script("rs", &format!("exec {} --cfg zz \"$@\"", real.display())));
    desk.check(|with| desk.program(with, "m.rs"), change);
}
