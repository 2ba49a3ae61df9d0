//! Work that more than one job of a run did: which units, why their keys or results differ, and what would share
//! them. Pure.
//!
//! Units of one name (crate, version, kind, target) are taken in the order they were compiled. A compile is done
//! again when another job compiled the name before: with the same key (then time, inputs or a result that
//! was not stored kept them apart), or with another key, whose parts are compared with those of the nearest
//! earlier one. What differs only in the crates it is made with follows from these, and counts with them; what differs
//! in a `--cfg` that a build script says follows from the run of the script.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_storage::api::Cause;
use kiln_storage::api::report::{Twice, TwiceGroup};
use kiln_storage::parts::{self, CODEGEN, Rank};
use kiln_storage::record::{Member, UnitName};

use super::cfgs::{self, Cfgs};
use super::sums::is_compiled;
use super::{Job, Known, name};
use crate::history::chunk::Kept;
use crate::limits::{MAX_COMPARED_UNITS, MAX_NAMED_IN_GROUP, MAX_TWICE_GROUPS};

/// Longest chain of crates that is followed to where a difference began.
const MAX_CHAIN: usize = 64;

/// Most differences named in one group.
const MAX_DIFFERS: usize = 8;

/// A compile.
#[derive(Debug, Clone, Copy)]
struct Compile<'a> {
    job: usize,
    event: &'a Kept,
    key: &'a str,
    result: &'a str,
}

/// Compiles of one name with one key.
#[derive(Debug)]
struct Class<'a> {
    first: Compile<'a>,
    jobs: BTreeSet<usize>,
    results: BTreeSet<&'a str>,
}

/// A compile that another job did before.
#[derive(Debug)]
struct Again<'a> {
    compile: Compile<'a>,
    before: usize,
    why: Why,
}

/// Why it was not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// The same result was made at the same time, or could not be found.
    SameTime,
    /// Something that it reads differs.
    Inputs(Vec<Cause>),
    /// The earlier compile was not stored.
    NotStored(String),
    /// Parts of its key differ.
    Parts(Vec<Cause>),
    /// Only `--cfg`s differ, which the build script of its package says.
    Script(Vec<Cause>),
    /// Only these crates that it is made with differ.
    Crates(Vec<Cause>),
    /// Not known here any more.
    Unknown,
}

/// The names that more than one job compiled, with the compiles in their order.
fn shared(jobs: &[Job]) -> Vec<Vec<Compile<'_>>> {
    let mut names: HashMap<&UnitName, Vec<Compile<'_>>> = HashMap::new();
    for (job, of) in jobs.iter().enumerate() {
        for event in of.events.iter().filter(|event| is_compiled(event.outcome)) {
            let Some(more) = event.more.as_deref().filter(|more| !more.unit_key.is_empty()) else {
                continue;
            };
            let (key, result) = (more.unit_key.as_str(), more.result_key.as_str());
            names.entry(&event.unit).or_default().push(Compile { job, event, key, result });
        }
    }
    let mut shared: Vec<_> = names
        .into_values()
        .filter(|compiles| compiles.iter().any(|one| one.job != compiles[0].job))
        .collect();
    for compiles in &mut shared {
        compiles.sort_by_key(|one| (one.event.at_ms, one.job, one.event.id));
    }
    let cost =
        |compiles: &Vec<Compile<'_>>| -> u64 { compiles.iter().map(|one| one.event.cost_ms).sum() };
    shared.sort_by(|a, b| (cost(b), &a[0].event.unit).cmp(&(cost(a), &b[0].event.unit)));
    shared
}

/// The keys of units, and of results, whose making a report wants to know: the dearest first, bounded.
pub(super) fn wanted(jobs: &[Job]) -> Vec<(String, BTreeSet<String>)> {
    let mut wanted = Vec::new();
    for compiles in shared(jobs) {
        let mut keys: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for one in &compiles {
            let results = keys.entry(one.key).or_default();
            results.extend((!one.result.is_empty()).then(|| one.result.to_owned()));
        }
        for (key, results) in keys {
            if wanted.len() >= MAX_COMPARED_UNITS {
                return wanted;
            }
            // Of one result there is nothing to compare.
            let results = if results.len() > 1 { results } else { BTreeSet::new() };
            wanted.push((key.to_owned(), results));
        }
    }
    wanted
}

/// What was done more than once.
pub(super) fn find(jobs: &[Job], known: &Known) -> Twice {
    let (mut again, mut units) = (Vec::new(), 0);
    for compiles in shared(jobs) {
        let before = again.len();
        repeated(&compiles, known, &mut again);
        units += u64::from(again.len() > before);
    }
    tell_scripts_apart(&mut again, &Cfgs::of(jobs, known));
    let by_crate = ByCrate::of(&again);
    let mut groups: BTreeMap<(String, Vec<String>), Group<'_>> = BTreeMap::new();
    for one in &again {
        let root = origin(one, &again, &by_crate);
        let group = groups.entry(group_key(root)).or_insert_with(|| Group::new(root));
        group.add(one, jobs);
    }
    let mut groups: Vec<TwiceGroup> = groups.into_values().map(Group::finish).collect();
    groups.sort_by_key(|group| Reverse((group.saves_ms, group.compiles)));
    let groups_left_out = groups.len().saturating_sub(MAX_TWICE_GROUPS) as u64;
    groups.truncate(MAX_TWICE_GROUPS);
    Twice {
        units,
        compiles: again.len() as u64,
        cost_ms: again.iter().map(|one| one.compile.event.cost_ms).sum(),
        groups,
        groups_left_out,
    }
}

/// The compiles of one name that another job did before.
fn repeated<'a>(compiles: &[Compile<'a>], known: &Known, again: &mut Vec<Again<'a>>) {
    let mut classes: Vec<Class<'a>> = Vec::new();
    for one in compiles {
        if let Some(class) = classes.iter_mut().find(|class| class.first.key == one.key) {
            if class.jobs.insert(one.job) {
                let why = same_key(class, one, known);
                again.push(Again { compile: *one, before: class.first.job, why });
            }
            class.results.extend(Some(one.result).filter(|result| !result.is_empty()));
            continue;
        }
        let nearest = classes
            .iter()
            .filter(|class| !class.jobs.contains(&one.job))
            .filter_map(|class| Some((class.first.job, other_key(&class.first, one, known)?)))
            .min_by_key(|(_, (weight, _))| *weight);
        if let Some((before, (_, why))) = nearest {
            again.push(Again { compile: *one, before, why });
        }
        classes.push(Class {
            first: *one,
            jobs: BTreeSet::from([one.job]),
            results: Some(one.result).filter(|result| !result.is_empty()).into_iter().collect(),
        });
    }
}

/// Takes `--cfg`s of build scripts out of what decides alone, where there is more.
fn tell_scripts_apart(again: &mut [Again<'_>], cfgs: &Cfgs<'_>) {
    for one in again {
        let Why::Parts(causes) = &one.why else { continue };
        let (of_script, own): (Vec<Cause>, Vec<Cause>) =
            causes.iter().cloned().partition(|cause| {
                // Where it is gone, the job before has it.
                let job = if cause.now.is_some() { one.compile.job } else { one.before };
                cfgs.is_of_script(job, &one.compile.event.unit, cause)
            });
        match (own.is_empty(), of_script.is_empty()) {
            (true, false) => one.why = Why::Script(of_script),
            (false, false) => one.why = Why::Parts(own),
            (_, true) => {}
        }
    }
}

fn same_key(class: &Class<'_>, one: &Compile<'_>, known: &Known) -> Why {
    let reason = |of: &Compile<'_>| of.event.more.as_ref().map(|more| more.reason.clone());
    if class.results.is_empty() {
        return Why::NotStored(reason(&class.first).unwrap_or_default());
    }
    if one.result.is_empty() {
        return Why::NotStored(reason(one).unwrap_or_default());
    }
    if class.results.contains(one.result) {
        return Why::SameTime;
    }
    let inputs = |result: &str| known.inputs.get(&(one.key.to_owned(), result.to_owned()));
    let before = class.results.iter().find_map(|result| inputs(result));
    match (before, inputs(one.result)) {
        (Some(then), Some(now)) => {
            let causes = inputs_that_differ(then, now);
            let crates: Option<Vec<Cause>> = causes.iter().map(crate_of).collect();
            crates.filter(|_| !causes.is_empty()).map_or(Why::Inputs(causes), Why::Crates)
        }
        _ => Why::Unknown,
    }
}

/// The inputs of two results of a unit that differ.
fn inputs_that_differ(
    then: &[(Member, kiln_storage::Digest)],
    now: &[(Member, kiln_storage::Digest)],
) -> Vec<Cause> {
    let then: BTreeMap<_, _> = then.iter().map(|(member, value)| (member, value)).collect();
    let mut causes: Vec<Cause> = now
        .iter()
        .filter(|(member, value)| then.get(member).is_some_and(|before| *before != value))
        .map(|(member, _)| input(member))
        .collect();
    if causes.is_empty() {
        let new = now.iter().filter(|(member, _)| !then.contains_key(member));
        causes = new.map(|(member, _)| input(member)).collect();
    }
    // A variable tells more than the files that differ with it.
    causes.sort_by_key(|cause| (cause.kind != "variable", cause.kind == "tree"));
    causes
}

/// The crate that a cause is the file of, in a target directory.
fn crate_of(cause: &Cause) -> Option<Cause> {
    let file = cause.name.strip_prefix("<target>/").filter(|_| cause.kind == "file")?;
    let (stem, kind) = file.rsplit('/').next()?.rsplit_once('.')?;
    let (name, _) = stem.strip_prefix("lib")?.rsplit_once('-')?;
    matches!(kind, "rlib" | "rmeta" | "so").then(|| parts::cause("crate", name, None, None))
}

/// A member as a cause; the kinds are those of docs/explain.md.
fn input(member: &Member) -> Cause {
    let (kind, name) = match member {
        Member::File(path) => ("file", path.0.as_str()),
        Member::Listing(path) => ("names", path.0.as_str()),
        Member::Tree(path, _) => ("tree", path.0.as_str()),
        Member::Env(name, _) => ("variable", name.as_str()),
        Member::Mode(path) => ("mode", path.0.as_str()),
        Member::Program(name) => ("program", name.as_str()),
        Member::Upward(path, _) => ("nearest-file", path.0.as_str()),
        Member::Root(token) => ("place", token.as_str()),
        Member::DiagnosticWidth => ("width", ""),
        Member::Link(path) => ("link", path.0.as_str()),
        Member::Place(path) | Member::Resolved(path) => ("place", path.0.as_str()),
        Member::Processor => ("processor", ""),
        Member::Environment(_) => ("environment", ""),
    };
    parts::cause(kind, name, None, None)
}

/// The kind of a cause: the program of a build script.
const SCRIPT: &str = "script";

/// How far a key is from that of an earlier compile, and why; none: they are of different targets of a package.
fn other_key(then: &Compile<'_>, now: &Compile<'_>, known: &Known) -> Option<(usize, Why)> {
    let (Some(then), Some(now)) = (known.parts.get(then.key), known.parts.get(now.key)) else {
        return Some((usize::MAX, Why::Unknown));
    };
    if !parts::is_same_target(then, now) || !parts::is_same_tool(then, now) {
        return None;
    }
    let found = parts::differences(then, now);
    let weight = found.iter().filter(|(rank, _)| *rank != Rank::Follows).count();
    let of = |wanted: &[Rank]| -> Vec<Cause> {
        let some = found.iter().filter(|(rank, _)| wanted.contains(rank));
        some.map(|(_, cause)| cause.clone()).collect()
    };
    let own = Some(of(&[Rank::Own])).filter(|own| !own.is_empty());
    let own = own.unwrap_or_else(|| of(&[Rank::Declared]));
    let crates = of(&[Rank::Crate]);
    Some((
        weight,
        match (own.is_empty(), crates.is_empty()) {
            (false, _) => Why::Parts(own),
            (true, false) => Why::Crates(crates),
            // The run of another build script: what made it another one is told of its compile.
            (true, true) if found.iter().any(|(_, cause)| cause.kind == SCRIPT) => {
                let scripts = found.into_iter().map(|(_, cause)| cause);
                Why::Crates(scripts.filter(|cause| cause.kind == SCRIPT).collect())
            }
            // Cargo's own hash of all that it knows of the unit.
            (true, true) => Why::Parts(
                found
                    .into_iter()
                    .map(|(_, cause)| cause)
                    .filter(|cause| cause.name == format!("{CODEGEN} metadata"))
                    .collect(),
            ),
        },
    ))
}

/// Where crates are among what was done again.
#[derive(Debug, Default)]
struct ByCrate<'a> {
    in_job: HashMap<(usize, &'a str), usize>,
    anywhere: HashMap<&'a str, usize>,
}

impl<'a> ByCrate<'a> {
    fn of(again: &[Again<'a>]) -> Self {
        let mut by_crate = Self::default();
        for (at, one) in again.iter().enumerate() {
            let name = one.compile.event.unit.crate_name.as_str();
            by_crate.in_job.entry((one.compile.job, name)).or_insert(at);
            by_crate.anywhere.entry(name).or_insert(at);
        }
        by_crate
    }

    /// One that a job did again, or else another: jobs that build together have it from one another.
    fn find(&self, job: usize, name: &str) -> Option<usize> {
        self.in_job.get(&(job, name)).or_else(|| self.anywhere.get(name)).copied()
    }
}

/// The compile in which a difference began that leads to one.
fn origin<'g, 'a>(
    one: &'g Again<'a>,
    again: &'g [Again<'a>],
    by_crate: &ByCrate<'_>,
) -> &'g Again<'a> {
    let (mut at, mut steps) = (one, 0);
    loop {
        let next = match &at.why {
            Why::Crates(crates) => crates.iter().find_map(|cause| {
                if cause.kind == SCRIPT {
                    return again.iter().find(|other| is_script_of(other, at));
                }
                let name = cause.name.rsplit(':').next().unwrap_or_default();
                by_crate.find(at.compile.job, name).map(|next| &again[next])
            }),
            Why::Script(_) => run_for(at, again),
            _ => None,
        };
        match next.filter(|next| !std::ptr::eq(*next, at)) {
            Some(next) if steps < MAX_CHAIN => (at, steps) = (next, steps + 1),
            _ => break,
        }
    }
    at
}

/// Whether one is the compile, in the same job, of the build script that the other is the run of.
fn is_script_of(one: &Again<'_>, run: &Again<'_>) -> bool {
    let (script, of) = (&one.compile.event.unit, &run.compile.event.unit);
    one.compile.job == run.compile.job
        && script.kind == cfgs::PROGRAM
        && (&script.crate_name, &script.version) == (&of.crate_name, &of.version)
}

/// The run of the build script of what a compile was made of: in its job, or else in another.
fn run_for<'g, 'a>(one: &Again<'_>, again: &'g [Again<'a>]) -> Option<&'g Again<'a>> {
    let of = &one.compile.event.unit;
    let runs = || again.iter().filter(|run| cfgs::is_run_for(&run.compile.event.unit, of));
    runs().find(|run| run.compile.job == one.compile.job).or_else(|| runs().next())
}

fn kind(why: &Why) -> &'static str {
    match why {
        Why::SameTime => "same-time",
        Why::Inputs(_) => "inputs",
        Why::NotStored(_) => "not-stored",
        Why::Crates(_) => "dependencies",
        Why::Unknown => "unknown",
        Why::Script(_) => "build-script",
        Why::Parts(causes) => parts::kind_of(causes),
    }
}

/// What puts compiles into one group.
fn group_key(one: &Again<'_>) -> (String, Vec<String>) {
    let kind = kind(&one.why);
    let mut names: Vec<String> = match &one.why {
        Why::Inputs(causes) | Why::Parts(causes) | Why::Script(causes) => {
            causes.iter().map(|cause| format!("{}\0{}", cause.kind, cause.name)).collect()
        }
        Why::NotStored(reason) => vec![reason.clone()],
        Why::SameTime | Why::Crates(_) | Why::Unknown => Vec::new(),
    };
    // A feature is one of its crate, and so is what a script says.
    if matches!(kind, "features" | "build-script") {
        names.push(one.compile.event.unit.crate_name.clone());
    }
    (kind.to_owned(), names)
}

/// A group in the making.
struct Group<'a> {
    made: TwiceGroup,
    jobs: BTreeSet<&'a str>,
    units: BTreeMap<&'a UnitName, u64>,
}

impl<'a> Group<'a> {
    fn new(root: &Again<'a>) -> Self {
        let (differs, reason) = match &root.why {
            Why::Inputs(causes) | Why::Parts(causes) | Why::Script(causes) => {
                (causes.clone(), None)
            }
            Why::NotStored(reason) => (Vec::new(), Some(reason.clone())),
            Why::SameTime | Why::Crates(_) | Why::Unknown => (Vec::new(), None),
        };
        let kind = kind(&root.why);
        let mut made = TwiceGroup { kind: kind.into(), differs, reason, ..TwiceGroup::default() };
        made.differs.truncate(MAX_DIFFERS);
        made.advice = advice(kind, &root.compile.event.unit.crate_name);
        Self { made, jobs: BTreeSet::new(), units: BTreeMap::new() }
    }

    fn add(&mut self, one: &Again<'a>, jobs: &'a [Job]) {
        let Compile { job, event, .. } = one.compile;
        self.made.compiles += 1;
        self.made.saves_ms = self.made.saves_ms.saturating_add(event.cost_ms);
        self.jobs.extend([job, one.before].map(|job| jobs[job].row.job.as_str()));
        *self.units.entry(&event.unit).or_default() += event.cost_ms;
    }

    fn finish(self) -> TwiceGroup {
        let mut made = self.made;
        self.jobs.into_iter().for_each(|job| name(&mut made.jobs, job.to_owned()));
        let mut units: Vec<_> = self.units.into_iter().collect();
        units.sort_by_key(|(_, cost_ms)| Reverse(*cost_ms));
        made.units_left_out = units.len().saturating_sub(MAX_NAMED_IN_GROUP) as u64;
        units.truncate(MAX_NAMED_IN_GROUP);
        made.units = units.into_iter().map(|(unit, _)| unit.clone()).collect();
        made
    }
}

/// The change that would share the work.
fn advice(kind: &str, crate_name: &str) -> String {
    match kind {
        "same-time" => "the jobs compiled the same at the same time: let one of them go first, and the \
                        others have it from the cache",
        "inputs" => "what is read differs between the jobs: make it the same in all of them",
        "not-stored" => "nothing was stored that the other jobs could have had; the reason says why",
        "features" => {
            return format!(
                "build {crate_name} with the same features in all of these jobs (cargo unites the features \
                 of what one command builds)"
            );
        }
        "profile" => "build with the same profile settings in all of these jobs",
        "flags" => "set the same RUSTFLAGS and cargo settings in all of these jobs",
        "build-script" => {
            return format!(
                "the build script of {crate_name} says other --cfgs in these jobs, by what it reads: make that the \
                 same in all of them, where it can be"
            );
        }
        "compiler" => "use the same toolchain in all of these jobs",
        "arguments" => "build with the same arguments in all of these jobs",
        "dependencies" => "the crates that they are made with differ between the jobs; where that began is \
                           not in this run",
        _ => "what they were made of is not known here any more",
    }
    .to_owned()
}
