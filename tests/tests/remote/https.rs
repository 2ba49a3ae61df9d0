//! Theme: servers that speak TLS themselves. Machines share by them, by HTTP/1.1 and by HTTP/2; whom TLS refuses is named,
//! and builds are right without him.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use kiln_server::log::Level;
use kiln_server::{ServeConfig, TlsFiles};
use kiln_storage::testing::certificates::Authority;
use kiln_tests::far::Shared;
use kiln_tests::far::bucket::warnings;
use kiln_tests::samples::{build_all_kinds, check_app, of_all_kinds, small_app};
use kiln_tests::{Call, Done, World, world};

/// Longer than any test.
const FAR: i32 = 2120;

/// A server with a certificate, and the file of who signed it.
fn serving(
    world: &World,
    name: &str,
    until: i32,
    change: impl FnOnce(&mut ServeConfig),
) -> (Shared, PathBuf) {
    let (authority, file) = (Authority::new(), world.at("authority.pem"));
    authority.write(&file);
    let files = authority.signs(&world.at("server"), &[name], until);
    let shared = Shared::start_with(|config| {
        config.tls = Some(TlsFiles { cert: files.cert, key: files.key });
        change(config);
    });
    (shared, file)
}

/// A build of five units on a machine of its own.
#[track_caller]
fn build(world: &World, dress: &dyn Fn(Call) -> Call) -> Done {
    let project = of_all_kinds(world, "app");
    build_all_kinds(
        world,
        &project,
        dress(world.cargo(&project, &["build"]).env("KILN_JOB", "dev")),
    )
}

#[test]
fn machines_share_by_a_server_with_tls_alone() {
    let (one, two, three) = (world!(), world!(), world!());
    let mut token = Vec::new();
    let words =
        ["create", "--name", "a", "--repository", "r", "--ref", "main", "--rights", "write"];
    let words = words.map(str::to_owned);
    let (shared, authority) = serving(&one, "127.0.0.1", FAR, |config| {
        kiln_server::token(&words, &config.kiln_dir, &mut token).unwrap();
    });
    let token = String::from_utf8(token).unwrap().trim().to_owned();
    let url = format!("https://{}", shared.address());
    let dress = |call: Call| {
        call.env("KILN_SERVER", &url).env("SSL_CERT_FILE", &authority).env("KILN_TOKEN", &token)
    };
    assert_eq!(build(&one, &dress).compiled().len(), 4);
    assert_eq!(shared.results(), 5);
    two.assert_all_hit(&build(&two, &dress));
    let said = dress(two.kiln(&["server", "status"])).run().ok().stdout;
    assert!(said.contains("running: kiln") && said.contains(&url), "{said}");
    let said = dress(two.kiln(&["doctor"])).run().stdout;
    assert!(said.contains("ok    server ") && !said.contains(&token), "{said}");
    // Without the token nothing is had.
    let nobody = |call: Call| call.env("KILN_SERVER", &url).env("SSL_CERT_FILE", &authority);
    assert_eq!(build(&three, &nobody).compiled().len(), 4);
    assert_eq!(shared.results(), 5);
    let said = nobody(three.kiln(&["doctor"])).run().fails().stdout;
    assert!(said.contains("FAIL  the server lets nobody in like that: "), "{said}");
}

/// Before anything is built, too.
#[test]
fn who_looks_for_a_mistake_is_told_how_the_place_behind_is() {
    let (one, two) = (world!(), world!());
    let mut token = Vec::new();
    let words = ["create", "--name", "a", "--repository", "r", "--ref", "main"].map(str::to_owned);
    let (shared, authority) = serving(&one, "127.0.0.1", FAR, |config| {
        kiln_server::token(&words, &config.kiln_dir, &mut token).unwrap();
    });
    let token = String::from_utf8(token).unwrap();
    let url = format!("https://{}", shared.address());
    let says = |token: &str, word: &str| {
        let call = two.kiln(&[word]).env("KILN_UPSTREAM", &url).env("KILN_TOKEN", token);
        call.env("SSL_CERT_FILE", &authority).run().ok().stdout
    };
    let refused = format!("nothing comes from {url}");
    for word in ["doctor", "stats"] {
        let said = says("another", word);
        assert!(said.contains(&refused) && said.contains("it answers 401"), "{word}: {said}");
    }
    two.kiln(&["server", "stop"]).run().ok();
    let said = says(token.trim(), "doctor");
    assert!(said.contains(&format!("ok    before {url}, which answers; 0 results")), "{said}");
    assert!(!says(token.trim(), "stats").contains(&refused));
}

#[test]
fn machines_share_by_an_edge_before_it_over_http_2() {
    let (one, two) = (world!(), world!());
    let (shared, authority) = serving(&one, "127.0.0.1", FAR, |config| config.log = Level::Debug);
    let url = format!("https://{}", shared.address());
    let dress = |call: Call| call.env("KILN_UPSTREAM", &url).env("SSL_CERT_FILE", &authority);
    let stop = |world: &World| world.kiln(&["server", "stop"]).run().ok().stdout;
    assert_eq!(build(&one, &dress).compiled().len(), 4);
    assert!(stop(&one).contains("5 results were sent to https://"));
    two.assert_all_hit(&build(&two, &dress));
    assert_eq!(two.stats()["build"]["hit_remote"], 5, "{:#}", two.stats());
    stop(&two);
    let log = shared.log();
    assert!(log.contains("TLS: HTTP/2 with 127.0.0.1") && !log.contains("TLS: HTTP/1.1"), "{log}");
    // All requests of a machine go by few connections.
    assert!(log.matches("TLS: HTTP/2").count() <= 4, "{log}");
    for world in [&one, &two] {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

/// What a machine that does not get in says, and that it builds.
#[track_caller]
fn refused(world: &World, url: &str, authority: Option<&PathBuf>, why: &str) {
    let project = small_app(world, "app");
    let dress = |call: Call| {
        let call = call.env("KILN_SERVER", url);
        authority.map_or(call.clone(), |file| call.env("SSL_CERT_FILE", file))
    };
    assert_eq!(dress(world.cargo(&project, &["build"])).run().ok().compiled().len(), 2);
    check_app(world, &project);
    let doctor = dress(world.kiln(&["doctor"])).run().fails().stdout;
    let status = dress(world.kiln(&["server", "status"])).run().fails().stdout;
    for said in [doctor, status] {
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn who_is_not_trusted_is_named() {
    let world = world!();
    let (shared, authority) = serving(&world, "127.0.0.1", FAR, |_| {});
    let url = format!("https://{}", shared.address());
    refused(&world, &url, None, "an authority that this machine does not trust; name a file");
    let by_name = url.replace("127.0.0.1", "localhost");
    refused(&world, &by_name, Some(&authority), "its TLS certificate is for another name");
    let plain = url.replace("https:", "http:");
    refused(
        &world,
        &plain,
        Some(&authority),
        "it speaks TLS there; is the address one of https://?",
    );
    assert_eq!(shared.results(), 0);
    let nobody = world.at("nobody.pem");
    std::fs::write(&nobody, "").unwrap();
    refused(&world, &url, Some(&nobody), "no certificate of an authority is to be had");

    let (old, authority) = serving(&world, "127.0.0.1", 2021, |_| {});
    let url = format!("https://{}", old.address());
    refused(&world, &url, Some(&authority), "its TLS certificate has expired");
    let without = Shared::start();
    let url = format!("https://{}", without.address());
    refused(
        &world,
        &url,
        Some(&authority),
        "it speaks no TLS there; is the address one of http://?",
    );
    assert_eq!(old.results() + without.results(), 0);
}
