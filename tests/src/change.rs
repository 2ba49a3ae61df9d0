//! [`Change`]: the test that most caches fail one day. Something that a compile reads changes from
//! A to B and back: B must show B's behaviour, and A must come back without a compile.

use std::path::PathBuf;

use crate::call::{Call, Done};
use crate::project::Project;
use crate::world::World;

/// What a build of one state must show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// The program prints this.
    Prints(String),
    /// The build fails, and its standard error holds this.
    Fails(String),
    /// Standard error of the build holds this.
    Warns(String),
    /// Standard error of the build is silent about this.
    Silent(String),
    /// The build succeeds.
    Builds,
}

/// One state of the world.
#[derive(Debug, Clone)]
pub struct State {
    want: Want,
    files: Vec<(String, Option<Vec<u8>>)>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    path_first: Option<PathBuf>,
}

impl State {
    fn new(want: Want) -> Self {
        Self { want, files: Vec::new(), env: Vec::new(), args: Vec::new(), path_first: None }
    }

    /// A state in which the built program prints this line.
    pub fn prints(line: &str) -> Self {
        Self::new(Want::Prints(format!("{line}\n")))
    }

    /// A state in which the build fails and says this.
    pub fn fails(text: &str) -> Self {
        Self::new(Want::Fails(text.into()))
    }

    /// A state in which the build succeeds and says this.
    pub fn warns(text: &str) -> Self {
        Self::new(Want::Warns(text.into()))
    }

    /// A state in which the build succeeds and does not say this.
    pub fn is_silent_about(text: &str) -> Self {
        Self::new(Want::Silent(text.into()))
    }

    /// A state in which the build succeeds.
    pub fn builds() -> Self {
        Self::new(Want::Builds)
    }

    /// A file of the project with this content.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.into(), Some(content.as_ref().to_owned())));
        self
    }

    /// A file or directory that is not there.
    pub fn absent(mut self, path: &str) -> Self {
        self.files.push((path.into(), None));
        self
    }

    /// A variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// An argument of cargo or rustc.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A directory at the front of `PATH`.
    pub fn path_first(mut self, dir: PathBuf) -> Self {
        self.path_first = Some(dir);
        self
    }

    fn apply(&self, project: &Project) {
        for (path, content) in &self.files {
            match content {
                Some(content) => project.write(path, content),
                None => project.remove(path),
            };
        }
    }
}

/// How a state is built.
#[derive(Debug, Clone)]
enum Build {
    /// By cargo, from an empty target directory.
    Cargo(Vec<String>),
    /// By one call of rustc into an empty directory.
    Rustc(Vec<String>),
}

/// A change and what it is tried on.
#[derive(Debug)]
pub struct Change<'w> {
    world: &'w World,
    project: &'w Project,
    build: Build,
    program: &'static str,
    watched: Vec<&'static str>,
    comes_back: bool,
}

impl<'w> Change<'w> {
    /// A change of a package, built by `cargo build`.
    pub fn cargo(world: &'w World, project: &'w Project) -> Self {
        Self::new(world, project, Build::Cargo(vec!["build".into()]), "target/debug/app")
    }

    /// A change of a package, built by another command of cargo.
    pub fn cargo_with(world: &'w World, project: &'w Project, args: &[&str]) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        Self::new(world, project, Build::Cargo(args), "target/debug/app")
    }

    /// A change of `main.rs`, compiled as crate `app` by `kiln rustc` with more arguments.
    pub fn rustc(world: &'w World, project: &'w Project, args: &[&str]) -> Self {
        let base = ["--crate-name", "app", "--emit=dep-info,link", "--out-dir", "target"];
        let args =
            base.iter().chain(args).map(ToString::to_string).chain(["main.rs".into()]).collect();
        Self::new(world, project, Build::Rustc(args), "target/app")
    }

    fn new(world: &'w World, project: &'w Project, build: Build, program: &'static str) -> Self {
        Self { world, project, build, program, watched: vec!["app"], comes_back: true }
    }

    /// Crates that B must compile; `app` otherwise.
    pub fn watch(mut self, crates: &[&'static str]) -> Self {
        crates.clone_into(&mut self.watched);
        self
    }

    /// The program that is run, relative to the project.
    pub fn program(mut self, path: &'static str) -> Self {
        self.program = path;
        self
    }

    /// Does not expect that A comes back as a hit, e.g. since A fails.
    pub fn without_return(mut self) -> Self {
        self.comes_back = false;
        self
    }

    fn call(&self, state: &State) -> Call {
        let words = |args: &'_ [String]| -> Vec<String> { args.to_vec() };
        let call = match &self.build {
            Build::Cargo(args) => self.world.cargo(self.project, &[]).args(&words(args)),
            Build::Rustc(args) => {
                let call = self.world.rustc(self.project, &[]).args(&words(args));
                match state.args.iter().any(|a| a.starts_with("--edition")) {
                    true => call,
                    false => call.args(&["--edition=2021"]),
                }
            }
        };
        let call = call.args(&state.args);
        let call = state.env.iter().fold(call, |call, (name, value)| call.env(name, value));
        match &state.path_first {
            Some(dir) => call.path_first(dir),
            None => call,
        }
    }

    /// Builds a state from nothing and checks what it shows.
    #[track_caller]
    pub fn build(&self, state: &State) -> Done {
        self.project.wipe();
        if matches!(self.build, Build::Rustc(_)) {
            // rustc makes the directory of its outputs only after it wrote dep-info there.
            std::fs::create_dir(self.project.at("target")).expect("a directory");
        }
        state.apply(self.project);
        let done = self.call(state).run();
        match &state.want {
            Want::Fails(text) => {
                let done = done.fails();
                assert!(done.stderr.contains(text), "no {text:?} in\n{}", done.stderr);
                return done;
            }
            Want::Prints(line) => {
                let done = done.ok();
                let program =
                    self.world.call(self.project.at(self.program), self.project.dir(), &[]);
                assert_eq!(&program.run().ok().stdout, line, "what the program prints");
                return done;
            }
            Want::Warns(text) => {
                assert!(done.stderr.contains(text), "no {text:?} in\n{}", done.stderr)
            }
            Want::Silent(text) => {
                assert!(!done.stderr.contains(text), "{text:?} in\n{}", done.stderr)
            }
            Want::Builds => {}
        }
        done.ok()
    }

    /// Builds A, B and A again.
    #[track_caller]
    pub fn check(&self, a: &State, b: &State) {
        let done = self.build(a);
        for name in &self.watched {
            assert!(done.did_compile(name), "{name} has to be new to this world");
        }
        let done = self.build(b);
        for name in &self.watched {
            assert!(done.did_compile(name), "{name} was not compiled for B");
        }
        let done = self.build(a);
        if self.comes_back {
            self.world.assert_all_hit(&done);
        }
    }
}
