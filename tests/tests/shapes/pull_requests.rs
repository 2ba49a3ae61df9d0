//! Shape: jobs of pull requests take from the main branch what it has, and cannot write it. Whether there is something
//! between the wrapper and the shared server makes no difference.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln::client::Client;
use kiln_storage::Scope;
use kiln_storage::api::SessionResponse;
use kiln_tests::far::Shared;
use kiln_tests::job::address;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::{Job, Project, World, world};
use serde_json::{Value, json};

use crate::issuer::{Issuer, of_pull_request};
use crate::{WAYS, manifest};

/// Whom the tokens of jobs are made for.
const AUDIENCE: &str = "https://kiln.example";

/// What is compiled where nothing hits; the run of the build script is one unit more.
const ALL: [&str; 6] =
    ["app bin", "build_script_build bin", "low lib", "mac proc-macro", "mid lib", "side lib"];
/// What is compiled where [`CHANGED`] is new: the crate, and what depends on it.
const OF_THE_CHANGE: [&str; 3] = ["app bin", "low lib", "mid lib"];

/// The library `low` at a commit of the main branch, and in the pull request.
const COMMITTED: &str = "pub fn n() -> i32 { 44 }\n";
const CHANGED: &str = "pub fn n() -> i32 { 40 + 4 }\n";

/// A shared server with rules, who signs the tokens of jobs, and how jobs get there.
struct Site {
    shared: Shared,
    issuer: Issuer,
    way: &'static str,
}

/// What a job did.
#[derive(Debug, PartialEq, Eq)]
struct Did {
    /// What the real compiler was started for.
    compiled: Vec<String>,
    /// Units that were no hit, runs of build scripts among them.
    missed: usize,
}

impl Did {
    fn nothing() -> Self {
        Self { compiled: Vec::new(), missed: 0 }
    }

    fn only(compiled: &[&str]) -> Self {
        Self {
            compiled: compiled.iter().map(ToString::to_string).collect(),
            missed: compiled.len(),
        }
    }
}

impl Site {
    fn start(way: &'static str) -> Self {
        let issuer = Issuer::start();
        let rules = json!({"audience": AUDIENCE, "issuers": [{"url": issuer.url()}],
            "repositories": [{"id": "1234", "issuer": issuer.url(), "default_branch": "main"}]});
        let shared = Shared::start_with(|config| {
            let file = config.kiln_dir.with_file_name("trust.json");
            std::fs::write(&file, rules.to_string()).unwrap();
            config.trust = Some(file);
        });
        Self { shared, issuer, way }
    }

    /// A job on a fresh machine, as what its token says besides that of a push to main: it builds the workspace with
    /// this source of `low`.
    fn job(&self, as_who: &Value, low: &str) -> Did {
        let world = world!();
        let project = checkout(&world, low);
        let url = format!("http://{}", self.shared.address());
        let job = Job::new(world, project).with(self.way, url);
        let job = job.with("KILN_TOKEN", self.session(as_who));
        let done = build_all_kinds(&job.world, &job.project, job.cargo(&["build"]));
        // A server of its own sends what was made.
        job.world.stop_server();
        Did { compiled: done.compiled(), missed: job.missed().len() }
    }

    /// What a job is known by.
    fn session(&self, as_who: &Value) -> String {
        let token = self.issuer.token(AUDIENCE, as_who.clone());
        let mut client = Client::connect(&address(&self.shared)).unwrap();
        let session = client.json::<_, SessionResponse>(
            "POST",
            "/v1/session",
            &json!({"token": token}),
            Duration::from_secs(10),
        );
        session.unwrap().token
    }

    /// The stored records of a ref.
    fn records(&self, reference: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        self.shared.records(&Scope::new(format!("{}:1234", self.issuer.address), reference))
    }
}

/// A checkout with a chain of crates, one beside it, a build script and a procedural macro.
fn checkout(world: &World, low: &str) -> Project {
    let project = of_all_kinds(world, "app");
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\nmid = { path = \"mid\" }\nside = { path = \"side\" }\n\n\
         [workspace]\n",
    );
    project.write(
        "src/main.rs",
        "fn main() {\n    let made: i32 = include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\"));\n    \
         println!(\"{} {} {}\", made, mac::answer!(), mid::n() + side::n());\n}\n",
    );
    project
        .write("mid/Cargo.toml", manifest("mid", "[dependencies]\nlow = { path = \"../low\" }\n"));
    project.write("mid/src/lib.rs", "pub fn n() -> i32 { low::n() }\n");
    project.write(
        "side/Cargo.toml",
        manifest("side", "[dependencies]\nmac = { path = \"../mac\" }\n"),
    );
    project.write("side/src/lib.rs", "pub fn n() -> i32 { mac::answer!() - 43 }\n");
    project.write("low/src/lib.rs", low);
    project
}

#[test]
fn a_pull_request_reuses_main_and_cannot_write_it() {
    reuses_main(WAYS[0]);
}

#[test]
fn a_pull_request_reuses_main_by_a_server_of_its_own() {
    reuses_main(WAYS[1]);
}

#[track_caller]
fn reuses_main(way: &'static str) {
    let site = Site::start(way);
    let (main, request) = (json!({}), of_pull_request(7, "main"));
    let (of_main, of_request) = ("refs/heads/main", "refs/pull/7/merge");
    let all = Did { missed: ALL.len() + 1, ..Did::only(&ALL) };
    assert_eq!(site.job(&main, COMMITTED), all);
    let stored = site.records(of_main);
    assert_eq!(stored.len(), ALL.len() + 1);

    // The commit of main: nothing is compiled, and nothing stored.
    assert_eq!(site.job(&request, COMMITTED), Did::nothing());
    assert_eq!(site.records(of_request).len(), 0);
    // The change: what depends on it, which goes where the request may write.
    assert_eq!(site.job(&request, CHANGED), Did::only(&OF_THE_CHANGE));
    let made = site.records(of_request);
    assert_eq!(made.len(), OF_THE_CHANGE.len());
    // The same commit once more.
    assert_eq!(site.job(&request, CHANGED), Did::nothing());
    assert_eq!(site.records(of_request), made);

    // Main is as it was, and makes the change itself when it comes there.
    assert_eq!(site.records(of_main), stored);
    assert_eq!(site.job(&main, CHANGED), Did::only(&OF_THE_CHANGE));
    let mut of_both = site.records(of_main);
    assert_eq!(of_both.len(), stored.len() + OF_THE_CHANGE.len());
    of_both.retain(|name, _| stored.contains_key(name));
    assert_eq!(of_both, stored);
    assert_eq!(site.records(of_request), made);
}
