//! The variables that a [`Member::Environment`] covers: which they are, and, one by one, what differs from an
//! earlier result.
//!
//! A key has one digest of them all. So that a miss can say which of them differ, a record lists their names with
//! the short form of a digest each, never a value: [`list`], called where records are made. [`differences`] is
//! called by [`crate::causes`], on a miss only.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use kiln_storage::api::Cause;
use kiln_storage::limits::{MAX_COUNTED_VARIABLES, MAX_PART_BYTES};
use kiln_storage::record::{EnvForm, Member, Variables};

use crate::env::Env;
use crate::members::Evaluator;
use crate::silent;

/// The kind of cause that one of the variables is.
const ENVIRONMENT: &str = "environment";
/// What the value of a variable is called that is not there.
pub const UNSET: &str = "unset";

/// Names with the short forms of digests, as in [`kiln_storage::Record::variables`].
pub type List = BTreeMap<String, String>;

/// The variables that are covered, in the order of their names: never Kiln's own and the jobserver, which no
/// output may depend on.
pub fn covered(env: &Env, which: Variables) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    env.iter().filter(move |(name, _)| {
        let left_out = |name: &str| {
            silent::is_neutral(name) || (which == Variables::Lasting && silent::is_of_session(name))
        };
        !name.to_str().is_some_and(left_out)
    })
}

/// The variables that count for members that cover many, as they are here; none where no member does, or where
/// there are too many.
pub fn list(evaluator: &mut Evaluator<'_>, members: &[Member]) -> List {
    let which = members.iter().filter_map(of_member).min();
    which.map(|which| of(evaluator, which)).unwrap_or_default()
}

/// What a member covers; of two, the lesser one is the one that covers more.
pub fn of_member(member: &Member) -> Option<Variables> {
    match member {
        Member::Environment(which) => Some(*which),
        _ => None,
    }
}

/// Those with a name that is a text, and no endless one: of others nothing is said.
fn of(evaluator: &mut Evaluator<'_>, which: Variables) -> List {
    let form = match which {
        Variables::All => EnvForm::Raw,
        Variables::Lasting => EnvForm::Tokens,
    };
    let names = covered(evaluator.env, which).filter_map(|(name, _)| name.to_str());
    let names: Vec<String> =
        names.filter(|name| name.len() <= MAX_PART_BYTES).map(str::to_owned).collect();
    if names.len() > MAX_COUNTED_VARIABLES {
        return List::new();
    }
    let value = |name: String| {
        let value = evaluator.value(&Member::Env(name.clone(), form))?;
        Some((name, value.short()))
    };
    names.into_iter().filter_map(value).collect()
}

/// The variables that are not as an earlier result lists them, in the order of their names. A result of which
/// nothing is listed tells nothing.
pub fn differences(evaluator: &mut Evaluator<'_>, which: Variables, then: &List) -> Vec<Cause> {
    let now = of(evaluator, which);
    if then.is_empty() || now.is_empty() {
        return Vec::new();
    }
    let mut names: Vec<&String> = then.keys().chain(now.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let value = |list: &List, name: &str| list.get(name).map_or(UNSET, String::as_str).to_owned();
    let differing = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    let cause = |name: &String| Cause {
        kind: ENVIRONMENT.to_owned(),
        name: name.clone(),
        then: Some(value(then, name)),
        now: Some(value(&now, name)),
    };
    differing.map(cause).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memo::Memo;
    use crate::roots::Roots;

    const LASTING: Variables = Variables::Lasting;

    fn with<T>(env: &[(&str, &str)], work: impl FnOnce(&mut Evaluator<'_>) -> T) -> T {
        let env = Env::of_pairs(env.iter().copied());
        let roots = Roots::from_pairs([("workspace", "/a/ws".into())]);
        work(&mut Evaluator::new(&env, &roots, &Memo::default(), None))
    }

    fn listed(env: &[(&str, &str)], which: &[Variables]) -> List {
        let members: Vec<Member> = which.iter().copied().map(Member::Environment).collect();
        with(env, |evaluator| list(evaluator, &members))
    }

    #[test]
    fn names_and_short_digests_of_what_is_covered() {
        let env = [("A", "secret"), ("B", "/a/ws/x"), ("KILN_JOB", "x"), ("SHLVL", "1")];
        let names = |which: &[Variables]| listed(&env, which).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&[]), [""; 0]);
        assert_eq!(names(&[LASTING]), ["A", "B"]);
        assert_eq!(names(&[LASTING, Variables::All]), ["A", "B", "SHLVL"]);
        let list = listed(&env, &[LASTING]);
        assert!(list.values().all(|value| kiln_storage::Digest::is_short(value)), "{list:?}");
        assert!(!format!("{list:?}").contains("secret"));
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let told = |then: &[(&str, &str)], now: &[(&str, &str)]| {
            let then = listed(then, &[LASTING]);
            let causes = with(now, |evaluator| differences(evaluator, LASTING, &then));
            let word = |value: &Option<String>| match value.as_deref() {
                Some(UNSET) => UNSET,
                _ => "#",
            };
            let line = |c: &Cause| format!("{} {} {}", c.name, word(&c.then), word(&c.now));
            causes.iter().map(line).collect::<Vec<_>>()
        };
        let (then, now) =
            ([("A", "1"), ("B", ""), ("C", "1")], [("B", "1"), ("C", "1"), ("D", "")]);
        assert_eq!(told(&then, &now), ["A # unset", "B # #", "D unset #"]);
        assert_eq!(told(&then, &then), [""; 0]);
        // Nothing is known, or nothing of it is said.
        assert_eq!(told(&[], &now), [""; 0]);
        let long = "X".repeat(MAX_PART_BYTES + 1);
        assert_eq!(told(&[("A", "1")], &[("A", "1"), (&long, "1")]), [""; 0]);
    }

    #[test]
    fn too_many_are_not_listed() {
        let names: Vec<String> = (0..=MAX_COUNTED_VARIABLES).map(|n| format!("N{n}")).collect();
        let env: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(listed(&env, &[LASTING]), List::new());
        assert_eq!(listed(&env[1..], &[LASTING]).len(), MAX_COUNTED_VARIABLES);
    }
}
