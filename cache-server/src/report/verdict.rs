//! Where the cache did not pay in a job: why, in a sentence. Pure.

use kiln_storage::api::report::Measures;

/// The phase in which a job waits for what another one compiles.
const WAIT: &str = "wait";

/// The sentence for a job whose hits saved no more than Kiln took. While it waits for other jobs cargo
/// compiles something else, so that does not count.
pub(super) fn verdict(measures: &Measures) -> Option<String> {
    let counts = &measures.counts;
    let waited_ms = measures.phases_ms.get(WAIT).copied().unwrap_or_default().min(measures.kiln_ms);
    if counts.units == 0 || measures.net_saved_ms.saturating_add_unsigned(waited_ms) > 0 {
        return None;
    }
    let kiln_ms = measures.kiln_ms - waited_ms;
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
            time(kiln_ms),
            longest(measures, kiln_ms)
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
fn longest(measures: &Measures, kiln_ms: u64) -> String {
    let own = |phase: &str| phase != "compile" && phase != WAIT;
    let own = measures.phases_ms.iter().filter(|(phase, _)| own(phase));
    match own.max_by_key(|(_, ms)| **ms) {
        Some((phase, ms)) if *ms * 2 > kiln_ms => {
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
    fn waiting_for_other_jobs_is_no_time_lost() {
        let job = |kiln_ms, net_saved_ms| Measures {
            hits: 11,
            counts: Counts { units: 20, joined: 11, miss: 9, ..Counts::default() },
            saved_cpu_ms: 9_900,
            kiln_ms,
            phases_ms: BTreeMap::from([("wait".into(), 24_200), ("restore".into(), 3_000)]),
            net_saved_ms,
            ..Measures::default()
        };
        assert_eq!(verdict(&job(27_900, -18_000)), None);
        let words = "saved 9.9 s of compiling, and Kiln took 10.0 s.";
        let slow = verdict(&job(34_200, -24_300)).unwrap();
        assert!(slow.ends_with(words), "{slow}");
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
