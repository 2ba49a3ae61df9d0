//! Theme: a place behind TLS. Whom this machine trusts gets and sends results; whom it does not trust is named
//! in the log, and the build is right without him.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use kiln_storage::testing::certificates::Authority;
use kiln_storage::testing::gha::{READ_WRITE, token};
use kiln_tests::far::Shared;
use kiln_tests::far::bucket::warnings;
use kiln_tests::far::tls::Terminator;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::{Call, Done, World, world};

/// A build on a machine of its own; what `kiln server stop` says then.
#[track_caller]
fn build(world: &World, url: &str, trusts: impl Fn(Call) -> Call) -> (Done, String) {
    let project = of_all_kinds(world, "app");
    let call = world.cargo(&project, &["build"]).env("KILN_UPSTREAM", url).env("KILN_JOB", "dev");
    let done = build_all_kinds(world, &project, trusts(call));
    let said = world.kiln(&["server", "stop"]).run().ok();
    (done, format!("{}{}", said.stdout, said.stderr))
}

/// A shared server, what stands before it with a certificate of this name, and the file of the authority that gave it.
fn behind_tls(world: &World, name: &str) -> (Shared, Terminator, PathBuf) {
    let (authority, file) = (Authority::new(), world.at("authority.pem"));
    authority.write(&file);
    let shared = Shared::start();
    let tls =
        Terminator::before(shared.address(), &authority.signs(&world.at("server"), &[name], 2120));
    (shared, tls, file)
}

/// The log has one line of the place, which says this.
#[track_caller]
fn told(world: &World, want: &str) {
    let lines = warnings(&world.kiln_dir());
    assert!(lines.len() == 1 && lines[0].contains(want), "{lines:#?}");
}

#[test]
fn a_place_behind_tls_is_used_when_it_is_trusted() {
    let (one, two, three) = (world!(), world!(), world!());
    let (shared, tls, authority) = behind_tls(&one, "127.0.0.1");
    let trusts = |call: Call| call.env("SSL_CERT_FILE", &authority);
    let (done, said) = build(&one, &tls.url(), trusts);
    assert_eq!(done.compiled().len(), 4);
    assert!(said.contains("5 results were sent to https://"), "{said}");
    assert_eq!(shared.results(), 5);

    // Nobody told this machine of the authority.
    let before = tls.handed_on();
    let (done, said) = build(&two, &tls.url(), |call| call);
    assert_eq!(done.compiled().len(), 4);
    let why = "its TLS certificate comes from an authority that this machine does not trust";
    assert!(said.contains("5 results") && said.contains(why), "{said}");
    assert!(said.contains("SSL_CERT_FILE") && said.contains("stay queued"), "{said}");
    told(&two, why);
    assert_eq!(tls.handed_on(), before, "nothing was said to it");

    let (done, _) = build(&three, &tls.url(), trusts);
    three.assert_all_hit(&done);
    assert_eq!(three.stats()["build"]["hit_remote"], 5, "{:#}", three.stats());
    for world in [&one, &three] {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_named() {
    let (one, two) = (world!(), world!());
    let (shared, tls, authority) = behind_tls(&one, "elsewhere.example");
    let trusts = |call: Call| call.env("SSL_CERT_FILE", &authority);
    let (done, _) = build(&one, &tls.url(), trusts);
    assert_eq!(done.compiled().len(), 4);
    told(&one, "its TLS certificate is for another name; look at the address");
    // Who is asked for TLS speaks plain HTTP.
    let url = format!("https://{}", shared.address());
    let (done, _) = build(&two, &url, trusts);
    assert_eq!(done.compiled().len(), 4);
    told(&two, "it speaks no TLS there; is the address one of http://?");
}

/// Buckets and GitHub's cache say the same of a certificate as another Kiln server.
#[test]
fn storage_services_that_are_not_trusted_are_named() {
    let (one, two) = (world!(), world!());
    let (_shared, tls, _) = behind_tls(&one, "127.0.0.1");
    let bucket = |call: Call| {
        call.env("AWS_ENDPOINT_URL_S3", tls.url())
            .env("AWS_REGION", "us-east-1")
            .envs(&[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")])
    };
    let cache = |call: Call| {
        let call = call.env("ACTIONS_RUNTIME_TOKEN", token(&[("refs/heads/main", READ_WRITE)]));
        call.env("ACTIONS_RESULTS_URL", tls.url()).env("ACTIONS_CACHE_SERVICE_V2", "True")
    };
    let why = "its TLS certificate comes from an authority that this machine does not trust";
    let (done, _) = build(&one, "s3://bucket/prefix", bucket);
    assert_eq!(done.compiled().len(), 4);
    told(&one, why);
    let (done, _) = build(&two, "gha://", cache);
    assert_eq!(done.compiled().len(), 4);
    told(&two, why);
    assert_eq!(tls.handed_on(), 0);
}

/// A machine that trusts nobody, as a small container is one: plain HTTP needs no certificates.
#[test]
fn a_machine_without_authorities_uses_plain_http() {
    let (one, two) = (world!(), world!());
    let shared = Shared::start();
    let url = format!("http://{}", shared.address());
    std::fs::write(one.at("nobody.pem"), "").unwrap();
    let trusts = |call: Call| call.env("SSL_CERT_FILE", one.at("nobody.pem"));
    let (_, said) = build(&one, &url, trusts);
    assert!(said.contains("5 results were sent to http://"), "{said}");
    let (done, _) = build(&two, &url, trusts);
    two.assert_all_hit(&done);
}
