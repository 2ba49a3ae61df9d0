//! Tests of the rules: each decides what it is for.

use super::*;
use std::collections::BTreeSet;

/// What is asked for, by whom, and the rule that decides.
type Case = (Origin, Kind, u8, &'static str, &'static str);

const CASES: &[Case] = &[
    (Origin::Proxy, Kind::Read, 0, "/home/ann/.rustup/settings.toml", "proxy"),
    (Origin::Proxy, Kind::Variable, 0, "RUSTUP_HOME", "proxy"),
    (Origin::Linker, Kind::Read, 0, "/usr/lib/crt1.o", "linker"),
    (Origin::Linker, Kind::Variable, 0, "TERM", "linker"),
    (Origin::Script, Kind::Read, 0, "/out/liba.so", "script-output"),
    (Origin::Script, Kind::Variable, 0, "FLAGS", "script-variable"),
    (Origin::Script, Kind::Cwd, 0, "/ws", "script-variable"),
    (Origin::Script, Kind::Read, 0, "/ws/flags", "content"),
    (Origin::Script, Kind::Program, 0, "cc", "program"),
    (Origin::Tool, Kind::Write, 0, "/ws/target/liba.rmeta", "writing"),
    (Origin::Helper, Kind::Write, 0, "/ws/note", "writing"),
    (Origin::Tool, Kind::Network, 0, "network", "network"),
    (Origin::Helper, Kind::Network, flags::ABSENT, "unix:/run/watchman", "network"),
    (Origin::Tool, Kind::Look, flags::ABSENT, "/out/liba.rlib", "tool-output"),
    (Origin::Tool, Kind::Read, 0, "/out/liba.rlib", "tool-output"),
    (Origin::Tool, Kind::Read, 0, "/sysroot/libstd.rlib", "tool-itself"),
    (Origin::Tool, Kind::Read, 0, "/proc/self/statm", "tool-kernel"),
    (Origin::Tool, Kind::Read, 0, "/dev/tty", "tool-kernel"),
    (Origin::Tool, Kind::Process, 0, "/usr/bin/rustc", "tool-began"),
    (Origin::Tool, Kind::Object, flags::START, "/lib/libc.so.6", "tool-began"),
    (Origin::Tool, Kind::Program, 0, "cc", "tool-starts"),
    (Origin::Tool, Kind::List, 0, "/ws/target/debug/deps", "crate-search"),
    (Origin::Tool, Kind::Look, 0, "/ws/src/foo.rs", "tool-looks"),
    (Origin::Tool, Kind::Resolve, 0, "/ws/src/foo.rs", "tool-resolves"),
    (Origin::Tool, Kind::Cwd, 0, "/ws", "tool-resolves"),
    (Origin::Tool, Kind::Variable, 0, "TMPDIR", "tool-neutral-variable"),
    (Origin::Tool, Kind::Variable, 0, "DECLARED", "tool-declared-variable"),
    (Origin::Tool, Kind::Variable, 0, "QNX_TARGET", "tool-variable"),
    (Origin::Tool, Kind::Read, 0, "/ws/src/lib.rs", "tool-reads"),
    (Origin::Tool, Kind::Look, flags::ABSENT, "/ws/src/foo/mod.rs", "tool-reads"),
    (Origin::Tool, Kind::Object, 0, "/ws/target/libmac.so", "tool-reads"),
    (Origin::Tool, Kind::Read, 0, "/processes", "tool-reads"),
    (Origin::Plugin, Kind::Read, 0, "/dev/urandom", "device"),
    (Origin::Plugin, Kind::Read, 0, "/proc/self/environ", "environ-file"),
    (Origin::Helper, Kind::Read, 0, "/proc/17/environ", "environ-file"),
    (Origin::Plugin, Kind::Read, 0, "/proc/self/maps", "machine"),
    (Origin::Plugin, Kind::List, 0, "/sys/devices/system/cpu", "machine"),
    (Origin::Plugin, Kind::Variable, 0, "MAKEFLAGS", "jobserver"),
    (Origin::Plugin, Kind::Variable, 0, "PATH", "variable"),
    (Origin::Plugin, Kind::Variable, 0, "/dev/null", "variable"),
    (Origin::Helper, Kind::Variable, 0, "DECLARED", "variable"),
    (Origin::Plugin, Kind::List, 0, "/ws/templates", "listing"),
    (Origin::Plugin, Kind::Resolve, flags::LINK, "/ws/link", "link"),
    (Origin::Plugin, Kind::Resolve, 0, "/ws/link", "place"),
    (Origin::Helper, Kind::Cwd, 0, "/ws", "place"),
    (Origin::Plugin, Kind::Program, 0, "git", "program"),
    (Origin::Plugin, Kind::Object, 0, "libclang.so", "library-by-name"),
    (Origin::Plugin, Kind::Object, 0, "/usr/lib/libclang.so", "content"),
    (Origin::Helper, Kind::Process, 0, "/usr/bin/git", "content"),
    (Origin::Plugin, Kind::Read, 0, "/sysroot/libstd.rlib", "content"),
    (Origin::Plugin, Kind::Read, 0, "/out/liba.rlib", "content"),
    (Origin::Plugin, Kind::Read, 0, "/proc/version", "content"),
    (Origin::Plugin, Kind::Look, flags::ABSENT, "/ws/absent", "content"),
];

const AROUND: Around<'static> = Around {
    covered: &|path| path.starts_with("/sysroot/"),
    output: &|path| path.starts_with("/out/"),
    declared: &|name| name == "DECLARED",
};

#[test]
fn the_jobserver_is_told_by_the_environment() {
    let of = |flags| Env::of_pairs([("CARGO_MAKEFLAGS", flags)]);
    let pipe = of("-j --jobserver-fds=8,9 --jobserver-auth=8,9");
    assert!(is_jobserver(&pipe, "/dev/fd/8") && is_jobserver(&pipe, "/dev/fd/9"));
    assert!(!is_jobserver(&pipe, "/dev/fd/0") && !is_jobserver(&pipe, "/dev/fd/"));
    let fifo = of("-j4 --jobserver-auth=fifo:/tmp/GM1");
    assert!(is_jobserver(&fifo, "/tmp/GM1") && !is_jobserver(&fifo, "/tmp/GM2"));
    assert!(!is_jobserver(&Env::default(), "/dev/fd/8"));
}

#[test]
fn every_rule_decides_what_it_is_for() {
    let mut decided = BTreeSet::new();
    for (origin, kind, bits, name, rule) in CASES {
        let fact = Fact { origin: *origin, kind: *kind, flags: *bits, name: vec![] };
        let first = first(&fact, name, &AROUND).unwrap().name;
        assert_eq!(first, *rule, "{origin:?} {kind:?} {name}");
        decided.insert(first);
    }
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(decided, all, "every rule has a case");
    assert_eq!(all.len(), RULES.len(), "names are used once");
}
