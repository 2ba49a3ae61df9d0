//! Fronts put in the place of programs, and run.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};

use super::*;

/// Says what it was called with, a line for each argument.
const KILN: &str = "#!/bin/sh\necho kiln\nfor word; do printf '%s\\n' \"$word\"; done\n";
const NAME: &str = "build_script_build-0123456789abcdef";
const CARGO_NAME: &str = "build-script-build";

/// A build directory with a shell for a build script, and a `kiln` beside it.
struct Place {
    dir: tempfile::TempDir,
    kiln: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self { kiln: dir.path().join("bin/kiln"), dir };
        std::fs::create_dir(place.at("bin")).unwrap();
        std::fs::create_dir(place.at("build")).unwrap();
        program(&place.kiln, KILN);
        place.compile();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn script(&self) -> PathBuf {
        self.at("build").join(NAME)
    }

    fn real(&self) -> PathBuf {
        self.at("build").join(format!("{NAME}{REAL}"))
    }

    /// What a linker does: the old file goes, a new one comes. The program is a shell.
    fn compile(&self) {
        let _ = std::fs::remove_file(self.script());
        std::fs::copy("/bin/sh", self.script()).unwrap();
    }

    /// What cargo does after a compile.
    fn link(&self) {
        let _ = std::fs::remove_file(self.at("build").join(CARGO_NAME));
        std::fs::hard_link(self.script(), self.at("build").join(CARGO_NAME)).unwrap();
    }

    fn put(&self) -> io::Result<PathBuf> {
        put(&self.env(&self.kiln), &self.script())
    }

    fn env(&self, kiln: &Path) -> Env {
        let mut env = Env::of_pairs([("RUSTC_WRAPPER", "/usr/bin/my-wrapper")]);
        env.program = Some(kiln.to_owned());
        env
    }

    fn names(&self) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(self.at("build"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    /// Runs the build script as cargo does, with some variables alone.
    fn command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.script());
        command.env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
        command
    }

    fn run(&self, variables: &[(&str, &str)], script: &str) -> Output {
        output(self.command(variables).args(["-c", script]))
    }
}

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Starts a program. Another test that starts one meanwhile holds the files that this one has just
/// written, until its own `exec`.
fn spawn(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::yield_now();
            }
            child => return child.unwrap(),
        }
    }
}

fn output(command: &mut Command) -> Output {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap()
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

const WITH_KILN: &[(&str, &str)] = &[("RUSTC_WRAPPER", "kiln")];
const WITHOUT: &[(&str, &str)] = &[];

#[test]
fn build_scripts_are_told_from_other_programs() {
    let line = "build.rs --crate-name build_script_build --crate-type bin --emit=dep-info,link \
                --out-dir /t/build/p-1 -Cextra-filename=-1";
    let cargo = [("CARGO_MANIFEST_DIR", "/p"), ("CARGO_CRATE_NAME", "build_script_build")];
    let check = |line: &str, variables: &[(&str, &str)]| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let env = Env::of_pairs(variables.iter().copied());
        is_script(&crate::args::parse(&words).unwrap(), &env)
    };
    assert!(check(line, &cargo));
    assert!(check(&line.replace("build_script_build", "build_script_main"), &cargo));
    for (from, to) in [
        ("build_script_build", "build_script"),
        ("build_script_build", "app"),
        ("--crate-type bin", "--crate-type lib"),
        ("--crate-type bin", "--crate-type bin --crate-type lib"),
        ("--crate-type bin", "--crate-type bin --test"),
        ("--crate-type bin", "--crate-type bin --cfg test"),
        ("--crate-type bin", "--crate-type bin --target aarch64-unknown-linux-gnu"),
        ("dep-info,link", "dep-info,metadata"),
        ("--out-dir /t/build/p-1", ""),
        ("--emit=dep-info,link --out-dir /t/build/p-1", "-o /t/build_script_build"),
    ] {
        let other = line.replace(from, to);
        assert_ne!(other, line);
        assert!(!check(&other, &cargo), "{other}");
    }
    assert!(!check(line, &[]));
    assert!(!check(line, &[cargo[0], ("CARGO_BIN_NAME", "build_script_build")]));
}

#[test]
fn a_run_is_handed_to_kiln() {
    let place = Place::new();
    place.put().unwrap();
    let odd = OsStr::from_bytes(b"\xff\xfe \n x");
    let mut command = place.command(&[("RUSTC_WRAPPER", "/usr/bin/my-wrapper")]);
    let run = output(command.arg0("called so").args([odd, OsStr::new("")]));
    let real = place.real();
    let mut expected = b"kiln\nrun-build-script\n".to_vec();
    for word in [real.as_os_str(), OsStr::new("called so"), odd, OsStr::new("")] {
        expected.extend(word.as_bytes());
        expected.push(b'\n');
    }
    assert_eq!(run.stdout, expected);
    assert!(run.status.success() && run.stderr.is_empty());
    assert_eq!(text(&output(&mut place.command(WITH_KILN))).lines().next(), Some("kiln"));
}

#[test]
fn the_real_program_runs_when_kiln_is_not_wanted() {
    let place = Place::new();
    place.put().unwrap();
    let wrapper = WITH_KILN[0];
    for variables in [
        vec![],
        vec![("RUSTC_WRAPPER", "")],
        vec![("RUSTC_WRAPPER", "sccache")],
        vec![("NOT_RUSTC_WRAPPER", "kiln")],
        vec![wrapper, ("KILN_BUILD_SCRIPTS", "off")],
        vec![wrapper, ("KILN_MODE", "off")],
    ] {
        assert_eq!(text(&place.run(&variables, "echo real")), "real\n", "{variables:?}");
    }
}

#[test]
fn the_real_program_runs_when_kiln_is_gone_or_cannot_run() {
    let place = Place::new();
    place.put().unwrap();
    assert!(text(&place.run(WITH_KILN, "echo real")).starts_with("kiln\n"));
    std::fs::set_permissions(&place.kiln, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(text(&place.run(WITH_KILN, "echo real")), "real\n");
    program(&place.kiln, "\u{1}not a program");
    assert_eq!(text(&place.run(WITH_KILN, "echo real")), "real\n");
    program(&place.kiln, KILN);
    let writer = OpenOptions::new().append(true).open(&place.kiln).unwrap();
    assert_eq!(text(&place.run(WITH_KILN, "echo real")), "real\n");
    drop(writer);
    std::fs::remove_file(&place.kiln).unwrap();
    assert_eq!(text(&place.run(WITH_KILN, "echo real")), "real\n");
}

/// More arguments than are handed on: the real program runs, with all of them.
#[test]
fn many_arguments() {
    let place = Place::new();
    place.put().unwrap();
    let most = kiln_front::start::MAX_ARGUMENTS;
    for (count, lines) in [(most - 1, most + 3), (most, 1)] {
        let mut command = place.command(WITH_KILN);
        command.args(["-c", "echo $#", "name"]).args(vec!["x"; count - 3]);
        let run = output(&mut command);
        assert_eq!(text(&run).lines().count(), lines, "{count}: {}", text(&run));
    }
}

/// Process, name, arguments, variables, directory, input, status and signals are what they would be.
#[test]
fn nothing_stands_between_cargo_and_the_program() {
    let place = Place::new();
    place.put().unwrap();
    let script = "cat /proc/$$/cmdline; exit 0";
    let path = ("PATH", "/usr/bin:/bin");
    let mut command = place.command(&[path]);
    let odd = OsStr::from_bytes(b"\xff \n");
    let run = output(command.arg0("called so").args(["-c", script, "name"]).arg(odd));
    let expected = format!("called so\0-c\0{script}\0name\0");
    assert_eq!(run.stdout, [expected.as_bytes(), b"\xff \n\0"].concat());

    let run = place.run(&[path, ("KILN_MODE", "read"), ("A", "b c")], "cat /proc/$$/environ; :");
    let mut variables: Vec<_> = text(&run).split_terminator('\0').collect();
    variables.sort_unstable();
    assert_eq!(variables, ["A=b c", "KILN_MODE=read", "PATH=/usr/bin:/bin"]);

    let mut command = place.command(&[path]);
    command.args(["-c", "pwd; cat; echo $$"]).current_dir("/").stdin(Stdio::piped());
    let mut child = spawn(command.stdout(Stdio::piped()));
    child.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let expected = format!("/\ninput\n{}\n", child.id());
    assert_eq!(text(&child.wait_with_output().unwrap()), expected);

    assert_eq!(place.run(WITHOUT, "exit 7").status.code(), Some(7));
    assert_eq!(place.run(WITHOUT, "kill -TERM $$").status.signal(), Some(15));
    program(&place.kiln, "#!/bin/sh\nkill -KILL $$\n");
    assert_eq!(place.run(WITH_KILN, "exit 7").status.signal(), Some(9));
}

#[test]
fn a_real_program_that_is_gone_or_busy_is_named() {
    let place = Place::new();
    place.put().unwrap();
    let told = |variables: &[(&str, &str)]| {
        let run = place.run(variables, "echo real");
        assert!(run.stdout.is_empty());
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let fact = "kiln: error: the program of this build script cannot be run";
    let real = place.real();
    let writer = OpenOptions::new().append(true).open(&real).unwrap();
    let hint = "`cargo clean -p PACKAGE` makes cargo compile it again";
    let expected = format!("{fact}: {}: error 26\n  hint: {hint}\n", real.display());
    assert_eq!(told(WITHOUT), (Some(126), expected));
    drop(writer);
    std::fs::remove_file(&real).unwrap();
    let hint = "`cargo clean -p libx-sys` makes cargo compile it again";
    let expected = format!("{fact}: {}: error 2\n  hint: {hint}\n", real.display());
    assert_eq!(told(&[("CARGO_PKG_NAME", "libx-sys")]), (Some(127), expected));
    assert_eq!(real_of(&place.script()), None);
    assert_eq!(place.put().unwrap_err().kind(), io::ErrorKind::NotFound, "never its own program");
}

#[test]
fn a_front_that_nobody_filled_in_ends() {
    let place = Place::new();
    std::fs::remove_file(place.script()).unwrap();
    std::fs::write(place.script(), FRONT).unwrap();
    std::fs::set_permissions(place.script(), PermissionsExt::from_mode(0o755)).unwrap();
    let run = place.run(WITH_KILN, "echo real");
    assert_eq!((run.status.code(), text(&run)), (Some(127), ""));
    assert_eq!(real_of(&place.script()), None);
}

/// Cargo's own name for the program is a link to it. Neither is ever written into.
#[test]
fn links_of_the_program_stay_what_they_are() {
    let place = Place::new();
    place.link();
    let linked = place.at("build").join(CARGO_NAME);
    let (inode, bytes) = (linked.metadata().unwrap().ino(), std::fs::read(&linked).unwrap());
    place.put().unwrap();
    assert_eq!(linked.metadata().unwrap().ino(), inode);
    assert_eq!(std::fs::read(&linked).unwrap(), bytes);
    assert_eq!(std::fs::read(place.real()).unwrap(), bytes);
    assert_eq!(real_of(&linked), None);

    place.link();
    let front = std::fs::read(&linked).unwrap();
    assert_eq!(front.len(), FRONT.len());
    assert_eq!(real_of(&linked), Some(place.real()));
    assert_eq!(real_of(&place.script()), Some(place.real()));
    let by_cargo = output(Command::new(&linked).env_clear().env("RUSTC_WRAPPER", "kiln"));
    assert!(text(&by_cargo).contains(place.real().to_str().unwrap()));

    // Compiled again: the front that cargo still has a name for runs the old program until then.
    std::fs::remove_file(place.script()).unwrap();
    program(&place.script(), "#!/bin/sh\necho new\n");
    assert_eq!(text(&output(Command::new(&linked).args(["-c", "echo old"]).env_clear())), "old\n");
    place.put().unwrap();
    assert_eq!(std::fs::read(&linked).unwrap(), front);
    assert_eq!(text(&place.run(WITHOUT, "echo old")), "new\n");
    assert_eq!(place.names(), [CARGO_NAME, NAME, &format!("{NAME}{REAL}")]);
}

#[test]
fn a_front_is_never_put_before_a_front() {
    let place = Place::new();
    place.put().unwrap();
    std::fs::remove_file(&place.kiln).unwrap();
    let other = place.at("other kiln");
    program(&other, KILN);
    put(&place.env(&other), &place.script()).unwrap();
    assert!(text(&place.run(&[("RUSTC_WRAPPER", "/usr/bin/my-wrapper")], "")).starts_with("kiln"));
    assert_eq!(text(&place.run(WITHOUT, "echo real")), "real\n");
    assert_eq!(place.names(), [NAME, &format!("{NAME}{REAL}")]);
}

/// An earlier attempt ended between its two renames.
#[test]
fn a_real_program_that_is_a_link_already() {
    let place = Place::new();
    std::fs::hard_link(place.script(), place.real()).unwrap();
    place.put().unwrap();
    assert_eq!(text(&place.run(WITHOUT, "echo real")), "real\n");
    assert_eq!(place.names(), [NAME, &format!("{NAME}{REAL}")]);
}

#[test]
fn modes_are_those_of_new_programs() {
    let place = Place::new();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o777).open(place.at("new")).unwrap();
    let before = place.script().metadata().unwrap();
    place.put().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode();
    assert_eq!(mode(&place.script()), mode(&place.at("new")));
    assert_eq!(mode(&place.real()), before.mode());
    assert_eq!(place.real().metadata().unwrap().ino(), before.ino());
}

#[test]
fn what_fails_changes_nothing() {
    let place = Place::new();
    let before = place.script().metadata().unwrap();
    let check = |result: io::Result<PathBuf>, kind: Option<io::ErrorKind>, names: &[&str]| {
        let error = result.unwrap_err();
        assert!(kind.is_none_or(|kind| kind == error.kind()), "{error:?}");
        assert_eq!(place.names(), names);
        assert_eq!(place.script().metadata().unwrap().ino(), before.ino());
        assert_eq!(text(&place.run(WITHOUT, "echo real")), "real\n");
    };
    let unsupported = Some(io::ErrorKind::Unsupported);
    let nowhere = Env::default();
    check(put(&nowhere, &place.script()), unsupported, &[NAME]);
    let far = PathBuf::from(format!("/{}", "k".repeat(1023)));
    check(put(&place.env(&far), &place.script()), unsupported, &[NAME]);

    let real = format!("{NAME}{REAL}");
    std::fs::create_dir(place.real()).unwrap();
    check(place.put(), None, &[NAME, &real]);
    std::fs::remove_dir(place.real()).unwrap();

    symlink(place.script(), place.at("build/link")).unwrap();
    check(put(&place.env(&place.kiln), &place.at("build/link")), unsupported, &[NAME, "link"]);
    std::fs::remove_file(place.at("build/link")).unwrap();
    let missing = put(&place.env(&place.kiln), &place.at("build/missing"));
    check(missing, Some(io::ErrorKind::NotFound), &[NAME]);
}

/// Longest path of Kiln, and longest name of a program.
#[test]
fn names_at_their_bounds() {
    let place = Place::new();
    let mut kiln = place.at("d");
    while kiln.as_os_str().len() < 1023 - 210 {
        kiln.push("d".repeat(100));
    }
    std::fs::create_dir_all(&kiln).unwrap();
    kiln.push("k".repeat(1023 - 1 - kiln.as_os_str().len()));
    assert_eq!(kiln.as_os_str().len(), 1023);
    program(&kiln, KILN);
    put(&place.env(&kiln), &place.script()).unwrap();
    let variables = &[("RUSTC_WRAPPER", kiln.file_name().unwrap().to_str().unwrap())];
    assert!(text(&place.run(variables, "")).starts_with("kiln\n"));

    let named = |len: usize| {
        let path = place.at("build").join("n".repeat(len));
        std::fs::copy("/bin/sh", &path).unwrap();
        (put(&place.env(&place.kiln), &path), path)
    };
    let (result, path) = named(250);
    result.unwrap();
    let run = output(Command::new(&path).args(["-c", "echo real"]).env_clear());
    assert_eq!(text(&run), "real\n");
    let names = place.names().len();
    let (result, path) = named(251);
    result.unwrap_err();
    assert_eq!(place.names().len(), names + 1, "the program alone");
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read("/bin/sh").unwrap());
}
