//! The pages in a browser: headless Chromium, driven by node, with axe-core to look for what keeps people out.

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_storage::api::{Event, Outcome};
use kiln_storage::testing::npm;
use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::runs::{hex, of, send};

/// Names that the browser may have.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser, and the directory in which its driver is installed; or why there is none.
fn installed() -> Result<(PathBuf, PathBuf), String> {
    let starts = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let program = CHROMIUM.iter().find(starts).ok_or("there is no chromium")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    npm::install(&source, &place)?;
    Ok((program.into(), place))
}

fn unit(job: &str, n: u64, outcome: Outcome) -> Event {
    let mut event = of("<b>run</b>", job, usize::try_from(n).unwrap(), outcome);
    event.unit.crate_name = format!("crate-{n}");
    (event.at_ms, event.cost_ms, event.wall_us) = (50_000 + 100 * n, 100 * n, 100_000 * n);
    event
}

/// Eight jobs of eight crates: job `n` has the crates below `n` from the cache.
fn matrix(server: &TestServer) {
    for job in 0..8 {
        let outcome = |n| if n < job { Outcome::HitRemote } else { Outcome::Miss };
        let name = format!("job {job} <script>alert(1)</script>");
        send(server, (0..8).map(|n| unit(&name, n, outcome(n))).collect());
    }
    for n in 0..8 {
        send(server, vec![of(&format!("earlier-{n}"), "j", n, Outcome::Miss)]);
    }
}

#[test]
fn pages_are_whole_in_a_browser_and_keep_nobody_out() {
    let (program, place) = match installed() {
        Ok(found) => found,
        Err(why) => return println!("SKIP: {why}"),
    };
    let server = TestServer::start();
    matrix(&server);
    let profile = tempfile::tempdir().unwrap();
    let list = format!("http://{}/", server.tcp);
    let run = format!("{list}runs/{}", hex("<b>run</b>"));
    let ran = Command::new("node")
        .arg(place.join("drive.mjs"))
        .args([&program, profile.path()])
        .args([list, run])
        .env("HOME", profile.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    for nothing in ["errors", "violations", "wider"] {
        assert_eq!(told[nothing], json!([]), "{nothing}");
    }
    assert_eq!((&told["tabular"], &told["bars"]), (&json!("right"), &json!(64)));
    // The crate that cost most comes first: 8 jobs compiled what only jobs after it have.
    let heat: Vec<&str> =
        told["heat"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert_eq!(heat.len(), 8);
    for row in heat {
        let cells: Vec<&str> = row.split('|').collect();
        let n: usize = cells[0].strip_prefix("crate-").unwrap().parse().unwrap();
        let wanted: Vec<&str> =
            (0..8).map(|job| if n < job { "1/1 c hit" } else { "0/1 c miss" }).collect();
        assert_eq!(cells[2..], wanted, "{row}");
    }
    let jobs: Vec<String> = (0..8).map(|n| format!("job {n} <script>alert(1)</script>")).collect();
    let backwards: Vec<&String> = jobs.iter().rev().collect();
    assert_eq!((&told["ascending"], &told["descending"]), (&json!(jobs), &json!(backwards)));
    assert_eq!(told["costly"][0], "crate-7");
    assert_eq!((&told["filtered"], &told["count"]), (&json!(["crate-3"]), &json!("1 of 8")));
}
