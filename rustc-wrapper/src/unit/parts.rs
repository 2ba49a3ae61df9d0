//! The parts that a unit key is made of: named, so that two units can be compared part by part
//! ([`crate::causes`]), and in an order that is the same for the same arguments.
//!
//! Pure. A key is the digest of just these parts. What each argument means is in
//! [`crate::args::table`].

use std::path::Path;

use kiln_storage::encode::Encoder;
use kiln_storage::limits::{MAX_PART_BYTES, MAX_UNIT_PARTS};
use kiln_storage::record::UnitPart;
use kiln_storage::{Digest, UnitKey};

use super::Identity;
use crate::args::Parsed;
use crate::roots::Roots;

pub use kiln_storage::parts::{
    CFG, CHECK_CFG, CODEGEN, COMPILER, EXTERN, FLAG, INPUT, OUTPUT_DIRECTORY, SEARCH, TOOL,
    WORKING_DIRECTORY,
};

/// Version of everything that decides what a unit's outputs are: keys, remaps, stored templates.
pub(crate) const FORMAT: &str = "3";

/// A crate root on standard input, by content.
pub const STANDARD_INPUT: &str = "standard input";
/// Where Kiln's own format stands.
pub const KILN_FORMAT: &str = "Kiln's format";
/// The flag that sets a variable for the compile only.
const ENV_SET: &str = "--env-set";

/// Parts in the making.
struct Parts<'a> {
    roots: &'a Roots,
    list: Vec<UnitPart>,
}

impl Parts<'_> {
    fn add(&mut self, group: &str, name: &str, value: Option<String>) {
        self.list.push(UnitPart { group: group.into(), name: name.into(), value });
    }

    fn one(&mut self, group: &str, value: impl Into<String>) {
        self.add(group, "", Some(value.into()));
    }

    fn maybe(&mut self, group: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.one(group, value);
        }
    }

    fn names<'n>(&mut self, group: &str, names: impl IntoIterator<Item = &'n String>) {
        for name in names {
            self.add(group, name, None);
        }
    }

    fn path(&self, path: &Path) -> String {
        self.roots.tokenise(&path.to_string_lossy())
    }

    fn text(&self, text: &str) -> String {
        self.roots.tokenise_text(text)
    }

    /// Each text once, sorted: their order has no meaning.
    fn set(&mut self, group: &str, texts: &[String]) {
        let mut sorted: Vec<&String> = texts.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.names(group, sorted);
    }
}

/// The parts of a unit's key.
pub(super) fn list(identity: &Identity<'_>, cwd: &Path, remapped: bool) -> Vec<UnitPart> {
    let Identity { parsed, tool, roots, .. } = identity;
    let mut parts = Parts { roots, list: Vec::with_capacity(64) };
    parts.one(KILN_FORMAT, FORMAT);
    parts.one(COMPILER, format!("{} {}", tool.version, tool.digest));
    parts.one(TOOL, if identity.clippy { "clippy-driver" } else { "rustc" });
    parts.one("paths", if remapped { "remapped" } else { "as they are" });
    parts.one("crate name", &parsed.crate_name);
    parts.names("crate type", &parsed.crate_types);
    parts.one(INPUT, parts.path(&parsed.input));
    parts.maybe(STANDARD_INPUT, identity.source.map(|digest| digest.to_string()));
    parts.one(WORKING_DIRECTORY, parts.path(cwd));
    parts.names("emit", &parsed.emit);
    if parsed.test {
        parts.add("--test", "", None);
    }
    parts.maybe("target", parsed.target.as_ref().map(|t| parts.text(t)));
    places(&mut parts, parsed);
    parts.set(CFG, &parsed.cfgs);
    options(&mut parts, parsed);
    parts.set(CHECK_CFG, &parsed.check_cfgs);
    for external in &parsed.externs {
        // A name holds no colon, so that options and name cannot be taken for others.
        let name = match external.options.as_str() {
            "" => external.name.clone(),
            options => format!("{options}:{}", external.name),
        };
        let path = external.path.as_ref().map(|p| parts.path(p));
        parts.add(EXTERN, &name, path);
    }
    parts.maybe("sysroot", parsed.sysroot.as_ref().map(|s| parts.path(s)));
    parts.maybe("processor", identity.processor);
    parts.one("error format", &parsed.error_format);
    parts.names("json", &parsed.json);
    // The plain form of JSON diagnostics is the ANSI form stripped.
    parts.maybe("color", (!parsed.is_json()).then_some(identity.color));
    parts.list
}

/// Where outputs go, as far as it shows in them.
fn places(parts: &mut Parts<'_>, parsed: &Parsed) {
    // It shows in artifact notices and dep-info: a build script's probe is the same compile in each of
    // its directories below the target directory, but for that.
    let place = parsed.out_dir.as_ref().or(parsed.output.as_ref()).map(|p| parts.path(p));
    parts.maybe(OUTPUT_DIRECTORY, place);
    let output = parsed.output.as_ref().and_then(|o| o.file_name());
    parts.maybe("output file", output.map(|name| name.to_string_lossy()));
}

/// Options and flags, in their order.
fn options(parts: &mut Parts<'_>, parsed: &Parsed) {
    for (name, value) in &parsed.codegen {
        parts.add(CODEGEN, name, value.as_ref().map(|value| parts.text(value)));
    }
    for option in &parsed.unstable {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        parts.add("-Z", name, Some(parts.text(value)));
    }
    for (flag, value) in &parsed.other {
        let value = value.as_ref().map(|value| match flag.as_str() {
            ENV_SET => value.clone(),
            _ => parts.text(value),
        });
        parts.add(FLAG, flag, value);
    }
    for search in &parsed.search {
        parts.add(SEARCH, &search.kind, Some(parts.path(&search.path)));
    }
    for lib in &parsed.libs {
        parts.add("-l", "", Some(lib.clone()));
    }
}

/// The key of a unit with these parts.
pub(crate) fn key(parts: &[UnitPart]) -> UnitKey {
    let mut encoder = Encoder::new("kiln unit key v2");
    encoder.number("parts", parts.len() as u64);
    for part in parts {
        encoder.text("group", &part.group).text("name", &part.name);
        encoder.optional("value", part.value.as_deref().map(str::as_bytes));
    }
    UnitKey::new(encoder.finish())
}

/// The parts as a record keeps them: bounded, and without values of variables.
pub fn kept(parts: &[UnitPart]) -> Vec<UnitPart> {
    let keep = |part: &UnitPart| {
        let value = part.value.as_deref().map(|value| match value.split_once('=') {
            Some((name, secret)) if part.name == ENV_SET => {
                brief(&format!("{name}=#{}", Digest::of(secret.as_bytes()).short()), MAX_PART_BYTES)
            }
            _ => brief(value, MAX_PART_BYTES),
        });
        UnitPart { group: part.group.clone(), name: brief(&part.name, MAX_PART_BYTES), value }
    };
    if parts.len() <= MAX_UNIT_PARTS {
        return parts.iter().map(keep).collect();
    }
    let (first, rest) = parts.split_at(MAX_UNIT_PARTS - 1);
    let rest = UnitPart {
        group: "further arguments".into(),
        name: String::new(),
        value: Some(format!("#{}", key(rest).digest().short())),
    };
    first.iter().map(keep).chain([rest]).collect()
}

/// A text within a bound: a long one becomes its beginning and a short digest, so that two that
/// differ still do.
pub fn brief(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = format!("\u{2026} #{}", Digest::of(text.as_bytes()).short());
    let mut at = max_bytes.saturating_sub(end.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    format!("{}{end}", &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(group: &str, name: &str, value: Option<&str>) -> UnitPart {
        UnitPart { group: group.into(), name: name.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn parts_never_meet() {
        let lists = [
            vec![part("a", "b", Some("c"))],
            vec![part("ab", "", Some("c"))],
            vec![part("a", "bc", None)],
            vec![part("a", "bc", Some(""))],
            vec![part("a", "b", None), part("c", "", None)],
            vec![part("c", "", None), part("a", "b", None)],
            vec![],
        ];
        let mut keys: Vec<UnitKey> = lists.iter().map(|list| key(list)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), lists.len());
    }

    #[test]
    fn what_is_kept_is_bounded_and_still_differs() {
        let long = |end: &str| part(CHECK_CFG, &format!("{}{end}", "\u{e9}".repeat(200)), None);
        let kept_one = |part: UnitPart| kept(&[part]).remove(0);
        let (one, two) = (kept_one(long("1")), kept_one(long("2")));
        assert!(one != two && one.name.len() <= MAX_PART_BYTES, "{one:?}");
        let many = |last: &str| {
            let mut many = vec![part("a", "b", None); MAX_UNIT_PARTS + 5];
            many.push(part("a", last, None));
            kept(&many)
        };
        assert_eq!(many("x").len(), MAX_UNIT_PARTS);
        assert_ne!(many("x"), many("y"));
    }

    #[test]
    fn values_of_variables_are_not_kept() {
        let kept = kept(&[part(FLAG, ENV_SET, Some("TOKEN=secret"))]);
        let value = kept[0].value.as_deref().unwrap();
        assert!(value.starts_with("TOKEN=#") && !value.contains("secret"), "{value}");
    }
}
