//! The whole table.

use super::*;

const MAIN: &str = "refs/heads/main";

fn rules(more: &str) -> Rules {
    let text = format!(
        r#"{{"audience": "https://kiln.example", "issuers": [{{"url": "{GITHUB}"}}, {{"url": "https://h/_services/token"}}],
            "repositories": [{{"id": "7", "default_branch": "main"{more}}},
                {{"id": "8", "issuer": "https://h/_services/token", "default_branch": "trunk"}}]}}"#
    );
    Rules::parse(&text).unwrap()
}

fn claims(event: &str, ref_type: &str, reference: &str, base: &str) -> Claims {
    Claims {
        iss: GITHUB.into(),
        repository_id: "7".into(),
        event_name: event.into(),
        ref_type: ref_type.into(),
        reference: reference.into(),
        base_ref: base.into(),
        runner_environment: "github-hosted".into(),
        workflow_ref: "o/r/.github/workflows/ci.yml@refs/heads/main".into(),
        ..Claims::default()
    }
}

/// Refs that are read and the one that is written, in the scopes of repository 7.
fn given(claims: &Claims, rules: &Rules) -> (Vec<String>, Option<String>) {
    let Given { reads, writes, .. } = map(claims, rules).unwrap();
    assert!(reads.iter().chain(&writes).all(|scope| scope.repository() == "github:7"));
    let name = |scope: &Scope| scope.reference().to_owned();
    (reads.iter().map(name).collect(), writes.as_ref().map(name))
}

type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str], Option<&'a str>);

#[test]
fn who_reads_and_writes_what() {
    let queue = "refs/heads/gh-readonly-queue/release/1.x/pr-5-0123";
    let feature = "refs/heads/feature";
    let merge = "refs/pull/12/merge";
    let tag = "refs/tags/v1";
    // Event, kind of ref, ref, base; what is read, what is written.
    let table: &[Row<'_>] = &[
        ("push", "branch", MAIN, "", &[MAIN], Some(MAIN)),
        ("push", "branch", feature, "", &[feature, MAIN], Some(feature)),
        ("schedule", "branch", MAIN, "", &[MAIN], Some(MAIN)),
        ("workflow_dispatch", "branch", feature, "", &[feature, MAIN], Some(feature)),
        ("repository_dispatch", "branch", MAIN, "", &[MAIN], Some(MAIN)),
        ("pull_request", "branch", merge, "main", &[merge, MAIN], Some(merge)),
        ("pull_request", "branch", merge, "1.x", &[merge, "refs/heads/1.x", MAIN], Some(merge)),
        ("merge_group", "branch", queue, "", &[queue, "refs/heads/release/1.x", MAIN], Some(queue)),
        ("merge_group", "branch", queue, "main", &[queue, MAIN], Some(queue)),
        ("push", "tag", tag, "", &[tag, MAIN], Some(tag)),
        ("release", "tag", tag, "", &[tag, MAIN], Some(tag)),
        ("workflow_dispatch", "tag", tag, "", &[tag, MAIN], Some(tag)),
        // Code of others may run with the rights of the default branch.
        ("pull_request_target", "branch", MAIN, "main", &[MAIN], None),
        ("issue_comment", "branch", MAIN, "", &[MAIN], None),
        ("workflow_run", "branch", MAIN, "", &[MAIN], None),
        ("workflow_call", "branch", MAIN, "", &[MAIN], None),
        ("", "branch", MAIN, "", &[MAIN], None),
        ("Push", "branch", MAIN, "", &[MAIN], None),
        // What does not fit together.
        ("push", "", MAIN, "", &[MAIN], None),
        ("push", "branch", merge, "", &[MAIN], None),
        ("push", "branch", tag, "", &[MAIN], None),
        ("push", "tag", MAIN, "", &[MAIN], None),
        ("release", "branch", MAIN, "", &[MAIN], None),
        ("pull_request", "branch", MAIN, "main", &[MAIN], None),
        ("pull_request", "branch", "refs/pull/12/head", "main", &[MAIN], None),
        ("pull_request", "branch", "refs/pull/x/merge", "main", &[MAIN], None),
        ("pull_request", "branch", "refs/pull//merge", "main", &[MAIN], None),
        ("pull_request", "branch", "refs/pull/1/2/merge", "main", &[MAIN], None),
        ("merge_group", "branch", MAIN, "main", &[MAIN], None),
        ("merge_group", "branch", "refs/heads/gh-readonly-queue/", "main", &[MAIN], None),
    ];
    for (event, kind, reference, base, reads, writes) in table {
        let (read, written) = given(&claims(event, kind, reference, base), &rules(""));
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        assert_eq!((read.as_slice(), written.as_deref()), (*reads, *writes), "{event} {reference}");
    }
}

#[test]
fn repositories_are_apart_and_unknown_ones_get_nothing() {
    let push = claims("push", "branch", MAIN, "");
    let scope = |claims: &Claims| map(claims, &rules("")).map(|given| given.writes.unwrap());
    assert_eq!(scope(&push), Ok(Scope::new("github:7", MAIN)));
    let other =
        |id: &str, iss: &str| Claims { repository_id: id.into(), iss: iss.into(), ..push.clone() };
    let enterprise = "https://h/_services/token";
    assert_eq!(scope(&other("8", enterprise)), Ok(Scope::new("h/_services/token:8", MAIN)));
    for unknown in
        [other("9", GITHUB), other("8", GITHUB), other("7", enterprise), other("", GITHUB)]
    {
        assert_eq!(scope(&unknown), Err(Refusal::Repository));
    }
}

#[test]
fn runners_of_ones_own_are_apart_unless_the_rules_say_else() {
    for environment in ["self-hosted", "", "GitHub-hosted"] {
        let mut push = claims("push", "branch", MAIN, "");
        push.runner_environment = environment.into();
        let of = |more: &str| map(&push, &rules(more)).map(|given| given.writes.unwrap());
        assert_eq!(of(""), Ok(Scope::new("github:7/self-hosted", MAIN)));
        assert_eq!(of(r#", "self_hosted": "same""#), Ok(Scope::new("github:7", MAIN)));
        assert_eq!(of(r#", "self_hosted": "refuse""#), Err(Refusal::Runner));
    }
}

#[test]
fn refs_and_workflows_that_write_can_be_listed() {
    let feature = "refs/heads/feature";
    let writes = |more: &str, claims: &Claims| given(claims, &rules(more)).1;
    let refs = r#", "write_refs": ["refs/heads/main", "refs/pull/*"]"#;
    assert_eq!(writes(refs, &claims("push", "branch", MAIN, "")).as_deref(), Some(MAIN));
    assert_eq!(writes(refs, &claims("push", "branch", "refs/heads/main2", "")), None);
    assert!(writes(refs, &claims("pull_request", "branch", "refs/pull/1/merge", "main")).is_some());
    assert_eq!(writes(r#", "write_refs": []"#, &claims("push", "branch", MAIN, "")), None);

    let pin = |workflow: &str| format!(r#", "default_branch_workflows": ["{workflow}"]"#);
    let ci = "o/r/.github/workflows/ci.yml@refs/heads/main";
    let push = claims("push", "branch", MAIN, "");
    assert_eq!(writes(&pin(ci), &push).as_deref(), Some(MAIN));
    let other = Claims {
        workflow_ref: "o/r/.github/workflows/x.yml@refs/heads/main".into(),
        ..push.clone()
    };
    assert_eq!(writes(&pin(ci), &other), None);
    let called = Claims { job_workflow_ref: ci.into(), ..other };
    assert!(writes(&pin(ci), &called).is_some());
    assert!(
        writes(&pin("x"), &claims("push", "branch", feature, "")).is_some(),
        "of other branches"
    );
}

#[test]
fn a_ref_that_is_none_gets_nothing() {
    let long = format!("refs/heads/{}", "x".repeat(MAX_REF_BYTES));
    for bad in ["refs/heads/a b", "refs/heads/a\u{1b}[0m", "refs/heads/a\n", &long] {
        assert_eq!(map(&claims("push", "branch", bad, ""), &rules("")), Err(Refusal::Claim));
    }
    let base = claims("pull_request", "branch", "refs/pull/1/merge", "a\nb");
    assert_eq!(map(&base, &rules("")), Err(Refusal::Claim));
}

#[test]
fn public_is_what_is_said_to_be() {
    assert_eq!(rules("").public(), []);
    let open = rules(r#", "public_read": true"#).public();
    assert_eq!(open, [Scope::new("github:7", MAIN)]);
}

#[test]
fn rules_that_say_something_else_are_refused() {
    let parse = |text: &str| Rules::parse(text).unwrap_err();
    let with = |repositories: &str| {
        parse(&format!(r#"{{"audience": "https://k", "repositories": [{repositories}]}}"#))
    };
    for (bad, says) in [
        (r#"{"id": "o/r", "default_branch": "main"}"#, "repository_id"),
        (r#"{"id": "7"}"#, "default_branch"),
        (r#"{"id": "7", "default_branch": "refs/heads/main"}"#, "default_branch"),
        (r#"{"id": "7", "default_branch": "main", "issuer": "https://x"}"#, "issuer"),
        (r#"{"id": "7", "default_branch": "main", "wirte_refs": []}"#, "wirte_refs"),
        (r#"{"id": "7", "default_branch": "a"}, {"id": "7", "default_branch": "b"}"#, "twice"),
    ] {
        assert!(with(bad).contains(says), "{}", with(bad));
    }
    assert!(parse(r#"{"audience": ""}"#).contains("audience"));
    assert!(parse(r#"{"audience": "https://github.com/o"}"#).contains("audience"));
    assert!(parse(r#"{"audience": "a", "issuers": [{"url": "http://x"}]}"#).contains("https"));
    assert!(parse(r#"{"audience": "a", "session_minutes": 0}"#).contains("session_minutes"));
}

/// What one of them stored would have been given to the other.
#[test]
fn repositories_of_two_issuers_that_share_scopes_are_refused() {
    let check = |one: &str, other: &str| {
        let repository = |issuer: &str| {
            format!(r#"{{"id": "7", "issuer": "{issuer}", "default_branch": "main"}}"#)
        };
        Rules::parse(&format!(
            r#"{{"audience": "https://k", "issuers": [{{"url": "{one}"}}, {{"url": "{other}"}}],
                "repositories": [{}, {}]}}"#,
            repository(one),
            repository(other)
        ))
    };
    for (one, other) in [(GITHUB, "https://github"), ("http://127.0.0.1:1", "https://127.0.0.1:1")]
    {
        assert!(check(one, other).unwrap_err().contains("share what it stores"), "{other}");
    }
    assert!(check(GITHUB, "https://h/_services/token").is_ok());
}
