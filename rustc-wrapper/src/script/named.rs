//! [`Named`]: which paths something names to a script: a variable, or that a program in the `bin` beside them
//! ran. Called by [`super::holds`]; pure.

use std::cell::RefCell;
use std::path::Path;

use memchr::memmem::Finder;

use crate::quick::{QuickMap, QuickSet};

/// What names paths.
#[derive(Debug)]
pub struct Named<'a> {
    /// The places of the checkout.
    roots: Vec<&'a Path>,
    /// Values of variables.
    values: Vec<&'a str>,
    /// Where programs that ran were installed: above their `bin`.
    prefixes: QuickSet<&'a Path>,
    /// Directories that were asked for. Thousands of paths lie in few.
    dirs: RefCell<QuickMap<String, Option<Known>>>,
}

/// What is known of a path of two components at least.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Whether a value has it, if only as the begin of a longer one.
    is_mentioned: bool,
    /// [`Named::is_named`].
    is_named: bool,
    /// Whether it holds a place of the checkout.
    holds_root: bool,
    /// [`Named::forks`].
    forks: bool,
}

impl<'a> Named<'a> {
    /// By the places of the checkout, the values of variables, and the programs that ran.
    pub fn new(
        roots: Vec<&'a Path>,
        values: Vec<&'a str>,
        programs: impl Iterator<Item = &'a Path>,
    ) -> Self {
        let bins = programs.filter_map(Path::parent).filter(|dir| dir.ends_with("bin"));
        let prefixes = bins.filter_map(Path::parent).collect();
        Self { roots, values, prefixes, dirs: RefCell::default() }
    }

    /// Whether a variable named a path, or a directory that holds it; or the directory `bin` beside it, of
    /// which a program ran: that looks for what it was installed with.
    ///
    /// What holds the checkout, too, names nothing on the way there: elsewhere that is another way. A home
    /// names the settings in it, and not what lies beside the checkout.
    pub fn is_named(&self, path: &str) -> bool {
        self.find_out(path).is_some_and(|known| known.is_named)
    }

    /// Whether a path, or a directory that holds it, holds the checkout: it lies on the way there, or beside
    /// that.
    pub fn forks(&self, path: &str) -> bool {
        self.find_out(path).is_some_and(|known| known.forks)
    }

    /// What is known of a directory; none of one right below the top.
    fn known(&self, dir: &str) -> Option<Known> {
        if let Some(known) = self.dirs.borrow().get(dir) {
            return *known;
        }
        let known = self.find_out(dir);
        self.dirs.borrow_mut().insert(dir.to_owned(), known);
        known
    }

    fn find_out(&self, path: &str) -> Option<Known> {
        let above = Path::new(path).parent().and_then(Path::to_str);
        let above = above.and_then(|above| self.known(above));
        if above.is_none() && Path::new(path).components().count() <= 2 {
            return None;
        }
        // What is in no value, or not on the way to a root, is so with all that is in it.
        let can = |of: fn(Known) -> bool| above.is_none_or(of);
        let finder = can(|above| above.is_mentioned).then(|| Finder::new(path));
        let has = |finder: &Finder<'_>| self.values.iter().any(|value| occurs(value, finder));
        let finder = finder.filter(has);
        let holds_root = can(|above| above.holds_root) && self.holds_root(path);
        let is_told = finder.as_ref().is_some_and(|finder| names_in(&self.values, finder))
            || (!holds_root && self.is_installed(path));
        Some(Known {
            is_mentioned: finder.is_some(),
            is_named: is_told || (!holds_root && above.is_some_and(|above| above.is_named)),
            holds_root,
            forks: holds_root || above.is_some_and(|above| above.forks),
        })
    }

    fn holds_root(&self, dir: &str) -> bool {
        self.roots.iter().any(|place| place.starts_with(dir))
    }

    /// Whether a program that ran was installed there, and its `bin` is named. Of a directory that holds the
    /// checkout this says nothing: what lies in there may as well have been found from the checkout.
    fn is_installed(&self, prefix: &str) -> bool {
        self.prefixes.contains(Path::new(prefix)) && {
            let bin = format!("{prefix}/bin");
            let bin = Finder::new(&bin);
            self.values.iter().any(|value| has_dir(value, &bin))
        }
    }
}

fn occurs(text: &str, part: &Finder<'_>) -> bool {
    part.find(text.as_bytes()).is_some()
}

/// Whether a directory is named in one of some values; a directory further down does not name it.
fn names_in(values: &[&str], dir: &Finder<'_>) -> bool {
    let names = |rest: &str| !rest.strip_prefix('/').unwrap_or(rest).starts_with(is_of_name);
    values.iter().any(|value| ends(value, dir).any(names))
}

/// Whether a text names a directory or something in it.
fn has_dir(text: &str, dir: &Finder<'_>) -> bool {
    ends(text, dir).any(|rest| !rest.starts_with(is_of_name))
}

/// What follows each place where a text has another one.
fn ends<'t>(text: &'t str, part: &Finder<'_>) -> impl Iterator<Item = &'t str> {
    let len = part.needle().len();
    part.find_iter(text.as_bytes()).filter_map(move |at| text.get(at + len..))
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named<'a>(roots: &[&'a str], values: &[&'a str], programs: &[&'a str]) -> Named<'a> {
        let paths = |texts: &[&'a str]| texts.iter().map(|t| Path::new(*t)).collect::<Vec<_>>();
        Named::new(paths(roots), values.to_vec(), paths(programs).into_iter())
    }

    #[test]
    fn a_path_is_named_by_what_holds_it() {
        let named = named(&[], &["/a/bin:/b/c/bin", "-L/x/lib -l z", "/home/ann/"], &[]);
        for (path, want) in [
            ("/a/bin/cc", true),
            ("/b/c/bin/deep/er", true),
            ("/b/c/other", false),
            ("/a/binary", false),
            ("/x/lib/libz.a", true),
            ("/x/include", false),
            ("/home/ann/x", true),
            ("/home/anna/x", false),
            ("/a", false),
        ] {
            assert_eq!(named.is_named(path), want, "{path}");
        }
    }

    #[test]
    fn what_holds_the_checkout_names_nothing_beside_it() {
        let values = ["/home/ann", "/home/ann/ws/tool", "/opt/x/bin:/home/ann/bin"];
        let programs = ["/opt/x/bin/cc", "/home/ann/bin/ld", "/opt/y/bin/as"];
        let named = named(&["/home/ann/ws/pkg"], &values, &programs);
        for (path, is_named, forks) in [
            ("/home/ann", true, true),
            ("/home/ann/.gitconfig", true, true),
            ("/home/ann/ws", false, true),
            ("/home/ann/ws/other", false, true),
            ("/home/ann/ws/tool/x", true, true),
            ("/home/ann/ws/pkg/src", false, true),
            ("/opt/x/lib", true, false),
            ("/opt/y/lib", false, false),
            ("/opt", false, false),
        ] {
            assert_eq!((named.is_named(path), named.forks(path)), (is_named, forks), "{path}");
        }
    }

    #[test]
    fn a_directory_is_named_by_what_is_in_it() {
        for (text, want) in [
            ("/a/b/bin", true),
            ("/a/b/bin/rustc", true),
            ("/x:/a/b/bin:/y", true),
            ("/a/b/binary", false),
            ("/a/b/bin-2/rustc", false),
            ("/a/b", false),
        ] {
            assert_eq!(has_dir(text, &Finder::new("/a/b/bin")), want, "{text}");
        }
    }

    /// The same without anything kept: each directory above by itself.
    fn plainly(named: &Named<'_>, path: &str) -> (bool, bool) {
        let deep = |dir: &&Path| dir.components().count() > 2;
        let holders = || Path::new(path).ancestors().take_while(deep).filter_map(Path::to_str);
        let fork = holders().find(|dir| named.holds_root(dir));
        let beyond = |dir: &&str| fork.is_none_or(|fork| Path::new(dir).starts_with(fork));
        let is_told = |dir: &str| {
            names_in(&named.values, &Finder::new(dir))
                || (!named.holds_root(dir) && named.is_installed(dir))
        };
        (holders().filter(beyond).any(is_told), fork.is_some())
    }

    proptest! {
        #[test]
        fn what_is_kept_of_directories_changes_no_answer(
            roots in prop::collection::vec("(/[ab]{1,2}){1,4}", 0..3),
            values in prop::collection::vec("(/[ab]{1,2}){0,4}(/bin)?[:/]?(/[ab]){0,2}", 0..4),
            programs in prop::collection::vec("(/[ab]{1,2}){0,3}/bin/[ab]", 0..3),
            paths in prop::collection::vec("(/(a|b|ab|[.][.])){0,6}", 1..12),
        ) {
            fn all(texts: &[String]) -> Vec<&str> { texts.iter().map(String::as_str).collect() }
            let named = named(&all(&roots), &all(&values), &all(&programs));
            for path in &paths {
                let want = plainly(&named, path);
                prop_assert_eq!((named.is_named(path), named.forks(path)), want, "{}", path);
            }
        }
    }
}
