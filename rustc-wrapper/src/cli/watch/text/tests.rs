//! What is read on the screen and in a log.

use kiln_storage::api::Waiter;
use kiln_storage::record::UnitName;

use super::*;

fn unit(name: &str) -> UnitName {
    UnitName {
        crate_name: name.into(),
        version: "1.0.0".into(),
        kind: "lib".into(),
        ..UnitName::default()
    }
}

fn seen(name: &str, outcome: Outcome, took_ms: u64, quiet_ms: u64) -> SeenUnit {
    let is_hit = matches!(outcome, Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined);
    SeenUnit {
        unit: unit(name),
        outcome,
        reason: (!is_hit).then(|| "new-unit".into()),
        took_ms,
        cost_ms: 2100,
        quiet_ms,
    }
}

fn job(name: &str, units: u64, miss: u64, quiet_ms: u64) -> JobNow {
    let latest = vec![
        seen("serde", Outcome::Miss, 2104, quiet_ms),
        seen("libc", Outcome::HitLocal, 4, quiet_ms + 10),
    ];
    let hits = units - miss;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let hit_rate = (units > 0).then(|| hits as f64 * 100.0 / units as f64);
    let figures = Figures {
        units,
        hits,
        miss,
        hit_rate,
        saved_cpu_ms: 62_000,
        compiled_ms: 4000,
        ..Figures::default()
    };
    JobNow { job: name.into(), quiet_ms, figures, latest }
}

fn view() -> View {
    let jobs = vec![job("build (linux)", 61, 4, 500), job("build (mac)", 40, 6, 190_000)];
    let now = RunNow {
        run: "17".into(),
        about: RunAbout { repository: "o/r".into(), branch: "main".into(), ..RunAbout::default() },
        quiet_ms: 500,
        total: Figures { units: 101, hits: 91, ..jobs[1].figures.clone() },
        job_count: 2,
        jobs,
    };
    View { now: Some(now), ..View::default() }
}

fn lease(name: &str, job: &str, waiting: &[&str]) -> Lease {
    let by = |job: &&str| Waiter { run: "17".into(), job: (*job).into() };
    Lease {
        unit: unit(name),
        holder: Holder { run: "17".into(), job: job.into(), age_ms: 12_000, ..Holder::default() },
        waiting: waiting.iter().map(by).collect(),
    }
}

#[track_caller]
fn check(shown: &[String], want: &str) {
    let shown = shown.join("\n");
    assert_eq!(shown, want.trim_end(), "\n{shown}\n");
}

#[test]
fn a_frame_tells_of_the_run_its_jobs_and_the_last_units() {
    check(
        &frame(&view(), None),
        "\
run 17 of o/r, branch main
101 units in 2 jobs: 85.0 % from the cache, 6 misses, 1 min 2 s of compiling saved, 4.0 s spent

job            units  hit rate  misses        saved  now
build (linux)     61    93.4 %       4    1 min 2 s  goes on
build (mac)       40    85.0 %       6    1 min 2 s  quiet for 3 min 10 s

last units:
       2.1 s  miss: serde 1.0.0 (lib) in build (linux), new-unit
        4 ms  hit: libc 1.0.0 (lib) in build (linux), saves 2.1 s
       2.1 s  miss: serde 1.0.0 (lib) in build (mac), new-unit
        4 ms  hit: libc 1.0.0 (lib) in build (mac), saves 2.1 s
",
    );
}

#[test]
fn leases_say_who_compiles_and_who_waits() {
    let mut view = view();
    view.leases = vec![
        lease("ring", "build (linux)", &[]),
        lease("syn", "build (linux)", &["build (mac)", "test"]),
        lease("rustls", "test", &["build (mac)"]),
    ];
    let shown = frame(&view, None);
    assert!(shown[4].ends_with("  compiles ring 1.0.0 (lib) and 1 more"), "{shown:#?}");
    assert!(shown[5].ends_with("  waits for syn 1.0.0 (lib) of build (linux)"), "{shown:#?}");
    check(
        &shown[7..11],
        "being compiled:
      12.0 s  syn 1.0.0 (lib) in build (linux); build (mac) and 1 more wait for it
      12.0 s  rustls 1.0.0 (lib) in test; build (mac) waits for it
      12.0 s  ring 1.0.0 (lib) in build (linux)",
    );
}

#[test]
fn a_frame_fits_into_the_rows_and_says_what_it_leaves_out() {
    let mut view = view();
    let now = view.now.as_mut().unwrap();
    now.jobs = (0..40).map(|n| job(&format!("job {n:02}"), n, 0, 1000 - n)).collect();
    now.job_count = 300;
    for rows in [1, 2, 7, 10, 24, 60] {
        let shown = frame(&view, Some(Size { columns: 80, rows }));
        assert!(rows < 10 || shown.len() < rows, "{rows}: {shown:#?}");
        assert!(shown.iter().any(|line| line.starts_with("... and 2")), "{rows}: {shown:#?}");
        // Those that go on are shown.
        assert!(shown.iter().any(|line| line.starts_with("job 39")), "{rows}: {shown:#?}");
    }
    let shown = frame(&view, Some(Size { columns: 80, rows: 24 }));
    assert!(shown.iter().any(|line| line.contains("miss: serde")), "{shown:#?}");
}

#[test]
fn names_are_cut_before_figures_on_a_narrow_terminal() {
    let mut view = view();
    view.now.as_mut().unwrap().jobs[0].job =
        "a very long name of a job, with all of its matrix".into();
    let shown = frame(&view, Some(Size { columns: 70, rows: 24 }));
    assert!(shown[4].starts_with("a very long n\u{2026}     61    93.4 %"), "{shown:#?}");
}

#[test]
fn a_log_gets_a_line_for_each_change() {
    let (mut told, mut view) = (Told::default(), view());
    check(
        &told.changes(&view),
        "\
run 17 of o/r, branch main
build (linux): 61 units, 93.4 % from the cache, 4 misses, 1 min 2 s saved; last in 2.1 s miss: serde 1.0.0 (lib), new-unit
build (mac): 40 units, 85.0 % from the cache, 6 misses, 1 min 2 s saved; last in 2.1 s miss: serde 1.0.0 (lib), new-unit; quiet for 3 min 10 s
",
    );
    assert!(told.changes(&view).is_empty());
    view.now.as_mut().unwrap().jobs[0] = job("build (linux)", 62, 4, 0);
    view.leases = vec![lease("syn", "test", &["build (mac)"]), lease("ring", "test", &[])];
    check(
        &told.changes(&view),
        "\
build (linux): 62 units, 93.5 % from the cache, 4 misses, 1 min 2 s saved; last in 2.1 s miss: serde 1.0.0 (lib), new-unit
being compiled: syn 1.0.0 (lib) in test; build (mac) waits for it
",
    );
    view.now.as_mut().unwrap().jobs[0].quiet_ms = 61_000;
    check(&told.changes(&view), "build (linux): quiet for 1 min 1 s");
    assert!(told.changes(&view).is_empty());
    view.notice = Some(Notice::Fault("the server does not answer (gone)".into()));
    check(&told.changes(&view), "the server does not answer (gone)");
    assert!(told.changes(&view).is_empty());
    view.notice = None;
    check(&told.changes(&view), "the server answers again");
    view.now.as_mut().unwrap().run = "18".into();
    assert_eq!(told.changes(&view).len(), 4);
}

#[test]
fn what_is_waited_for_is_said() {
    let view = View { notice: Some(Notice::Waits("no run\u{1b}[2J".into())), ..View::default() };
    check(&frame(&view, None), "no run\\u001b[2J");
    check(&Told::default().changes(&view), "no run\\u001b[2J");
}

#[test]
fn hostile_names_leave_the_terminal_alone() {
    let mut view = view();
    let bad = "\u{1b}]0;x\u{7}\u{9b}2J\r\n\u{202e}";
    view.leases = vec![lease(bad, bad, &[bad])];
    let now = view.now.as_mut().unwrap();
    (now.run, now.about.branch, now.about.repository) = (bad.into(), bad.into(), bad.into());
    now.jobs[0].job = bad.into();
    now.jobs[0].latest[0].unit.crate_name = bad.into();
    now.jobs[0].latest[0].reason = Some(bad.into());
    let told = [frame(&view, None), Told::default().changes(&view)].concat();
    assert!(told.iter().flat_map(|line| line.chars()).all(|c| !say::is_control(c)), "{told:#?}");
}
