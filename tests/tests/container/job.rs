//! [`Job`]: a machine of CI that builds a program of two crates with cargo, and asks the server in the container.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_tests::{Project, World};
use serde_json::Value;

use crate::site::Site;

/// What is compiled of [`Job::build`] where nothing hits.
pub(crate) const ALL: [&str; 2] = ["app bin", "low lib"];
/// What is compiled where the program says something new.
pub(crate) const PROGRAM: [&str; 1] = ["app bin"];
/// Where all hits.
pub(crate) const NOTHING: [&str; 0] = [];

/// A machine with a home and a checkout of its own.
pub(crate) struct Job<'a> {
    site: &'a Site,
    /// Its number on the switch.
    machine: usize,
    world: World,
    project: Project,
    /// What names the server: for the wrapper, or for a server of the job's own between the two.
    setting: &'static str,
}

/// A [`Job`] on a machine of a site.
#[macro_export]
macro_rules! job {
    ($site:expr, $machine:expr) => {
        $crate::job::Job::new(&$site, $machine, kiln_tests::world!())
    };
}

impl<'a> Job<'a> {
    pub(crate) fn new(site: &'a Site, machine: usize, world: World) -> Self {
        let project = world.project("app");
        project.package("app", "[dependencies]\nlow = { path = \"low\" }\n");
        let low = Project::create(project.at("low"));
        low.package("low", "").write("src/lib.rs", "pub fn two() -> u32 { 2 }\n");
        Self { site, machine, world, project, setting: "KILN_SERVER" }
    }

    /// The same with a server of the job's own between.
    pub(crate) fn with_edge(self) -> Self {
        Self { setting: "KILN_UPSTREAM", ..self }
    }

    /// Builds the program that says this, in a fresh target directory, as what a token says besides that of a push to
    /// main. What was compiled.
    #[track_caller]
    pub(crate) fn build(&self, as_who: &Value, says: &str) -> Vec<String> {
        let main = format!("fn main() {{ println!(\"{says} {{}}\", low::two()); }}\n");
        self.project.wipe().write("src/main.rs", main);
        let call = self.world.cargo(&self.project, &["build", "--quiet"]);
        let call = call.env(self.setting, Site::url());
        let call = call.env("KILN_TOKEN", self.site.session(as_who.clone()));
        let done = self.site.machine(self.machine).call(call).run().ok();
        let program = self.project.at("target/debug/app");
        let said = self.world.call(program, self.world.root(), &[]).run().ok().stdout;
        assert_eq!(said, format!("{says} 2\n"));
        done.compiled()
    }

    /// Has what a server of its own made sent.
    pub(crate) fn ends(&self) {
        self.world.stop_server();
    }
}
