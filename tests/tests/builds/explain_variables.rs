//! Theme: where all variables count, `kiln explain` names those that differ, and nothing keeps their values.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_storage::entry;
use kiln_tests::direct::With;
use kiln_tests::project::files_below;
use kiln_tests::script::Scripted;
use kiln_tests::world;
use serde_json::Value;

/// A script that hands all variables to a shell.
const HANDS_ON: &str = "sh(\"true\"); String::from(\"x\")";

/// A text that nothing may keep.
const SECRET: &str = "kt-hush-3f9a1c";

/// What differed for the run of the script in the last build, as words, and how many more.
#[track_caller]
fn told(place: &Scripted) -> (Vec<String>, u64) {
    let done = place.world.kiln(&["explain", "--format", "json"]).run().ok();
    let explanation: Value = serde_json::from_str(&done.stdout).unwrap();
    let compiled = explanation["compiled"].as_array().unwrap();
    let is_run = |unit: &&Value| unit["unit"]["kind"] == "build-script run";
    let run = compiled.iter().find(is_run).unwrap_or_else(|| panic!("{explanation:#}"));
    let causes = run["causes"].as_array().unwrap();
    let text = |cause: &Value| cause["text"].as_str().unwrap().to_owned();
    (causes.iter().map(text).collect(), run["more_causes"].as_u64().unwrap())
}

/// A build in which the script runs.
#[track_caller]
fn runs(place: &Scripted) {
    assert_eq!(place.build(With::Kiln).scripts, ["pk"]);
}

#[track_caller]
fn hits(place: &Scripted) {
    let shown = place.build(With::Kiln);
    assert!(shown.scripts.is_empty(), "the script ran; {}", place.why());
}

/// Texts that hold digests, which differ, without them.
fn without_digests(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| text.split(" (").next().unwrap().to_owned()).collect()
}

#[test]
fn one_that_is_new_changed_or_gone() {
    let place = Scripted::new(world!(), HANDS_ON);
    place.set("KT_GONE", SECRET);
    place.set("KT_OTHER", SECRET);
    runs(&place);
    hits(&place);
    place.unset("KT_GONE");
    place.set("KT_OTHER", &format!("{SECRET}-2"));
    place.set("KT_NEW", &format!("{SECRET}-3"));
    place.set("GITHUB_RUN_ID", "2");
    runs(&place);
    let (texts, more) = told(&place);
    let want = [
        "variable KT_GONE is gone",
        "variable KT_NEW is new",
        "variable KT_OTHER has another value",
    ];
    assert_eq!((without_digests(&texts), more), (want.map(str::to_owned).to_vec(), 0), "{texts:?}");
    let text = place.world.kiln(&["explain"]).run().ok().stdout;
    assert!(text.contains("1. variable KT_GONE is gone"), "{text}");
    assert!(text.contains("also   variable KT_NEW is new; variable KT_OTHER has"), "{text}");
    hits(&place);
    // The one from before is there still, and the nearest of both counts.
    place.set("KT_OTHER", &format!("{SECRET}-4"));
    runs(&place);
    let (texts, more) = told(&place);
    let want = vec!["variable KT_OTHER has another value".to_owned()];
    assert_eq!((without_digests(&texts), more), (want, 0), "{texts:?}");
}

/// Few are named, and how many there are beside them.
#[test]
fn many() {
    let place = Scripted::new(world!(), HANDS_ON);
    runs(&place);
    for n in 0..30 {
        place.set(&format!("KT_{n:02}"), "1");
    }
    runs(&place);
    let (texts, more) = told(&place);
    let want = ["KT_00", "KT_01", "KT_02", "KT_03"].map(|name| format!("variable {name} is new"));
    assert_eq!((texts, more), (want.to_vec(), 26));
    let text = place.world.kiln(&["explain", "pk"]).run().ok().stdout;
    assert!(text.contains("and 26 more"), "{text}");
}

/// A script that goes through all variables counts those of a session, too.
#[test]
fn all_of_them() {
    let place = Scripted::new(world!(), "std::env::vars_os().count().to_string()");
    place.set("GITHUB_RUN_ID", "1");
    runs(&place);
    place.set("GITHUB_RUN_ID", "2");
    runs(&place);
    let (texts, more) = told(&place);
    let want = vec!["variable GITHUB_RUN_ID has another value".to_owned()];
    assert_eq!((without_digests(&texts), more), (want, 0), "{texts:?}");
}

#[test]
fn a_macro_that_cannot_be_observed() {
    let place = Scripted::new(world!(), "String::new()");
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\", \"mac\"]\nresolver = \"2\"\n");
    place.base("mac/Cargo.toml", &format!("{manifest}[lib]\nproc-macro = true\n"));
    place.base(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn none(_: proc_macro::TokenStream) -> proc_macro::TokenStream { Default::default() }\n",
    );
    let used = "\n[dependencies]\nmac = { path = \"../mac\" }\n";
    place.base("pk/Cargo.toml", &(kiln_tests::script::manifest("pk", "") + used));
    place.base("pk/src/main.rs", "mac::none!();\nfn main() {}\n");
    place.set("KILN_OBSERVE", "off");
    place.set("KT_OTHER", SECRET);
    place.build(With::Kiln).done.ok();
    place.set("KT_OTHER", "2");
    place.build(With::Kiln).done.ok();
    let text = place.world.kiln(&["explain", "pk"]).run().ok().stdout;
    assert!(text.contains("variable KT_OTHER has another value"), "{text}");
}

/// In no file of Kiln's, whatever it is, and in no report; and a hostile name leaves a terminal alone.
#[test]
fn values_are_not_kept_and_names_are_shown_safely() {
    let place = Scripted::new(world!(), HANDS_ON);
    let name = "KT\u{1b}[31m\u{9b}2J\n\u{202e}";
    let report = place.world.at("report");
    place.set("KILN_REPORT_FILE", report.to_str().unwrap());
    place.set(name, SECRET);
    place.set("KT_PASSWORD", SECRET);
    runs(&place);
    place.unset(name);
    place.set("KT_PASSWORD", "2");
    runs(&place);
    let shown: Vec<String> = [&["explain"][..], &["explain", "pk"], &["stats"]]
        .iter()
        .map(|args| place.world.kiln(args).run().ok().stdout)
        .collect();
    assert!(shown[0].contains("KT_PASSWORD has another value"), "{}", shown[0]);
    let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.iter().any(|text| text.contains(odd)), "{shown:?}");
    // All of it is on the disk then.
    place.world.stop_server();
    let kept = files_below(&place.world.kiln_dir());
    assert!(kept.iter().any(|file| file.ends_with("index.sqlite")), "{kept:?}");
    assert!(!holds(&std::fs::read(report).unwrap(), SECRET));
    let mut lists = 0;
    for file in kept {
        let bytes = std::fs::read(place.world.kiln_dir().join(&file)).unwrap();
        let record = record(&file, &bytes);
        assert!(!holds(&bytes, SECRET) && !holds(&record, SECRET), "{} has it", file.display());
        lists += usize::from(holds(&record, "KT_PASSWORD"));
    }
    assert_eq!(lists, 2, "the records of both runs name it");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// What is in the record that a file of the store holds, if it is one.
fn record(file: &Path, bytes: &[u8]) -> Vec<u8> {
    let name = file.to_str().and_then(|file| file.strip_prefix("store/"));
    let name = name.filter(|name| name.starts_with("records/")).and_then(|name| name.parse().ok());
    let payload = name.map(|name| entry::decode(&name, bytes.to_vec()).unwrap().into_bytes());
    payload.map(|payload| payload.to_vec()).unwrap_or_default()
}

/// An index that is gone is made anew from what is stored, lists of variables with it.
#[test]
fn an_index_that_is_made_anew() {
    let place = Scripted::new(world!(), HANDS_ON);
    runs(&place);
    place.world.stop_server();
    std::fs::remove_file(place.world.kiln_dir().join("index.sqlite")).unwrap();
    place.set("KT_NEW", "1");
    runs(&place);
    assert_eq!(told(&place), (vec!["variable KT_NEW is new".to_owned()], 0));
}
