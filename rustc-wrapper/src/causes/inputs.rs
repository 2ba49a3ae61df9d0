//! What differs between the inputs of earlier records and those that are here.
//!
//! The members of all candidates are evaluated, which the evaluator mostly has done already and a
//! compile is about to need; within a bound of time.

use std::path::PathBuf;
use std::time::Instant;

use kiln_storage::api::Cause;
use kiln_storage::record::{EnvForm, Member, Record, TokenPath, TreeFilter, Variables};
use kiln_storage::{Digest, ResultKey};

use super::Causes;
use crate::closure::is_crate_file;
use crate::env::Env;
use crate::limits::COMPARE_TIME;
use crate::members::Evaluator;
use crate::memo::Memo;
use crate::roots::Roots;
use crate::variables;

/// A place at which there can be nothing: below a device.
const NOWHERE: &str = "/dev/null/kiln";
/// What a value is called that cannot be told.
const UNREADABLE: &str = "unreadable";

/// A member that has another value here than in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    member: Member,
    then: Digest,
    /// None: it has no value here.
    now: Option<Digest>,
}

/// A result of the unit, and what differs from it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    result: ResultKey,
    found: Vec<Difference>,
}

/// What differs from the nearest of some records of the unit, none of which holds here.
pub fn compare(evaluator: &mut Evaluator<'_>, records: &[Record]) -> Option<Nearest> {
    let began = Instant::now();
    let mut nearest: Option<Nearest> = None;
    for record in records {
        let (found, whole) = differences(evaluator, record, began);
        let nearer = nearest.as_ref().is_none_or(|best| whole && found.len() < best.found.len());
        if nearer && !found.is_empty() {
            nearest = Some(Nearest { result: record.result_key, found });
        }
        if !whole {
            break;
        }
    }
    nearest
}

impl Nearest {
    /// The result, when it has to be asked which variables counted for it: many at a time differ.
    pub fn wants_variables(&self) -> Option<ResultKey> {
        self.environment().map(|_| self.result)
    }

    fn environment(&self) -> Option<Variables> {
        let members = self.found.iter().map(|difference| &difference.member);
        members.filter_map(variables::of_member).min()
    }

    /// What differs, given the variables that counted for the result, as far as they are known.
    pub fn causes(mut self, evaluator: &mut Evaluator<'_>, then: &variables::List) -> Causes {
        let named = self.variables(evaluator, then);
        let Self { found, .. } = &mut self;
        if named.is_some() {
            found.retain(|difference| variables::of_member(&difference.member).is_none());
        }
        drop_covered(found, evaluator.roots);
        found.sort_by_key(|difference| rank(&difference.member));
        let crates = found.partition_point(|difference| rank(&difference.member) < CRATES);
        let mut all: Vec<Cause> =
            found.iter().map(|difference| describe(difference, evaluator.roots)).collect();
        all.splice(crates..crates, named.unwrap_or_default());
        Causes::new(all)
    }

    /// The variables of many that differ, but for those that are inputs themselves and named as such. None when
    /// it cannot be told which they are.
    fn variables(
        &self,
        evaluator: &mut Evaluator<'_>,
        then: &variables::List,
    ) -> Option<Vec<Cause>> {
        let mut causes = variables::differences(evaluator, self.environment()?, then);
        if causes.is_empty() {
            return None;
        }
        causes.retain(|cause| !self.found.iter().any(|difference| is(&difference.member, cause)));
        Some(causes)
    }
}

/// Whether a member is the variable that a cause names.
fn is(member: &Member, cause: &Cause) -> bool {
    matches!(member, Member::Env(name, _) if *name == cause.name)
}

/// The members of a record that differ, and whether there was time for all.
fn differences(
    evaluator: &mut Evaluator<'_>,
    record: &Record,
    began: Instant,
) -> (Vec<Difference>, bool) {
    let mut found = Vec::new();
    for (member, then) in record.members.iter().zip(&record.values) {
        let now = evaluator.value(member);
        if now != Some(*then) {
            found.push(Difference { member: member.clone(), then: *then, now });
        }
        if began.elapsed() > COMPARE_TIME && !found.is_empty() {
            return (found, false);
        }
    }
    (found, true)
}

/// Leaves out directories of which a file that differs is named itself.
fn drop_covered(found: &mut Vec<Difference>, roots: &Roots) {
    let files: Vec<PathBuf> = found
        .iter()
        .filter_map(|difference| match &difference.member {
            Member::File(path) => roots.resolve(&path.0),
            _ => None,
        })
        .collect();
    found.retain(|difference| match &difference.member {
        Member::Tree(path, _) => {
            let dir = roots.resolve(&path.0);
            dir.is_none_or(|dir| !files.iter().any(|file| file.starts_with(&dir)))
        }
        _ => true,
    });
}

/// The rank of crates. They come last: they lead to other units.
const CRATES: u8 = 5;

/// How much a difference tells; less is more.
fn rank(member: &Member) -> u8 {
    match member {
        Member::File(path) if is_crate(path) => CRATES,
        Member::File(path) if path.0.starts_with("<target>") => 2,
        Member::File(_) => 0,
        Member::Env(..) => 1,
        Member::Tree(..) => 4,
        Member::Listing(_)
        | Member::Program(_)
        | Member::Upward(..)
        | Member::Root(_)
        | Member::Link(_)
        | Member::Mode(_)
        | Member::Place(_)
        | Member::Resolved(_)
        | Member::Processor
        | Member::DiagnosticWidth => 3,
        // What differs in it is mostly named by another member.
        Member::Environment(_) => 4,
    }
}

fn is_crate(path: &TokenPath) -> bool {
    path.0.rsplit('/').next().is_some_and(is_crate_file)
}

/// A path as people know it: that of a package by the root that holds the package, since every unit
/// has a package of its own.
fn shown(path: &TokenPath, roots: &Roots) -> String {
    let Some(rest) = path.0.strip_prefix("<package>") else { return path.0.clone() };
    let package = roots.place("package").unwrap_or_default();
    let holder = roots.iter().filter(|root| root.name != "package").find_map(|root| {
        let inner = package.strip_prefix(&root.path).filter(|inner| inner.starts_with('/'))?;
        Some(format!("<{}>{inner}{rest}", root.name))
    });
    holder.unwrap_or_else(|| path.0.clone())
}

fn describe(difference: &Difference, roots: &Roots) -> Cause {
    let Difference { member, then, now } = difference;
    let values = (
        word(member, then),
        now.as_ref().map_or_else(|| UNREADABLE.to_owned(), |now| word(member, now)),
    );
    let cause = |kind: &str, name: &str| Cause {
        kind: kind.to_owned(),
        name: name.to_owned(),
        then: Some(values.0.clone()),
        now: Some(values.1.clone()),
    };
    match member {
        Member::File(path) => cause("file", &shown(path, roots)),
        Member::Listing(path) => cause("names", &shown(path, roots)),
        Member::Tree(path, _) => cause("tree", &shown(path, roots)),
        Member::Env(name, _) => cause("variable", name),
        Member::Program(name) => cause("program", name),
        Member::Upward(path, names) => {
            cause("nearest-file", &format!("{}/{}", shown(path, roots), names.join(" or ")))
        }
        Member::Root(name) => cause("place", &format!("<{name}>")),
        Member::DiagnosticWidth => cause("width", ""),
        Member::Processor => cause("processor", ""),
        Member::Link(path) => cause("link", &shown(path, roots)),
        Member::Mode(path) => cause("mode", &shown(path, roots)),
        Member::Place(path) | Member::Resolved(path) => cause("place", &shown(path, roots)),
        Member::Environment(_) => cause("environment", ""),
    }
}

/// A member whose value has a word, in an environment in which it has it.
struct Known {
    word: &'static str,
    member: Member,
    env: &'static [(&'static str, &'static str)],
}

impl Known {
    fn new(word: &'static str, member: Member) -> Self {
        Self { word, member, env: &[] }
    }

    fn value(&self) -> Option<Digest> {
        let env = Env::of_pairs(self.env.iter().copied());
        let (roots, memo) = (Roots::default(), Memo::default());
        Evaluator::new(&env, &roots, &memo, None).value(&self.member)
    }
}

/// A value for people: a word where it is that of a thing that is not there or empty, else a short
/// digest. How values are made is the evaluator's own; it is asked for the value of such a thing.
fn word(member: &Member, value: &Digest) -> String {
    let nowhere = || TokenPath(NOWHERE.into());
    let variable = |form| Member::Env("X".into(), form);
    let known = match member {
        Member::File(_) => vec![
            Known::new("absent", Member::File(nowhere())),
            Known::new("a directory", Member::File(TokenPath("/".into()))),
            Known::new("a special file", Member::File(TokenPath("/dev/null".into()))),
        ],
        Member::Listing(_) => vec![Known::new("absent", Member::Listing(nowhere()))],
        Member::Tree(..) => vec![Known::new("absent", Member::Tree(nowhere(), TreeFilter::All))],
        Member::Env(..) => vec![
            Known::new(variables::UNSET, variable(EnvForm::Raw)),
            Known { word: "empty", member: variable(EnvForm::Raw), env: &[("X", "")] },
            Known { word: "empty", member: variable(EnvForm::Tokens), env: &[("X", "")] },
        ],
        Member::Program(_) => vec![Known::new("not found", Member::Program("x".into()))],
        Member::Upward(..) => {
            vec![Known::new("none", Member::Upward(TokenPath("/".into()), Vec::new()))]
        }
        Member::Link(_) => vec![Known::new("no link", Member::Link(nowhere()))],
        Member::Mode(_) => vec![Known::new("absent", Member::Mode(nowhere()))],
        Member::Place(_) => vec![Known::new("absent", Member::Place(nowhere()))],
        Member::Resolved(_) => vec![Known::new("absent", Member::Resolved(nowhere()))],
        Member::Root(_) | Member::DiagnosticWidth | Member::Processor | Member::Environment(_) => {
            Vec::new()
        }
    };
    let is = |known: &&Known| known.value().as_ref() == Some(value);
    known.iter().find(is).map_or_else(|| value.short(), |known| known.word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::UnitKey;
    use kiln_storage::record::{Cost, Producer, RECORD_VERSION, UnitName, result_key};
    use std::path::Path;

    fn file(path: &str) -> Member {
        Member::File(TokenPath(format!("<workspace>/{path}")))
    }

    fn variable(name: &str) -> Member {
        Member::Env(name.into(), EnvForm::Raw)
    }

    /// A world in which members have values.
    struct Here {
        dir: tempfile::TempDir,
        env: Vec<(&'static str, &'static str)>,
    }

    impl Here {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
        }

        fn with<T>(&self, work: impl FnOnce(&mut Evaluator<'_>) -> T) -> T {
            let env = Env::of_pairs(self.env.iter().copied());
            let roots = Roots::from_pairs([("workspace", self.dir.path().to_owned())]);
            work(&mut Evaluator::new(&env, &roots, &Memo::default(), None))
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            std::fs::write(path, text).unwrap();
        }

        /// What a compile would store now.
        fn record(&self, members: &[Member]) -> Record {
            let values =
                self.with(|e| members.iter().map(|m| e.value(m).unwrap()).collect::<Vec<_>>());
            let unit_key = UnitKey::new(Digest::of(b"u"));
            Record {
                version: RECORD_VERSION,
                unit_key,
                result_key: result_key(&unit_key, members, &values),
                unit: UnitName::default(),
                parts: Vec::new(),
                members: members.to_vec(),
                values,
                variables: Default::default(),
                outputs: Vec::new(),
                status: 0,
                stdout: String::new(),
                stderr: String::new(),
                cost: Cost::default(),
                producer: Producer::default(),
                conservative: Vec::new(),
            }
        }

        /// What differs, when so much is known of the variables that counted.
        fn causes(&self, records: &[Record], then: &[(&str, &str)]) -> Causes {
            let then = then.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            self.with(|e| compare(e, records).map(|found| found.causes(e, &then.collect())))
                .unwrap_or_default()
        }

        /// Kind, name and values of the causes; digests are `#`.
        fn told(&self, records: &[Record]) -> Vec<String> {
            let show = |value: Option<String>| {
                let value = value.unwrap();
                let digest = value.len() == 8 && value.bytes().all(|b| b.is_ascii_hexdigit());
                if digest { "#".to_owned() } else { value }
            };
            let line =
                |c: Cause| format!("{} {}: {} > {}", c.kind, c.name, show(c.then), show(c.now));
            self.causes(records, &[]).named.into_iter().map(line).collect()
        }
    }

    #[test]
    fn special_values_have_words() {
        let mut here = Here::new();
        let members =
            [file("a"), file("b"), file("c"), variable("X"), variable("Y"), variable("Z")];
        here.write("b", "");
        here.write("c", "1");
        here.env = vec![("Y", ""), ("Z", "1")];
        let record = here.record(&members);
        here.write("a", "");
        std::fs::remove_file(here.dir.path().join("b")).unwrap();
        here.write("c", "2");
        here.env = vec![("X", ""), ("Y", "1")];
        let causes = here.causes(std::slice::from_ref(&record), &[]);
        assert_eq!(causes.more, 2);
        assert_eq!(
            here.told(&[record]),
            [
                "file <workspace>/a: absent > #",
                "file <workspace>/b: # > absent",
                "file <workspace>/c: # > #",
                "variable X: unset > empty",
            ]
        );
        let record = here.record(&[variable("Y"), variable("X")]);
        here.env = vec![("Y", "2")];
        assert_eq!(here.told(&[record]), ["variable Y: # > #", "variable X: empty > unset"]);
    }

    #[test]
    fn other_kinds_of_inputs() {
        let mut here = Here::new();
        let tree = |path: &str| {
            Member::Tree(TokenPath(format!("<workspace>/{path}")), TreeFilter::Package)
        };
        let upward = Member::Upward(TokenPath("<workspace>/in".into()), vec!["kt.toml".into()]);
        let listing = Member::Listing(TokenPath("<workspace>/list".into()));
        here.write("tree/file", "1");
        here.write("kt.toml", "1");
        let record = here.record(&[tree("tree"), upward, listing, Member::Program("kt-cc".into())]);
        here.write("tree/file", "2");
        here.write("kt.toml", "2");
        here.write("list/file", "");
        here.write("bin/kt-cc", "");
        let path = here.dir.path().join("bin").to_str().unwrap().to_owned();
        here.env = vec![("PATH", Box::leak(path.into_boxed_str()))];
        use std::os::unix::fs::PermissionsExt;
        let program = here.dir.path().join("bin/kt-cc");
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(
            here.told(&[record]),
            [
                "nearest-file <workspace>/in/kt.toml: # > #",
                "names <workspace>/list: absent > #",
                "program kt-cc: not found > #",
                "tree <workspace>/tree: # > #",
            ]
        );
        // A file that is named itself stands for its directory.
        let record = here.record(&[tree("tree"), file("tree/file")]);
        here.write("tree/file", "3");
        assert_eq!(here.told(&[record]), ["file <workspace>/tree/file: # > #"]);
    }

    #[test]
    fn sources_come_before_crates_and_the_nearest_record_counts() {
        let here = Here::new();
        for path in ["a.rs", "b.rs", "liblow-1.rmeta"] {
            here.write(path, "1");
        }
        let members = [file("a.rs"), file("b.rs"), file("liblow-1.rmeta")];
        let far = here.record(&members);
        here.write("liblow-1.rmeta", "2");
        here.write("b.rs", "2");
        let near = here.record(&members);
        here.write("liblow-1.rmeta", "3");
        assert_eq!(here.told(&[far.clone(), near]), ["file <workspace>/liblow-1.rmeta: # > #"]);
        assert_eq!(
            here.told(&[far]),
            ["file <workspace>/b.rs: # > #", "file <workspace>/liblow-1.rmeta: # > #",]
        );
    }

    #[test]
    fn variables_of_many_are_named() {
        let mut here = Here::new();
        let all = Member::Environment(Variables::Lasting);
        here.env = vec![("GONE", "1"), ("OTHER", "1"), ("SAME", "1"), ("TERM", "1")];
        let record = here.record(&[all.clone(), variable("READ"), file("liblow-1.rmeta")]);
        let then = here.with(|e| variables::list(e, &record.members));
        let then: Vec<(&str, &str)> = then.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(then.iter().map(|(n, _)| *n).collect::<Vec<_>>(), ["GONE", "OTHER", "SAME"]);
        here.env = vec![("NEW", "1"), ("OTHER", "2"), ("READ", "1"), ("SAME", "1")];
        here.write("liblow-1.rmeta", "2");
        let told = |record: &Record, then: &[(&str, &str)]| {
            let causes = here.causes(std::slice::from_ref(record), then);
            let named = causes.named.iter();
            let lines = named.map(|c| format!("{} {}", c.kind, c.name)).collect::<Vec<_>>();
            (lines.join(", "), causes.more)
        };
        assert_eq!(
            told(&record, &then),
            ("variable READ, environment GONE, environment NEW, environment OTHER".to_owned(), 1),
            "one that is an input itself is named once, and crates come last"
        );
        let untold = "variable READ, environment , file <workspace>/liblow-1.rmeta";
        assert_eq!(told(&record, &[]), (untold.to_owned(), 0), "an older record has no list");
        // What differs is an input itself.
        here.env = vec![("GONE", "1"), ("OTHER", "1"), ("SAME", "1"), ("READ", "1")];
        let record = here.record(&[all, variable("READ")]);
        here.env[3].1 = "2";
        assert_eq!(here.told(std::slice::from_ref(&record)).len(), 2);
        let then = here.with(|e| variables::list(e, &record.members));
        let mut then: Vec<(&str, &str)> = then.iter().map(|(n, v)| (&**n, &**v)).collect();
        then.retain(|(name, _)| *name != "READ");
        then.push(("READ", "01234567"));
        let causes = here.causes(&[record], &then).named;
        assert_eq!(causes.iter().map(|c| &*c.kind).collect::<Vec<_>>(), ["variable"]);
    }

    #[test]
    fn a_package_is_called_by_what_holds_it() {
        let roots = Roots::from_pairs([
            ("workspace", PathBuf::from("/a/ws")),
            ("package", "/a/ws/low".into()),
            ("home", "/a".into()),
        ]);
        let show = |path: &str, roots: &Roots| shown(&TokenPath(path.into()), roots);
        assert_eq!(show("<package>/src/lib.rs", &roots), "<workspace>/low/src/lib.rs");
        assert_eq!(show("<target>/x", &roots), "<target>/x");
        let alone = Roots::from_pairs([("package", PathBuf::from("/b/low"))]);
        assert_eq!(show("<package>/src/lib.rs", &alone), "<package>/src/lib.rs");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let here = Here::new();
        let mut record = here.record(&[file("a")]);
        record.members = vec![Member::File(TokenPath("<cargo>/x".into()))];
        assert_eq!(here.told(&[record]), ["file <cargo>/x: absent > unreadable"]);
        assert_eq!(here.told(&[]), [""; 0]);
    }
}
