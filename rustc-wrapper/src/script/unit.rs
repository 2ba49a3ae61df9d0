//! What a run of a build script is called: its unit key, its roots, its name.
//!
//! The key holds what is known before anything is read: the program by content, its arguments, the
//! package, the target, the place of OUT_DIR below the target directory. Variables are no part of it: which
//! of them the script reads is observed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_storage::parts::PROGRAM;
use kiln_storage::record::{UnitName, UnitPart};

use super::{Program, Run};
use crate::args::Bypass;
use crate::config::{Config, Paths};
use crate::engine::{Engine, Place};
use crate::env::Env;
use crate::memo::Memo;
use crate::roots::{Places, Roots, find_target};
use crate::unit::{Named, parts};

/// What kind of unit a run is.
pub(crate) const KIND: &str = "build-script run";
/// Most directories that are looked through for the one that holds all packages.
const MAX_ABOVE: usize = 24;

/// What people call the run.
pub fn name(env: &Env) -> UnitName {
    UnitName {
        crate_name: env.text("CARGO_PKG_NAME").unwrap_or("build_script_build").to_owned(),
        version: env.text("CARGO_PKG_VERSION").unwrap_or("").to_owned(),
        kind: KIND.to_owned(),
        target: env.text("TARGET").unwrap_or("host").to_owned(),
    }
}

/// The directory that holds a package and what belongs to it: the repository, else the workspace.
fn workspace(package: &Path) -> Option<PathBuf> {
    let above = || package.ancestors().take(MAX_ABOVE);
    let with = |name: &str| above().find(|dir| dir.join(name).exists());
    with(".git").or_else(|| with("Cargo.lock")).map(Path::to_owned)
}

/// Understands a run of a script: everything up to the unit.
pub(super) fn open<'a>(
    env: &'a Env,
    config: &'a Config,
    dir: &'a Path,
    program: Program,
) -> Result<Run<'a>, Bypass> {
    let clock = Instant::now();
    let missing = |name: &str| Bypass::new("not-from-cargo", format!("{name} is not set"));
    let path = |name: &str| env.absolute(name).ok_or_else(|| missing(name));
    let (out, package) = (path("OUT_DIR")?, path("CARGO_MANIFEST_DIR")?);
    let cwd = env.cwd.clone().ok_or_else(|| Bypass::new("no-working-directory", ""))?;
    for path in [&out, &package, &cwd, &program.real] {
        let odd = || Bypass::new("non-utf8-path", path.to_string_lossy());
        path.to_str().ok_or_else(odd)?;
    }
    let places = Places {
        workspace: workspace(&package).filter(|place| *place != package),
        target: Some(find_target(&out, env.text("TARGET"))),
        sysroot: None,
        out: Some(out.clone()),
    };
    let roots = Roots::new(env, places);
    if roots.place("out").is_none() {
        return Err(Bypass::new("odd-out-dir", out.to_string_lossy()));
    }
    let memo = Memo::open(dir);
    let real_out =
        out.canonicalize().map_err(|_| Bypass::new("odd-out-dir", out.to_string_lossy()))?;
    let mut parts = list(env, config, (&roots, &memo, &cwd), &program)?;
    // A script may take the profile from it, or what else cargo makes it of.
    let below = roots.place("target").and_then(|target| out.strip_prefix(target).ok());
    let below = below.unwrap_or(&out).to_string_lossy().into_owned();
    parts.push(UnitPart {
        group: parts::OUTPUT_DIRECTORY.to_owned(),
        name: String::new(),
        value: Some(below),
    });
    let named = Named { name: name(env), key: parts::key(&parts), parts };
    let engine = Engine::new(env, config, dir, Place { cwd, roots, named, memo }, clock);
    Ok(Run { engine, program, out, real_out })
}

/// The parts of the key.
fn list(
    env: &Env,
    config: &Config,
    (roots, memo, cwd): (&Roots, &Memo, &Path),
    program: &Program,
) -> Result<Vec<UnitPart>, Bypass> {
    let content = memo.digest(&program.real);
    let (content, _) = content.map_err(|error| Bypass::new("unknown-tool", error.to_string()))?;
    let part = |group: &str, name: &str, value: Option<String>| UnitPart {
        group: group.to_owned(),
        name: name.to_owned(),
        value,
    };
    let token = |path: &Path| roots.tokenise(&path.to_string_lossy());
    let paths = if config.paths == Paths::Portable { "remapped" } else { "as they are" };
    let mut list = vec![
        part(parts::KILN_FORMAT, "", Some(parts::FORMAT.to_owned())),
        part(PROGRAM, "", Some(content.to_string())),
        part("paths", "", Some(paths.to_owned())),
        part(parts::WORKING_DIRECTORY, "", Some(token(cwd))),
    ];
    for arg in &program.args {
        let arg = arg.to_str().ok_or_else(|| Bypass::new("non-utf8-argument", ""))?;
        list.push(part(parts::FLAG, &roots.tokenise_text(arg), None));
    }
    for name in ["TARGET", "HOST"] {
        list.push(part("target", name, env.text(name).map(str::to_owned)));
    }
    let features = env.names().filter_map(|name| name.strip_prefix("CARGO_FEATURE_"));
    list.extend(features.map(|name| part(parts::CFG, &format!("feature={name}"), None)));
    Ok(list)
}
