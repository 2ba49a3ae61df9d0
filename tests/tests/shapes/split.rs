//! Shape: a workspace with a program and two dynamic libraries, released with thin LTO: one job builds it as a whole, and
//! others a part each. All start together with nothing in the cache, and nothing is compiled twice: what cargo takes for
//! one unit is compiled by one job. What `-p` makes another unit is none of Kiln's doing, and the report says what differs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use kiln_tests::far::Shared;
use kiln_tests::job::compiles;
use kiln_tests::{Done, Job, Project, World, world};
use serde_json::Value;

use crate::manifest;

/// The jobs, and what cargo is told in each.
const JOBS: [(&str, &[&str]); 4] = [
    ("whole", &["--workspace"]),
    ("tool", &["-p", "tool"]),
    ("one", &["-p", "one"]),
    ("two", &["-p", "two"]),
];

/// What is built in the end, and the job that builds that alone.
const BUILT: [(&str, usize); 3] = [("tool", 1), ("libone.so", 2), ("libtwo.so", 3)];

/// Changes a workspace.
type Change = fn(&Project);

/// The workspace: a program and two libraries over two crates, the lower one with a build script. LTO of what is not
/// optimised takes a quarter of the time.
fn workspace(world: &World, change: Change) -> Project {
    let project = world.project("app");
    project.write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"common\", \"codec\", \"tool\", \"one\", \"two\"]\nresolver = \"2\"\n\n\
         [profile.release]\nlto = \"thin\"\nopt-level = 0\n",
    );
    project.write("common/Cargo.toml", manifest("common", ""));
    project.write("common/build.rs", "fn main() { println!(\"cargo:rustc-env=MADE=made\"); }\n");
    project.write("common/src/lib.rs", "pub fn n() -> usize { env!(\"MADE\").len() }\n");
    let over_common = "[dependencies]\ncommon = { path = \"../common\" }\n";
    project.write(
        "codec/Cargo.toml",
        manifest("codec", &format!("[features]\nfast = []\n\n{over_common}")),
    );
    project.write(
        "codec/src/lib.rs",
        "pub fn n() -> usize { common::n() + if cfg!(feature = \"fast\") { 100 } else { 10 } }\n",
    );
    let over_both = format!("{over_common}codec = {{ path = \"../codec\" }}\n");
    project.write("tool/Cargo.toml", manifest("tool", &over_both));
    project
        .write("tool/src/main.rs", "fn main() { println!(\"{}\", codec::n() + common::n()); }\n");
    for name in ["one", "two"] {
        let library = format!("[lib]\ncrate-type = [\"cdylib\"]\n\n{over_both}");
        project.write(&format!("{name}/Cargo.toml"), manifest(name, &library));
        project.write(
            &format!("{name}/src/lib.rs"),
            format!(
                "#[no_mangle]\npub extern \"C\" fn {name}() -> usize {{ codec::n() + common::n() }}\n"
            ),
        );
    }
    change(&project);
    project
}

/// Replaces a text in a file.
fn edit(project: &Project, file: &str, from: &str, to: &str) {
    let text = String::from_utf8(project.read(file)).unwrap();
    assert!(text.contains(from), "{file}: {text}");
    project.write(file, text.replace(from, to));
}

/// All jobs, after they have ended.
struct Matrix {
    jobs: Vec<Job>,
    done: Vec<Done>,
    report: Value,
}

impl Matrix {
    /// Builds in all jobs at the same time, each on a machine of its own.
    fn built(change: Change) -> Self {
        let shared = Shared::start();
        let url = format!("http://{}", shared.address());
        let job = |(name, _): &(&str, _)| {
            let world = world!();
            let project = workspace(&world, change);
            let job = Job::new(world, project).with("KILN_SERVER", &url);
            job.with("KILN_RUN", "1").with("KILN_JOB", *name)
        };
        let jobs: Vec<Job> = JOBS.iter().map(job).collect();
        let call = |(job, (_, args)): (&Job, &(_, &[&str]))| {
            job.cargo(&["build", "--release"]).args(args).spawn()
        };
        let running: Vec<_> = jobs.iter().zip(&JOBS).map(call).collect();
        let done: Vec<Done> = running.into_iter().map(|job| job.wait().ok()).collect();
        let asked = jobs[0].dressed(jobs[0].world.kiln(&["report", "1", "--format", "json"]));
        let report = serde_json::from_str(&asked.run().ok().stdout).unwrap();
        Self { jobs, done, report }
    }

    /// Asserts that nothing that is one unit for cargo was compiled twice, and how often each name was: those once that
    /// are not listed.
    #[track_caller]
    fn assert_compiled(&self, more_than_once: &[(&str, usize)]) {
        let mut units: BTreeMap<(String, String), usize> = BTreeMap::new();
        let runs = self.done.iter().flat_map(|done| &done.runs).filter(|run| run.is_compile());
        for run in runs {
            let identity = run.args.iter().find(|arg| arg.starts_with("metadata=")).unwrap();
            *units.entry((run.name(), identity.clone())).or_default() += 1;
        }
        assert!(units.values().all(|count| *count == 1), "{units:#?} {:#}", self.report["twice"]);
        let names = [
            "build_script_build bin",
            "codec lib",
            "common lib",
            "one cdylib",
            "tool bin",
            "two cdylib",
        ];
        let mut want: BTreeMap<String, usize> =
            names.iter().map(|name| (name.to_string(), 1)).collect();
        for (name, count) in more_than_once {
            let name = names.iter().find(|of| of.starts_with(name)).unwrap();
            want.insert(name.to_string(), *count);
        }
        assert_eq!(compiles(&self.done), want, "{:#}", self.report["twice"]);
        let script = |job: &Job| {
            let events = job.events().into_iter();
            events
                .filter(|one| one.name == "common build-script run" && one.outcome == "miss")
                .count()
        };
        assert_eq!(self.jobs.iter().map(script).sum::<usize>(), 1, "the script runs once");
    }

    /// What the report says to be done twice: how many compiles, of which kinds, and what differs.
    fn twice(&self) -> (u64, BTreeSet<&str>, BTreeSet<&str>) {
        let twice = &self.report["twice"];
        let groups = || twice["groups"].as_array().unwrap().iter();
        let differs = groups().filter_map(|group| group["differs"].as_array()).flatten();
        (
            twice["compiles"].as_u64().unwrap(),
            groups().map(|group| group["kind"].as_str().unwrap()).collect(),
            differs.map(|cause| cause["name"].as_str().unwrap()).collect(),
        )
    }

    /// Asserts that the report tells of so many compiles more, and of the one reason for them.
    #[track_caller]
    fn assert_told(&self, compiles: u64, kind: &str, differs: &str) {
        let want = (compiles, BTreeSet::from([kind]), BTreeSet::from([differs]));
        assert_eq!(self.twice(), want, "{:#}", self.report["twice"]);
    }

    /// What a job built.
    fn built_by(&self, job: usize, what: &str) -> Vec<u8> {
        release(&self.jobs[job].project, what)
    }
}

fn release(project: &Project, what: &str) -> Vec<u8> {
    project.read(&format!("target/release/{what}"))
}

#[test]
fn a_release_that_is_split_over_jobs_is_compiled_once() {
    let matrix = Matrix::built(|_| {});
    matrix.assert_compiled(&[]);
    assert_eq!(matrix.twice(), (0, BTreeSet::new(), BTreeSet::new()));
    // One that shares nothing with anybody makes the same.
    let alone = world!();
    let project = workspace(&alone, |_| {});
    alone.cargo(&project, &["build", "--release", "--workspace"]).run().ok();
    for (what, job) in BUILT {
        let built = release(&project, what);
        assert!(built == matrix.built_by(0, what), "{what} of the whole");
        assert!(built == matrix.built_by(job, what), "{what} of its part");
    }
    assert_eq!(matrix.jobs[1].says("release/tool"), "18\n");
}

/// The program wants a feature of a crate that the libraries are content without. Cargo unites the features of what one
/// command builds: the whole has the crate with it alone, and the parts of the libraries without.
#[test]
fn a_feature_of_one_part_makes_two_crates_of_one() {
    let matrix = Matrix::built(|project| {
        edit(project, "tool/Cargo.toml", "\"../codec\"", "\"../codec\", features = [\"fast\"]");
    });
    matrix.assert_compiled(&[("codec", 2), ("one", 2), ("two", 2)]);
    matrix.assert_told(3, "features", "fast");
    assert!(matrix.built_by(0, "tool") == matrix.built_by(1, "tool"));
    assert!(matrix.built_by(0, "libone.so") != matrix.built_by(2, "libone.so"));
}

/// One of the libraries is for Rust, too, so that it needs machine code of what is below it, and is made without LTO.
/// Where it is built, cargo asks for another form of these crates than where it is not.
#[test]
fn a_library_for_rust_too_makes_two_crates_of_one() {
    let matrix = Matrix::built(|project| {
        edit(project, "one/Cargo.toml", "[\"cdylib\"]", "[\"cdylib\", \"rlib\"]");
    });
    matrix.assert_compiled(&[("common", 2), ("codec", 2), ("tool", 2), ("two", 2)]);
    matrix.assert_told(4, "profile", "-C linker-plugin-lto");
    assert!(matrix.built_by(0, "libone.so") == matrix.built_by(2, "libone.so"));
    assert_eq!(matrix.jobs[0].says("release/tool"), matrix.jobs[1].says("release/tool"));
}
