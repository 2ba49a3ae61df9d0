//! Where the paths lie that a script's run asked for: in OUT_DIR or out of it. A path may go up again, and
//! through links that the script made, so its name alone does not tell.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use kiln_observer::log::{Kind, flags};

use crate::observe::seen::Fact;
use crate::quick::QuickMap;
use crate::real_paths::RealPaths;

/// Tells where paths lie and lead, each at most once: as it is after the run.
#[derive(Debug)]
pub struct Paths {
    out: PathBuf,
    real_out: PathBuf,
    known: RefCell<QuickMap<String, Lies>>,
    real: RefCell<RealPaths>,
}

/// Where something lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lies {
    /// In OUT_DIR.
    Within,
    /// Elsewhere; and where, when that is not what the path says.
    Elsewhere(Option<String>),
    /// Perhaps elsewhere: it goes through what is gone.
    Unknown,
}

/// Symbolic links that a run made, while its facts are read in their order.
#[derive(Debug, Default)]
pub struct Links<'a>(QuickMap<&'a str, usize>);

impl<'a> Links<'a> {
    /// Takes a fact in, when it tells that a link was made.
    pub fn note(&mut self, fact: &Fact, name: &'a str) {
        if fact.kind == Kind::Write && fact.has(flags::KEPT) && fact.has(flags::FRESH) {
            *self.0.entry(name).or_default() += 1;
        }
    }

    /// Whether a path leads through a link that leads elsewhere now, or nowhere: then it cannot be told where
    /// it led. The end of the path counts where it is `followed`.
    pub fn are_lost(&self, name: &str, followed: bool) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let through = Path::new(name).ancestors().skip(usize::from(!followed));
        let mut through = through.filter_map(|at| self.0.get_key_value(at.to_str()?));
        through.any(|(at, times)| *times > 1 || !Path::new(at).is_symlink())
    }
}

fn goes_up(path: &Path) -> bool {
    path.components().any(|component| component == Component::ParentDir)
}

impl Paths {
    /// For the run of a script that writes to a directory, which was there in the end when it began.
    pub fn new(out: &Path, real_out: &Path) -> Self {
        let (known, real) = (RefCell::default(), RefCell::default());
        Self { out: out.to_owned(), real_out: real_out.to_owned(), known, real }
    }

    /// Where a path leads; none when it leads nowhere.
    pub fn leads(&self, path: &Path) -> Option<PathBuf> {
        self.real.borrow_mut().of(path)
    }

    /// Whether something has a path, if only a link that leads nowhere.
    pub fn is_there(&self, path: &str) -> bool {
        self.leads(Path::new(path)).is_some() || Path::new(path).symlink_metadata().is_ok()
    }

    /// Where a path lies.
    pub fn lies(&self, path: &str) -> Lies {
        let plain = Path::new(path);
        if !plain.starts_with(&self.out) && !plain.starts_with(&self.real_out) && !goes_up(plain) {
            return Lies::Elsewhere(None);
        }
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let lies = self.look(plain);
        self.known.borrow_mut().insert(path.to_owned(), lies.clone());
        lies
    }

    /// Where a link itself lies, or what else is not followed.
    pub fn lies_itself(&self, path: &str) -> Lies {
        path.rsplit_once('/').map_or(Lies::Unknown, |(above, _)| self.lies(above))
    }

    fn look(&self, path: &Path) -> Lies {
        // What is gone lay where the nearest directory that is there lies.
        for above in path.ancestors() {
            if let (Some(real), Ok(rest)) = (self.leads(above), path.strip_prefix(above)) {
                return match rest.as_os_str().is_empty() {
                    true => self.place(&real),
                    // A directory of the script that is gone may have led anywhere.
                    false if goes_up(rest) && self.place(&real) == Lies::Within => Lies::Unknown,
                    // It led nowhere, and leads nowhere now.
                    false if goes_up(rest) => Lies::Elsewhere(None),
                    false => self.place(&real.join(rest)),
                };
            }
            if above.is_symlink() {
                return Lies::Unknown;
            }
        }
        Lies::Unknown
    }

    fn place(&self, real: &Path) -> Lies {
        match real.starts_with(&self.real_out) {
            true => Lies::Within,
            false => Lies::Elsewhere(real.to_str().map(str::to_owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("out/in/deep")).unwrap();
        std::fs::create_dir_all(at("src")).unwrap();
        std::fs::write(at("src/x"), "").unwrap();
        std::os::unix::fs::symlink(at("src"), at("out/away")).unwrap();
        std::os::unix::fs::symlink("in", at("out/here")).unwrap();
        std::os::unix::fs::symlink("nothing", at("out/dangling")).unwrap();
        let out = at("out");
        let paths = Paths::new(Path::new(&out), Path::new(&out));
        let elsewhere = |path: &str| Lies::Elsewhere(Some(at(path)));
        for (path, want) in [
            ("out", Lies::Within),
            ("out/in/deep", Lies::Within),
            ("out/in/gone/deeper", Lies::Within),
            ("out/here/deep", Lies::Within),
            ("out/away/x", elsewhere("src/x")),
            ("out/away/gone", elsewhere("src/gone")),
            ("out/../src/x", elsewhere("src/x")),
            ("out/in/../../src/gone", elsewhere("src/gone")),
            ("src/../out/in", Lies::Within),
            ("out/dangling", Lies::Unknown),
            ("out/dangling/x", Lies::Unknown),
            ("out/gone/../x", Lies::Unknown),
            ("gone/../out/in", Lies::Elsewhere(None)),
            ("src/x", Lies::Elsewhere(None)),
        ] {
            assert_eq!(paths.lies(&at(path)), want, "{path}");
        }
    }
}
