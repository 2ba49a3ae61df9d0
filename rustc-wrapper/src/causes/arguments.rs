//! What differs between the parts of two unit keys. Pure.
//!
//! [`kiln_storage::parts`] compares two lists. What follows from something is named only where nothing
//! else is found.

use kiln_storage::api::{Cause, NearestUnit};
use kiln_storage::parts::{self, Rank, cause, differences};
use kiln_storage::record::UnitName;

use super::Causes;
use crate::unit::Named;
use crate::unit::parts::kept;

/// What differs from the nearest of some earlier units of the crate.
pub fn compare(unit: &Named, earlier: &[NearestUnit]) -> Causes {
    if earlier.first().is_some_and(|first| first.unit_key == unit.key) {
        return Causes::one("gone");
    }
    let alike = |other: &&NearestUnit| {
        other.unit.kind == unit.name.kind && other.unit.target == unit.name.target
    };
    let kept = kept(&unit.parts);
    if !earlier.iter().any(|other| alike(&other)) {
        return first(unit, earlier);
    }
    let known: Vec<&NearestUnit> =
        earlier.iter().filter(alike).filter(|other| !other.parts.is_empty()).collect();
    let compared: Vec<&NearestUnit> =
        known.iter().copied().filter(|other| is_same_target(unit, other)).collect();
    if compared.is_empty() && !known.is_empty() {
        return Causes::one("first");
    }
    let mut nearest: Option<Vec<(Rank, Cause)>> = None;
    for other in compared {
        let mut found = version(&other.unit, &unit.name);
        found.extend(differences(&other.parts, &kept));
        if nearest.as_ref().is_none_or(|best| weight(&found) < weight(best)) {
            nearest = Some(found);
        }
    }
    let Some(mut found) = nearest else {
        return Causes::default();
    };
    if found.iter().any(|(rank, _)| *rank != Rank::Follows) {
        found.retain(|(rank, _)| *rank != Rank::Follows);
    }
    found.sort_by_key(|(rank, _)| *rank);
    Causes::new(found.into_iter().map(|(_, cause)| cause).collect())
}

/// A unit without an earlier one of its kind; another kind of unit of the crate is named. A build
/// script is called by the name of its package, and is another program.
fn first(unit: &Named, earlier: &[NearestUnit]) -> Causes {
    let is_script = |name: &UnitName| name.kind.starts_with("build-script");
    let other = earlier.iter().find(|other| is_script(&other.unit) == is_script(&unit.name));
    let called = |unit: &UnitName| format!("{} for {}", unit.kind, unit.target);
    let then = other.map(|other| called(&other.unit));
    let now = then.is_some().then(|| called(&unit.name));
    Causes::new(vec![cause("first", "", then, now)])
}

/// Whether an earlier unit is this one, or this one of another version.
fn is_same_target(unit: &Named, other: &NearestUnit) -> bool {
    let other_version = unit.name.version != other.unit.version;
    other_version || parts::is_same_target(&other.parts, &unit.parts)
}

/// How far away: differences that follow from others come with them and count nothing.
fn weight(found: &[(Rank, Cause)]) -> usize {
    found.iter().filter(|(rank, _)| *rank != Rank::Follows).count()
}

fn version(then: &UnitName, now: &UnitName) -> Vec<(Rank, Cause)> {
    if then.version == now.version {
        return Vec::new();
    }
    let (then, now) = (then.version.clone(), now.version.clone());
    vec![(Rank::Own, cause("version", "", Some(then), Some(now)))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::record::UnitPart;
    use kiln_storage::{Digest, UnitKey};

    fn part(line: &str) -> UnitPart {
        let mut words = line.split('|');
        let mut word = || words.next().map(str::to_owned);
        UnitPart { group: word().unwrap(), name: word().unwrap_or_default(), value: word() }
    }

    fn name(version: &str, kind: &str) -> UnitName {
        UnitName {
            crate_name: "x".into(),
            version: version.into(),
            kind: kind.into(),
            target: "host".into(),
        }
    }

    fn key(lines: &[&str]) -> UnitKey {
        UnitKey::new(Digest::of(lines.concat().as_bytes()))
    }

    fn earlier(version: &str, kind: &str, lines: &[&str]) -> NearestUnit {
        NearestUnit {
            unit_key: key(lines),
            unit: name(version, kind),
            parts: lines.iter().map(|line| part(line)).collect(),
        }
    }

    fn unit(lines: &[&str]) -> Named {
        Named {
            name: name("1", "lib"),
            key: key(lines),
            parts: lines.iter().map(|line| part(line)).collect(),
        }
    }

    /// Kind, name and both values of each cause.
    fn told(earlier: &[NearestUnit], now: &[&str]) -> Vec<String> {
        let show = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let causes = compare(&unit(now), earlier);
        let line = |c: Cause| format!("{} {}: {} > {}", c.kind, c.name, show(c.then), show(c.now));
        causes.named.into_iter().map(line).collect()
    }

    fn check(then: &[&str], now: &[&str], want: &[&str]) {
        let base = ["crate root||src/lib.rs"].as_slice();
        assert_eq!(
            told(&[earlier("1", "lib", &[base, then].concat())], &[base, now].concat()),
            want
        );
    }

    #[test]
    fn each_kind_of_argument() {
        let digests = ["1", "2"].map(|n| format!("compiler||rustc 1 (x) {}", n.repeat(64)));
        check(
            &[&digests[0]],
            &[&digests[1]],
            &["compiler : rustc 1 (x) 11111111 > rustc 1 (x) 22222222"],
        );
        check(&[], &["cfg|feature=\"derive\""], &["feature derive: - > given"]);
        check(&["cfg|feature=\"derive\""], &[], &["feature derive: given > -"]);
        check(&[], &["cfg|kt"], &["argument --cfg kt: - > given"]);
        check(&["-C|opt-level|0"], &["-C|opt-level|3"], &["argument -C opt-level: 0 > 3"]);
        check(&[], &["-C|opt-level|3"], &["argument -C opt-level: - > 3"]);
        check(
            &["flag|--edition|2021"],
            &["flag|--edition|2024"],
            &["argument --edition: 2021 > 2024"],
        );
        check(
            &["paths||remapped"],
            &["paths||as they are"],
            &["argument paths: remapped > as they are"],
        );
        check(&["-l||a", "-l||b"], &["-l||b", "-l||a"], &["order -l: - > -"]);
    }

    #[test]
    fn what_differs_between_runs_of_a_build_script() {
        let (one, two) = ("build script||1a1a1a1a1a", "build script||2b2b2b2b2b");
        let run = earlier("1", "lib", &[one, "cfg|feature=STD", "working directory||<cargo>/a"]);
        let check =
            |now: &[&str], want: &[&str]| assert_eq!(told(std::slice::from_ref(&run), now), want);
        let rest = ["cfg|feature=STD", "working directory||<workspace>/a"];
        check(&[two, rest[0], "working directory||<cargo>/a"], &["script : 1a1a1a1a > 2b2b2b2b"]);
        check(&[two, rest[1]], &["feature STD: given > -"]);
        check(&[one, rest[0], rest[1]], &["argument working directory: <cargo>/a > <workspace>/a"]);
    }

    #[test]
    fn what_follows_from_something_else_is_left_out() {
        let then = ["-C|metadata|1", "-C|extra-filename|-1", "-C|opt-level|0"];
        let now = ["-C|metadata|2", "-C|extra-filename|-2", "-C|opt-level|3"];
        check(&then, &now, &["argument -C opt-level: 0 > 3"]);
        check(&then[..1], &now[..1], &["argument -C metadata: 1 > 2"]);
    }

    #[test]
    fn crates_come_last_and_are_told_by_file() {
        let then = ["extern|low|<target>/debug/deps/liblow-1.rmeta", "-C|metadata|1"];
        let now = ["extern|low|<target>/debug/deps/liblow-2.rmeta", "-C|metadata|2"];
        let low = "crate low: liblow-1.rmeta > liblow-2.rmeta";
        check(&then, &now, &[low]);
        let now = [now[0], now[1], "cfg|kt"];
        check(&then, &now, &["argument --cfg kt: - > given", low]);
        let one = ["-L|native|<target>/debug/build/z-1/out", "-L|native|/opt/a"];
        let two = ["-L|native|<target>/debug/build/z-2/out", "-L|native|/opt/b"];
        check(&one, &two, &["argument -L native: /opt/a > /opt/b"]);
        // Another profile directory alone.
        let other = ["extern|low|<target>/other/deps/liblow-1.rmeta", "-C|debuginfo|2"];
        check(&[then[0]], &other, &["argument -C debuginfo: - > 2"]);
    }

    #[test]
    fn the_nearest_of_several_is_compared() {
        let root = "crate root||src/lib.rs";
        let far = earlier("1", "lib", &[root, "-C|opt-level|0", "cfg|a", "cfg|b"]);
        let near = earlier("1", "lib", &[root, "-C|opt-level|0", "cfg|kt"]);
        let now = [root, "-C|opt-level|3", "cfg|kt"];
        assert_eq!(told(&[far, near], &now), ["argument -C opt-level: 0 > 3"]);
    }

    /// Two targets of a package may have one name; the root of one may move.
    #[test]
    fn targets_are_told_apart() {
        let tests = ["crate root||src/lib.rs", "--test", "-C|metadata|1"];
        let of_program = ["crate root||src/main.rs", "--test", "-C|metadata|2"];
        assert_eq!(told(&[earlier("1", "lib", &tests)], &of_program), ["first : - > -"]);
        let moved = ["crate root||src/other.rs", "--test", "-C|metadata|1"];
        let want = ["argument crate root: src/lib.rs > src/other.rs"];
        assert_eq!(told(&[earlier("1", "lib", &tests)], &moved), want);
    }

    #[test]
    fn another_version_another_kind_and_nothing() {
        let now = ["crate root||<cargo>/x-1/lib.rs"];
        let old = earlier("0.9", "lib", &["crate root||<cargo>/x-0.9/lib.rs"]);
        assert_eq!(told(&[old], &now), ["version : 0.9 > 1"]);
        let checked = earlier("1", "lib (check)", &["a"]);
        let script = earlier("1", "build-script", &["a"]);
        let other = "first : lib (check) for host > lib for host";
        assert_eq!(told(&[script.clone(), checked], &now), [other]);
        assert_eq!(told(&[script], &now), ["first : - > -"]);
        assert_eq!(told(&[], &now), ["first : - > -"]);
        assert_eq!(told(&[earlier("1", "lib", &now)], &now), ["gone : - > -"]);
        assert_eq!(told(&[earlier("1", "lib", &[])], &now), [""; 0], "nothing is known");
    }
}
