//! [`Found`]: what was seen, as inputs: the rules applied to every fact. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kiln_observer::log::{Kind, Lost, flags};

use super::made::Made;
use super::rules::{Around, Verdict, verdict};
use super::seen::{Fact, Origin, Seen, Unobserved};

/// What was found to be inputs, with local names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Paths by content, and whether something was there.
    pub content: BTreeMap<String, bool>,
    /// Directories by the names in them.
    pub names: BTreeSet<String>,
    /// Symbolic links.
    pub links: BTreeSet<String>,
    /// Places.
    pub places: BTreeSet<String>,
    /// Variables.
    pub variables: BTreeSet<String>,
    /// Whether all variables count.
    pub environment: bool,
    /// Whether those count that do not belong to a session.
    pub lasting: bool,
    /// Programs, by path or bare name.
    pub programs: BTreeSet<String>,
    /// Objects that plugins are, or that came with programs they started: their content says what
    /// could not be seen of them.
    pub code: BTreeSet<String>,
    /// Programs that plugins started, and that those started, by path: they get all variables. Those that
    /// were not observed as well, as they were named.
    pub helpers: BTreeSet<String>,
    /// What plugins and their helpers wrote.
    pub written: BTreeSet<String>,
    /// What of that was not there before.
    pub made: BTreeSet<String>,
    /// Why it is not known what was read; empty when all of it is known.
    pub doubts: Vec<String>,
    /// Something that cannot be named in an input set.
    pub unnameable: Option<String>,
}

/// Applies the rules.
pub fn apply(seen: &Seen, around: &Around<'_>) -> Found {
    let mut found = Found { doubts: doubts(seen), ..Found::default() };
    let unobserved = seen.unobserved.iter().filter(|started| started.origin.is_foreign());
    found.helpers =
        unobserved.map(|started| String::from_utf8_lossy(&started.program).into()).collect();
    let mut made = Made::default();
    for fact in &seen.facts {
        let Ok(name) = std::str::from_utf8(&fact.name) else {
            if counts_unnamed(fact, around) {
                found.unnameable = Some(String::from_utf8_lossy(&fact.name).into_owned());
            }
            continue;
        };
        let foreign = fact.origin.is_foreign();
        made.note(fact, name);
        if fact.kind == Kind::Write {
            if foreign {
                found.written.insert(name.to_owned());
            }
            if foreign && fact.has(flags::FRESH) {
                found.made.insert(name.to_owned());
            }
        }
        if fact.origin == Origin::Helper && fact.kind == Kind::Process {
            found.helpers.insert(name.to_owned());
        }
        if fact.kind != Kind::Variable && made.covers(name) {
            continue;
        }
        let object = matches!(fact.kind, Kind::Object | Kind::Process);
        found.lasting |= fact.origin == Origin::Script;
        let is_code = match fact.origin {
            Origin::Tool => fact.kind == Kind::Object && !fact.has(flags::START),
            Origin::Plugin | Origin::Helper => object,
            Origin::Proxy | Origin::Linker | Origin::Script | Origin::Own => false,
        };
        if is_code && name.starts_with('/') && !(around.covered)(name) {
            found.code.insert(name.to_owned());
        }
        let verdict = verdict(fact, name, around);
        if foreign && is_unkeyable(fact, name, verdict) {
            found.unnameable = Some(name.to_owned());
            continue;
        }
        take(&mut found, fact, name, verdict);
    }
    found
}

/// A program by a path relative to wherever it was started, and a variable of a name that no environment
/// can hold on its own.
fn is_unkeyable(fact: &Fact, name: &str, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Program => name.contains('/') && !name.starts_with('/'),
        Verdict::Value => fact.kind == Kind::Variable && name.contains('='),
        _ => false,
    }
}

fn counts_unnamed(fact: &Fact, around: &Around<'_>) -> bool {
    verdict(fact, &String::from_utf8_lossy(&fact.name), around) != Verdict::Ignore
}

fn take(found: &mut Found, fact: &Fact, name: &str, verdict: Verdict) {
    match verdict {
        Verdict::Ignore => {}
        Verdict::Content => {
            let there = !fact.has(flags::FAILED);
            *found.content.entry(name.to_owned()).or_default() |= there;
            if fact.has(flags::LINK) {
                found.links.insert(name.to_owned());
            }
        }
        Verdict::Names => drop(found.names.insert(name.to_owned())),
        Verdict::Link => drop(found.links.insert(name.to_owned())),
        Verdict::Place => drop(found.places.insert(name.to_owned())),
        Verdict::Value => drop(found.variables.insert(name.to_owned())),
        Verdict::Environment => {
            found.environment = true;
            found.doubts.push(format!("{name} was read"));
        }
        Verdict::Program => drop(found.programs.insert(name.to_owned())),
        Verdict::Doubt => found.doubts.push(format!("{name} cannot be told")),
    }
}

/// Why it is not known what was read.
pub fn doubts(seen: &Seen) -> Vec<String> {
    let mut doubts = Vec::new();
    if !seen.began {
        doubts.push("nothing was seen to load the observer".to_owned());
    }
    for (bit, why) in [
        (Lost::FULL, "more was read than the log holds"),
        (Lost::PATH, "a path could not be told"),
        (Lost::CHILD, "a program was started in a way that is not followed"),
        (Lost::TORN, "the log is not whole"),
        (Lost::UNSEEN, "something was read by a function of libc that is not followed"),
    ] {
        if seen.lost & bit != 0 {
            doubts.push(why.to_owned());
        }
    }
    for Unobserved { origin, program, .. } in &seen.unobserved {
        if origin.is_foreign() {
            let program = String::from_utf8_lossy(program);
            doubts.push(format!("{program} was started and cannot be observed"));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Around<'static> =
        Around { covered: &|_| false, output: &|_| false, declared: &|_| false };

    fn fact(kind: Kind, bits: u8, name: &str) -> Fact {
        Fact { origin: Origin::Plugin, kind, flags: bits, name: name.into() }
    }

    fn found(facts: Vec<Fact>) -> Found {
        apply(&Seen { facts, began: true, ..Seen::default() }, &AROUND)
    }

    #[test]
    fn what_is_there_and_what_is_not_are_told_apart() {
        let absent = flags::FAILED | flags::ABSENT;
        let found = found(vec![
            fact(Kind::Read, 0, "/there"),
            fact(Kind::Look, absent, "/absent"),
            fact(Kind::Look, absent, "/later"),
            fact(Kind::Read, 0, "/later"),
            fact(Kind::Look, flags::LINK, "/link"),
            fact(Kind::List, 0, "/dir"),
            fact(Kind::Variable, 0, "X"),
        ]);
        let content: Vec<(&str, bool)> = found.content.iter().map(|(p, t)| (&**p, *t)).collect();
        let want = [("/absent", false), ("/later", true), ("/link", true), ("/there", true)];
        assert_eq!(content, want);
        assert_eq!(found.links, BTreeSet::from(["/link".to_owned()]));
        assert_eq!(found.names, BTreeSet::from(["/dir".to_owned()]));
        assert_eq!(found.variables, BTreeSet::from(["X".to_owned()]));
        assert_eq!(found.doubts, Vec::<String>::new());
    }

    #[test]
    fn what_a_run_made_itself_is_no_input_but_what_it_read_before_is() {
        let found = found(vec![
            fact(Kind::Read, 0, "/before"),
            fact(Kind::Write, 0, "/before"),
            fact(Kind::Write, 0, "/made"),
            fact(Kind::Read, 0, "/made"),
            fact(Kind::List, 0, "/made/below"),
            fact(Kind::Read, 0, "/made-not"),
        ]);
        let content: Vec<&str> = found.content.keys().map(String::as_str).collect();
        assert_eq!(content, ["/before", "/made-not"]);
        assert!(found.names.is_empty());
        assert_eq!(found.written, BTreeSet::from(["/before".to_owned(), "/made".to_owned()]));
    }

    #[test]
    fn code_that_was_loaded_or_started_is_told() {
        let mut helper = fact(Kind::Process, 0, "/usr/bin/git");
        helper.origin = Origin::Helper;
        let mut tool = fact(Kind::Object, 0, "/ws/target/libmac.so");
        tool.origin = Origin::Tool;
        let mut start = fact(Kind::Object, flags::START, "/lib/libc.so.6");
        start.origin = Origin::Tool;
        assert!(found(vec![tool.clone()]).helpers.is_empty());
        let found = found(vec![helper, tool, start]);
        let code: Vec<&str> = found.code.iter().map(String::as_str).collect();
        assert_eq!(code, ["/usr/bin/git", "/ws/target/libmac.so"]);
        assert_eq!(found.helpers, BTreeSet::from(["/usr/bin/git".to_owned()]));
        assert!(!found.environment);
    }

    #[test]
    fn doubts_say_why() {
        let unobserved = |origin| vec![Unobserved { origin, pid: 1, program: b"/static".to_vec() }];
        let seen = |lost, unobserved, began| Seen { lost, unobserved, began, ..Seen::default() };
        for (seen, want) in [
            (seen(0, vec![], false), "nothing was seen to load the observer"),
            (seen(Lost::FULL, vec![], true), "more was read than the log holds"),
            (seen(Lost::TORN, vec![], true), "the log is not whole"),
            (
                seen(0, unobserved(Origin::Plugin), true),
                "/static was started and cannot be observed",
            ),
        ] {
            assert_eq!(apply(&seen, &AROUND).doubts, [want]);
        }
        let unseen = apply(&seen(0, unobserved(Origin::Plugin), true), &AROUND);
        assert_eq!(unseen.helpers, BTreeSet::from(["/static".to_owned()]));
        let linker = seen(0, unobserved(Origin::Linker), true);
        assert_eq!(apply(&linker, &AROUND).doubts, Vec::<String>::new());
    }

    #[test]
    fn a_name_that_is_no_text_is_told_where_it_counts() {
        let odd = |origin| Fact { origin, kind: Kind::Read, flags: 0, name: vec![b'/', 0xff] };
        assert!(found(vec![odd(Origin::Plugin)]).unnameable.is_some());
        assert!(found(vec![odd(Origin::Linker)]).unnameable.is_none());
    }
}
