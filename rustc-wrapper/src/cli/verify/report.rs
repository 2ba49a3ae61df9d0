//! What the events of a build say of its hits, for people. Pure, but for reading the file.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_storage::api::{Event, Outcome, plain};
use kiln_storage::record::UnitName;

use crate::script;

/// A unit and what was found about it.
type Found = (UnitName, String);

/// The units of one build, told apart.
#[derive(Debug, Default)]
pub(super) struct Report {
    equal: usize,
    not_reproducible: Vec<Found>,
    /// Results that are wrong.
    pub(super) wrong: Vec<Found>,
    not_compared: Vec<Found>,
    unchecked: usize,
    /// Those among them that are runs of build scripts, which no sample covers.
    scripts: usize,
    /// Units that the cache did not answer, by reason.
    others: BTreeMap<String, usize>,
}

impl Report {
    /// The events in a file of lines; one that is not there has none.
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self::of(text.lines().filter_map(|line| serde_json::from_str(line).ok()))
    }

    fn of(events: impl Iterator<Item = Event>) -> Self {
        let mut report = Self::default();
        events.for_each(|event| report.add(event));
        report
    }

    fn add(&mut self, event: Event) {
        if let Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined = event.outcome {
            self.unchecked += 1;
            self.scripts += usize::from(event.unit.kind == script::unit::KIND);
            return;
        }
        let reason = event.reason.unwrap_or_default();
        let found = (event.unit, event.detail.unwrap_or_default());
        match reason.as_str() {
            "verified" => self.equal += 1,
            "not-reproducible" => self.not_reproducible.push(found),
            "verify-differs" => self.wrong.push(found),
            // A failure is judged only where a result is stored.
            "compile-failed" if event.result_key.is_some() => self.wrong.push(found),
            "not-verified" => self.not_compared.push(found),
            _ => *self.others.entry(reason).or_default() += 1,
        }
    }

    /// The table, and the units that are not well.
    pub(super) fn text(&self) -> String {
        let checked = self.equal + self.not_reproducible.len() + self.wrong.len();
        let others: usize = self.others.values().sum();
        let mut out = String::new();
        for (name, count) in [
            ("hits checked", checked),
            ("  equal", self.equal),
            ("  not reproducible", self.not_reproducible.len()),
            ("  wrong", self.wrong.len()),
            ("hits not checked", self.unchecked + self.not_compared.len()),
            ("other units", others),
        ] {
            out.push_str(&format!("{name:<22}{count:>8}\n"));
        }
        if self.scripts > 0 {
            out.push_str(&format!("(runs of build scripts, never checked: {})\n", self.scripts));
        }
        let reasons: Vec<String> = self
            .others
            .iter()
            .map(|(reason, count)| format!("{count} {}", plain(reason)))
            .collect();
        if others > 0 {
            out.push_str(&format!("(nothing to check: {})\n", reasons.join(", ")));
        }
        section(
            &mut out,
            "not reproducible: two fresh compiles differ from each other, so nothing is proved",
            &self.not_reproducible,
        );
        section(
            &mut out,
            "wrong: two fresh compiles agree, and what is stored is something else",
            &self.wrong,
        );
        section(&mut out, "could not be compared", &self.not_compared);
        if !self.wrong.is_empty() {
            out.push_str(
                "\nWhat is quarantined is not used any more; kiln verify --quarantined lists it. \
                 docs/verify.md\nsays where wrong results come from. Please report what is not \
                 among that.\n",
            );
        }
        if checked == 0 {
            out.push_str(
                "\nNo hit was checked. Build once with Kiln to fill the cache, or check a larger \
                 share: --sample 100%\n",
            );
        }
        out
    }
}

fn section(out: &mut String, heading: &str, units: &[Found]) {
    if units.is_empty() {
        return;
    }
    out.push_str(&format!("\n{heading}:\n"));
    for (unit, detail) in units {
        let name = format!("{} {} ({})", unit.crate_name, unit.version, unit.kind);
        out.push_str(&format!("  {}: {}\n", plain(&name), plain(detail)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::{Digest, ResultKey};

    fn event(name: &str, outcome: Outcome, reason: &str, judged: bool) -> Event {
        let text = format!(
            r#"{{"id":"1","at_ms":1,"run":"r","job":"j","build":"b","outcome":"miss",
                 "unit":{{"crate_name":"{name}","version":"1","kind":"lib","target":"host"}}}}"#
        );
        let event: Event = serde_json::from_str(&text).unwrap();
        Event {
            outcome,
            reason: Some(reason.into()),
            detail: Some(format!("detail of {name}")),
            result_key: judged.then(|| ResultKey::new(Digest::of(b"k"))),
            ..event
        }
    }

    fn run_of_script() -> Event {
        let mut event = event("s", Outcome::HitLocal, "", true);
        event.unit.kind = script::unit::KIND.into();
        event
    }

    #[test]
    fn every_unit_is_counted_once_and_the_bad_ones_are_named() {
        let miss = Outcome::Miss;
        let report = Report::of(
            [
                event("a", Outcome::HitLocal, "", true),
                event("b", miss, "verified", true),
                event("c", miss, "not-reproducible", true),
                event("d", miss, "verify-differs", true),
                event("e", miss, "compile-failed", true),
                event("f", miss, "compile-failed", false),
                event("g", miss, "not-verified", false),
                event("h", Outcome::Bypass, "incremental", false),
                run_of_script(),
            ]
            .into_iter(),
        );
        let text = report.text();
        let count = |name: &str| -> usize {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert_eq!(count("hits checked"), 4);
        assert_eq!(count("equal"), 1);
        assert_eq!(count("not reproducible"), 1);
        assert_eq!(count("wrong"), 2);
        assert_eq!(count("hits not checked"), 3);
        assert!(text.contains("(runs of build scripts, never checked: 1)"), "{text}");
        assert_eq!(count("other units"), 2);
        for name in ["c", "d", "e", "g"] {
            assert!(text.contains(&format!("  {name} 1 (lib): detail of {name}\n")), "{text}");
        }
        assert!(text.contains("(nothing to check: 1 compile-failed, 1 incremental)"), "{text}");
        assert!(!text.contains("No hit was checked"), "{text}");
    }

    #[test]
    fn a_build_without_hits_says_what_to_do() {
        assert!(Report::read(Path::new("/not/there")).text().contains("--sample 100%"));
    }

    #[test]
    fn names_cannot_reach_the_terminal() {
        let report = Report::of(
            [event("x", Outcome::Miss, "verify-differs", true)].into_iter().map(|mut event| {
                event.unit.crate_name = "a\u{1b}[2Jb\nc".into();
                event
            }),
        );
        let text = report.text();
        assert!(text.contains("a?[2Jb?c 1 (lib)"), "{text:?}");
    }
}
