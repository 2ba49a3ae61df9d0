//! [`Explanation`]: from the events of a build to what made it compile. Pure.
//!
//! Each event names what differed for its own unit. A file of another crate leads to the event of
//! that crate, by the stem of its outputs, and so on to where the chain of misses began. Called by
//! `kiln explain`.

mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_storage::api::{Cause, Event, ExplainResponse, Outcome};
use kiln_storage::record::UnitName;
use serde::Serialize;

pub use words::{Told, called, outcome_word};

use crate::reasons;

/// Most chains named for one unit, and most units named on the way to where one began.
const MAX_WAYS: usize = 16;

/// Reasons of misses that were stored: what differs is the explanation.
const EXPLAINED: &[&str] = &["new-unit", "input-changed"];

/// What became of a build, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The build; none when none is known.
    pub build: Option<String>,
    /// Its job.
    pub job: String,
    /// All units.
    pub units: usize,
    /// Units from the cache.
    pub hits: usize,
    /// Units that were compiled since nothing held.
    pub misses: usize,
    /// Units handed to the tool.
    pub bypasses: usize,
    /// Units compiled since Kiln failed.
    pub errors: usize,
    /// Units that are left out, of a build with too many.
    pub left_out: u64,
    /// Why units were compiled, costliest first; what cannot be cached last.
    pub chains: Vec<Chain>,
    /// Every unit that was not restored, in the order they ended.
    pub compiled: Vec<Compiled>,
    /// The units that were.
    pub restored: Vec<UnitName>,
}

/// One thing that made units compile: where it began and what followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// `cause`, `restored` or `reason`.
    pub begins_with: &'static str,
    /// What it is, for people.
    pub text: String,
    /// What may be done about it.
    pub hint: Option<String>,
    /// What differed.
    pub cause: Option<Told>,
    /// What else differed in the same units.
    pub also: Vec<Told>,
    /// The reason, where no difference explains it.
    pub reason: Option<String>,
    /// The units in which it began.
    pub began_in: Vec<UnitName>,
    /// The units that were compiled in consequence.
    pub then: Vec<UnitName>,
    /// Wall milliseconds of all these compiles.
    pub cost_ms: u64,
}

/// One unit that was not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compiled {
    /// The unit.
    pub unit: UnitName,
    /// Miss, bypass or error.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// What the reason means.
    pub note: Option<&'static str>,
    /// More about the reason.
    pub detail: Option<String>,
    /// What differs from the nearest earlier result.
    pub causes: Vec<Told>,
    /// How many differences are not named.
    pub more_causes: u64,
    /// The chains that lead here, bounded.
    pub ways: Vec<Way>,
    /// Wall milliseconds of the compile.
    pub cost_ms: u64,
}

/// How a chain leads to a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Which chain, from 0.
    pub chain: usize,
    /// The units from here to its beginning, bounded.
    pub units: Vec<UnitName>,
}

/// What a chain begins with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Root {
    /// Something differs; where it is named by the unit's own package, with the unit.
    Cause(Cause, Option<String>),
    /// A crate came from the cache, and is another than the one that was compiled with before.
    Restored(usize),
    /// Nothing that differs explains it.
    Reason(Outcome, String),
}

/// The events with what leads from one to another.
struct Graph<'a> {
    events: &'a [Event],
    /// The events by stem.
    stems: HashMap<&'a str, usize>,
    /// For each event those that it followed from.
    leads_to: Vec<Vec<usize>>,
    roots: BTreeMap<Root, BTreeSet<usize>>,
}

/// Whether what differs is the explanation of a reason: the result was stored.
pub fn is_explained(reason: &str) -> bool {
    EXPLAINED.contains(&reason)
}

fn is_hit(event: &Event) -> bool {
    match event.outcome {
        Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined => true,
        Outcome::Miss | Outcome::Bypass | Outcome::Error => false,
    }
}

fn reason(event: &Event) -> String {
    event.reason.clone().unwrap_or_else(|| "unspecified".to_owned())
}

/// The stem of a crate's file: `serde-1a2b` of `<target>/debug/deps/libserde-1a2b.rmeta`.
fn stem_of(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_prefix("lib")?;
    [".rlib", ".rmeta", ".so", ".dylib", ".a"].iter().find_map(|end| name.strip_suffix(end))
}

/// The stem of the crate that a cause is about, if it is about another crate.
fn crate_of(cause: &Cause) -> Option<&str> {
    match cause.kind.as_str() {
        "file" => stem_of(&cause.name),
        // One that was added or taken away is the unit's own change.
        "crate" if cause.then.is_some() => cause.now.as_deref().and_then(stem_of),
        _ => None,
    }
}

impl<'a> Graph<'a> {
    fn new(events: &'a [Event]) -> Self {
        let stems = events.iter().enumerate().filter_map(|(i, e)| Some((e.stem.as_deref()?, i)));
        let mut graph = Self {
            events,
            stems: stems.collect(),
            leads_to: vec![Vec::new(); events.len()],
            roots: BTreeMap::new(),
        };
        for (at, event) in events.iter().enumerate().filter(|(_, event)| !is_hit(event)) {
            graph.add(at, event);
        }
        let origins = graph.roots.values().flatten();
        let covered: BTreeSet<usize> = graph.reached_from(origins).into_keys().collect();
        // Only where events are missing or contradict each other.
        for (at, event) in events.iter().enumerate() {
            if !is_hit(event) && !covered.contains(&at) {
                graph.root(Root::Reason(event.outcome, reason(event)), at);
            }
        }
        graph
    }

    /// A directory that differs, by the file in it that another unit names.
    fn narrowed(&self, cause: &Cause) -> Cause {
        let within = |other: &&Cause| {
            let rest = other.name.strip_prefix(&cause.name);
            other.kind == "file" && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let file = match cause.kind.as_str() {
            "tree" => self.events.iter().flat_map(|event| &event.causes).find(within),
            _ => None,
        };
        file.unwrap_or(cause).clone()
    }

    /// The event of the crate that a cause is about.
    fn leads(&self, cause: &Cause) -> Option<usize> {
        self.stems.get(crate_of(cause)?).copied()
    }

    fn root(&mut self, root: Root, at: usize) {
        self.roots.entry(root).or_default().insert(at);
    }

    fn add(&mut self, at: usize, event: &'a Event) {
        let mut own = Vec::new();
        for cause in &event.causes {
            let other = self.leads(cause).filter(|other| *other != at);
            match other {
                None => own.push(cause),
                Some(other) => {
                    self.leads_to[at].push(other);
                    if is_hit(&self.events[other]) {
                        self.root(Root::Restored(other), other);
                    }
                }
            }
        }
        let explained = event.outcome == Outcome::Miss && is_explained(&reason(event));
        match own.first() {
            _ if !explained => self.root(Root::Reason(event.outcome, reason(event)), at),
            // What else is stored of a crate does not make two first compiles two things.
            Some(first) if first.kind == "first" => {
                let first = Cause { kind: first.kind.clone(), ..Cause::default() };
                self.root(Root::Cause(first, None), at);
            }
            Some(first) => {
                let first = &self.narrowed(first);
                let package = first.name.starts_with("<package>").then(|| called(&event.unit));
                self.root(Root::Cause(first.clone(), package), at);
            }
            None if event.causes.is_empty() => {
                self.root(Root::Reason(event.outcome, reason(event)), at);
            }
            None => {}
        }
    }

    /// The origins of a root that are none but for another one. Cargo hands the directories of a
    /// crate's libraries to all that use the crate: they differ for these, too.
    fn beginnings(&self, root: &Root, origins: &BTreeSet<usize>) -> BTreeSet<usize> {
        let handed_on =
            matches!(root, Root::Cause(cause, _) if matches!(cause.kind.as_str(), "file" | "tree"));
        let mut first = origins.clone();
        for origin in origins.iter().filter(|_| handed_on) {
            let reached = self.reached_from([origin]);
            first.retain(|at| at == origin || !reached.contains_key(at));
        }
        if first.is_empty() { origins.clone() } else { first }
    }

    /// The units that some origins lead to, with the next one on the way back to where it began.
    fn reached_from<'o>(
        &self,
        origins: impl IntoIterator<Item = &'o usize>,
    ) -> BTreeMap<usize, Option<usize>> {
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); self.events.len()];
        for (at, others) in self.leads_to.iter().enumerate() {
            others.iter().for_each(|other| followers[*other].push(at));
        }
        let mut reached: BTreeMap<usize, Option<usize>> =
            origins.into_iter().map(|at| (*at, None)).collect();
        let mut open: std::collections::VecDeque<usize> = reached.keys().copied().collect();
        while let Some(at) = open.pop_front() {
            for follower in &followers[at] {
                if !reached.contains_key(follower) {
                    reached.insert(*follower, Some(at));
                    open.push_back(*follower);
                }
            }
        }
        reached
    }
}

/// Explains a build.
pub fn explain(answer: &ExplainResponse) -> Explanation {
    let events = &answer.events;
    let graph = Graph::new(events);
    let mut chains: Vec<(Chain, BTreeMap<usize, Option<usize>>)> = graph
        .roots
        .iter()
        .map(|(root, origins)| {
            let origins = graph.beginnings(root, origins);
            let reached = graph.reached_from(&origins);
            (chain(&graph, root, &origins, &reached), reached)
        })
        .collect();
    chains.sort_by_key(|(chain, _)| {
        (chain.begins_with == "reason", std::cmp::Reverse((chain.cost_ms, chain.then.len())))
    });
    let count = |outcome: Outcome| events.iter().filter(|e| e.outcome == outcome).count();
    let missed = events.iter().enumerate().filter(|(_, event)| !is_hit(event));
    Explanation {
        build: answer.build.clone(),
        // cargo compiles crates of a registry in their own directories, and the workspace last.
        job: events.last().map(|event| event.job.clone()).unwrap_or_default(),
        units: events.len(),
        hits: events.iter().filter(|event| is_hit(event)).count(),
        misses: count(Outcome::Miss),
        bypasses: count(Outcome::Bypass),
        errors: count(Outcome::Error),
        left_out: answer.left_out,
        compiled: missed.map(|(at, event)| compiled(events, at, event, &chains)).collect(),
        restored: events.iter().filter(|e| is_hit(e)).map(|e| e.unit.clone()).collect(),
        chains: chains.into_iter().map(|(chain, _)| chain).collect(),
    }
}

fn chain(
    graph: &Graph<'_>,
    root: &Root,
    origins: &BTreeSet<usize>,
    reached: &BTreeMap<usize, Option<usize>>,
) -> Chain {
    let names = |list: &mut dyn Iterator<Item = &usize>| -> Vec<UnitName> {
        list.map(|at| graph.events[*at].unit.clone()).collect()
    };
    let compiled = reached.keys().map(|at| &graph.events[*at]).filter(|event| !is_hit(event));
    let base = Chain {
        began_in: names(&mut origins.iter()),
        then: names(&mut reached.keys().filter(|at| !origins.contains(at))),
        cost_ms: compiled.map(|event| event.cost_ms).sum(),
        ..Chain::default()
    };
    match root {
        Root::Cause(cause, _) => {
            let told = Told::new(cause);
            let mut also: Vec<Told> = Vec::new();
            for other in origins.iter().flat_map(|at| &graph.events[*at].causes) {
                let follows = graph.leads(other).is_some();
                let other = Told::new(other);
                if !follows
                    && other.cause.kind != "first"
                    && other != told
                    && !also.contains(&other)
                {
                    also.push(other);
                }
            }
            let before = crate_of(cause).map_or("", |_| ", compiled before this build");
            let text = format!("{}{before}", told.text);
            let hint = words::hint(cause).map(str::to_owned);
            Chain { begins_with: "cause", text, hint, cause: Some(told), also, ..base }
        }
        Root::Restored(at) => {
            let text = format!(
                "{} came from the cache, from another result than these were compiled with before",
                called(&graph.events[*at].unit)
            );
            Chain { begins_with: "restored", text, ..base }
        }
        Root::Reason(outcome, reason) => {
            let note = reasons::note(reason).map(|note| format!(": {note}")).unwrap_or_default();
            let text = format!("{} ({reason}){note}", outcome_word(*outcome));
            Chain { begins_with: "reason", text, reason: Some(reason.clone()), ..base }
        }
    }
}

fn compiled(
    events: &[Event],
    at: usize,
    event: &Event,
    chains: &[(Chain, BTreeMap<usize, Option<usize>>)],
) -> Compiled {
    let way = |reached: &BTreeMap<usize, Option<usize>>| {
        let mut units = vec![event.unit.clone()];
        let mut next = *reached.get(&at)?;
        while let Some(at) = next.filter(|_| units.len() < MAX_WAYS) {
            units.push(events[at].unit.clone());
            next = reached.get(&at).copied().flatten();
        }
        Some(units)
    };
    let ways = chains.iter().enumerate().filter_map(|(chain, (_, reached))| {
        let units = way(reached)?;
        Some(Way { chain, units })
    });
    Compiled {
        unit: event.unit.clone(),
        outcome: event.outcome,
        reason: reason(event),
        note: reasons::note(&reason(event)),
        detail: event.detail.clone(),
        causes: event.causes.iter().map(Told::new).collect(),
        more_causes: event.more_causes,
        ways: ways.take(MAX_WAYS).collect(),
        cost_ms: event.cost_ms,
    }
}

#[cfg(test)]
mod tests;
