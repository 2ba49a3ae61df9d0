//! Shape: wheels of a PyO3 extension for five versions of CPython, as cibuildwheel has them built: a job for each, in a
//! container of its own with another place and another user than those of the host, all at the same time before a server
//! of the host. No Python is needed, as a file says of each version what PyO3 wants to know.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_tests::container::{Root, possible};
use kiln_tests::far::Shared;
use kiln_tests::job::Became;
use kiln_tests::made::{Made, assert_same, made};
use kiln_tests::{Call, Done, Job, Project, Run, Running, World, registry, skip, world};
use serde_json::Value;

use crate::manifest;

/// The versions.
const VERSIONS: [&str; 5] = ["3.10", "3.11", "3.12", "3.13", "3.14"];
/// What depends on the version: crates, and runs of build scripts.
const OF_A_VERSION: [&str; 5] = [
    "pyo3 build-script run",
    "pyo3 lib",
    "pyo3-ffi build-script run",
    "pyo3_ffi lib",
    "satkit cdylib",
];
/// A hit rate that is asked for when all was built before, percent.
const ENOUGH: f64 = 94.0;
/// Outcomes of a unit that was not made again.
const HITS: [&str; 3] = ["hit-local", "hit-remote", "joined"];

/// Whose containers they are, and where home and sources are in them.
#[derive(Debug, Clone, Copy)]
struct Place {
    user: u32,
    home: &'static str,
    project: &'static str,
}

/// As cibuildwheel has it, but for the user.
const USUAL: Place = Place { user: 4321, home: "/home/builder", project: "/project" };
/// Nothing lies where it does in the usual one.
const OTHER: Place = Place { user: 4322, home: "/srv/ci", project: "/srv/ci/ws/satkit" };

/// The name of a version in tags of wheels.
fn tag(version: &str) -> String {
    format!("cp{}", version.replace('.', ""))
}

/// Where a container has the file for a version.
fn config_file(version: &str) -> String {
    format!("/opt/python/{0}-{0}/pyo3.txt", tag(version))
}

/// The sources of the extension.
fn sources(world: &World) -> Project {
    let project = world.project("satkit");
    let dependencies: String =
        registry::PYTHON.iter().map(|(name, spec)| format!("{name} = {spec}\n")).collect();
    let more = format!(
        "[lib]\ncrate-type = [\"cdylib\"]\n\n[profile.dev]\ndebug = false\n\n[dependencies]\n{dependencies}\n\
         [workspace]\n"
    );
    project.write("Cargo.toml", manifest("satkit", &more));
    project.write(
        "src/lib.rs",
        "use num_complex::Complex;\nuse pyo3::prelude::*;\n\n/// The length of a position.\n#[pyfunction]\n\
         fn length(x: f64, y: f64) -> f64 {\n    Complex::new(x, y).norm()\n}\n\n#[pymodule]\n\
         fn satkit(module: &Bound<'_, PyModule>) -> PyResult<()> {\n    \
         module.add_function(wrap_pyfunction!(length, module)?)\n}\n",
    );
    project
}

/// The container of one job, on a machine that has nothing.
struct Container {
    job: Job,
    root: Root,
    place: Place,
}

impl Container {
    /// With what cargo has fetched, which all containers share.
    fn new(registry: &Path, place: Place) -> Self {
        let world = world!();
        let project = sources(&world);
        let root = Root::new(&world, place.user, place.home).with(project.dir(), place.project);
        std::fs::create_dir(world.cargo_home().join("registry")).unwrap();
        let root = root.with(registry, &format!("{}/cargo/registry", place.home));
        for version in VERSIONS {
            let says = format!(
                "implementation=CPython\nversion={version}\nshared=true\npointer_width=64\n"
            );
            root.write(&config_file(version), &says);
        }
        Self { job: Job::new(world, project), root, place }
    }

    /// A call of a script in the sources, for a version.
    fn call(&self, version: &str, script: &str) -> Call {
        let contain = env!("CARGO_BIN_EXE_contain");
        let call = self.root.shell(contain, &self.job.world, (self.place.project, script));
        let notes = format!("{}/notes.jsonl", self.place.home);
        let config = config_file(version);
        call.env("PYO3_CONFIG_FILE", config).env("KILN_REPORT_FILE", notes)
    }

    /// Builds in a run, before the server of the host. One compiler at a time: those of five machines are on this one,
    /// and a job that gets a twentieth of a processor is not waited for.
    fn start(&self, version: &str, (run, url): (&str, &str)) -> Running {
        let call = self.call(version, "cargo build -j 1").env("KILN_SERVER", url);
        call.env("KILN_RUN", run).env("KILN_JOB", tag(version)).spawn()
    }

    /// How many of its units were no work.
    fn hits(&self) -> usize {
        let events = self.job.events().into_iter();
        events.filter(|event| HITS.contains(&event.outcome.as_str())).count()
    }
}

/// One run of all jobs.
struct Matrix {
    containers: Vec<Container>,
    done: Vec<Done>,
    report: Value,
}

impl Matrix {
    /// All jobs at the same time, each on a machine that has nothing.
    fn run(run: &str, registry: &Path, shared: &Shared) -> Self {
        let url = format!("http://{}", shared.address());
        let containers = VERSIONS.map(|_| Container::new(registry, USUAL));
        let start = |(container, version): (&Container, _)| container.start(version, (run, &url));
        let running: Vec<Running> = containers.iter().zip(VERSIONS).map(start).collect();
        let done = running.into_iter().map(|job| job.wait().ok()).collect();
        Self { report: report(run, &url), containers: containers.into(), done }
    }

    /// The compiles that cargo asked for.
    fn compiles(&self) -> impl Iterator<Item = &Run> {
        let runs = self.done.iter().flat_map(|done| &done.runs);
        runs.filter(|run| run.is_compile() && !run.of_build_script)
    }

    /// How often each unit was compiled, and each build script ran, over all jobs.
    fn work(&self) -> BTreeMap<(String, String), usize> {
        let mut work = BTreeMap::new();
        for run in self.compiles() {
            let identity = run.args.iter().find(|arg| arg.starts_with("metadata=")).unwrap();
            *work.entry((run.name(), identity.clone())).or_default() += 1;
        }
        let events = self.containers.iter().flat_map(|container| container.job.events());
        let ran = |event: &Became| {
            event.name.ends_with(" build-script run") && !HITS.contains(&event.outcome.as_str())
        };
        for event in events.filter(ran) {
            *work.entry((event.name, String::new())).or_default() += 1;
        }
        work
    }

    /// Asserts that what depends on the version was made for each, and all else once.
    #[track_caller]
    fn assert_made_once(&self) {
        let work = self.work();
        for ((name, identity), count) in &work {
            let each = OF_A_VERSION.contains(&name.as_str());
            let want = if each { VERSIONS.len() } else { 1 };
            assert_eq!(*count, want, "{name} {identity}: {work:#?} {:#}", self.report["slowest"]);
        }
        let named = work.keys().filter(|(name, _)| OF_A_VERSION.contains(&name.as_str()));
        assert_eq!(named.count(), OF_A_VERSION.len(), "{work:#?}");
    }

    /// The hit rate of each job in the report, whose figures are those that the job noted.
    #[track_caller]
    fn rates(&self) -> Vec<f64> {
        let jobs = self.report["jobs"].as_array().unwrap();
        let rate = |(container, version): (&Container, &str)| {
            let job = jobs.iter().find(|job| job["job"] == tag(version)).unwrap();
            let figures = ["units", "hits"].map(|name| job["measures"][name].as_u64().unwrap());
            let (units, hits) = (container.job.events().len(), container.hits());
            assert_eq!(figures, [units as u64, hits as u64], "{job:#}");
            let rate = job["measures"]["hit_rate"].as_f64().unwrap();
            println!("{}: {hits} of {units} units from the cache, {rate} %", tag(version));
            rate
        };
        assert_eq!(jobs.len(), VERSIONS.len(), "{:#}", self.report);
        self.containers.iter().zip(VERSIONS).map(rate).collect()
    }

    /// Asserts what the report says to be done in more than one job: what depends on the version, since it does.
    #[track_caller]
    fn assert_told(&self) {
        let twice = &self.report["twice"];
        let counts = [&twice["units"], &twice["compiles"]].map(|count| count.as_u64().unwrap());
        let again = OF_A_VERSION.len() * (VERSIONS.len() - 1);
        assert_eq!(counts, [OF_A_VERSION.len() as u64, again as u64], "{twice:#}");
        let group = |group: &Value| {
            let differs = group["differs"].as_array().unwrap().iter();
            let names = differs.map(|cause| cause["name"].as_str().unwrap().to_owned());
            (group["kind"].as_str().unwrap().to_owned(), names.collect::<Vec<_>>())
        };
        let told: BTreeSet<_> = twice["groups"].as_array().unwrap().iter().map(group).collect();
        let of = |name: &str| ("inputs".to_owned(), vec![name.to_owned()]);
        let want = ["DEP_PYTHON_PYO3_CONFIG", "PYO3_CONFIG_FILE"].map(of);
        assert_eq!(told, BTreeSet::from(want), "{twice:#}");
    }

    /// Where rustc was told that directories lie, which is the same for all units.
    #[track_caller]
    fn remaps(&self) -> Vec<String> {
        let of = |run: &Run| -> Vec<String> {
            let args = run.args.iter().filter(|arg| arg.starts_with("--remap-path-prefix="));
            args.cloned().collect()
        };
        let all: BTreeSet<Vec<String>> = self.compiles().map(of).collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.into_iter().next().unwrap()
    }
}

/// The report of a run, as a machine that took no part gets it.
fn report(run: &str, url: &str) -> Value {
    let world = world!();
    let call = world.kiln(&["report", run, "--format", "json"]).env("KILN_SERVER", url);
    serde_json::from_str(&call.run().ok().stdout).unwrap()
}

/// What cargo makes without Kiln in such a container, where rustc is told the same of directories, for some versions
/// one after another.
fn plain(registry: &Path, remaps: &[String], versions: [usize; 2]) -> [Made; 2] {
    let container = Container::new(registry, USUAL);
    let wrapper = container.job.world.at("remap");
    let script =
        format!("#!/bin/sh\nrustc=$1\nshift\nexec \"$rustc\" {} \"$@\"\n", remaps.join(" "));
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    versions.map(|version| {
        let call = container.call(VERSIONS[version], "cargo build");
        call.env("RUSTC_WRAPPER", format!("{}/remap", USUAL.home)).run().ok();
        made(&container.job.project)
    })
}

#[test]
fn wheels_for_five_versions_share_all_but_what_depends_on_the_version() {
    if let Err(why) = possible() {
        skip!("{why}");
    }
    let world = world!();
    let fetched = match registry::python(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(fetched);
    let registry = &world.cargo_home().join("registry");
    let shared = Shared::start();
    let first = Matrix::run("1", registry, &shared);
    first.assert_made_once();
    first.assert_told();
    first.rates();

    let second = Matrix::run("2", registry, &shared);
    let rates = second.rates();
    assert!(rates.iter().all(|rate| *rate >= ENOUGH), "{rates:?} {:#}", second.report["slowest"]);

    // Elsewhere all is found but what is made of sources right below `/`.
    let elsewhere = Container::new(registry, OTHER);
    let url = format!("http://{}", shared.address());
    elsewhere.start(VERSIONS[2], ("3", &url)).wait().ok();
    assert_eq!(elsewhere.job.missed(), ["satkit cdylib"]);

    // The first and the last version, restored, are what plain cargo makes.
    let versions = [0, VERSIONS.len() - 1];
    let plain = plain(registry, &first.remaps(), versions);
    assert!(plain[0]["debug/deps/libsatkit.so"] != plain[1]["debug/deps/libsatkit.so"]);
    for (version, plain) in versions.into_iter().zip(&plain) {
        let job = &second.containers[version].job;
        let missed = job.missed();
        assert!(!missed.iter().any(|unit| OF_A_VERSION.contains(&unit.as_str())), "{missed:?}");
        let extension = job.project.at("target/debug/libsatkit.so");
        assert_eq!(std::fs::metadata(extension).unwrap().uid(), USUAL.user);
        assert_same(VERSIONS[version], &made(&job.project), plain);
    }
}
