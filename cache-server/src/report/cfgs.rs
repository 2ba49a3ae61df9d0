//! Whether a `--cfg` that differs between jobs is of a build script, or of RUSTFLAGS and cargo's settings. The
//! arguments of a compile do not tell: the other units of the job do. Pure; called by [`super::twice`].
//!
//! RUSTFLAGS go to all units of a target, and what a build script says to its own package alone.

use std::collections::{HashMap, HashSet};

use kiln_storage::api::Cause;
use kiln_storage::parts::CFG;
use kiln_storage::record::UnitName;

use super::sums::is_compiled;
use super::{Job, Known};
use crate::history::chunk::Kept;

/// Kinds of units: the program of a build script, and its run.
pub(super) const PROGRAM: &str = "build-script";
const RUN: &str = "build-script run";

/// Name and version of a package.
type Package<'a> = (String, &'a str);

/// The `--cfg`s of all compiles whose arguments are known, by job and target: whether only packages with a build script
/// have it.
#[derive(Debug, Default)]
pub(super) struct Cfgs<'a>(HashMap<(usize, &'a str, &'a str), bool>);

impl<'a> Cfgs<'a> {
    /// Those of these jobs.
    pub(super) fn of(jobs: &'a [Job], known: &'a Known) -> Self {
        let mut cfgs = HashMap::new();
        for (at, job) in jobs.iter().enumerate() {
            let scripts = Scripts::of(&job.events);
            for event in job.events.iter().filter(|event| is_compiled(event.outcome)) {
                let key = event.more.as_ref().map_or("", |more| more.unit_key.as_str());
                let parts = known.parts.get(key).filter(|_| event.unit.kind != RUN);
                let has_script = scripts.has(&event.unit);
                for part in parts.into_iter().flatten().filter(|part| part.group == CFG) {
                    let all = cfgs.entry((at, event.unit.target.as_str(), part.name.as_str()));
                    *all.or_insert(true) &= has_script;
                }
            }
        }
        Self(cfgs)
    }

    /// Whether a difference is a `--cfg` that a build script says, in a job that compiled this unit with it.
    pub(super) fn is_of_script(&self, job: usize, unit: &UnitName, cause: &Cause) -> bool {
        let cfg = cause.name.strip_prefix("--cfg ").filter(|_| cause.kind == "argument");
        cfg.is_some_and(|cfg| self.0.get(&(job, unit.target.as_str(), cfg)) == Some(&true))
    }
}

/// The packages of a job with a build script that ran, or whose run was restored.
#[derive(Debug)]
struct Scripts<'a> {
    packages: HashSet<Package<'a>>,
    /// Versions of those whose crates have other names.
    renamed: HashSet<&'a str>,
}

impl<'a> Scripts<'a> {
    fn of(events: &'a [Kept]) -> Self {
        let (runs, others): (Vec<_>, Vec<_>) =
            events.iter().map(|event| &*event.unit).partition(|unit| unit.kind == RUN);
        let crates: HashSet<Package<'_>> =
            others.into_iter().filter(|unit| unit.kind != PROGRAM).map(package).collect();
        let packages: HashSet<Package<'a>> = runs.into_iter().map(package).collect();
        let renamed = packages.iter().filter(|package| !crates.contains(package));
        Self { renamed: renamed.map(|(_, version)| *version).collect(), packages }
    }

    /// Whether a unit is of such a package; the program of a script gets nothing that the script says.
    fn has(&self, unit: &UnitName) -> bool {
        let package = package(unit);
        unit.kind != PROGRAM
            && (self.packages.contains(&package) || self.renamed.contains(package.1))
    }
}

/// The package of a unit, named as a crate.
fn package(unit: &UnitName) -> Package<'_> {
    (unit.crate_name.replace('-', "_"), &unit.version)
}

/// Whether a unit is the run of the build script of another unit's package.
pub(super) fn is_run_for(run: &UnitName, unit: &UnitName) -> bool {
    run.kind == RUN && package(run) == package(unit)
}
