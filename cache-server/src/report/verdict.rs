//! Where the cache did not pay in a job: why, in a sentence. Pure.

use kiln_storage::api::report::Measures;

/// The sentence for a job whose hits saved no more than Kiln took.
pub(super) fn verdict(measures: &Measures) -> Option<String> {
    let counts = &measures.counts;
    if counts.units == 0 || measures.net_saved_ms > 0 {
        return None;
    }
    let asked = counts.units - counts.bypass;
    Some(match () {
        () if asked == 0 => {
            format!("Nothing could be cached: {} handed to the compiler.", were(counts.bypass))
        }
        () if counts.error > asked / 2 => format!(
            "Kiln failed for {} of {asked} units ({}), which were compiled as without it.",
            counts.error,
            most(&counts.error_reasons)
        ),
        () if measures.hits == 0 && most(&counts.miss_reasons) == "new-unit" => format!(
            "Nothing hit: {} compiled for the first time; the next run can have them from the cache.",
            were(counts.miss)
        ),
        () if measures.hits == 0 => format!(
            "Nothing hit: {} compiled, most often for the reason {}.",
            were(counts.miss + counts.error),
            most(&counts.miss_reasons)
        ),
        () => format!(
            "The cache did not pay: {} saved {} of compiling, and Kiln took {}{}.",
            if measures.hits == 1 { "1 hit".to_owned() } else { format!("{} hits", measures.hits) },
            time(measures.saved_cpu_ms),
            time(measures.kiln_ms),
            longest(measures)
        ),
    })
}

fn were(units: u64) -> String {
    if units == 1 { "1 unit was".to_owned() } else { format!("{units} units were") }
}

fn most(reasons: &std::collections::BTreeMap<String, u64>) -> &str {
    let most = reasons.iter().max_by_key(|(_, count)| **count);
    most.map_or("unspecified", |(reason, _)| reason)
}

/// Where most of Kiln's own time went.
fn longest(measures: &Measures) -> String {
    let own = measures.phases_ms.iter().filter(|(phase, _)| *phase != "compile");
    match own.max_by_key(|(_, ms)| **ms) {
        Some((phase, ms)) if *ms * 2 > measures.kiln_ms => {
            format!(", {} of it in the phase {phase}", time(*ms))
        }
        _ => String::new(),
    }
}

/// Milliseconds for people.
pub fn time(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::Counts;
    use std::collections::BTreeMap;

    fn of(
        hits: u64,
        miss: (u64, &str),
        bypass: u64,
        error: u64,
        net_saved_ms: i64,
    ) -> Option<String> {
        let reasons = |n: u64, word: &str| {
            if n > 0 { BTreeMap::from([(word.to_owned(), n)]) } else { BTreeMap::new() }
        };
        verdict(&Measures {
            hits,
            counts: Counts {
                units: hits + miss.0 + bypass + error,
                hit_local: hits,
                miss: miss.0,
                bypass,
                error,
                miss_reasons: reasons(miss.0, miss.1),
                error_reasons: reasons(error, "server-absent"),
                ..Counts::default()
            },
            saved_cpu_ms: 900,
            kiln_ms: 61_000,
            phases_ms: BTreeMap::from([("restore".into(), 50_000), ("compile".into(), 90_000)]),
            net_saved_ms,
            ..Measures::default()
        })
    }

    #[test]
    fn each_way_not_to_pay_has_its_sentence() {
        assert_eq!(of(0, (0, ""), 0, 0, 0), None);
        assert_eq!(of(5, (1, "new-unit"), 0, 0, 1), None);
        for (verdict, words) in [
            (of(0, (0, ""), 3, 0, 0), "3 units were handed to the compiler"),
            (of(0, (1, "new-unit"), 0, 0, -1), "1 unit was compiled for the first time"),
            (of(0, (2, "refresh"), 0, 0, -1), "for the reason refresh"),
            (of(0, (1, "new-unit"), 0, 2, -1), "failed for 2 of 3 units (server-absent)"),
            (
                of(5, (1, "new-unit"), 0, 0, -1),
                "5 hits saved 900 ms of compiling, and Kiln took 1 min 1 s, 50.0 s of it in the phase restore.",
            ),
        ] {
            let verdict = verdict.unwrap();
            assert!(verdict.contains(words), "{verdict}");
        }
    }
}
