//! Chains of events made by hand.

use super::*;

fn event(name: &str, outcome: Outcome, reason: &str, causes: &[(&str, &str)]) -> Event {
    let cause = |(kind, name): &(&str, &str)| Cause {
        kind: (*kind).into(),
        name: (*name).into(),
        then: Some("liba-0.rmeta".into()),
        now: Some((*name).into()),
    };
    Event {
        id: name.into(),
        at_ms: 0,
        run: "run".into(),
        job: "job".into(),
        about: None,
        build: "build".into(),
        unit: UnitName { crate_name: name.into(), ..UnitName::default() },
        unit_key: None,
        result_key: None,
        outcome,
        reason: Some(reason.into()),
        detail: None,
        causes: causes.iter().map(cause).collect(),
        more_causes: 0,
        stem: Some(format!("{name}-1")),
        pinned: Vec::new(),
        conservative: Vec::new(),
        phases_us: BTreeMap::new(),
        bytes: 0,
        cost_ms: 10,
        cpu_ms: 0,
        wall_us: 0,
    }
}

fn missed(name: &str, causes: &[(&str, &str)]) -> Event {
    event(name, Outcome::Miss, "input-changed", causes)
}

fn lib(name: &str) -> String {
    format!("<target>/debug/deps/lib{name}-1.rmeta")
}

fn explained(events: Vec<Event>) -> Explanation {
    explain(&ExplainResponse { build: Some("build".into()), events, left_out: 0 })
}

/// What each chain begins with, where, and what followed.
fn told(events: Vec<Event>) -> Vec<(String, String, String)> {
    let names = |units: &[UnitName]| {
        units.iter().map(|unit| unit.crate_name.as_str()).collect::<Vec<_>>().join(" ")
    };
    explained(events)
        .chains
        .iter()
        .map(|chain| {
            let head = match (&chain.cause, &chain.reason) {
                (Some(told), _) => told.cause.name.clone(),
                (None, Some(reason)) => reason.clone(),
                (None, None) => chain.begins_with.to_owned(),
            };
            (head, names(&chain.began_in), names(&chain.then))
        })
        .collect()
}

fn want(chains: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    chains.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

#[test]
fn a_chain_is_followed_to_its_beginning() {
    let events = vec![
        missed("low", &[("file", "<workspace>/low.rs")]),
        missed("app", &[("file", &lib("mid")), ("file", &lib("low"))]),
        // Its event may come last: it is used before it is whole.
        missed("mid", &[("file", &lib("low"))]),
    ];
    assert_eq!(told(events.clone()), want(&[("<workspace>/low.rs", "low", "app mid")]));
    let app = &explained(events).compiled[1];
    let way: Vec<&str> = app.ways[0].units.iter().map(|unit| unit.crate_name.as_str()).collect();
    assert_eq!(way, ["app", "low"], "the shortest way");
}

#[test]
fn what_differs_in_many_units_is_one_chain() {
    let flag = ("argument", "-C opt-level");
    let events = vec![
        missed("low", &[flag]),
        missed("mid", &[flag, ("crate", &lib("low"))]),
        missed("app", &[("crate", &lib("mid"))]),
    ];
    assert_eq!(told(events), want(&[("-C opt-level", "low mid", "app")]));
}

/// A directory of libraries is handed to all that use the crate it belongs to.
#[test]
fn what_is_handed_on_began_with_the_lowest() {
    let tree = ("tree", "<workspace>/low/lib");
    let events = vec![
        missed("app", &[tree, ("file", &lib("mid"))]),
        missed("low", &[tree]),
        missed("mid", &[tree, ("file", &lib("low"))]),
    ];
    assert_eq!(told(events), want(&[(tree.1, "low", "app mid")]));
}

#[test]
fn files_of_two_packages_are_two() {
    let events = vec![
        missed("a", &[("file", "<package>/src/lib.rs")]),
        missed("b", &[("file", "<package>/src/lib.rs")]),
    ];
    assert_eq!(told(events).len(), 2);
}

#[test]
fn two_beginnings_are_two_chains() {
    let events = vec![
        missed("low", &[("file", "a.rs")]),
        missed("mid", &[("file", "b.rs"), ("file", &lib("low"))]),
        missed("app", &[("file", &lib("mid"))]),
    ];
    let found = told(events.clone());
    assert_eq!(found, want(&[("a.rs", "low", "mid app"), ("b.rs", "mid", "app")]));
    assert_eq!(explained(events).compiled[2].ways.len(), 2);
}

#[test]
fn a_crate_that_was_restored_ends_the_chain() {
    let mut low = event("low", Outcome::HitLocal, "", &[]);
    low.reason = None;
    let events =
        vec![low, missed("mid", &[("file", &lib("low"))]), missed("app", &[("file", &lib("mid"))])];
    assert_eq!(told(events.clone()), want(&[("restored", "low", "mid app")]));
    assert_eq!(explained(events).chains[0].cost_ms, 20, "what was restored cost nothing");
}

#[test]
fn a_crate_without_an_event_ends_the_chain() {
    let events =
        vec![missed("mid", &[("file", &lib("low"))]), missed("app", &[("file", &lib("mid"))])];
    assert_eq!(told(events.clone()), want(&[(lib("low").as_str(), "mid", "app")]));
    let text = &explained(events).chains[0].text;
    assert!(text.contains("compiled before this build"), "{text}");
}

#[test]
fn what_is_not_cached_ends_the_chain() {
    let events = vec![
        event("low", Outcome::Bypass, "incremental", &[]),
        event("mid", Outcome::Miss, "unknown-input", &[("file", "a.rs")]),
        missed("app", &[("file", &lib("mid")), ("file", &lib("low"))]),
        event("other", Outcome::Error, "server-absent", &[]),
        event("old", Outcome::Miss, "new-unit", &[]),
    ];
    let found = told(events.clone());
    for chain in [
        ("incremental", "low", "app"),
        ("unknown-input", "mid", "app"),
        ("server-absent", "other", ""),
        ("new-unit", "old", ""),
    ] {
        assert!(found.contains(&want(&[chain])[0]), "{chain:?} in {found:?}");
    }
    assert_eq!(found.len(), 4);
    let explanation = explained(events);
    assert_eq!((explanation.misses, explanation.bypasses, explanation.errors), (3, 1, 1));
    let text = &explanation.chains.iter().find(|c| c.reason.as_deref() == Some("incremental"));
    assert!(text.unwrap().text.contains("CARGO_INCREMENTAL=0"));
}

/// It cannot be, and must not keep anybody waiting.
#[test]
fn circles_end() {
    let events = vec![
        missed("a", &[("file", &lib("b"))]),
        missed("b", &[("file", &lib("a"))]),
        missed("c", &[("file", &lib("c"))]),
    ];
    let found = told(events);
    assert!(found.contains(&want(&[("input-changed", "a b", "")])[0]), "{found:?}");
    assert!(found.contains(&want(&[(lib("c").as_str(), "c", "")])[0]), "{found:?}");
}

#[test]
fn nothing_is_explained_as_nothing() {
    assert_eq!(explain(&ExplainResponse::default()), Explanation::default());
    let mut hit = event("a", Outcome::HitRemote, "", &[]);
    hit.reason = None;
    let explanation = explained(vec![hit]);
    assert_eq!((explanation.units, explanation.hits, explanation.chains.len()), (1, 1, 0));
}

#[test]
fn a_long_chain_is_followed_to_its_end() {
    let name = |n: usize| format!("c{n}");
    let mut events = vec![missed(&name(0), &[("file", "a.rs")])];
    events.extend((1..3000).map(|n| missed(&name(n), &[("file", &lib(&name(n - 1)))])));
    let explanation = explained(events);
    assert_eq!(explanation.chains.len(), 1);
    assert_eq!(explanation.chains[0].then.len(), 2999);
}
