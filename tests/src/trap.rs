//! [`Place`]: a workspace whose program shows what a procedural macro found, and `check`: the macro's
//! answer must follow what it reads, with Kiln as without.
//!
//! The macro is made anew for each trap, so that one trap's code says nothing about another's. Its
//! code gives a `String`; for that it has `at` (a path in the package), `beside` (in the workspace) and
//! `outside` (elsewhere), `read`, and the names in [`crate::trap::PRELUDE`].

use std::path::{Path, PathBuf};

use crate::direct::{Desk, With};
use crate::project::Project;
use crate::world::World;

/// How Kiln finds out what a macro reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `KILN_OBSERVE=on`.
    Observed,
    /// `KILN_OBSERVE=off`: the workspace and cargo's variables stand for what is read.
    Conservative,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored: the same again is a hit.
    Yes,
    /// It may be left out.
    Perhaps,
}

/// What every macro starts with. Functions that a macro does not use are not in it.
pub const PRELUDE: &str = r#"
#![allow(dead_code, unused_imports)]
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use proc_macro::TokenStream;
fn at(path: &str) -> PathBuf { Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path) }
fn beside(path: &str) -> PathBuf { at("..").join(path) }
fn outside(path: &str) -> PathBuf { Path::new("@OUTSIDE@").join(path) }
fn read(path: impl AsRef<Path>) -> String { fs::read_to_string(path).unwrap() }
fn c(path: PathBuf) -> std::ffi::CString { std::ffi::CString::new(path.to_str().unwrap()).unwrap() }
"#;

/// The procedural macros that most traps use.
const MACROS: &str = r##"
#[proc_macro]
pub fn show(_: TokenStream) -> TokenStream {
    format!("{:?}", value()).parse().unwrap()
}
#[proc_macro]
pub fn warn(_: TokenStream) -> TokenStream {
    format!("#[deprecated(note = {:?})] fn old() {{}} pub fn new() {{ old() }}", value()).parse().unwrap()
}
#[proc_macro_derive(Show)]
pub fn derive(_: TokenStream) -> TokenStream {
    format!("impl Show {{ pub const SHOWN: &'static str = {:?}; }}", value()).parse().unwrap()
}
#[proc_macro_attribute]
pub fn shown(_: TokenStream, _: TokenStream) -> TokenStream {
    format!("const SHOWN: &str = {:?};", value()).parse().unwrap()
}
"##;

/// A program that prints what `show!` gives.
pub const SHOW: &str = "fn main() { print!(\"{}\", pm::show!()) }\n";

/// A workspace `ws` with the package `pk`; everything else beside it.
#[derive(Debug)]
pub struct Place {
    /// Where it is.
    pub desk: Desk,
    more: Vec<String>,
}

impl Place {
    /// A workspace whose program is this, and a macro whose value is this code.
    pub fn new(world: World, way: Way, code: &str, program: &str) -> Self {
        Self::with_items(world, way, &format!("fn value() -> String {{ {code} }}"), program)
    }

    /// The same for a macro of several items, `fn value() -> String` among them.
    pub fn with_items(world: World, way: Way, items: &str, program: &str) -> Self {
        let place = Self { desk: Desk::new(world), more: Vec::new() };
        if way == Way::Conservative {
            place.set("KILN_OBSERVE", "off");
        }
        place.set("CARGO_MANIFEST_DIR", &place.desk.text("ws/pk"));
        place.desk.empty("outside");
        place.write("ws/pk/src/main.rs", program);
        place.make_macro("", items);
        place
    }

    /// Compiles the macro, without Kiln.
    pub fn make_macro(&self, args: &str, items: &str) {
        let prelude = PRELUDE.replace("@OUTSIDE@", &self.desk.text("outside"));
        self.write("pm.rs", format!("{prelude}{MACROS}{items}\n"));
        let args = format!(
            "--crate-name pm --crate-type proc-macro --edition=2021 --extern proc_macro --out-dir pm {args} pm.rs"
        );
        self.desk.rustc(With::Nothing, &args);
    }

    /// More arguments for the compiler of the program.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.more.extend(args.iter().map(ToString::to_string));
        self
    }

    /// The directory of everything.
    pub fn project(&self) -> &Project {
        &self.desk.project
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.project().at(path)
    }

    /// Writes a file, in place of whatever is there.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.remove(path);
        self.desk.write(path, content);
    }

    /// Removes whatever is there.
    pub fn remove(&self, path: &str) {
        let at = self.at(path);
        match at.is_symlink() {
            true => std::fs::remove_file(at).expect("a link goes"),
            false => drop(self.project().remove(path)),
        }
    }

    /// A symbolic link, in place of whatever is there.
    pub fn link(&self, path: &str, target: &str) {
        self.remove(path);
        std::fs::create_dir_all(self.at(path).parent().expect("a parent")).expect("a directory");
        std::os::unix::fs::symlink(target, self.at(path)).expect("a link");
    }

    /// An empty directory, in place of whatever is there.
    pub fn dir(&self, path: &str) {
        self.desk.empty(path);
    }

    /// Sets a variable.
    pub fn set(&self, name: &str, value: &str) {
        self.desk.set(name, value);
    }

    /// Takes a variable out.
    pub fn unset(&self, name: &str) {
        self.desk.unset(name);
    }

    /// Builds the program from nothing: what it prints, or what the compiler says; and whether a
    /// compiler ran.
    pub fn build(&self, with: With) -> (String, bool) {
        self.build_in(with, &self.at("ws"), Path::new("pk/src/main.rs"))
    }

    /// The same in another workspace, whose source may be named by its whole path.
    pub fn build_in(&self, with: With, workspace: &Path, source: &Path) -> (String, bool) {
        self.dir("out");
        let out = self.at("out");
        let out = out.to_str().expect("UTF-8");
        let call = self.desk.call(with, "--crate-name m --edition=2021");
        let call = match self.more.iter().any(|arg| arg.starts_with("--emit")) {
            true => call,
            false => call.args(&["--emit=dep-info,link"]),
        };
        let macros = format!("pm={}", self.desk.text("pm/libpm.so"));
        let call = call.args(&["--out-dir", out, "--extern", &macros]).args(&self.more);
        let call = call.args(&[source]).env("CARGO_MANIFEST_DIR", workspace.join("pk"));
        let done = call.dir(workspace).run();
        let ran = !done.compiled().is_empty();
        let program = Path::new(out).join("m");
        match done.status.success() && program.exists() {
            true => (done.stderr + &self.desk.prints("out/m"), ran),
            false => (format!("{} {}", done.status, done.stderr), ran),
        }
    }

    /// What a build in another workspace shows with Kiln; it must be what one without shows.
    #[track_caller]
    pub fn same_in(&self, workspace: &Path, source: &Path) -> String {
        let (kiln, _) = self.build_in(With::Kiln, workspace, source);
        let (plain, _) = self.build_in(With::Nothing, workspace, source);
        assert_eq!(kiln, plain, "with Kiln and without in {}", workspace.display());
        plain
    }

    /// What a build with Kiln shows; it must be what one without shows.
    #[track_caller]
    pub fn same(&self, what: &str) -> String {
        self.same_from(what, |_| {})
    }

    #[track_caller]
    fn same_from(&self, what: &str, prepare: impl Fn(&Self)) -> String {
        prepare(self);
        let (kiln, _) = self.build(With::Kiln);
        prepare(self);
        let (plain, _) = self.build(With::Nothing);
        assert_eq!(kiln, plain, "{what}: with Kiln and without; {}", self.reasons());
        plain
    }

    /// Why units were compiled.
    pub fn reasons(&self) -> String {
        format!("reasons: {:#}", self.desk.world.stats()["missed"])
    }

    /// Builds with Kiln, which must show this without a compiler.
    #[track_caller]
    pub fn hits(&self, want: &str) {
        let (shown, ran) = self.build(With::Kiln);
        assert_eq!(shown, want, "the same again");
        assert!(!ran, "the same again is compiled; {}", self.reasons());
    }

    /// The workspace with nothing in it but the program, and nothing outside.
    fn reset(&self) {
        let program = self.project().read("ws/pk/src/main.rs");
        self.dir("ws");
        self.dir("outside");
        self.write("ws/pk/src/main.rs", program);
    }

    /// Goes from one state to another and back, each made from nothing before each build: a macro may
    /// write. Each must show what it shows without Kiln.
    #[track_caller]
    pub fn check(&self, stored: Stored, a: impl Fn(&Self), b: impl Fn(&Self)) {
        let fresh = |state: &dyn Fn(&Self)| {
            self.reset();
            state(self);
        };
        let first = self.same_from("before", |_| fresh(&a));
        // A second time, when it may be known already.
        fresh(&a);
        match stored {
            Stored::Yes => self.hits(&first),
            Stored::Perhaps => assert_eq!(self.build(With::Kiln).0, first, "the same again"),
        }
        let second = self.same_from("changed", |_| fresh(&b));
        assert_ne!(first, second, "the change has to show");
        fresh(&a);
        match stored {
            Stored::Yes => self.hits(&first),
            Stored::Perhaps => assert_eq!(self.build(With::Kiln).0, first, "changed back"),
        }
    }
}

/// A table of traps: name, the ways it is tried, whether the result has to be stored, the macro's
/// code, the state before, the state after.
#[macro_export]
macro_rules! traps {
    ($($(#[$doc:meta])* $name:ident: $ways:ident $stored:ident $code:expr, $a:expr, $b:expr;)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every trap needs all")]
            use super::*;
            fn check(way: $crate::trap::Way) {
                let place = $crate::trap::Place::new(
                    $crate::world!(), way, $code, $crate::trap::SHOW);
                let a: fn(&$crate::trap::Place) = $a;
                let b: fn(&$crate::trap::Place) = $b;
                place.check($crate::trap::Stored::$stored, a, b);
            }
            $crate::traps! { @ways $ways }
        }
    )*};
    (@ways both) => {
        #[test]
        fn conservative() {
            check($crate::trap::Way::Conservative);
        }
        $crate::traps! { @ways observed }
    };
    (@ways observed) => {
        #[test]
        fn observed() {
            check($crate::trap::Way::Observed);
        }
    };
}
