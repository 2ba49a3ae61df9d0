//! Results of build scripts that would be wrong in another checkout: what lies beside it, above it, or is
//! reached by a link or a place that names one checkout. Each was found by trying.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;
use std::path::Path;

use kiln_tests::direct::With;
use kiln_tests::project::Project;
use kiln_tests::script::Scripted;
use kiln_tests::world;

/// The workspace of a script, below the home, as most are.
fn at_home(p: &Scripted, name: &str) -> Project {
    p.project.copy_to(p.world.at("home/src").join(name).join("proj"))
}

/// Built twice, so that the second is a hit; then another checkout shows what it shows without Kiln.
#[track_caller]
fn follows(p: &Scripted, first: &Project, change: impl Fn() -> Project) {
    let shown = p.build_in(With::Kiln, first).text;
    assert_eq!(p.build_in(With::Kiln, first).text, shown);
    first.wipe();
    let other = change();
    let plain = p.build_in(With::Nothing, &other).text;
    assert_ne!(plain, shown, "the change has to show");
    assert_eq!(p.build_in(With::Kiln, &other).text, plain, "{}", p.why());
}

fn write(p: &Scripted, path: &str, text: &str) {
    let path = p.world.at(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A compiled program of this code, which has a buffer `b`.
fn compile(p: &Scripted, code: &str, to: &Path) {
    let source = p.world.at("tool.c");
    let text = format!(
        "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nstatic char b[4096];\n\
         int main() {{ {code} }}\n"
    );
    std::fs::write(&source, text).unwrap();
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let args = [source.to_str().unwrap(), "-o", to.to_str().unwrap()];
    p.world.call("/usr/bin/cc", p.world.root(), &args).run().ok();
}

const SHOW: &str = "FILE *f = fopen(b, \"r\"); if (!f) { puts(\"none\"); return 0; } \
                    b[fread(b, 1, 4095, f)] = 0; puts(b); return 0;";

/// HOME holds the checkout, too: it names the settings in it, not what lies beside the checkout.
#[test]
fn what_lies_beside_a_checkout_in_the_home() {
    let code = "var(\"HOME\"); read(at(\"\").ancestors().nth(2).unwrap().join(\"sibling/n\"))";
    let p = Scripted::new(world!(), code);
    write(&p, "home/src/one/sibling/n", "one");
    write(&p, "home/src/two/sibling/n", "two");
    follows(&p, &at_home(&p, "one"), || at_home(&p, "two"));
}

/// A submodule's commit is kept beside it, and git reads HOME.
#[test]
fn the_commit_of_a_submodule() {
    let code = "run(Command::new(\"git\").args([\"rev-parse\", \"HEAD\"]))";
    let p = Scripted::new(world!(), code);
    let git = |dir: &Project, args: &[&str]| {
        let user = ["-c", "user.name=a", "-c", "user.email=b"];
        p.world.call("/usr/bin/env", dir.dir(), &[&["git"], &user[..], args].concat()).run().ok();
    };
    let outer = |name: &str| Project::create(p.world.at("home/src").join(name));
    let (one, inner) = (outer("one"), at_home(&p, "one"));
    git(&inner, &["init", "-q"]);
    git(&inner, &["add", "-A"]);
    git(&inner, &["commit", "-qm", "first"]);
    one.write(".git/modules/x", "");
    std::fs::remove_file(one.at(".git/modules/x")).unwrap();
    std::fs::rename(inner.at(".git"), one.at(".git/modules/proj")).unwrap();
    inner.write(".git", "gitdir: ../.git/modules/proj\n");
    follows(&p, &inner, || {
        let two = one.copy_to(p.world.at("home/src/two"));
        let inner = Project::create(two.at("proj"));
        git(&inner, &["commit", "-q", "--allow-empty", "-m", "second"]);
        inner
    });
}

/// What holds a program's `bin` may hold the checkout as well.
#[test]
fn a_checkout_in_what_a_tool_was_installed_with() {
    let code = "run(&mut Command::new(\"gen\")) + \
                &read(at(\"\").ancestors().nth(3).unwrap().join(\"share/n\"))";
    let p = Scripted::new(world!(), code);
    compile(&p, "return 0;", &p.world.at("pre/bin/gen"));
    p.path_first(Some(p.world.at("pre/bin")));
    write(&p, "pre/share/n", "one");
    write(&p, "other/share/n", "two");
    let first = p.project.copy_to(p.world.at("pre/src/one"));
    follows(&p, &first, || p.project.copy_to(p.world.at("other/src/two")));
}

/// A tool of one checkout, linked into `~/.local/bin`, finds what lies beside it in that checkout.
#[test]
fn a_tool_of_one_checkout_that_is_linked_elsewhere() {
    let p = Scripted::new(world!(), "run(&mut Command::new(\"gen\"))");
    let one = at_home(&p, "one");
    let tail = format!(
        "b[readlink(\"/proc/self/exe\", b, 4000)] = 0; strcpy(strrchr(b, '/'), \"/data\"); {SHOW}"
    );
    compile(&p, &tail, &one.at("tools/gen"));
    one.write("tools/data", "one");
    let bin = p.world.at("home/.local/bin");
    std::fs::create_dir_all(&bin).unwrap();
    symlink(one.at("tools/gen"), bin.join("gen")).unwrap();
    p.path_first(Some(bin));
    follows(&p, &one, || {
        let two = one.copy_to(p.world.at("home/src/two/proj"));
        one.write("tools/data", "two");
        two
    });
}

/// The same by the text of a link.
#[test]
fn a_link_that_names_one_checkout() {
    let code = "read(fs::read_link(var(\"DATA\")).unwrap().join(\"n\"))";
    let p = Scripted::new(world!(), code);
    let one = at_home(&p, "one");
    one.write("data/n", "one");
    symlink(one.at("data"), p.world.at("home/data")).unwrap();
    p.set("DATA", p.world.at("home/data").to_str().unwrap());
    follows(&p, &one, || {
        let two = one.copy_to(p.world.at("home/src/two/proj"));
        one.write("data/n", "two");
        two
    });
}

/// A tool that was made for one checkout looks there, wherever its copy lies.
#[test]
fn a_tool_with_its_place_compiled_in() {
    let code = "run(&mut Command::new(at(\"\").parent().unwrap().join(\"tools/bin/gen\")))";
    let p = Scripted::new(world!(), code);
    let one = at_home(&p, "one");
    let head = format!(
        "static const char *volatile place = \"{}\"; strcpy(b, place); {SHOW}",
        one.at("tools/share/data").display()
    );
    compile(&p, &head, &one.at("tools/bin/gen"));
    one.write("tools/share/data", "one");
    follows(&p, &one, || {
        let two = one.copy_to(p.world.at("home/src/two/proj"));
        one.write("tools/share/data", "two");
        two
    });
}

/// A directory above that a shell finds in a variable: nobody sees it ask.
#[test]
fn a_directory_above_that_a_variable_of_a_shell_names() {
    let p = Scripted::new(
        world!(),
        "sh(\"if [ -L \\\"$PLACE\\\" ]; then echo link; else echo none; fi\")",
    );
    p.set("PLACE", p.world.at("home/src").to_str().unwrap());
    follows(&p, &at_home(&p, "one"), || {
        std::fs::remove_dir_all(p.world.at("home/src")).unwrap();
        symlink("elsewhere", p.world.at("home/src")).unwrap();
        p.project.copy_to(p.world.at("ws/other/two"))
    });
}

/// A directory above that stands in the script itself.
#[test]
fn a_directory_above_that_the_script_names() {
    let world = world!();
    let place = world.at("home/src").to_str().unwrap().to_owned();
    let p = Scripted::new(world, &format!("fs::symlink_metadata({place:?}).is_ok().to_string()"));
    follows(&p, &at_home(&p, "one"), || {
        std::fs::remove_dir_all(p.world.at("home/src")).unwrap();
        p.project.copy_to(p.world.at("ws/other/two"))
    });
}

/// The workspace holds the package, and is none of the directories above the checkout.
#[test]
fn the_mode_of_the_workspace() {
    use std::os::unix::fs::PermissionsExt;
    let code = "use std::os::unix::fs::PermissionsExt; let dir = at(\"\"); \
                format!(\"{:o}\", fs::symlink_metadata(dir.parent().unwrap()).unwrap().permissions().mode())";
    let p = Scripted::new(world!(), code);
    let one = at_home(&p, "one");
    follows(&p, &one, || {
        std::fs::set_permissions(one.dir(), PermissionsExt::from_mode(0o700)).unwrap();
        one.clone()
    });
}
