//! [`details`]: which hits they were, what was carried, and where the time went, in two lines for people. Pure.

use std::cmp::Reverse;

use kiln_storage::api::report::Measures;

use super::verdict::time;
use crate::limits::MAX_NAMED_PHASES;

/// The lines, without their ends; those that would say nothing are left out. Names of phases are as they came.
pub fn details(measures: &Measures) -> Vec<String> {
    let counts = &measures.counts;
    let mut lines = Vec::new();
    if measures.hits > 0 || measures.stored_bytes > 0 {
        lines.push(format!(
            "hits: {} local, {} remote, {} joined; {} restored, {} stored",
            counts.hit_local,
            counts.hit_remote,
            counts.joined,
            bytes(counts.restored_bytes),
            bytes(measures.stored_bytes)
        ));
    }
    let mut phases: Vec<(&String, u64)> = measures
        .phases_ms
        .iter()
        .map(|(phase, ms)| (phase, *ms))
        .filter(|(_, ms)| *ms > 0)
        .collect();
    phases.sort_by_key(|(_, ms)| Reverse(*ms));
    let more: u64 =
        phases.iter().skip(MAX_NAMED_PHASES).fold(0, |sum, (_, ms)| sum.saturating_add(*ms));
    let mut named: Vec<String> = phases
        .iter()
        .take(MAX_NAMED_PHASES)
        .map(|(phase, ms)| format!("{phase} {}", time(*ms)))
        .collect();
    if more > 0 {
        named.push(format!("others {}", time(more)));
    }
    if !named.is_empty() {
        lines.push(format!("time by phase: {}", named.join(", ")));
    }
    lines
}

/// A size for people.
pub fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let n = n as f64;
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shown = (n, "B");
    for unit in units {
        if shown.0 < 1024.0 {
            break;
        }
        shown = (shown.0 / 1024.0, unit);
    }
    match shown {
        (n, "B") => format!("{n} B"),
        (n, unit) => format!("{n:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::Counts;
    use std::collections::BTreeMap;

    #[test]
    fn figures_are_told_where_there_are_some() {
        assert_eq!(details(&Measures::default()), [""; 0]);
        let counts =
            Counts { hit_local: 1, hit_remote: 2, restored_bytes: 1536, ..Counts::default() };
        let names = ["a", "b", "c", "d", "e", "f", "g", "none"];
        let phases = names.iter().enumerate();
        let phases_ms: BTreeMap<String, u64> =
            phases.map(|(n, name)| ((*name).to_owned(), 70 - 10 * n as u64)).collect();
        let measures =
            Measures { counts, hits: 3, stored_bytes: u64::MAX, phases_ms, ..Measures::default() };
        assert_eq!(
            details(&measures),
            [
                "hits: 1 local, 2 remote, 0 joined; 1.5 KiB restored, 16.0 EiB stored",
                "time by phase: a 70 ms, b 60 ms, c 50 ms, d 40 ms, e 30 ms, f 20 ms, others 10 ms",
            ]
        );
        assert_eq!(bytes(0), "0 B");
    }
}
