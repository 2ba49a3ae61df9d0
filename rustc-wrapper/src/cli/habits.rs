//! The flags of sccache, for scripts that have them: read here, answered by Kiln's own commands. Its statistics as JSON
//! have sccache's fields, as far as there is something to tell.

use std::ffi::OsString;
use std::process::ExitCode;

use kiln_storage::api::StatsResponse;
use serde_json::{Value, json};

use super::{Format, server, stats};
use crate::config::Config;
use crate::env::Env;

/// The language of all that Kiln caches, as sccache names it.
const LANGUAGE: &str = "Rust";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// `--show-stats`, `-s`, `--show-adv-stats`.
    Stats,
    /// The same with `--stats-format json`.
    StatsAsJson,
    /// `--zero-stats`, `-z`.
    Zero,
    /// `--start-server`.
    Start,
    /// `--stop-server`.
    Stop,
}

/// Reads a command line that is one of sccache; none where it is none, or none that Kiln has an answer to.
pub(super) fn read(arguments: &[OsString]) -> Option<Habit> {
    let (mut habit, mut format) = (None, None);
    let mut words = arguments.iter().map(|word| word.to_str());
    while let Some(word) = words.next() {
        let asked = match word? {
            "--show-stats" | "-s" | "--show-adv-stats" => Habit::Stats,
            "--zero-stats" | "-z" => Habit::Zero,
            "--start-server" => Habit::Start,
            "--stop-server" => Habit::Stop,
            "--stats-format" => {
                format = Some(words.next()??);
                continue;
            }
            word => {
                format = Some(word.strip_prefix("--stats-format=")?);
                continue;
            }
        };
        if habit.replace(asked).is_some() {
            return None;
        }
    }
    match (habit?, format) {
        (habit, None | Some("text")) => Some(habit),
        (Habit::Stats, Some("json")) => Some(Habit::StatsAsJson),
        _ => None,
    }
}

/// Does it.
pub(super) fn run(env: &Env, config: &Config, habit: Habit) -> ExitCode {
    match habit {
        Habit::Stats => stats::run(env, config, Format::Text, false),
        Habit::StatsAsJson => {
            stats::shown(env, config, false, |stats, _| format!("{:#}", figures(stats)))
        }
        Habit::Zero => stats::run(env, config, Format::Text, true),
        Habit::Start => server::run(env, config, &server::Action::Start),
        Habit::Stop => server::run(env, config, &server::Action::Stop),
    }
}

/// The figures as sccache's JSON has them. What Kiln does not count is left out.
fn figures(stats: &StatsResponse) -> Value {
    let all = &stats.total;
    let hits = all.hit_local + all.hit_remote + all.joined;
    let of_language = |count: u64| match count {
        0 => json!({ "counts": {}, "adv_counts": {} }),
        _ => json!({ "counts": { LANGUAGE: count }, "adv_counts": { LANGUAGE: count } }),
    };
    json!({
        "stats": {
            "compile_requests": all.units,
            "requests_executed": hits + all.miss,
            "requests_not_cacheable": all.bypass,
            "not_cached": all.bypass_reasons,
            "cache_hits": of_language(hits),
            "cache_misses": of_language(all.miss),
            "cache_errors": of_language(all.error),
        },
        "cache_location": stats.store.storage,
        "cache_size": stats.store.bytes,
        "max_cache_size": stats.store.budget_bytes,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use kiln_storage::api::Counts;

    use super::*;

    fn of(line: &str) -> Option<Habit> {
        read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_of_sccache_are_read() {
        for line in ["--show-stats", "-s", "--show-adv-stats", "-s --stats-format text"] {
            assert_eq!(of(line), Some(Habit::Stats), "{line}");
        }
        for line in ["--show-stats --stats-format json", "--stats-format=json -s"] {
            assert_eq!(of(line), Some(Habit::StatsAsJson), "{line}");
        }
        assert_eq!((of("-z"), of("--zero-stats")), (Some(Habit::Zero), Some(Habit::Zero)));
        assert_eq!(
            (of("--start-server"), of("--stop-server")),
            (Some(Habit::Start), Some(Habit::Stop))
        );
    }

    #[test]
    fn other_lines_are_none_of_it() {
        for line in [
            "",
            "stats",
            "--version",
            "--dist-status",
            "-s -z",
            "--stats-format json",
            "--stats-format",
            "-s --stats-format xml",
            "-z --stats-format json",
            "--show-stats x",
        ] {
            assert_eq!(of(line), None, "{line:?}");
        }
    }

    #[test]
    fn figures_have_the_fields_that_scripts_read() {
        let total = Counts {
            units: 9,
            hit_local: 1,
            hit_remote: 2,
            joined: 1,
            miss: 3,
            bypass: 2,
            bypass_reasons: [("incremental".to_owned(), 2)].into(),
            ..Counts::default()
        };
        let told = figures(&StatsResponse { total, ..StatsResponse::default() });
        assert_eq!(told["stats"]["cache_hits"]["counts"]["Rust"], 4);
        assert_eq!(told["stats"]["cache_misses"]["counts"]["Rust"], 3);
        assert_eq!(told["stats"]["cache_errors"]["counts"], json!({}));
        assert_eq!(told["stats"]["not_cached"]["incremental"], 2);
        assert_eq!(told["stats"]["compile_requests"], 9);
    }
}
