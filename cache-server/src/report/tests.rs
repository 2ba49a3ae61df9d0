//! The model: from events to what a report says.

use std::collections::BTreeSet;

use kiln_storage::api::report::{EarlierRuns, TwiceGroup};
use kiln_storage::api::{Event, RunAbout};
use kiln_storage::limits::MAX_WATCHED_JOBS;
use kiln_storage::record::{EnvForm, TokenPath};
use kiln_storage::{ResultKey, UnitKey};

use super::*;
use crate::history::chunk;
use crate::history::latest::Latest;
use crate::tally::tests::event;

fn key(text: &str) -> UnitKey {
    UnitKey::new(Digest::of(text.as_bytes()))
}

fn result(text: &str) -> ResultKey {
    ResultKey::new(Digest::of(text.as_bytes()))
}

/// A compile of a crate with a key and a result by these texts; an empty result: it was not stored.
fn miss(name: &str, of: (&str, &str), at_ms: u64, cost_ms: u64) -> Event {
    let mut event = event(&format!("{name} {of:?} {at_ms}"), "b", Outcome::Miss);
    event.unit.crate_name = name.into();
    event.unit_key = Some(key(of.0));
    event.result_key = (!of.1.is_empty()).then(|| result(of.1));
    event.reason = Some("new-unit".into());
    (event.at_ms, event.cost_ms) = (at_ms, cost_ms);
    event
}

fn hit(name: &str) -> Event {
    let mut event = event(name, "b", Outcome::HitRemote);
    event.unit.crate_name = name.into();
    event
}

fn row(job: &str, events: &[Event]) -> JobRow {
    let mut sums = Sums::default();
    events.iter().for_each(|event| sums.add(event));
    JobRow {
        id: 1,
        job: job.into(),
        first_ms: 1,
        last_ms: 9,
        heard_ms: 9,
        kept: events.len() as u64,
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

fn input(jobs: Vec<Job>, known: Known) -> Input {
    let about = RunAbout { branch: "topic".into(), base: "main".into(), ..RunAbout::default() };
    let run = RunRow { id: 1, run: "r".into(), about, first_ms: 1, last_ms: 9 };
    Input { run, jobs, base: None, known, earlier_runs: EarlierRuns::All }
}

fn part(line: &str) -> UnitPart {
    let mut words = line.split('|');
    let mut word = || words.next().map(str::to_owned);
    UnitPart { group: word().unwrap(), name: word().unwrap_or_default(), value: word() }
}

/// Keys by text with what they were made of, beside the crate root.
fn known(keys: &[(&str, &[&str])]) -> Known {
    let with_root = |lines: &[&str]| {
        let lines = ["crate root||src/lib.rs"].iter().chain(lines);
        lines.map(|line| part(line)).collect()
    };
    let parts = keys.iter().map(|(text, lines)| (chunk::brief_unit(&key(text)), with_root(lines)));
    Known { parts: parts.collect(), ..Known::default() }
}

/// Kind, what differs, jobs, units, compiles and time of each group.
fn told(groups: &[TwiceGroup]) -> Vec<String> {
    let line = |group: &TwiceGroup| {
        let differs: Vec<_> =
            group.differs.iter().map(|c| format!("{} {}", c.kind, c.name)).collect();
        let units: Vec<_> = group.units.iter().map(|unit| unit.crate_name.as_str()).collect();
        assert!(!group.advice.is_empty());
        format!(
            "{} [{}] {}: {} = {} in {} ms",
            group.kind,
            differs.join(", "),
            group.jobs.join("+"),
            units.join(" "),
            group.compiles,
            group.saves_ms
        )
    };
    groups.iter().map(line).collect()
}

#[test]
fn the_whole_is_the_sum_of_its_jobs() {
    let one = [hit("a"), miss("b", ("b", "b"), 2, 300)];
    let two =
        [hit("c"), hit("d"), event("x", "b", Outcome::Bypass), event("y", "b", Outcome::Error)];
    let mut jobs = vec![job("one", &one), job("two", &two)];
    jobs[0].earlier = vec![("before".into(), row("one", &two))];
    let report = make(&input(jobs, Known::default()));
    assert_eq!((report.schema, report.run.as_str(), report.jobs.len()), (SCHEMA, "r", 2));
    let counts = &report.total.counts;
    assert_eq!((counts.units, counts.hit_remote, counts.miss), (6, 3, 1));
    assert_eq!((counts.bypass, counts.error), (1, 1));
    assert_eq!((report.total.hits, report.total.hit_rate), (3, Some(60.0)));
    let of_jobs: u64 = report.jobs.iter().map(|job| job.measures.counts.units).sum();
    assert_eq!(of_jobs, counts.units);
    assert_eq!(report.slowest.len(), 1);
    assert_eq!((report.slowest[0].unit.crate_name.as_str(), report.slowest[0].cost_ms), ("b", 300));
    assert_eq!(report.bypasses.iter().map(|group| group.count).sum::<u64>(), 1);
    assert_eq!(
        (report.errors[0].reason.as_str(), &report.errors[0].jobs),
        ("why", &vec!["two".to_owned()])
    );
    let trend = &report.jobs[0].trend;
    assert_eq!(
        (trend[0].run.as_str(), trend[0].units, trend[0].hit_rate),
        ("before", 4, Some(66.7))
    );
    assert!(report.jobs[1].trend.is_empty());
}

#[test]
fn lists_are_bounded_and_say_what_they_leave_out() {
    let all = MAX_REPORTED_UNITS + 30;
    let events: Vec<Event> = (0..all)
        .map(|n| miss(&format!("c{n}"), (&n.to_string(), "r"), n as u64, n as u64))
        .collect();
    let report = make(&input(vec![job("one", &events)], Known::default()));
    assert_eq!((report.slowest.len(), report.slowest_left_out), (MAX_REPORTED_UNITS, 30));
    assert_eq!(report.slowest[0].cost_ms as usize, all - 1);
}

#[test]
fn what_hit_in_the_base_branch_and_is_compiled_now_is_named_with_its_cause() {
    let mut lost = miss("a", ("a", "a"), 2, 300);
    lost.causes = vec![kiln_storage::parts::cause("file", "<workspace>/a.rs", None, None)];
    let now = [lost, miss("new", ("n", "n"), 3, 900), miss("b", ("b", "b"), 4, 5), hit("b")];
    let hits = [hit("a"), hit("b"), hit("c")];
    let hits = hits.iter().map(|event| (event.unit.clone(), 1)).collect();
    let mut input = input(vec![job("one", &now), job("two", &now)], Known::default());
    input.base = Some(Base { run: "base".into(), hits: HashMap::from([("one".into(), hits)]) });
    let report = make(&input);
    assert_eq!(report.base_run.as_deref(), Some("base"));
    let names: Vec<_> = report
        .lost_hits
        .iter()
        .map(|unit| (unit.job.as_str(), unit.unit.crate_name.as_str()))
        .collect();
    assert_eq!(names, [("one", "a")], "b hits as often as it did, and job two is new");
    assert_eq!(report.lost_hits[0].causes[0].name, "<workspace>/a.rs");
}

#[test]
fn the_same_key_in_two_jobs_is_a_matter_of_time_of_inputs_or_of_storing() {
    let one = [
        miss("same", ("s", "s"), 1, 100),
        miss("env", ("e", "e1"), 2, 100),
        miss("net", ("n", ""), 3, 100),
        miss("own", ("o", "o"), 3, 100),
        miss("own", ("o", "o2"), 4, 100),
    ];
    let two = [
        miss("same", ("s", "s"), 5, 90),
        miss("env", ("e", "e2"), 6, 80),
        miss("net", ("n", ""), 7, 70),
    ];
    let mut known = Known::default();
    let file = || Member::File(TokenPath("<workspace>/src/lib.rs".into()));
    let values = |value: &str| {
        let member = Member::Env("STAMP".into(), EnvForm::Raw);
        vec![(file(), Digest::of(b"f")), (member, Digest::of(value.as_bytes()))]
    };
    for result_text in ["e1", "e2"] {
        let keys = (chunk::brief_unit(&key("e")), chunk::brief_result(&result(result_text)));
        known.inputs.insert(keys, values(result_text));
    }
    let jobs = vec![job("one", &one), job("two", &two)];
    let wanted = twice::wanted(&jobs);
    let results: BTreeSet<usize> = wanted.iter().map(|(_, results)| results.len()).collect();
    assert_eq!((wanted.len(), results), (3, BTreeSet::from([0, 2])));
    let twice = make(&input(jobs, known)).twice;
    assert_eq!((twice.units, twice.compiles, twice.cost_ms), (3, 3, 240));
    assert_eq!(
        told(&twice.groups),
        [
            "same-time [] one+two: same = 1 in 90 ms",
            "inputs [variable STAMP] one+two: env = 1 in 80 ms",
            "not-stored [] one+two: net = 1 in 70 ms",
        ]
    );
    assert_eq!(twice.groups[2].reason.as_deref(), Some("new-unit"));
}

#[test]
fn other_keys_are_grouped_by_what_differs() {
    let known = known(&[
        ("f0", &["-C|metadata|1"]),
        ("f1", &["-C|metadata|2", "cfg|feature=\"x\""]),
        ("p0", &["-C|opt-level|0", "-C|metadata|3"]),
        ("p1", &["-C|opt-level|3", "-C|metadata|4"]),
        ("r0", &[]),
        ("r1", &["cfg|tokio_unstable"]),
        ("d0", &["extern|feat|<target>/debug/deps/libfeat-1.rmeta"]),
        ("d1", &["extern|feat|<target>/debug/deps/libfeat-2.rmeta"]),
    ]);
    let compile = |n: usize| -> Vec<Event> {
        [("feat", "f"), ("prof", "p"), ("flag", "r"), ("top", "d"), ("gone", "g")]
            .iter()
            .enumerate()
            .map(|(at, (name, of))| {
                let of = format!("{of}{n}");
                miss(name, (&of, &of), (n * 100 + at) as u64, 10 << at)
            })
            .collect()
    };
    let jobs = vec![job("one", &compile(0)), job("two", &compile(1))];
    let twice = make(&input(jobs, known)).twice;
    assert_eq!((twice.units, twice.compiles), (5, 5));
    assert_eq!(
        told(&twice.groups),
        [
            "unknown [] one+two: gone = 1 in 160 ms",
            "features [feature x] one+two: top feat = 2 in 90 ms",
            "flags [argument --cfg tokio_unstable] one+two: flag = 1 in 40 ms",
            "profile [argument -C opt-level] one+two: prof = 1 in 20 ms",
        ],
        "what is made with a crate that differs counts with it"
    );
}

/// A crate whose file has the same name in both jobs, and another content.
#[test]
fn a_unit_with_another_crate_of_the_same_name_counts_with_the_crate() {
    let file = |name: &str| Member::File(TokenPath(format!("<target>/debug/deps/{name}")));
    let mut known = Known::default();
    let mut read = |unit: &str, members: &[Member]| {
        for n in 0..2 {
            let keys = (
                chunk::brief_unit(&key(unit)),
                chunk::brief_result(&result(&format!("{unit}{n}"))),
            );
            let values = members.iter().map(|member| (member.clone(), Digest::of(&[n])));
            known.inputs.insert(keys, values.collect());
        }
    };
    read("low", &[Member::Env("STAMP".into(), EnvForm::Raw)]);
    read("top", &[file("liblow-12.rmeta"), file("liblow-12.rlib")]);
    read("own", &[file("liblow-12.rlib"), file("own/table.bin")]);
    let of = |n: u64| {
        let miss = |name: &str, at| miss(name, (name, &format!("{name}{n}")), 100 * n + at, 10);
        job(["a", "b"][n as usize], &[miss("low", 1), miss("top", 2), miss("own", 3)])
    };
    let twice = make(&input(vec![of(0), of(1)], known)).twice;
    assert_eq!(
        told(&twice.groups),
        [
            "inputs [variable STAMP] a+b: low top = 2 in 20 ms",
            "inputs [file <target>/debug/deps/liblow-12.rlib, file <target>/debug/deps/own/table.bin] a+b: own = 1 in \
             10 ms",
        ]
    );
}

/// Jobs that build together: one has the crate that differs from another.
#[test]
fn what_began_in_another_job_counts_with_it() {
    let known = known(&[
        ("f0", &["-C|metadata|1"]),
        ("f1", &["-C|metadata|2", "cfg|feature=\"x\""]),
        ("d0", &["extern|feat|<target>/debug/deps/libfeat-1.rmeta"]),
        ("d1", &["extern|feat|<target>/debug/deps/libfeat-2.rmeta"]),
    ]);
    let feat = |key, at_ms| miss("feat", (key, key), at_ms, 10);
    let top = |key, at_ms| miss("top", (key, key), at_ms, 20);
    let jobs = vec![
        job("one", &[feat("f0", 1), top("d0", 3)]),
        job("three", &[feat("f1", 2)]),
        job("two", &[hit("feat"), top("d1", 4)]),
    ];
    let twice = make(&input(jobs, known)).twice;
    assert_eq!(told(&twice.groups), ["features [feature x] one+three+two: top feat = 2 in 30 ms"]);
}

/// A run of a build script that differs since the script was built in another way.
#[test]
fn the_run_of_another_build_script_counts_with_the_script() {
    let known = known(&[
        ("s0", &["-C|strip|none", "-C|metadata|1"]),
        ("s1", &["-C|strip|debuginfo", "-C|metadata|1"]),
        ("r0", &["build script||aa"]),
        ("r1", &["build script||bb"]),
    ]);
    let jobs: Vec<Job> = ["0", "1"]
        .iter()
        .enumerate()
        .map(|(n, end)| {
            let of = |kind: &str, key: &str, at| {
                let key = format!("{key}{end}");
                let mut event = miss("app", (&key, &key), at, 50);
                event.unit.kind = kind.into();
                event
            };
            let at = 100 * n as u64;
            job(
                ["one", "two"][n],
                &[of("build-script", "s", at), of("build-script run", "r", at + 1)],
            )
        })
        .collect();
    let twice = make(&input(jobs, known)).twice;
    assert_eq!(told(&twice.groups), ["profile [argument -C strip] one+two: app app = 2 in 100 ms"]);
}

/// The library `py_ffi` of the package `py-ffi`, compiled for one version of Python and then for another; in the second
/// job beside `plain`, a crate without a build script, where that has these arguments more than in the first.
fn for_two_versions(versions: [u32; 2], script: fn(usize) -> Event, plain: &[&str]) -> Vec<String> {
    let of_version = |version| match version {
        10 => &["cfg|Py_3_10"][..],
        _ => &["cfg|Py_3_10", "cfg|Py_3_11"],
    };
    let [first, second] = versions.map(of_version);
    let mut known = known(&[
        ("l0", first),
        ("l1", second),
        ("p0", &[]),
        ("p1", plain),
        ("s", &["build script||a"]),
    ]);
    for n in 0..2 {
        let keys = (chunk::brief_unit(&key("s")), chunk::brief_result(&result(&n.to_string())));
        let member = Member::Env("CONFIG_FILE".into(), EnvForm::Raw);
        known.inputs.insert(keys, vec![(member, Digest::of(&[n as u8]))]);
    }
    let of = |n: usize| {
        let (at, [lib, other]) = (100 * n as u64, ["l", "p"].map(|key| format!("{key}{n}")));
        let mut run = script(n);
        run.unit.kind = "build-script run".into();
        let mut events = vec![run, miss("py_ffi", (&lib, &lib), at + 1, 50)];
        events.extend((!plain.is_empty()).then(|| miss("plain", (&other, &other), at + 2, 20)));
        job(["a", "b"][n], &events)
    };
    told(&make(&input(vec![of(0), of(1)], known)).twice.groups)
}

/// PyO3 says `cargo:rustc-cfg=Py_3_11`: RUSTFLAGS are the same in all jobs.
#[test]
fn a_cfg_of_a_build_script_is_none_of_rustflags() {
    let runs = |n: usize| miss("py-ffi", ("s", &n.to_string()), 100 * n as u64, 5);
    let of_run = ["inputs [variable CONFIG_FILE] a+b: py_ffi py-ffi = 2 in 55 ms"];
    // The run of the script is another one, too, and says why; whichever version comes first.
    assert_eq!(for_two_versions([10, 11], runs, &[]), of_run);
    assert_eq!(for_two_versions([11, 10], runs, &[]), of_run);
    // What it says was there in both jobs, and the crate is another one.
    let restored = |_| hit("py-ffi");
    assert_eq!(
        for_two_versions([10, 11], restored, &[]),
        ["build-script [argument --cfg Py_3_11] a+b: py_ffi = 1 in 50 ms"]
    );
    // The library has another name than its package.
    assert_eq!(
        for_two_versions([10, 11], |_| hit("py-ffi-sys"), &[]),
        ["build-script [argument --cfg Py_3_11] a+b: py_ffi = 1 in 50 ms"]
    );
    // A crate without a script has it, too.
    assert_eq!(
        for_two_versions([10, 11], restored, &["cfg|Py_3_11"]),
        ["flags [argument --cfg Py_3_11] a+b: py_ffi plain = 2 in 70 ms"]
    );
}

#[test]
fn of_three_jobs_the_nearest_is_compared_and_one_job_alone_repeats_nothing() {
    let known = known(&[
        ("1", &["-C|opt-level|0"]),
        ("2", &["-C|opt-level|3", "-C|debuginfo|2", "cfg|a"]),
        ("3", &["-C|opt-level|3", "cfg|a"]),
    ]);
    let alone = [miss("x", ("1", "1"), 1, 10), miss("x", ("2", "2"), 2, 10)];
    let report = make(&input(vec![job("one", &alone)], Known::default()));
    assert_eq!(report.twice, Default::default());
    let of = |name: &str, key: &str, at: u64| job(name, &[miss("x", (key, key), at, 10)]);
    let jobs = vec![of("a", "1", 1), of("b", "2", 2), of("c", "3", 3)];
    let twice = make(&input(jobs, known)).twice;
    assert_eq!(told(&twice.groups)[1..], ["profile [argument -C debuginfo] b+c: x = 1 in 10 ms"]);
}

#[test]
fn tests_of_other_targets_are_no_work_done_twice() {
    let of = |name: &str, key: &str, at: u64| job(name, &[miss("x", (key, key), at, 10)]);
    let library = "crate root||src/lib.rs";
    for (one, other) in [
        (&[library][..], &["crate root||src/main.rs"][..]),
        (&[library, "tool||rustc"], &[library, "tool||clippy-driver"]),
    ] {
        let made_of = |text: &str, lines: &[&str]| {
            (chunk::brief_unit(&key(text)), lines.iter().map(|l| part(l)).collect())
        };
        let parts = HashMap::from([made_of("1", one), made_of("2", other)]);
        let known = Known { parts, ..Known::default() };
        let twice = make(&input(vec![of("a", "1", 1), of("b", "2", 2)], known)).twice;
        assert_eq!(twice, Default::default());
    }
}

#[test]
fn who_watches_is_told_of_the_jobs_that_were_heard_of_last() {
    let jobs = MAX_WATCHED_JOBS + 20;
    let of = |n: usize| {
        let row = row(&format!("job {n:04}"), &[hit("a"), miss("b", ("k", "r"), 1, 7)]);
        JobRow { heard_ms: if n < 20 { 5 } else { 50 + n as u64 }, ..row }
    };
    let run = input(Vec::new(), Known::default()).run;
    let told = now::now(&run, (0..jobs).map(of).collect(), 1000);
    assert_eq!((told.jobs.len(), told.job_count), (MAX_WATCHED_JOBS, jobs as u64));
    assert_eq!((told.jobs[0].job.as_str(), told.jobs[0].quiet_ms), ("job 0020", 930));
    assert!(told.jobs.is_sorted_by_key(|job| &job.job));
    // Those that are left out count.
    assert_eq!((told.total.units, told.total.hit_rate), (2 * jobs as u64, Some(50.0)));
    assert_eq!(told.quiet_ms, 1000 - 50 - (jobs as u64 - 1));
    assert_eq!(now::now(&run, Vec::new(), 1000).jobs, []);
}
