//! What the tests of this theme share: machines of jobs that are all their own but for the server.

use std::ops::Deref;

use kiln_tests::far::Shared;
pub(crate) use kiln_tests::job::{address, compiles, leases, until_they_wait};
use kiln_tests::{Call, Job, Project, Running, World};

/// Crates that do not know of each other.
pub(crate) const LIBRARIES: [&str; 6] = ["aa", "bb", "cc", "dd", "ee", "ff"];

/// One machine.
pub(crate) struct Machine {
    job: Job,
    server: String,
    /// The setting that names the server: for the wrapper, or for an edge between the two.
    setting: &'static str,
}

/// A machine that shares a server with others.
#[macro_export]
macro_rules! machine {
    ($shared:expr) => {
        $crate::machines::Machine::new(kiln_tests::world!(), $shared)
    };
}

impl Deref for Machine {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Machine {
    pub(crate) fn new(world: World, shared: &Shared) -> Self {
        let project = project(&world);
        let server = format!("http://{}", shared.address());
        Self { job: Job::new(world, project), server, setting: "KILN_SERVER" }
    }

    /// The same machine with a local server of its own between.
    pub(crate) fn with_edge(self) -> Self {
        Self { setting: "KILN_UPSTREAM", ..self }
    }

    /// The same machine, whose way to the server leads over another address.
    pub(crate) fn over(self, address: std::net::SocketAddr) -> Self {
        Self { server: format!("http://{address}"), ..self }
    }

    /// The shared server.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Starts `cargo build` with so many jobs.
    pub(crate) fn build(&self, jobs: usize) -> Running {
        self.call(jobs, &[]).spawn()
    }

    /// Starts the build of one of the crates.
    pub(crate) fn build_one(&self, krate: &str) -> Running {
        self.call(1, &[]).args(&["-p", krate]).spawn()
    }

    /// Starts `cargo build` with variables.
    pub(crate) fn build_with(&self, jobs: usize, variables: &[(&str, &str)]) -> Running {
        self.call(jobs, variables).spawn()
    }

    /// The call of `cargo build` with so many jobs and with variables.
    pub(crate) fn call(&self, jobs: usize, variables: &[(&str, &str)]) -> Call {
        let call = self.job.cargo(&["build"]).args(&[format!("-j{jobs}")]);
        call.env(self.setting, &self.server).envs(variables)
    }

    /// The outcome and reason of a crate's library.
    pub(crate) fn outcome(&self, krate: &str) -> (String, String) {
        self.job.outcome_of(&format!("{krate} lib"))
    }

    /// What the program says.
    pub(crate) fn says(&self) -> String {
        self.job.says("debug/app")
    }
}

/// A program over crates that do not know of each other.
fn project(world: &World) -> Project {
    let project = world.project("app");
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
    };
    let dependencies = LIBRARIES.map(|name| format!("{name} = {{ path = \"{name}\" }}\n")).concat();
    project.write(
        "Cargo.toml",
        package("app", &format!("[dependencies]\n{dependencies}[workspace]\n")),
    );
    let sum = LIBRARIES.map(|name| format!("{name}::n()")).join(" + ");
    project.write("src/main.rs", format!("fn main() {{ println!(\"{{}}\", {sum}); }}\n"));
    for (n, name) in LIBRARIES.iter().enumerate() {
        project.write(&format!("{name}/Cargo.toml"), package(name, ""));
        project.write(&format!("{name}/src/lib.rs"), format!("pub fn n() -> usize {{ {n} }}\n"));
    }
    project
}

/// The program over the crates says this.
pub(crate) const SUM: &str = "15\n";
