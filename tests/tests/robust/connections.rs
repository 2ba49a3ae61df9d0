//! Theme: connections that end while a compiler runs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use kiln_tests::samples::{build_app, check_app, small_app};
use kiln_tests::world;

/// One HTTP message: head and body of the length that the head says. None when the other side left.
fn message(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let start = bytes.len();
        if from.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[start..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            from.read_exact(&mut body).ok()?;
            bytes.extend(body);
            return Some(bytes);
        }
    }
}

/// Hands one request of a connection to the server and its answer back, then hangs up without a
/// word, as a server does that finds a connection idle.
fn relay(mut client: UnixStream, server: &Path) -> Option<()> {
    let mut server = UnixStream::connect(server).ok()?;
    let request = message(&mut BufReader::new(client.try_clone().ok()?))?;
    server.write_all(&request).ok()?;
    let answer = message(&mut BufReader::new(server))?;
    client.write_all(&answer).ok()
}

fn start_relay(at: PathBuf, server: PathBuf) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = server.clone();
            std::thread::spawn(move || relay(client, &server));
        }
    });
}

/// What was compiled for a long time is stored all the same.
#[test]
fn a_server_that_hangs_up_after_each_answer() {
    let world = world!();
    let project = small_app(&world, "app");
    build_app(&world, &project);
    let place = world.at("relay.sock");
    start_relay(place.clone(), world.kiln_dir().join("kiln.sock"));
    let address = format!("unix://{}", place.display());
    let build = || {
        project.wipe();
        let done = world.cargo(&project, &["build"]).env("KILN_SERVER", &address).run().ok();
        check_app(&world, &project);
        done
    };
    project.write("src/lib.rs", "pub fn n() -> i32 { 40 + 2 }\n");
    world.assert_compiled(&build(), &["app bin", "low lib"]);
    world.assert_all_hit(&build());
    // Nor are events lost.
    assert_eq!(world.stats()["units"], 6);
    assert_eq!(world.stats()["hit_local"], 2);
}

/// One that answers to everything that too much was asked for.
fn start_full(at: PathBuf) {
    let listener = UnixListener::bind(at).unwrap();
    let body = r#"{"type":"/problems/over-limit","title":"full","status":429,"request_id":"1"}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut asked = BufReader::new(client.try_clone().unwrap());
                while message(&mut asked).is_some() && client.write_all(answer.as_bytes()).is_ok() {
                }
            });
        }
    });
}

/// The build goes on, and it is said why nothing came from there.
#[test]
fn a_server_that_was_asked_for_too_much() {
    let world = world!();
    let project = small_app(&world, "app");
    let (place, notes) = (world.at("full.sock"), world.at("notes.jsonl"));
    start_full(place.clone());
    let address = format!("unix://{}", place.display());
    let build = world.cargo(&project, &["build"]).env("KILN_SERVER", &address);
    build.env("KILN_REPORT_FILE", &notes).run().ok();
    check_app(&world, &project);
    let notes = std::fs::read_to_string(notes).unwrap();
    assert!(notes.contains(r#""reason":"over-limit""#), "{notes}");
}
