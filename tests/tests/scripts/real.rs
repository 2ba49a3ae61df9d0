//! Theme: build scripts of published packages. Five of them compile C libraries, others run the compiler or
//! look at the machine; each runs once, and then no more.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_tests::left::{Tree, built_in, outputs_in};
use kiln_tests::native::{COMPILING, Native};
use kiln_tests::project::copy_tree;
use kiln_tests::tools::ToolRun;
use kiln_tests::{Call, Done, Project, World, skip, world};

/// How the program is built.
#[derive(Clone, Copy)]
struct Way {
    args: &'static [&'static str],
    profile: &'static str,
}

const DEV: Way = Way { args: &["build"], profile: "debug" };
const RELEASE: Way = Way { args: &["build", "--release"], profile: "release" };

/// The program after its first build, with what that left.
struct Story {
    world: World,
    native: Native,
    way: Way,
    home: PathBuf,
    trees: Tree,
    printed: BTreeMap<String, String>,
    shown: String,
}

impl Story {
    /// Builds it for the first time: every script runs, C is compiled.
    fn begin(world: World, native: Native, way: Way) -> Self {
        let home = world.cargo_home();
        let (trees, printed, shown) = Default::default();
        let mut story = Self { world, native, way, home, trees, printed, shown };
        let project = story.native.project.clone();
        story.cargo(&project, way.args).run().ok();
        let scripts = story.native.tally.take();
        for name in COMPILING.iter().chain(&["serde", "libc", "anyhow", "rustix"]) {
            assert!(scripts.iter().any(|script| script == name), "{name}: {scripts:?}");
        }
        let tools = story.native.tools.take();
        for tool in ["cc", "ar"] {
            let runs = tools.iter().filter(|run| run.program == tool).count();
            assert!(runs >= COMPILING.len(), "{tool}: {runs}");
        }
        (story.trees, story.printed) = story.left(&project);
        story.shown = story.native.prints(&story.world, &project, way.profile);
        assert!(story.shown.contains("sqlite 3.") && story.shown.contains("git 1."));
        story
    }

    fn cargo(&self, project: &Project, args: &[&str]) -> Call {
        self.native.cargo(&self.world, project, args).env("CARGO_HOME", &self.home)
    }

    /// Builds again: what is not as it should be. Nothing runs; all is as the first build left it; and
    /// cargo finds nothing to do behind it.
    fn again(&self, project: &Project, what: &str) -> Vec<String> {
        let done = self.cargo(project, self.way.args).run().ok();
        let mut found = self.ran(&done);
        let shown = self.native.prints(&self.world, project, self.way.profile);
        if shown != self.shown {
            found.push(format!("the program prints {shown}"));
        }
        let (trees, printed) = self.left(project);
        found.extend(differences(&self.trees, &trees));
        found.extend(differences(&self.printed, &printed));
        let args = [self.way.args, &["-v"]].concat();
        let next = self.cargo(project, &args).run().ok();
        let works = |l: &&str| {
            ["Compiling", "Dirty", "Running"].iter().any(|w| l.trim_start().starts_with(w))
        };
        found.extend(next.stderr.lines().filter(works).map(|l| format!("the next build: {l}")));
        found.extend(self.ran(&next));
        found.into_iter().map(|line| format!("{what}: {line}")).collect()
    }

    /// What ran in a build in which nothing should have: scripts, tools, compilers, questions to a
    /// compiler; and why, as Kiln says.
    fn ran(&self, done: &Done) -> Vec<String> {
        let scripts = self.native.tally.take().into_iter().map(|name| format!("script of {name}"));
        let tools = self.native.tools.take().into_iter();
        let words =
            |run: ToolRun| format!("{} in {}: {}", run.program, run.cwd, run.args.join(" "));
        let tools = tools.map(words);
        let by_rustc = done.runs.iter().filter(|run| run.is_compile() || run.of_build_script);
        let by_rustc = by_rustc.map(|run| format!("{} {}", run.program, run.args.join(" ")));
        let mut found: Vec<String> = scripts.chain(tools).chain(by_rustc).collect();
        if !found.is_empty() {
            let stats = self.world.stats();
            let missed = stats["missed"].as_array().into_iter().flatten();
            found.extend(missed.map(|m| format!("missed {} {}", m["unit"], m["reason"])));
            let explained = self.world.kiln(&["explain"]).run().stdout;
            found.extend(explained.lines().map(|line| format!("explained {line}")));
            let pinned = stats["pinned"].as_array().into_iter().flatten();
            found.extend(pinned.map(|p| format!("pinned {} {}", p["unit"], p["by"])));
        }
        found
    }

    /// All that scripts left and printed, the latter with words in place of places.
    fn left(&self, project: &Project) -> (Tree, BTreeMap<String, String>) {
        let (place, home) = (project.dir().to_str().unwrap(), self.home.to_str().unwrap());
        let words = |text: String| text.replace(place, "<ws>").replace(home, "<home>");
        let printed = outputs_in(project, self.way.profile).into_iter();
        let printed = printed.map(|(name, text)| (name, words(text)));
        (built_in(project, self.way.profile, true), printed.collect())
    }
}

/// Names that are not in both, or stand for something else.
fn differences<T: PartialEq>(one: &BTreeMap<String, T>, two: &BTreeMap<String, T>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let differ = names.into_iter().filter(|name| one.get(*name) != two.get(*name));
    differ.map(|name| format!("other than at first: {name}")).collect()
}

fn check(way: Way) {
    let world = world!();
    let native = match Native::open(&world) {
        Ok(native) => native,
        Err(why) => skip!("{why}"),
    };
    let mut story = Story::begin(world, native, way);
    let one = story.native.project.clone();
    one.wipe();
    let mut found = story.again(&one, "the same again");
    let mut clean = vec!["clean", "-p", "libsqlite3-sys"];
    clean.extend((way.profile == "release").then_some("--release"));
    story.cargo(&one, &clean).run().ok();
    found.extend(story.again(&one, "one package is cleaned"));
    one.wipe();
    let two = one.copy_to(story.world.at("ws/far/er/two"));
    found.extend(story.again(&two, "in another checkout"));
    two.wipe();
    let home = story.world.at("other/cargo-home");
    copy_tree(&story.home, &home, &[]);
    story.home = home;
    // Its script bakes the place of its sources: elsewhere it is another program.
    let is_baked = |line: &String| line.contains("libsqlite3-sys") || line.contains(": explained ");
    let of_home = story.again(&two, "with another home of cargo");
    found.extend(of_home.into_iter().filter(|line| !is_baked(line)));
    let short = |line: &String| line.chars().take(400).collect::<String>() + "\n";
    assert!(found.is_empty(), "{}", found.iter().map(short).collect::<String>());
}

#[test]
fn dev() {
    check(DEV);
}

#[test]
#[ignore = "minutes; .ci/run --full"]
fn release() {
    check(RELEASE);
}
