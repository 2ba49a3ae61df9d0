//! Jobs of a matrix that start together with nothing in any cache and share one server, against the same jobs
//! without Kiln: two, each on a processor of its own, and four on two.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cargo::{Build, Profile, bare, wipe};
use crate::failure::{Failure, Outcome, while_doing};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::report::{self, Table, Unit};
use crate::server::{RunningServer, children_cpu_s};
use crate::statistics::Series;
use crate::warm::plain;

/// Processors that jobs are bound to in turn.
const CORES: usize = 2;

/// Jobs of which the processor time is measured.
const JOBS: usize = 4;

/// Jobs that run at the same time, and what they came to.
struct Jobs {
    builds: Vec<Build>,
}

/// How long all took, and the processor time of all.
struct Took {
    wall_s: f64,
    cpu_s: f64,
}

impl Jobs {
    /// So many jobs, each with a target directory of its own.
    fn new(count: usize, dir: &Path, build: impl Fn(PathBuf) -> Build) -> Self {
        let target = |n: usize| dir.join(format!("target-{n}"));
        Self { builds: (0..count).map(|n| build(target(n))).collect() }
    }

    /// Builds all of them from nothing. A single one has both processors and a job of cargo for each; of several,
    /// each is bound to a processor and has one job of cargo.
    fn run(&self) -> Outcome<Took> {
        let unknown = || Failure::NotMeasured("/proc does not tell processor times".into());
        let before = children_cpu_s().ok_or_else(unknown)?;
        let began = Instant::now();
        let all = (0..CORES).map(|core| core.to_string()).collect::<Vec<_>>().join(",");
        let place = |n: usize| match self.builds.len() {
            1 => (all.clone(), CORES),
            _ => ((n % CORES).to_string(), 1),
        };
        let numbered = self.builds.iter().enumerate();
        let started: Outcome<Vec<Child>> =
            numbered.map(|(n, build)| start(build, place(n))).collect();
        for mut child in started? {
            let status = child.wait().map_err(while_doing("waiting for cargo"))?;
            if !status.success() {
                return Err(Failure::NotMeasured(format!("a job failed: {status}")));
            }
        }
        let wall_s = began.elapsed().as_secs_f64();
        Ok(Took { wall_s, cpu_s: children_cpu_s().ok_or_else(unknown)? - before })
    }
}

/// Starts a build on some processors, with so many jobs of cargo.
fn start(build: &Build, (cores, jobs): (String, usize)) -> Outcome<Child> {
    let cargo = build.command();
    let mut command: Command = bare("taskset");
    command.args(["-c", &cores]).arg(cargo.get_program()).args(cargo.get_args());
    command.args(["--quiet", "--jobs", &jobs.to_string()]);
    let set = cargo.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(set).current_dir(&build.project);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(while_doing("starting taskset"))
}

/// Measures ripgrep's dev build, in so many pairs.
///
/// # Errors
/// When a job fails, or the jobs did not share what they made.
pub fn run(programs: &Programs, project: &Path, dir: &Path, pairs: usize) -> Outcome<()> {
    two(programs, project, &dir.join("two"), pairs)?;
    four(programs, project, &dir.join("four"), pairs)
}

/// New directories. Nothing is removed before the end: ext4 goes around what was removed a moment ago, one file
/// after the other, which a machine of CI never has to do.
struct Fresh {
    dir: PathBuf,
    taken: Cell<usize>,
}

impl Fresh {
    fn below(dir: &Path) -> Outcome<Self> {
        wipe(dir)?;
        Ok(Self { dir: dir.to_owned(), taken: Cell::new(0) })
    }

    fn next(&self) -> PathBuf {
        let number = self.taken.replace(self.taken.get() + 1);
        self.dir.join(number.to_string())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = wipe(&self.dir);
    }
}

/// What a shared server counted over the jobs of a pair.
struct Counted {
    units: u64,
    compiled: u64,
    joined: u64,
    /// Different results that were stored.
    results: u64,
}

/// Jobs that share a new server; how long they took, the server's processor time among it.
fn shared(
    programs: &Programs,
    project: &Path,
    dir: &Path,
    count: usize,
) -> Outcome<(Took, Counted)> {
    let server = RunningServer::on_tcp(&programs.kiln, &dir.join("shared"))?;
    let number = Cell::new(0);
    let jobs = Jobs::new(count, dir, |target| {
        let n = number.replace(number.get() + 1);
        let kiln = Kiln::new(&programs.kiln, dir.join(format!("kiln-{n}")));
        let mut build = kiln.build(project, Profile::Dev, target);
        for (name, value) in [
            ("KILN_SERVER", server.url()),
            ("KILN_RUN", "bench".to_owned()),
            ("KILN_JOB", format!("job {n}")),
        ] {
            build.variables.push((name, OsString::from(value)));
        }
        build
    });
    let mut took = jobs.run()?;
    took.cpu_s += server.cpu_s().unwrap_or_default();
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln-0"))
        .with(vec![("KILN_SERVER", server.url().into())]);
    let stats = kiln.stats()?;
    let all = stats.total;
    if all.joined + all.hit_remote + all.hit_local == 0 {
        return Err(Failure::NotMeasured(format!("the jobs shared nothing: {all:?}")));
    }
    let hits = all.joined + all.hit_remote + all.hit_local;
    let counted = Counted {
        units: all.units,
        compiled: all.units - hits,
        joined: all.joined,
        results: stats.store.results,
    };
    Ok((took, counted))
}

fn two(programs: &Programs, project: &Path, dir: &Path, pairs: usize) -> Outcome<()> {
    report::progress(&format!("together, two jobs: {pairs} pairs"));
    let fresh = Fresh::below(dir)?;
    let plain_jobs = || Jobs::new(2, &fresh.next(), |target| plain(project, Profile::Dev, target));
    let (mut kiln_s, mut plain_s) = (Series::default(), Series::default());
    let mut table = Table::new("Two cold jobs at once, ripgrep, dev, one processor each");
    for pair in 0..pairs {
        // Each of the two goes first in every other pair.
        if pair % 2 == 0 {
            plain_s.push(plain_jobs().run()?.wall_s);
        }
        let (took, counted) = shared(programs, project, &fresh.next(), 2)?;
        kiln_s.push(took.wall_s);
        table.note(note(&counted, 2));
        if pair % 2 == 1 {
            plain_s.push(plain_jobs().run()?.wall_s);
        }
    }
    table.row("kiln / the same jobs without", Unit::Ratio, &kiln_s.over(&plain_s));
    table.row("kiln", Unit::Seconds, &kiln_s);
    table.row("the same jobs without", Unit::Seconds, &plain_s);
    table.print();
    Ok(())
}

fn four(programs: &Programs, project: &Path, dir: &Path, pairs: usize) -> Outcome<()> {
    report::progress(&format!("together, four jobs: {pairs} pairs"));
    let fresh = Fresh::below(dir)?;
    let alone = || Jobs::new(1, &fresh.next(), |target| plain(project, Profile::Dev, target)).run();
    // A build takes more processor time among others than alone: caches of the processor are shared.
    let crowd =
        || Jobs::new(JOBS, &fresh.next(), |target| plain(project, Profile::Dev, target)).run();
    let [mut kiln_s, mut plain_s, mut crowd_s] = [(); 3].map(|()| Series::default());
    let mut table =
        Table::new("Four cold jobs at once on two processors, ripgrep, dev: processor time");
    for _ in 0..pairs {
        // One before and one after: what a processor gets done changes by the minute on a shared machine.
        let before = alone()?.cpu_s;
        let (took, counted) = shared(programs, project, &fresh.next(), JOBS)?;
        kiln_s.push(took.cpu_s);
        crowd_s.push(crowd()?.cpu_s / JOBS as f64);
        plain_s.push(f64::midpoint(before, alone()?.cpu_s));
        table.note(note(&counted, JOBS));
    }
    table.row("four jobs with kiln / one of the four without", Unit::Ratio, &kiln_s.over(&crowd_s));
    table.row("four jobs with kiln / one alone without", Unit::Ratio, &kiln_s.over(&plain_s));
    table.row("four jobs with kiln and its server", Unit::Seconds, &kiln_s);
    table.row("one of the four without", Unit::Seconds, &crowd_s);
    table.row("one alone without", Unit::Seconds, &plain_s);
    table.print();
    Ok(())
}

fn note(counted: &Counted, jobs: usize) -> String {
    format!(
        "{jobs} jobs, {} units in all: {} were compiled, {} times one that another job had compiled; {} were waited for.",
        counted.units,
        counted.compiled,
        counted.compiled.saturating_sub(counted.results),
        counted.joined
    )
}
