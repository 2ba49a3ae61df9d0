//! Theme: one report for the whole matrix. Its figures are those that the stand-in compilers counted, whatever the
//! jobs share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_storage::testing::gha::{READ, READ_WRITE};
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::Shared;
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::{Call, Project, World, bucket, world};
use serde_json::Value;

/// Two features and three profiles.
const JOBS: [(&str, &[&str]); 6] = [
    ("build (plain, dev)", &[]),
    ("build (plain, release)", &["--release"]),
    ("build (plain, small)", &["--profile", "small"]),
    ("build (extra, dev)", &["--features", "extra"]),
    ("build (extra, release)", &["--features", "extra", "--release"]),
    ("build (extra, small)", &["--features", "extra", "--profile", "small"]),
];

/// A program over a chain of two crates, a procedural macro and a build script.
fn project(world: &World) -> Project {
    let project = world.project("matrix");
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
    };
    project.write(
        "Cargo.toml",
        package(
            "app",
            "[features]\nextra = [\"mid/extra\"]\n[dependencies]\nmid = { path = \"mid\" }\n\
             mac = { path = \"mac\" }\n[profile.small]\ninherits = \"dev\"\nopt-level = \"s\"\n[workspace]\n",
        ),
    );
    project.write("build.rs", "fn main() { println!(\"cargo:rustc-env=MADE=1\"); }\n");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{} {} {}\", mid::n(), mac::seven!(), env!(\"MADE\")); }\n",
    );
    project.write(
        "mid/Cargo.toml",
        package("mid", "[features]\nextra = []\n[dependencies]\nlow = { path = \"../low\" }\n"),
    );
    project.write(
        "mid/src/lib.rs",
        "pub fn n() -> i32 { low::n() + i32::from(cfg!(feature = \"extra\")) }\n",
    );
    project.write("low/Cargo.toml", package("low", ""));
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 41 }\n");
    project.write("mac/Cargo.toml", package("mac", "[lib]\nproc-macro = true\n"));
    project.write(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn seven(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         \"7\".parse().unwrap()\n}\n",
    );
    project
}

/// What was counted of a job beside Kiln's server.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counted {
    /// Compiles that the stand-ins ran, and runs of build scripts, by unit.
    ran: BTreeMap<String, u64>,
    /// All units, as the wrappers noted them.
    units: u64,
}

impl Counted {
    fn misses(&self) -> u64 {
        self.ran.values().sum()
    }
}

/// One machine of a job: all its own but what it shares with the others.
struct Machine {
    world: World,
    project: Project,
    notes: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let world = world!();
        let (project, notes) = (project(&world), world.at("notes.jsonl"));
        Self { world, project, notes }
    }

    fn build(&self, run: &str, job: usize, share: &dyn Fn(Call) -> Call) -> kiln_tests::Running {
        self.project.wipe();
        let _ = std::fs::remove_file(&self.notes);
        let (name, flags) = JOBS[job];
        let call = self.world.cargo(&self.project, &["build"]).args(flags);
        let call = call.env("KILN_REPORT_FILE", &self.notes);
        share(call).env("KILN_RUN", run).env("KILN_JOB", name).spawn()
    }

    fn counted(&self, done: &kiln_tests::Done) -> Counted {
        let mut counted = Counted::default();
        for run in done.runs.iter().filter(|run| run.is_compile()) {
            *counted.ran.entry(run.name()).or_default() += 1;
        }
        let notes = std::fs::read_to_string(&self.notes).unwrap_or_default();
        for line in notes.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            counted.units += 1;
            if event["unit"]["kind"] == "build-script run" && event["outcome"] == "miss" {
                *counted.ran.entry("app build-script run".into()).or_default() += 1;
            }
        }
        counted
    }
}

/// All jobs of a run at the same time, each on its machine; what was counted of each.
fn matrix(machines: &[Machine], run: &str, share: &dyn Fn(Call) -> Call) -> Vec<Counted> {
    let running: Vec<_> =
        machines.iter().enumerate().map(|(job, machine)| machine.build(run, job, share)).collect();
    let done = running.into_iter().map(|running| running.wait().ok());
    machines.iter().zip(done).map(|(machine, done)| machine.counted(&done)).collect()
}

/// Holds a report against what was counted.
#[track_caller]
fn check(report: &Value, run: &str, counted: &[Counted]) {
    assert_eq!((&report["schema"], &report["run"]), (&1.into(), &run.into()));
    let jobs = report["jobs"].as_array().unwrap();
    let figures = |of: &Value| -> [u64; 4] {
        ["units", "miss", "bypass", "error"].map(|figure| of[figure].as_u64().unwrap())
    };
    assert_eq!(jobs.len(), JOBS.len(), "{report:#}");
    for ((name, _), counted) in JOBS.iter().zip(counted) {
        let job = jobs.iter().find(|job| job["job"] == *name).unwrap();
        let want = [counted.units, counted.misses(), 0, 0];
        assert_eq!(figures(&job["measures"]), want, "{name}: {counted:?} {job:#}");
        assert_eq!(job["measures"]["hits"], counted.units - counted.misses(), "{job:#}");
    }
    let sum = |of: fn(&Counted) -> u64| counted.iter().map(of).sum::<u64>();
    let (units, misses) = (sum(|one| one.units), sum(Counted::misses));
    assert_eq!(figures(&report["total"]), [units, misses, 0, 0]);
    // What was compiled at all was needed once; the rest was done again.
    let names: std::collections::BTreeSet<&String> =
        counted.iter().flat_map(|one| one.ran.keys()).collect();
    assert_eq!(report["twice"]["compiles"], misses - names.len() as u64, "{report:#}");
    let listed = report["slowest"].as_array().unwrap().len() as u64;
    assert_eq!(listed + report["slowest_left_out"].as_u64().unwrap(), misses);
}

fn report(machine: &Machine, run: &str, share: &dyn Fn(Call) -> Call) -> Value {
    let done = share(machine.world.kiln(&["report", run, "--format", "json"])).run().ok();
    serde_json::from_str(&done.stdout).unwrap()
}

/// A run of the matrix on machines that have nothing; what is counted is told exactly.
fn one_run(
    share: &dyn Fn(Call) -> Call,
    ends: &dyn Fn(&[Machine]),
) -> (Vec<Machine>, Vec<Counted>, Value) {
    let machines: Vec<Machine> = JOBS.iter().map(|_| Machine::new()).collect();
    let first = matrix(&machines, "1", share);
    ends(&machines);
    // app, its build script and the run of that, mid, low, mac.
    assert!(first.iter().all(|job| job.units == 6), "{first:?}");
    let told = report(&machines[0], "1", share);
    check(&told, "1", &first);
    let kinds: Vec<&str> = told["twice"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"features") && kinds.contains(&"profile"), "{told:#}");
    assert!(!kinds.contains(&"unknown"), "{told:#}");
    (machines, first, told)
}

/// The same, and a second run with a change, whose report is returned.
fn two_runs(share: &dyn Fn(Call) -> Call, ends: &dyn Fn(&[Machine])) -> (Vec<Machine>, Value) {
    let (machines, first, _) = one_run(share, ends);
    for machine in &machines {
        machine.project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 2 }\n");
    }
    let second = matrix(&machines, "2", share);
    ends(&machines);
    assert!(second.iter().map(Counted::misses).sum::<u64>() < 30, "{second:?}");
    let told = report(&machines[1], "2", share);
    check(&told, "2", &second);
    // The first is as it was.
    check(&report(&machines[2], "1", share), "1", &first);
    (machines, told)
}

#[test]
fn six_jobs_on_one_shared_server_give_one_report() {
    let shared = Shared::start();
    let url = format!("http://{}", shared.address());
    let share = |call: Call| call.env("KILN_SERVER", &url);
    let (machines, told) = two_runs(&share, &|_| {});
    for job in told["jobs"].as_array().unwrap() {
        assert_eq!(job["trend"][0]["run"], "1", "{job:#}");
    }

    let kiln = |args: &[&str]| share(machines[0].world.kiln(args));
    let shown = kiln(&["report", "--job", JOBS[1].0]).env("KILN_RUN", "2").run().ok().stdout;
    assert!(
        shown.starts_with("run 2\n")
            && shown.contains(" of units from the cache: 6 units in 1 job"),
        "{shown}"
    );
    assert!(shown.contains(JOBS[1].0) && !shown.contains("\nbuild (extra, dev) "), "{shown}");
    let newest = kiln(&["report"]).run().ok().stdout;
    assert!(newest.starts_with("run 2\n") && newest.contains("36 units in 6 jobs"), "{newest}");

    let summary = machines[0].world.at("summary.md");
    std::fs::write(&summary, "before\n").unwrap();
    let rate = told["total"]["hit_rate"].as_f64().unwrap();
    let file = summary.to_str().unwrap();
    let passes = kiln(&["report", "2", "--append", file, "--fail-under", &format!("{rate}%")]);
    passes.run().ok();
    let text = std::fs::read_to_string(&summary).unwrap();
    assert!(text.starts_with("before\n## Kiln: "), "{text}");
    assert_eq!(text.matches("\n| build (").count(), 6, "{text}");
    let fails = kiln(&["report", "2", "--format", "md", "--fail-under", "99.9"]).run().fails();
    assert_eq!(fails.status.code(), Some(1));
    assert_eq!(fails.stdout, text["before\n".len()..]);
    let sentence = format!("kiln: error: the hit rate is {rate:.1} %, under 99.9 %\n");
    assert_eq!(fails.stderr, sentence);

    let page = kiln(&["report", "2", "--format", "html"]).run().ok().stdout;
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    assert!(JOBS.iter().all(|(job, _)| page.contains(job)) && !page.contains("<script"), "{page}");

    let unknown = kiln(&["report", "3"]).run().fails().stderr;
    assert!(
        unknown.contains("no run \"3\" is known") && unknown.contains("there is 2, 1"),
        "{unknown}"
    );
    let unknown = kiln(&["report", "2", "--job", "x"]).run().fails().stderr;
    assert!(unknown.contains("no job \"x\"") && unknown.contains(JOBS[0].0), "{unknown}");
}

/// Ends the servers of all machines at the same time, as the ends of jobs do.
fn stop(machines: &[Machine]) {
    let ending = machines.iter().map(|machine| machine.world.kiln(&["server", "stop"]).spawn());
    ending.collect::<Vec<_>>().into_iter().for_each(|one| drop(one.wait().ok()));
}

/// The figures of a report that do not depend on who made it.
fn told_by_all(report: &Value) -> Value {
    let mut report = report.clone();
    for job in report["jobs"].as_array_mut().unwrap() {
        job.as_object_mut().unwrap().remove("trend");
    }
    report
}

/// Machines share a bucket and nothing else; whoever asks, even one that never saw the run, tells the whole.
#[test]
fn six_jobs_that_share_a_bucket_give_the_same_report() {
    let fresh = world!();
    let bucket = bucket!(fresh);
    let share = |call: Call| bucket.before(call);
    let (_machines, told) = two_runs(&share, &stop);
    let batches = bucket.objects("events").len();
    assert!((12..=24).contains(&batches), "{batches} batches of 12 jobs");
    for _ in 0..2 {
        let done = share(fresh.kiln(&["report", "2", "--format", "json"])).run().ok();
        let again: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(told_by_all(&again), told_by_all(&told));
    }
    let watched = share(fresh.kiln(&["watch", "2", "--once"])).run().ok().stdout;
    assert!(watched.starts_with("run 2\n36 units in 6 jobs: "), "{watched}");
    // What was brought is not brought again.
    bucket.take();
    share(fresh.kiln(&["report", "2"])).run().ok();
    let asked = bucket.take();
    assert_eq!(asked.keys().collect::<Vec<_>>(), ["LIST events"], "{asked:#?}");
}

/// The same with nothing shared but the cache of GitHub Actions, where nothing can be listed.
#[test]
fn six_jobs_that_share_the_cache_of_github_give_the_same_report() {
    let cache = Cache::start(Face::V2);
    let share = |call: Call| cache.job(call, &[("refs/heads/main", READ_WRITE)]);
    let (_machines, _, told) = one_run(&share, &stop);
    let fresh = world!();
    let done = share(fresh.kiln(&["report", "1", "--format", "json"])).run().ok();
    let again: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(told_by_all(&again), told_by_all(&told));
    let entries = cache.fake().keys().into_iter().filter(|(_, key)| key.starts_with("kiln-run-"));
    assert_eq!(entries.count(), 6, "one for each job");
}

/// Each machine has a server of its own before the shared one, which is asked for the report.
#[test]
fn six_jobs_before_a_shared_server_give_the_same_report() {
    let shared = Shared::start();
    let url = format!("http://{}", shared.address());
    let share = |call: Call| call.env("KILN_UPSTREAM", &url);
    let (machines, _, told) = one_run(&share, &stop);
    let done =
        machines[0].world.kiln(&["report", "1", "--format", "json"]).env("KILN_SERVER", &url);
    let there: Value = serde_json::from_str(&done.run().ok().stdout).unwrap();
    assert_eq!(there, told);
    let watched = share(machines[0].world.kiln(&["watch", "1", "--once"])).run().ok().stdout;
    assert!(watched.starts_with("run 1\n36 units in 6 jobs: "), "{watched}");
}

/// A run of CI on a machine that has nothing; its report, made there.
fn ci_run(
    run: &str,
    (branch, base): (&str, &str),
    share: &dyn Fn(Call) -> Call,
    change: &dyn Fn(&Project),
) -> Value {
    let machine = Machine::new();
    change(&machine.project);
    let share = |call: Call| {
        share(call).envs(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_RUN_ID", run),
            ("GITHUB_REPOSITORY", "owner/name"),
            ("GITHUB_WORKFLOW", "ci"),
            ("GITHUB_REF_NAME", branch),
            ("GITHUB_HEAD_REF", if base.is_empty() { "" } else { branch }),
            ("GITHUB_BASE_REF", base),
        ])
    };
    machine.build(run, 0, &share).wait().ok();
    let told = report(&machine, run, &share);
    stop(&[machine]);
    told
}

/// Each run is on another machine, and knows the last ones of its branches all the same.
#[test]
fn runs_that_share_a_bucket_are_held_against_each_other() {
    let world = world!();
    let bucket = bucket!(world);
    let share = |call: Call| bucket.before(call);
    let change = |project: &Project| {
        project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 2 }\n");
    };
    let first = ci_run("1", ("main", ""), &share, &|_| {});
    assert_eq!((&first["base_run"], &first["earlier_runs"]), (&Value::Null, &"newest".into()));
    let second = ci_run("2", ("main", ""), &share, &|_| {});
    assert_eq!((&second["base_run"], &second["total"]["hits"]), (&"1".into(), &6.into()));
    assert_eq!(second["jobs"][0]["trend"][0]["run"], "1", "{second:#}");
    let third = ci_run("3", ("topic", "main"), &share, &change);
    assert_eq!(third["base_run"], "2", "{third:#}");
    let trend = third["jobs"][0]["trend"].as_array().unwrap();
    let runs: Vec<&str> = trend.iter().map(|point| point["run"].as_str().unwrap()).collect();
    assert_eq!(runs, ["2", "1"]);
    let mut lost: Vec<&str> = third["lost_hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| unit["unit"]["crate_name"].as_str().unwrap())
        .collect();
    lost.sort_unstable();
    assert_eq!(lost, ["app", "low", "mid"], "{third:#}");
}

/// Nothing can be listed there, and the report says what it does not know.
#[test]
fn what_a_report_does_not_know_of_earlier_runs_it_says() {
    let cache = Cache::start(Face::V2);
    let share = |call: Call| cache.job(call, &[("refs/heads/main", READ_WRITE)]);
    let told = ci_run("1", ("main", ""), &share, &|_| {});
    assert_eq!(told["earlier_runs"], "own", "{told:#}");
}

/// A job of a pull request from a fork, whose token only reads: it has its own figures, and nobody else has them.
#[test]
fn a_job_that_cannot_share_its_figures_says_so() {
    let cache = Cache::start(Face::V2);
    let shares = |call: Call| cache.job(call, &[("refs/heads/main", READ_WRITE)]);
    let keeps = |call: Call| cache.job(call, &[("refs/heads/main", READ)]);
    let machines = [Machine::new(), Machine::new()];
    machines[0].build("1", 0, &shares).wait().ok();
    stop(&machines[..1]);
    machines[1].build("1", 1, &keeps).wait().ok();
    let summary = machines[1].world.at("summary.md");
    let kiln = |args: &[&str]| keeps(machines[1].world.kiln(args));
    let shown = kiln(&["report", "1", "--append", summary.to_str().unwrap()]).run().ok().stdout;
    let said = format!(
        "The figures of {} could not be shared: the token may not write here. Reports made elsewhere lack them, and \
         this one lacks other jobs that could not share theirs.",
        JOBS[1].0
    );
    assert!(shown.contains("12 units in 2 jobs") && shown.contains(&said), "{shown}");
    let text = std::fs::read_to_string(summary).unwrap();
    assert!(text.contains(&format!("\n**Not shared.** {said}\n")), "{text}");
    let page = kiln(&["report", "1", "--format", "html"]).run().ok().stdout;
    assert!(page.contains(&said), "{page}");
    let told = report(&machines[1], "1", &keeps);
    let unshared = |n: usize| told["jobs"][n]["unshared"].as_str();
    assert_eq!([unshared(0), unshared(1)], [None, Some("the token may not write here")]);
    assert_eq!(told["jobs"][1]["measures"]["units"], 6, "{told:#}");
    stop(&machines[1..]);

    // The job that is to report on all finds the one that shared, and is told why it may lack others.
    let fresh = world!();
    let there = shares(fresh.kiln(&["report", "1"])).run().ok().stdout;
    assert!(
        there.contains("6 units in 1 job") && !there.contains("could not be shared"),
        "{there}"
    );
    let none = keeps(world!().kiln(&["report", "2"])).run().fails().stderr;
    let hint =
        "jobs like this one cannot share their figures with others here: the token may not write";
    assert!(none.contains(hint), "{none}");
}

/// A bucket that takes nothing from this machine, whether there were results to send or not.
#[test]
fn a_job_before_a_bucket_that_is_read_only_says_so() {
    let world = world!();
    let bucket = bucket!(world);
    let share = |call: Call| bucket.before(call);
    let first = [Machine::new()];
    first[0].build("1", 0, &share).wait().ok();
    stop(&first);
    let refuses = When { method: Some("PUT"), ..When::any() };
    bucket.proxy().inject(refuses.always(), HttpFault::Status(403, None));
    for (run, profile) in [("2", 0), ("3", 1)] {
        let machine = Machine::new();
        machine.build(run, profile, &share).wait().ok();
        let told = report(&machine, run, &share);
        let why = told["jobs"][0]["unshared"].as_str().unwrap_or_default();
        assert!(why.contains("AWS_ACCESS_KEY_ID"), "{told:#}");
        assert_eq!(told["total"]["units"], 6);
    }
}
