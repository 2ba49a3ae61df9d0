//! What the jobs of each service are called, from variables as the services set them; and that no variable makes
//! a name that is long or moves a terminal.

use proptest::prelude::*;

use super::services::SERVICES;
use super::*;

fn here() -> Here {
    Here { build: "4242-7".into(), place: "/home/ann/app".into(), host: "ann-laptop".into() }
}

fn identity(pairs: &[(&str, &str)]) -> Identity {
    let env = Env::of_pairs(pairs.iter().copied());
    let config = Config::resolve(&env).unwrap();
    Identity::of(&env, &config, here())
}

/// A service, its variables in every job, and its jobs: further variables; run and job; branch, base and attempt.
type Row<'a> = (&'a [(&'a str, &'a str)], (&'a str, &'a str), (&'a str, &'a str, u32));

fn check(service: &str, always: &[(&str, &str)], rows: &[Row<'_>]) -> Vec<RunAbout> {
    let mut all = Vec::new();
    for (more, (run, job), (branch, base, attempt)) in rows {
        let pairs: Vec<_> = always.iter().chain(*more).copied().collect();
        let found = identity(&pairs);
        assert_eq!((found.run.as_str(), found.job.as_str()), (*run, *job), "{service}: {more:?}");
        let about = found.about.unwrap();
        let told = (about.branch.as_str(), about.base.as_str(), about.attempt);
        assert_eq!(told, (*branch, *base, *attempt), "{service}: {more:?}");
        assert_eq!((about.service.as_str(), found.build.as_str()), (service, "4242-7"));
        all.push(about);
    }
    all
}

const GITHUB: &[(&str, &str)] = &[
    ("CI", "true"),
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_RUN_ID", "19283746501"),
    ("GITHUB_RUN_NUMBER", "812"),
    ("GITHUB_RUN_ATTEMPT", "1"),
    ("GITHUB_JOB", "test"),
    ("GITHUB_WORKFLOW", "CI"),
    ("GITHUB_REPOSITORY", "acme/rocket"),
    ("GITHUB_SHA", "ffac537e6cbbf934b08745a378932722df287a53"),
    ("GITHUB_SERVER_URL", "https://github.com"),
    ("GITHUB_HEAD_REF", ""),
    ("GITHUB_BASE_REF", ""),
    ("GITHUB_REF_NAME", "main"),
    ("RUNNER_OS", "Linux"),
    ("RUNNER_ARCH", "X64"),
    ("RUNNER_NAME", "GitHub Actions 17"),
];

#[test]
fn jobs_of_github() {
    let run = "19283746501";
    let pull = [
        ("GITHUB_HEAD_REF", "faster"),
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_REF_NAME", "77/merge"),
    ];
    let rows: &[Row<'_>] = &[
        (&[], (run, "test (Linux X64)"), ("main", "", 1)),
        (&pull, (run, "test (Linux X64)"), ("faster", "main", 1)),
        (&[("GITHUB_REF_NAME", "v1.2.0")], (run, "test (Linux X64)"), ("v1.2.0", "", 1)),
        (&[("GITHUB_RUN_ATTEMPT", "2")], ("19283746501.2", "test (Linux X64)"), ("main", "", 2)),
        (
            &[("RUNNER_OS", "macOS"), ("RUNNER_ARCH", "ARM64")],
            (run, "test (macOS ARM64)"),
            ("main", "", 1),
        ),
        (
            &[("KILN_MATRIX", "{\n  \"os\": \"ubuntu-latest\",\n  \"rust\": \"stable\"\n}")],
            (run, "test (ubuntu-latest, stable)"),
            ("main", "", 1),
        ),
        (
            &[("KILN_MATRIX", r#"{"os":"ubuntu-latest","rust":"beta"}"#)],
            (run, "test (ubuntu-latest, beta)"),
            ("main", "", 1),
        ),
        (&[("KILN_MATRIX", "null")], (run, "test"), ("main", "", 1)),
        (&[("KILN_MATRIX", "")], (run, "test (Linux X64)"), ("main", "", 1)),
    ];
    let about = check("github", GITHUB, rows);
    assert_eq!((about[0].repository.as_str(), about[0].workflow.as_str()), ("acme/rocket", "CI"));
    assert_eq!(about[0].commit, "ffac537e6cbbf934b08745a378932722df287a53");
    assert_eq!(about[0].url, "https://github.com/acme/rocket/actions/runs/19283746501");
}

#[test]
fn jobs_of_forgejo_and_gitea() {
    let forge = |signs: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        let own = [
            ("GITHUB_SERVER_URL", "https://codeberg.org"),
            ("GITHUB_RUN_ID", "5021"),
            ("RUNNER_NAME", "runner-3"),
        ];
        GITHUB.iter().chain(&own).chain(signs).copied().collect()
    };
    let rows: &[Row<'_>] = &[
        (&[], ("5021", "test (Linux X64)"), ("main", "", 1)),
        (
            &[
                ("GITHUB_HEAD_REF", "faster"),
                ("GITHUB_BASE_REF", "main"),
                ("GITHUB_RUN_ATTEMPT", "3"),
            ],
            ("5021.3", "test (Linux X64)"),
            ("faster", "main", 3),
        ),
        (&[("KILN_MATRIX", r#"{"rust":"beta"}"#)], ("5021", "test (beta)"), ("main", "", 1)),
        // Gitea before 1.23 does not count attempts.
        (&[("GITHUB_RUN_ATTEMPT", "")], ("5021", "test (Linux X64)"), ("main", "", 1)),
    ];
    let gitea = ("GITEA_ACTIONS", "true");
    let both = [gitea, ("FORGEJO_ACTIONS", "true")];
    for (service, signs) in [("gitea", &both[..1]), ("forgejo", &both)] {
        let about = check(service, &forge(signs), rows);
        assert_eq!(about[0].url, "https://codeberg.org/acme/rocket/actions/runs/812");
    }
}

#[test]
fn jobs_of_gitlab() {
    let always = [
        ("CI", "true"),
        ("GITLAB_CI", "true"),
        ("CI_PIPELINE_ID", "1389201"),
        ("CI_PIPELINE_IID", "56"),
        ("CI_PIPELINE_URL", "https://gitlab.example/acme/tools/rocket/-/pipelines/1389201"),
        ("CI_JOB_ID", "771024"),
        ("CI_JOB_NAME", "test"),
        ("CI_PROJECT_PATH", "acme/tools/rocket"),
        ("CI_COMMIT_REF_NAME", "main"),
        ("CI_COMMIT_SHA", "ffac537e6cbbf934b08745a378932722df287a53"),
    ];
    let run = "1389201";
    let request = [
        ("CI_COMMIT_REF_NAME", "faster"),
        ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "faster"),
        ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ("CI_PIPELINE_NAME", "Merge request"),
    ];
    let rows: &[Row<'_>] = &[
        (&[], (run, "test"), ("main", "", 1)),
        (&request, (run, "test"), ("faster", "main", 1)),
        (
            &[("CI_COMMIT_REF_NAME", "v1.2.0"), ("CI_COMMIT_TAG", "v1.2.0")],
            (run, "test"),
            ("v1.2.0", "", 1),
        ),
        (&[("CI_JOB_ID", "771099")], (run, "test"), ("main", "", 1)),
        (
            &[("CI_JOB_NAME", "test 2/4"), ("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "4")],
            (run, "test 2/4"),
            ("main", "", 1),
        ),
        (
            &[("CI_JOB_NAME", "test: [linux, stable]")],
            (run, "test: [linux, stable]"),
            ("main", "", 1),
        ),
    ];
    let about = check("gitlab", &always, rows);
    assert_eq!((about[0].workflow.as_str(), about[1].workflow.as_str()), ("", "Merge request"));
    assert_eq!(about[0].repository, "acme/tools/rocket");
    assert!(about[0].url.ends_with("/-/pipelines/1389201"));
}

#[test]
fn jobs_of_buildkite() {
    let run = "0193903e-ecd9-4c51-9156-0738da987e87";
    let always = [
        ("CI", "true"),
        ("BUILDKITE", "true"),
        ("BUILDKITE_BUILD_ID", run),
        ("BUILDKITE_BUILD_NUMBER", "1514"),
        ("BUILDKITE_BUILD_URL", "https://buildkite.com/acme/rocket/builds/1514"),
        ("BUILDKITE_ORGANIZATION_SLUG", "acme"),
        ("BUILDKITE_PIPELINE_SLUG", "rocket"),
        ("BUILDKITE_REPO", "https://bot:secret@git.example/acme/rocket.git"),
        ("BUILDKITE_LABEL", ":rust: Test"),
        ("BUILDKITE_STEP_KEY", "test"),
        ("BUILDKITE_STEP_ID", "0193903e-4c51"),
        ("BUILDKITE_JOB_ID", "0193903f-0001"),
        ("BUILDKITE_RETRY_COUNT", "0"),
        ("BUILDKITE_BRANCH", "main"),
        ("BUILDKITE_PULL_REQUEST", "false"),
        ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", ""),
        ("BUILDKITE_TAG", ""),
        ("BUILDKITE_COMMIT", "ffac537e6cbbf934b08745a378932722df287a53"),
    ];
    let pull = [
        ("BUILDKITE_BRANCH", "ann:faster"),
        ("BUILDKITE_PULL_REQUEST", "77"),
        ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "main"),
    ];
    let part = [("BUILDKITE_PARALLEL_JOB", "0"), ("BUILDKITE_PARALLEL_JOB_COUNT", "4")];
    let again = format!("{run}.2");
    let rows: &[Row<'_>] = &[
        (&[], (run, ":rust: Test"), ("main", "", 1)),
        (&pull, (run, ":rust: Test"), ("ann:faster", "main", 1)),
        (&[("BUILDKITE_RETRY_COUNT", "1")], (&again, ":rust: Test"), ("main", "", 2)),
        (&part, (run, ":rust: Test 1/4"), ("main", "", 1)),
        (&[("BUILDKITE_LABEL", "Test beta")], (run, "Test beta"), ("main", "", 1)),
        (&[("BUILDKITE_LABEL", "")], (run, "test"), ("main", "", 1)),
        (
            &[("BUILDKITE_BRANCH", "v1.2.0"), ("BUILDKITE_TAG", "v1.2.0")],
            (run, ":rust: Test"),
            ("v1.2.0", "", 1),
        ),
        (&[("BUILDKITE_LABEL", ""), ("BUILDKITE_STEP_KEY", "")], (run, "app"), ("main", "", 1)),
    ];
    let about = check("buildkite", &always, rows);
    assert_eq!(
        (about[0].repository.as_str(), about[0].workflow.as_str()),
        ("acme/rocket", "rocket")
    );
    assert_eq!(about[0].url, "https://buildkite.com/acme/rocket/builds/1514");
    assert!(!format!("{about:?}").contains("secret"));
}

#[test]
fn jobs_of_circleci() {
    let run = "5f1e4ed0-9b8a-4c9e-9d77-3b0c7f1b3f10";
    let always = [
        ("CI", "true"),
        ("CIRCLECI", "true"),
        ("CIRCLE_WORKFLOW_ID", run),
        ("CIRCLE_WORKFLOW_WORKSPACE_ID", run),
        ("CIRCLE_JOB", "test"),
        ("CIRCLE_BUILD_NUM", "3391"),
        ("CIRCLE_BUILD_URL", "https://circleci.com/gh/acme/rocket/3391"),
        ("CIRCLE_PROJECT_USERNAME", "acme"),
        ("CIRCLE_PROJECT_REPONAME", "rocket"),
        ("CIRCLE_PROJECT_ID", "7a1b"),
        ("CIRCLE_NODE_INDEX", "0"),
        ("CIRCLE_NODE_TOTAL", "1"),
        ("CIRCLE_BRANCH", "main"),
        ("CIRCLE_SHA1", "ffac537e6cbbf934b08745a378932722df287a53"),
    ];
    let again = "77777777-9b8a-4c9e-9d77-3b0c7f1b3f10";
    let rows: &[Row<'_>] = &[
        (&[], (run, "test"), ("main", "", 1)),
        (&[("CIRCLE_BRANCH", "pull/77")], (run, "test"), ("pull/77", "", 1)),
        (&[("CIRCLE_WORKFLOW_ID", again)], (again, "test"), ("main", "", 1)),
        (&[("CIRCLE_JOB", "test-stable-linux")], (run, "test-stable-linux"), ("main", "", 1)),
        (
            &[("CIRCLE_NODE_INDEX", "3"), ("CIRCLE_NODE_TOTAL", "4")],
            (run, "test 4/4"),
            ("main", "", 1),
        ),
        (&[("CIRCLE_BRANCH", ""), ("CIRCLE_TAG", "v1.2.0")], (run, "test"), ("v1.2.0", "", 1)),
        (&[("CIRCLE_PROJECT_USERNAME", "")], (run, "test"), ("main", "", 1)),
    ];
    let about = check("circleci", &always, rows);
    assert_eq!(
        (about[0].repository.as_str(), about[6].repository.as_str()),
        ("acme/rocket", "7a1b")
    );
    assert_eq!(about[0].url, "https://circleci.com/gh/acme/rocket/3391");
}

#[test]
fn what_was_told_counts_before_a_service() {
    let with = |more: &[(&'static str, &'static str)]| {
        let found = identity(&GITHUB.iter().chain(more).copied().collect::<Vec<_>>());
        assert_eq!(found.about.unwrap().service, "github");
        (found.run, found.job)
    };
    let again = ("GITHUB_RUN_ATTEMPT", "2");
    assert_eq!(with(&[("KILN_RUN", "nightly"), again]).0, "nightly");
    assert_eq!(with(&[("KILN_JOB", "linux")]).1, "linux");
    assert_eq!(with(&[("KILN_JOB", "linux"), ("KILN_MATRIX", r#"{"a":1}"#)]).1, "linux (1)");
    assert_eq!(with(&[("KILN_RUN", " \n"), ("KILN_JOB", "\u{1b}")]), with(&[]));
}

#[test]
fn without_a_service_a_run_is_a_call_of_cargo() {
    let found = identity(&[]);
    assert_eq!((found.run.as_str(), found.job.as_str()), ("ann-laptop-4242-7", "app"));
    assert_eq!(found.about, None);
    assert_eq!(identity(&[("KILN_MATRIX", r#"{"a":1}"#)]).job, "app (1)");
    // `act`, on the machine of somebody.
    let act: Vec<_> =
        GITHUB.iter().copied().chain([("ACT", "true"), ("GITHUB_RUN_ID", "1")]).collect();
    assert_eq!(identity(&act), found);
    // A sign alone.
    for sign in SERVICES.iter().map(|service| service.sign) {
        assert_eq!(identity(&[(sign, "true")]), found, "{sign}");
    }
    let nowhere = Here { place: "/".into(), ..here() };
    let env = Env::default();
    assert_eq!(Identity::of(&env, &Config::resolve(&env).unwrap(), nowhere).job, "local");
}

#[test]
fn only_addresses_of_pages_are_links() {
    let url = |url| {
        let of_gitlab = [("GITLAB_CI", "true"), ("CI_PIPELINE_ID", "1"), ("CI_PIPELINE_URL", url)];
        identity(&of_gitlab).about.unwrap().url
    };
    assert_eq!(url("http://git.example/1"), "http://git.example/1");
    let long = format!("https://git.example/{}", "x".repeat(MAX_ABOUT_BYTES));
    for refused in ["javascript:alert(1)", "git.example", "https://a b", "https://a\u{9b}b", &long]
    {
        assert_eq!(url(refused), "", "{refused}");
    }
}

/// The page names every variable of the table.
#[test]
fn the_page_about_jobs_is_complete() {
    let page = include_str!("../../../docs/jobs.md");
    for service in SERVICES {
        let lists = [service.job, service.machine, service.repository, service.workflow];
        let more = [service.branch, service.base, service.commit, service.url];
        let patterns = lists.into_iter().chain(more).flatten().copied().chain([service.run]);
        let mut names: Vec<&str> =
            patterns.flat_map(|p| p.split(['{', '}']).skip(1).step_by(2)).collect();
        names.extend([service.sign]);
        names.extend(service.unless);
        names.extend(service.attempt.map(|(name, _)| name));
        names.extend(service.parallel.into_iter().flat_map(|(index, total)| [index, total]));
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "docs/jobs.md: {name}");
        }
    }
}

/// Every variable that names are made of.
fn variables() -> Vec<&'static str> {
    let github = GITHUB.iter().map(|(name, _)| *name);
    let more = ["FORGEJO_ACTIONS", "GITLAB_CI", "CI_PIPELINE_ID", "CI_JOB_NAME", "CI_PIPELINE_URL"];
    let buildkite = ["BUILDKITE", "BUILDKITE_BUILD_ID", "BUILDKITE_LABEL", "BUILDKITE_RETRY_COUNT"];
    let parts = ["BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "CIRCLECI"];
    github.chain(more).chain(buildkite).chain(parts).chain(["KILN_RUN", "KILN_JOB"]).collect()
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true".to_owned()),
        any::<u32>().prop_map(|number| number.to_string()),
        any::<String>(),
        ".{250,600}",
        "https://[a-z/]{0,300}",
    ]
}

proptest! {
    #[test]
    fn names_are_bounded_and_show_as_they_are(
        set in prop::collection::btree_map(prop::sample::select(variables()), value(), 0..12),
        values in prop::collection::vec(any::<String>(), 0..4),
        place in any::<String>(),
        host in any::<String>(),
    ) {
        let matrix = serde_json::json!({ "all": values }).to_string();
        let pairs = set.iter().map(|(name, value)| (*name, value.as_str()));
        let env = Env::of_pairs(pairs.chain([("KILN_MATRIX", matrix.as_str())]));
        let config = Config::resolve(&env).unwrap();
        let here = Here { build: "1-2".into(), place: place.into(), host };
        let found = Identity::of(&env, &config, here.clone());
        prop_assert!(found.run.len() <= MAX_RUN_BYTES && found.job.len() <= MAX_JOB_BYTES);
        prop_assert!(!found.run.is_empty() && !found.job.is_empty());
        let about = found.about.clone().unwrap_or_default();
        prop_assert!(about.texts().iter().all(|text| text.len() <= MAX_ABOUT_BYTES));
        let all = [&found.run, &found.job];
        let mut all = about.texts().into_iter().chain(all);
        prop_assert!(!all.any(|text| text.contains(say::is_control)));
        prop_assert_eq!(&Identity::of(&env, &config, here), &found);
    }
}
