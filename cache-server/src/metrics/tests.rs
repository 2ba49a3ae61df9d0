//! The text, and what stands about it elsewhere: docs/metrics.md and deploy/grafana.json.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::leases::Totals;
use crate::tally::tests::event;

fn whole() -> String {
    let metrics = Metrics::default();
    for (outcome, _) in OUTCOMES {
        metrics.event(&event("e", "b", outcome));
    }
    for us in [50, 100, 101, 9_999_999] {
        metrics.lookup(Duration::from_micros(us));
    }
    let status = RemoteStatus { reachable: Some(true), ..RemoteStatus::default() };
    let readings = Readings {
        role: "shared",
        budget: Some(1),
        oldest_ms: Some(1500),
        leases: Figures {
            held: 2,
            totals: Totals { stored: 4, ..Totals::default() },
            ..Figures::default()
        },
        remote: Some((status, 3)),
        ..Readings::default()
    };
    text(&metrics, &readings)
}

/// Words of a text that are names of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kiln_")).collect()
}

fn known(name: &str) -> bool {
    ALL.iter().any(|(of, kind, _)| {
        let rest = name.strip_prefix(of);
        let histogram = *kind == Kind::Histogram;
        rest == Some("") || histogram && matches!(rest, Some("_bucket" | "_sum" | "_count"))
    })
}

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

#[test]
fn the_text_has_each_metric_once_with_its_kind_and_what_it_tells() {
    let text = whole();
    for (name, kind, help) in ALL {
        assert_eq!(text.matches(&format!("# HELP {name} {help}\n")).count(), 1, "{name}");
        assert_eq!(text.matches(&format!("# TYPE {name} {}\n", kind.word())).count(), 1, "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
    }
    for name in names(&text) {
        assert!(known(name), "{name}");
    }
    for line in [
        "kiln_units_total{outcome=\"hit-remote\"} 1\n",
        "kiln_saved_cpu_seconds_total 0.300\n",
        "kiln_compiled_seconds_total 0.200\n",
        "kiln_lookup_duration_seconds_bucket{le=\"0.000100\"} 2\n",
        "kiln_lookup_duration_seconds_bucket{le=\"2.500000\"} 3\n",
        "kiln_lookup_duration_seconds_bucket{le=\"+Inf\"} 4\n",
        "kiln_lookup_duration_seconds_sum 10.000250\nkiln_lookup_duration_seconds_count 4\n",
        "kiln_store_oldest_use_seconds 1.500\n",
        "kiln_leases 2\n",
        "kiln_lease_answers_total{answer=\"stored\"} 4\n",
        "kiln_remote_faults_total 3\n",
    ] {
        assert!(text.contains(line), "{line}in\n{text}");
    }
}

#[test]
fn the_page_lists_each_metric_and_no_other() {
    let page = file("docs/metrics.md");
    for (name, kind, help) in ALL {
        let row = format!("| `{name}` | {} | {help} |\n", kind.word());
        assert!(page.contains(&row), "docs/metrics.md lacks\n{row}");
    }
    for name in names(&page) {
        assert!(known(name), "docs/metrics.md: {name}");
    }
}

#[test]
fn the_dashboard_draws_what_there_is() {
    let text = file("deploy/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut drawn = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let found = names(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{target}");
            drawn.extend(found.into_iter().map(str::to_owned));
        }
    }
    for name in &drawn {
        assert!(known(name), "deploy/grafana.json: {name}");
    }
    assert!(drawn.contains("kiln_units_total") && drawn.contains("kiln_store_bytes"));
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
}
