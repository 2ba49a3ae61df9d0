//! [`contained`]: a program in a root of its own, as a runtime of containers starts it; and [`Root`], one that is made of
//! what this machine has. Only root may start such.

use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::call::Call;
use crate::host::{SYSTEM_PATH, host};
use crate::project::Project;
use crate::world::World;

/// What a [`Root`] has of the system, as it is here.
const SYSTEM: [&str; 7] = ["bin", "dev", "etc", "lib", "lib64", "sbin", "usr"];
/// Where a [`Root`] has the directory with Kiln's program.
const KILN: &str = "/opt/kiln";

/// Why no container can be started here, if so.
///
/// # Errors
/// Why.
pub fn possible() -> Result<(), String> {
    if !host().is_root {
        return Err("only root starts containers here".into());
    }
    let tried = apart(&["/bin/true"]).run();
    match tried.status.success() {
        true => Ok(()),
        false => Err(format!("unshare: {}", tried.stderr.trim())),
    }
}

/// A program with mounts and processes of its own, which end with the call.
fn apart(words: &[&str]) -> Call {
    let apart = ["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"];
    Call::new(Path::new("/usr/bin/unshare"), Path::new("/"), &apart).args(words)
}

/// A call that starts what its further arguments say in a root that is read-only, as `UID:GID`. `places` are mounted in
/// it (`FROM:TO`, `FROM:TO:ro`), and have to be there; `contain` is the program of this name.
pub fn contained(contain: &str, user: &str, root: &Path, places: &[String]) -> Call {
    apart(&[contain, user]).args(&[root]).args(places).args(&["--"])
}

/// A root with the system and the toolchain of this machine and an empty `/tmp`, for one user, whose home is a [`World`].
#[derive(Debug)]
pub struct Root {
    dir: TempDir,
    user: u32,
    home: String,
    places: Vec<String>,
}

impl Root {
    /// The root for a user with a home at this place.
    pub fn new(world: &World, user: u32, home: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("kr").tempdir_in(&host().tmp);
        let dir = dir.expect("a temporary directory");
        let mut root = Self { dir, user, home: home.to_owned(), places: Vec::new() };
        std::fs::create_dir_all(root.at("proc")).expect("a directory");
        for name in SYSTEM {
            let here = Path::new("/").join(name);
            match std::fs::read_link(&here) {
                Ok(link) => symlink(link, root.at(name)).expect("a link"),
                Err(_) if here.is_dir() => root.place(&here, &format!("/{name}")),
                Err(_) => {}
            }
        }
        let temporary = root.dir.path().join("tmp");
        std::fs::create_dir(&temporary).expect("a directory");
        let open = PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(&temporary, open).expect("a mode");
        root.place(&temporary, "/tmp");
        // Where the stand-ins look for it.
        let toolchain = host().toolchain.parent().expect("a directory");
        root.place(toolchain, toolchain.to_str().expect("UTF-8"));
        root.place(world.programs.kiln.parent().expect("a directory"), KILN);
        root.place(world.root(), home);
        root
    }

    /// The same with a directory of this machine at another place in it.
    #[must_use]
    pub fn with(mut self, from: &Path, to: &str) -> Self {
        self.place(from, to);
        self
    }

    /// Writes a file that the root itself has.
    pub fn write(&self, path: &str, content: &str) {
        Project::create(self.at("")).write(&path[1..], content);
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn place(&mut self, from: &Path, to: &str) {
        std::fs::create_dir_all(self.at(&to[1..])).expect("a directory");
        self.places.push(format!("{}:{to}", from.display()));
    }

    /// A call of a shell with a script in a directory of the root. What is in the world by now is the user's. The
    /// variables are those of [`World::call`], as they are there.
    pub fn shell(&self, contain: &str, world: &World, (dir, script): (&str, &str)) -> Call {
        own(world.root(), self.user);
        let user = format!("{0}:{0}", self.user);
        let call = contained(contain, &user, &self.at(""), &self.places).log(world.log_path());
        let call = call.args(&["/usr/bin/env", "-C", dir, "/bin/sh", "-ec", script]);
        let home = &self.home;
        let program = world.programs.kiln.file_name().expect("a name").to_str().expect("UTF-8");
        let path = format!("{home}/bin:{}:{SYSTEM_PATH}", host().toolchain.display());
        call.envs(&[
            ("HOME", home),
            ("CARGO_HOME", &format!("{home}/cargo")),
            ("KILN_DIR", &format!("{home}/k")),
            ("RUSTC", &format!("{home}/bin/rustc")),
            ("RUSTC_WRAPPER", &format!("{KILN}/{program}")),
            ("PATH", &path),
            ("CARGO_INCREMENTAL", "0"),
            ("CARGO_NET_OFFLINE", "true"),
        ])
    }
}

/// Gives a tree to a user.
fn own(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            own(&entry.expect("an entry").path(), user);
        }
    }
}
