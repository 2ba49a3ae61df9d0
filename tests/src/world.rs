//! [`World`]: one test's own place on the machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::call::{Call, Done};
use crate::host::{SYSTEM_PATH, host};
use crate::project::Project;
use crate::runs::{Log, Run};
use crate::server::Server;

/// The programs under test, and a directory that all test programs of a build share.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `kiln`.
    pub kiln: PathBuf,
    /// The stand-in for rustc.
    pub standin: PathBuf,
    /// For what is expensive to make, e.g. sources of the registry.
    pub shared: PathBuf,
}

/// Home, cargo home, state directory, stand-in compilers and projects of one test. Stops its server
/// and removes everything at the end.
#[derive(Debug)]
pub struct World {
    /// The programs.
    pub programs: Programs,
    root: TempDir,
}

impl World {
    /// An empty world.
    pub fn new(programs: Programs) -> Self {
        let root = tempfile::Builder::new().prefix("kt").rand_bytes(5).tempdir_in(&host().tmp);
        let world = Self { programs, root: root.expect("a temporary directory") };
        for dir in ["home", "cargo", "bin", "ws", "run"] {
            std::fs::create_dir(world.root().join(dir)).expect("a directory");
        }
        world.install_standins(&world.bin(), &host().toolchain);
        crate::memo::give(&world.programs.kiln, &world.kiln_dir());
        world
    }

    /// Puts stand-ins for the compilers of a toolchain into a directory.
    pub fn install_standins(&self, dir: &Path, toolchain: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        for name in ["rustc", "clippy-driver"] {
            std::fs::copy(&self.programs.standin, dir.join(name)).expect("a copy of the stand-in");
        }
        // cargo-clippy looks for clippy-driver beside itself, and for its libraries in `../lib`.
        let clippy = host().toolchain.join("cargo-clippy");
        std::fs::copy(clippy, dir.join("cargo-clippy")).expect("a copy of cargo-clippy");
        let libraries = host().toolchain.with_file_name("lib");
        std::os::unix::fs::symlink(libraries, dir.with_file_name("lib")).expect("a link");
        std::fs::write(dir.join("toolchain"), toolchain.as_os_str().as_encoded_bytes())
            .expect("a file");
    }

    /// The directory of everything.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path below the root.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Kiln's state directory; it knows the toolchain ([`crate::memo`]).
    pub fn kiln_dir(&self) -> PathBuf {
        self.at("k")
    }

    /// The directory of the stand-ins.
    pub fn bin(&self) -> PathBuf {
        self.at("bin")
    }

    /// Cargo's home.
    pub fn cargo_home(&self) -> PathBuf {
        self.at("cargo")
    }

    /// Where the places of compilers are: tests wait for none of one another.
    pub fn runtime_dir(&self) -> PathBuf {
        self.at("run")
    }

    /// The log of the stand-ins.
    pub fn log_path(&self) -> PathBuf {
        self.bin().join("runs.jsonl")
    }

    /// Runs of real compilers from a position of the log on.
    pub fn runs_since(&self, position: u64) -> Vec<Run> {
        Log::new(&self.log_path()).since(position)
    }

    /// An empty project.
    pub fn project(&self, name: &str) -> Project {
        Project::create(self.at("ws").join(name))
    }

    /// A call of any program in a directory, with the environment of this world.
    pub fn call(&self, program: impl AsRef<Path>, dir: &Path, args: &[&str]) -> Call {
        let path = format!("{}:{}:{SYSTEM_PATH}", self.bin().display(), host().toolchain.display());
        let set = |call: Call, name: &str, value: &Path| call.env(name, value.as_os_str());
        let mut call = Call::new(program.as_ref(), dir, args).log(self.log_path());
        for (name, value) in [
            ("HOME", self.at("home")),
            ("CARGO_HOME", self.cargo_home()),
            ("KILN_DIR", self.kiln_dir()),
            ("XDG_RUNTIME_DIR", self.runtime_dir()),
            ("RUSTC", self.bin().join("rustc")),
            ("RUSTC_WRAPPER", self.programs.kiln.clone()),
            ("PATH", path.into()),
        ] {
            call = set(call, name, &value);
        }
        for (name, value) in
            [("CARGO_INCREMENTAL", "0"), ("KILN_IDLE", "120"), ("CARGO_NET_OFFLINE", "true")]
        {
            call = call.env(name, value);
        }
        call
    }

    /// A call of cargo in a project.
    pub fn cargo(&self, project: &Project, args: &[&str]) -> Call {
        self.call(host().toolchain.join("cargo"), project.dir(), args)
    }

    /// A call of cargo without Kiln.
    pub fn plain_cargo(&self, project: &Project, args: &[&str]) -> Call {
        self.cargo(project, args).without("RUSTC_WRAPPER")
    }

    /// `kiln rustc ARGS…` in a project.
    pub fn rustc(&self, project: &Project, args: &[&str]) -> Call {
        let rustc = self.bin().join("rustc");
        let mut words = vec![rustc.to_str().expect("UTF-8")];
        words.extend(args);
        self.call(&self.programs.kiln, project.dir(), &words)
    }

    /// `kiln ARGS…`.
    pub fn kiln(&self, args: &[&str]) -> Call {
        self.call(&self.programs.kiln, self.root(), args)
    }

    /// `kiln stats --format json`.
    pub fn stats(&self) -> Value {
        let done = self.kiln(&["stats", "--format", "json"]).run().ok();
        serde_json::from_str(&done.stdout).expect("figures in JSON")
    }

    /// The server of this world, if it runs.
    pub fn server(&self) -> Option<Server> {
        Server::of(&self.kiln_dir())
    }

    /// Stops the server; nothing happens if there is none.
    pub fn stop_server(&self) {
        if self.kiln_dir().exists() {
            self.kiln(&["server", "stop"]).run();
        }
    }

    /// Asserts that nothing was compiled, and shows Kiln's reasons otherwise.
    #[track_caller]
    pub fn assert_all_hit(&self, done: &Done) {
        let compiled = done.compiled();
        assert!(
            compiled.is_empty(),
            "compiled: {compiled:#?}\nreasons: {:#}",
            self.stats()["missed"]
        );
    }

    /// Asserts which units were compiled, in any order.
    #[track_caller]
    pub fn assert_compiled(&self, done: &Done, want: &[&str]) {
        let mut want: Vec<String> = want.iter().map(ToString::to_string).collect();
        want.sort_unstable();
        assert_eq!(done.compiled(), want, "reasons: {:#}", self.stats()["missed"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server() {
            self.stop_server();
            server.kill_if_alive();
        }
        // Whatever a test made read-only must not stay behind.
        let _ = std::fs::set_permissions(self.root(), PermissionsExt::from_mode(0o755));
    }
}
