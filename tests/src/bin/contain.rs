//! Starts a program as a runtime of containers does, where there is none: in a root of its own that is read-only, as a
//! user without rights that nothing it starts ever gets.
//!
//!     contain USER:GROUP ROOT [FROM:TO[:ro]]… -- PROGRAM ARG…
//!
//! It has to be started as root, in name spaces of mounts and processes of its own. The places that it mounts at have to
//! be there. The environment is that of the program.

#![allow(clippy::expect_used, reason = "what is not contained must not start")]

use std::ffi::OsString;
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let end = words.iter().position(|word| word == "--").expect("-- and a program");
    let text = |word: &OsString| word.clone().into_string().expect("UTF-8");
    let setting: Vec<String> = words[..end].iter().map(text).collect();
    let [user, root, places @ ..] = setting.as_slice() else { return ExitCode::FAILURE };
    let (uid, gid) = user.split_once(':').expect("a user and a group");
    mount(&["--bind", root, root]);
    for place in places {
        let mut parts = place.split(':');
        let from = parts.next().expect("a place");
        let to = format!("{root}{}", parts.next().expect("where it is seen"));
        mount(&["--bind", from, &to]);
        if parts.next() == Some("ro") {
            mount(&["-o", "remount,bind,ro", &to]);
        }
    }
    mount(&["-t", "proc", "proc", &format!("{root}/proc")]);
    mount(&["-o", "remount,bind,ro", root]);
    chroot(root).expect("a root");
    std::env::set_current_dir("/").expect("the root");
    // Those that the system does not know are none.
    for bit in 0..u64::BITS {
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit));
    }
    set_no_new_privs(true).expect("no new rights");
    // As this is root, it has no groups then either.
    let mut program = Command::new(&words[end + 1]);
    program.args(&words[end + 2..]);
    program.uid(uid.parse().expect("a user")).gid(gid.parse().expect("a group"));
    let error = program.exec();
    failed(&error)
}

fn mount(args: &[&str]) {
    let status = Command::new("/usr/bin/mount").args(args).status().expect("mount runs");
    assert!(status.success(), "mount {}", args.join(" "));
}

#[allow(clippy::print_stderr, reason = "the one message of this program")]
fn failed(error: &std::io::Error) -> ExitCode {
    eprintln!("contain: {error}");
    ExitCode::from(127)
}
