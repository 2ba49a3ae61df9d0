//! rustc's command lines: what is understood and written out again is understood as the same, and no word of a line is
//! without effect but those that the table calls neutral or that say what holds anyway.

use crate::wrapper::args::table::{self, Role, Takes};
use crate::wrapper::args::{Parsed, is_probe, parse, split};

/// A line that says all of it.
fn write(parsed: &Parsed) -> Vec<String> {
    let mut line = vec![parsed.input.to_str().expect("of text").to_owned()];
    let mut say = |flag: &str, value: &str| line.extend([flag.to_owned(), value.to_owned()]);
    say("--crate-name", &parsed.crate_name);
    parsed.crate_types.iter().for_each(|kind| say("--crate-type", kind));
    parsed.emit.iter().for_each(|kind| say("--emit", kind));
    let places =
        [("--out-dir", &parsed.out_dir), ("-o", &parsed.output), ("--sysroot", &parsed.sysroot)];
    for (flag, place) in places {
        place.iter().for_each(|place| say(flag, place.to_str().expect("of text")));
    }
    parsed.target.iter().for_each(|target| say("--target", target));
    for one in &parsed.externs {
        let colon = if one.options.is_empty() { "" } else { ":" };
        let path = one.path.as_ref().map(|path| format!("={}", path.display())).unwrap_or_default();
        say("--extern", &format!("{}{colon}{}{path}", one.options, one.name));
    }
    parsed.search.iter().for_each(|one| say("-L", &format!("{}={}", one.kind, one.path.display())));
    parsed.libs.iter().for_each(|lib| say("-l", lib));
    for (name, value) in &parsed.codegen {
        say("-C", &value.as_ref().map_or(name.clone(), |value| format!("{name}={value}")));
    }
    parsed.unstable.iter().for_each(|option| say("-Z", option));
    parsed.cfgs.iter().for_each(|cfg| say("--cfg", cfg));
    parsed.check_cfgs.iter().for_each(|cfg| say("--check-cfg", cfg));
    say("--error-format", &parsed.error_format);
    parsed.json.iter().for_each(|word| say("--json", word));
    if parsed.json_ansi {
        say("--json", "diagnostic-rendered-ansi");
    }
    parsed.color.iter().for_each(|color| say("--color", color));
    parsed.width.iter().for_each(|width| say("--diagnostic-width", width));
    for (flag, value) in &parsed.other {
        match (value, table::flag(flag)) {
            (None, _) => line.push(flag.clone()),
            // Whatever is not in the table takes a value in one word only.
            (Some(value), Some(row)) if row.takes == Takes::Value => {
                line.extend([flag.clone(), value.clone()]);
            }
            (Some(value), _) => line.push(format!("{flag}={value}")),
        }
    }
    if parsed.test {
        line.push("--test".into());
    }
    line
}

fn shown(parsed: &Parsed) -> String {
    format!("{parsed:?}")
}

/// How many words belong together at a place.
fn words(line: &[String]) -> usize {
    let takes = table::flag(&line[0]).is_some_and(|row| row.takes == Takes::Value);
    if takes { 2.min(line.len()) } else { 1 }
}

/// Whether words may be without effect: they are neutral, or say again what was said or holds anyway.
fn may_be_left_out(gone: &[String], line: &[String], parsed: &Parsed) -> bool {
    let text = gone.join("=");
    let (flag, value) = match gone {
        [flag, value] => (flag.as_str(), value.as_str()),
        _ => match text.split_once('=').filter(|_| text.starts_with("--")) {
            Some(both) => both,
            None => text.split_at_checked(2).unwrap_or((&text, "")),
        },
    };
    let name = value.split('=').next().unwrap_or("").replace('_', "-");
    let neutral = |row: Option<&table::Row>| row.is_some_and(|row| row.role == Role::Neutral);
    match flag {
        "-C" | "--codegen" => neutral(table::codegen(&name)),
        "-Z" => neutral(table::unstable(&name)),
        // Sets, whose members may be there twice, and defaults.
        "--emit" => value.split(',').all(|kind| {
            kind == "link" || line.iter().filter(|word| word.contains(kind)).count() > 1
        }),
        "--crate-type" => value == "bin" && parsed.crate_types.len() == 1,
        "--crate-name" => value.is_empty() || value == parsed.crate_name,
        "--error-format" => value == "human",
        "--json" => value.split(',').all(|word| word == "diagnostic-rendered-ansi"),
        // A `-C` option of its own that holds for its last value.
        _ => false,
    }
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let line: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let os: Vec<_> = line.iter().map(Into::into).collect();
    is_probe(&os);
    if let Ok(invocation) = split(&os) {
        assert_eq!(invocation.argv(), os, "the words of a run");
    }
    let Ok(parsed) = parse(&line) else { return };
    let again = parse(&write(&parsed));
    // Files stand in the order in which flags name them, which writing out changes.
    let sorted = |mut parsed: Parsed| {
        parsed.files.sort();
        parsed.other.sort();
        shown(&parsed)
    };
    let again =
        again.map(sorted).unwrap_or_else(|why| panic!("{:?} became {why:?}", write(&parsed)));
    assert_eq!(again, sorted(parsed.clone()), "{line:?}");
    let mut at = 0;
    while at < line.len() {
        let len = words(&line[at..]);
        let gone = &line[at..at + len];
        let rest = [&line[..at], &line[at + len..]].concat();
        if let Ok(other) = parse(&rest)
            && shown(&other) == shown(&parsed)
        {
            assert!(may_be_left_out(gone, &line, &parsed), "{gone:?} is lost in {line:?}");
        }
        at += len;
    }
}
