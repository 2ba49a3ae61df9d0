//! [`Image`]: the image of `deploy/Dockerfile`, built once for this process by buildah, without a registry and without an
//! engine. What it is based on comes from debootstrap and is kept for later runs, as is the image of the base stage; what
//! is copied into it are the programs that `KILN_TEST_PROGRAMS` names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kiln_tests::host::host;
use kiln_tests::project::files_below;
use serde_json::Value;

/// Where the head of a program ends, with the name of its loader.
const HEAD_BYTES: u64 = 4096;
const DEBIAN: &str = "localhost/kiln-debian";
const BASE: &str = "localhost/kiln-base";
const KILN: &str = "localhost/kiln";
/// What a runtime has to have in a root, to mount there.
const PLACES: [&str; 2] = ["proc", "etc/kiln"];
pub(crate) const RULES_DIR: &str = "/etc/kiln";
pub(crate) const RULES: &str = "/etc/kiln/trust.json";
pub(crate) const HOSTS: &str = "/etc/hosts";

/// The image, and its root in the file system.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) root: PathBuf,
    /// Its files, before a runtime made its places.
    pub(crate) files: Vec<PathBuf>,
    config: Value,
    // Held as long as this process lives: another one makes it anew.
    _lock: File,
}

impl Image {
    /// The one of this process; `tools` is a directory for what is made once. What is missing, otherwise.
    pub(crate) fn of(tools: &Path) -> Result<&'static Self, String> {
        static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
        let (programs, buildah) = (programs()?, program("buildah")?);
        program("debootstrap")?;
        let image = IMAGE.get_or_init(|| Self::make(tools, &programs, buildah));
        Ok(image.as_ref().unwrap_or_else(|why| panic!("the image cannot be built: {why}")))
    }

    fn make(tools: &Path, programs: &Path, buildah: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(tools).unwrap();
        let debian = host().debian.clone().unwrap_or_else(|| tools.join("debian-bookworm"));
        let place = debian.with_extension("images");
        std::fs::create_dir_all(&place).unwrap();
        let lock = File::create(place.join("lock")).unwrap();
        lock.lock().unwrap();
        debootstrap(&debian)?;
        let buildah = Buildah { program: buildah, place: place.clone() };
        // What an earlier run left.
        buildah.run(&["rm", "--all"])?;
        if buildah.run(&["images", "--quiet", DEBIAN]).is_err() {
            let base = buildah.run(&["from", "scratch"])?;
            buildah.run(&["add", "--quiet", &base, debian.to_str().unwrap(), "/"])?;
            buildah.run(&["commit", "--quiet", "--rm", &base, DEBIAN])?;
        }
        let context = place.join("context");
        let _ = std::fs::remove_dir_all(&context);
        std::fs::create_dir_all(context.join("programs")).unwrap();
        for name in ["kiln", "kiln-server"] {
            let to = context.join("programs").join(name);
            std::fs::copy(programs.join(name), &to).unwrap();
            std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        }
        // By layers, which are kept: the network is asked once. The rest without: each layer is a copy of all there is.
        buildah.build(&["--layers", "--target", "base", "--tag", BASE], &context)?;
        let base = format!("base=container-image://{BASE}");
        buildah.build(&["--build-context", &base, "--tag", KILN], &context)?;
        // The layer of the base stage has a name, and stays; the others would pile up.
        buildah.run(&["rm", "--all"])?;
        buildah.run(&["rmi", "--prune"])?;
        let _ = std::fs::remove_dir_all(&context);
        let told = buildah.run(&["inspect", "--type", "image", KILN])?;
        let told: Value = serde_json::from_str(&told).unwrap();
        let container = buildah.run(&["from", "--pull-never", KILN])?;
        let root = PathBuf::from(buildah.run(&["mount", &container])?);
        let files = files_below(&root);
        for dir in PLACES {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        File::create(format!("{}{HOSTS}", root.display())).unwrap();
        let config = told["Docker"]["config"].clone();
        Ok(Self { root, files, config, _lock: lock })
    }

    /// A setting of it, by its name.
    pub(crate) fn says(&self, name: &str) -> &Value {
        &self.config[name]
    }

    /// Texts of a setting that is a list.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        serde_json::from_value(self.config[name].clone()).unwrap()
    }
}

/// The directory with static programs.
fn programs() -> Result<PathBuf, String> {
    let why = "KILN_TEST_PROGRAMS names no directory with static programs kiln and kiln-server: \
               `rustup target add x86_64-unknown-linux-musl`, `cargo build --target x86_64-unknown-linux-musl \
               --bin kiln --bin kiln-server`, and it is target/x86_64-unknown-linux-musl/debug";
    if !host().is_root {
        return Err("only root makes images and containers here".to_owned());
    }
    let dir = host().programs.clone().ok_or(why)?;
    for name in ["kiln", "kiln-server"] {
        let mut head = Vec::new();
        let file = File::open(dir.join(name)).map_err(|_| why)?;
        file.take(HEAD_BYTES).read_to_end(&mut head).unwrap();
        // What is linked dynamically names its loader there, and does not run on nothing.
        if head.windows(9).any(|part| part == b"/ld-linux") {
            return Err(format!("{} is not static: {why}", dir.join(name).display()));
        }
    }
    Ok(dir)
}

/// A program of an administrator.
fn program(name: &str) -> Result<PathBuf, String> {
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&host().path).chain(more).map(|dir| dir.join(name));
    let found = dirs.into_iter().find(|program| program.is_file());
    found.ok_or_else(|| format!("{name} is not installed: `apt-get install buildah debootstrap`"))
}

/// Has the root of a small Debian, made where it is not there.
fn debootstrap(debian: &Path) -> Result<(), String> {
    if debian.exists() {
        return Ok(());
    }
    let unfinished = debian.with_extension("unfinished");
    let _ = std::fs::remove_dir_all(&unfinished);
    let mut make = Command::new(program("debootstrap")?);
    run(make.args(["--variant=minbase", "bookworm"]).arg(&unfinished).env("PATH", path()))?;
    std::fs::rename(&unfinished, debian).map_err(|error| error.to_string())
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", host().path.to_string_lossy())
}

struct Buildah {
    program: PathBuf,
    place: PathBuf,
}

impl Buildah {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Storage of its own, without an overlay and without an engine: that works within containers, too.
        command.args(["--storage-driver", "vfs"]);
        command.args(["--root".as_ref(), self.place.join("storage").as_os_str()]);
        command.args(["--runroot".as_ref(), self.place.join("run").as_os_str()]);
        command.env_clear().env("PATH", path()).env("HOME", &self.place);
        command.env("BUILDAH_ISOLATION", "chroot");
        command.envs(host().network.iter().cloned());
        command
    }

    fn run(&self, args: &[&str]) -> Result<String, String> {
        run(self.command().args(args))
    }

    /// A build of the Dockerfile with programs that are built.
    fn build(&self, args: &[&str], context: &Path) -> Result<String, String> {
        let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/Dockerfile");
        let mut command = self.command();
        command.args(["build", "--quiet", "--format", "docker", "--file"]).arg(dockerfile);
        command.args(["--build-arg", &format!("BASE={DEBIAN}"), "--build-arg", "PROGRAMS=built"]);
        run(command.args(args).arg(context))
    }
}

/// What a program says; what it said, when it fails.
fn run(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    match done.status.success() {
        true => Ok(said),
        false => Err(format!("{command:?}: {said} {}", String::from_utf8_lossy(&done.stderr))),
    }
}
