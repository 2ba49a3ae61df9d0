//! [`Native`]: a program that is linked with C libraries which build scripts of published packages compile.

use std::path::{Path, PathBuf};

use crate::call::Call;
use crate::left::Tally;
use crate::project::{Project, files_below};
use crate::registry;
use crate::tools::Tools;
use crate::world::World;

/// Calls a function of each C library.
const MAIN: &str = r#"
use std::ffi::CStr;
fn main() {
    let (mut a, mut b, mut c) = (0, 0, 0);
    let (sqlite, onig) = unsafe {
        libgit2_sys::git_libgit2_version(&mut a, &mut b, &mut c);
        (CStr::from_ptr(libsqlite3_sys::sqlite3_libversion()), CStr::from_ptr(onig_sys::onig_version()))
    };
    println!("sqlite {}", sqlite.to_str().unwrap());
    println!("zstd {}", unsafe { zstd_sys::ZSTD_versionNumber() });
    println!("git {a}.{b}.{c}");
    println!("onig {}", onig.to_str().unwrap());
    println!("sha {:?}", ring::digest::digest(&ring::digest::SHA256, b"kiln"));
    println!("crc {}", crc32fast::hash(b"kiln"));
}
"#;

/// The packages of it that compile C.
pub const COMPILING: &[&str] = &["libgit2-sys", "libsqlite3-sys", "onig_sys", "ring", "zstd-sys"];

/// A workspace with such a program.
#[derive(Debug)]
pub struct Native {
    /// Where it is built first.
    pub project: Project,
    /// Stand-ins for the tools, first in `PATH`.
    pub tools: Tools,
    /// The runs of all build scripts, by package.
    pub tally: Tally,
}

impl Native {
    /// Provides the sources to the world, every build script among them made to note its runs.
    ///
    /// # Errors
    /// Why the sources cannot be had.
    pub fn open(world: &World) -> Result<Self, String> {
        let fetched = registry::native(world).as_ref().map_err(Clone::clone)?;
        world.provide_sources(fetched);
        let (tools, tally) = (Tools::install(world), Tally::new(world));
        let noting = note_runs(&world.cargo_home().join("registry/src"), &tally);
        assert!(noting > COMPILING.len(), "{noting} build scripts");
        let project = fetched.copy_to(world.at("ws/one"));
        project.remove("fetched").remove("src/lib.rs").write("src/main.rs", MAIN);
        Ok(Self { project, tools, tally })
    }

    /// A call of cargo in a checkout of it.
    pub fn cargo(&self, world: &World, project: &Project, args: &[&str]) -> Call {
        world.cargo(project, args).path_first(self.tools.dir())
    }

    /// What the program prints.
    pub fn prints(&self, world: &World, project: &Project, profile: &str) -> String {
        let program = project.at(&format!("target/{profile}/native"));
        world.call(program, project.dir(), &[]).run().ok().stdout
    }
}

/// Makes every build script below a directory note its runs; how many those are.
fn note_runs(sources: &Path, tally: &Tally) -> usize {
    let of_script = |file: &PathBuf| {
        let depth = file.components().count();
        // `INDEX/PACKAGE/build.rs`, `INDEX/PACKAGE/build/main.rs`
        depth == 3 && file.ends_with("build.rs") || depth == 4 && file.ends_with("build/main.rs")
    };
    let mut count = 0;
    for file in files_below(sources).into_iter().filter(of_script) {
        let path = sources.join(file);
        let text = std::fs::read_to_string(&path).expect("a build script");
        let Some(at) = text.find("fn main()").and_then(|at| Some(at + text[at..].find('{')? + 1))
        else {
            continue;
        };
        let note = format!(
            " {{ use std::io::Write as _; \
             std::fs::OpenOptions::new().create(true).append(true).open({:?}).unwrap()\
             .write_all(concat!(env!(\"CARGO_PKG_NAME\"), \"\\n\").as_bytes()).unwrap(); }} ",
            tally.path()
        );
        std::fs::write(&path, format!("{}{note}{}", &text[..at], &text[at..])).expect("a file");
        count += 1;
    }
    count
}
