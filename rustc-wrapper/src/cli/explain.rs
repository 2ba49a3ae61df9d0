//! `kiln explain`: why units of a build were compiled, and where that began.

use std::process::ExitCode;

use kiln_server::config::distance;
use kiln_storage::api::ExplainResponse;
use kiln_storage::limits;
use kiln_storage::record::UnitName;

use super::{Format, time};
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::env::Env;
use crate::explain::{
    Chain, Compiled, Explanation, Told, called, explain, is_explained, outcome_word,
};
use crate::{local, say};

/// Most units named in one list.
const MAX_NAMED: usize = 12;
/// Most further differences shown for one chain.
const MAX_ALSO: usize = 3;
/// Most chains shown one by one.
const MAX_CHAINS: usize = 20;
/// Most names proposed for one that is not known.
const MAX_PROPOSED: usize = 5;

pub(super) fn run(
    env: &Env,
    config: &Config,
    format: Format,
    asked: (Option<&str>, Option<&str>),
) -> ExitCode {
    let (name, build) = asked;
    // Events are kept by the server; one is started to read them.
    let read = local::connect(env, config).and_then(|mut client| read(&mut client, build));
    let answer = match read {
        Ok(answer) => answer,
        Err(error) => {
            say::error(
                &format!("nothing can be explained: {error}"),
                &["kiln doctor looks for the reason"],
            );
            return ExitCode::FAILURE;
        }
    };
    if let Some(build) = build.filter(|_| answer.events.is_empty()) {
        say::error(
            &format!("no build {build:?} is known"),
            &["kiln explain --format json names the last one; events of old builds go"],
        );
        return ExitCode::FAILURE;
    }
    let mut explanation = explain(&answer);
    if let Some(name) = name {
        let (known, near) = narrow(&mut explanation, name);
        if !known {
            say::error(
                &format!("no unit of a crate {name:?} in this build"),
                &[&match near.is_empty() {
                    true => {
                        "units that cargo finds fresh are not compiled and not listed".to_owned()
                    }
                    false => format!("there is {}", near.join(", ")),
                }],
            );
            return ExitCode::FAILURE;
        }
    }
    say::result(&match (format, name) {
        (Format::Json, _) => serde_json::to_string_pretty(&explanation).unwrap_or_default(),
        (Format::Text, None) => text(&explanation),
        (Format::Text, Some(_)) => crate_text(&explanation),
    });
    ExitCode::SUCCESS
}

/// The events of a build.
fn read(client: &mut Client, build: Option<&str>) -> Result<ExplainResponse, ClientError> {
    let query = build.map(|build| format!("?build={}", in_query(build))).unwrap_or_default();
    let path = format!("/v1/explain{query}");
    let answer = client.request("GET", &path, &[], limits::LOOKUP_TIMEOUT)?;
    serde_json::from_slice(&answer).map_err(|_| ClientError::Foreign("explain"))
}

/// A text as a part of an address.
pub(super) fn in_query(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Packages are written with `-`, their crates with `_`.
fn same_name(a: &str, b: &str) -> bool {
    a.replace('-', "_") == b.replace('-', "_")
}

/// Leaves out the units of other crates. Whether there is any, and else what the name may stand for.
fn narrow(explanation: &mut Explanation, name: &str) -> (bool, Vec<String>) {
    let all = explanation.compiled.iter().map(|c| &c.unit).chain(&explanation.restored);
    let mut names: Vec<String> = all.map(|unit| unit.crate_name.clone()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    if !names.iter().any(|known| same_name(known, name)) {
        names.retain(|known| is_near(known, name));
        names.sort_by_key(|known| distance(known, name));
        names.truncate(MAX_PROPOSED);
        return (false, names);
    }
    explanation.compiled.retain(|compiled| same_name(&compiled.unit.crate_name, name));
    explanation.restored.retain(|unit| same_name(&unit.crate_name, name));
    (true, Vec::new())
}

fn is_near(known: &str, asked: &str) -> bool {
    let part_of = |part: &str, whole: &str| part.len() > 2 && whole.contains(part);
    distance(known, asked) <= 1 + asked.len() / 3 || part_of(asked, known) || part_of(known, asked)
}

fn units(count: usize) -> String {
    if count == 1 { "1 unit".to_owned() } else { format!("{count} units") }
}

/// The first line: what became of the build as a whole.
fn head(explanation: &Explanation) -> String {
    let mut parts = vec![format!("{} from the cache", explanation.hits)];
    for (count, what) in [
        (explanation.misses, "compiled"),
        (explanation.bypasses, "not cached"),
        (explanation.errors, "compiled since Kiln failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let left_out = match explanation.left_out {
        0 => String::new(),
        n => format!(" ({n} more are left out)"),
    };
    let job = say::inline(&explanation.job);
    format!("build of {job}: {}: {}{left_out}\n", units(explanation.units), parts.join(", "))
}

/// The explanation of a build for people.
pub(super) fn text(explanation: &Explanation) -> String {
    if explanation.units == 0 {
        return "no units are known of this build\n\n\
                Units that cargo finds fresh are not compiled and not counted; kiln doctor tells \
                whether cargo calls Kiln."
            .to_owned();
    }
    let mut out = head(explanation);
    if explanation.hits == explanation.units {
        out.push_str("\nEverything came from the cache: there is nothing to explain.\n");
        return out;
    }
    for (n, chain) in explanation.chains.iter().take(MAX_CHAINS).enumerate() {
        out.push_str(&format!("\n{}. {}\n", n + 1, chain.text));
        chain_text(&mut out, chain);
    }
    if explanation.chains.len() > MAX_CHAINS {
        let more = explanation.chains.len() - MAX_CHAINS;
        out.push_str(&format!("\n... and {more} more; --format json has all\n"));
    }
    out.push_str("\nkiln explain CRATE shows one crate\n");
    out
}

fn chain_text(out: &mut String, chain: &Chain) {
    if !chain.also.is_empty() {
        let texts: Vec<String> = chain.also.iter().map(|told| told.text.clone()).collect();
        out.push_str(&format!("   also   {}\n", list(&texts, "; ", MAX_ALSO)));
    }
    out.push_str(&format!("   in     {}\n", list(&names(&chain.began_in), ", ", MAX_NAMED)));
    if !chain.then.is_empty() {
        out.push_str(&format!(
            "   then   {}: {}\n",
            units(chain.then.len()),
            list(&names(&chain.then), ", ", MAX_NAMED)
        ));
    }
    if chain.cost_ms > 0 {
        out.push_str(&format!("   cost   {} of compiling\n", time(chain.cost_ms)));
    }
    if let Some(hint) = &chain.hint {
        out.push_str(&format!("   hint   {hint}\n"));
    }
}

/// The first of some texts, and how many more there are.
fn list(texts: &[String], between: &str, most: usize) -> String {
    let mut out = texts[..texts.len().min(most)].join(between);
    if texts.len() > most {
        out.push_str(&format!(" and {} more", texts.len() - most));
    }
    out
}

/// What units are called, each once.
fn names(units: &[UnitName]) -> Vec<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for name in units.iter().map(called) {
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counted.push((name, 1)),
        }
    }
    let show = |(name, count)| if count == 1 { name } else { format!("{name} x {count}") };
    counted.into_iter().map(show).collect()
}

/// The explanation of one crate for people.
fn crate_text(explanation: &Explanation) -> String {
    let mut blocks: Vec<String> =
        explanation.compiled.iter().map(|c| compiled_text(c, &explanation.chains)).collect();
    let restored = explanation.restored.iter().map(|u| format!("{}: from the cache\n", called(u)));
    blocks.extend(restored);
    blocks.join("\n")
}

fn compiled_text(compiled: &Compiled, chains: &[Chain]) -> String {
    let mut out = format!(
        "{}: {} in {} ({})\n",
        called(&compiled.unit),
        outcome_word(compiled.outcome),
        time(compiled.cost_ms),
        say::inline(&compiled.reason)
    );
    if compiled.causes.is_empty() || !is_explained(&compiled.reason) {
        let note = compiled.note.unwrap_or("no more is known");
        out.push_str(&format!("  {note}\n"));
        if let Some(detail) = &compiled.detail {
            out.push_str(&format!("  {}\n", say::inline(detail)));
        }
    }
    // A unit that is never stored is compiled for the first time each time.
    let telling = |told: &&Told| is_explained(&compiled.reason) || told.cause.kind != "first";
    let causes: Vec<&Told> = compiled.causes.iter().filter(telling).collect();
    if !causes.is_empty() {
        out.push_str("  what differs from the nearest earlier result:\n");
    }
    for told in causes {
        out.push_str(&format!("    {}\n", told.text));
    }
    if compiled.more_causes > 0 {
        out.push_str(&format!("    ... and {} more\n", compiled.more_causes));
    }
    for way in compiled.ways.iter().filter(|way| way.units.len() > 1) {
        let names: Vec<String> = way.units.iter().map(called).collect();
        out.push_str(&format!("  it followed from {}\n", names[1..].join(", from ")));
        if let Some(chain) = chains.get(way.chain) {
            out.push_str(&format!("    {}\n", chain.text));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::{Cause, Outcome};

    fn unit(name: &str) -> UnitName {
        UnitName {
            crate_name: name.into(),
            version: "0.1.0".into(),
            kind: "lib".into(),
            target: "host".into(),
        }
    }

    #[test]
    fn near_names_are_proposed() {
        assert_eq!(distance("serde", "sedre"), 2);
        assert_eq!(distance("", "ab"), 2);
        let mut explanation = Explanation {
            restored: ["serde", "serde_json", "libc"].map(unit).to_vec(),
            ..Explanation::default()
        };
        assert_eq!(narrow(&mut explanation, "sered"), (false, vec!["serde".to_owned()]));
        let near = vec!["serde".to_owned(), "serde_json".to_owned()];
        assert_eq!(narrow(&mut explanation, "serd"), (false, near));
        assert_eq!(narrow(&mut explanation, "rand"), (false, vec![]));
        assert_eq!(narrow(&mut explanation, "serde-json"), (true, vec![]));
        assert_eq!(explanation.restored, [unit("serde_json")]);
    }

    #[test]
    fn units_of_one_name_are_counted() {
        assert_eq!(names(&["a", "b", "a"].map(unit)), ["a 0.1.0 (lib) x 2", "b 0.1.0 (lib)"]);
    }

    #[test]
    fn queries_hold_any_name() {
        assert_eq!(in_query("12-3_a.b"), "12-3_a.b");
        assert_eq!(in_query("a b&\u{e9}"), "a%20b%26%C3%A9");
    }

    #[test]
    fn a_chain_is_shown_with_all_that_belongs_to_it() {
        let cause = Cause { kind: "first".into(), ..Cause::default() };
        let chain = Chain {
            begins_with: "cause",
            text: "file low/src/lib.rs changed (1 -> 2)".into(),
            hint: Some("do this".into()),
            also: vec![Told::new(&cause)],
            began_in: vec![unit("low")],
            then: (0..14).map(|n| unit(&format!("c{n}"))).collect(),
            cost_ms: 1500,
            ..Chain::default()
        };
        let explanation = Explanation {
            job: "app".into(),
            units: 16,
            hits: 1,
            misses: 15,
            chains: vec![chain],
            ..Explanation::default()
        };
        let text = text(&explanation);
        for part in [
            "build of app: 16 units: 1 from the cache, 15 compiled\n",
            "\n1. file low/src/lib.rs changed (1 -> 2)\n   also   first compile",
            "   in     low 0.1.0 (lib)\n   then   14 units: c0 0.1.0 (lib), c1",
            "c11 0.1.0 (lib) and 2 more\n   cost   1.5 s of compiling\n   hint   do this\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn nothing_and_all_hits_are_said() {
        assert!(text(&Explanation::default()).contains("no units are known"));
        let all = Explanation { units: 2, hits: 2, ..Explanation::default() };
        assert!(text(&all).contains("Everything came from the cache"));
    }

    #[test]
    fn one_crate_shows_the_way_to_the_beginning() {
        let compiled = Compiled {
            unit: unit("app"),
            outcome: Outcome::Miss,
            reason: "input-changed".into(),
            note: None,
            detail: None,
            causes: Vec::new(),
            more_causes: 3,
            ways: vec![crate::explain::Way {
                chain: 0,
                units: vec![unit("app"), unit("mid"), unit("low")],
            }],
            cost_ms: 7,
        };
        let chain = Chain { text: "the beginning".into(), ..Chain::default() };
        let shown = compiled_text(&compiled, &[chain]);
        assert!(
            shown.starts_with("app 0.1.0 (lib): compiled in 7 ms (input-changed)\n"),
            "{shown}"
        );
        let way = "  it followed from mid 0.1.0 (lib), from low 0.1.0 (lib)\n    the beginning\n";
        assert!(shown.contains("... and 3 more") && shown.ends_with(way), "{shown}");
    }
}
