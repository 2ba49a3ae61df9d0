//! Pages from made-up runs: what they show, and that no name is markup.

use kiln_storage::api::report::{EarlierRuns, RunReport, RunsResponse};
use kiln_storage::api::{Event, Outcome, RunAbout};
use kiln_storage::limits::MAX_JSON_RESPONSE_BYTES;

use super::*;
use crate::history::chunk::{self, Kept};
use crate::history::latest::Latest;
use crate::history::read::{JobRow, RunRow};
use crate::limits::{MAX_HEAT_CRATES, MAX_SHOWN_JOBS};
use crate::report::markdown::Plain;
use crate::report::sums::Sums;
use crate::report::{Input, Job, Known, make, summary};
use crate::tally::tests::event;

fn of(name: &str, outcome: Outcome, cost_ms: u64) -> Event {
    let mut event = event(&format!("{name} {outcome:?} {cost_ms}"), "b", outcome);
    event.unit.crate_name = name.into();
    (event.at_ms, event.cost_ms, event.wall_us) = (9000, cost_ms, cost_ms * 1000);
    event
}

fn row(name: &str, events: &[Event]) -> JobRow {
    let mut sums = Sums::default();
    events.iter().for_each(|event| sums.add(event));
    let kept = events.len() as u64;
    JobRow {
        id: 1,
        job: name.into(),
        first_ms: 1,
        last_ms: 9,
        heard_ms: 9,
        kept,
        series: String::new(),
        sums,
        latest: Latest::default(),
        unshared: None,
    }
}

fn job(name: &str, events: &[Event]) -> Job {
    let kept = events.iter().map(|event| Kept::of(event, chunk::id(event)));
    Job { row: row(name, events), events: kept.collect(), earlier: Vec::new() }
}

fn input(run: &str, about: RunAbout, jobs: Vec<Job>) -> Input {
    let run = RunRow { id: 1, run: run.into(), about, first_ms: 1, last_ms: 9 };
    Input { run, jobs, base: None, known: Known::default(), earlier_runs: EarlierRuns::All }
}

fn shown(form: Form, input: &Input) -> (RunReport, String) {
    let report = make(input);
    let page = run::page(form, &report, &input.jobs, &Plain);
    (report, page)
}

#[test]
fn the_table_says_what_became_of_each_crate_in_each_job() {
    use Outcome::{Bypass, Error, HitLocal, HitRemote, Miss};
    let one =
        [of("a", HitLocal, 5), of("a", Miss, 70), of("b", HitRemote, 900), of("c", Error, 30)];
    let two = [of("a", HitRemote, 5), of("c", Bypass, 0)];
    let jobs = [job("one", &one), job("two", &two), job("none", &[])];
    let heat = heat::Heat::of(&jobs);
    assert_eq!(heat::labels(&heat), ["a: 1/2 1/1", "c: 0/1 not cached", "b: 1/1 "]);
    let (_, page) = shown(Form::Served, &input("r", RunAbout::default(), jobs.into()));
    for part in [
        "<td class=\"c most\" data-v=\"70\" title=\"a in one: 1 hit, 1 miss; 70 ms of compiling\">1/2</td>",
        "<td class=\"c error\" data-v=\"30\" title=\"c in one: 1 error; 30 ms of compiling\">0/1</td>",
        "<rect class=\"miss\" x=\"922.2\"",
        "kiln explain a</bdi></code>",
    ] {
        assert!(page.contains(part), "{part}\nin\n{page}");
    }
}

#[test]
fn reasons_come_with_what_they_mean_and_what_to_change() {
    let with = |reason: &str, detail: Option<&str>, mut event: Event| {
        (event.reason, event.detail) = (Some(reason.into()), detail.map(Into::into));
        event
    };
    let events = [
        with("incremental", None, of("a", Outcome::Bypass, 5)),
        with("unknown-flag", Some("--new=x"), of("b", Outcome::Bypass, 5)),
        with("of-a-later-version", Some("told"), of("c", Outcome::Bypass, 5)),
        with("new-unit", None, of("d", Outcome::Miss, 5)),
    ];
    let (_, page) = shown(Form::Served, &input("r", RunAbout::default(), vec![job("j", &events)]));
    for part in [
        "<bdi>1 unit (incremental): incremental compilation is on; set CARGO_INCREMENTAL=0",
        "<td class=\"long\"><bdi>a flag that is not known and names a file; e.g. --new=x</bdi></td>",
        "<td class=\"long\"><bdi>told</bdi></td>",
        "<bdi>nothing is stored for this crate with these arguments</bdi>",
    ] {
        assert!(page.contains(part), "{part}\nin\n{page}");
    }
}

#[test]
fn large_runs_are_shown_in_part_and_say_so() {
    let long = "'".repeat(10_000);
    let events: Vec<Event> = (0..MAX_HEAT_CRATES as u64 + 50)
        .map(|n| of(&format!("c{n}{long}"), Outcome::Miss, n + 1))
        .collect();
    let jobs = 0..MAX_SHOWN_JOBS + 20;
    let jobs = jobs.map(|n| job(&format!("j{n}{}", &long[..400]), &events)).collect();
    let (_, page) = shown(Form::Served, &input("r", RunAbout::default(), jobs));
    assert!(page.contains("50 crates with less compiling left out."));
    assert!(page.contains("20 jobs with less compiling left out."));
    assert!(page.contains("20 further jobs not drawn."));
    assert!(page.len() < MAX_JSON_RESPONSE_BYTES / 2, "{}", page.len());
}

#[test]
fn no_name_is_markup_and_no_address_a_script() {
    let hostile = "\"><script>alert(1)</script><img src=x onerror='y'>\u{1b}[2J\u{202e}\n";
    let mut miss = of(hostile, Outcome::Miss, 5);
    miss.reason = Some(hostile.into());
    let mut bypass = of(hostile, Outcome::Bypass, 5);
    (bypass.reason, bypass.detail) = (Some(hostile.into()), Some(hostile.into()));
    bypass.unit.version = hostile.into();
    let name = || hostile.to_owned();
    let about = RunAbout {
        service: name(),
        repository: name(),
        workflow: name(),
        branch: name(),
        base: name(),
        commit: name(),
        attempt: 1,
        url: "javascript:alert(1)".into(),
    };
    let input = input(hostile, about, vec![job(hostile, &[miss, bypass])]);
    let (_, page) = shown(Form::Served, &input);
    let summary = summary(&input.run, vec![row(hostile, &[])], (false, 9));
    let runs = RunsResponse { runs: vec![summary], next: Some("9-9".into()) };
    let list = list::page(&runs, (true, None));
    for page in [page, list, not_found(hostile)] {
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        assert!(!page.contains("javascript:") && !page.contains(['\u{1b}', '\u{202e}']), "{page}");
        // What is in quotes is no attribute of its own.
        assert!(!page.contains(" onerror='"), "{page}");
    }
}

#[test]
fn a_file_has_its_style_in_it_and_no_script_or_link_to_a_server() {
    let input = input("r", RunAbout::default(), vec![job("j", &[of("a", Outcome::Miss, 5)])]);
    let (_, page) = shown(Form::File, &input);
    assert!(page.contains(STYLE) && page.contains("http-equiv"), "{page}");
    assert!(!page.contains("<script") && !page.contains("href="), "{page}");
    // The style cannot end its element.
    assert!(!STYLE.contains('<') && !STYLE.contains("url("));
}
