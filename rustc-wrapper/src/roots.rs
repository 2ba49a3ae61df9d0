//! [`Roots`]: the directories whose place may differ between machines, and the three things done
//! with them: paths to tokens (for keys), texts to templates (for stored dep-info and
//! diagnostics), and the remaps given to rustc.
//!
//! Pure, but for [`find_target`], which looks for cargo's marker file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::env::Env;

/// How far above the output directory the target directory is looked for.
const MAX_TARGET_DEPTH: usize = 8;
/// cargo puts this file into every target and build directory.
pub(crate) const TARGET_MARKER: &str = "CACHEDIR.TAG";
/// cargo holds this file in the profile directory while it builds.
const PROFILE_LOCK: &str = ".cargo-lock";
/// Delimits a root's name in a template; a text that has it is not stored.
pub const MARK: char = '\u{1}';
/// The sources of the standard library in a sysroot, where they are installed: rustc then names them instead of
/// `/rustc/<commit>`.
const STD_SOURCES: &str = "lib/rustlib/src/rust";
/// Where remapped roots appear to be.
pub const VIRTUAL: &str = "/kiln/";

/// One root: its name and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// `workspace`, `package`, `out`, `target`, `cargo`, `std`, `sysroot`, `home` or `tmp`.
    pub name: &'static str,
    /// Absolute path without a trailing slash.
    pub path: String,
}

/// The roots of one unit, longest path first.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    roots: Vec<Root>,
}

/// How a path is written in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    Plain,
    /// Inside of a JSON string.
    Json,
    /// In a makefile rule, as rustc writes dep-info: blanks behind a backslash. Its lines that tell
    /// of variables are written as [`Escape::DepEnv`].
    DepInfo,
    /// In the value of a variable in dep-info: backslashes are doubled, blanks are not special.
    DepEnv,
}

impl Escape {
    /// The parts of a line in which paths are written in one way each. In dep-info the target of a
    /// rule is written as it is.
    fn parts(self, line: &str) -> [(&str, Self); 2] {
        if self != Self::DepInfo {
            return [(line, self), ("", self)];
        }
        if line.starts_with("# env-dep:") {
            return [(line, Self::DepEnv), ("", self)];
        }
        let (target, files) = line.split_at(line.find(": ").unwrap_or(0));
        [(target, Self::Plain), (files, Self::DepInfo)]
    }

    fn apply(self, path: &str) -> String {
        match self {
            Self::Plain => path.to_owned(),
            Self::Json => {
                let quoted = serde_json::Value::from(path).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::DepInfo => path.replace(' ', "\\ "),
            Self::DepEnv => path.replace('\\', "\\\\"),
        }
    }
}

/// The target directory that an output directory belongs to: the one above the profile directory
/// that cargo has locked, else the nearest one with cargo's marker (which cargo puts into the first
/// directory that it makes itself, be it the target's or one in it); else the profile directory,
/// else the output directory.
pub fn find_target(out_dir: &Path, triple: Option<&str>) -> PathBuf {
    let above = || out_dir.ancestors().take(MAX_TARGET_DEPTH);
    let locked = above().find(|d| d.join(PROFILE_LOCK).exists()).and_then(Path::parent);
    let marked = || above().find(|d| d.join(TARGET_MARKER).exists());
    if let Some(target) = locked.or_else(marked) {
        let triple = triple.and_then(|t| Path::new(t).file_stem());
        let inner = triple.is_some() && target.file_name() == triple;
        return target.parent().filter(|_| inner).unwrap_or(target).to_owned();
    }
    match (out_dir.file_name().and_then(|n| n.to_str()), out_dir.parent()) {
        (Some("deps" | "examples"), Some(profile)) => profile.to_owned(),
        _ => out_dir.to_owned(),
    }
}

/// The places that roots are made of, before the rules are applied.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// What holds the sources of more than one package.
    pub workspace: Option<PathBuf>,
    /// The target directory, from [`find_target`].
    pub target: Option<PathBuf>,
    /// The sysroot of the tool.
    pub sysroot: Option<PathBuf>,
    /// The directory that a build script writes to.
    pub out: Option<PathBuf>,
}

impl Roots {
    /// The roots of a unit.
    pub fn new(env: &Env, places: Places) -> Self {
        let home = env.absolute("HOME");
        let cargo = env.absolute("CARGO_HOME").or_else(|| home.as_ref().map(|h| h.join(".cargo")));
        let std = places.sysroot.as_ref().map(|sysroot| sysroot.join(STD_SOURCES));
        // In the order of preference where two are one place.
        let all = [
            ("workspace", places.workspace),
            ("package", env.absolute("CARGO_MANIFEST_DIR")),
            ("out", places.out),
            ("target", places.target),
            ("cargo", cargo),
            ("std", std),
            ("sysroot", places.sysroot),
            ("home", home),
            ("tmp", env.absolute("TMPDIR").or_else(|| Some("/tmp".into()))),
        ];
        Self::from_pairs(all.into_iter().filter_map(|(name, path)| Some((name, path?))))
    }

    /// Roots from names and places, in the order of preference.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (&'static str, PathBuf)>) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for (name, path) in pairs {
            let Some(path) = path.to_str().map(|p| p.trim_end_matches('/').to_owned()) else {
                continue;
            };
            // A root of fewer than two components would be found everywhere.
            let good =
                path.starts_with('/') && path.matches('/').count() >= 2 && !path.contains("//");
            if good && roots.iter().all(|r| r.path != path) {
                roots.push(Root { name, path });
            }
        }
        roots.sort_by_key(|root| std::cmp::Reverse(root.path.len()));
        Self { roots }
    }

    /// The roots, longest path first.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    /// The place of a root.
    pub fn place(&self, name: &str) -> Option<&str> {
        self.roots.iter().find(|r| r.name == name).map(|r| r.path.as_str())
    }

    /// A path as a token path: `<workspace>/src/lib.rs`. Absolute paths outside of every root stay.
    pub fn tokenise(&self, path: &str) -> String {
        for root in &self.roots {
            if let Some(rest) = path.strip_prefix(&root.path)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                return format!("<{}>{rest}", root.name);
            }
        }
        path.to_owned()
    }

    /// The local path of a token path; none when this unit has no such root.
    pub fn resolve(&self, token: &str) -> Option<PathBuf> {
        if let Some((name, rest)) = token.strip_prefix('<').and_then(|t| t.split_once('>')) {
            return Some(PathBuf::from(format!("{}{rest}", self.place(name)?)));
        }
        token.starts_with('/').then(|| PathBuf::from(token))
    }

    /// Whether the text holds the place of a root.
    pub fn occurs_in(&self, text: &str) -> bool {
        self.roots.iter().any(|root| !find(text, &root.path).is_empty())
    }

    /// Whether the text holds what a root's token looks like.
    pub fn names_token(&self, text: &str) -> bool {
        text.contains('<') && self.roots.iter().any(|r| text.contains(&format!("<{}>", r.name)))
    }

    /// Text in which places of roots are tokens (`<name>`), for keys.
    pub fn tokenise_text(&self, text: &str) -> String {
        self.replace(text, Escape::Plain, |root| format!("<{}>", root.name), false)
    }

    /// A template of a text: places of roots, and their virtual places, become marked names.
    /// None when the text cannot be made one.
    pub fn template(&self, text: &str, escape: Escape) -> Option<String> {
        if text.contains(MARK) {
            return None;
        }
        let mark = |root: &Root| format!("{MARK}{}{MARK}", root.name);
        if escape != Escape::DepInfo {
            return Some(self.replace(text, escape, mark, true));
        }
        let parts = text.split_inclusive('\n').flat_map(|line| escape.parts(line));
        Some(parts.map(|(part, escape)| self.replace(part, escape, mark, true)).collect())
    }

    /// A template of what no compiler wrote: a virtual place in it is a text like any other.
    pub fn template_of_places(&self, text: &str) -> Option<String> {
        let mark = |root: &Root| format!("{MARK}{}{MARK}", root.name);
        (!text.contains(MARK)).then(|| self.replace(text, Escape::Plain, mark, false))
    }

    /// A template written out with the local places. None when a root is missing here.
    pub fn fill(&self, template: &str, escape: Escape) -> Option<String> {
        let mut out = String::with_capacity(template.len());
        let lines = template.split_inclusive('\n').flat_map(|line| escape.parts(line));
        for (part, escape) in lines {
            for (i, part) in part.split(MARK).enumerate() {
                match i % 2 {
                    0 => out.push_str(part),
                    _ => out.push_str(&escape.apply(self.place(part)?)),
                }
            }
        }
        Some(out)
    }

    /// Text in which virtual places became the local ones: what people should read.
    pub fn reveal(&self, text: &str, escape: Escape) -> String {
        if !text.contains(VIRTUAL) {
            return text.to_owned();
        }
        let mut out = text.to_owned();
        for root in &self.roots {
            let place = escape.apply(&root.path);
            out = substitute(&out, &virtual_place(root.name), &place);
        }
        out
    }

    fn replace(
        &self,
        text: &str,
        escape: Escape,
        name: impl Fn(&Root) -> String,
        both: bool,
    ) -> String {
        let mut out = text.to_owned();
        for root in &self.roots {
            let with = name(root);
            out = substitute(&out, &escape.apply(&root.path), &with);
            if both && out.contains(VIRTUAL) {
                out = substitute(&out, &virtual_place(root.name), &with);
            }
        }
        out
    }

    /// The places of all roots with the virtual places that outputs name instead: from general to
    /// specific, since the last match wins. The package is there only where no other root holds it.
    pub fn remaps(&self) -> Vec<(String, String)> {
        let general = |root: &&Root| match root.name {
            "sysroot" => false,
            "package" => !self.roots.iter().any(|other| {
                other.name != "package" && root.path.starts_with(&format!("{}/", other.path))
            }),
            _ => true,
        };
        let remap = |root: &Root| (root.path.clone(), virtual_place(root.name));
        self.roots.iter().rev().filter(general).map(remap).collect()
    }

    /// rustc's arguments for [`Roots::remaps`].
    pub fn remap_arguments(&self) -> Vec<String> {
        let remap = |(from, to)| format!("--remap-path-prefix={from}={to}");
        self.remaps().into_iter().map(remap).collect()
    }
}

/// A path without what means nothing: `//`, `/./`, and a slash or a dot at the end.
pub fn tidy(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let odd = |at| matches!(bytes[at + 1..], [] | [b'/', ..] | [b'.'] | [b'.', b'/', ..]);
    if !memchr::memchr_iter(b'/', bytes).any(odd) {
        return path.into();
    }
    let plain = Path::new(path).components().collect::<PathBuf>();
    plain.to_str().unwrap_or(path).to_owned().into()
}

fn virtual_place(name: &str) -> String {
    format!("{VIRTUAL}{name}")
}

/// Whether a byte can continue a path component.
fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || byte >= 0x80
}

/// Whether a path may begin at this position: not in the middle of another path, but after `=`,
/// blanks, quotes, or a one-letter option such as `-L`.
fn starts_path(before: &[u8]) -> bool {
    match before {
        [] => true,
        [.., b'-', letter] if letter.is_ascii_alphabetic() => {
            before.len() == 2 || !in_name(before[before.len() - 3])
        }
        // Behind an escape sequence, as in `\u001b[0m/path` and `\n/path`.
        [.., b'm'] => {
            let digits = before[..before.len() - 1]
                .iter()
                .rev()
                .take_while(|b| b.is_ascii_digit() || **b == b';');
            let n = digits.count();
            before.len() > n + 1 && before[before.len() - n - 2] == b'['
        }
        [.., b'\\', b'n' | b't' | b'r'] => true,
        // Nor right behind a place that was replaced already.
        [.., last] => !in_name(*last) && *last != b'/' && char::from(*last) != MARK,
    }
}

/// The positions at which a path occurs as whole components.
fn find(text: &str, path: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let whole = |at: &usize| {
        let after = bytes.get(at + path.len());
        let ends = match after {
            None => true,
            // A full stop that ends a sentence.
            Some(b'.') => bytes.get(at + path.len() + 1).is_none_or(|b| !in_name(*b) && *b != b'/'),
            Some(byte) => !in_name(*byte),
        };
        ends && starts_path(&bytes[..*at])
    };
    memchr::memmem::find_iter(bytes, path).filter(whole).collect()
}

fn substitute(text: &str, path: &str, with: &str) -> String {
    let places = find(text, path);
    if places.is_empty() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for at in places {
        if at >= from {
            out.push_str(&text[from..at]);
            out.push_str(with);
            from = at + path.len();
        }
    }
    out.push_str(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        Roots::from_pairs([
            ("workspace", PathBuf::from("/home/ann/my ws")),
            ("target", "/home/ann/my ws/target".into()),
            ("cargo", "/home/ann/.cargo/".into()),
            ("home", "/home/ann".into()),
            ("tmp", "/tmp".into()),
        ])
    }

    #[test]
    fn the_longest_root_wins_and_short_ones_are_none() {
        let r = roots();
        assert_eq!(r.tokenise("/home/ann/my ws/target/debug"), "<target>/debug");
        assert_eq!(r.tokenise("/home/ann/my ws"), "<workspace>");
        assert_eq!(r.tokenise("/home/ann/my wsx/a"), "<home>/my wsx/a");
        assert_eq!(r.tokenise("/tmp/x"), "/tmp/x");
        assert_eq!(r.resolve("<target>/debug"), Some("/home/ann/my ws/target/debug".into()));
        assert_eq!(r.resolve("<package>/x"), None);
        assert_eq!(r.resolve("relative"), None);
    }

    #[test]
    fn a_tidy_path_has_nothing_that_means_nothing() {
        for (path, want) in [
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/a/b/.", "/a/b"),
            ("/a/.b/..c", "/a/.b/..c"),
            ("/a/../b", "/a/../b"),
            ("a/.", "a"),
            ("./a", "./a"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
        ] {
            assert_eq!(tidy(path), want, "{path}");
            let plain = Path::new(path).components().collect::<PathBuf>();
            assert_eq!(plain.to_str(), Some(want), "{path}");
        }
    }

    #[test]
    fn texts_are_replaced_at_whole_components_only() {
        let r = roots();
        for (text, want) in [
            ("-L/home/ann/my ws/native", "-L<workspace>/native"),
            ("a=/home/ann/x,/home/ann", "a=<home>/x,<home>"),
            ("/mnt/home/ann/x", "/mnt/home/ann/x"),
            ("/home/anne", "/home/anne"),
            ("see /home/ann.", "see <home>."),
            ("/home/ann.old", "/home/ann.old"),
            (r"\u001b[38;5;12m/home/ann/x", r"\u001b[38;5;12m<home>/x"),
        ] {
            assert_eq!(r.tokenise_text(text), want);
        }
    }

    #[test]
    fn templates_are_filled_with_other_places() {
        let other = Roots::from_pairs([
            ("workspace", PathBuf::from("/srv/b c")),
            ("target", "/x/t".into()),
            ("home", "/srv/home".into()),
        ]);
        let text = "/home/ann/my ws/target/a.d: /home/ann/my\\ ws/src/lib.rs\n";
        let template = roots().template(text, Escape::DepInfo).unwrap();
        assert_eq!(
            other.fill(&template, Escape::DepInfo).unwrap(),
            "/x/t/a.d: /srv/b\\ c/src/lib.rs\n"
        );
        assert_eq!(roots().fill(&template, Escape::DepInfo).unwrap(), text);
        assert_eq!(roots().template("a\u{1}b", Escape::Plain), None);
        let odd = Roots::from_pairs([("target", PathBuf::from("/a/b c"))]);
        let text = "/a/b\\ c/x.d: y\n\n# env-dep:OUT_DIR=/a/b c/out\n";
        let template = odd.template(text, Escape::DepInfo).unwrap();
        assert!(!template.contains("b c"), "{template}");
        assert_eq!(odd.fill(&template, Escape::DepInfo).unwrap(), text);
        let cargo = roots().template("/home/ann/.cargo/x", Escape::Plain).unwrap();
        assert_eq!(other.fill(&cargo, Escape::Plain), None, "a root is missing");
    }

    #[test]
    fn diagnostics_show_real_places() {
        let r = Roots::from_pairs([("workspace", PathBuf::from("/a/\"b\""))]);
        assert_eq!(r.reveal("x /kiln/workspace/src y", Escape::Json), "x /a/\\\"b\\\"/src y");
        assert_eq!(r.reveal("/kiln/workspaces", Escape::Json), "/kiln/workspaces");
    }

    #[test]
    fn remaps_go_from_general_to_specific() {
        let args = roots().remap_arguments();
        assert!(args[0].ends_with("=/kiln/home"), "{args:?}");
        assert!(args[args.len() - 1].ends_with("=/kiln/target"), "{args:?}");
    }

    #[test]
    fn sources_of_std_are_remapped_and_nothing_else_of_a_sysroot() {
        let env = Env::default();
        let places = Places { sysroot: Some("/opt/rust/x".into()), ..Places::default() };
        let remaps = Roots::new(&env, places).remaps();
        let std = ("/opt/rust/x/lib/rustlib/src/rust".to_owned(), "/kiln/std".to_owned());
        assert!(remaps.contains(&std) && !remaps.iter().any(|(from, _)| from == "/opt/rust/x"));
    }
}
